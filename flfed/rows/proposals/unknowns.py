"""Numbers of a column that stand for "not known"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flfed.rows.data.findings.codes import FAR, LEAST, MOST, SHARE, WIDE, is_code
from flfed.rows.proposals.cells import FEW_VALUES, LEAST_ROWS, TAKEN

MOST_CODES = 3
"""A column has at most so many."""
NEIGHBOURS = 5
HEAPED = 5
"""An end of nines is a heap where it has so many times the rows of each of so many values next to it."""
FAR_CODE = "far from all others"
BELOW_CODE = "the only value below 0"
HEAP_CODE = "at the end, and of many more rows than its neighbours"
FAR_VALUE = "one value is far from all others: is it a code for 'not known'?"


@dataclass(frozen=True)
class Unknowns:
    """Numbers of a column that stand for "not known".

    Attributes
    ----------
    codes : tuple of float
    known : bool array [values]
        Which values are none of them.
    doubts : tuple of str
        Why a person should look.
    """

    codes: tuple[float, ...]
    known: np.ndarray
    doubts: tuple[str, ...]


def find_unknowns(values: np.ndarray, counts: np.ndarray) -> Unknowns:
    """Return which numbers stand for "not known".

    Only a value of ten rows or more is written down as a code.

    Parameters
    ----------
    values, counts : array [values]
        Distinct numbers, and how many rows have each.

    Examples
    --------
    >>> find_unknowns(np.array([*range(20, 90), -1]), np.array([9] * 70 + [30])).codes
    (-1.0,)
    """
    # The same number may be written in several ways: -200 and -200,0.
    amounts, place_of = np.unique(values, return_inverse=True)
    rows = np.bincount(place_of, counts).astype(int)
    known = np.ones(len(amounts), dtype=bool)
    codes = list[float]()
    doubts = list[str]()
    for _ in range(MOST_CODES):
        place, doubt = _suspect(amounts, rows, known)
        if place is None:
            break
        if doubt == FAR_VALUE:
            doubts.append(doubt)
            break
        doubts.append(TAKEN.format(f"{amounts[place]:.15g}", rows[place], doubt))
        codes.append(float(amounts[place]))
        known[place] = False
    return Unknowns(tuple(codes), known[place_of], tuple(doubts))


def _suspect(values: np.ndarray, counts: np.ndarray, known: np.ndarray) -> tuple[int | None, str]:
    """Return the place of a value that is probably no amount, None where there is none; and why."""
    order = np.flatnonzero(known)[np.argsort(values[known])]
    rows = int(counts[known].sum())
    if len(order) < 4 or rows < 2 * LEAST_ROWS:
        return None, ""
    for place, others in ((order[-1], order[:-1]), (order[0], order[1:])):
        value = float(values[place])
        count = int(counts[place])
        if value == 0 and MOST * count > rows:
            continue
        below = _is_below(value, values[others])
        far = below or _is_far(value, values[others])
        enough = count >= LEAST_ROWS
        if far and enough and (is_code(value) or (value < 0 and value.is_integer())):
            why = BELOW_CODE if below else FAR_CODE
            return int(place), why
        if far and count >= max(LEAST, SHARE * rows):
            return int(place), FAR_VALUE
        near = counts[others[-NEIGHBOURS:]] if place == order[-1] else counts[others[:NEIGHBOURS]]
        if enough and value and is_code(value) and len(order) > FEW_VALUES and count > HEAPED * np.median(near):
            return int(place), HEAP_CODE
    return None, ""


def _is_below(value: float, others: np.ndarray) -> bool:
    """Tell whether a value is the only one below 0, and a whole number."""
    return value < 0 <= float(others.min()) and value.is_integer()


def _is_far(value: float, others: np.ndarray) -> bool:
    """Tell whether a value is further from the others than they are from each other."""
    ordered = np.sort(others)
    span = float(ordered[-1] - ordered[0])
    step = float(np.median(np.diff(ordered)))
    gap = float(np.abs(ordered - value).min())
    return gap > span or (is_code(value) and gap > max(FAR * step, WIDE * span))
