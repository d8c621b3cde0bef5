"""What the order of the rows tells: a value once a block, a unit that changes, a row of means at the end."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

FEWEST = 20
"""Rows from which on an order is looked at."""
SURE = 8.0
"""Equal neighbours that chance would give, from which on none of them means that repeats were left out."""
FEW_BLOCKS = 0.05
"""Share of rows with a value up to which one in the first row is chance in one column of twenty."""


FIRST_ROWS = 0.9
"""Share of the people whose first row has a value, where it stands in the first row alone."""


def once_a_block(cells: pd.Series, *, number: bool) -> int:
    """Count the empty cells of a column that is filled once a block; 0 where it is not.

    So a table looks whose cells were merged, or whose repeated values were left out for the eye: the first row has
    a value, and no value is the one before it.

    Parameters
    ----------
    cells : Series
        In the order of the file; missing where empty.
    number : bool
        Numbers of which hardly two are equal tell nothing.

    Examples
    --------
    >>> wards = pd.Series((["north"] + [None] * 3 + ["south"] + [None] * 5) * 10)
    >>> once_a_block(wards, number=False), once_a_block(wards.ffill(), number=False)
    (80, 0)
    """
    known = cells.notna().to_numpy()
    filled = int(known.sum())
    if len(cells) < FEWEST or filled < 2 or filled > len(cells) - 2 or not known[0]:
        return 0
    values = pd.factorize(cells[known])[0]
    if (values[1:] == values[:-1]).any():
        return 0
    by_chance = (filled - 1) * float(np.square(np.bincount(values) / filled).sum())
    few = not number and filled <= FEW_BLOCKS * len(cells) and len(np.unique(values)) == filled
    return len(cells) - filled if by_chance >= SURE or few else 0


def first_of_each(cells: pd.Series, people: pd.Series) -> int:
    """Count the empty cells of a column that is filled in the first row of each person only; 0 where it is not.

    Parameters
    ----------
    cells, people : Series
        In the order of the file, the rows of one person side by side.

    Examples
    --------
    >>> people = pd.Series(range(60)) // 2
    >>> sex = pd.Series(["female", None, "male", None] * 15)
    >>> first_of_each(sex, people), first_of_each(sex.ffill(), people)
    (30, 0)
    """
    again = people.notna().to_numpy() & (people == people.shift()).to_numpy(dtype=bool)
    known = cells.notna().to_numpy()
    if again.sum() < FEWEST or known[again].any() or known[~again].mean() < FIRST_ROWS:
        return 0
    return int(again.sum())


SEGMENT = 20
"""Rows on each side of a change of unit at least, and this share of them."""
SEGMENT_SHARE = 0.03
RATIO = 5.0
"""Least factor between two units that is looked for."""
APART = 0.7
ALIKE = 0.1
"""Distance of two distributions (Kolmogorov and Smirnov) from which on they are apart, and up to which alike."""
EXACT = 0.2
"""How near a factor is to that of two units, in logarithms."""
WHOLE = (24, 1000)
ROUNDED = 0.5
"""Factors of which the smaller values may be rounded to whole ones, and how far apart the two parts are at most."""
UNITS = (7, 10, 12, 18, 24, 30.4, 60, 100, 365.25, 1000, 3600, 86400, 1e6)
"""Factors between units that are named where one is near: days a week, hours a day, units a thousand."""


@dataclass(frozen=True)
class UnitChange:
    """From which row on a column is in another unit.

    Attributes
    ----------
    row : int
        From 1, among the rows of the table.
    rows : int
        How many there are from it on.
    factor : float
        Of the later values, in the unit of the earlier ones.
    """

    row: int
    rows: int
    factor: float

    def unit(self) -> float | None:
        """Return the factor between two units that is near, None where none is."""
        larger = max(self.factor, 1 / self.factor)
        near = min(UNITS, key=lambda unit: abs(math.log(unit / larger)))
        return near if abs(math.log(near / larger)) <= EXACT else None

    def __str__(self) -> str:
        """Return the change in one phrase."""
        near = self.unit()
        times = f"{near:g}" if near else f"{max(self.factor, 1 / self.factor):.0f}"
        what = f"{times} times" if self.factor > 1 else f"1/{times} of"
        return f"from about row {self.row} on values are about {what} those before: did the unit change?"


def unit_change(numbers: pd.Series) -> UnitChange | None:
    """Return where the unit of a column changes, None where it does not.

    The values before and after are apart; multiplied by one factor they are alike; and within each part nothing
    changes, as it would in a table that is sorted by the column.

    Parameters
    ----------
    numbers : Series of float
        In the order of the file. Only those above 0 are looked at.

    Examples
    --------
    >>> hours = pd.Series(np.random.default_rng(0).lognormal(3, 0.5, 400))
    >>> days = pd.concat([hours[:250], hours[250:] / 24], ignore_index=True)
    >>> unit_change(hours) is None, str(unit_change(days)).partition(" values")[2].partition(":")[0]
    (True, ' are about 1/24 of those before')
    """
    values = numbers.to_numpy(dtype=float)
    rows = np.flatnonzero(values > 0)
    least = max(SEGMENT, math.ceil(SEGMENT_SHARE * len(rows)))
    if len(rows) < 2 * least:
        return None
    logs = np.log(values[rows])
    # Where the sum of what is above the mean is furthest from 0, the mean changes.
    sums = np.cumsum(logs - logs.mean())[:-1]
    cut = int(np.argmax(np.abs(sums))) + 1
    before = logs[:cut]
    after = logs[cut:]
    if min(len(before), len(after)) < least:
        return None
    shift = float(np.median(after) - np.median(before))
    if abs(shift) < math.log(RATIO) or _distance(before, after) < APART:
        return None
    change = UnitChange(int(rows[cut]) + 1, len(values) - int(rows[cut]), math.exp(shift))
    return change if _is_change(change, values[rows], before, after, shift) else None


def _is_change(change: UnitChange, values: np.ndarray, before: np.ndarray, after: np.ndarray, shift: float) -> bool:
    """Tell whether both sides of a shift are alike but for their unit."""
    cut = len(before)
    smaller = values[cut:] if shift < 0 else values[:cut]
    whole = change.unit() in WHOLE and bool((smaller == np.rint(smaller)).all())
    rounded = whole and _distance(before + shift, after) <= ROUNDED
    if not (_alike(*np.array_split(before, 2)) and _alike(*np.array_split(after, 2))):
        return False
    return rounded or _alike(before + shift, after)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    # 1.63 is the distance that one of a hundred pairs exceeds by chance.
    limit = 1.63 * math.sqrt((len(one) + len(other)) / (len(one) * len(other)))
    return _distance(one, other) <= max(limit, ALIKE)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two distributions."""
    # Texts of one number in two units differ in the last bits.
    at = np.sort(np.concatenate([one, other])) + 1e-9
    shares = [np.searchsorted(np.sort(part), at, side="right") / len(part) for part in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


CHANCE = 1e-5
"""Chance of a row that has so many columns' means, up to which it is one of means."""
NUMBERS = 2
MOST_OF_THEM = 2 / 3
"""Columns of numbers at least whose last cell is such a figure, and their share of all."""


def row_of_means(columns: Sequence[tuple[pd.Series, float]]) -> bool:
    """Tell whether the last row holds the means, sums or medians of the rows above it.

    Parameters
    ----------
    columns : sequence of (Series of float, float)
        Columns of numbers, in the order of the file, each with half a unit of the last cell's last decimal place.
    """
    used = [(numbers, place) for numbers, place in columns if numbers.iloc[-1:].notna().any()]
    if len(used) < NUMBERS or len(used[0][0]) < FEWEST:
        return False
    for kind in ("mean", "sum", "median"):
        chances = [_chance(numbers, place, kind) for numbers, place in used]
        found = [chance for chance in chances if chance is not None]
        if len(found) >= max(NUMBERS, MOST_OF_THEM * len(used)) and math.prod(found) <= CHANCE:
            return True
    return False


def _chance(numbers: pd.Series, place: float, kind: str) -> float | None:
    """Return how many of the rows above would pass for their figure too, None where the last one does not."""
    above = numbers.iloc[:-1].dropna()
    if above.empty:
        return None
    figure = float(getattr(above, kind)())
    near = place + 1e-9 * abs(figure)
    if abs(float(numbers.iloc[-1]) - figure) > near:
        return None
    return max(1, int(((above - figure).abs() <= near).sum())) / len(above)


_DECIMALS = re.compile(r"[.,](\d*)$")


def half_a_unit(text: str, *, scale: float = 1.0) -> float:
    """Return half a unit of a number's last decimal place.

    Examples
    --------
    >>> half_a_unit("53.4"), half_a_unit("53")
    (0.05, 0.5)
    """
    decimals = _DECIMALS.search(text)
    places = len(decimals[1]) if decimals else 0
    return 0.5 * 10.0**-places * abs(scale)
