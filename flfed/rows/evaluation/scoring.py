"""Figures of predictions on one site's rows.

It holds back, by the policy, those that may not leave.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed import registry
from flfed.errors import nearest
from flfed.rows.data.policy import Policy
from flfed.study.tables import Compare
from flfed.summaries.score_bins import BINS, EVEN_ODDS, RowScores, ScoreBins
from flfed.words import render, usage_error

if TYPE_CHECKING:
    pass

PRIMARY = {"binary": "roc_auc_score", "multi-class": "log_loss", "regression": "r2_score"}
DIGITS = 3
"""Of a figure that leaves rounded."""


def metrics_of(task: str, alert_budget: float | None = None) -> dict[str, Any]:
    """Return every listed metric for a task.

    Metrics that need a share of rows to look at are among them only where `alert_budget` is given.
    """
    return dict(_listed(task, alert_budget, registry.lent("metric")))


# What a program gives after the first run is listed as well.
@lru_cache(maxsize=64)
def _listed(task: str, alert_budget: float | None, lent: tuple[type, ...]) -> dict[str, Any]:
    """Return every listed metric for a task, those with a budget last."""
    plain = {}
    budgeted = {}
    for name in registry.names("metric"):
        kind = registry.load("metric", name)
        if not hasattr(kind, "tasks"):
            raise usage_error("study.compare.taskless", name=name)
        if "alert_budget" not in inspect.signature(kind).parameters:
            plain[name] = kind()
        elif alert_budget is not None:
            budgeted[name] = kind(alert_budget=alert_budget)
    return {name: metric for name, metric in (plain | budgeted).items() if task in metric.tasks}


def primary_of(task: str, wanted: str, alert_budget: float | None = None) -> str:
    """Return the metric of the verdict.

    It is what the study names, else the task's first.

    Raises
    ------
    UsageError
        If the metric is not one for the task.
    """
    metrics = metrics_of(task, alert_budget)
    # A metric of an alert budget exists, and only its share is missing.
    if wanted not in metrics and wanted in metrics_of(task, 0.5):
        raise usage_error("study.compare.budget", primary=wanted)
    if wanted and wanted not in metrics:
        close = nearest(wanted, list(metrics))
        choices = ", ".join(metrics)
        raise usage_error("study.compare.primary", primary=wanted, task=task, close=close, choices=choices)
    return wanted or PRIMARY[task]


def is_count(metric: str, task: str, alert_budget: float | None = None) -> bool:
    """Return whether counts of rows follow from a metric.

    Two such figures of one site say how many rows two models call differently.
    """
    return _is_count(metric, task, alert_budget, registry.lent("metric"))


@lru_cache(maxsize=64)
def _is_count(metric: str, task: str, alert_budget: float | None, lent: tuple[type, ...]) -> bool:
    return follows_from_counts(metrics_of(task, alert_budget)[metric], task)


def check_metrics(task: str, compare: Compare) -> None:
    """Call each metric on example rows, so that none fails only once a study has trained.

    Raises
    ------
    UsageError
        If a metric fails, or one that a program gave is not for the task or lacks its share of rows.
    """
    lent: tuple[Any, ...] = registry.lent("metric")
    # Each metric of the process is loaded, and one without tasks is refused.
    metrics = metrics_of(task, compare.alert_budget)
    for kind in lent:
        name = kind.__name__
        if task not in kind.tasks:
            raise usage_error("study.compare.tasks", name=name, tasks=" or ".join(kind.tasks), task=task)
        if compare.alert_budget is None and "alert_budget" in inspect.signature(kind).parameters:
            raise usage_error("study.compare.budget", primary=name)
    y, score = example(task)
    for name, metric in metrics.items():
        try:
            metric.defined(y)
            float(metric.value(y, score))
            why = f"weighted() returned shape {np.shape(metric.weighted(y, score, np.ones((2, len(y)))))}"
        except registry.BROKEN as error:
            why = f"{type(error).__name__}: {error}"
        # The whole sentence, since numpy's own errors end with a shape, too.
        if why != "weighted() returned shape (2,)":
            raise usage_error("study.compare.metric", name=name, why=why)


def follows_from_counts(metric: Any, task: str) -> bool:
    """Return whether a metric is made of counts of rows, whoever wrote it.

    It says so itself (`behind`), or has the same value where scores say no more than which class is called.
    """
    if task == "regression":
        return False
    if hasattr(metric, "behind"):
        return True
    y, score = example(task, 300)
    if task == "binary":
        sure = np.where(score > 0.5, 0.9, 0.1)
    else:
        sure = np.eye(3)[score.argmax(axis=1)] * 0.9 + 0.1 / 3
    return bool(np.isclose(metric.value(y, score), metric.value(y, sure), rtol=1e-9))


def example(task: str, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return targets [n] and scores ([n], or [n, 3]) of a task, with equal scores among them.

    Parameters
    ----------
    task : {"binary", "multi-class", "regression"}
    n : int
    """
    rng = np.random.default_rng(3)
    if task == "regression":
        y = rng.normal(50, 10, n)
        return y, np.round(y + rng.normal(0, 5, n))
    if task == "binary":
        codes = rng.permutation(np.arange(n) % 2)
        return codes, np.round(np.clip(0.3 * codes + rng.uniform(0, 0.7, n), 0.01, 0.99), 1)
    codes = rng.permutation(np.arange(n) % 3)
    odds = rng.integers(1, 5, (n, 3))
    return codes, odds / odds.sum(axis=1, keepdims=True)


def smallest_count(metric: Any, y: np.ndarray, score: np.ndarray) -> float:
    """Return the smallest count of rows that follows from a metric.

    A metric may say which counts these are (`behind`); of any other they are the rows of each class by the class
    that is called.
    """
    if hasattr(metric, "behind"):
        return float(min(metric.behind(y, score)))
    called = score > 0.5 if score.ndim == 1 else score.argmax(axis=1)
    classes = score.shape[1] if score.ndim == 2 else 2
    return float(np.bincount(y.astype(int) * classes + called, minlength=classes**2).min())


def withheld(
    metric: str, y: np.ndarray, score: np.ndarray, task: str, policy: Policy, alert_budget: float | None = None
) -> str:
    """Return why a metric may not leave, or "".

    Parameters
    ----------
    metric : str
        A listed one, or "loss".
    y : array [rows]
        Class codes, or the target in its own unit.
    score : array [rows] or [rows, classes]
    task : str
    policy : Policy
    alert_budget : float, optional

    Notes
    -----
    Under disclosure "institution" an average over fewer rows than the cell minimum is withheld, and so is every figure
    from which a smaller count follows. An accuracy of 0.95 over 60 rows shows that 3 were wrong, a recall of 0.95 over
    60 events that 3 were missed.
    """
    # An open site withholds nothing.
    if policy.is_open:
        return ""
    classes = score.shape[1] if score.ndim == 2 else 2
    least = policy.cell_minimum
    if few := too_few(y, task, classes, policy):
        return few
    scorer = _listed(task, alert_budget, registry.lent("metric")).get(metric)
    if scorer is not None and is_count(metric, task, alert_budget) and smallest_count(scorer, y, score) < least:
        return render("figures.withheld.behind", n=least)
    return ""


def too_few(y: np.ndarray, task: str, classes: int, policy: Policy) -> str:
    """Return why no figure over rows may leave.

    An empty text where one may, whatever the scores. The targets are `y` [rows].
    """
    least = policy.cell_minimum
    if policy.is_open:
        return ""
    if len(y) < least:
        return render("figures.withheld.rows", n=least)
    if task != "regression" and np.bincount(y.astype(int), minlength=classes).min() < least:
        return render("figures.withheld.class", n=least)
    return ""


def three_digits(value: float) -> float:
    """Return a figure with three significant digits.

    It stays as it is where it is not finite.

    One rule for losses, metrics in any unit, their variances, limits and p. Rounding keeps their order and sign, and
    makes nothing 0, so that intervals hold what they held, and a verdict stays.

    Examples
    --------
    >>> three_digits(0.873456), three_digits(-0.000123456), three_digits(12345.6), three_digits(float("inf"))
    (0.873, -0.000123, 12300.0, inf)
    """
    return float(f"{value:.{DIGITS - 1}e}")


class RoundFigures:
    """Figures of each round on fixed rows.

    What may leave is decided once, and not each round.

    Parameters
    ----------
    rows : {"training", "validation"}
    y : array [rows]
        Class codes, or the target in its own unit.
    task : str
    classes : int
        Of the schema.
    metric : str
        The study's primary metric.
    policy : Policy
    alert_budget : float, optional
        The study's, where it names one.

    Attributes
    ----------
    area : bool
        Whether the area under the ROC curve is to be measured.
    histogram : bool
        Whether rows are to be counted by class and predicted probability.
    """

    def __init__(
        self,
        rows: str,
        y: np.ndarray,
        *,
        task: str,
        classes: int,
        metric: str,
        policy: Policy,
        alert_budget: float | None = None,
    ) -> None:
        self._rows = rows
        self._y = y
        self._task = task
        self._policy = policy
        self._budget = alert_budget
        self._name = metric
        self._metric = metrics_of(task, alert_budget)[metric]
        self._loss = bool(len(y)) and not too_few(y, task, classes, policy)
        self._loss_in_sum = len(y) >= policy.least_rows()
        # Accuracies of two rounds say how many rows two models call differently: one leaves, at the end.
        once = is_count(metric, task, alert_budget) and not policy.is_open
        leaves = self._loss and not once and not self._metric.defined(y)
        # The area comes with the fit on the engine, so that it needs no predictions.
        self.area = leaves and metric == "roc_auc_score" and task == "binary"
        self._other = leaves and not self.area
        self.histogram = task == "binary" and policy.allows("score-histogram")

    def of(self, measured: Measured, predictions: Callable[[np.ndarray], np.ndarray]) -> RowScores:
        """Return the figures of one round.

        They are the loss, and the primary metric with its variance.

        Parameters
        ----------
        measured : Measured
            The outputs, their loss, and what else was asked for: the area under the ROC curve, the histogram.
        predictions : callable
            Makes of outputs what metrics take; asked only where a metric other than the area is wanted.
        """
        metrics = {"loss": measured.loss} if self._loss else {}
        variances = {}
        if self.area:
            metrics[self._name] = measured.area
            variances[self._name] = measured.variance
        if self._other:
            score = predictions(measured.outputs)
            if not withheld(self._name, self._y, score, self._task, self._policy, self._budget):
                metrics[self._name] = self._metric.value(self._y, score)
        histogram = measured.histogram if self.histogram else None
        loss = measured.loss if self._loss_in_sum else None
        return RowScores(
            rows=self._rows,
            num_examples=len(self._y),
            metrics=metrics,
            variances=variances,
            histogram=histogram,
            loss=loss,
        )


def histogram(y: np.ndarray, score: np.ndarray, bins: ScoreBins = EVEN_ODDS) -> np.ndarray:
    """Return the score histogram by class.

    Rows are counted by class and predicted probability, float64 [2, bins].
    """
    inside = np.clip(score, 1e-12, 1 - 1e-12)
    counts: np.ndarray = histograms_of_odds(y, np.log(inside) - np.log1p(-inside), np.array([len(y)]), bins)[0]
    return counts


def histograms_of_odds(y: np.ndarray, odds: np.ndarray, sizes: np.ndarray, bins: ScoreBins = EVEN_ODDS) -> np.ndarray:
    """Return each site's score histogram.

    Predictions are given as log-odds, as a model's outputs are.

    Parameters
    ----------
    y, odds : array [rows of all sites]
        Of one site after the other.
    sizes : int array [sites]
    bins : ScoreBins

    Returns
    -------
    float64 array [sites, 2, bins]
    """
    # Class and site shift the bin, so that one count over all rows does.
    places = bins.places(odds) + BINS * (y == 1)
    places += 2 * BINS * np.repeat(np.arange(len(sizes)), sizes)
    counts = np.bincount(places, minlength=2 * BINS * len(sizes))
    return counts.reshape(len(sizes), 2, BINS).astype(float)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Measurements of a model on some rows.

    Attributes
    ----------
    outputs : float64 array [rows, outputs]
    loss : float
        Mean training loss over the rows, without class weights or penalties; NaN without rows.
    area, variance : float
        Area under the ROC curve and DeLong's variance of it; NaN where not asked for or unknown.
    histogram : float64 array [2, bins] or None
        As `flfed.rows.evaluation.scoring.histogram` counts; None where not asked for.
    """

    outputs: np.ndarray
    loss: float
    area: float = float("nan")
    variance: float = float("nan")
    histogram: np.ndarray | None = None
