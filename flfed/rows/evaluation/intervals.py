"""Intervals and paired tests of holdout figures.

They say how sure a figure is, and how sure a difference between models.

The AUC of two classes is treated after DeLong, accuracy as a share, all else by the bootstrap.
Rows that belong together (a patient with several visits) are drawn together, and then every
metric is bootstrapped. Days or weeks that are alike count as fewer blocks of time: a difference is as sure as so many
independent blocks make it. Nothing here corrects for looking at many differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtr, stdtrit

from flfed.rows.evaluation.bootstrap import Groups, Metrics, Pair, Replicates, Scores, replicate
from flfed.rows.evaluation.delong import delong
from flfed.rows.evaluation.weighted_metrics import Floats, RowMetric, Score, Target
from flfed.words import render

DRAWS = 2000
"""Bootstrap draws by default: each 95 % limit then has 50 draws beyond it."""

LEVEL = 0.95
"""Of each interval on its own."""
Z = float(ndtri((1 + LEVEL) / 2))
NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """Metric of one model on one holdout.

    It comes with its interval.

    Parameters
    ----------
    value, low, high : float
        In the unit of the metric, `low <= value <= high`; NaN where undefined.
    variance : float
        Of `value` on its own scale, as for pooling; NaN where unknown, never 0.
    method : str
        "DeLong", "Hanley-McNeil", "Wilson", "bootstrap", "bootstrap over groups"; or, where a
        figure is NaN, the reason in words.
    """

    value: float
    low: float
    high: float
    variance: float
    method: str


@dataclass(frozen=True)
class Difference:
    """Metric of model a minus that of model b.

    Both are on the same rows, also where lower is better.

    Parameters
    ----------
    value, low, high : float
        In the unit of the metric; NaN where undefined.
    p : float, 0 to 1
        Two-sided, of no difference.
    method : str
        As in `Estimate`; also "Agresti-Min" (accuracy) and "identical scores".
    """

    value: float
    low: float
    high: float
    p: float
    method: str


def estimate(
    metric: RowMetric,
    y: Target,
    score: Score,
    rng: np.random.Generator,
    draws: int = DRAWS,
    groups: Groups = None,
) -> Estimate:
    """Return a metric of one model with its interval.

    Parameters are as in `compare`.
    """
    return compare({"": metric}, y, {"": score}, (), rng, draws, groups)[0][""][""]


def compare(
    metrics: Metrics,
    y: Target,
    scores: Scores,
    pairs: Iterable[Pair],
    rng: np.random.Generator,
    draws: int = DRAWS,
    groups: Groups = None,
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[Pair, Difference]]]:
    """Return every estimate and every paired difference.

    They are from one set of bootstrap draws.

    Parameters
    ----------
    metrics : mapping of name to metric
    y : int codes or float [n]
        Targets of the holdout.
    scores : mapping of arm to scores [n] or [n, k]
        What each model says of the same rows.
    pairs : pairs of arms (a, b)
        Each is reported as a minus b.
    rng : Generator
        The same state gives the same draws, whatever metrics and arms are asked for.
    draws : int, > 0
        Bootstrap draws.
    groups : int [n], optional
        Rows of one code are drawn together; every metric is then bootstrapped.

    Returns
    -------
    estimates : `{metric: {arm: Estimate}}`
    differences : `{metric: {(a, b): Difference}}`

    Notes
    -----
    The AUC of two classes: DeLong, the interval on the logit scale. Where its variance is 0 or unknown (perfect scores,
    one row in a class), Hanley and McNeil's variance is taken. It is at an AUC moved towards 0.5 by half a row of the
    smaller class, so that no interval is a point. Accuracy: Wilson's interval, and Agresti and Min's for a difference.
    Else the bootstrap: BCa limits (rankings: on the logit scale), and value +- `t` times its spread for a difference.

    Nominal 95 % intervals fall short on small holdouts (simulated): 91 to 94 % for an AUC above
    0.9 with 20 rows in the smaller class, 92 % for a Brier score of 20 rows.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve"; Wilson
    1927, "Probable inference"; Agresti and Min 2005, "Simple improved confidence intervals for
    comparing matched proportions".
    """
    pairs = list(pairs)
    why = {name: metric.defined(y) for name, metric in metrics.items()}
    defined_metrics = {name: metric for name, metric in metrics.items() if not why[name]}
    evidence_by_metric: dict[str, _Evidence] = {}
    # Closed forms take rows to be independent, which those of one person are not.
    if groups is None:
        evidence_by_metric = _closed_forms(defined_metrics, y, scores)
    rest = {name: metric for name, metric in defined_metrics.items() if name not in evidence_by_metric}
    method = "bootstrap"
    if groups is not None:
        method += " over groups"
    for name, arms in replicate(rest, y, scores, rng, draws, groups).items():
        evidence_by_metric[name] = _Draws(metrics[name], arms, method)
    estimates = {}
    differences = {}
    for name in metrics:
        evidence = evidence_by_metric.get(name)
        estimates[name] = {arm: _estimate(evidence, why[name], arm) for arm in scores}
        differences[name] = {pair: _difference(evidence, why[name], pair, scores) for pair in pairs}
    return estimates, differences


def _estimate(evidence: _Evidence | None, why: str, arm: str) -> Estimate:
    if evidence is None or not np.isfinite(evidence.value[arm]):
        return Estimate(NAN, NAN, NAN, NAN, why or render("figures.methods.infinite"))
    return evidence.estimate(arm)


def _difference(evidence: _Evidence | None, why: str, pair: Pair, scores: Scores) -> Difference:
    if evidence is None or not np.isfinite([evidence.value[arm] for arm in pair]).all():
        return Difference(NAN, NAN, NAN, NAN, why or render("figures.methods.infinite"))
    # Equal scores differ by nothing, and have no variance to divide by.
    if np.array_equal(scores[pair[0]], scores[pair[1]]):
        return Difference(0.0, 0.0, 0.0, 1.0, "identical scores")
    return evidence.difference(*pair)


def interval_of(metric: RowMetric) -> str:
    """Return "wilson", "delong", "logit" or "", the interval of a metric."""
    return str(getattr(metric, "interval", ""))


def _closed_forms(metrics: Metrics, y: Target, scores: Scores) -> dict[str, _Evidence]:
    """Return the evidence that needs no bootstrap."""
    evidence: dict[str, _Evidence] = {}
    for name, metric in metrics.items():
        if interval_of(metric) == "wilson":
            shares: Any = metric
            evidence[name] = _Shares({arm: shares.correct(y, score) for arm, score in scores.items()})
        elif interval_of(metric) == "delong" and all(score.ndim == 1 for score in scores.values()):
            evidence[name] = Areas(y, scores)
    return evidence


class Areas:
    """AUC of two classes.

    It is by DeLong, and by Hanley-McNeil where DeLong has no variance.
    """

    def __init__(self, y: Target, scores: Scores) -> None:
        self.at = {arm: place for place, arm in enumerate(scores)}
        stack = np.stack([np.asarray(score, dtype=float) for score in scores.values()])
        stack[~np.isfinite(stack).all(axis=1)] = np.nan
        auc, self.covariance = delong(y, stack)
        self.value = {arm: float(auc[place]) for arm, place in self.at.items()}
        self.scores = stack
        self.counts = (int((y == 1).sum()), int((y == 0).sum()))

    def estimate(self, arm: str) -> Estimate:
        """Return the area of a model with its interval."""
        value = self.value[arm]
        place = self.at[arm]
        variance = float(self.covariance[place, place])
        if variance > 0:
            centre = value
            method = "DeLong"
        else:
            centre, variance = hanley_mcneil(value, *self.counts)
            method = "Hanley-McNeil"
        return Estimate(value, *logit_limits(value, centre, variance, Z), variance, method)

    def rank_alike(self, i: int, j: int) -> bool:
        """Return whether two models put the rows in one order, by their places."""
        steps = np.diff(self.scores[[i, j]][:, np.argsort(self.scores[i])], axis=1)
        return bool((steps >= 0).all() and np.array_equal(steps[0] > 0, steps[1] > 0))

    def difference(self, a: str, b: str) -> Difference:
        """Return the difference of two areas with its interval."""
        value = self.value[a] - self.value[b]
        (i, j) = (self.at[a], self.at[b])
        if self.rank_alike(i, j):
            return Difference(0.0, 0.0, 0.0, 1.0, "identical scores")
        own = self.covariance[i, i] + self.covariance[j, j]
        variance = float(own - 2 * self.covariance[i, j])
        method = "DeLong"
        if not variance > 1e-12 * own:  # rounding of three terms that cancel
            variance = sum(hanley_mcneil(self.value[arm], *self.counts)[1] for arm in (a, b))
            method = "Hanley-McNeil"
        return _normal_difference(value, value, np.sqrt(variance), method)


def logit_limits(auc: float, centre: float, variance: float, z: float) -> tuple[float, float]:
    """Return the limits of an area under the ROC curve, normal on the logit scale about `centre`.

    The area itself is within them.

    Source: Boyd, Eng and Page 2013, "Area under the precision-recall curve" (the scale).
    """
    reach = z * np.sqrt(variance) / (centre * (1 - centre))
    low, high = expit(logit(centre) + np.array([-reach, reach]))
    return min(float(low), auc), max(float(high), auc)


def hanley_mcneil(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return a shrunk AUC and its variance.

    The AUC is moved towards 0.5 by half a row of the smaller class.

    Parameters
    ----------
    auc : float, 0 to 1
    positives, negatives : int, > 0

    Returns
    -------
    auc : float, above 0 and below 1
    variance : float, > 0

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve" (scores
    with exponential distributions).
    """
    rows = min(positives, negatives)
    moved = (rows * auc + 0.5) / (rows + 1)
    one = moved / (2 - moved) - moved**2
    two = 2 * moved**2 / (1 + moved) - moved**2
    variance = moved * (1 - moved) + (positives - 1) * one + (negatives - 1) * two
    return moved, variance / (positives * negatives)


def logit_with_error(area: Estimate, y: Target) -> tuple[float, float]:
    """Return an area on the logit scale, and its standard error there; NaN where unknown.

    One with Hanley and McNeil's variance is moved as that is, so that it is finite.
    """
    centre = area.value
    variance = area.variance
    if area.method == "Hanley-McNeil":
        centre, variance = hanley_mcneil(centre, int((y == 1).sum()), int((y == 0).sum()))
    if not (0 < centre < 1 and variance > 0):
        return NAN, NAN
    return float(logit(centre)), math.sqrt(variance) / (centre * (1 - centre))


def wilson(value: float, rows: int) -> tuple[float, float, float]:
    """Return the limits and half the width of Wilson's interval of a share of rows, at 95 %."""
    total = rows + Z**2
    reach = Z / total * math.sqrt(rows * value * (1 - value) + Z**2 / 4)
    centre = (rows * value + Z**2 / 2) / total
    # Rounding must not put a limit on the wrong side of the share itself.
    return min(max(0.0, centre - reach), value), max(min(1.0, centre + reach), value), reach


class _Shares:
    """Accuracy as a share of rows.

    It is by Wilson for one arm, and by Agresti-Min for a difference.
    """

    def __init__(self, correct: Mapping[str, Floats]) -> None:
        self.correct = correct
        self.value = {arm: float(right.mean()) for arm, right in correct.items()}

    def estimate(self, arm: str) -> Estimate:
        value = self.value[arm]
        low, high, reach = wilson(value, len(self.correct[arm]))
        return Estimate(value, low, high, (reach / Z) ** 2, "Wilson")

    def difference(self, a: str, b: str) -> Difference:
        apart = self.correct[a] - self.correct[b]
        rows = len(apart) + 2  # half a row in each cell of the table of right and wrong
        centre = float(apart.sum()) / rows
        error = np.sqrt((apart @ apart + 1) / rows - centre**2) / np.sqrt(rows)
        return _normal_difference(float(apart.mean()), centre, error, "Agresti-Min")


def _normal_difference(value: float, centre: float, error: float, method: str) -> Difference:
    """Return a difference with a normal interval.

    It is of two shares or areas with `centre +- Z error`, cut to -1 to 1.
    """
    low = max(-1.0, centre - Z * error)
    high = min(1.0, centre + Z * error)
    p = float(2 * ndtr(-abs(centre) / error))
    return Difference(value, min(float(low), value), max(float(high), value), p, method)


class _Draws:
    """Any metric by its bootstrap replicates per arm."""

    def __init__(self, metric: RowMetric, replicates: Mapping[str, Replicates], method: str) -> None:
        self.ranks = interval_of(metric) in ("delong", "logit")
        self.replicates = replicates
        self.method = method
        self.value = {arm: draws.value for arm, draws in replicates.items()}

    def estimate(self, arm: str) -> Estimate:
        draws = self.replicates[arm]
        if draws.reason():
            return Estimate(draws.value, NAN, NAN, NAN, draws.reason())
        if self.ranks:
            # BCa takes it for a bias that rows drawn twice tie with themselves.
            limits = logit_limits(draws.value, draws.value, draws.variance, draws.reach(LEVEL))
        else:
            limits = draws.limits(LEVEL)
        return Estimate(draws.value, *limits, draws.variance, self.method)

    def difference(self, a: str, b: str) -> Difference:
        draws = self.replicates[a].minus(self.replicates[b])
        if draws.reason():
            return Difference(draws.value, NAN, NAN, NAN, draws.reason())
        return Difference(draws.value, *draws.plain_limits(LEVEL), draws.p_value(), self.method)


_Evidence = Areas | _Shares | _Draws
"""Values of one metric by arm, and their uncertainty."""
LEAST_BLOCKS = 8
"""Effective blocks below which there is no interval."""


def effective_blocks(gains: Floats) -> float:
    """Return how many independent blocks the mean of `gains` is worth.

    Parameters
    ----------
    gains : float array [blocks]
        Of each block, in the order of time.

    Notes
    -----
    `n (1 - r) / (1 + r)`, r the correlation of neighbours. `(1 + 3 r) / n` is added to r for its bias from n blocks. r
    is at least 0, so that there are at most n. Where all gains are the same there are n.

    Source: Bayley and Hammersley 1946, "The effective number of independent observations in an autocorrelated time
    series" (first-order series); Marriott and Pope 1954, "Bias in the estimation of autocorrelations".

    Examples
    --------
    >>> effective_blocks(np.array([1.0, -1.0, 1.0, -1.0]))
    4.0
    >>> effective_blocks(np.arange(20.0)) < 2
    True
    """
    count = len(gains)
    apart = gains - gains.mean()
    size = float(apart @ apart)
    if not size:
        return float(count)
    r = float(apart[1:] @ apart[:-1]) / size
    r = min(max(r + (1 + 3 * r) / count, 0.0), 1.0)
    return count * (1 - r) / (1 + r)


def widen_differences(
    differences: Mapping[str, Mapping[Pair, Difference]], losses: Mapping[str, Floats], blocks: np.ndarray
) -> dict[str, dict[Pair, Difference]]:
    """Return differences with intervals of as many blocks as are independent.

    Parameters
    ----------
    differences : mapping of metric to mapping of pair to Difference
        With the intervals of independent blocks.
    losses : mapping of arm to float array [rows]
        Each row's loss.
    blocks : int array [rows]
        Each row's block, in the order of time.
    """
    rows = np.bincount(blocks)
    there = rows > 0
    mean = {arm: np.bincount(blocks, loss)[there] / rows[there] for arm, loss in losses.items()}
    count = int(there.sum())
    widened: dict[str, dict[Pair, Difference]] = {}
    for metric, of_pairs in differences.items():
        widened[metric] = {}
        for (a, b), interval in of_pairs.items():
            effective = effective_blocks(mean[b] - mean[a])
            widened[metric][a, b] = interval
            # Scores that are the same at every row differ by nothing, however many blocks there are.
            if not math.isfinite(interval.low) or interval.low == interval.high:
                continue
            if effective < LEAST_BLOCKS:
                few = render("figures.methods.few")
                widened[metric][a, b] = Difference(interval.value, NAN, NAN, NAN, few)
                continue
            quantile = float(stdtrit(effective - 1, (1 + LEVEL) / 2))
            # A bootstrap's interval is Student's already, that of a closed form is normal.
            before = Z
            if interval.method.startswith("bootstrap"):
                before = float(stdtrit(count - 1, (1 + LEVEL) / 2))
            factor = math.sqrt(count / effective) * quantile / before
            low, high = (interval.value + factor * (bound - interval.value) for bound in (interval.low, interval.high))
            p = float(2 * stdtr(effective - 1, -abs(interval.value) * 2 * quantile / (high - low)))
            method = render("figures.methods.blocks", n=int(effective))
            widened[metric][a, b] = Difference(interval.value, low, high, p, method)
    return widened


def row_losses(task: str, y: Target, score: Score) -> Floats:
    """Return each row's loss, [rows]: squared error of a regression, else the log loss.

    Parameters
    ----------
    task : {"binary", "multi-class", "regression"}
    y : array [rows]
    score : array [rows] or [rows, classes]
        Predictions, or probabilities.
    """
    if task == "regression":
        return np.asarray(np.square(score - y))
    likely = np.where(y == 1, score, 1 - score) if score.ndim == 1 else score[np.arange(len(y)), y]
    # No row may cost more than this likelihood allows: one alone would be all that the blocks differ by.
    return -np.log(np.maximum(likely, 1e-12))
