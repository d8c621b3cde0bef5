"""Figures and verdicts in words: names of metrics, a sensible number of digits, and what joining is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, Protocol, Self

from flfed.registry import MADE_SMALL
from flfed.study.tables import WORTHWHILE
from flfed.words import render, sentences

Better = Literal["higher", "lower"]
PAYS = "joining pays"
NO_CLEAR_GAIN = "no clear gain"
DO_NOT_USE = "do not use it here"
INCONCLUSIVE = "cannot be told"
VERDICTS = (PAYS, NO_CLEAR_GAIN, DO_NOT_USE, INCONCLUSIVE)
"""Codes in JSON and CSV; people read `describe_verdict`."""
SIGNS = {PAYS: "▲", NO_CLEAR_GAIN: "–", DO_NOT_USE: "▼", INCONCLUSIVE: "?"}
"""Sign beside a verdict in a list, where a colour alone would not do."""
MINUS = "\u2212"
ABSENT = "n/a"
TOO_SMALL = "too small to matter"
RAN_AWAY = 1e9  # a model with such a figure diverged, and its digits mean nothing
MOST_MORE = 3
"""Most decimals that a figure gets in addition, so that a bound near 0 does not read as 0."""

ARM_NAMES = sentences("names", "arms")
"""Names of models and comparators, by arm."""


class HasInterval(Protocol):
    """A figure with its 95 % interval; None where not known."""

    @property
    def value(self) -> float | None:
        """The figure."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; None where not known."""

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
class Difference(Figure):
    """Difference of two arms with its 95 % CI; any part may be unknown.

    `wide_low` and `wide_high` are its ends, widened for the number of `sites` looked at; None for one site.
    """

    wide_low: float | None = None
    wide_high: float | None = None
    sites: int = 1

    @classmethod
    def of(cls, figure: HasInterval) -> Self:
        """Return the difference of a figure with its interval."""
        return cls(figure.value, figure.low, figure.high)

    @property
    def deciding(self) -> Difference:
        """Difference with the interval that decides the verdict."""
        if self.wide_low is None or self.wide_high is None:
            return self
        return replace(self, low=self.wide_low, high=self.wide_high, wide_low=None, wide_high=None)


def better_of(metric: str) -> Better:
    """Return which direction of a metric is better.

    By scikit-learn's rule, names that end in `_loss`, `_error` or `_deviance` are to be made small, all others large.

    Examples
    --------
    >>> better_of("roc_auc_score"), better_of("brier_score_loss"), better_of("mean_absolute_error"), better_of("loss")
    ('higher', 'lower', 'lower', 'lower')
    """
    return "lower" if f"_{metric}".endswith(MADE_SMALL) else "higher"


def metric_name(metric: str) -> str:
    """Return the name of a metric, by default its key without underscores.

    Examples
    --------
    >>> metric_name("roc_auc_score"), metric_name("expected_calibration_error")
    ('AUC', 'expected calibration error')
    """
    return sentences("names", "metrics").get(metric, metric.replace("_", " "))


def describe_verdict(code: str, metric: str) -> str:
    """Return a verdict as people read it.

    Examples
    --------
    >>> describe_verdict(PAYS, "log_loss"), describe_verdict(INCONCLUSIVE, "log_loss")
    ('joining improves log loss', 'inconclusive')
    """
    return render(f"report.verdicts.{code.replace(' ', '-')}", metric=metric_name(metric))


def sentence_case(text: str) -> str:
    """Return text with a capital first letter, else unchanged.

    Examples
    --------
    >>> sentence_case("log loss of AUC"), sentence_case("")
    ('Log loss of AUC', '')
    """
    return text[:1].upper() + text[1:]


def decimals_of(*values: float | None) -> int:
    """Return the number of decimals of figures of this size: three below 1.5, none from 100 on.

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

    Its size sets the decimals unless they are given. A figure that ran away is a power of ten.

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


def format_p(p: float) -> str:
    """Return a p-value with three decimals, with more where it would read as 0.05, or that it is smaller.

    Examples
    --------
    >>> format_p(0.0053), format_p(0.2), format_p(0.0004), format_p(0.04996)
    ('p = 0.005', 'p = 0.200', 'p < 0.001', 'p = 0.04996')
    """
    if p < 0.0005:
        return f"p < {number(0.001)}"
    return f"p = {number(p, decimals_beside([p], 3, [UNLIKE]))}"


def better_or_worse(gain: float, digits: int) -> str:
    """Return the size of a gain, with "better" or "worse".

    Examples
    --------
    >>> better_or_worse(0.004, 3), better_or_worse(-0.02, 2)
    ('0.004 better', '0.02 worse')
    """
    side = "worse" if gain < 0 else "better"
    return f"{number(abs(gain), digits)} {side}"


def shown(value: Any, form: Callable[[Any], str] = "{:,}".format, absent: str = ABSENT) -> str:
    """Return a value as `form` writes it, by default a count, or `absent` where it is None.

    Examples
    --------
    >>> shown(1200), shown(None), shown(None, number, "none")
    ('1,200', 'n/a', 'none')
    """
    return absent if value is None else form(value)


def with_interval(of: HasInterval, decimals: int | None = None, *, signed: bool = False) -> str:
    """Return a figure, with its interval where known.

    Examples
    --------
    >>> with_interval(Figure(0.76, 0.74, 0.78)), with_interval(Figure(0.76), 1, signed=True), with_interval(Figure())
    ('0.760 (0.740 to 0.780)', '+0.8', 'n/a')
    """
    text = number(of.value, decimals, signed=signed)
    if of.low is not None and of.high is not None:
        text += f" ({interval(of.low, of.high, decimals, signed=signed)})"
    return text


def format_as_written(value: float) -> str:
    """Return a figure with the digits that a person wrote, such as `[compare] minimum-gain`.

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
    """Return "LOW to HIGH" with equally many decimals, or "n/a" where an end is unknown.

    Both get more decimals where an end would read as 0 and is not 0.

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
    """Return the decimals that show on which side of 0 a bound lies, and of what the verdict asks of it.

    The size of the figures sets them. There are up to `MOST_MORE` more, until no bound reads as 0, the lower one not as
    `worthwhile`, and the upper one not as minus that (`code_of`).

    Examples
    --------
    >>> decimals_for(Difference(0.186, 0.004, 0.368)), decimals_for(Difference(0.02, -0.0004, 0.04))
    (3, 4)
    >>> decimals_for(Difference(0.2, 0.0, 0.4)), decimals_for(Difference(0.2, 1e-9, 0.4))
    (3, 3)
    >>> decimals_for(Difference(0.02, 0.0051, 0.04), 0.005), decimals_for(Difference(0.02, -0.0051, 0.04), 0.005)
    (4, 3)
    """
    decimals = decimals_of(difference.value, difference.low, difference.high)
    decimals = decimals_beside((difference.low,), decimals, (0.0, worthwhile))
    return decimals_beside((difference.high,), decimals, (0.0, -worthwhile))


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
    """Return a difference in which an improvement is above 0."""
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
    """Return the arm with the larger gain, and the gain; None where none was measured.

    A gain above 0 is an improvement. An arm with an interval goes before one without. The shared model is taken where
    two gains differ by rounding only.
    """
    # Arms that were not measured cannot win.
    gains = [
        (arm, gain_of(difference, better))
        for arm, difference in (("global", shared), ("personalised", personalised))
        if difference and difference.value is not None
    ]
    return max(gains, key=lambda item: (has_interval(item[1]), round(item[1].value or 0.0, 9)), default=None)


def has_interval(difference: Difference | None) -> bool:
    """Return whether a difference and its interval are known."""
    return difference is not None and None not in (difference.value, difference.low, difference.high)


def worthwhile_of(metric: str) -> float:
    """Return the gain that is worth joining for, unless a study sets another.

    Examples
    --------
    >>> worthwhile_of("roc_auc_score"), worthwhile_of("log_loss")
    (0.005, 0.0)
    """
    return WORTHWHILE.get(metric, 0.0)


def code_of(gain: Difference, worthwhile: float) -> str:
    """Return the verdict on a gain, above 0 an improvement; the only rule of verdicts.

    Parameters
    ----------
    gain : Difference
    worthwhile : float, >= 0
        The lower end of the interval, widened for the number of sites looked at, lies above it: "joining pays".
        The upper end lies below its negative: "do not use it here".

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
    """Return the verdict on joining at one site: a code of `VERDICTS`, and a sentence with the numbers.

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
        Why there is no figure.
    worthwhile : float, optional
        As for `code_of`; by default that of the metric.
    alone : str
        Family of the site's own model, where it is not of the shared one's kind.
    undertrained : str
        Why a shared model that is worse cannot be judged, where it was not trained enough.

    Notes
    -----
    The arm with the larger gain decides by `code_of`, and its gain is in the sentence. A shared model that is clearly
    worse is always named. The choice of the better arm favours joining a little: each interval leaves 2.5 % beyond
    either end, so at most 5 % of both together lie above by chance.

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
        return INCONCLUSIVE, _describe_missing(metric, reason)
    arm, gain = best
    least = worthwhile_of(metric) if worthwhile is None else worthwhile
    code = code_of(gain, least)
    words = _sentence(arm, gain, better, metric, figures or {}, least, alone)
    unadjusted = "" if undertrained else _describe_harm(arm, shared, better, least)
    if code == PAYS:
        return code, f"{words}{unadjusted}."
    if code == DO_NOT_USE and undertrained:
        return INCONCLUSIVE, f"{words}; {undertrained}."
    if code == DO_NOT_USE:
        bound = f"{MINUS}{format_as_written(least)}" if least else "0"
        worse = render("report.verdict.worse", bound=bound, model=ARM_NAMES[arm])
        return code, f"{words}: {worse}{unadjusted}."
    return code, f"{words}; {why_unclear(gain, least)}{unadjusted}."


def _describe_harm(arm: str, shared: Difference | None, better: Better, worthwhile: float) -> str:
    """Return that the shared model does harm without adjustment, or an empty text."""
    if arm == "global" or shared is None or not has_interval(shared):
        return ""
    gain = gain_of(shared, better)
    if code_of(gain, worthwhile) != DO_NOT_USE:
        return ""
    size, _ = size_and_span(gain, worthwhile)
    return render("report.verdict.unadjusted", gain=size, interval=describe_interval(gain, worthwhile))


def why_unclear(gain: Difference, worthwhile: float) -> str:
    """Return why a gain is not clear: it may be chance, or it is too small.

    Examples
    --------
    >>> why_unclear(Difference(0.01, -0.02, 0.04), 0.005)
    'the interval contains 0, so this may be chance'
    >>> why_unclear(Difference(0.002, 0.001, 0.003), 0.005)
    'the interval lies above 0, but the gain is too small to matter (under 0.005)'
    """
    if may_be_chance(gain):
        return render("report.verdict.chance")
    side, may = beyond_chance(gain.deciding, worthwhile)
    change = "gain" if side == "above" else "loss"
    return render("report.verdict.small", side=side, change=change, may=may, least=format_as_written(worthwhile))


def beyond_chance(gain: Difference, worthwhile: float) -> tuple[str, str]:
    """Return the side of 0 on which an interval lies, and whether its gain is, or may be, too small."""
    side = "above" if (gain.low or 0.0) > 0 else "below"
    may = "is" if abs(gain.value or 0.0) < worthwhile else "may be"
    return side, may


def may_be_chance(gain: Difference) -> bool:
    """Return whether the deciding interval of a gain contains 0."""
    deciding = gain.deciding
    return (deciding.low or 0.0) <= 0 <= (deciding.high or 0.0)


def size_and_span(gain: Difference, worthwhile: float = 0.0) -> tuple[str, str]:
    """Return a gain and the interval of its verdict, with the decimals that they have everywhere.

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
    """Return the name of a verdict's interval where so many sites are looked at.

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
    """Return the interval of a gain's verdict, with its name.

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


def _describe_missing(metric: str, reason: str) -> str:
    """Return why a site has no verdict."""
    name = metric_name(metric) or "the metric"
    if reason.startswith("withheld: "):
        return render("report.verdict.withheld", metric=name, reason=reason.removeprefix("withheld: "))
    return render("report.verdict.missing", metric=sentence_case(name), reason=reason or "it was not measured")


def _sentence(
    arm: str,
    gain: Difference,
    better: Better,
    metric: str,
    figures: Mapping[str, float | None],
    worthwhile: float,
    alone: str,
) -> str:
    """Return the figures of a verdict, without a full stop."""
    with_ = figures.get(arm)
    own = figures.get("local-only")
    # Both figures get equally many decimals, so that they can be compared.
    digits = decimals_of(with_, own)
    name = sentence_case(metric_name(metric))
    if better == "lower":
        name += " (lower is better)"
    against = "the site's own one"
    if own is not None:
        against = f"{number(own, digits)} alone"
        if alone:
            against += f" ({alone})"
    return render(
        "report.verdict.gain",
        metric=name,
        figure=number(with_, digits),
        model=ARM_NAMES[arm],
        against=against,
        gain=size_and_span(gain, worthwhile)[0],
        interval=describe_interval(gain, worthwhile),
    )


FEW_SITES = 4
"""With so many sites or fewer a mean is hardly ever clear: Student's t then has few degrees of freedom."""
LEAST_OF_A_CLASS = 10
"""Fewest test rows of each class for a comparison of models: with fewer no 95 % CI holds (simulated)."""
LEAST_SITES = 3
"""Fewest sites from which the interval of a mean is of use."""
UNLIKE = 0.05
"""Below this p-value the gains or ratios of sites, or the curves of groups, differ by more than chance explains."""
