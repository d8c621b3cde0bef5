"""Codes for "not known" among numbers and dates."""

from __future__ import annotations

import numpy as np
import pandas as pd

FEWEST = 20
"""Rows with a value from which on a column is looked at."""
LEAST, SHARE = 5, 0.01
"""A code for "not known" stands in at least so many rows, and in this share of them."""
MOST = 4
"""What more than a quarter of the rows have is a value, but for nines and eights: most people have no visit."""
FAR, WIDE = 5, 0.1
"""It is further from the next value than five usual steps, and than a tenth of what the others span."""
BESIDE = 5
"""Distinct values on each side that a code is held against."""
TIMES = 3
"""A code stands in so many times the rows of its neighbours."""


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
    numbers = known.to_numpy().astype("int64" if known.dtype.kind == "M" else float)
    values, counts = np.unique(numbers, return_counts=True)
    if len(numbers) < FEWEST or len(values) < 4:
        return 0
    enough = max(LEAST, SHARE * len(numbers))
    for place, others in ((-1, values[:-1]), (0, values[1:])):
        gap = abs(float(values[place]) - float(others[place]))
        span, step = float(others[-1]) - float(others[0]), float(np.median(np.diff(others)))
        alone_below = place == 0 and values[0] < 0 <= values[1] and float(values[0]).is_integer()
        far = gap > span or (is_code(values[place]) and gap > max(FAR * step, WIDE * span)) or alone_below
        common = _is_value(values[place], int(counts[place]), int(counts[-2 if place else 1]), len(numbers))
        if far and counts[place] >= enough and not common:
            return int(counts[place])
    return 0


def _is_value(value: float, rows: int, beside: int, of: int) -> bool:
    """Tell whether so many rows have a number that it is none for "not known".

    A 0 is one, too, where the next number has nearly as many: counts are most often small.
    """
    if value and is_code(value):
        return False
    return MOST * rows > of or (value == 0 and rows < TIMES * beside)


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

    A value of two or more digits that are all seven, eight or nine, in the range of the others.

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
    repdigits = np.array([_is_repdigit(value) for value in values.tolist()], dtype=bool)
    others = np.where(repdigits, np.nan, counts)
    enough = max(LEAST, SHARE * len(known))
    found = 0
    for place in np.flatnonzero(repdigits & (counts >= enough)).tolist():
        beside = others[max(0, place - BESIDE) : place + BESIDE + 1]
        beside = beside[~np.isnan(beside)]
        if len(beside) and counts[place] >= TIMES * np.median(beside) and counts[place] > 1.5 * beside.max():
            found += int(counts[place])
    return found


def _is_repdigit(value: float) -> bool:
    digits = f"{abs(value):.15g}"
    return len(digits) > 1 and set(digits) in ({"7"}, {"8"}, {"9"})
