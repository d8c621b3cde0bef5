"""Population stability: groups of training rows, and how far later rows have moved from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from flfed.summaries.drift import BINNING, by_chance
from flfed.summaries.summary import ColumnLayout, Layout, Summary
from flfed.summaries.table_one import in_groups

LEAST_ROWS = 10
"""Training rows that a group has at least."""
QUANTILES = 10
NOTABLE = 0.1
"""Index up to which a change is usually read as none.

Source: Siddiqi 2006, "Credit risk scorecards"."""
Reason = Literal["", "suppressed", "wide", "single", "unscored", "few-sites"]
"""Why nothing is compared; the sentences are in `flfed/words/export.toml`."""


@dataclass(frozen=True)
class Group:
    """Cells of a column that are compared together.

    Attributes
    ----------
    cells : tuple of int
        Places among the column's cells.
    rows : int
        Training rows in them.
    """

    cells: tuple[int, ...]
    rows: int


Grouped = tuple[tuple[Group, ...], tuple[int, ...]]
"""Groups, and the cells that are too rare for one."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Training rows of all sites, by groups of one column.

    Attributes
    ----------
    column : str
    groups : tuple of Group
        At least `LEAST_ROWS` rows each. Cells that some site suppressed are in one group.
    rare : tuple of int
        Cells with fewer than `LEAST_ROWS` rows together, in no group.
    mean, deviation : float or None
        Of a number, after its transform, whose mean is compared: its bins are wider than its standard deviation, or
        bins with more than a tenth of the rows are suppressed.
    about : bool
        Whether the mean comes from groups of bins.
    reason : str
        Why nothing is compared, or "".
    """

    column: str
    groups: tuple[Group, ...] = ()
    rare: tuple[int, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    about: bool = False
    reason: Reason = ""

    @property
    def rows(self) -> int:
        """Training rows in the groups."""
        return sum(group.rows for group in self.groups)


@dataclass(frozen=True)
class Movement:
    """Index of a column, and the bound of its alarm.

    Attributes
    ----------
    index, bound : float
    cells : tuple of int
        Those of the group that moved most.
    before : float
        Share of training rows in them; of rare cells the largest that it can be.
    now : float
    """

    index: float
    bound: float
    cells: tuple[int, ...]
    before: float
    now: float

    @property
    def is_alarm(self) -> bool:
        """Whether the index is above the bound."""
        return self.index > self.bound


def training_references(layout: Layout, summary: Summary) -> list[Reference]:
    """Return the groups of each feature, from the sums over the training rows of all sites.

    A number has ten groups of bins by its quantiles, a category a group for each value. Missing values are a group.
    Bins under ten rows are joined with the smaller neighbour, values with each other.

    Parameters
    ----------
    layout : Layout
    summary : Summary
        Merged.

    Reveals: nothing that the merged sums do not, and no count below ten. It shows which cells some site suppressed.
    """
    references = []
    for number, column, place in layout.places():
        if column is not layout.target:
            references.append(_column_reference(column, summary, number, place))
    return references


def _column_reference(column: ColumnLayout, summary: Summary, number: int, place: slice) -> Reference:
    counts = np.rint(summary.cells[place]).astype(int)
    is_released = summary.cells_known[place] == summary.sites[0]
    rows = round(float(summary.rows[0]))
    if column.kind != "number":
        return _value_reference(column.name, counts, is_released, rows)
    mean, deviation = _moments(summary.moments[number])
    # In these units, the half range, all bins together are 2 wide.
    is_wide = 0 < deviation < 2 / (len(counts) - 1)
    is_suppressed = (rows - counts[is_released].sum()) * QUANTILES > rows
    about = in_groups(column, [summary], number, place)
    if is_wide and about:
        return Reference(column=column.name, reason="wide")
    if is_suppressed and not (deviation and summary.moments_known[number] == summary.sites[0]):
        return Reference(column=column.name, reason="suppressed")
    if is_wide or is_suppressed:
        groups, rare = _one_group(counts, is_released, rows)
        center = column.middle + column.half * mean
        spread = column.half * deviation
        return Reference(column=column.name, groups=groups, rare=rare, mean=center, deviation=spread, about=about)
    if deviation:
        return make_reference(column.name, counts, is_released, rows)
    # The bins of a constant number are like values: all but one are rare.
    return _value_reference(column.name, counts, is_released, rows)


def _value_reference(column: str, counts: np.ndarray, is_released: np.ndarray, rows: int) -> Reference:
    parts = [np.array([cell]) for cell in np.flatnonzero(is_released[:-1])]
    return _reference(column, *_joined_groups(parts, counts, is_released, rows), is_released=is_released)


def _one_group(counts: np.ndarray, is_released: np.ndarray, rows: int) -> Grouped:
    """Return all values as a group, and missing ones apart where their number is released."""
    last = len(counts) - 1
    if not is_released[last]:
        return (Group(tuple(range(last + 1)), rows),), ()
    missing = int(counts[last])
    groups = (Group(tuple(range(last)), rows - missing),)
    if missing < LEAST_ROWS:
        return groups, (last,)
    return (*groups, Group((last,), missing)), ()


def make_reference(column: str, counts: np.ndarray, is_released: np.ndarray, rows: int) -> Reference:
    """Return ten groups of ordered cells by their quantiles.

    Parameters
    ----------
    column : str
    counts : int array [cells]
        Rows by cell, the last of them without a value.
    is_released : bool array [cells]
        Whether every site released the count.
    rows : int
    """
    cells = np.flatnonzero(is_released[:-1])
    rows_by_cell = counts[cells]
    # The quantile of the middle of a cell: one with many rows has a group of its own.
    quantile = (np.cumsum(rows_by_cell) - rows_by_cell / 2) / max(rows_by_cell.sum(), 1)
    number = np.minimum((quantile * QUANTILES).astype(int), QUANTILES - 1)
    parts = [cells[number == one] for one in np.unique(number)]
    return _reference(column, *_neighbour_groups(parts, counts, is_released, rows), is_released=is_released)


def _reference(column: str, groups: tuple[Group, ...], rare: tuple[int, ...], is_released: np.ndarray) -> Reference:
    reason: Reason = ""
    if len(groups) < 2 and not (groups and rare):
        reason = "single" if is_released.all() else "suppressed"
    return Reference(column=column, groups=groups, rare=rare, reason=reason)


def _moments(sums: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, 0 twice without values, from count, sum and sum of squares."""
    count, total, squares = sums
    if count <= 0:
        return 0.0, 0.0
    mean = total / count
    variance = squares / count - mean**2
    # Rounding leaves about 1e-16 of the second moment where all values are equal.
    if variance <= 1e-12 * max(squares / count, 1e-12):
        return float(mean), 0.0
    return float(mean), math.sqrt(variance)


def _all_groups(parts: list[np.ndarray], counts: np.ndarray, is_released: np.ndarray, rows: int) -> list[Group]:
    """Return the parts as groups, then that of missing values, then that of suppressed cells."""
    groups = [Group(tuple(part.tolist()), int(counts[part].sum())) for part in parts]
    if is_released[-1]:
        groups.append(Group((len(counts) - 1,), int(counts[-1])))
    suppressed = np.flatnonzero(~is_released)
    if len(suppressed):
        groups.append(Group(tuple(suppressed.tolist()), int(rows - counts[is_released].sum())))
    return groups


def _joined_groups(parts: list[np.ndarray], counts: np.ndarray, is_released: np.ndarray, rows: int) -> Grouped:
    """Return groups with the small ones joined to one, or the cells of the small ones if they stay small."""
    groups = _all_groups(parts, counts, is_released, rows)
    large = [group for group in groups if group.rows >= LEAST_ROWS]
    small = [group for group in groups if group.rows < LEAST_ROWS]
    cells = tuple(sorted(chain.from_iterable(group.cells for group in small)))
    joined = Group(cells, sum(group.rows for group in small))
    if joined.rows >= LEAST_ROWS:
        return (*large, joined), ()
    return tuple(large), joined.cells


def _neighbour_groups(parts: list[np.ndarray], counts: np.ndarray, is_released: np.ndarray, rows: int) -> Grouped:
    """Return groups with each small bin joined to its smaller neighbour.

    Missing values and suppressed cells are nobody's neighbours: few of them are in no group.
    """
    groups = [Group(tuple(part.tolist()), int(counts[part].sum())) for part in parts]
    others = _all_groups([], counts, is_released, rows)
    rare = tuple(chain.from_iterable(group.cells for group in others if group.rows < LEAST_ROWS))
    while len(groups) > 1:
        sizes = [group.rows for group in groups]
        small = sizes.index(min(sizes))
        if sizes[small] >= LEAST_ROWS:
            break
        beside = [place for place in (small - 1, small + 1) if 0 <= place < len(groups)]
        first, second = sorted([small, min(beside, key=lambda place: sizes[place])])
        cells = groups[first].cells + groups[second].cells
        groups[first : second + 1] = [Group(tuple(sorted(cells)), sizes[first] + sizes[second])]
    # Fewer than ten rows in all are no group.
    return tuple(group for group in (*groups, *others) if group.rows >= LEAST_ROWS), rare


def index_terms(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return each group's part of the population stability index, `(p - q) log(p / q)`.

    Half a row is added to each group, so that an empty one counts as few rows.

    Parameters
    ----------
    now, before : array [groups]
        Rows.

    Examples
    --------
    >>> terms = index_terms(np.array([300.0, 700.0]), np.array([5000.0, 5000.0]))
    >>> round(float(terms.sum()), 3)  # 0.2 log(0.7 / 0.3) = 0.169
    0.169
    """
    p = (now + 0.5) / (now + 0.5).sum()
    q = (before + 0.5) / (before + 0.5).sum()
    return np.asarray((p - q) * np.log(p / q))


def measure_movement(
    reference: Reference, counts: np.ndarray, mean: float, tests: int, independent: float = 1.0
) -> Movement | None:
    """Return how far rows have moved from a reference, or None where nothing is compared.

    Parameters
    ----------
    reference : Reference
    counts : int array [cells]
        Rows by cell, the last of them without a value.
    mean : float
        Of a number's values, after its transform; NaN without values. Only a reference with a mean needs it.
    tests : int
        Comparisons that share the 5 % of false alarms.
    independent : float in (0, 1]
        Independent rows in a row.

    Notes
    -----
    No alarm at an index up to 0.1, or where chance alone stays below it in 95 of 100 tables for all comparisons
    together: without a change, the index over `1/n + 1/m` is about chi-squared, with one degree of freedom less than
    groups. The standardised difference of a mean, squared, is the index of two normal distributions of one spread. Of a
    mean from groups of bins it counts beyond `drift.BINNING`.

    Source: Yurdakul and Naranjo 2020, "Statistical properties of the population stability index".
    """
    if reference.reason:
        return None
    movements = [_group_movement(reference, counts, mean, tests, independent)]
    movements.append(_rare_movement(reference, counts, tests, independent))
    compared = [movement for movement in movements if movement is not None]
    return max(compared, key=lambda movement: movement.index / movement.bound, default=None)


def _group_movement(
    reference: Reference, counts: np.ndarray, mean: float, tests: int, independent: float
) -> Movement | None:
    now = np.array([counts[list(group.cells)].sum() for group in reference.groups], dtype=float)
    before = np.array([group.rows for group in reference.groups], dtype=float)
    freedom = len(now) - 1
    rows = float(now.sum())
    if not rows:
        return None
    terms = index_terms(now, before)
    if reference.mean is not None and reference.deviation is not None:
        freedom += 1
        if not math.isnan(mean):
            difference = abs(mean - reference.mean) / reference.deviation
            # Groups of bins give a mean within this distance.
            if reference.about:
                difference = max(0.0, difference - BINNING)
            terms[0] += (now[0] / rows + before[0] / before.sum()) / 2 * difference**2
    if not freedom:
        return None
    most = int(terms.argmax())
    return Movement(
        index=float(terms.sum()),
        bound=alarm_bound(rows * independent, float(before.sum()), freedom, tests),
        cells=reference.groups[most].cells,
        before=float(before[most] / before.sum()),
        now=float(now[most] / rows),
    )


def _rare_movement(reference: Reference, counts: np.ndarray, tests: int, independent: float) -> Movement | None:
    """Return how far the rare cells have moved up, as if they had had all the rows that they can have had."""
    if not reference.rare:
        return None
    rows = float(counts.sum())
    now = float(counts[list(reference.rare)].sum())
    before = float(LEAST_ROWS)
    training = reference.rows + before
    index = 0.0
    if now / rows > before / training:
        index = float(index_terms(np.array([now, rows - now]), np.array([before, training - before])).sum())
    bound = alarm_bound(rows * independent, training, 1, tests)
    return Movement(index, bound, reference.rare, before / training, now / rows)


def alarm_bound(n: float, m: float, freedom: int, tests: int) -> float:
    """Return the index above which there is an alarm: chance seldom exceeds it, and it is above `NOTABLE`.

    Parameters
    ----------
    n, m : float
        Rows now, and in training.
    freedom, tests : int
        As for `drift.by_chance`.
    """
    return max(NOTABLE, by_chance(n, m, freedom, tests) ** 2)
