"""Figures over all sites, and the score histograms that sites sent with their comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import Any

import numpy as np

from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.store.entries import MetricRow
from flfed.records.store.tables import finite
from flfed.rows.evaluation.intervals import hanley_mcneil, logit_limits
from flfed.summaries.drift import columns_of
from flfed.summaries.score_bins import (
    EVEN_ODDS,
    LEAST_SPREAD,
    GroupFigure,
    PointCounts,
    ScoreBins,
    auc_between,
    auc_bound,
)
from flfed.summaries.summary import Layout, Summary, merge
from flfed.summaries.table_one import table_one
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.messages.compare import CalibrationFigure, CompareReplies, CompareReply
from flfed.updates.messages.train import Scores
from flfed.words import render

Payload = dict[str, Any]
"""A summary of a run, or a part of it."""
Counts = dict[str, list[list[int]]]
"""By class, "0" and "1": pairs of a bin and its rows, for the bins that have any."""


SCORE_BINS = "score-bins"
"""Key in a checkpoint."""
LEAST_SITES = 3
"""Least number of sites whose counts decide the bins: of two, each could infer the other's predictions."""
WIDEST = 0.0025
"""Largest error of the AUC from the last round's counts with which holdout rows are counted in the same bins: half of
the error allowed in a final figure."""
MEANS = ("loss", "log_loss", "brier_score_loss", "accuracy_score", "mean_absolute_error")
"""Metrics that are means over rows: their mean over sites, weighted by rows, is exact."""
CENTRE_STEPS = 4
"""Parts of the spread to which the centre is rounded."""


def score_bins(scores: Mapping[str, Scores]) -> ScoreBins:
    """Return the bins for counting holdout rows, from the counts that sites sent with the last round.

    Their centre is the mean of both classes, weighted equally, where bins about even odds would leave the AUC open by
    more than `WIDEST`. That is so where predictions are close to each other, as those of rare events often are.

    Parameters
    ----------
    scores : dict of site to Scores
        Of one kind of rows or several.
    """
    histograms = {site: own.histogram for site, own in scores.items() if own.histogram is not None}
    summed = [*histograms.values()]
    if len(summed) < LEAST_SITES:
        return EVEN_ODDS
    counts = _summed(summed)
    if not auc_bound(counts[0], counts[1]) > WIDEST:  # as little as where a class has no rows
        return EVEN_ODDS
    odds = EVEN_ODDS.points()[1::2]
    # Both classes have equal weight, so that the mean includes a rare one.
    weights = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    centre = weights @ odds
    # All sites get the bins, which must reveal little of one site: figures are coarse.
    spread = max(float(f"{math.sqrt(weights @ (odds - centre) ** 2):.1e}"), LEAST_SPREAD)
    bins = ScoreBins(round(round(centre / spread * CENTRE_STEPS) * spread / CENTRE_STEPS, 6), spread)
    # A few distant rows widen all bins, which must be finer only where pairs of rows share a bin.
    pairs = counts[0] * counts[1]
    return bins if pairs @ (bins.widths(odds) / EVEN_ODDS.widths(odds)) < pairs.sum() else EVEN_ODDS


def score_histograms(replies: CompareReplies, bins: ScoreBins = EVEN_ODDS) -> Payload | None:
    """Return the shared model's score histograms on holdout rows, by site and summed; None where no site sent one.

    Parameters
    ----------
    replies : dict of site to CompareReply
    bins : ScoreBins

    Returns
    -------
    dict
        `bins`, `limit` and `scale`, and `centre` and `spread` where the bins have another centre (see `ScoreBins`),
        `rows` (which), `sites` (by site `Counts`), `all` (`Counts` or None), `combined-sites` and `requested-sites`:
        the number of sites in the sum, and of all. Sites without a histogram are not named: they follow from the
        participants.
    """
    histograms = {site: reply.histogram for site, reply in replies.items() if reply.histogram is not None}
    if not histograms:
        return None
    summed = [*histograms.values()]
    axis: Payload = {"scale": "asinh of log-odds"}
    if bins.centre is not None:
        axis = {"scale": "Student's t (2) of log-odds", "centre": bins.centre, "spread": bins.spread}
    return {
        "bins": bins.bins,
        "limit": bins.limit,
        **axis,
        "rows": "holdout",
        "sites": {site: _sparse(counts) for site, counts in histograms.items()},
        "all": _sparse(reduce(np.add, summed)) if summed else None,
        "combined-sites": len(summed),
        "requested-sites": len(replies),
    }


def flagged_at_rates(replies: CompareReplies) -> Payload | None:
    """Return the shared model's counts at false positive rates, by site and summed; None where none were requested.

    Returns
    -------
    dict
        `rows` (which), `requested-sites` (number of sites), `sites` (by site) and `all`: lists of points, each with
        `rate`, `tp`, `fp`, `fn` and `tn`, which are None where they are suppressed. A site's point has the reason
        in `why`, a point of `all` the number of summed sites in `sites`. Each site has a threshold of its own.
    """
    counts_by_site: dict[str, dict[float, PointCounts]] = {}
    for site, reply in replies.items():
        if reply.points:
            counts_by_site[site] = {of.rate: of for of in reply.points}
    if not counts_by_site:
        return None
    rates = list(dict.fromkeys(chain.from_iterable(counts_by_site.values())))
    summed = []
    for rate in rates:
        counts = [of[rate].counts for of in counts_by_site.values() if rate in of and min(of[rate].counts) >= 0]
        total = np.sum(counts, axis=0).tolist() if counts else [None] * 4
        summed.append({"rate": rate, **dict(zip(CELLS, total, strict=True)), "sites": len(counts)})
    own = {site: [*map(_point, points_of.values())] for site, points_of in counts_by_site.items()}
    return {"rows": "holdout", "requested-sites": len(replies), "sites": own, "all": summed}


def subgroups(replies: CompareReplies) -> Payload | None:
    """Return the shared model's figures within groups of holdout rows, at each site.

    The result is None where none were requested.

    Returns
    -------
    dict
        `metric`, `rows` (which), `requested-sites` (number of sites), and `sites`: by site a list of groups, each with
        `column`, `group`, `value`, `low` and `high` (None where undefined or suppressed) and `method`, which is also
        the reason.
    """
    groups_by_site = {site: reply.groups for site, reply in replies.items() if reply.groups}
    if not groups_by_site:
        return None
    sites = {site: [*map(_group, groups)] for site, groups in groups_by_site.items()}
    return {"metric": "roc_auc_score", "rows": "holdout", "requested-sites": len(replies), "sites": sites}


def _group(of: GroupFigure) -> Payload:
    return {**vars(of), **{name: finite(getattr(of, name)) for name in ("value", "low", "high")}}


def calibrations(replies: CompareReplies) -> Payload | None:
    """Return slope and intercept of the shared model's calibration, at each site.

    The result is None where none were requested.

    Returns
    -------
    dict
        `rows` (which), `requested-sites` (number of sites), and `sites`: by site `slope` and `intercept`, each with
        `value`, `low`, `high` and `variance` (None where undefined or suppressed), `few-events` (whether an outcome
        has fewer than 100 rows) and `method`, which is also the reason.
    """
    figures_by_site = {site: reply.calibration for site, reply in replies.items() if reply.calibration}
    if not figures_by_site:
        return None
    sites = {}
    for site, figures in figures_by_site.items():
        sites[site] = {of.name: _calibration_figure(of) for of in figures}
    return {"rows": "holdout", "requested-sites": len(replies), "sites": sites}


def _calibration_figure(of: CalibrationFigure) -> Payload:
    numbers = {name: finite(getattr(of, name)) for name in ("value", "low", "high", "variance")}
    few = (render("figures.methods.few-events"), render("figures.methods.few-events-groups"))
    return {**numbers, "few-events": of.method in few, "method": of.method}


def importances(replies: CompareReplies, columns: Sequence[str]) -> Payload | None:
    """Return the shared model's permutation importances on holdout rows, by site and over sites.

    The result is None where none were requested.

    Parameters
    ----------
    replies : dict of site to CompareReply
    columns : sequence of str
        In the study's order.

    Returns
    -------
    dict
        `rows` (which), `requested-sites` (number of sites), `columns` and `sites` (by site): lists of columns, each
        with `column` and `increase`, None where there is none. Over sites it is the mean weighted by their test rows,
        of as many as `sites`; a site's column has the reason in `why`.
    """
    increases_by_site: dict[str, dict[str, float]] = {}
    for site, reply in replies.items():
        if reply.importance or reply.withheld:
            increases_by_site[site] = {of.column: of.increase for of in reply.importance}
    if not increases_by_site:
        return None
    merged: list[Payload] = []
    for name in columns:
        inside = [(replies[site].holdout_rows, of[name]) for site, of in increases_by_site.items() if name in of]
        mean = weighted_mean(inside)
        merged.append({"column": name, "increase": mean, "sites": len(inside)})
    own = {site: _increases(replies[site], columns) for site in increases_by_site}
    return {"rows": "holdout", "requested-sites": len(replies), "columns": merged, "sites": own}


def _increases(reply: CompareReply, columns: Sequence[str]) -> list[Payload]:
    """Return one site's importances, or the reason for their absence, in the order of the study's columns."""
    increase = {of.column: of.increase for of in reply.importance}
    why = {of.column: of.method for of in reply.withheld}
    return [
        {"column": name, "increase": increase.get(name), "why": why.get(name, "")}
        for name in columns
        if name in increase or name in why
    ]


def weighted_mean(parts: Sequence[tuple[float, float]]) -> float | None:
    """Return the mean of values weighted by rows, None without rows.

    Parameters
    ----------
    parts : sequence of (rows, value)
    """
    rows = sum(rows for rows, _ in parts)
    return math.fsum(n * value for n, value in parts) / rows if rows else None


CELLS = ("tp", "fp", "fn", "tn")


def _point(of: PointCounts) -> Payload:
    counts = of.counts if min(of.counts) >= 0 else [None] * 4
    return {"rate": of.rate, **dict(zip(CELLS, counts, strict=True)), "why": of.method}


def round_figures(scores: Mapping[str, Scores]) -> list[MetricRow]:
    """Return a round's figures over all sites, without their rows.

    A site too small for validation rows scores training rows: the two are never mixed.
    """
    figures = []
    for kind in dict.fromkeys(s.rows for s in scores.values()):
        alike = {site: s for site, s in scores.items() if s.rows == kind and s.num_examples > 0}
        figures += _means(kind, alike)
        counts = [s.histogram for s in alike.values() if s.histogram is not None]
        # The AUC over these sites needs the counts of each.
        if counts and len(counts) == len(alike):
            rows = sum(s.num_examples for s in alike.values())
            figures.append(MetricRow(None, kind, "roc_auc_score", *auc_between(_summed(counts)), n=rows))
    return figures


def _means(kind: str, alike: Mapping[str, Scores]) -> list[MetricRow]:
    """Return the means over sites of metrics that are means over rows, all of one kind."""
    means = []
    for name in dict.fromkeys(chain.from_iterable(s.metrics for s in alike.values())):
        if name in MEANS:
            parts = [(s.num_examples, s.metrics[name]) for s in alike.values() if name in s.metrics]
            means.append(MetricRow(None, kind, name, weighted_mean(parts), n=sum(n for n, _ in parts)))
    return means


def overall_figures(record: RoundRecord) -> list[MetricRow]:
    """Return a round's figures over all sites: from the sites' own, and the mean losses of a secure sum."""
    figures = round_figures(record.scores)
    return figures + [MetricRow(None, arm, "loss", value) for arm, value in record.mean_losses.items() if arm != "fit"]


def _summed(counts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of some sites' counts, in a type large enough for it."""
    return np.asarray(np.stack(counts).sum(axis=0, dtype=np.float64))


def tables_of(
    layout: Layout, training: Mapping[str, Summary], holdouts: Mapping[str, Summary | None]
) -> dict[str, Payload]:
    """Return Table 1 and the columns' figures over training and holdout rows, by the summary's name."""
    of_sites: dict[str, list[Summary]] = {}
    for site, summary in training.items():
        holdout = holdouts.get(site)
        of_sites[site] = [summary] if holdout is None else [summary, holdout]
    alone = [site for site, summaries in of_sites.items() if len(summaries) == 1]
    note = ""
    if alone:
        note = f"Training rows only, for want of holdout rows that may be counted: {', '.join(alone)}."
    rows = table_one(layout, of_sites)
    merged_by_site = {site: merge(summaries) for site, summaries in of_sites.items()}
    return {
        "table-1": {"rows": rows, "note": note},
        "columns": {"columns": columns_of(layout, merged_by_site), "note": note},
    }


def auc_interval(counts: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a histogram's AUC, for independent rows; None twice where a class has no rows.

    As in `rows.evaluation.intervals.compare`, but with each row in the place of its bin: DeLong on the logit scale, and
    Hanley and McNeil where that has no variance.

    Parameters
    ----------
    counts : array [2, bins]
        Rows of each class by predicted probability, from low to high.
    """
    negative, positive = counts
    rows = float(negative.sum()), float(positive.sum())
    if not all(rows):
        return None, None
    above = (np.cumsum(negative) - negative / 2) / rows[0]  # for a positive, the share of negatives below it
    below = 1 - (np.cumsum(positive) - positive / 2) / rows[1]
    auc = float(positive @ above / rows[1])
    variance = sum(
        float(weights @ (place - auc) ** 2) / max(total - 1, 1) / total
        for weights, place, total in ((negative, below, rows[0]), (positive, above, rows[1]))
    )
    centre = auc
    # All rows ranked right, or one of a class: the empirical variance is 0 or missing.
    if min(rows) < 2 or not variance > 0:
        centre, variance = hanley_mcneil(auc, int(rows[1]), int(rows[0]))
    return logit_limits(auc, centre, variance, NORMAL_95)


def _sparse(counts: np.ndarray) -> Counts:
    """Return the bins that have rows, by class."""
    return {str(label): _filled(row) for label, row in enumerate(counts)}


def _filled(row: np.ndarray) -> list[list[int]]:
    return [[int(i), int(row[i])] for i in np.flatnonzero(row)]
