"""Exact confusion tables at the thresholds and alert budgets of a study.

They are of one model on one site's holdout, and suppressed as the site's policy says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flfed.rows.features.encode import ColumnArrays
from flfed.rows.features.summarise import grouped
from flfed.study.tables import POINT_KINDS, Point
from flfed.summaries.score_bins import PointCounts
from flfed.summaries.summary import Layout
from flfed.words import render

CALLED = 0.5
"""Probability above which accuracy calls a row positive."""
MOST_CUTS = 6
"""Points of an institution whose counts leave: all that follows from more of them could not be looked through."""
SUPPRESSED = -1
"""Stands for a count that stays."""


def set_thresholds(points: Sequence[Point], y: np.ndarray, score: np.ndarray) -> list[Point]:
    """Return the points with a threshold in place of each false positive rate.

    It is the least of the scores, or just above all, that flags at most that share of rows without the outcome.

    Parameters
    ----------
    points : sequence of (kind, number)
    y, score : array [rows]
        Classes and predicted probabilities of training rows.

    Examples
    --------
    >>> set_thresholds([("false-positive-rate", 0.5)], np.array([0, 0, 1, 0, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    [('threshold', 0.3)]
    """
    falling = np.unique(score)[::-1]
    others = np.sort(score[y != 1])
    alarms = len(others) - np.searchsorted(others, falling)
    operating_points: list[Point] = []
    for kind, at in points:
        if kind != POINT_KINDS[-1]:
            operating_points.append((kind, at))
            continue
        fits = falling[alarms <= at * len(others) + 1e-9]
        above = float(np.nextafter(falling[0], np.inf)) if len(falling) else 1.0
        threshold = float(fits[-1]) if len(fits) else above
        operating_points.append(("threshold", threshold))
    return operating_points


def flagged_rows(score: np.ndarray, point: Point) -> np.ndarray:
    """Return which rows are flagged at an operating point.

    At an alert budget they are as many of the highest scores as it allows. Of equal scores all are flagged or none.

    Parameters
    ----------
    score : array [rows]
        Predicted probabilities; one that is not a number is never flagged.
    point : (kind, number)

    Examples
    --------
    >>> score = np.array([0.1, 0.9, 0.4, 0.4])
    >>> flagged_rows(score, ("threshold", 0.4)).tolist(), flagged_rows(score, ("alert-budget", 0.5)).tolist()
    ([False, True, True, True], [False, True, False, False])
    """
    by, at = point
    ranking = np.where(np.isnan(score), -np.inf, score)
    if by == "threshold":
        return ranking >= at
    # 29 of 100 rows are 0.29 of them, and 0.29 * 100 is a little less than 29.
    allowed = int(at * len(ranking) + 1e-9)
    # The row after the last that is allowed stays, and so do all that have its score.
    flagged = np.ones(len(ranking), bool)
    if allowed < len(ranking):
        flagged = ranking > np.sort(ranking)[::-1][allowed]
    return flagged


def count_points(
    points: Sequence[Point], y: np.ndarray, score: np.ndarray, rules: Sequence[Point] = ()
) -> list[PointCounts]:
    """Return the exact confusion table at each point.

    `rules` flag rows in the points' place, if there are some.
    """
    pairs = zip(points, rules or points, strict=True)
    return [_counted(point, y == 1, flagged_rows(score, rule)) for point, rule in pairs]


def _counted(point: Point, event: np.ndarray, flagged: np.ndarray) -> PointCounts:
    tp = int((flagged & event).sum())
    fp = int((flagged & ~event).sum())
    tn = int((~event).sum()) - fp
    return PointCounts(by=point[0], at=point[1], tp=tp, fp=fp, fn=int(event.sum()) - tp, tn=tn, method="")


def withhold_all(points: Sequence[Point], why: str) -> list[PointCounts]:
    """Return the points without their counts, and why."""
    cells = dict.fromkeys(("tp", "fp", "fn", "tn"), SUPPRESSED)
    return [PointCounts(by=by, at=at, method=f"withheld: {why}", **cells) for by, at in points]


@dataclass(frozen=True, eq=False)
class CellSuppression:
    """Suppression of small cells in an institution's exact counts.

    Attributes
    ----------
    y : array [rows]
        Class codes.
    score : array [rows]
    person : int array [rows]
        Whose each row is.
    rows : ColumnArrays
        The same rows, of which sums leave.
    layout : Layout
        Of these sums.
    minimum : int
        Smallest count that leaves.
    accuracy : bool
        Whether the accuracy of the same scores leaves.

    Guarantee: no number of rows below `minimum`, with the outcome, without it or in all, follows by sums and
    differences from the counts that leave. This holds together with either the accuracy or the numbers of rows in the
    groups of any one column of the summary. Zero counts as small. The flagged rows of all points are nested, so that
    together they cut the rows into layers. Each layer has at least `minimum` rows, of as many persons, of each class.
    Every count and every difference of counts is a sum of such cells. Neither do cells, nor several together, miss or
    exceed groups of a column by a few rows, as they would where the model knows little more than that column.

    What it does not cover: several columns' sums put together, or one's and the accuracy. Two models would differ by
    the rows that one of them flags and the other does not. So exact counts of a row leave in one run alone, which is
    not decided here.
    """

    y: np.ndarray
    score: np.ndarray
    person: np.ndarray
    rows: ColumnArrays
    layout: Layout
    minimum: int
    accuracy: bool

    def leaving(self, points: Sequence[Point]) -> list[PointCounts]:
        """Return the points with the counts that may leave.

        They are taken in the study's order: a later one stays where it lies too close to an earlier one.
        """
        counts = count_points(points, self.y, self.score)
        cuts: list[np.ndarray] = []
        for place, point in enumerate(points):
            cut = flagged_rows(self.score, point)
            # Of a cut and the one at which accuracy calls rows positive: none, or many, rows of a class lie between.
            between = np.bincount(self.y[cut ^ (self.score > CALLED)], minlength=2)
            apart = not self.accuracy or ((between == 0) | (between >= self.minimum)).all()
            if len(cuts) == MOST_CUTS:
                counts[place] = withhold_all([point], render("figures.withheld.enough"))[0]
            elif apart and self._fits([*cuts, cut]):
                cuts.append(cut)
            else:
                why = render("figures.withheld.follows", n=self.minimum)
                counts[place] = withhold_all([point], why)[0]
        return counts

    def _fits(self, cuts: Sequence[np.ndarray]) -> bool:
        """Return whether no small count follows from these cuts."""
        # Nested sets: a row's layer is how many of them it is in, and each layer has a cell a class.
        cells = 2 * (len(cuts) + 1)
        cell = 2 * np.sum(cuts, axis=0, dtype=int) + (self.y == 1)
        # Each pair of cell and person once, for several rows of one person hide nobody.
        people = np.unique(np.stack([cell, self.person]), axis=1)[0]
        if np.bincount(people, minlength=cells).min() < self.minimum:
            return False
        return all(self._apart(cell, cells, group, groups) for group, groups in self._columns())

    def _columns(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield each row's group in each column of the summary, and how many groups there are.

        Where the accuracy leaves, rows that are called right and those called wrong are two groups, too.
        """
        if self.accuracy:
            yield ((self.score > CALLED) == (self.y == 1)).astype(int), 2
        for column in self.layout.features:
            codes = self.rows.codes[column.name]
            counts = np.bincount(codes, minlength=len(column.cells))
            groups = grouped(counts, column.kind, self.minimum)
            of_cell = np.zeros(len(column.cells), int)
            for number, cells in enumerate(groups):
                of_cell[cells] = number
            yield of_cell[codes], len(groups)

    def _apart(self, cell: np.ndarray, cells: int, group: np.ndarray, groups: int) -> bool:
        """Return whether cells and groups differ by no few rows.

        They do where some cells together lie within some groups together, and the rest of these is small. Cells that
        hold groups with a small rest are the same, seen from the other side: all else lies within the other groups.
        """
        both = np.bincount(cell * groups + group, minlength=cells * groups).reshape(cells, groups).astype(float)
        # Every choice of cells, of which there are at most 2 ** 14.
        chosen = (np.arange(2**cells)[:, None] >> np.arange(cells)) & 1
        inside = chosen @ both
        rest = (inside > 0) @ both.sum(axis=0) - inside.sum(axis=1)
        return not ((rest > 0) & (rest < self.minimum)).any()
