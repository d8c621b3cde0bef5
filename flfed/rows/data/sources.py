"""Sources of an institution's table: CSV, Parquet, Excel, a database, or a data frame."""

from __future__ import annotations

import csv
import importlib
import io
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from inspect import isfunction
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.errors import UsageError, require_extra
from flfed.packages import SITES, check_package, import_file, own_code
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.arrow_reader import read_plain_csv
from flfed.rows.data.parsing.cells import with_text_cells
from flfed.rows.data.parsing.fields import with_text_names
from flfed.rows.data.parsing.limits import Limits, Reading
from flfed.rows.data.parsing.parquet_and_excel import grid_text, parquet_batches, read_parquet, read_sheet
from flfed.rows.data.parsing.queries import query_batches, read_query
from flfed.rows.data.parsing.text_files import (
    BLANKS,
    FIRST_LINES,
    NoTable,
    content_of,
    ends,
    is_packed,
    is_wide,
    lines_above,
    lines_of,
    parts_of,
    refuse_other_kind,
    why_uneven,
    with_empty_lines,
    without_end_sign,
    wrong_encoding,
)
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Connection

UNENDED = "unended"
"""Key in a table's `attrs`: the last line of its file has all cells but no line break."""
Folders = tuple[Path, ...]
"""Folders of a relative path, in order of precedence."""
CONNECT_SECONDS = 10
"""Longest wait for the first reply of a PostgreSQL server, unless the address has another."""
QUERY = "the site's database query"
LIBPQ = ("psycopg", "psycopg2")
"""Drivers with libpq's settings."""
_PICKLES = (".pkl", ".pickle", ".joblib", ".p")

PARSER_SAYS = {"EOF inside string": "unclosed", "field larger": "long"}
"""Key of a refusal's reason by words of the parsers' errors, which have no codes."""


Prepare = Callable[["pd.DataFrame"], "pd.DataFrame"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What all sources take.

    Parameters
    ----------
    missing : tuple of str
        Cells that mean "not known"; an empty cell always does. Example: `missing=("?",)`.
    prepare : function (DataFrame) → DataFrame, optional
        A function of the site's package that makes the table to be mapped of the source's own: it leaves rows out, or
        adds columns. It gets texts without blanks around them, and None for a cell that is missing; opt-outs are taken
        out before. The same table must always give the same result. Example: `prepare=adults_only`.
    limits : Limits
        Largest table that is read. Example: `limits=Limits(rows=50_000_000, cells=1_000_000_000)`.
    sample : float in (0, 1]
        Share of the rows that are used, or of the persons where the schema names a group: each by a keyed hash of its
        own key, so that none moves another. Rules are checked on all rows, batch by batch, and so is `prepare` called;
        `limits` bound the rows that are used. Example: `sample=0.1`.
    keep : tuple of the target and a value, optional
        Outcome whose rows are all trained on, whatever the `sample`; the others then count 1/sample in training. The
        holdout is a plain sample. Example: `keep=("fraud", "yes")`.
    """

    missing: tuple[str, ...] = ()
    prepare: Prepare | None = None
    limits: Limits = field(default_factory=Limits)
    sample: float = 1.0
    keep: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no function with a name, and other limits."""
        if not isinstance(self.limits, Limits):
            raise usage_error("rows.source.limits", limits=self.limits)
        # By its name a person approves it, and another process finds it: a lambda or a bound method has none.
        if self.prepare is not None and (not isfunction(self.prepare) or "<" in self.prepare.__qualname__):
            kind = type(self.prepare).__name__  # the text of a partial quotes the tables in it
            raise UsageError(f"prepare must be a function with a name, of the site's package, and no lambda: {kind}")
        if isinstance(self.sample, bool) or not isinstance(self.sample, int | float) or not 0 < self.sample <= 1:
            raise UsageError(f"sample={self.sample!r} must be a share above 0, and at most 1")
        if self.keep is None:
            return
        if not isinstance(self.keep, tuple) or [*map(type, self.keep)] != [str, str]:
            raise UsageError(f"keep={self.keep!r} must be the target and one of its values, as ('fraud', 'yes')")

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the institution's own table, before `prepare`; relative paths are searched in `folders`."""
        raise NotImplementedError

    def batches(self, folders: Folders, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the rows of `read`, about `rows` at a time; all at once where the format allows no other reading."""
        yield self.read(folders)

    def _while_reading(self, name: object) -> Reading:
        """Return the limits of batches, of which only some rows are used: those of columns and seconds."""
        return Reading(name, replace(self.limits, rows=sys.maxsize, cells=sys.maxsize, bytes=sys.maxsize))

    def in_memory(self, table: pd.DataFrame, **changes: Any) -> Frame:
        """Return a table of this source's rows with its settings."""
        kind = Part if isinstance(self, Part) else Frame
        settings = {one.name: getattr(self, one.name) for one in fields(Source)}
        return kind(table, **{**settings, **changes})

    def prepared(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return what `prepare` makes of the source's table, which is not changed.

        An error of the function is a UsageError with its type, file and line.
        """
        import pandas as pd

        if self.prepare is None:
            return table
        copy = table.copy(deep=False)
        codes = set(plain_text(pd.Series(self.missing, dtype=object)))
        for place in range(copy.shape[1]):
            cells: Any = copy.iloc[:, place]  # its types know of no Series below
            if cells.dtype == object:
                cells = cells.map(lambda cell: (cell.strip() or None) if isinstance(cell, str) else cell)
            elif not codes:
                continue
            copy.isetitem(place, cells.mask(plain_text(cells).isin(codes), None))
        with own_code(f"prepare={self.prepare.__qualname__}"):
            made = self.prepare(copy)
        if not isinstance(made, pd.DataFrame):
            raise UsageError(f"prepare={self.prepare.__qualname__} must return a DataFrame, not {type(made).__name__}")
        return with_text_names(with_text_cells(made)).reset_index(drop=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process: a function of a site's folder crosses by folder and name."""
        state = dict(vars(self))
        if self.prepare is not None and (module := self.prepare.__module__).startswith(SITES):
            package = ".".join(module.split(".")[:2])
            state["prepare"] = (package, str(sys.modules[package].__file__), module, self.prepare.__qualname__)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of another process."""
        if isinstance(state["prepare"], tuple):
            package, file, module, name = state["prepare"]
            if package not in sys.modules:
                check_package(Path(file).parent)
                import_file(Path(file), package)
            state["prepare"] = attrgetter(name)(importlib.import_module(module))
        vars(self).update(state)


@dataclass(frozen=True)
class Csv(Source):
    r"""A CSV file, read as text. Parameters as for `Source`, and these.

    The mapping gives every cell its kind.

    Parameters
    ----------
    path : str
        Absolute, or relative to the site's folder, the dataset's folder or its downloads.
        Example: `path="patients.csv"`.
    columns : tuple of str, optional
        Names, where the file has no header line. Example: `columns=("age", "sex")`.
    skip : int
        Lines above the names, or above the first row, that are not read. Example: `skip=3`.
    separator : str
        One sign between cells, or `"\s+"` for blanks. Example: `separator=";"`.
    encoding : str
        As Python names it. Example: `encoding="cp1252"`.

    Examples
    --------
    >>> from flfed import Csv
    >>> source = Csv("ward.csv", separator=";", missing=("?",))
    >>> source.separator
    ';'
    """

    path: str
    columns: tuple[str, ...] | None = None
    separator: str = ","
    encoding: str = "utf-8-sig"
    skip: int = 0

    def __post_init__(self) -> None:
        """Refuse repeated names, and separators of several signs."""
        super().__post_init__()
        _check_names(self)
        if len(self.separator) != 1 and self.separator != BLANKS:
            raise usage_error("rows.source.separator", path=self.path, separator=self.separator, blanks=BLANKS)

    def read(self, folders: Folders) -> pd.DataFrame:
        """Read the table from the first of `folders` that has the file.

        Raises
        ------
        UsageError
            If the file is no such table, or one of its lines is longer or shorter than the first, with the reason.
        """
        return self._read(folders, compact=False)

    def read_compact(self, folders: Folders) -> pd.DataFrame:
        """Read the table as `read` does; the texts of a plain file stay in Arrow's columns."""
        return self._read(folders, compact=self.prepare is None)

    def batches(self, folders: Folders, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the rows of `read`, about `rows` lines at a time; those of a packed or UTF-16 file all at once."""
        path = find_file(self.path, folders)
        if is_packed(path) or is_wide(self.encoding):
            yield self.read_compact(folders)
            return
        reading = self._while_reading(path)
        with self._refusing(path), path.open("rb") as stream:
            if b"\r" in b"".join(islice(stream, self.skip)).replace(b"\r\n", b""):  # it alone ends lines
                yield self.read_compact(folders)
                return
            for content in parts_of(stream, rows, header=not self.columns):
                refuse_other_kind(content, reading)
                yield self._parsed(content, reading, compact=self.prepare is None)

    def _read(self, folders: Folders, *, compact: bool) -> pd.DataFrame:
        path = find_file(self.path, folders)
        reading = Reading(path, self.limits)
        with self._refusing(path):
            content = with_empty_lines(content_of(path, reading), self.skip, self.encoding)
            return self._parsed(content, reading, compact=compact)

    def _parsed(self, content: bytes, reading: Reading, *, compact: bool) -> pd.DataFrame:
        """Return the table of a file's bytes."""
        import pandas as pd

        content = without_end_sign(content)
        if compact and (table := self._plain_table(content, reading)) is not None:
            return table
        # Checked before pandas reads them, for it fills uneven lines up silently.
        ended = self._check(content, reading)
        with warnings.catch_warnings():
            # pandas only warns where it drops cells of lines longer than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = self._table(content)
        table.attrs[UNENDED] = not ended
        return with_text_names(with_text_cells(table))

    @contextmanager
    def _refusing(self, path: Path) -> Iterator[None]:
        """Turn what is wrong with a file into a sentence."""
        import pandas as pd

        try:
            yield
        except OSError as error:
            raise usage_error("rows.source.unopened", path=path, reason=error.strerror) from None
        except NoTable as why:
            raise self._refusal(path, str(why)) from None
        except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, csv.Error) as error:
            # The parser's own message quotes cells.
            default = "unclosed" if isinstance(error, csv.Error) else "uneven"
            rule = next((rule for words, rule in PARSER_SAYS.items() if words in str(error)), default)
            raise self._refusal(path, render(f"rows.parser.{rule}")) from None
        except UnicodeError:
            raise self._refusal(path, render("rows.source.encoding")) from None
        except LookupError:
            raise self._refusal(path, render("rows.source.unknown")) from None

    def _plain_table(self, content: bytes, reading: Reading) -> pd.DataFrame | None:
        """Return the columns of a plain file; None where the careful reader has to examine it."""
        table = read_plain_csv(content.lstrip(b"\n"), self.encoding, self.separator, self.columns, reading)
        if table is not None:
            table.attrs[UNENDED] = not ends(content, self.encoding)
        return table

    def _refusal(self, path: Path, why: str) -> UsageError:
        return usage_error("rows.source.csv", path=path, separator=self.separator, encoding=self.encoding, reason=why)

    def _check(self, content: bytes, reading: Reading) -> bool:
        """Refuse files that pandas would silently fill up or cut; return whether the last line has a break."""
        "".encode(self.encoding)  # LookupError where Python does not know it
        if wrong := wrong_encoding(content, self.encoding):
            raise NoTable(wrong)
        lines = lines_of(content, self.encoding, self.separator, reading, self.columns)
        if wrong := why_uneven(lines, content, self.encoding, self.separator):
            raise NoTable(wrong)
        return lines.ended

    def _table(self, content: bytes) -> pd.DataFrame:
        """Parse the file with pandas, all cells as text."""
        import pandas as pd

        parse: Any = partial(
            pd.read_csv, sep=self.separator, encoding=self.encoding, dtype=str, keep_default_na=False, index_col=False
        )
        table: pd.DataFrame
        if self.columns:
            table = parse(io.BytesIO(content), header=None, names=list(self.columns))
            return table
        table = parse(io.BytesIO(content), header=0)
        # pandas renames the second "x1" to "x1.1"; with its own name again, the mapping reports it.
        if {str(name).rpartition(".")[0] for name in table} & set(table):
            table.columns = pd.Index(parse(io.BytesIO(content), header=None, nrows=1).iloc[0])
        return table


@dataclass(frozen=True)
class Parquet(Source):
    """A Parquet file. Parameters as for `Source`, and these.

    Parameters
    ----------
    path : str
        As for `Csv`. Example: `path="patients.parquet"`.

    Examples
    --------
    >>> from flfed import Parquet
    >>> Parquet("ward.parquet").path
    'ward.parquet'
    """

    path: str

    def read(self, folders: Folders) -> pd.DataFrame:
        """Read the table from the first of `folders` that has the file."""
        path = find_file(self.path, folders)
        return with_text_names(with_text_cells(read_parquet(path, Reading(path, self.limits))))

    def read_compact(self, folders: Folders) -> pd.DataFrame:
        """Read the table as `read` does; its texts stay in Arrow's columns."""
        if self.prepare is not None:
            return self.read(folders)
        path = find_file(self.path, folders)
        return with_text_names(with_text_cells(read_parquet(path, Reading(path, self.limits), compact=True)))

    def batches(self, folders: Folders, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the rows of `read`, `rows` at a time."""
        path = find_file(self.path, folders)
        for table in parquet_batches(path, self._while_reading(path), rows):
            yield with_text_names(with_text_cells(table))


@dataclass(frozen=True)
class Excel(Source):
    """A sheet of an Excel file (extra `flfed[excel]`). Parameters as for `Source`, and these.

    Parameters
    ----------
    path : str
        As for `Csv`. Example: `path="patients.xlsx"`.
    sheet : str
        Its name; default: the first one. Example: `sheet="2025"`.
    columns, skip
        As for `Csv`. Examples: `columns=("age", "sex")`, `skip=3`.

    Examples
    --------
    >>> from flfed import Excel
    >>> Excel("ward.xlsx", sheet="2024").sheet
    '2024'
    """

    path: str
    sheet: str = ""
    columns: tuple[str, ...] | None = None
    skip: int = 0

    def __post_init__(self) -> None:
        """Refuse repeated names."""
        super().__post_init__()
        _check_names(self)

    def read(self, folders: Folders) -> pd.DataFrame:
        """Read the table from the first of `folders` that has the file."""
        grid = self.grid(folders).iloc[self.skip :]
        names = list(self.columns or ())
        for place, cell in enumerate(() if names else grid.head(1).to_numpy().ravel()):
            names.append(grid_text(cell) or f"Unnamed: {place}")
        if self.columns and len(names) != grid.shape[1]:
            raise UsageError(f"{self.path}: {render('rows.text.names', cells=grid.shape[1], names=len(names))}")
        table = grid.iloc[0 if self.columns else 1 :].reset_index(drop=True).set_axis(names, axis=1)
        return with_text_cells(table)

    def grid(self, folders: Folders) -> pd.DataFrame:
        """Return all cells of the sheet."""
        require_extra("openpyxl", "reading Excel", "excel")
        path = find_file(self.path, folders)
        refusal = render("rows.source.excel", path=path)
        if self.sheet:
            refusal = render("rows.source.sheet", path=path, sheet=self.sheet)
        return read_sheet(path, self.sheet, Reading(path, self.limits), refusal)

    def lines_above(self) -> int:
        """Return how many lines stand above the names of columns."""
        return lines_above(self.grid(()).head(FIRST_LINES).map(grid_text).to_numpy().tolist())


def _check_names(source: Csv | Excel) -> None:
    if source.columns and len(set(source.columns)) < len(source.columns):
        raise usage_error("rows.source.repeated", path=source.path)
    if isinstance(source.skip, bool) or not isinstance(source.skip, int) or source.skip < 0:
        raise UsageError(f"{source.path}: skip={source.skip!r} must be a number of lines, 0 or more")


@dataclass(frozen=True)
class Sql(Source):
    """A query on a database. Parameters as for `Source`, and these.

    Parameters
    ----------
    query : str
        One SELECT that returns the site's rows; another statement is refused.
        Example: `query="SELECT * FROM patients WHERE age >= 18"`.
    url_variable : str
        Environment variable that holds the SQLAlchemy URL, password included; or, with
        `_FILE` appended, the path of a file that holds it. A site package holds no password.
        Example: `url_variable="WARD_DATABASE"`.
    limits : Limits
        Smaller than a file's, since the size of a result is not known in advance: 2 million rows, 32 million cells
        and 500 MB. Example: `limits=Limits(rows=20_000_000, cells=200_000_000, seconds=7_200)`.

    Examples
    --------
    >>> from flfed import Sql
    >>> Sql("SELECT age, died FROM stays", url_variable="WARD_DATABASE").query
    'SELECT age, died FROM stays'
    """

    query: str
    url_variable: str = "FLFED_SITE_URL"
    limits: Limits = field(default=Limits(rows=2_000_000, cells=32_000_000, bytes=500_000_000), kw_only=True)

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the rows of the query."""
        with self._connected() as connection:
            table = read_query(connection, self.query, Reading(QUERY, self.limits))
        return with_text_names(with_text_cells(table))

    def batches(self, folders: Folders, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the rows of the query, `rows` at a time."""
        with self._connected() as connection:
            for table in query_batches(connection, self.query, self._while_reading(QUERY), rows):
                yield with_text_names(with_text_cells(table))

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Open the database; the driver's message may quote cells, and the URL holds a password: neither is shown."""
        import sqlalchemy

        try:
            with self._connection() as connection:
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise usage_error("rows.source.query", reason=_why_failed(error)) from None

    def reach(self) -> None:
        """Connect to the database, and close the connection."""
        self._connection().close()

    def _connection(self) -> Connection:
        """Connect to the database without a pool, so that closing leaves nothing."""
        import sqlalchemy

        kind, _, path = self._url().partition(":///")
        path = path.partition("?")[0]
        is_file = path and not path.startswith((":memory:", "file:"))
        # Connecting would make the file.
        if kind.startswith("sqlite") and is_file and not os.path.exists(path):
            raise usage_error("rows.source.gone", variable=self.url_variable)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)  # it quotes settings after the "?"
                url = sqlalchemy.make_url(self._url())
                # libpq waits without end for a server that takes a connection and then keeps quiet.
                unlimited = url.get_driver_name() in LIBPQ and "connect_timeout" not in url.query
                limits = {"connect_timeout": CONNECT_SECONDS} if unlimited else {}
                engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=limits)
                connection = engine.connect()
                if engine.dialect.name == "sqlite":
                    # SQLite refuses a longer cell before it builds one.
                    driver: Any = connection.connection.driver_connection
                    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_CELL)
                    # Python commits a statement that begins with WITH and deletes rows.
                    driver.execute("PRAGMA query_only = 1")
                return connection
        except ImportError:
            raise usage_error("rows.source.driver", variable=self.url_variable) from None
        except (sqlalchemy.exc.ArgumentError, ValueError, TypeError, LookupError):
            raise usage_error("rows.source.url", variable=self.url_variable) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            kind = type(error).__name__
            raise usage_error("rows.source.unreachable", error=kind, variable=self.url_variable) from None

    def _url(self) -> str:
        url = os.environ.get(self.url_variable, "")
        file = os.environ.get(f"{self.url_variable}_FILE", "")
        if not url and file:
            try:
                url = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, ValueError):  # the name is not shown: it may be the address itself
                raise usage_error("rows.source.file", variable=self.url_variable) from None
        if not url:
            raise usage_error("rows.source.unset", variable=self.url_variable)
        return url


@dataclass(frozen=True, eq=False)
class Frame(Source):
    """A table in memory, for notebooks, research sites and tests. Parameters as for `Source`, and this.

    Parameters
    ----------
    table : DataFrame
        Rows and columns as the institution has them. Example: `table=df`.

    Examples
    --------
    >>> import pandas as pd
    >>> from flfed import Frame
    >>> Frame(pd.DataFrame({"age": [54, 61], "died": [0, 1]})).table.shape
    (2, 2)
    """

    table: pd.DataFrame

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return a copy of the table."""
        return with_text_cells(self.table).copy()


@dataclass(frozen=True, eq=False)
class Part(Frame):
    """Rows of a table that was mapped and checked as a whole before it was cut."""


LONGEST_CELL = 10_000_000
"""Largest number of bytes of a cell, and of a row, of SQLite: a short query can return a gigabyte of zeros."""


def _why_failed(error: Exception) -> str:
    """Return why a query failed: the error's type, or that a cell is too long."""
    driver = getattr(error, "orig", None)
    if getattr(driver, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG:
        return render("rows.source.cell", bytes=LONGEST_CELL)
    return type(error).__name__


def reach(source: object, folders: Folders) -> None:
    """Refuse a source whose file or database is out of reach; no row is read.

    Raises
    ------
    UsageError
        With the reason; neither a password nor a cell is in it.
    """
    if isinstance(source, Sql):
        source.reach()
    elif isinstance(source, Csv | Parquet | Excel):
        path = find_file(source.path, folders)
        try:
            path.open("rb").close()
        except OSError as error:
            raise usage_error("rows.source.unopened", path=path.name, reason=error.strerror) from None


def find_file(path: str, folders: Folders) -> Path:
    """Return the file of a path in the first of `folders` that has it.

    Raises
    ------
    UsageError
        If none has it, with the folders and how to fetch it. Also for a pickle.
    """
    wanted = Path(path)
    if wanted.suffix.lower() in _PICKLES:
        raise usage_error("rows.source.pickle", file=wanted.name)
    tried = [wanted] if wanted.is_absolute() else [folder / wanted for folder in folders]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    places = ", ".join(str(candidate.parent) for candidate in tried)
    raise usage_error("rows.source.absent", file=wanted.name, folders=places)
