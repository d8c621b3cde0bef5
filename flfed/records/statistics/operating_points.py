"""Operating points of a model: flagged rows at a threshold or an alert budget, in figures, tables and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from flfed.records.objects import read
from flfed.records.statistics.score_curves import ALL, TOGETHER, ScoreCounts, is_together
from flfed.records.statistics.verdict import ABSENT, decimals_beside, format_as_written, number, sentence_case, shown
from flfed.words import render

RARE = 0.1
"""Share of rows with the outcome below which an alert budget is of more use than a threshold."""


@dataclass(frozen=True)
class OperatingPoint:
    """Confusion table of rows flagged from a threshold on.

    Attributes
    ----------
    threshold : float or None
        Probability from which on a row is flagged; None with counts alone.
    tp, fp, fn, tn : int
        Rows flagged with and without the outcome, and rows not flagged with and without it.
    """

    threshold: float | None
    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def alerts(self) -> int:
        """Rows that are flagged."""
        return self.tp + self.fp

    @property
    def events(self) -> int:
        """Rows with the outcome."""
        return self.tp + self.fn

    @property
    def sensitivity(self) -> float | None:
        """Share of rows with the outcome that are flagged."""
        return _share(self.tp, self.events)

    @property
    def specificity(self) -> float | None:
        """Share of rows without the outcome that are not flagged."""
        return _share(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float | None:
        """Share of flagged rows that have the outcome."""
        return _share(self.tp, self.alerts)

    @property
    def npv(self) -> float | None:
        """Share of rows not flagged that do not have the outcome."""
        return _share(self.tn, self.tn + self.fn)

    @property
    def alerts_per_1000(self) -> float | None:
        """Rows flagged of a thousand."""
        share = _share(self.alerts, self.rows)
        return share and 1000 * share

    @property
    def net_benefit(self) -> float | None:
        """Net benefit, `tp / n - fp / n * t / (1 - t)`.

        None without a threshold, or with one of 1, where a false alarm has no finite price.

        Source: Vickers & Elkin 2006, "Decision curve analysis", equation in section "Theory".

        Examples
        --------
        >>> round(OperatingPoint(0.2, tp=30, fp=40, fn=10, tn=120).net_benefit, 6)
        0.1
        """
        return self._net_benefit(self.tp, self.fp)

    @property
    def net_benefit_of_all(self) -> float | None:
        """Net benefit of flagging every row at the same price."""
        return self._net_benefit(self.events, self.rows - self.events)

    def _net_benefit(self, right: int, false: int) -> float | None:
        if self.threshold is None or self.threshold >= 1 or not self.rows:
            return None
        return (right - false * self.threshold / (1 - self.threshold)) / self.rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def edges(counts: Iterable[ScoreCounts]) -> list[float]:
    """Return the thresholds with a known confusion table: lower ends of bins with rows, and 1, which flags nobody."""
    return sorted({float(edge) for one in counts for edge in one.low} | {1.0})


def decision_curve(counts: ScoreCounts) -> list[OperatingPoint]:
    """Return the confusion tables of a decision curve, by rising threshold.

    They are those at both ends of each bin that has rows, and some between such bins, more of them near 0: there the
    same rows are flagged at another price. A threshold of 1, where a false alarm has no finite price, is left out.

    Source: Vickers & Elkin 2006, "Decision curve analysis".
    """
    between = np.arange(0, 100) / 100
    ends = np.unique(np.concatenate([counts.low, counts.high, between, between**3]))
    inside = np.array([np.any((counts.low < end) & (end < counts.high)) for end in ends])
    return [at_threshold(counts, float(end)) for end in ends[~inside & (ends < 1)]]


def ahead_of_both(points: Sequence[OperatingPoint]) -> tuple[float, float] | None:
    """Return the widest range of thresholds at which a model is of use.

    There its net benefit is above that of flagging everybody, and above that of flagging nobody, which is 0.

    Parameters
    ----------
    points : sequence of OperatingPoint
        By rising threshold, as of `decision_curve`.

    Examples
    --------
    >>> ahead_of_both([OperatingPoint(t, tp=30, fp=40, fn=10, tn=120) for t in (0.1, 0.2, 0.4, 0.5)])
    (0.1, 0.4)
    """
    runs: list[list[float]] = [[]]
    for point in points:
        benefit = point.net_benefit
        of_all = point.net_benefit_of_all
        if benefit is not None and of_all is not None and benefit > max(of_all, 0) + 1e-12:
            runs[-1].append(float(point.threshold or 0))
        elif runs[-1]:
            runs.append([])
    widest = max(runs, key=lambda run: run[-1] - run[0] if run else -1.0)
    return (widest[0], widest[-1]) if widest else None


def at_threshold(counts: ScoreCounts, threshold: float) -> OperatingPoint:
    """Return the confusion table at a threshold.

    A row is flagged where its predicted probability is at least the threshold.

    Parameters
    ----------
    counts : ScoreCounts
    threshold : float in [0, 1]
        An edge of bins, of these counts or of others in the same bins.

    Raises
    ------
    ValueError
        If the threshold divides a bin that has rows: of those nobody knows how many are flagged.
    """
    if np.any((counts.low < threshold) & (threshold < counts.high)):
        raise ValueError(f"threshold={threshold} lies within a bin that has rows; take one of `edges`")
    flagged = counts.low >= threshold
    tp = int(counts.positive[flagged].sum())
    fp = int(counts.negative[flagged].sum())
    return OperatingPoint(threshold, tp, fp, counts.events - tp, counts.rows - counts.events - fp)


def at_budget(counts: ScoreCounts, budget: float) -> OperatingPoint:
    """Return the confusion table at an alert budget.

    Its threshold is the edge of bins whose share of flagged rows is the largest not above the budget.

    Parameters
    ----------
    counts : ScoreCounts
    budget : float in (0, 1)
        Share of rows that people can look at.
    """
    thresholds = np.append(counts.low, 1.0)
    above = np.append(np.cumsum((counts.negative + counts.positive)[::-1])[::-1], 0)
    # Shares would round: 5 of 50 rows are a tenth, which 0.1 times 50 is not below.
    fits = above <= budget * counts.rows + 1e-9
    return at_threshold(counts, float(thresholds[int(np.argmax(fits))]))


def in_words(point: OperatingPoint, of: str = "rows") -> str:
    """Return a confusion table as a sentence about 1,000 rows, "" without rows.

    Examples
    --------
    >>> in_words(OperatingPoint(0.2, tp=9, fp=28, fn=3, tn=960), "patients")
    'Of 1,000 patients, 37 would be flagged; 9 of them have the outcome. Of those not flagged, 3 have it.'
    """
    if not point.rows:
        return ""
    flagged, right, missed = (_of_1000(count, point.rows) for count in (point.alerts, point.tp, point.fn))
    facts = {"unit": of, "flagged": flagged, "missed": f"{missed} {_have(missed)}"}
    if not point.alerts:
        return render("report.points.unflagged", **facts)
    return render("report.points.flagged", right=f"{right} of them {_have(right)}", **facts)


def _of_1000(count: int, rows: int) -> str:
    """Return a number of a thousand, "none" or "fewer than 1"."""
    if not count:
        return "none"
    of = 1000 * count / rows
    if of < 0.5:
        return "fewer than 1"
    return f"{int(of + 0.5):,}"


def _have(many: str) -> str:
    return "has" if many == "1" else "have"


CELLS = (
    "of them with the outcome (TP)", "without it (FP)", "Not flagged, with the outcome (FN)", "without it (TN)",
)  # fmt: skip
FEW_EVENTS = 0.01
"""Share of rows with the outcome below which the first budget is a hundredth of the rows."""
ODDS = (1 / 3, 1.0, 3.0)
"""Thresholds with figures of net benefit, as multiples of the odds of the outcome."""


def share_with_outcome(counts_by_name: Mapping[str, ScoreCounts]) -> float:
    """Return the share with the outcome of the most rows, those of all together."""
    most = max(counts_by_name.values(), key=lambda counts: counts.rows)
    return most.events / max(most.rows, 1)


def first_budget(share: float) -> float:
    """Return the alert budget to show first, a share of rows."""
    return 0.01 if share < FEW_EVENTS else 0.05


def first_threshold(offered: Sequence[float], share: float) -> float:
    """Return the threshold to show first, near the share with the outcome."""
    return min(offered[:-1], key=lambda edge: abs(edge - share))


def first_in_words(points: Mapping[str, OperatingPoint]) -> str:
    """Return the first table in words, that of all sites where known."""
    name, point = next(iter(points.items()), ("", OperatingPoint(None, 0, 0, 0, 0)))
    sentence = in_words(point)
    if is_together(name):
        name = sentence_case(name)
    return sentence and f"{name}: {sentence}"


@dataclass(frozen=True)
class RatePoint:
    """Counts at one false positive rate of training rows; None where withheld, and `why`."""

    rate: float
    tp: int | None = None
    fp: int | None = None
    fn: int | None = None
    tn: int | None = None
    why: str | None = ""
    sites: int = 0

    @property
    def point(self) -> OperatingPoint | None:
        """The confusion table, None where it is withheld."""
        if self.tp is None or self.fp is None or self.fn is None or self.tn is None:
            return None
        return OperatingPoint(None, self.tp, self.fp, self.fn, self.tn)


@dataclass(frozen=True)
class RatePoints:
    """The object "operating-points" of a run: counts of all sites together, and of each."""

    all: list[RatePoint]
    sites: dict[str, list[RatePoint]]
    requested_sites: int

    def by_name(self) -> dict[str, list[RatePoint]]:
        """Return the points of all sites together, where these are several, and of each site."""
        inside = max((of.sites for of in self.all), default=0)
        points_by_name = {}
        if inside > 1:
            name = ALL if inside >= self.requested_sites else f"{inside} of {self.requested_sites} {TOGETHER}"
            points_by_name[name] = [of for of in self.all if of.sites == inside]
        return points_by_name | {site: self.sites[site] for site in sorted(self.sites)}


def list_rates(payload: Mapping[str, Any] | RatePoints) -> list[float]:
    """Return the false positive rates at which sites counted."""
    points = read(RatePoints, payload)
    return list(dict.fromkeys(of.rate for one in (points.all, *points.sites.values()) for of in one))


def rate_lines(
    payload: Mapping[str, Any] | RatePoints, rate: float
) -> tuple[list[dict[str, str]], dict[str, OperatingPoint]]:
    """Return the counts at a rate of `list_rates`, a line each, and the tables that are not withheld."""
    lines = []
    point_by_name = {}
    for name, points in read(RatePoints, payload).by_name().items():
        of = next((of for of in points if of.rate == rate), RatePoint(rate, why="not released"))
        if of.point is None:
            lines.append({"Rows of": name, "Flagged": of.why or "withheld"} | dict.fromkeys(CELLS, ABSENT))
        else:
            point_by_name[name] = of.point
            lines.append(counts_line(name, of.point))
    return lines, point_by_name


def choose_thresholds(counts_by_name: Mapping[str, ScoreCounts]) -> list[float]:
    """Return the thresholds with figures of net benefit: edges about the odds of the outcome."""
    share = share_with_outcome(counts_by_name)
    odds = share / max(1 - share, 1e-9)
    offered = edges(counts_by_name.values())
    return sorted({first_threshold(offered, by * odds / (1 + by * odds)) for by in ODDS})


def net_benefit_line(name: str, point: OperatingPoint) -> dict[str, str]:
    """Return the net benefit of a model, of flagging everybody and nobody, for a table of several."""
    ways = {"the model": point.net_benefit, "flagging everybody": point.net_benefit_of_all, "flagging nobody": 0.0}
    benefits = {way: value for way, value in ways.items() if value is not None}
    most = max(benefits.values())
    # Net benefit is at most the share with the outcome.
    decimals = 5 if point.events < RARE * point.rows else 3
    # Two that are 10 to the power of minus d apart differ in d decimals.
    decimals = decimals_beside([(most - value) / 2 for value in benefits.values()], decimals)
    return {
        "Rows of": name,
        "Threshold": shown(point.threshold, probability),
        **{sentence_case(way): number(value, decimals) for way, value in ways.items()},
        "Best": ", ".join(way for way, value in benefits.items() if value >= most - 1e-12),
    }


def ahead_line(name: str, points: Sequence[OperatingPoint]) -> dict[str, str]:
    """Return the thresholds at which a model is better than both, for a table of several."""
    ahead = " to ".join(dict.fromkeys(map(probability, ahead_of_both(points) or ()))) or "nowhere"
    rows = f"{points[0].rows}, {points[0].events} with the outcome"
    return {"Rows of": name, "Test rows": rows, "The model is better than both at thresholds of": ahead}


def threshold_in_words(threshold: float) -> str:
    """Return a threshold in words."""
    return f"a probability of at least {probability(threshold)}"


def budget_in_words(budget: float) -> str:
    """Return an alert budget, a share of the rows, in words."""
    return f"an alert budget of {_percent(budget)} %"


def rate_in_words(rate: float) -> str:
    """Return a false positive rate in words."""
    return render("report.points.alarms", percent=_percent(rate))


def _percent(share: float) -> str:
    return format_as_written(round(100 * share, 9))


def probability(value: float) -> str:
    """Return a probability with three significant digits.

    Examples
    --------
    >>> probability(0.0), probability(0.00012345), probability(0.5), probability(1.0)
    ('0', '0.000123', '0.5', '1')
    >>> probability(0.0000001), probability(0.9996)
    ('0.0000001', '0.9996')
    """
    # Near 1 the distance to 1 counts: 0.9996 is not 1.
    digits = Decimal(f"{value:.3g}")
    if value < 1 <= digits:
        digits = 1 - Decimal(f"{1 - value:.1g}")
    text = f"{digits:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text


def counts_line(name: str, point: OperatingPoint) -> dict[str, str]:
    """Return a confusion table, for a table of several."""
    threshold = {} if point.threshold is None else {"Flagged from": probability(point.threshold)}
    return {
        "Rows of": name,
        **threshold,
        "Flagged": f"{point.alerts} of {point.rows}",
        **dict(zip(CELLS, map(str, (point.tp, point.fp, point.fn, point.tn)), strict=True)),
    }


def figures_line(name: str, point: OperatingPoint) -> dict[str, str]:
    """Return the figures of a confusion table, for a table of several; net benefit has a price only by a threshold."""
    benefits = {
        "Net benefit": number(point.net_benefit),
        "Net benefit of flagging everybody": number(point.net_benefit_of_all),
    }
    return {
        "Rows of": name,
        "Sensitivity": number(point.sensitivity),
        "Specificity": number(point.specificity),
        "PPV": number(point.ppv),
        "NPV": number(point.npv),
        "Alerts per 1,000": number(point.alerts_per_1000, 1),
        **({} if point.threshold is None else benefits),
    }
