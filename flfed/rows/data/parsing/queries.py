"""Queries: the tables and databases that they read, and their rows.

Tables are found in whatever way the query is written; rows are fetched in parts, within limits.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.errors import UsageError
from flfed.rows.data.parsing.limits import Reading

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy
    from sqlalchemy import Connection, CursorResult


_TOKENS = r"--[^\n]*|/\*.*?\*/|'(?:[^'{escape}]|''{escaped})*'|(\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|[\w$#@]+|[^\s])"
_READINGS = [
    re.compile(_TOKENS.format(escape=escape, escaped=escaped), re.DOTALL)
    for escape, escaped in (("", ""), (r"\\", r"|\\."))
]
"""With and without a backslash before a quote in a text, which databases read one way or the other."""
_WORD = re.compile(r"[\"`\[\w$#@].*", re.DOTALL)
_SETS = frozenset({"union", "except", "intersect", "minus"})
_ENDS = _SETS | {"where", "group", "order", "having", "limit", "window", "fetch", "offset"}
_ENDS |= {"qualify", "connect", "values", "select"}
"""Words that end the list of tables."""
_BETWEEN = _SETS | {"all", "distinct"}
_JOINS = frozenset({"join", "straight_join", "apply"})
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
_HERE = frozenset({"", "127.0.0.1", "::1", ".", "(local)", "/tmp", "/run/postgresql", "/var/run/postgresql"})
"""Other names for this machine."""
_HOST_KEYS = ("server", "address", "addr", "network address", "data source", "host", "hostname", "dsn")
_DATABASE_KEYS = ("database", "initial catalog", "dbname", "service_name", "sid", "db")

Tree = list[Any]
"""Words and signs of a query in their order; what stands in brackets is a tree of its own."""


def server_of(url: str) -> str:
    """Return a database's server and name.

    User, password and options are left out.

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
        raise UsageError("the site's database address cannot be read") from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        return f"sqlite:///{Path(address.database or '').resolve()}"
    options = _options(address)
    host, port = _host_and_port(address, options, backend)
    database = address.database or _first(options, _DATABASE_KEYS)
    return f"{backend}://{host}:{port}/{database}"


def _options(url: sqlalchemy.URL) -> dict[str, str]:
    """Return an address's options; drivers take host and database from them as well, under many names."""
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
    r"""Return the tables that a query reads.

    They are named in lower case and without their schema.

    Where it is not plain whether a word names a table, it counts as one.

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
        tables |= _read(_tree(tokens), top=True)
    return sorted(tables - {""})


def _tree(tokens: Iterator[str]) -> Tree:
    """Return the tokens up to the closing bracket.

    Without one they go up to the end.
    """
    nodes: Tree = []
    for token in tokens:
        if token == ")":
            break
        if token == "(":
            nodes.append(_tree(tokens))
        else:
            nodes.append(token)
    return nodes


def _read(tree: Tree, made: frozenset[str] = frozenset(), *, top: bool = False, place: bool = False) -> set[str]:
    """Return the tables read in brackets.

    The brackets may be the whole query.

    Parameters
    ----------
    tree : Tree
    made : frozenset of str
        Names that stand for what the query made itself.
    top : bool
        Whether it is the whole query.
    place : bool
        Whether a table may stand here: the brackets come after FROM.
    """
    tables = set[str]()
    at = 0
    if _word(tree, 0) == "with":
        tables, made, at = _common(tree, made)
    selects = top or place  # else FROM belongs to a function, as in extract(year FROM day)
    listed = place
    start = True
    while at < len(tree):
        # Words switch what may come next; a name counts only where a table may stand.
        word = _word(tree, at)
        if isinstance(tree[at], list):
            tables |= _read(tree[at], made, place=place)
            place = False
        elif word == ";" or word in _ENDS:
            listed = place = False
            selects |= word == "select"
        elif word == "from":
            place = listed = (selects or start) and not _ends_comparison(tree, at)
        elif word in _JOINS:
            place = listed = True
        elif (word == "," and listed) or (word == "table" and (start or _word(tree, at - 1) in _BETWEEN)):
            place = True
        elif place and not _is_before_table(tree, at):
            parts, at = _name(tree, at)
            place = False
            if len(parts) > 1 or parts[0] not in made:
                tables.add(parts[-1])
        at = at + 1
        start = False
    return tables


def _ends_comparison(tree: Tree, at: int) -> bool:
    """Tell whether FROM belongs to IS DISTINCT FROM."""
    return at > 0 and _word(tree, at - 1) == "distinct" and _word(tree, at - 2) in ("is", "not")


def _common(tree: Tree, made: frozenset[str]) -> tuple[set[str], frozenset[str], int]:
    """Return the tables that WITH reads.

    With them come all names that stand for such a table, and where the query goes on.

    A name in its own brackets is a table of the database, unless the query says that it looks at itself.
    """
    tables = set[str]()
    at = 1
    looks_back = _word(tree, at) == "recursive"
    at += looks_back
    while at < len(tree) and isinstance(tree[at], str):
        name = _plain(tree[at])
        at = at + 1
        # A list of columns may follow the name, and reads nothing.
        at += at < len(tree) and isinstance(tree[at], list)
        while _word(tree, at) in ("as", "not", "materialized"):
            at += 1
        if at >= len(tree) or not isinstance(tree[at], list):
            break
        aliases = made | {name} if looks_back else made - {name}
        tables |= _read(tree[at], aliases, top=True)
        made = made | {name}
        at = at + 1
        if _word(tree, at) != ",":
            break
        at += 1
    return tables, made, at


def _name(tree: Tree, at: int) -> tuple[list[str], int]:
    """Return the parts of a dotted name.

    Some may be empty. With them comes the place of its last part.
    """
    parts = [_plain(tree[at])]
    while _word(tree, at + 1) == ".":
        at += 1
        if _is_name(tree, at + 1) and isinstance(tree[at + 1], str):
            at += 1
            parts.append(_plain(tree[at]))
    return parts, at


def _is_before_table(tree: Tree, at: int) -> bool:
    """Tell whether a word precedes a table's name.

    It stands between FROM and the name, as in `FROM ONLY visits`.
    """
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
    values: list[Any] = []
    for cells in column:
        rows = cells if isinstance(cells, tuple) else cells.to_pylist()
        values.extend(rows)
    return values


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
