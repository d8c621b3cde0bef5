"""Where an institution's table is: CSV, Parquet, a database, or a data frame."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flfed.errors import UsageError

_CSV_ERRORS = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, LookupError)
"""LookupError is an encoding that Python does not know."""


@dataclass(frozen=True)
class Csv:
    """A CSV file. Every cell is read as text; the mapping gives it its kind.

    Parameters
    ----------
    path : str
        Absolute, or relative to the site's folder, the dataset's folder or its downloads.
    columns : tuple of str, optional
        Names, where the file has no header line.
    separator : str
    missing : tuple of str
        Cells that mean "not known", such as "?"; an empty cell always does.
    encoding : str
    """

    path: str
    columns: tuple[str, ...] | None = None
    separator: str = ","
    missing: tuple[str, ...] = ()
    encoding: str = "utf-8-sig"

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        """Return the table; `folders` are where a relative path is looked for."""
        path = find_file(self.path, folders)
        try:
            with warnings.catch_warnings():
                # pandas only warns of cells that it drops where lines are longer than the header.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                return pd.read_csv(
                    path,
                    sep=self.separator,
                    header=None if self.columns else 0,
                    names=list(self.columns) if self.columns else None,
                    dtype=str,
                    keep_default_na=False,
                    encoding=self.encoding,
                    index_col=False,
                )
        except (*_CSV_ERRORS, pd.errors.ParserWarning):
            # The parser's own message quotes cells.
            raise UsageError(
                f"{path}: cannot be read as CSV with separator {self.separator!r} and encoding {self.encoding!r}"
            ) from None


@dataclass(frozen=True)
class Parquet:
    """A Parquet file. Parameters as for `Csv`."""

    path: str
    missing: tuple[str, ...] = ()

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        """Return the table; `folders` are where a relative path is looked for."""
        path = find_file(self.path, folders)
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError):
            raise UsageError(f"{path}: cannot be read as Parquet") from None


@dataclass(frozen=True)
class Sql:
    """A query on a database.

    Parameters
    ----------
    query : str
        One SELECT that returns the site's rows.
    url_variable : str
        Environment variable that holds the SQLAlchemy URL, password included; or, with
        `_FILE` appended, the path of a file that holds it. A site package holds no password.
    missing : tuple of str
    """

    query: str
    url_variable: str = "FLFED_SITE_URL"
    missing: tuple[str, ...] = ()

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        """Return the rows of the query."""
        import sqlalchemy

        try:
            engine = sqlalchemy.create_engine(self._url())
            try:
                with engine.connect() as connection:
                    return pd.read_sql_query(sqlalchemy.text(self.query), connection)
            finally:
                engine.dispose()
        except sqlalchemy.exc.ArgumentError:
            raise UsageError(f"{self.url_variable} does not hold a database URL") from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            # The driver's own message may quote cells, and the URL holds a password.
            raise UsageError(f"the site's database query failed ({type(error).__name__})") from None

    def _url(self) -> str:
        url = os.environ.get(self.url_variable, "")
        file = os.environ.get(f"{self.url_variable}_FILE", "")
        if not url and file:
            try:
                url = Path(file).read_text(encoding="utf-8").strip()
            except OSError:
                raise UsageError(f"{self.url_variable}_FILE names a file that cannot be read: {file}") from None
        if not url:
            raise UsageError(f"set {self.url_variable} (or {self.url_variable}_FILE) to the database's URL")
        return url


@dataclass(frozen=True, eq=False)
class Frame:
    """A table that is in memory already: notebooks, research sites, tests."""

    table: pd.DataFrame
    missing: tuple[str, ...] = ()

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        """Return a copy of the table."""
        return self.table.copy()


Source = Csv | Parquet | Sql | Frame


def find_file(path: str, folders: tuple[Path, ...]) -> Path:
    """Return the file that `path` names in the first of `folders` that has it.

    Raises
    ------
    UsageError
        If none has it; says where it was looked for and how to fetch it.
    """
    wanted = Path(path)
    tried = [wanted] if wanted.is_absolute() else [folder / wanted for folder in folders]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    places = ", ".join(str(candidate.parent) for candidate in tried)
    raise UsageError(f"the table {wanted.name!r} is not in {places}; if the dataset is a download: flfed data get")
