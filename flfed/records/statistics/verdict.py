"""Figures and verdicts in words: names of metrics, a sensible number of digits, and what joining is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from flfed.registry import MADE_SMALL
from flfed.words import render

Better = Literal["higher", "lower"]
PAYS = "joining pays"
NO_CLEAR_GAIN = "no clear gain"
DO_NOT_USE = "do not use it here"
INCONCLUSIVE = "cannot be told"
VERDICTS = (PAYS, NO_CLEAR_GAIN, DO_NOT_USE, INCONCLUSIVE)
"""Codes in JSON and CSV; people read `describe_verdict`."""
MINUS = "\u2212"
ABSENT = "n/a"
WORTHWHILE = {"roc_auc_score": 0.005}
"""Gain that is worth joining for, by metric; 0 of any other. A study's `[compare] minimum-gain` goes before it."""
TOO_SMALL = "too small to matter"
RAN_AWAY = 1e9  # from here on a figure is that of a model that diverged, whose digits tell nothing
MOST_MORE = 3
"""Decimals that a figure gets so that a bound near 0 does not read as 0, at most."""

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
    "local-only": "site model",
    "local-only-same": "site model of the shared one's kind",
    "local-only-own-columns": "site model with the site's own columns",
    "site-mean": "mean of the site's training rows",
    "last-value": "the site's last training value",
    "named-column": "column that the study names",
    "personalised": "shared model adjusted to the site",
    "warm-start": "model that the run began with",
    "warm-start-tuned": "site model drawn to the one that the run began with",
    "pooled": "all rows in one place (pooled)",
    "pooled-same": "pooled, of the shared model's kind",
    "own-model-everywhere": "a site's model used at all sites (mean)",
    "sites-mean": "shared model, mean of the sites",
    "personalised-sites-mean": "adjusted to the site, mean of the sites",
}
"""What a clinician or a risk officer reads for an arm."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; None where it is not known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float, float]:
        """The figure and both ends of its interval; raises ValueError where one is not known."""
        if self.value is None or self.low is None or self.high is None:
            raise ValueError("a figure without an interval has no ends")
        return self.value, self.low, self.high


@dataclass(frozen=True)
class Difference:
    """Difference of two arms with its 95 % CI.

    Any part may be unknown.

    `wide_low` and `wide_high` are its ends once widened for looking at so many `sites`; None of one alone.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    wide_low: float | None = None
    wide_high: float | None = None
    sites: int = 1

    @property
    def deciding(self) -> Difference:
        """Difference with the interval that decides the verdict."""
        if self.wide_low is None or self.wide_high is None:
            return self
        return replace(self, low=self.wide_low, high=self.wide_high, wide_low=None, wide_high=None)


def better_of(metric: str) -> Better:
    """Return which direction of a metric is better.

    The rule is scikit-learn's of names.

    Names that end in `_loss`, `_error` or `_deviance` are to be made small; all others large.

    Examples
    --------
    >>> better_of("roc_auc_score"), better_of("brier_score_loss"), better_of("mean_absolute_error")
    ('higher', 'lower', 'lower')
    """
    return "lower" if metric.endswith(MADE_SMALL) else "higher"


def metric_name(metric: str) -> str:
    """Return what people call a metric.

    Examples
    --------
    >>> metric_name("roc_auc_score"), metric_name("expected_calibration_error")
    ('AUC', 'expected calibration error')
    """
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def describe_verdict(code: str, metric: str) -> str:
    """Return a verdict as people read it.

    Examples
    --------
    >>> describe_verdict(PAYS, "log_loss"), describe_verdict(INCONCLUSIVE, "log_loss")
    ('joining improves log loss', 'inconclusive')
    """
    return render(f"report.verdicts.{code.replace(' ', '-')}", metric=metric_name(metric))


def sentence_case(text: str) -> str:
    """Return text with a capital first letter.

    The other letters stay as they are.

    Examples
    --------
    >>> sentence_case("log loss of AUC"), sentence_case("")
    ('Log loss of AUC', '')
    """
    return text[:1].upper() + text[1:]


def shorten(names: Sequence[str], most: int) -> str:
    """Return the first names of a list, and how many more there are.

    Examples
    --------
    >>> shorten(["a", "b"], 2), shorten("abcde", 2)
    ('a, b', 'a, b and 3 more')
    """
    listed = ", ".join(names[:most])
    if len(names) > most:
        listed += f" and {len(names) - most} more"
    return listed


def decimals_of(*values: float | None) -> int:
    """Return how many decimals figures of this size deserve.

    They are three below 1.5, and none from 100 on.

    Examples
    --------
    >>> decimals_of(0.71, 1.0), decimals_of(0.9, 2.4), decimals_of(12.0, None), decimals_of(4321.0)
    (3, 2, 1, 0)
    """
    size = max((abs(value) for value in values if value is not None), default=0.0)
    for decimals, least in enumerate((100, 10, 1.5)):
        if size >= least:
            return decimals
    return 3


def number(value: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """Return a figure with a leading zero.

    It has as many decimals as its size deserves unless they are given; one that ran away is a power of ten.

    Examples
    --------
    >>> number(1.2e30)
    '1.2e+30'
    >>> number(0.7124), number(0.11, 2, signed=True), number(12.345), number(4321.0), number(None)
    ('0.712', '+0.11', '12.3', '4321', 'n/a')
    >>> number(-0.0341) == MINUS + "0.034", number(-0.0001, signed=True), number(1.0), number(0.2, 0)
    (True, '0.000', '1.000', '0')
    """
    if value is None:
        return ABSENT
    if decimals is None:
        decimals = decimals_of(value)
    text = f"{abs(value):.{decimals}f}"
    if abs(value) >= RAN_AWAY:
        text = f"{abs(value):.1e}"
    # A figure that is rounded to 0 has no sign.
    sign = ""
    if float(text) and value < 0:
        sign = MINUS
    elif float(text) and signed:
        sign = "+"
    return sign + text


def better_or_worse(gain: float, digits: int) -> str:
    """Return the size of a gain, and whether it is one.

    Examples
    --------
    >>> better_or_worse(0.004, 3), better_or_worse(-0.02, 2)
    ('0.004 better', '0.02 worse')
    """
    side = "worse" if gain < 0 else "better"
    return f"{number(abs(gain), digits)} {side}"


def shown(value: Any, form: Callable[[Any], str] = str, absent: str = ABSENT) -> str:
    """Return a value as `form` has it, and what stands in its place where it is not told.

    Examples
    --------
    >>> shown(12), shown(None), shown(None, number, "none")
    ('12', 'n/a', 'none')
    """
    return absent if value is None else form(value)


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return a figure, with its interval where that is known.

    Examples
    --------
    >>> with_interval(0.76, 0.74, 0.78), with_interval(0.76, None, None), with_interval(None, None, None)
    ('0.760 (0.740 to 0.780)', '0.760', 'n/a')
    """
    if low is None or high is None:
        return number(value)
    return f"{number(value)} ({interval(low, high)})"


def format_as_written(value: float) -> str:
    """Return a figure with the digits that somebody wrote, such as `[compare] minimum-gain`.

    Examples
    --------
    >>> [format_as_written(value) for value in (0.005, 0.0025, 0.00004, 2.0, 0.0, 1.5)]
    ['0.005', '0.0025', '0.00004', '2', '0', '1.5']
    """
    # Decimal of the repr has the digits that were written, and no binary rest.
    whole, _, rest = f"{Decimal(repr(float(value))):f}".partition(".")
    rest = rest.rstrip("0")
    if not rest:
        return whole
    return f"{whole}.{rest}"


def interval(low: float | None, high: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """Return "LOW to HIGH" with equally many decimals.

    They have more decimals where an end would read as 0 and is not. "n/a" where an end is unknown.

    Examples
    --------
    >>> interval(0.6, 0.701), interval(0.02, 0.19, 2, signed=True), interval(None, 1.0)
    ('0.600 to 0.701', '+0.02 to +0.19', 'n/a')
    >>> interval(0.0004, 0.041), interval(0.0, 0.041)
    ('0.0004 to 0.0410', '0.000 to 0.041')
    """
    if low is None or high is None:
        return ABSENT
    if decimals is None:
        decimals = decimals_beside((low, high), decimals_of(low, high))
    return f"{number(low, decimals, signed=signed)} to {number(high, decimals, signed=signed)}"


def decimals_for(difference: Difference, worthwhile: float = 0.0) -> int:
    """Return the decimals that keep a bound's side visible.

    They follow the size, with as many more as it takes until no bound reads as what it is compared with.

    That is 0 and `worthwhile`: the bound's side of them is the verdict. Of a bound that `MOST_MORE` further
    ones would still show as one of them, nothing is gained by more.

    Examples
    --------
    >>> decimals_for(Difference(0.186, 0.004, 0.368)), decimals_for(Difference(0.02, -0.0004, 0.04))
    (3, 4)
    >>> decimals_for(Difference(0.2, 0.0, 0.4)), decimals_for(Difference(0.2, 1e-9, 0.4))
    (3, 3)
    >>> decimals_for(Difference(0.02, 0.0051, 0.04), 0.005)
    4
    """
    decimals = decimals_of(difference.value, difference.low, difference.high)
    return decimals_beside((difference.low, difference.high), decimals, (0.0, worthwhile, -worthwhile))


def decimals_beside(bounds: Sequence[float | None], decimals: int, marks: Sequence[float] = (0.0,)) -> int:
    """Return the decimals with which no bound reads as a mark.

    Examples
    --------
    >>> decimals_beside((0.0004, 0.041), 3), decimals_beside((0.0, 0.041), 3), decimals_beside((1e-9, 0.041), 3)
    (4, 3, 3)
    """
    # A bound that equals a mark reads as that mark with any number of decimals.
    beside = [bound for bound in bounds if bound is not None and bound not in marks]
    for digits in range(decimals, decimals + MOST_MORE + 1):
        if all(float(f"{bound:.{digits}f}") not in marks for bound in beside):
            return digits
    return decimals


def gain_of(difference: Difference, better: Better) -> Difference:
    """Return the difference with improvements above 0."""
    if better == "higher":
        return difference

    def turned(value: float | None) -> float | None:
        return None if value is None else -value

    # With the sign the two ends change places.
    return Difference(
        value=turned(difference.value),
        low=turned(difference.high),
        high=turned(difference.low),
        wide_low=turned(difference.wide_high),
        wide_high=turned(difference.wide_low),
        sites=difference.sites,
    )


def best_of(
    shared: Difference | None, personalised: Difference | None, better: Better
) -> tuple[str, Difference] | None:
    """Return the arm with the larger gain.

    The gain comes with it; above 0 it is an improvement. None where none was measured.

    One without an interval comes after all that have one; of two that differ by rounding the shared model's is taken.
    """
    # Arms that were not measured cannot win.
    gains = [
        (arm, gain_of(difference, better))
        for arm, difference in (("global", shared), ("personalised", personalised))
        if difference and difference.value is not None
    ]
    return max(gains, key=lambda item: (has_interval(item[1]), round(item[1].value or 0.0, 9)), default=None)


def has_interval(difference: Difference | None) -> bool:
    """Tell whether a difference and its interval are known."""
    return difference is not None and None not in (difference.value, difference.low, difference.high)


def worthwhile_of(metric: str) -> float:
    """Return the gain that is worth joining for.

    A study may say another.

    Examples
    --------
    >>> worthwhile_of("roc_auc_score"), worthwhile_of("log_loss")
    (0.005, 0.0)
    """
    return WORTHWHILE.get(metric, 0.0)


def code_of(gain: Difference, worthwhile: float) -> str:
    """Return the verdict on a gain.

    Above 0 is an improvement. It is the one rule, wherever a verdict is told.

    Parameters
    ----------
    gain : Difference
    worthwhile : float, >= 0
        "joining pays": the lower end of the interval, widened for the number of sites looked at, lies
        above it; "do not use it here": the upper end lies below its negative.

    Examples
    --------
    >>> gain = Difference(0.03, 0.002, 0.058, -0.006, 0.066, sites=4)
    >>> code_of(gain, 0.005), code_of(Difference(0.03, 0.01, 0.05), 0.005), code_of(Difference(0.03), 0.005)
    ('no clear gain', 'joining pays', 'cannot be told')
    >>> code_of(Difference(0.002, 0.001, 0.003), 0.005), code_of(Difference(-0.03, -0.05, -0.01), 0.005)
    ('no clear gain', 'do not use it here')
    """
    deciding = gain.deciding
    if deciding.low is None or deciding.high is None:
        return INCONCLUSIVE
    if deciding.low > worthwhile:
        return PAYS
    if deciding.high < -worthwhile:
        return DO_NOT_USE
    return NO_CLEAR_GAIN


def verdict(
    shared: Difference | None,
    personalised: Difference | None,
    better: Better,
    *,
    metric: str = "",
    figures: Mapping[str, float | None] | None = None,
    reason: str = "",
    worthwhile: float | None = None,
    alone: str = "",
    undertrained: str = "",
) -> tuple[str, str]:
    """Return whether joining paid at one site.

    The result is a code of `VERDICTS` and one sentence with the numbers.

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
    worthwhile : float, optional
        As for `code_of`; by default that of the metric.
    alone : str
        What the site's own model is, where it is not of the shared one's kind.
    undertrained : str
        Why a shared model that is worse cannot be judged, where it was not trained enough.

    Notes
    -----
    The arm with the larger gain decides by `code_of`, and the sentence tells its gain. A shared model that
    is clearly worse is always told of. Choosing the better of two arms favours joining a little: each
    interval leaves 2.5 % beyond either end, so that of both together at most 5 % lie above by chance.

    Examples
    --------
    >>> code, sentence = verdict(Difference(0.11, 0.02, 0.19), None, "higher", metric="roc_auc_score",
    ...                          figures={"global": 0.71, "local-only": 0.6})
    >>> code
    'joining pays'
    >>> sentence
    'AUC 0.710 with the shared model against 0.600 alone: gain +0.110 (95 % CI +0.020 to +0.190).'
    """
    best = best_of(shared, personalised, better)
    if best is None or not has_interval(best[1]):
        return INCONCLUSIVE, _untold(metric, reason)
    arm, gain = best
    least = worthwhile_of(metric) if worthwhile is None else worthwhile
    code = code_of(gain, least)
    words = _sentence(arm, gain, better, metric, figures or {}, least, alone)
    unadjusted = "" if undertrained else _harm_unadjusted(arm, shared, better, least)
    if code == PAYS:
        return code, f"{words}{unadjusted}."
    if code == DO_NOT_USE and undertrained:
        return INCONCLUSIVE, f"{words}; {undertrained}."
    if code == DO_NOT_USE:
        where = f"below {MINUS}{format_as_written(least)}" if least else "below 0"
        return code, f"{words}: the interval lies {where}, the {ARM_NAMES[arm]} is clearly worse here{unadjusted}."
    return code, f"{words}; {why_unclear(gain, least)}{unadjusted}."


def _harm_unadjusted(arm: str, shared: Difference | None, better: Better, worthwhile: float) -> str:
    """Return that the shared model does harm as it is, which must be told where the adjusted one decides; else ""."""
    if arm == "global" or shared is None or not has_interval(shared):
        return ""
    return _if_worse(gain_of(shared, better), worthwhile)


def why_unclear(gain: Difference, worthwhile: float) -> str:
    """Return why a gain is no clear one.

    It may be chance, or it is too small.

    Examples
    --------
    >>> why_unclear(Difference(0.01, -0.02, 0.04), 0.005)
    'the interval contains 0, so this may be chance'
    >>> why_unclear(Difference(0.002, 0.001, 0.003), 0.005)
    'the interval lies above 0, but the gain is too small to matter (under 0.005)'
    """
    if may_be_chance(gain):
        return "the interval contains 0, so this may be chance"
    side, may = beyond_chance(gain.deciding, worthwhile)
    what = {"above": "gain", "below": "loss"}[side]
    return f"the interval lies {side} 0, but the {what} {may} {TOO_SMALL} (under {format_as_written(worthwhile)})"


def beyond_chance(gain: Difference, worthwhile: float) -> tuple[str, str]:
    """Return on which side of 0 an interval lies, and whether its gain is, or may be, too small."""
    side = "above" if (gain.low or 0.0) > 0 else "below"
    may = "is" if abs(gain.value or 0.0) < worthwhile else "may be"
    return side, may


def may_be_chance(gain: Difference) -> bool:
    """Tell whether the deciding interval of a gain contains 0."""
    deciding = gain.deciding
    return (deciding.low or 0.0) <= 0 <= (deciding.high or 0.0)


def _if_worse(gain: Difference, worthwhile: float) -> str:
    """Return that the unadjusted model is worse here.

    An empty text where the shared model as it is does not clearly worse.
    """
    if code_of(gain, worthwhile) != DO_NOT_USE:
        return ""
    size, _ = size_and_span(gain, worthwhile)
    gain_text = f"{size}, {describe_interval(gain, worthwhile)}"
    return f"; without adjustment the shared model is clearly worse here ({gain_text}): do not use it so"


def size_and_span(gain: Difference, worthwhile: float = 0.0) -> tuple[str, str]:
    """Return a gain and the interval that its verdict goes by, as text.

    Both have the decimals that they have wherever they are shown.

    Examples
    --------
    >>> size_and_span(Difference(0.11, 0.02, 0.19)), size_and_span(Difference(38.2))
    (('+0.110', '+0.020 to +0.190'), ('+38.2', 'n/a'))
    >>> size_and_span(Difference(0.11, 0.02, 0.2, 0.0051, 0.22, sites=4), 0.005)
    ('+0.1100', '+0.0051 to +0.2200')
    """
    deciding = gain.deciding
    digits = decimals_for(deciding, worthwhile)
    return number(gain.value, digits, signed=True), interval(deciding.low, deciding.high, digits, signed=True)


def name_interval(sites: int) -> str:
    """Return the name of the interval that verdicts go by, of so many sites looked at.

    Examples
    --------
    >>> name_interval(4), name_interval(1)
    ('95 % CI, widened for 4 sites', '95 % CI')
    """
    name = "95 % CI"
    if sites > 1:
        name += f", widened for {sites} sites"
    return name


def describe_interval(gain: Difference, worthwhile: float = 0.0) -> str:
    """Return the interval that a gain's verdict goes by, with its name.

    Examples
    --------
    >>> describe_interval(Difference(0.11, 0.02, 0.2, 0.001, 0.22, sites=4)), describe_interval(Difference(1, 0, 2))
    ('95 % CI, widened for 4 sites: +0.001 to +0.220', '95 % CI 0.00 to +2.00')
    """
    name = name_interval(gain.sites)
    if gain.sites > 1:
        name += ":"
    return f"{name} {size_and_span(gain, worthwhile)[1]}"


def gain_in_brackets(gain: Difference, worthwhile: float = 0.0) -> str:
    """Return a gain with its interval, for a table whose head names the interval.

    Examples
    --------
    >>> gain_in_brackets(Difference(0.11, 0.02, 0.19)), gain_in_brackets(Difference(None))
    ('+0.110 (+0.020 to +0.190)', 'n/a')
    """
    size, span = size_and_span(gain, worthwhile)
    if gain.value is None:
        return size
    return f"{size} ({span})"


def _untold(metric: str, reason: str) -> str:
    name = metric_name(metric) if metric else "the metric"
    if reason.startswith("withheld: "):
        return f"This site withholds {name}: {reason.removeprefix('withheld: ')}."
    return f"{sentence_case(name)} cannot be compared here: {reason or 'it was not measured'}."


def _sentence(
    arm: str,
    gain: Difference,
    better: Better,
    metric: str,
    figures: Mapping[str, float | None],
    worthwhile: float,
    alone: str,
) -> str:
    """Return the verdict's figures as a sentence.

    Such as "AUC 0.710 with the shared model against 0.600 alone: gain +0.110 (95 % CI +0.020 to +0.190)".
    """
    with_, own = figures.get(arm), figures.get("local-only")
    # Both figures get equally many decimals, so that they can be compared.
    digits = decimals_of(with_, own)
    name = sentence_case(metric_name(metric))
    if better == "lower":
        name += " (lower is better)"
    size, _ = size_and_span(gain, worthwhile)
    against = "the site's own one"
    if own is not None:
        against = f"{number(own, digits)} alone"
        if alone:
            against += f" ({alone})"
    start = f"{name} {number(with_, digits)} with the {ARM_NAMES[arm]} against {against}"
    return f"{start}: gain {size} ({describe_interval(gain, worthwhile)})"


FEW_SITES = 4
"""Up to so many sites a mean can hardly be clear: Student's t of two or three degrees of freedom reaches far."""
COVERAGE = (
    "simulated, a 95 % interval of such a mean holds the true one in 94 to 100 of 100 cases where all sites are known "
    "about equally well, in 86 to 93 where some are known ten times as well as others, and at worst in about 80, where "
    "sites that gain more are known less well (eight sites; of more, fewer)"
)
"""How often the interval holds (tests/records/test_mean_gain.py measures it)."""
LEAST_SITES = 3
"""Of fewer, no interval of a mean says anything: of two its reach is nine times their distance."""
METHOD = (
    "random effects over sites: Paule-Mandel variance between sites, Hartung-Knapp interval, given this shared model; "
    "each site's error from its paired interval, under repeats as Nadeau and Bengio's"
)
ASSUMES = "sites like these that train it together"
UNLIKE = 0.05
"""Below this p-value of Cochran's test sites are said to gain differently."""
