"""What people should look at in a table where its mapping reported nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.codes import FEWEST, far_from_all, repeated_codes
from flfed.rows.data.findings.dates import odd_dates
from flfed.rows.data.findings.identifiers import odd_identifiers
from flfed.rows.data.findings.order import first_of_each, half_a_unit, once_a_block, row_of_means, unit_change
from flfed.rows.data.findings.repeats import contradictions, copies
from flfed.rows.data.findings.spelling import rows_in_other_case
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.parsing.headers import alike
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.sources import UNENDED

EMPTY = "is empty"
MAP_TO_NONE = ": map it to None if the site does not have it"


@dataclass(frozen=True)
class Note:
    """One odd thing about a column or table.

    `column` is "table" for the whole; `text` says what it is, with a count and no cell.
    """

    column: str
    text: str


def oddities(
    raw: pd.DataFrame,
    table: pd.DataFrame,
    schema: Schema,
    mapping: Mapping[str, str | Field | None],
    *,
    today: date | None = None,
) -> list[Note]:
    """List the oddities of a table.

    They are what people should look at where the mapping reported nothing.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.
    table : DataFrame
        Mapped, in the schema's columns and the order of `raw`.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
    today : date, optional
        Later dates are told; default: the day of the call.
    """
    texts = pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in range(raw.shape[1])})
    notes = _notes("table", _of_the_whole(raw, texts))
    fields = {name: mapping.get(name, name) for name in schema.columns}
    owns = {name: _own_name(field) for name, field in fields.items()}
    read = set(owns.values()) & set(raw.columns)
    unread = [other for other in raw.columns if other not in read]
    for name, column in schema.columns.items():
        own = owns[name]
        # Another column of nearly the same name may be the one that was meant.
        notes += _notes(name, _of_names(own, unread))
        if own in read:
            notes += _notes(name, _of_cells(name, table, column, schema, today or date.today()))
    notes += _notes("table", contradictions(table, schema))
    if len(raw) == len(table) and row_of_means(_numbers(texts, raw, table, schema, fields)):
        notes.append(Note("table", "the last row holds the means or sums of those above it: remove it"))
    return notes


def _notes(place: str, texts: Iterable[str]) -> list[Note]:
    return [Note(place, text) for text in texts]


def _own_name(field: str | Field | None) -> str | None:
    """Return the name of a column in the source, None where it has none."""
    return field.column if isinstance(field, Field) else field


def _of_the_whole(raw: pd.DataFrame, texts: pd.DataFrame) -> Iterator[str]:
    if raw.attrs.get(UNENDED):
        yield "the last line of the file has no end: is the file whole?"
    empty = int(texts.isna().all(axis=1).sum())
    if empty:
        yield f"{count_in_words(empty)} rows are empty throughout: remove them"
    yield from copies(texts)


def _of_names(own: str | None, unread: Sequence[object]) -> Iterator[str]:
    others = alike(own, unread) if own is not None else []
    if others:
        yield f"the table has {', '.join(map(repr, others))} too; {own!r} is read"


def _of_cells(name: str, table: pd.DataFrame, column: Column, schema: Schema, today: date) -> Iterator[str]:
    cells = table[name]
    known = cells.dropna()
    people = table[schema.group] if schema.group else None
    if column.kind == "id":
        yield from _of_identifiers(name, known, len(cells), schema)
        return
    if column.leak:
        return
    if column.values and (twice := rows_in_other_case(*_counted(known))):
        yield f"{twice} rows have a value that differs from another one in case or blanks alone: map both to one"
    yield from _of_empty(cells, column, schema.group, people)
    if column.kind == "target" and not column.is_number():
        return
    yield from _of_spread(known, len(cells), rare=column.kind in ("flag", "category"))
    if column.kind == "date":
        yield from odd_dates(known, today, people)
    if column.is_number():
        yield from _of_numbers(cells)
    elif column.kind == "date" and (many := far_from_all(known)):
        yield _code(many)


def _of_empty(cells: pd.Series, column: Column, group: str, people: pd.Series | None) -> Iterator[str]:
    if blanks := once_a_block(cells, number=column.is_number() or column.kind == "date"):
        yield f"{count_in_words(blanks)} rows are empty, as if it stood once a block (merged cells?): fill each cell"
    elif column.kind in ("flag", "category") and people is not None and (blanks := first_of_each(cells, people)):
        yield f"{count_in_words(blanks)} rows are empty, all but the first of each {group!r}: fill each cell"


def _counted(known: pd.Series) -> tuple[list[str], np.ndarray]:
    sizes = known.astype(str).value_counts()
    return [str(text) for text in sizes.index], sizes.to_numpy()


RARE = 500
LARGE = 10_000
"""One row alone may well have a flag, or be of a category, in so few rows and in so many."""


def _of_spread(known: pd.Series, rows: int, *, rare: bool) -> Iterator[str]:
    """Yield whether a column has no value, or hardly more than one."""
    if rows and not len(known):
        yield EMPTY + MAP_TO_NONE
    elif len(known) >= FEWEST:
        sizes = known.value_counts()
        if len(sizes) == 1:
            yield "has the same value in every row that has one"
        elif len(known) - int(sizes.iloc[0]) == 1 and (not rare or RARE <= len(known) <= LARGE):
            yield "has the same value in every row but one"


def _of_numbers(cells: pd.Series) -> Iterator[str]:
    known = cells.dropna()
    if many := far_from_all(known):
        yield _code(many)
    elif many := repeated_codes(known):
        rows = count_in_words(many)
        yield f"{rows} rows have values such as 77, 88 or 999 that few others are near: codes for 'not known'?"
    if change := unit_change(cells):
        yield f"{change} ({count_in_words(change.rows)} rows)"


def _code(many: int) -> str:
    return f"{count_in_words(many)} rows have one value that is far from all others: a code for 'not known'?"


def _of_identifiers(name: str, known: pd.Series, rows: int, schema: Schema) -> Iterator[str]:
    yield from odd_identifiers(known)
    sizes = known.value_counts()
    if name == schema.group:
        if len(sizes) and len(known) >= FEWEST and 2 * int(sizes.iloc[0]) > rows:
            yield "one identifier stands in more than half of the rows"
    elif not schema.group and len(sizes) < len(known) < 2 * len(sizes):
        twice = count_in_words(len(known) - len(sizes))
        yield f"{twice} rows repeat an identifier, and the schema does not keep rows of one together"


def _numbers(
    texts: pd.DataFrame,
    raw: pd.DataFrame,
    table: pd.DataFrame,
    schema: Schema,
    fields: Mapping[str, str | Field | None],
) -> list[tuple[pd.Series, float]]:
    """Return the columns of numbers, each with half a unit of its last cell's last decimal place."""
    found = []
    for name, column in schema.columns.items():
        field = fields[name]
        own = field.column if isinstance(field, Field) else field
        if column.is_number() and own is not None and own in raw.columns and len(texts):
            last = texts.iat[len(texts) - 1, list(raw.columns).index(own)]
            scale = field.multiply if isinstance(field, Field) else 1.0
            found.append((table[name], half_a_unit(str(last), scale=scale)))
    return found
