"""Oddities of one column: codes for "not known", odd dates, and patterns in the order of the rows.

Dates may lie in the future. In the order of the rows, values may be filled once a block, or change their unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.words import render

FEWEST = 20
"""Least number of rows with a value for which a column is examined."""
LEAST = 5
SHARE = 0.01
"""A code for "not known" stands in at least so many rows, and in this share of them."""
MOST = 4
"""A number in more than a quarter of the rows is a value, unless all its digits are nine or eight."""
FAR = 5
WIDE = 0.1
"""A code is further from the next value than five usual steps, and than a tenth of the span of the others."""
FILLERS = tuple(float(sign + digit * length) for sign, digit, length in product(("", "-"), "789", range(2, 13)))
"""Numbers of two or more digits that are all seven, eight or nine."""
NEXT = 3
"""The gap beside a code is at least twice the largest of so many steps between the next values."""
BESIDE = 5
"""Distinct values on each side with which a code is compared."""
TIMES = 3
"""A 0 is a code rather than a count where it has so many times the rows of the next value."""


def far_from_all(present_cells: pd.Series) -> int:
    """Count rows whose extreme value looks like a code for "not known".

    It is the largest or smallest value. Where neither looks like a code, the count is 0.

    Parameters
    ----------
    present_cells : Series of numbers or dates, without gaps

    Examples
    --------
    >>> ages = pd.Series([*range(20, 90), *[999] * 7])
    >>> far_from_all(ages), far_from_all(ages[:70])
    (7, 0)
    """
    dtype = "int64" if present_cells.dtype.kind == "M" else "float64"
    numbers = present_cells.to_numpy().astype(dtype)
    values, counts = np.unique(numbers, return_counts=True)
    if len(numbers) < FEWEST or len(values) < 4:
        return 0
    enough = max(LEAST, SHARE * len(numbers))
    # A 0 is a count where the next number has nearly as many rows.
    for place, others in ((-1, values[:-1]), (0, values[1:])):
        gap = abs(float(values[place]) - float(others[place]))
        span = float(others[-1]) - float(others[0])
        small = values[place] == 0 and gap <= 2 * WIDE * span and counts[place] < TIMES * counts[1]
        common = small or (MOST * counts[place] > len(numbers) and values[place] not in FILLERS)
        if counts[place] >= enough and not common and _is_far(values, place, gap, span):
            return int(counts[place])
    return 0


def _is_far(values: np.ndarray, place: int, gap: float, span: float) -> bool:
    """Return whether a `gap` between the first or last value and the others is too large for their kind."""
    if place == 0:
        steps = np.diff(values[1:]).astype(float)
        nearest = steps[:NEXT]
    else:
        steps = np.diff(values[:-1]).astype(float)
        nearest = steps[-NEXT:]
    alone_below = place == 0 and values[0] < 0 <= values[1] and float(values[0]).is_integer()
    # Where the next values lie far apart themselves, the distribution ends there.
    alone = gap > max(FAR * float(np.median(steps)), WIDE * span, 2 * float(nearest.max()))
    return gap > span or (is_code(values[place]) and alone) or alone_below


def is_code(value: float) -> bool:
    """Return whether a number looks like a code: 0, or all nines or eights, of either sign.

    Examples
    --------
    >>> is_code(-999), is_code(481516.23)
    (True, False)
    """
    return value == 0 or set(f"{abs(value):.15g}") in ({"9"}, {"8"})


def repeated_codes(present_cells: pd.Series) -> int:
    """Count rows with values such as 77, 88 or 9999 that are far more frequent than their neighbours.

    Such a value lies in the range of the others and has two or more digits, all seven, eight or nine. Values of as many
    digits are examined together: 77, 88 and 99 for "not asked", "refused" and "not known".

    Parameters
    ----------
    present_cells : Series of numbers, without gaps

    Examples
    --------
    >>> ages = pd.Series([*range(20, 105), *[99] * 7])
    >>> repeated_codes(ages), repeated_codes(ages[:85])
    (8, 0)
    """
    values, counts = np.unique(present_cells.to_numpy(dtype=float), return_counts=True)
    if len(present_cells) < FEWEST or len(values) <= BESIDE:
        return 0
    fillers = np.isin(values, FILLERS)
    others = np.where(fillers, np.nan, counts)
    together: dict[int, list[Counted]] = {}
    for place in np.flatnonzero(fillers).tolist():
        beside = others[max(0, place - BESIDE) : place + BESIDE + 1]
        beside = beside[~np.isnan(beside)]
        if len(beside) and counts[place] > beside.max():
            one = Counted(int(counts[place]), float(np.median(beside)), float(beside.max()))
            together.setdefault(len(f"{abs(values[place]):.15g}"), []).append(one)
    enough = max(LEAST, SHARE * len(present_cells))
    return sum(_count_codes(some, enough) for some in together.values())


def _count_codes(some: Sequence[Counted], enough: float) -> int:
    """Count the rows with fillers of one length; 0 where they are values like others."""
    rows = sum(one.rows for one in some)
    # Beside a code, another filler may stand out a little by chance.
    far = sum(one.rows for one in some if one.rows >= max(enough, one.least()))
    joint = len(some) > 1 and rows >= 2 * max(enough, sum(one.usual for one in some))
    if far or not joint:
        return far
    return rows


@dataclass(frozen=True)
class Counted:
    """Rows that have a value, and the median and largest number of rows of the values beside it."""

    rows: int
    usual: float
    most: float

    def least(self) -> float:
        """Return how many rows the value needs to stand out by more than chance."""
        return max(2 * self.usual, self.usual + 5 * math.sqrt(self.usual), 1.5 * self.most)


def odd_dates(present_cells: pd.Series, today: date) -> Iterator[str]:
    """Yield how many dates, without gaps, are later than `today`, where fewer than half are: most due dates are."""
    later = int((present_cells > pd.Timestamp(today)).sum())
    if 0 < 2 * later < len(present_cells):
        yield render("findings.column.future", rows=count_in_words(later))


def rows_alike(table: pd.DataFrame) -> np.ndarray:
    """Return the places of the rows that equal another row in all columns, int [rows that do].

    Missing cells are equal. Each column is compared for the rows that are alike so far.

    Examples
    --------
    >>> rows_alike(pd.DataFrame({"age": [41, 54, 41, 41], "sex": ["f", "m", "f", "m"]})).tolist()
    [0, 2]
    """
    rows = np.arange(len(table))
    groups = np.zeros(len(table), dtype=np.int64)
    for name in table:
        codes, values = pd.factorize(table[name].iloc[rows])
        groups = pd.factorize(groups * (len(values) + 1) + codes)[0]
        repeated = (np.bincount(groups) > 1)[groups] if len(rows) else np.zeros(0, dtype=bool)
        rows = rows[repeated]
        groups = groups[repeated]
    return rows


def rows_without_value(table: pd.DataFrame) -> np.ndarray:
    """Return the places of the rows with no value in any column, int [rows without]."""
    rows = np.arange(len(table))
    for name in table:
        rows = rows[table[name].iloc[rows].isna().to_numpy()]
    return rows


SURE = 8.0
"""Equal neighbours expected by chance. Where there are none of so many, repeats were left out."""
FEW_BLOCKS = 0.05
"""Share of rows with a value, up to which a value in the first row is chance in one column of twenty."""
FIRST_ROWS = 0.9
"""Least share of people whose first row has a value, where only first rows have one."""


def once_a_block(cells: pd.Series, *, number: bool) -> int:
    """Count the empty cells of a column that is filled once a block; 0 where it is not.

    A table looks so if its cells were merged, or if repeated values were left out for the eye. The first row has
    a value, and no value equals the one before it.

    Parameters
    ----------
    cells : Series
        In the order of the file; missing where empty.
    number : bool
        Whether it holds numbers or dates, few of which are equal: they are no evidence.

    Examples
    --------
    >>> wards = pd.Series((["north"] + [None] * 3 + ["south"] + [None] * 5) * 10)
    >>> once_a_block(wards, number=False), once_a_block(wards.ffill(), number=False)
    (80, 0)
    """
    present = cells.notna().to_numpy()
    filled = int(present.sum())
    if len(cells) < FEWEST or filled < 2 or filled > len(cells) - 2 or not present[0]:
        return 0
    filled_cells = cells[present].to_numpy()
    if (filled_cells[1:] == filled_cells[:-1]).any():
        return 0
    values = pd.factorize(filled_cells)[0]
    by_chance = (filled - 1) * float(np.square(np.bincount(values) / filled).sum())
    few = not number and filled <= FEW_BLOCKS * len(cells) and len(np.unique(values)) == filled
    return len(cells) - filled if by_chance >= SURE or few else 0


def first_of_each(cells: pd.Series, people: pd.Series) -> int:
    """Count the empty cells of a column that only the first row of each person fills; else 0.

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
    present = cells.notna().to_numpy()
    if again.sum() < FEWEST or present[again].any() or present[~again].mean() < FIRST_ROWS:
        return 0
    return int(again.sum())


SEGMENT = 20
SEGMENT_SHARE = 0.03
"""Least number of rows on each side of a change of unit, and their least share of all."""
RATIO = 5.0
"""Least factor between two units that is detected."""
APART = 0.7
ALIKE = 0.1
"""Kolmogorov-Smirnov distance of two distributions from which on they differ, and up to which they are alike."""
EXACT = 0.2
"""Largest distance of a factor from that of two units, in logarithms."""
WHOLE = (24, 1000)
ROUNDED = 0.5
"""Factors whose smaller values may be rounded to whole ones, and the largest distance of the two parts then."""
UNITS = (7, 10, 12, 18, 24, 30.4, 60, 100, 365.25, 1000, 3600, 86400, 1e6)
"""Factors between units that are named where one is near: days a week, hours a day, units a thousand."""


@dataclass(frozen=True)
class UnitChange:
    """Row from which on a column is in another unit.

    Attributes
    ----------
    row : int
        From 1, among the rows of the table.
    rows : int
        Number of rows from it on.
    factor : float
        Later values divided by earlier ones.
    """

    row: int
    rows: int
    factor: float

    def unit(self) -> float | None:
        """Return the nearest factor between two units, or None."""
        larger = max(self.factor, 1 / self.factor)
        near = min(UNITS, key=lambda unit: abs(math.log(unit / larger)))
        return near if abs(math.log(near / larger)) <= EXACT else None

    def __str__(self) -> str:
        """Return the change in one sentence."""
        near = self.unit()
        times = f"{near:g}" if near else f"{max(self.factor, 1 / self.factor):.0f}"
        ratio = f"{times} times" if self.factor > 1 else f"1/{times} of"
        return render("findings.column.unit", row=self.row, ratio=ratio, rows=count_in_words(self.rows))


def unit_change(numbers: pd.Series) -> UnitChange | None:
    """Return the row where the unit of a column changes, or None.

    The values before and after it differ, and are alike once multiplied by one factor. Within each part nothing
    changes, unlike in a table that is sorted by the column.

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
    # The mean changes where the cumulative sum of deviations is furthest from 0.
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


NEAR = 0.2
"""Largest distance of two sites' ratio from a power of ten, in decimal logarithms."""
SIMILAR = 0.4
"""As `ALIKE`, of two sites: their people differ."""


def odd_units(sites: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return the sites whose numbers are 10, 100, 1,000 … times those of the others, or a part, as a power of ten.

    The median of the others' medians decides. The values must be alike but for that factor.

    Parameters
    ----------
    sites : mapping of site to float array [rows]
        Of one column. Missing values and 0 are not looked at.

    Examples
    --------
    >>> levels = np.random.default_rng(0).lognormal(3, 0.5, 400)
    >>> odd_units({"a": levels[:100], "b": levels[100:200], "c": levels[200:] / 100})
    {'c': -2}
    """
    own = {site: numbers[np.isfinite(numbers) & (numbers != 0)] for site, numbers in sites.items()}
    own = {site: numbers for site, numbers in own.items() if len(numbers) >= FEWEST}
    medians = {site: float(np.median(numbers)) for site, numbers in own.items()}
    powers = {}
    for site, numbers in own.items():
        others = [other for other in own if other != site]
        usual = np.quantile([medians[other] for other in others], 0.5, method="inverted_cdf") if others else 0.0
        if medians[site] * usual <= 0:
            continue
        ratio = math.log10(medians[site] / usual)
        power = round(ratio)
        if not power or abs(ratio - power) > NEAR:
            continue
        rest = np.concatenate([own[other] for other in others])
        if _distance(numbers, rest) >= APART and _distance(numbers / 10.0**power, rest) <= SIMILAR:
            powers[site] = power
    # Either of two sites may be the one.
    return {site: power for site, power in powers.items() if len(own) > 2 or power > 0}


def _is_change(change: UnitChange, values: np.ndarray, before: np.ndarray, after: np.ndarray, shift: float) -> bool:
    """Return whether both sides of a shift are alike but for their unit."""
    cut = len(before)
    smaller = values[cut:] if shift < 0 else values[:cut]
    whole = change.unit() in WHOLE and bool((smaller == np.rint(smaller)).all())
    rounded = whole and _distance(before + shift, after) <= ROUNDED
    if not (_alike(*np.array_split(before, 2)) and _alike(*np.array_split(after, 2))):
        return False
    return rounded or _alike(before + shift, after)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    # One of a hundred pairs exceeds a distance of 1.63 by chance.
    limit = 1.63 * math.sqrt((len(one) + len(other)) / (len(one) * len(other)))
    return _distance(one, other) <= max(limit, ALIKE)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two distributions."""
    # One number written in two units differs in the last bits.
    at = np.sort(np.concatenate([one, other])) + 1e-9
    first, second = [np.searchsorted(np.sort(part), at, side="right") / len(part) for part in (one, other)]
    return float(np.abs(first - second).max())
