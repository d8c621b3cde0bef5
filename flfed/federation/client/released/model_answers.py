"""A site's noised answers about a model.

They are counts for encoder and scores, under covering noise.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.federation.client.protection import round_charge
from flfed.federation.client.released.noised_answer import (
    AnswerFile,
    NoisedAnswer,
    Part,
    answer_path,
    noised_holdout_counts,
    releases_of,
    trained_units,
)
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import decline
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_counts import pair_numbers, pair_query, persons_of, training_cells, weights_of
from flfed.rows.training.requests import ComputeRequest
from flfed.seeds import generator
from flfed.summaries.noised_scores import (
    FIRST,
    OWN,
    PAIRS,
    SCORES,
    first_counts,
    score_counts,
)
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.accounting import Release
from flfed.updates.arrays import Arrays, byte_array, entries_of, flattened, shapes_of, unflattened
from flfed.updates.messages.summarise import ScoresReply, ScoresRequest


def is_last(reply: object) -> bool:
    """Return whether a reply is the last of a study.

    The last one has counts by class and score.
    """
    return isinstance(reply, ScoresReply) and reply.counts.ndim == 2


def count_scores(
    request: ScoresRequest, session: SiteSession, own: SiteRun
) -> Generator[ComputeRequest, Any, ScoresReply]:
    """Return noised counts of holdout rows by score.

    Where bins are given they are by class and score. Raises NotSpent where not allowed.
    """
    if request.pairs:
        if not session.study.compares_privately:
            decline("kind-of-another-study")
        return (yield from _compared(request, session))
    encoder = session.in_use(request.encoder)
    holdout = session.table.holdout("scores")
    rows = session.encode(holdout, encoder)
    odds = yield from _log_odds(session, request.arrays, rows.x)
    weights = weights_of(holdout, session.schema, by_person=session.study.by_person)
    of_model = arrays_sha256({**request.arrays, **encoder.arrays()})
    if request.edges is None:
        name = FIRST
        exact = first_counts(odds, weights)
    else:
        name = SCORES
        exact = score_counts(odds, rows.y.astype(np.int64), weights, request.edges)
        of_model = arrays_sha256({"edges": request.edges, "of": byte_array(bytes.fromhex(of_model))})
    # The counts of another model are other counts, which are charged and drawn separately.
    counts = noised_holdout_counts(session, name, of_model, exact, releases_of(session.study)[name])
    return ScoresReply(counts=counts)


def _log_odds(session: SiteSession, arrays: Arrays, x: np.ndarray) -> Generator[ComputeRequest, Any, np.ndarray]:
    outputs = yield from session.outputs(arrays, x)
    return np.ravel(outputs).astype(np.float64)


def _compared(request: ScoresRequest, session: SiteSession) -> Generator[ComputeRequest, Any, ScoresReply]:
    """Return noised pairs of holdout rows for a comparison.

    The model orders them better than the site's own, which is trained under noise.
    """
    encoder = session.in_use(request.encoder)
    releases = releases_of(session.study)
    own = yield from _own_model(session, encoder, releases[OWN])
    holdout = session.table.holdout("scores")
    rows = session.encode(holdout, encoder)
    shared_odds = yield from _log_odds(session, request.arrays, rows.x)
    own_odds = yield from _log_odds(session, own, rows.x)
    persons = persons_of(holdout, session.schema) if session.study.by_person else None
    release = releases[PAIRS]
    exact = pair_numbers(rows.y.astype(np.int64), shared_odds, own_odds, persons=persons)
    answer = NoisedAnswer(
        session=session,
        question=PAIRS,
        request=arrays_sha256({**request.arrays, **encoder.arrays()}),
        parts={PAIRS: Part(exact=exact, query=pair_query(release.noise), release=release)},
        side="holdout",
    )
    return ScoresReply(counts=answer.drawn()[PAIRS])


def _own_model(session: SiteSession, encoder: Encoder, release: Release) -> Generator[ComputeRequest, Any, Arrays]:
    """Return a model that is trained on the site's rows alone.

    It is of the study's kind and plan, with its own noise. It is charged before its training and stored, so that a
    repeated request costs nothing.
    """
    charge = round_charge(session.protection)
    if charge is None:
        return (yield from _trained_alone(session, encoder, release))
    path = answer_path(charge, session, f"{OWN}-{encoder.sha256()}")
    model_file = AnswerFile(path, training_cells(session, by_person=session.study.by_person))
    shapes = shapes_of(session.drawn_model())
    # Of two requests at once the second gets the model that the first one paid for.
    with model_file.locked(".training.lock"):
        before = model_file.read(entries_of(shapes))
        if before is not None:
            return unflattened(before, shapes)
        charge.answer([release], answer=OWN, request=encoder.sha256(), side="training")
        arrays = yield from _trained_alone(session, encoder, release)
        model_file.write([flattened(arrays)])
        return arrays


def _trained_alone(session: SiteSession, encoder: Encoder, release: Release) -> Generator[ComputeRequest, Any, Arrays]:
    """Return a model after all rounds on the site's rows.

    It is of the study's kind and plan, with the noise of a release.
    """
    protection = session.protection
    if protection is None:
        raise ValueError(f"study {session.study.name!r} protects nothing")
    arrays = session.drawn_model()
    steps = replace(protection.steps, noise=release.noise)
    units = trained_units(session)
    rows = session.training(encoder)
    rounds = session.study.rounds
    for round in range(1, rounds + 1):
        rng = generator(session.seed, site=session.site.name, purpose=OWN, number=round)
        lr = session.study.plan.lr * session.study.plan.factor(round, rounds)
        fit = session.fit_request(arrays, rows, rng, lr=lr)
        fitted = yield replace(fit, private=steps, chance=protection.chance(rng), units=units)
        arrays = {name: value + fitted.arrays[name] for name, value in arrays.items()}
    return arrays
