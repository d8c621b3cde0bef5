"""Models that are compared at one site, its arms: predictions, estimates and differences on its holdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from flfed.rows.baselines import naive_outputs, pulled
from flfed.rows.comparison.incumbent import ARM as INCUMBENT
from flfed.rows.comparison.incumbent import PAIR as INCUMBENT_PAIR
from flfed.rows.comparison.incumbent import IncumbentFigures
from flfed.rows.evaluation.bootstrap import Groups, Pair
from flfed.rows.evaluation.intervals import NAN, Difference, Estimate, compare, row_losses, widen_differences
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Asking, together
from flfed.seeds import generator
from flfed.summaries.summary import Arrays, Encoder, arrays_sha256
from flfed.words import render

Arms = dict[str, dict[str, Estimate]]
Differences = dict[str, dict[Pair, Difference]]
Key = TypeVar("Key", str, Pair)
Figure = TypeVar("Figure", Estimate, Difference)
OWN_SAME = "local-only-same"
"""The arm of a site's own model of the study's kind, where its own model is the best of any."""
STARTED = ("warm-start", "warm-start-tuned")
"""The arms of the model that a run began with: as it is, and pulled towards it on the site's own rows."""
PAIRS: tuple[Pair, ...] = (("global", "local-only"), ("personalised", "local-only"), ("personalised", "global"))


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmFigures:
    """Predictions and figures of all arms at one site, before any is withheld.

    Attributes
    ----------
    y : array [rows]
        Outcomes.
    scores : dict of arm to array [rows]
    groups : int array [rows] or None
        As `groups_of` returns them.
    estimates : dict of metric to dict of arm to Estimate
    differences : dict of metric to dict of (a, b) to Difference
    """

    y: np.ndarray
    scores: Arrays
    groups: Groups
    estimates: Arms
    differences: Differences


def arm_scores(
    session: SiteSession,
    table: pd.DataFrame,
    arrays: Arrays,
    encoder: Encoder,
    sd: float | None = None,
    *,
    same: bool = False,
    start: Arrays | None = None,
) -> Asking[Arrays]:
    """Yield requests and return the arms' predictions.

    The requests of all arms go side by side, those of many rows in turn. The predictions are on the rows of `table`.

    `sd` as `SiteSession.personalised` takes it. `same` adds the site's own model of the study's kind, where its own
    model is another. `start` adds the model that the run began with, unchanged and fitted to the site. At a site that
    cannot be judged all figures are withheld: the shared model's predictions stand in for those of its own models.
    """
    session.coded(table)
    arrays = session.own_arrays.at_site(arrays)
    arms: dict[str, Asking[Any]] = {
        "global": _outputs(session, table, arrays, encoder),
        "local-only": session.local_model(),
        "personalised": personalised_scores(session, table, arrays, encoder, sd),
    }
    own = ["local-only"]
    if same and session.study.compare.site_model == "best":
        arms[OWN_SAME] = session.local_model(same=True)
        own.append(OWN_SAME)
    if not session.is_judged:
        arms = {arm: handler for arm, handler in arms.items() if arm not in own}
    # The rounds are over: their inputs would be held beside those of each own model.
    session.release_rows()
    made = dict(zip(arms, (yield from together(list(arms.values()), session.table.training_rows))))
    shared = session.predictions(made["global"], encoder)
    scores = {"global": shared, "local-only": shared, "personalised": made["personalised"]}
    # The own model has its own encoder, since the site would know no other.
    own_x = session.encode(table, made["local-only"].encoder).x if session.is_judged else None
    for arm in own:
        scores[arm] = shared if own_x is None else session.predictions(made[arm].outputs(own_x), made[arm].encoder)
    if start:
        rows = session.plain(session.encode_training(session.in_use(encoder)))
        fit = pulled(rows, start, session.trainable())
        x = session.encode(table, session.in_use(encoder)).x
        unchanged, fitted = yield from together([session.outputs(start, x), fit])
        scores[STARTED[0]] = session.predictions(unchanged, encoder)
        scores[STARTED[1]] = session.predictions(fitted(x), encoder)
    if same:
        scores |= _naive_scores(session, table)
    return scores


def personalised_scores(
    session: SiteSession, table: pd.DataFrame, arrays: Arrays, encoder: Encoder, sd: float | None = None
) -> Asking[np.ndarray]:
    """Yield requests and return the personalised arm's predictions on the rows of `table`."""
    # The rows are encoded when they are needed: while other models are fitted they would only take memory.
    personalised = yield from session.personalised(arrays, encoder, sd)
    session.release_rows()
    return session.predictions(personalised(session.encode(table, session.in_use(encoder)).x), encoder)


def _outputs(session: SiteSession, table: pd.DataFrame, arrays: Arrays, encoder: Encoder) -> Asking[np.ndarray]:
    """Yield one request and return the outputs of the study's model for the rows of `table`."""
    return (yield from session.outputs(arrays, session.encode(table, session.in_use(encoder)).x))


def _compared_scores(
    session: SiteSession, table: pd.DataFrame, arrays: Arrays, encoder: Encoder, sd: float | None, start: Arrays | None
) -> Asking[Arrays]:
    """Yield requests and return the predictions of all arms; of a validation those of its one model."""
    if session.table.joined is not None:
        if not session.is_judged:
            return dict.fromkeys(("global", "local-only"), session.table.joined)
        own = yield from session.local_model()
        outputs = own.outputs(session.encode(table, own.encoder).x)
        return {"global": session.table.joined, "local-only": session.predictions(outputs, own.encoder)}
    if session.study.train:
        return (yield from arm_scores(session, table, arrays, encoder, sd, same=True, start=start))
    outputs = yield from _outputs(session, table, arrays, encoder)
    return {"global": session.predictions(outputs, encoder)}


def _naive_scores(session: SiteSession, table: pd.DataFrame) -> Arrays:
    """Return the predictions of forecasts without a model, of a regression under a holdout by time."""
    if session.task != "regression" or session.study.compare.site_model != "best":
        return {}
    encoder = session.own_encoder()
    training = session.encode_training(encoder)
    x = session.encode(table, encoder).x
    naive = session.study.compare.naive_forecasts
    outputs = naive_outputs(training, x, session.layout, encoder, naive, session.policy.least_rows())
    return {arm: session.predictions(output, encoder) for arm, output in outputs.items()}


def compare_arms(
    session: SiteSession,
    table: pd.DataFrame,
    arrays: Arrays,
    encoder: Encoder,
    sd: float | None,
    start: Arrays | None,
) -> Asking[ArmFigures]:
    """Yield requests and return how every arm did on the rows of `table`; other arguments as `compare` has them."""
    # One seed for all arms: their difference is taken draw by draw. That of a brought model follows from it alone, so
    # that no second study shows its figures with other draws.
    study = session.study
    seed = session.seed if study.train else int(arrays_sha256(arrays)[:12], 16)
    rng = generator(seed, site=session.site.name, purpose="bootstrap")
    y = session.target(table)
    scores = yield from _compared_scores(session, table, arrays, encoder, sd, start)
    groups = groups_of(session, table)
    pairs = tuple(pair for pair in PAIRS if set(pair) <= set(scores))
    estimates, differences = compare(
        session.metrics, y, scores, pairs, rng, draws=study.compare.resamples, groups=groups
    )
    blocks = session.blocks(table)
    if blocks is not None:
        losses = {arm: row_losses(session.task, y, score) for arm, score in scores.items()}
        differences = widen_differences(differences, losses, blocks)
    return ArmFigures(y=y, scores=scores, groups=groups, estimates=estimates, differences=differences)


def add_incumbent(arms: Arms, differences: Differences, incumbent: IncumbentFigures) -> tuple[Arms, Differences]:
    """Return the figures with those of the score in use."""
    with_score = dict(arms), dict(differences)
    for name, figure in incumbent.estimates.items():
        with_score[0][name] = arms[name] | {INCUMBENT: figure}
        with_score[1][name] = differences[name] | {INCUMBENT_PAIR: incumbent.differences[name]}
    return with_score


def keep_one_accuracy(arms: Arms, differences: Differences, counts: Sequence[str]) -> tuple[Arms, Differences]:
    """Return the figures with one accuracy only.

    Metrics that are `counts` (accuracy, recall) are of the global model only, and of no difference.
    """
    why = render("figures.withheld.accuracies")
    figures: tuple[Arms, Differences] = dict(arms), dict(differences)
    for name in counts:
        figures[0][name] = _hidden(arms[name], why) | {"global": arms[name]["global"]}
        figures[1][name] = _hidden(differences[name], why)
    return figures


def persons_of(session: SiteSession, table: pd.DataFrame) -> np.ndarray:
    """Return whose each row is, each its own where the schema names no group; blocks of time are no people."""
    group = session.schema.group
    return pd.factorize(table[group])[0] if group else np.arange(len(table))


def groups_of(session: SiteSession, table: pd.DataFrame) -> np.ndarray | None:
    """Return the group code of each row.

    A group is a patient or customer, or a block of a holdout by time; the codes of blocks are in the order of time.
    None where each row is its own.
    """
    group_codes = session.blocks(table)
    if group_codes is None and session.schema.group:
        group_codes = pd.factorize(table[session.schema.group])[0]
    # Where every row is of another person, groups change nothing and cost time.
    if group_codes is None or len(np.unique(group_codes)) == len(table):
        return None
    return group_codes


def hide_figures(
    figures: Mapping[str, Mapping[Key, Figure]], reasons: Mapping[str, str]
) -> dict[str, dict[Key, Figure]]:
    """Return the figures of each metric with its reason in place of each, or as they are where it is ""."""
    return {name: _hidden(by_arm, reasons[name]) for name, by_arm in figures.items()}


def _hidden(figures: Mapping[Key, Figure], why: str) -> dict[Key, Figure]:
    """Return the figures with a reason in place of each, or as they are without one."""
    if not why:
        return dict(figures)
    return {key: type(figure)(NAN, NAN, NAN, NAN, f"withheld: {why}") for key, figure in figures.items()}
