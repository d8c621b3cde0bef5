"""Opening of the tables that a person names, with separator and encoding found out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from flfed.errors import UsageError
from flfed.rows.data.parsing.cells import valueless_cells
from flfed.rows.data.parsing.headers import SHEETS, plain_name, where_names_stand
from flfed.rows.data.parsing.limits import Limits, Reading
from flfed.rows.data.parsing.text_files import NoTable, content_of, table_format
from flfed.rows.data.sources import Csv, Excel, Parquet, Source
from flfed.rows.proposals.cells import is_number_text

PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")


def source_of(path: Path, *, names: str = "", sheet: str = "") -> Source:
    """Return how a file is read, by its ending and its first lines.

    Parameters
    ----------
    path : Path
        CSV (also .tsv, .txt, and packed as .gz or .zip), Parquet or Excel.
    names : str
        Of the columns, with commas between, where the file has no line of names.
    sheet : str
        Of a workbook; "" for its first one.

    Raises
    ------
    UsageError
        If there is no such file, or it holds no table.
    """
    if not path.is_file():
        wrong = "it is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(f"{path}: {wrong}")
    whole = str(path.resolve())
    if path.suffix.lower() in PARQUET:
        return Parquet(whole)
    if path.suffix.lower() in EXCEL:
        return Excel(whole, sheet=sheet)
    columns = tuple(name.strip() for name in names.split(",")) if names else None
    try:
        separator, encoding = table_format(content_of(path, Reading(path, Limits())), len(columns or ()))
    except NoTable as why:
        raise UsageError(f"{path}: {why}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened ({error.strerror})") from None
    return Csv(whole, columns=columns, separator=separator, encoding=encoding)


def read_named(source: Source) -> pd.DataFrame:
    """Return a table whose first line holds names.

    Raises
    ------
    UsageError
        If it cannot be read, or its first line holds numbers.
    TableError
        If cells of a workbook are merged, or hold formulas without a value.
    """
    table = source.read(())
    path = getattr(source, "path", "the query")
    numbers = [is_number_text(name) for name in table.columns]
    if isinstance(source, Csv) and source.columns is None and 2 * sum(numbers) > len(numbers):
        raise UsageError(
            f"{path}: its first line holds numbers, no names: name its {len(numbers)} columns with --names"
        )
    if not len(table):
        raise UsageError(f"{path}: it has no rows")
    if error := valueless_cells(table):
        raise error
    return table


def refuse_lines_above(
    table: pd.DataFrame, source: Source, title: str, words: Sequence[str], *, named: bool = True
) -> None:
    """Refuse a table whose first line holds no names, with where these are.

    A title, or a sheet that is none of rows, stands in their place.

    Parameters
    ----------
    table : DataFrame
        As the source gave it.
    source : Csv, Parquet, Excel, Sql or Frame
    title : str
        Of the table, for people.
    words : sequence of str
        Columns that are looked for.
    named : bool
        Whether a person named them: else the table may well have others.

    Raises
    ------
    UsageError
        If none of them is there, and it can be told why.
    """
    own = {plain_name(name) for name in table.columns}
    if any(plain_name(word) in own for word in words):
        return
    why = where_names_stand(table, words)
    above = "further down" in why
    other = named and isinstance(source, Excel) and SHEETS in table.attrs
    if above or other:
        raise UsageError(f"table {title!r} has no column {words[0]!r}: {why.replace('sheet=', '--sheet')}")
