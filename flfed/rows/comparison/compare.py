"""Comparison of models on one site's holdout.

They are the global, the local-only and the personalised one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
import pandas as pd

from flfed.rows.baselines import naive_outputs
from flfed.rows.comparison.importance import ColumnImportance, importances
from flfed.rows.comparison.incumbent import ARM as INCUMBENT
from flfed.rows.comparison.incumbent import PAIR as INCUMBENT_PAIR
from flfed.rows.comparison.incumbent import IncumbentFigures, compare_incumbent
from flfed.rows.comparison.operating_points import (
    CellSuppression,
    count_points,
    set_thresholds,
    withhold_all,
)
from flfed.rows.comparison.own_columns import ARM as OWN_COLUMNS
from flfed.rows.comparison.own_columns import adjusted_scores, local_scores, used_at
from flfed.rows.comparison.recalibration import updates_of
from flfed.rows.comparison.subgroups import METRIC, GroupScores, groupings
from flfed.rows.evaluation.bootstrap import PARTS, Groups, Metrics, Pair
from flfed.rows.evaluation.calibration import Calibration, calibrate, without_calibration
from flfed.rows.evaluation.intervals import NAN, Difference, Estimate, row_losses, widen_differences
from flfed.rows.evaluation.intervals import compare as compare_scores
from flfed.rows.evaluation.scoring import histogram, is_count, too_few, withheld, within_steps
from flfed.rows.session import SiteSession
from flfed.rows.streamed import StreamedSession
from flfed.rows.training.requests import Asking, together
from flfed.seeds import generator
from flfed.study.tables import POINT_KINDS, OwnFamily, Point
from flfed.summaries.recalibration import RecalibrationFigure
from flfed.summaries.score_bins import EVEN_ODDS, GroupFigure, PointCounts, ScoreBins
from flfed.summaries.summary import Arrays, Encoder, Summary, arrays_sha256
from flfed.words import render

Arms = dict[str, dict[str, Estimate]]
Differences = dict[str, dict[Pair, Difference]]
Key = TypeVar("Key", str, Pair)
Figure = TypeVar("Figure", Estimate, Difference)
OWN_SAME = "local-only-same"
"""The arm of a site's own model of the study's kind, where its own model is the best of any."""
OWN_HALF = "local-only-half"
"""The site's own model of half of its rows, where the study's `own-rows` leaves some out; its figures stay here."""
STARTED = ("warm-start", "warm-start-tuned")
"""The arms of the model that a run began with: as it is, and pulled towards it on the site's own rows."""
PAIRS: tuple[Pair, ...] = (("global", "local-only"), ("personalised", "local-only"), ("personalised", "global"))


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteComparison:
    """Comparison of one site, as it may leave.

    Attributes
    ----------
    training_rows, holdout_rows : int
    arms : dict of metric to dict of arm to Estimate
    differences : dict of metric to dict of (a, b) to Difference
    summary : Summary or None
        Over holdout rows.
    histogram : array or None
        Of the global model on holdout rows.
    note : str
    own_family : str or None
        Of the site's own model; None where it is of the study's own kind.
    points : sequence of PointCounts
        Of the global model, at the thresholds and alert budgets that the study names.
    groups : sequence of GroupFigure
        Of the global model, by the columns that the study names.
    importance : sequence of ColumnImportance
        Of the global model, where the study asks for permutations.
    recalibration : sequence of RecalibrationFigure
        Of a model that nobody trained, where the study asks for calibration.
    """

    training_rows: int
    holdout_rows: int
    arms: Arms
    differences: Differences
    summary: Summary | None
    histogram: np.ndarray | None
    note: str
    own_family: OwnFamily | None = None
    points: Sequence[PointCounts] = ()
    groups: Sequence[GroupFigure] = ()
    importance: Sequence[ColumnImportance] = ()
    calibration: Calibration | None = None
    recalibration: Sequence[RecalibrationFigure] = ()


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

    The requests of all arms go side by side, and the predictions are on the rows of `table`.

    `sd` as `SiteSession.personalised` takes it. `same` adds the site's own model of the study's kind, where its own
    model is another. It also adds the one that has the site's own columns, where it has some. `start` adds the model
    that the run began with, unchanged and fitted to the site.
    """
    session.coded(table)
    arrays = session.own_arrays.at_site(arrays)
    x = session.encode(table, session.in_use(encoder)).x
    arms = [session.outputs(arrays, x), session.local_model(), adjusted_scores(session, table, arrays, encoder, sd)]
    names = []
    if same and session.study.compare.site_model == "best":
        arms.append(session.local_model(same=True))
        names.append(OWN_SAME)
    if same and session.own_rows is not None:
        arms.append(session.local_model(half=True))
        names.append(OWN_HALF)
    outputs, local, adjusted, *others = yield from together(arms)
    # The own model has its own encoder, since the site would know no other.
    own_x = session.encode(table, local.encoder).x
    own = [session.predictions(model.outputs(own_x), model.encoder) for model in (local, *others)]
    scores = {"global": session.predictions(outputs, encoder), "local-only": own[0], "personalised": adjusted}
    scores |= dict(zip(names, own[1:]))
    if same and used_at(session):
        scores[OWN_COLUMNS] = yield from local_scores(session, table)
    if start:
        unchanged, fitted = yield from together([session.outputs(start, x), session.pulled(start, encoder)])
        scores[STARTED[0]] = session.predictions(unchanged, encoder)
        scores[STARTED[1]] = session.predictions(fitted(x), encoder)
    if same:
        scores |= _naive_scores(session, table)
    return scores


def _compared_scores(
    session: SiteSession, table: pd.DataFrame, arrays: Arrays, encoder: Encoder, sd: float | None, start: Arrays | None
) -> Asking[Arrays]:
    """Yield requests and return the predictions of all arms; of a validation those of its one model."""
    if session.table.joined is not None:
        own = yield from session.local_model()
        outputs = own.outputs(session.encode(table, own.encoder).x)
        return {"global": session.table.joined, "local-only": session.predictions(outputs, own.encoder)}
    if session.study.train:
        return (yield from arm_scores(session, table, arrays, encoder, sd, same=True, start=start))
    x = session.encode(table, session.in_use(encoder)).x
    outputs = yield from session.outputs(arrays, x)
    return {"global": session.predictions(outputs, encoder)}


def _naive_scores(session: SiteSession, table: pd.DataFrame) -> Arrays:
    """Return the predictions of forecasts without a model, of a regression under a holdout by time."""
    if session.task != "regression" or session.study.compare.site_model != "best":
        return {}
    encoder = session.own_encoder()
    training = session.encode(session.table.training, encoder)
    x = session.encode(table, encoder).x
    naive = session.study.compare.naive_forecasts
    outputs = naive_outputs(training, x, session.layout, encoder, naive, session.policy.least_rows())
    return {arm: session.predictions(output, encoder) for arm, output in outputs.items()}


def compare(
    session: SiteSession,
    arrays: Arrays,
    encoder: Encoder,
    sd: float | None = None,
    bins: ScoreBins = EVEN_ODDS,
    start: Arrays | None = None,
) -> Asking[SiteComparison]:
    """Yield requests and return the site's comparison.

    It is how every arm did on this site's holdout.

    Parameters
    ----------
    session : SiteSession
    arrays : dict of name to array
        The final global model.
    encoder : Encoder
        Of all sites.
    sd : float, optional
        Prior deviation of a site's own intercept, as it was estimated over sites.
    bins : ScoreBins
        In which rows are counted by class and predicted probability.
    start : dict of name to array, optional
        What the run began with, where that is a model of an earlier run.
    """
    table = session.table.holdout("compare")
    policy = session.policy
    task = session.task
    arrays = session.own_arrays.at_site(arrays)
    # One seed for all arms: their difference is taken draw by draw. That of a brought model follows from it alone, so
    # that no second study shows its figures with other draws.
    seed = session.seed if session.study.train else int(arrays_sha256(arrays)[:12], 16)
    rng = generator(seed, site=session.site.name, purpose="bootstrap")
    sums = None
    groups = None
    if isinstance(session, StreamedSession):
        sums = yield from session.compared(arrays, encoder, sd, bins, rng)
        metrics = sums.metrics(binary=task == "binary")
        y = np.arange(PARTS)
        scores = {arm: np.full(PARTS, place) for place, arm in enumerate(sums.arms)}
    else:
        y = session.target(table)
        scores = yield from _compared_scores(session, table, arrays, encoder, sd, start)
        groups = groups_of(session, table)
        metrics = within_steps(session.metrics, [table], session.study.compare)
    pairs = tuple(pair for pair in PAIRS if set(pair) <= set(scores))
    own_family = None
    if session.study.train:
        own = yield from session.local_model()  # made by now
        own_family = own.family
    blocks = session.blocks(table)
    draws = session.study.compare.resamples
    judged = compare_scores(metrics, y, scores, pairs, rng, draws=draws, groups=groups)
    if blocks is not None:
        losses = {arm: row_losses(task, y, score) for arm, score in scores.items()}
        judged = (judged[0], widen_differences(judged[1], losses, blocks))
    judged = _without_growing(session, metrics, *judged)
    budget = session.study.compare.alert_budget
    # One arm's reason withholds a metric of all, since the others would reveal it.
    reasons = {}
    for name in judged[0]:
        whys = (withheld(name, y, score, task, policy, budget) for score in scores.values())
        reasons[name] = next(filter(None, whys), "")
    counted = None
    if task == "binary" and policy.allows("score-histogram"):
        counted = histogram(y, scores["global"], bins) if sums is None else sums.histogram("global")
    # Two accuracies over the same rows say how many rows two models call differently.
    counts = {name: reasons[name] for name in judged[0] if not policy.is_open and is_count(name, task, budget)}
    arms, differences = _one_accuracy(*judged, list(counts))
    incumbent = compare_incumbent(session, table, y, scores["global"], _persons(session, table), groups)
    if incumbent is not None:
        arms, differences = _with_incumbent(arms, differences, incumbent)
    points = yield from _points(session, table, scores["global"], counts, arrays, encoder)
    importance = yield from importances(session, table, _persons(session, table), arrays, encoder)
    notes = _left_out(session, incumbent)
    if sums is not None:
        notes.append(render("figures.notes.streamed"))
    if explanations := sorted(set(filter(None, reasons.values()))):
        notes.append(f"withheld by the site's policy: {'; '.join(explanations)}")
    return SiteComparison(
        training_rows=len(session.table.training),
        holdout_rows=len(table),
        arms=_all_hidden(arms, reasons),
        differences=_all_hidden(differences, reasons),
        summary=_holdout_sums(session),
        histogram=counted,
        own_family=own_family,
        points=points,
        groups=_by_group(session, table, scores["global"]),
        importance=importance,
        calibration=_calibration(session, y, scores["global"], groups, reasons),
        recalibration=updates_of(session, table, y, scores["global"], _persons(session, table), reasons),
        note="; ".join(notes),
    )


def _holdout_sums(session: SiteSession) -> Summary | None:
    """Return the sums over holdout rows that Table 1 is made of, None where a run has none."""
    if session.table.joined is not None or not session.study.train:
        return None
    return session.holdout_summary()


def _with_incumbent(arms: Arms, differences: Differences, incumbent: IncumbentFigures) -> tuple[Arms, Differences]:
    """Return the figures with those of the score in use."""
    with_score = dict(arms), dict(differences)
    for name, figure in incumbent.estimates.items():
        with_score[0][name] = arms[name] | {INCUMBENT: figure}
        with_score[1][name] = differences[name] | {INCUMBENT_PAIR: incumbent.differences[name]}
    return with_score


def _calibration(
    session: SiteSession, y: np.ndarray, score: np.ndarray, groups: Groups, reasons: Mapping[str, str]
) -> Calibration | None:
    """Return the calibration of the shared model, None where the study does not ask for it.

    It stays where the area under the ROC curve does. `reasons` are why each metric stays, or "".
    """
    if not session.study.compare.calibration:
        return None
    if isinstance(session, StreamedSession):
        return without_calibration(render("figures.methods.streamed"))
    if reasons[METRIC]:
        return without_calibration(f"withheld: {reasons[METRIC]}")
    return calibrate(y, score, groups)


def _without_growing(
    session: SiteSession, metrics: Metrics, arms: Arms, differences: Differences
) -> tuple[Arms, Differences]:
    """Return figures without differences from an own model that more rows would make better.

    Such a model gained more than the minimum gain from half of its rows to all. A shared model that is worse than it
    stays worse.
    """
    own_rows = session.own_rows
    if own_rows is None:
        return arms, differences
    figures: tuple[Arms, Differences] = ({}, {})
    for name, by_arm in arms.items():
        sign = 1 if metrics[name].better == "higher" else -1
        growth = sign * (by_arm["local-only"].value - by_arm[OWN_HALF].value)
        figures[0][name] = {arm: figure for arm, figure in by_arm.items() if arm != OWN_HALF}
        figures[1][name] = dict(differences[name])
        if not growth > session.study.compare.least_gain(name, session.primary):
            continue
        size = np.format_float_positional(growth, precision=2, fractional=False, trim="-")
        why = render("figures.methods.growing", rows=own_rows, n=size)
        for pair, one in differences[name].items():
            is_worse = max(sign * one.low, sign * one.high) < 0
            if pair[1] == "local-only" and not is_worse:
                figures[1][name][pair] = Difference(NAN, NAN, NAN, NAN, why)
    return figures


def _points(
    session: SiteSession,
    table: pd.DataFrame,
    score: np.ndarray,
    counts: Mapping[str, str],
    arrays: Arrays,
    encoder: Encoder,
) -> Asking[list[PointCounts]]:
    """Yield requests and return the exact counts at the study's points, as they may leave.

    `counts` are the metrics of counts of the same rows: why each stays, or "". `arrays` and `encoder` make the scores.
    """
    points = session.study.compare.points
    policy = session.policy
    if not points or session.task != "binary":
        return []
    y = session.target(table)
    # False positive rates need a threshold, which training rows set.
    rates = [point for point in points if point[0] == POINT_KINDS[-1]]
    if policy.is_open:
        rules: Sequence[Point] = points
        if rates:
            training = session.table.training
            outputs = yield from session.outputs(arrays, session.encode(training, session.in_use(encoder)).x)
            rules = set_thresholds(points, session.target(training), session.predictions(outputs, encoder))
        return count_points(points, y, score, rules)
    points = tuple(point for point in points if point not in rates)
    suppressed = _suppressed(session, table, score, counts, points) if points else []
    return [*suppressed, *withhold_all(rates, render("figures.withheld.threshold"))]


def _suppressed(
    session: SiteSession, table: pd.DataFrame, score: np.ndarray, counts: Mapping[str, str], points: Sequence[Point]
) -> list[PointCounts]:
    """Return the counts at the points that an institution lets leave."""
    policy = session.policy
    y = session.target(table)
    leaving = {name for name, why in counts.items() if not why}
    if why := too_few(y, session.task, session.classes, policy):
        return withhold_all(points, why)
    # Between two edges of the histogram's bins lie few rows, and a threshold there would part them.
    if policy.allows("score-histogram"):
        return withhold_all(points, render("figures.withheld.histogram"))
    if leaving - {"accuracy_score"}:
        return withhold_all(points, render("figures.withheld.another"))
    # Before they are looked at: which of another model's counts are small would reveal something, too.
    if not session.counts_may_leave(claim=False):
        return withhold_all(points, render("figures.withheld.once"))
    suppression = CellSuppression(
        y=y,
        score=score,
        person=_persons(session, table),
        rows=session.coded(table),
        layout=session.layout,
        minimum=policy.cell_minimum,
        accuracy=bool(leaving),
    )
    point_counts = suppression.leaving(points)
    # Written down only where some leave: by another model's counts of the same rows few rows could be distinguished.
    if all(point.method for point in point_counts) or session.counts_may_leave(claim=True):
        return point_counts
    return withhold_all(points, render("figures.withheld.once"))


def _by_group(session: SiteSession, table: pd.DataFrame, score: np.ndarray) -> list[GroupFigure]:
    """Return the figures by the columns that the study names, as they may leave."""
    study = session.study
    schema = session.schema
    if not study.compare.subgroups:
        return []
    scores = GroupScores(
        y=session.target(table),
        score=score,
        person=_persons(session, table),
        policy=session.policy,
        draws=study.compare.resamples,
    )
    rng = generator(session.seed, site=session.site.name, purpose="bootstrap")
    partitions = groupings(study.compare.subgroups, schema)
    figures = list(chain.from_iterable(scores.figures(one, one.of(table, schema), rng) for one in partitions))
    # Figures by group of several models would reveal the rows that these order otherwise, as exact counts do.
    if session.policy.is_open or all(math.isnan(one.value) for one in figures):
        return figures
    if session.counts_may_leave(claim=True):
        return figures
    why = f"withheld: {render('figures.withheld.once')}"
    return [replace(one, value=NAN, low=NAN, high=NAN, method=why) for one in figures]


def _persons(session: SiteSession, table: pd.DataFrame) -> np.ndarray:
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


def _one_accuracy(arms: Arms, differences: Differences, counts: Sequence[str]) -> tuple[Arms, Differences]:
    """Return the figures with one accuracy only.

    Metrics that are `counts` (accuracy, recall) are of the global model only, and of no difference.
    """
    why = render("figures.withheld.accuracies")
    figures: tuple[Arms, Differences] = dict(arms), dict(differences)
    for name in counts:
        figures[0][name] = _hidden(arms[name], why) | {"global": arms[name]["global"]}
        figures[1][name] = _hidden(differences[name], why)
    return figures


def _left_out(session: SiteSession, incumbent: IncumbentFigures | None) -> list[str]:
    """Return the number of left-out rows in words.

    It is empty where the study leaves none out.
    """
    notes = _incomplete(session)
    if incumbent is not None and incumbent.note:
        notes.append(incumbent.note)
    return notes


def _incomplete(session: SiteSession) -> list[str]:
    """Return the number of rows that lack a feature in words, empty where the study takes them."""
    if session.study.encode.rows != "complete":
        return []
    count = session.table.left_out
    policy = session.policy
    if policy.is_open and not count:
        return []
    # Zero is small as well: that no row has a gap says something of each.
    if not policy.is_open and count < policy.cell_minimum:
        return [render("figures.notes.few", n=policy.cell_minimum)]
    return [render("figures.notes.incomplete", n=count)]


def _all_hidden(
    figures: Mapping[str, Mapping[Key, Figure]], reasons: Mapping[str, str]
) -> dict[str, dict[Key, Figure]]:
    return {name: _hidden(by_arm, reasons[name]) for name, by_arm in figures.items()}


def _hidden(figures: Mapping[Key, Figure], why: str) -> dict[Key, Figure]:
    """Return the figures with a reason in place of each, or as they are without one."""
    if not why:
        return dict(figures)
    return {key: type(figure)(NAN, NAN, NAN, NAN, f"withheld: {why}") for key, figure in figures.items()}
