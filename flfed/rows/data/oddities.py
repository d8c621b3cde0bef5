"""Oddities of a table that breaks no rule.

They are counts for the people of the site, never a cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.parsing.headers import alike
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.sources import UNENDED

FEWEST = 20
"""Rows with a value from which on a column is looked at."""
LEAST, SHARE = 5, 0.01
"""A code for "not known" stands in at least so many rows, and in this share of them."""
MOST = 4
"""A 0 in more than a quarter of the rows is a value: most people have no visit."""
TIMES = 3
"""Copies are told where they are so many times the pairs of rows that are alike by chance."""
EMPTY, MAP_TO_NONE = "is empty", ": map it to None if the site does not have it"
FAR, WIDE = 5, 0.1
"""It is further from the next value than five usual steps, and than a tenth of what the others span."""


@dataclass(frozen=True)
class Note:
    """One odd thing about a column or table.

    `column` is "table" for the whole; `text` says what it is, with a count.
    """

    column: str
    text: str


def oddities(
    raw: pd.DataFrame, table: pd.DataFrame, schema: Schema, mapping: Mapping[str, str | Field | None]
) -> list[Note]:
    """List the oddities of a table.

    They are what people should look at where the mapping reported nothing.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.
    table : DataFrame
        Mapped, in the schema's columns.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
    """
    notes = [Note("table", text) for text in _of_the_whole(raw)]
    fields = {name: mapping.get(name, name) for name in schema.columns}
    owns = {name: field.column if isinstance(field, Field) else field for name, field in fields.items()}
    read = set(owns.values()) & set(raw.columns)
    for name, column in schema.columns.items():
        own = owns[name]
        # Another column of nearly the same name may be the one that was meant.
        notes += [Note(name, text) for text in _of_names(own, [other for other in raw.columns if other not in read])]
        if own in read:
            notes += [Note(name, text) for text in _of_cells(name, table[name], column, schema)]
    return notes


def groups_in_words(cells: pd.Series) -> str:
    """Describe the number and size of groups.

    Says how many groups there are, and how many rows the largest has.

    Examples
    --------
    >>> groups_in_words(pd.Series([*"abcdef", *"g" * 9]))
    '7 groups, the largest of 9 rows'
    """
    sizes = cells.value_counts()
    largest = count_in_words(int(sizes.iloc[0])) if len(sizes) else "0"
    return f"{count_in_words(len(sizes))} groups, the largest of {largest} rows"


def _of_the_whole(raw: pd.DataFrame) -> Iterator[str]:
    if raw.attrs.get(UNENDED):
        yield "the last line of the file has no end: is the file whole?"
    texts = pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in range(raw.shape[1])})
    empty = int(texts.isna().all(axis=1).sum())
    if empty:
        yield f"{count_in_words(empty)} rows are empty throughout: remove them"
    # Few columns give equal rows by chance, which are no copies.
    copies = int(texts.dropna(how="all").duplicated().sum())
    if copies > TIMES * _pairs_by_chance(texts):
        yield f"{count_in_words(copies)} rows are copies of another row in every column: was something exported twice?"


def _pairs_by_chance(texts: pd.DataFrame) -> float:
    """Return the expected number of equal pairs of rows.

    It is that of columns that have nothing to do with each other.
    """
    alike_in_each = [
        float(np.square(cells.value_counts(normalize=True, dropna=False)).sum()) for _, cells in texts.items()
    ]
    return len(texts) * (len(texts) - 1) / 2 * math.prod(alike_in_each)


def _of_names(own: str | None, unread: Sequence[object]) -> Iterator[str]:
    others = alike(own, unread) if own is not None else []
    if others:
        yield f"the table has {', '.join(map(repr, others))} too; {own!r} is read"


def _of_cells(name: str, cells: pd.Series, column: Column, schema: Schema) -> Iterator[str]:
    known = cells.dropna()
    if column.kind == "id":
        yield from _of_identifiers(name, known, len(cells), schema)
        return
    if column.leak or column.kind == "target" and not column.is_number():
        return
    if len(cells) and not len(known):
        yield EMPTY + MAP_TO_NONE
    elif len(known) >= FEWEST and known.nunique() == 1:
        yield "has the same value in every row that has one"
    many = far_from_all(known) if column.is_number() or column.kind == "date" else 0
    if many:
        yield f"{count_in_words(many)} rows have one value that is far from all others: a code for 'not known'?"


def _of_identifiers(name: str, known: pd.Series, rows: int, schema: Schema) -> Iterator[str]:
    sizes = known.value_counts()
    if name == schema.group:
        if len(sizes) and len(known) >= FEWEST and 2 * int(sizes.iloc[0]) > rows:
            yield "one identifier stands in more than half of the rows"
    elif not schema.group and len(sizes) < len(known) < 2 * len(sizes):
        twice = count_in_words(len(known) - len(sizes))
        yield f"{twice} rows repeat an identifier, and the schema does not keep rows of one together"


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
        far = gap > span or (_is_code(values[place]) and gap > max(FAR * step, WIDE * span)) or alone_below
        common = values[place] == 0 and MOST * counts[place] > len(numbers)
        if far and counts[place] >= enough and not common:
            return int(counts[place])
    return 0


def _is_code(value: float) -> bool:
    """Tell whether a number looks like a code.

    It is 0, or all nines or eights, below or above 0.
    """
    digits = f"{abs(value):.15g}"
    return value == 0 or set(digits) in ({"9"}, {"8"})
