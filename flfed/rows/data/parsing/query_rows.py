"""Rows of a query, fetched in parts within limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flfed.rows.data.parsing.limits import Reading

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Connection, CursorResult

ROWS = 500
"""Fetched at a time: so few are let go of before Python looks for garbage among them."""
BYTES = 32_000_000
"""Fetched at a time, where cells are long."""
LOOSE = 8_000_000
"""Cells up to which rows stay as they came, which is faster than packing them."""
NUMBER = 8
OTHER = 64
"""Bytes of a cell that is no plain number or text, about."""
Cells = tuple[Any, ...]


def read_query(connection: Connection, query: str, reading: Reading, *, loose: int = LOOSE) -> pd.DataFrame:
    """Return the rows of a query as `pandas.read_sql_query` does.

    They come in parts, for a query says nowhere how many there will be. `loose` cells stay as they come.
    """
    import pandas as pd
    import sqlalchemy

    with _stops_in_time(connection, reading):
        if connection.dialect.name == "postgresql":
            # A cursor's plan would be the one with the earliest first row, not with the earliest last one.
            connection.execute(sqlalchemy.text("SET LOCAL cursor_tuple_fraction = 1"))
        with connection.execution_options(stream_results=True).execute(sqlalchemy.text(query)) as result:
            names = list(result.keys())
            reading.check("columns", len(names))
            rows = _rows(result, len(names), reading, loose)
    if not rows:
        return pd.DataFrame(columns=names)
    return pd.DataFrame.from_records(rows, columns=names, coerce_float=True)


def _rows(result: CursorResult[Any], width: int, reading: Reading, most: int) -> list[Cells]:
    """Fetch rows; where they have more cells than `most`, they are packed until all are there."""
    loose: list[Cells] = []
    packed: list[list[Any]] = [[] for _ in range(width)]
    count = 0
    size = 0
    wanted = 1
    while part := result.fetchmany(wanted):
        count += len(part)
        reading.check_shape(count, width)
        if count * width <= most:
            loose.extend(map(tuple, part))
            size += sum(map(_bytes, zip(*part, strict=True)))
        else:
            _pack(loose, packed)
            loose = []
            size += _pack(part, packed)
        reading.check("bytes", size)
        reading.check_time()
        wanted = max(1, min(ROWS, BYTES * count // max(1, size)))
    return loose or list(zip(*map(_unpacked, packed), strict=True))


def _bytes(cells: Cells) -> int:
    """Return about how many bytes cells of a column take when they are packed."""
    kinds = set(map(type, cells))
    kinds.discard(type(None))
    if kinds <= {int, float}:
        return NUMBER * len(cells)
    if kinds == {str}:
        return NUMBER * len(cells) + sum(map(len, filter(None, cells)))
    size = OTHER * len(cells)
    for cell in cells:
        if isinstance(cell, (str, bytes)):
            size += len(cell)
        elif isinstance(cell, (list, dict, tuple)):  # of a database's arrays and JSON
            size += OTHER * len(str(cell))
    return size


def _pack(rows: Sequence[Sequence[Any]], into: list[list[Any]]) -> int:
    """Put the cells of rows into little memory, column by column, and return about how many bytes they take.

    Few rows at a time: their cells stay near the processor while columns are made of them.
    """
    size = 0
    for start in range(0, len(rows), ROWS):
        for column, cells in zip(into, zip(*rows[start : start + ROWS], strict=True), strict=True):
            array = _packed(cells)
            column.append(array)
            taken = _bytes(cells) if array is cells else array.nbytes
            size += taken
    return size


def _packed(cells: Cells) -> Any:
    """Return an array of cells that are of one type and come out again as they went in; others as they are."""
    import pyarrow as pa

    kinds = set(map(type, cells))
    kinds.discard(type(None))
    plain = {int: pa.int64(), float: pa.float64(), str: pa.large_string()}
    if len(kinds) == 1 and (kind := kinds.pop()) in plain:
        with suppress(pa.ArrowException, OverflowError, UnicodeError):
            return pa.array(cells, plain[kind])
    return cells


def _unpacked(column: list[Any]) -> list[Any]:
    """Return the cells of a column as they came."""
    found: list[Any] = []
    for cells in column:
        rows = cells if isinstance(cells, tuple) else cells.to_pylist()
        found.extend(rows)
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
