"""Codes for "not known" among numbers and dates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

FEWEST = 20
"""Rows with a value from which on a column is looked at."""
LEAST = 5
SHARE = 0.01
"""A code for "not known" stands in at least so many rows, and in this share of them."""
MOST = 4
"""What more than a quarter of the rows have is a value, but for nines and eights: most people have no visit."""
FAR = 5
WIDE = 0.1
"""It is further from the next value than five usual steps, and than a tenth of what the others span."""
FILLERS = tuple(float(sign + digit * length) for sign, digit, length in product(("", "-"), "789", range(2, 13)))
"""Numbers of two or more digits that are all seven, eight or nine."""
NEXT = 3
"""Steps between the next values, of which it is twice the largest at least."""
BESIDE = 5
"""Distinct values on each side that a code is held against."""
TIMES = 3
"""A 0 that is no count has so many times the rows of the next value."""


def far_from_all(known: pd.Series) -> int:
    """Count rows with an extreme value like a code.

    It is the largest or smallest value, where it looks like a code for "not known"; else the count is 0.

    Parameters
    ----------
    known : Series of numbers or dates, without gaps

    Examples
    --------
    >>> ages = pd.Series([*range(20, 90), *[999] * 7])
    >>> far_from_all(ages), far_from_all(ages[:70])
    (7, 0)
    """
    dtype = "int64" if known.dtype.kind == "M" else "float64"
    numbers = known.to_numpy().astype(dtype)
    values, counts = np.unique(numbers, return_counts=True)
    if len(numbers) < FEWEST or len(values) < 4:
        return 0
    enough = max(LEAST, SHARE * len(numbers))
    # A 0 of which the next number has nearly as many is one of the counts.
    for place, others in ((-1, values[:-1]), (0, values[1:])):
        gap = abs(float(values[place]) - float(others[place]))
        span = float(others[-1]) - float(others[0])
        small = values[place] == 0 and gap <= 2 * WIDE * span and counts[place] < TIMES * counts[1]
        common = small or (MOST * counts[place] > len(numbers) and values[place] not in FILLERS)
        if counts[place] >= enough and not common and _is_far(values, place, gap, span):
            return int(counts[place])
    return 0


def _is_far(values: np.ndarray, place: int, gap: float, span: float) -> bool:
    """Tell whether the first or last value stands `gap` away from the others, too far for one of their kind."""
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
    """Tell whether a number looks like a code.

    It is 0, or all nines or eights, below or above 0.

    Examples
    --------
    >>> is_code(-999), is_code(481516.23)
    (True, False)
    """
    digits = f"{abs(value):.15g}"
    return value == 0 or set(digits) in ({"9"}, {"8"})


def repeated_codes(known: pd.Series) -> int:
    """Count rows with values like 77, 88 or 9999 that many rows have and their neighbours do not.

    A value of two or more digits that are all seven, eight or nine, in the range of the others. Several of as many
    digits are looked at together: 77, 88 and 99 for not asked, not said and not known.

    Parameters
    ----------
    known : Series of numbers, without gaps

    Examples
    --------
    >>> ages = pd.Series([*range(20, 105), *[99] * 7])
    >>> repeated_codes(ages), repeated_codes(ages[:85])
    (8, 0)
    """
    values, counts = np.unique(known.to_numpy(dtype=float), return_counts=True)
    if len(known) < FEWEST or len(values) <= BESIDE:
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
    enough = max(LEAST, SHARE * len(known))
    return sum(_count_codes(some, enough) for some in together.values())


def _count_codes(some: Sequence[Counted], enough: float) -> int:
    """Count the rows with fillers of one length; 0 where they are values like others."""
    rows = sum(one.rows for one in some)
    # By chance one of them stands out a little beside another that is a code.
    far = sum(one.rows for one in some if one.rows >= max(enough, one.least()))
    joint = len(some) > 1 and rows >= 2 * max(enough, sum(one.usual for one in some))
    if far or not joint:
        return far
    return rows


@dataclass(frozen=True)
class Counted:
    """How many rows have a value, and usually and at most one beside it."""

    rows: int
    usual: float
    most: float

    def least(self) -> float:
        """Return how many rows the value needs so that chance hardly gives them."""
        return max(2 * self.usual, self.usual + 5 * math.sqrt(self.usual), 1.5 * self.most)
