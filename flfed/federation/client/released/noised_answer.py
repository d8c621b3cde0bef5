"""A site's noised answers, each drawn once in a run: counts before training, of scores, and of an analysis."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from flfed.federation.client.protection import run_charge
from flfed.federation.client.site_run import SiteRun
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_analysis import STEP, GaussianQuery, training_counts, weights_of
from flfed.rows.training.private_noise import NoiseSource, SystemNoise, UnitCounts
from flfed.rows.training.requests import ComputeRequest
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.noised_scores import COUNTS, SCORES, score_counts
from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import Arrays
from flfed.updates.mechanism import acting_mechanism
from flfed.updates.messages.summarise import ScoresReply, ScoresRequest

FAR = 10.0
"""Deviations of the noise within which a noised number of rows lies: the chance of more is one in 10^23."""


def draw_once(
    session: SiteSession,
    question: str,
    exact: Mapping[str, np.ndarray],
    queries: Mapping[str, GaussianQuery],
    request: str = "",
) -> Arrays:
    """Return numbers with noise, which is drawn once in a run: the same request gets them again, another one nothing.

    Parameters
    ----------
    session : SiteSession
    question : str
        Name of the answer.
    exact, queries : mapping of name to array and to GaussianQuery
        The exact numbers, and how each is noised.
    request : str
        Hash of the coordinator's choice, such as a model; an empty text without a choice.

    Raises
    ------
    NotSpent
        If the account does not allow it, or the noise was drawn for another request.
    """

    def noised() -> Arrays:
        chance: NoiseSource = SystemNoise()
        if session.protection is not None:
            # For a cut of one table the noise follows from the seed, as do its sites; else it is the system's.
            purpose = f"{question}-{request}"
            chance = session.protection.chance(generator(session.seed, site=session.site.name, purpose=purpose))
        return {part: query.answer(exact[part], chance) for part, query in queries.items()}

    own = run_charge(session.protection)
    return noised() if own is None else own.account.answer(own.charge, question, request, noised)


def noise_of(study: Study, answer: str) -> GaussianQuery:
    """Return how one of a study's counts is noised, all numbers of which one person moves together by at most 1."""
    release = acting_mechanism(study).answer_releases(study.plan, study.rounds)[answer]
    return GaussianQuery(sensitivity=1.0, noise=release.noise, step=STEP)


def noised_counts(session: SiteSession) -> Arrays:
    """Return the training rows by class, with noise; raises NotSpent."""
    exact = training_counts(session, by_person=session.study.by_person)
    return draw_once(session, COUNTS, {COUNTS: exact}, {COUNTS: noise_of(session.study, COUNTS)})


def trained_units(session: SiteSession) -> UnitCounts:
    """Return how many rows, or persons, training divides by, as the noised counts have it."""
    rows = float(noised_counts(session)[COUNTS].sum())
    far = FAR * math.sqrt(2) * noise_of(session.study, COUNTS).deviation
    return UnitCounts(units=max(1.0, round(rows)), most=max(1, round(rows + far)))


def count_scores(
    request: ScoresRequest, session: SiteSession, own: SiteRun
) -> Generator[ComputeRequest, Any, ScoresReply]:
    """Return counts of holdout rows by class and score, with noise; raises NotSpent."""
    encoder = session.in_use(request.encoder)
    holdout = session.table.holdout("scores")
    rows = session.encode(holdout, encoder)
    outputs = yield from session.outputs(request.arrays, rows.x)
    weights = weights_of(holdout, session.schema, by_person=session.study.by_person)
    exact = score_counts(np.ravel(outputs).astype(np.float64), rows.y.astype(np.int64), weights, request.centre)
    of = arrays_sha256({**request.arrays, **encoder.arrays(), "centre": np.array(request.centre)})
    query = noise_of(session.study, SCORES)
    return ScoresReply(counts=draw_once(session, SCORES, {SCORES: exact}, {SCORES: query}, of)[SCORES])
