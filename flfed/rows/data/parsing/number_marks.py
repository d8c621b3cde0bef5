"""Marks of numbers that are written as text.

They stand before decimals, or between thousands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Column

Texts = list[str | None]
"""Cells as `plain_text` gives them, each value once."""
Broken = list[tuple[str, np.ndarray]]
"""Rules that are broken, and by which values; [values] each."""
AMBIGUOUS = "has three digits after every mark: a decimal or a thousand (set thousands)"
MISPLACED = "has marks between thousands at other places"
_BLANKS = "[ \u00a0\u2009\u202f]"


def read_marks(values: Sequence[Any], texts: Texts, column: Column, field: Field, broken: Broken) -> Texts:
    """Remove the marks between thousands from numbers.

    What cannot be told becomes None, and is noted.

    Parameters
    ----------
    values : sequence
        Cells as the source gives them, each once; "35.000" has lost its zeros in `texts`.
    texts : list of str or None [values]
    column : Column
    field : Field
    broken : list
        Added to.
    """
    written = [
        value.strip() if isinstance(value, str) and text is not None else "" for value, text in _both(values, texts)
    ]
    if field.thousands:
        return _without_thousands(written, texts, field, broken)
    if field.decimal != ".":
        # "1.234" may be 1234: a person has to say so.
        grouped = ["." in cell for cell in written]
        texts = without(texts, grouped, f"has a '.' although its decimal mark is {field.decimal!r}", broken)
    if field.thousands is None:
        texts = without(texts, _ambiguous(written, column, field), AMBIGUOUS, broken)
    return texts


def _both(values: Sequence[Any], texts: Texts) -> zip[tuple[Any, str | None]]:
    return zip(values, texts, strict=True)


def without(texts: Texts, bad: Sequence[bool] | np.ndarray, rule: str, broken: Broken) -> Texts:
    """Remove texts that break a rule, noting it."""
    if not any(bad):
        return texts
    broken.append((rule, np.array(bad, dtype=bool)))
    return [None if wrong else text for text, wrong in zip(texts, bad, strict=True)]


def _without_thousands(written: Sequence[str], texts: Texts, field: Field, broken: Broken) -> Texts:
    mark = _BLANKS if field.thousands == " " else re.escape(str(field.thousands))
    whole = re.compile(rf"([<>]=?\s*)?[+-]?\d{{1,3}}({mark}\d{{3}})+({re.escape(field.decimal)}\d*)?")
    found = re.compile(mark)
    marked = [bool(found.search(cell)) for cell in written]
    # A mark at another place is none of thousands: what the cell means cannot be told.
    bad = [has and not whole.fullmatch(cell) for has, cell in zip(marked, written, strict=True)]
    read = [found.sub("", cell) if has else text for has, cell, text in zip(marked, written, texts, strict=True)]
    return without(read, bad, MISPLACED, broken)


def _ambiguous(written: Sequence[str], column: Column, field: Field) -> list[bool]:
    """Find cells whose mark may be of thousands.

    They are all cells with a mark, where each has three digits after it and most may be thousands by their range.
    """
    marked = [field.decimal in cell for cell in written]
    grouped = re.compile(rf"(?:[<>]=?\s*)?([+-]?[1-9]\d{{0,2}}(?:{re.escape(field.decimal)}\d{{3}})+)")
    cells = [grouped.fullmatch(cell) for cell, has in zip(written, marked, strict=True) if has]
    numbers = [cell[1].replace(field.decimal, "") for cell in cells if cell]
    if not numbers or len(numbers) < len(cells):
        return [False] * len(written)
    low, high = column.range or (-np.inf, np.inf)
    inside = sum(low <= float(number) * field.multiply + field.add <= high for number in numbers)
    return marked if 2 * inside >= len(cells) else [False] * len(written)
