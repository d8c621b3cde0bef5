"""Comparison of models on one site's holdout.

They are the global, the local-only and the personalised one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flfed.rows.comparison.arms import (
    ArmFigures,
    Arms,
    Differences,
    add_incumbent,
    compare_arms,
    hide_figures,
    keep_one_accuracy,
    persons_of,
)
from flfed.rows.comparison.importance import ColumnImportance, importances
from flfed.rows.comparison.incumbent import compare_incumbent
from flfed.rows.comparison.subgroups import METRIC, figures_by_group
from flfed.rows.evaluation.calibration import Calibration, calibrate, without_calibration
from flfed.rows.evaluation.scoring import histogram, is_count, withheld
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Asking
from flfed.study.tables import OwnFamily
from flfed.summaries.score_bins import EVEN_ODDS, GroupFigure, PointCounts, ScoreBins
from flfed.summaries.summary import Arrays, Encoder, Summary
from flfed.words import render


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
        Of the global model, at the false positive rates that the study names.
    groups : sequence of GroupFigure
        Of the global model, by the columns that the study names.
    importance : sequence of ColumnImportance
        Of the global model, where the study asks for permutations.
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
    figures = yield from compare_arms(session, table, arrays, encoder, sd, start)
    y = figures.y
    shared = figures.scores["global"]
    own_family = None
    if session.study.train and session.is_judged:
        own = yield from session.local_model()  # made by now
        own_family = own.family
    budget = session.study.compare.alert_budget
    reasons = _reasons(session, figures)
    counted = None
    output = "single-cells-in-sums" if session.study.compare.is_summed else "score-histogram"
    if task == "binary" and policy.allows(output):
        counted = histogram(y, shared, bins)
    # Two accuracies over the same rows say how many rows two models call differently.
    counts = {name: reasons[name] for name in figures.estimates if not policy.is_open and is_count(name, task, budget)}
    arms, differences = keep_one_accuracy(figures.estimates, figures.differences, list(counts))
    person = persons_of(session, table)
    incumbent = compare_incumbent(session, table, y, shared, person, figures.groups)
    notes = _left_out(session)
    source = session.site.source
    if source.sample < 1:
        notes.append(render("figures.notes.sample", share=f"{source.sample:g}"))
    if incumbent is not None:
        arms, differences = add_incumbent(arms, differences, incumbent)
        notes.append(incumbent.note)
    points = yield from _points(session, y, shared, arrays, encoder)
    importance = yield from importances(session, table, person, arrays, encoder)
    if explanations := sorted(set(filter(None, reasons.values()))):
        notes.append(f"withheld by the site's policy: {'; '.join(explanations)}")
    return SiteComparison(
        training_rows=session.table.training_rows,
        holdout_rows=len(table),
        arms=hide_figures(arms, reasons),
        differences=hide_figures(differences, reasons),
        summary=_holdout_sums(session),
        histogram=counted,
        own_family=own_family,
        points=points,
        groups=figures_by_group(session, table, shared, person),
        importance=importance,
        calibration=_calibration(session, figures, reasons),
        note="; ".join(filter(None, notes)),
    )


def _reasons(session: SiteSession, figures: ArmFigures) -> dict[str, str]:
    """Return why each metric stays, or "".

    One arm's reason withholds a metric of all, since the others would reveal it.
    """
    budget = session.study.compare.alert_budget
    reasons = {}
    for name in figures.estimates:
        whys = (
            withheld(name, figures.y, score, session.task, session.policy, budget) for score in figures.scores.values()
        )
        reasons[name] = next(filter(None, whys), "")
    return reasons


def _holdout_sums(session: SiteSession) -> Summary | None:
    """Return the sums over holdout rows that Table 1 is made of, None where a run has none."""
    if session.table.joined is not None or not session.study.train:
        return None
    return session.holdout_summary()


def _calibration(session: SiteSession, figures: ArmFigures, reasons: Mapping[str, str]) -> Calibration | None:
    """Return the calibration of the shared model, None where the study does not ask for it.

    It stays where the area under the ROC curve does. `reasons` are why each metric stays, or "".
    """
    if not session.study.compare.calibration:
        return None
    if reasons[METRIC]:
        return without_calibration(f"withheld: {reasons[METRIC]}")
    return calibrate(figures.y, figures.scores["global"], figures.groups)


def _points(
    session: SiteSession, y: np.ndarray, score: np.ndarray, arrays: Arrays, encoder: Encoder
) -> Asking[list[PointCounts]]:
    """Yield requests and return the counts at the study's false positive rates, as they may leave.

    `arrays` and `encoder` make the scores.
    """
    rates = session.study.compare.false_positive_rates
    if not rates or session.task != "binary":
        return []
    if not session.policy.is_open:
        return withhold_all(rates, render("figures.withheld.threshold"))
    training = session.encode_training(session.in_use(encoder))
    outputs = yield from session.outputs(arrays, training.x)
    target = session.target(session.table.training)
    predicted = session.predictions(outputs, encoder)
    return [count_flagged(rate, y, score, threshold_of(rate, target, predicted)) for rate in rates]


def _left_out(session: SiteSession) -> list[str]:
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


def threshold_of(rate: float, y: np.ndarray, score: np.ndarray) -> float:
    """Return the least of the scores, or just above all, that flags at most a share of the rows without the outcome.

    `y` and `score` [rows] are the classes and predicted probabilities of training rows.

    Examples
    --------
    >>> threshold_of(0.5, np.array([0, 0, 1, 0, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    0.3
    """
    falling = np.unique(score)[::-1]
    others = np.sort(score[y != 1])
    alarms = len(others) - np.searchsorted(others, falling)
    fits = falling[alarms <= rate * len(others) + 1e-9]
    if len(fits):
        return float(fits[-1])
    return float(np.nextafter(falling[0], np.inf)) if len(falling) else 1.0


def count_flagged(rate: float, y: np.ndarray, score: np.ndarray, threshold: float) -> PointCounts:
    """Return the confusion table at a threshold; a score that is not a number is never flagged."""
    event = y == 1
    flagged = np.where(np.isnan(score), -np.inf, score) >= threshold
    tp = int((flagged & event).sum())
    fp = int((flagged & ~event).sum())
    tn = int((~event).sum()) - fp
    return PointCounts(rate=rate, tp=tp, fp=fp, fn=int(event.sum()) - tp, tn=tn, method="")


def withhold_all(rates: Sequence[float], why: str) -> list[PointCounts]:
    """Return the points with -1 in place of counts, and why."""
    cells = dict.fromkeys(("tp", "fp", "fn", "tn"), -1)
    return [PointCounts(rate=rate, method=f"withheld: {why}", **cells) for rate in rates]
