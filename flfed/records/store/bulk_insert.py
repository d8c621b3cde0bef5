"""Insertion of many rows in one statement.

A round of ten thousand sites leaves as many rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert

from flfed.records.store.tables import Base, Word

AS_THEY_ARE = {type(None), bool, int, str}
"""Types that every database takes unchanged."""
VALUES = 999
"""Values of one statement, as many as any build of SQLite allows: many rows at once take half the time."""


def insert_all(
    connection: Connection,
    table: type[Base],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    same: Mapping[str, Any],
) -> None:
    """Insert many rows in one statement.

    Numbers that are not finite become NULL.

    Parameters
    ----------
    connection : Connection
        In a transaction of the caller's.
    table : a declared table
    names : sequence of str
        Columns that the rows have; of text or numbers.
    rows : iterable of sequences
        In the order of `names`.
    same : mapping of column to value
        What all rows have as well.
    """
    insert_columns(connection, table, dict(zip(names, zip(*rows, strict=True), strict=False)), same)


def insert_columns(
    connection: Connection, table: type[Base], columns: Mapping[str, Sequence[Any]], same: Mapping[str, Any]
) -> None:
    """Insert many rows, given by column, as `insert_all` does.

    Notes
    -----
    Columns are looked at whole: a word that stands in thousands of rows is looked at once, and one
    without any value is left out. SQLite's driver is handed the values as they are, which takes a
    quarter of the time of SQLAlchemy's own way.
    """
    into = table.__table__
    found = {name: stored(into.c[name], values) for name, values in columns.items()}
    rows = len(next(iter(found.values()), ()))
    if not rows:
        return
    found = {name: values for name, values in found.items() if values.count(None) < rows}
    if connection.dialect.name != "sqlite":
        lines = zip(*found.values(), strict=True)
        connection.execute(insert(table), [{**same, **dict(zip(found, line, strict=True))} for line in lines])
        return
    quoted = '", "'.join((*same, *found))
    # What all rows have is handed over once a statement, under a number of its own.
    places = ", ".join((*(f"?{number}" for number in range(1, len(same) + 1)), *"?" * len(found)))
    for together, flat in _statements(list(found.values()), tuple(same.values())):
        values = ", ".join([f"({places})"] * together)
        connection.exec_driver_sql(f'INSERT INTO {table.__tablename__} ("{quoted}") VALUES {values}', flat)


def _statements(columns: Sequence[Sequence[Any]], same: tuple[Any, ...]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Yield the statements of an insertion.

    Each is how many rows go into it and the values: for each time it is executed, `same`, then row after row.
    """
    width, rows = len(columns), len(columns[0])
    # All values lie in one list, row after row, so that a statement's share is a slice.
    flat: list[Any] = [None] * (width * rows)
    for place, column in enumerate(columns):
        flat[place::width] = column
    start = 0
    # Full statements come first, and what remains goes in one row at a time.
    for together in ((VALUES - len(same)) // width, 1):
        size = together * width
        stop = start + (len(flat) - start) // size * size
        if start < stop:
            yield together, [(*same, *flat[first : first + size]) for first in range(start, stop, size)]
        start = stop


def stored(column: ColumnElement[Any], values: Sequence[Any]) -> Sequence[Any]:
    """Return a column's texts or numbers as the database holds them.

    Examples
    --------
    >>> from flfed.records.store.tables import Metric
    >>> stored(Metric.__table__.c.value, (0.5, float("nan"), None))
    [0.5, None, None]
    >>> stored(Metric.__table__.c.arm, ("training", "a" * 50))[1][-3:]
    'aa…'
    """
    # Each distinct text is shortened once, however many rows have it.
    if isinstance(column.type, Word):
        words = {word: column.type.fitted(word) for word in set(values)}
        return [words[word] for word in values]
    kinds = set(map(type, values))
    if kinds <= AS_THEY_ARE:
        return values
    if kinds <= AS_THEY_ARE | {float}:
        return [value if value is None or math.isfinite(value) else None for value in values]
    return [plain(value) for value in values]


def finite(value: float | None) -> float | None:
    """Return a finite number as a float, anything else as None.

    Examples
    --------
    >>> finite(3), finite(float("nan")), finite(None)
    (3.0, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(value)


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it, None for NaN.

    Examples
    --------
    >>> plain({1: (0.5, float("inf"))})
    {'1': [0.5, None]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return plain(value.tolist())
    return str(value)
