"""Queries: the tables and databases that they read, and their rows.

Tables are recognised in any notation of the query; rows are fetched in parts, within limits.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.rows.data.parsing.cells import exceeds_floats
from flfed.rows.data.parsing.limits import Reading
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy
    from sqlalchemy import Connection, CursorResult


_TOKENS = r"--[^\n]*|/\*.*?\*/|'(?:[^'{escape}]|''{escaped})*'|(\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|[\w$#@]+|[^\s])"
_READINGS = [
    re.compile(_TOKENS.format(escape=escape, escaped=escaped), re.DOTALL)
    for escape, escaped in (("", ""), (r"\\", r"|\\."))
]
"""With and without a backslash before a quote in a text, since databases differ in it."""
_WORD = re.compile(r"[\"`\[\w$#@].*", re.DOTALL)
_SETS = frozenset({"union", "except", "intersect", "minus"})
_ENDS = _SETS | {"where", "group", "order", "having", "limit", "window", "fetch", "offset"}
_ENDS |= {"qualify", "connect", "values", "select", ";"}
"""Words and signs that end the list of tables."""
_GIVES_TABLE = re.compile(
    r"(?:\s|[(;]|(?:--|#)[^\n]*+|(?>/\*.*?\*/))*"
    r"(?:begin|call|declare|exec|execute|from|if|pivot|select|set|show|table|use|values|with)\b",
    re.DOTALL | re.IGNORECASE,
)
"""The beginning of a statement that may give a table."""
_BETWEEN = _SETS | {"all", "distinct"}
_JOINS = frozenset({"join", "straight_join", "apply"})
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
_HERE = frozenset({"", "127.0.0.1", "::1", ".", "(local)", "/tmp", "/run/postgresql", "/var/run/postgresql"})
"""Other names for this machine."""
_HOST_KEYS = ("server", "address", "addr", "network address", "data source", "host", "hostname", "dsn")
_DATABASE_KEYS = ("database", "initial catalog", "dbname", "service_name", "sid", "db")

Tree = list[Any]
"""Words and signs of a query in their order; the content of brackets is a tree of its own."""


def server_of(url: str) -> str:
    """Return a database's server and name, without user, password and options.

    Examples
    --------
    >>> server_of("postgresql+psycopg://reader:secret@DB.local/clinic?sslmode=require")
    'postgresql://db.local:5432/clinic'
    >>> server_of("postgresql:///clinic?host=DB.local:5433")
    'postgresql://db.local:5433/clinic'
    """
    import sqlalchemy

    try:
        address = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise usage_error("rows.source.address") from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        return f"sqlite:///{Path(address.database or '').resolve()}"
    options = _options(address)
    host, port = _host_and_port(address, options, backend)
    database = address.database or _first(options, _DATABASE_KEYS)
    return f"{backend}://{host}:{port}/{database}"


def _options(url: sqlalchemy.URL) -> dict[str, str]:
    """Return an address's options, from which drivers also take host and database, under many names."""
    options = {}
    for key, text in url.query.items():
        options[key.lower()] = text if isinstance(text, str) else ",".join(text)
    for part in options.pop("odbc_connect", "").split(";"):
        key, _, text = part.partition("=")
        options[key.strip().lower()] = text.strip().strip("{}")
    return options


def _first(options: Mapping[str, str], keys: Sequence[str]) -> str:
    return next((options[key] for key in keys if options.get(key)), "")


def _host_and_port(url: sqlalchemy.URL, options: Mapping[str, str], backend: str) -> tuple[str, str | int]:
    host = url.host or ""
    port = str(url.port or "")
    if not host:
        # A port may follow the host, after a comma with SQL Server and a colon with others.
        host = _first(options, _HOST_KEYS).removeprefix("tcp:")
        mark = "," if backend == "mssql" else ":"
        if host.count(mark) == 1:
            host, _, own = host.partition(mark)
            port = port or own.strip()
        port = port or options.get("port", "")
    host = host.strip().lower()
    if host in _HERE:
        host = "localhost"
    return host, port or _PORTS.get(backend, "")


def tables_of(query: str) -> list[str]:
    r"""Return the tables that a query reads, in lower case and without their schema.

    A word that may or may not name a table counts as one.

    Examples
    --------
    >>> tables_of('SELECT a, b FROM public."Visits" v, labs JOIN codes c ON v.a = c.a WHERE b <> \'from x\'')
    ['codes', 'labs', 'visits']
    >>> tables_of("WITH recent AS (SELECT * FROM visits) SELECT * FROM recent")
    ['visits']
    >>> tables_of("WITH visits AS (SELECT * FROM visits) SELECT * FROM (visits v JOIN labs l ON v.i = l.i), wards")
    ['labs', 'visits', 'wards']
    """
    tables = set[str]()
    for reading in _READINGS:
        tokens = (hit[1] for hit in reading.finditer(query) if hit[1])
        tables |= _read(_tree(tokens), selects=True)
    return sorted(tables - {""})


def _tree(tokens: Iterator[str]) -> Tree:
    """Return the tokens up to the closing bracket, or to the end."""
    nodes: Tree = []
    for token in tokens:
        if token == ")":
            break
        if token == "(":
            nodes.append(_tree(tokens))
        else:
            nodes.append(token)
    return nodes


def _read(tree: Tree, made: frozenset[str] = frozenset(), *, selects: bool, place: bool = False) -> set[str]:
    """Return the tables that brackets, or the whole query, read.

    Parameters
    ----------
    tree : Tree
    made : frozenset of str
        Names of tables that the query itself defines.
    selects : bool
        Whether FROM may stand here; else it belongs to a function, as in extract(year FROM day).
    place : bool
        Whether a table may stand here: the brackets come after FROM.
    """
    tables = set[str]()
    at = 0
    if _word(tree, 0) == "with":
        tables, made, at = _common(tree, made)
    first = at
    listed = place
    while at < len(tree):
        # Words determine what may follow; a name counts only where a table may stand.
        word = _word(tree, at)
        if isinstance(tree[at], list):
            tables |= _read(tree[at], made, selects=place, place=place)
            place = False
        elif word in _ENDS:
            listed = place = False
            selects |= word == "select"
        elif word == "from":
            place = listed = _begins_list(tree, at, may_begin=selects or at == first)
        elif _is_followed_by_table(tree, at, first, listed=listed):
            place = True
            listed |= word in _JOINS
        elif place and not _is_before_table(tree, at):
            parts, at = _name(tree, at)
            place = False
            tables |= _own_table(parts, made)
        at = at + 1
    return tables


def _is_followed_by_table(tree: Tree, at: int, first: int, *, listed: bool) -> bool:
    """Return whether a table may follow: after JOIN, a comma in a list of tables, or TABLE where a query begins."""
    word = _word(tree, at)
    if word == "table":
        return at == first or _word(tree, at - 1) in _BETWEEN
    return word in _JOINS or (listed and word == ",")


def _own_table(parts: list[str], made: frozenset[str]) -> set[str]:
    """Return the table of a dotted name, none where the query itself defines it."""
    if len(parts) == 1 and parts[0] in made:
        return set()
    return {parts[-1]}


def _begins_list(tree: Tree, at: int, *, may_begin: bool) -> bool:
    """Return whether FROM begins a list of tables, where one may begin; IS DISTINCT FROM begins none."""
    ends_comparison = at > 0 and _word(tree, at - 1) == "distinct" and _word(tree, at - 2) in ("is", "not")
    return may_begin and not ends_comparison


def _common(tree: Tree, made: frozenset[str]) -> tuple[set[str], frozenset[str], int]:
    """Return the tables that WITH reads, all names that it defines, and where the query goes on.

    A name in its own brackets is a table of the database, unless the query is recursive.
    """
    tables = set[str]()
    at = 1
    looks_back = _word(tree, at) == "recursive"
    at += looks_back
    while at < len(tree) and isinstance(tree[at], str):
        name = _plain(tree[at])
        at = at + 1
        # A list of columns after the name reads nothing.
        at += at < len(tree) and isinstance(tree[at], list)
        while _word(tree, at) in ("as", "not", "materialized"):
            at += 1
        if at >= len(tree) or not isinstance(tree[at], list):
            break
        aliases = made | {name} if looks_back else made - {name}
        tables |= _read(tree[at], aliases, selects=True)
        made = made | {name}
        at = at + 1
        if _word(tree, at) != ",":
            break
        at += 1
    return tables, made, at


def _name(tree: Tree, at: int) -> tuple[list[str], int]:
    """Return the parts of a dotted name, some of them empty, and the place of the last."""
    parts = [_plain(tree[at])]
    while _word(tree, at + 1) == ".":
        at += 1
        if _is_name(tree, at + 1) and isinstance(tree[at + 1], str):
            at += 1
            parts.append(_plain(tree[at]))
    return parts, at


def _is_before_table(tree: Tree, at: int) -> bool:
    """Return whether a word stands between FROM and a table's name, as in `FROM ONLY visits`."""
    if tree[at].lower() == "rows":
        return _word(tree, at + 1) == "from"
    return tree[at].lower() in ("only", "lateral", "table") and _is_name(tree, at + 1)


def _is_name(tree: Sequence[Any], at: int) -> bool:
    return at < len(tree) and (isinstance(tree[at], list) or bool(_WORD.fullmatch(tree[at])))


def _word(tree: Sequence[Any], at: int) -> str:
    return tree[at].lower() if 0 <= at < len(tree) and isinstance(tree[at], str) else ""


def _plain(name: str) -> str:
    # BigQuery quotes a name with its points as one.
    return name.strip('"`[]').lower().rpartition(".")[2] if _WORD.fullmatch(name) else ""


ROWS = 500
"""Rows fetched at a time: few enough to be freed before Python collects garbage."""
BYTES = 32_000_000
"""Bytes fetched at a time, where cells are long."""
LOOSE = 8_000_000
"""Largest number of cells whose rows are not packed, which is faster."""
NUMBER = 8
OTHER = 64
"""Approximate bytes of a cell that is no plain number or text."""
Cells = tuple[Any, ...]


def read_query(connection: Connection, query: str, reading: Reading, *, loose: int = LOOSE) -> pd.DataFrame:
    """Return the rows of a query as `pandas.read_sql_query` does.

    They are fetched in parts, since their number is not known in advance. Up to `loose` cells are not packed.

    Raises
    ------
    UsageError
        If it is no query for a table, or exceeds a limit.
    """
    with _executed(connection, query, reading) as (result, names):
        rows = _rows(result, len(names), reading, loose)
    return _frame(rows, names)


def query_batches(connection: Connection, query: str, reading: Reading, rows: int) -> Iterator[pd.DataFrame]:
    """Yield the rows of a query, `rows` at a time, at least one table; raises as `read_query` does."""
    with _executed(connection, query, reading) as (result, names):
        part = result.fetchmany(rows)
        yield _frame(list(map(tuple, part)), names)
        for part in reading.within_time(iter(partial(result.fetchmany, rows), [])):
            yield _frame(list(map(tuple, part)), names)


def _frame(rows: list[Cells], names: list[str]) -> pd.DataFrame:
    import pandas as pd

    if not rows:
        return pd.DataFrame(columns=names)
    table = pd.DataFrame.from_records(rows, columns=names, coerce_float=True)
    # NUMERIC, and whole numbers beside NULL, became floating point: long ones are kept as the database has them.
    for place, dtype in enumerate(table.dtypes):
        if dtype.kind == "f" and exceeds_floats(table.iloc[:, place]):
            cells: Any = pd.Series([row[place] for row in rows], dtype=object)
            if not {*map(type, cells)} <= {float, type(None)}:
                table.isetitem(place, cells)
    return table


@contextmanager
def _executed(connection: Connection, query: str, reading: Reading) -> Iterator[tuple[CursorResult[Any], list[str]]]:
    """Carry a query out, and stop it when its time is over."""
    import sqlalchemy

    # Another statement is not carried out at all: some databases commit it at once.
    if not _GIVES_TABLE.match(query):
        raise usage_error("rows.source.tableless")
    with _stops_in_time(connection, reading):
        if connection.dialect.name == "postgresql":
            # By default a cursor's plan gives the earliest first row, not the earliest last one.
            connection.execute(sqlalchemy.text("SET LOCAL cursor_tuple_fraction = 1"))
        with connection.execution_options(stream_results=True).execute(sqlalchemy.text(query)) as result:
            if not result.returns_rows:
                raise usage_error("rows.source.tableless")
            names = list(result.keys())
            reading.check("columns", len(names))
            yield result, names


def _rows(result: CursorResult[Any], width: int, reading: Reading, most: int) -> list[Cells]:
    """Fetch rows; more than `most` cells are packed until all are fetched."""
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
    """Return the approximate bytes of a column's cells once packed."""
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
    """Pack the cells of rows column by column, and return their approximate bytes.

    Few rows at a time, so that their cells remain in the processor's cache.
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
    """Return an array of cells of one type that can be restored exactly; other cells unchanged."""
    import pyarrow as pa

    kinds = set(map(type, cells))
    kinds.discard(type(None))
    plain = {int: pa.int64(), float: pa.float64(), str: pa.large_string()}
    if len(kinds) == 1 and (kind := kinds.pop()) in plain:
        with suppress(pa.ArrowException, OverflowError, UnicodeError):
            return pa.array(cells, plain[kind])
    return cells


def _unpacked(column: list[Any]) -> list[Any]:
    """Return the original cells of a column."""
    values: list[Any] = []
    for cells in column:
        rows = cells if isinstance(cells, tuple) else cells.to_pylist()
        values.extend(rows)
    return values


@contextmanager
def _stops_in_time(connection: Connection, reading: Reading) -> Iterator[None]:
    """Stop a query of the database when its time is over."""
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
