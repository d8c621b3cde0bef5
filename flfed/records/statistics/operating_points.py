"""Operating points of a model.

They are confusion tables at a threshold or an alert budget, with the figures that follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from flfed.records.statistics.score_curves import ScoreCounts

RARE = 0.1
"""Share of rows with the outcome below which an alert budget says more than a threshold."""


@dataclass(frozen=True)
class OperatingPoint:
    """Confusion table of rows flagged from a threshold on.

    Attributes
    ----------
    threshold : float or None
        Probability from which on a row is flagged; None where only the counts are known.
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

    def of_same_rows(self, other: OperatingPoint) -> bool:
        """Tell whether another confusion table may be of the same rows, by how many there are of each class."""
        return (self.rows, self.events) == (other.rows, other.events)

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
        return None if share is None else 1000 * share

    @property
    def net_benefit(self) -> float | None:
        """Net benefit, `tp / n - fp / n * t / (1 - t)`.

        None without a threshold. One of 1 flags only what is certain, and its false alarms have no finite price.

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
    """Return the thresholds at which a confusion table is known.

    They are the lower ends of the bins that have rows, from low to high, and 1, from which on nobody is flagged.
    Between two of them there is another edge only where no row lies.
    """
    return sorted({float(edge) for one in counts for edge in one.low} | {1.0})


def decision_curve(counts: ScoreCounts) -> list[OperatingPoint]:
    """Return the confusion tables of a decision curve, by rising threshold.

    They are those at both ends of each bin that has rows, and some between such bins, more of them near 0: there the
    same rows are flagged at another price. One of 1, where a false alarm has no finite price, is left out.

    Source: Vickers & Elkin 2006, "Decision curve analysis".
    """
    between = np.arange(0, 100) / 100
    ends = np.unique(np.concatenate([counts.low, counts.high, between, between**3]))
    inside = np.array([np.any((counts.low < end) & (end < counts.high)) for end in ends])
    return [at_threshold(counts, float(end)) for end in ends[~inside & (ends < 1)]]


def ahead_of_both(points: Sequence[OperatingPoint]) -> tuple[float, float] | None:
    """Return the widest range of thresholds at which a model is of use.

    There its net benefit is above that of flagging everybody, and above 0, which is what flagging nobody has.

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
        if _is_ahead(point):
            runs[-1].append(float(point.threshold or 0))
        elif runs[-1]:
            runs.append([])
    widest = max(runs, key=lambda run: run[-1] - run[0] if run else -1.0)
    return (widest[0], widest[-1]) if widest else None


def _is_ahead(point: OperatingPoint) -> bool:
    mine, of_all = point.net_benefit, point.net_benefit_of_all
    return mine is not None and of_all is not None and mine > max(of_all, 0) + 1e-12


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
    tp, fp = int(counts.positive[flagged].sum()), int(counts.negative[flagged].sum())
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
    # Shares would round: 5 of 50 rows are a tenth, which .1 times 50 is not below.
    fits = above <= budget * counts.rows + 1e-9
    return at_threshold(counts, float(thresholds[int(np.argmax(fits))]))


def in_words(point: OperatingPoint, of: str = "rows") -> str:
    """Return a confusion table as a sentence about 1,000 rows.

    It is empty where there are no rows.

    Examples
    --------
    >>> in_words(OperatingPoint(0.2, tp=9, fp=28, fn=3, tn=960), "patients")
    'Of 1,000 patients, 37 would be flagged; 9 of them have the outcome. Of those not flagged, 3 have it.'
    """
    if not point.rows:
        return ""
    flagged, right, missed = (_of_1000(count, point.rows) for count in (point.alerts, point.tp, point.fn))
    found = f"; {right} of them {_have(right)} the outcome" if point.alerts else ""
    return f"Of 1,000 {of}, {flagged} would be flagged{found}. Of those not flagged, {missed} {_have(missed)} it."


def _of_1000(count: int, rows: int) -> str:
    """Return how many of a thousand, "none" or "fewer than 1"."""
    if not count:
        return "none"
    of = 1000 * count / rows
    return "fewer than 1" if of < 0.5 else f"{int(of + 0.5):,}"


def _have(many: str) -> str:
    return "has" if many == "1" else "have"
