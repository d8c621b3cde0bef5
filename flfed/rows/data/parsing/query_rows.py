"""Rows of a query, fetched in parts within limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from flfed.rows.data.parsing.limits import Reading

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from sqlalchemy import Connection

ROWS = 500
"""Fetched at a time: so few are let go of before Python looks for garbage among them, which takes half of the time."""
BYTES = 32_000_000
"""Fetched at a time, where cells are long."""
LOOSE = 64
"""Bytes that a cell takes which is no plain number or text, about."""


def read_query(connection: Connection, query: str, reading: Reading) -> pd.DataFrame:
    """Return the rows of a query as `pandas.read_sql_query` does.

    They come in parts, of which each is packed: a query says nowhere how many there will be.
    """
    import pandas as pd
    import sqlalchemy

    with _stops_in_time(connection, reading):
        if connection.dialect.name == "postgresql":
            # A cursor's plan would be the one with the earliest first row, not with the earliest last one.
            connection.execute(sqlalchemy.text("SET LOCAL cursor_tuple_fraction = 1"))
        result = connection.execution_options(stream_results=True).execute(sqlalchemy.text(query))
        names = list(result.keys())
        reading.check("columns", len(names))
        columns: list[list[Any]] = [[] for _ in names]
        rows = 0
        size = 0
        wanted = 1
        while part := result.fetchmany(wanted):
            rows += len(part)
            reading.check_shape(rows, len(names))
            for column, cells in zip(columns, zip(*part, strict=True), strict=True):
                packed, count = _packed(cells)
                column.append(packed)
                size += count
            reading.check("bytes", size)
            reading.check_time()
            wanted = max(1, min(ROWS, BYTES * rows // max(1, size)))
    if not rows:
        return pd.DataFrame(columns=names)
    cells_by_column = [list(chain.from_iterable(map(_unpacked, column))) for column in columns]
    records = list(zip(*cells_by_column, strict=True))
    return pd.DataFrame.from_records(records, columns=names, coerce_float=True)


def _packed(cells: Sequence[Any]) -> tuple[Sequence[Any] | pa.Array, int]:
    """Return cells of a column in little memory, and their bytes."""
    import pyarrow as pa

    kinds = set(map(type, cells)) - {type(None)}
    plain = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind in plain:
        try:
            packed = pa.array(cells, plain[kind])
        except (pa.ArrowException, OverflowError, UnicodeError):
            return cells, _loose(cells)
        return packed, packed.nbytes
    return cells, _loose(cells)


def _loose(cells: Sequence[Any]) -> int:
    return sum(LOOSE + len(cell) if isinstance(cell, (str, bytes)) else LOOSE for cell in cells)


def _unpacked(cells: Sequence[Any] | pa.Array) -> Sequence[Any]:
    found: Sequence[Any] = cells if isinstance(cells, tuple) else cells.to_pylist()
    return found


@contextmanager
def _stops_in_time(connection: Connection, reading: Reading) -> Iterator[None]:
    """Have the database give up a query when its time is over, in whatever state it is."""
    import sqlalchemy

    driver = connection.connection.driver_connection
    stop = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
    # A driver without either is stopped between two parts.
    timer = threading.Timer(reading.seconds_left(), stop or reading.seconds_left)
    timer.daemon = True
    timer.start()
    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError:
        reading.check_time()
        raise
    finally:
        timer.cancel()
