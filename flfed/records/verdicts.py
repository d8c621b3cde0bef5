"""Figures in words: names of metrics, numbers to a sensible digit, and whether joining paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]

PAYS = "joining pays"
NO_CLEAR_GAIN = "no clear gain"
DO_NOT_USE = "do not use it here"
CANNOT_BE_TOLD = "cannot be told"
VERDICTS = (PAYS, NO_CLEAR_GAIN, DO_NOT_USE, CANNOT_BE_TOLD)

MINUS = "\u2212"
ABSENT = "n/a"

METRIC_NAMES = {
    "roc_auc_score": "AUC",
    "average_precision_score": "average precision",
    "brier_score_loss": "Brier score",
    "log_loss": "log loss",
    "accuracy_score": "accuracy",
    "balanced_accuracy_score": "balanced accuracy",
    "f1_score": "F1",
    "r2_score": "R\u00b2",
    "mean_absolute_error": "mean absolute error",
    "mean_squared_error": "mean squared error",
    "root_mean_squared_error": "root mean squared error",
    "concordance_index": "concordance index",
    "calibration_in_the_large_error": "calibration error (log of expected over observed)",
    "recall_at_alert_budget": "recall at the alert budget",
}
"""What people call a metric; others are named by their key without underscores."""

ARM_NAMES = {
    "global": "shared model",
    "local-only": "own model alone",
    "personalised": "shared model adjusted to the site",
    "pooled": "all rows in one place (pooled)",
    "own-model-everywhere": "a site's own model used at all sites (mean)",
    "sites-mean": "shared model, mean of the sites",
    "personalised-sites-mean": "adjusted to the site, mean of the sites",
}
"""What a clinician or a risk officer reads for an arm."""


@dataclass(frozen=True)
class Difference:
    """A difference of two arms with its 95 % interval; any part may be unknown."""

    value: float | None
    low: float | None = None
    high: float | None = None


def better_of(metric: str) -> Better:
    """Return whether a higher or a lower figure is better, by scikit-learn's naming rule.

    Names that end in `_loss`, `_error` or `_deviance` are to be made small; all others large.

    Examples
    --------
    >>> better_of("roc_auc_score"), better_of("brier_score_loss"), better_of("mean_absolute_error")
    ('higher', 'lower', 'lower')
    """
    return "lower" if metric.endswith(("_loss", "_error", "_deviance")) else "higher"


def metric_name(metric: str) -> str:
    """Return what people call a metric.

    Examples
    --------
    >>> metric_name("roc_auc_score"), metric_name("expected_calibration_error")
    ('AUC', 'expected calibration error')
    """
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def decimals_of(*values: float | None) -> int:
    """Return how many decimals figures of this size deserve: three below 1.5, none from 100 on.

    Examples
    --------
    >>> decimals_of(0.71, 1.0), decimals_of(0.9, 2.4), decimals_of(12.0, None), decimals_of(4321.0)
    (3, 2, 1, 0)
    """
    size = max((abs(value) for value in values if value is not None), default=0.0)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1.5 else 3


def number(value: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """Return a figure without a leading zero; with as many decimals as its size deserves unless told.

    Examples
    --------
    >>> number(0.7124), number(0.11, 2, signed=True), number(12.345), number(4321.0), number(None)
    ('.712', '+.11', '12.3', '4321', 'n/a')
    >>> number(-0.0341) == MINUS + ".034", number(-0.0001, signed=True), number(1.0), number(0.2, 0)
    (True, '.000', '1.000', '0')
    """
    if value is None:
        return ABSENT
    text = f"{abs(value):.{decimals_of(value) if decimals is None else decimals}f}"
    sign = "" if not float(text) else MINUS if value < 0 else "+" if signed else ""
    return sign + text.removeprefix("0" if "." in text else "")


def interval(low: float | None, high: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """Return `LOW to HIGH` with equally many decimals, or "n/a".

    Examples
    --------
    >>> interval(0.6, 0.701), interval(0.02, 0.19, 2, signed=True), interval(None, 1.0)
    ('.600 to .701', '+.02 to +.19', 'n/a')
    """
    if low is None or high is None:
        return ABSENT
    digits = decimals_of(low, high) if decimals is None else decimals
    return f"{number(low, digits, signed=signed)} to {number(high, digits, signed=signed)}"


def decimals_for(difference: Difference) -> int:
    """Return decimals by size, at most 2 unless the interval is narrow enough for a third to mean something.

    A bound that 2 decimals would show as 0 gets the third: on which side of 0 it lies is the verdict.

    Examples
    --------
    >>> decimals_for(Difference(0.11, 0.02, 0.19)), decimals_for(Difference(0.186, 0.004, 0.368))
    (2, 3)
    """
    digits = decimals_of(difference.value, difference.low, difference.high)
    if difference.low is None or difference.high is None:
        return digits
    hidden = any(bound and not float(f"{bound:.2f}") for bound in (difference.low, difference.high))
    return min(digits, 2) if difference.high - difference.low >= 0.06 and not hidden else digits


def gain_of(difference: Difference, better: Better) -> Difference:
    """Return the difference turned so that above 0 is an improvement."""
    if better == "higher":
        return difference
    low = None if difference.high is None else -difference.high
    high = None if difference.low is None else -difference.low
    return Difference(None if difference.value is None else -difference.value, low, high)


def verdict(
    shared: Difference | None,
    personalised: Difference | None,
    better: Better,
    *,
    metric: str = "",
    figures: Mapping[str, float | None] | None = None,
    reason: str = "",
) -> tuple[str, str]:
    """Return whether joining paid at one site: a code of `VERDICTS` and one sentence with the numbers.

    Parameters
    ----------
    shared, personalised : Difference or None
        The shared model, and the shared model adjusted to the site, each minus the site's own
        model alone; the metric's own sign. None where not measured.
    better : "higher" or "lower"
        Which direction of the metric is an improvement.
    metric : str
        Name of the metric, for the sentence.
    figures : mapping of arm to float or None
        The arms' figures, for the sentence.
    reason : str
        Why there is no figure, where there is none.

    Notes
    -----
    The arm with the larger gain decides. "joining pays": its interval lies above 0. "do not use it
    here": that arm's own interval lies below 0, or the shared model's does and adjusting it gains
    nothing either. Choosing the better of two arms favours joining a little; the sentence names the
    arm that was chosen.

    Examples
    --------
    >>> code, sentence = verdict(Difference(0.11, 0.02, 0.19), None, "higher", metric="roc_auc_score",
    ...                          figures={"global": 0.71, "local-only": 0.6})
    >>> code
    'joining pays'
    >>> sentence
    'AUC .71 with the shared model against .60 alone: +.11 (95 % interval +.02 to +.19).'
    """
    known = [
        (arm, difference, gain_of(difference, better))
        for arm, difference in (("global", shared), ("personalised", personalised))
        if difference and None not in (difference.value, difference.low, difference.high)
    ]
    if not known:
        return CANNOT_BE_TOLD, _untold(metric, reason)
    arm, difference, gain = max(known, key=lambda item: item[2].value or 0.0)
    worse = next((item for item in known if item[0] == "global" and (item[2].high or 0.0) < 0), None)
    if (gain.low or 0.0) > 0:
        return PAYS, _sentence(arm, difference, better, metric, figures or {}) + "."
    if worse and (gain.value or 0.0) <= 0:
        words = _sentence("global", worse[1], better, metric, figures or {})
        return DO_NOT_USE, f"{words}; the shared model is certainly worse here."
    words = _sentence(arm, difference, better, metric, figures or {})
    if gain.high is not None and gain.high < 0:
        return DO_NOT_USE, f"{words}; the {ARM_NAMES[arm]} is certainly worse here."
    return NO_CLEAR_GAIN, f"{words}; the interval contains 0, so this may be chance."


def _untold(metric: str, reason: str) -> str:
    name = metric_name(metric) if metric else "the metric"
    return f"{name[0].upper()}{name[1:]} cannot be compared here: {reason or 'it was not measured'}."


def _sentence(
    arm: str, difference: Difference, better: Better, metric: str, figures: Mapping[str, float | None]
) -> str:
    """Return "AUC .71 with the shared model against .60 alone: +.11 (95 % interval +.02 to +.19)"."""
    digits = min(decimals_for(difference), decimals_of(figures.get(arm), figures.get("local-only")))
    with_, alone = number(figures.get(arm), digits), number(figures.get("local-only"), digits)
    change = number(difference.value, digits, signed=True)
    span = interval(difference.low, difference.high, digits, signed=True)
    direction = ", lower is better" if better == "lower" else ""
    start = f"{metric_name(metric)} {with_} with the {ARM_NAMES[arm]} against {alone} alone"
    return f"{start}: {change} (95 % interval {span}{direction})"
