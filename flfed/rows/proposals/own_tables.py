"""Tables that a person names: opening, reading and cutting them into sites, and the names of these."""

from __future__ import annotations

import hashlib
import json
import linecache
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd
from pydantic import TypeAdapter

from flfed.errors import UsageError, count_in_words
from flfed.files import write_whole
from flfed.packages import frames_folder
from flfed.rows.data.findings.oddities import foreign_rows, hidden_and_signed, quoted_texts
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.cells import valueless_cells
from flfed.rows.data.parsing.fields import (
    SHEETS,
    Entry,
    Field,
    looks_like_row,
    plain_name,
    site_name,
    where_names_stand,
)
from flfed.rows.data.parsing.limits import Limits, Reading
from flfed.rows.data.parsing.text_files import NoTable, content_of, table_format
from flfed.rows.data.sources import Csv, Excel, Frame, Parquet, Prepare, Source, Sql
from flfed.rows.proposals.cells import MISSING
from flfed.rows.proposals.columns import UNLISTED
from flfed.rows.proposals.tables import column_named, columns_by_name
from flfed.words import counted, render, usage_error

PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")
UMLAUTS = {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "o", "æ": "ae", "ł": "l"}
"""Letters that are no a-z with a mark, or that a name writes as two."""
LONGEST_NAME = 60
"""Largest number of signs in a site's name, in messages, folders and records."""
LEAST_OF_SITE = 50
"""Least rows of a site that is cut from a table, unless a person says otherwise; smaller ones become one together."""
MOST_SITES = 200
WIDTH = 116
"""Longest line of a package's text."""


@dataclass(frozen=True)
class OwnTable:
    """A person's table with its source.

    Attributes
    ----------
    title : str
        Name of its site for people.
    source : Csv, Parquet, Excel, Sql or Frame
    table : DataFrame
        As the source gives it.
    conditions : tuple of str
        Python expressions over `table` that its rows fulfil, of those in the source.
    """

    title: str
    source: Source
    table: pd.DataFrame
    conditions: tuple[str, ...] = ()

    def with_table(self, table: pd.DataFrame, **changes: Any) -> OwnTable:
        """Return some rows of the table, which its source reads with `changes`."""
        source: Source
        if isinstance(self.source, Frame):
            source = Frame(table)
        else:
            source = replace(self.source, **changes)
        return replace(self, source=source, table=table)

    def where(self, condition: str, rows: pd.Series) -> OwnTable:
        """Return the `rows` that fulfil a condition, which the source leaves out by a function of its package."""
        conditions = (*self.conditions, condition)
        table = self.table[rows.to_numpy(dtype=bool)].reset_index(drop=True)
        return replace(self.with_table(table, prepare=choose_rows(conditions)), conditions=conditions)

    def column(self, word: str, option: str) -> str:
        """Return the column that a word names; see `column_named`."""
        return column_named(word, option, map(str, self.table.columns), f"table {self.title!r}")


def cut_by(tables: Sequence[OwnTable], by: str, least: int) -> tuple[list[OwnTable], int]:
    """Return a table for each value of a column that `least` rows have, and the rows that are in none."""
    parts = []
    left_out = 0
    for own in tables:
        named = own.column(by, "by")
        cells = plain_text(own.table[named])
        absent = [str(text) for text in cells.dropna().unique() if str(text).casefold() in MISSING]
        cells = cells.where(~cells.isin(absent), None)
        counts = cells.value_counts()
        large = [str(value) for value in counts.index if counts[value] >= least]
        if len(large) > MOST_SITES:
            raise usage_error("proposals.sites.many", by=by, values=len(large))
        for value in large:
            chosen = own.where(_among(named, own.table[named][cells == value]), cells == value)
            parts.append(replace(chosen, title=value))
        rest = int(cells.notna().sum() - counts[large].sum())
        # Rare names are not written down: the large ones are left out instead.
        if rest >= least and large:
            others = cells.notna() & ~cells.isin(large)
            named_rows = plain_text(own.table[named]).isin([*large, *absent])
            column = f"table[{named!r}]"
            condition = f"{column}.notna() & ~{_among(named, own.table[named][named_rows])}"
            parts.append(replace(own.where(condition, others), title=UNLISTED))
        else:
            left_out += rest
        left_out += int(cells.isna().sum())
    return parts, left_out


def refuse_one_site(tables: Sequence[OwnTable], by: str, parts: Sequence[OwnTable], least: int) -> None:
    """Refuse a column of sites that gives fewer than two.

    Raises
    ------
    UsageError
        With the number of its values, and of their rows.
    """
    if len(parts) > 1:
        return
    counts = pd.concat([plain_text(own.table[own.column(by, "by")]) for own in tables]).value_counts()
    if len(counts) < 2:
        many = "no value" if counts.empty else "one value only"
        raise usage_error("proposals.sites.single", by=by, many=many)
    most = int(counts.iloc[0])
    rows = "one row each" if most == 1 else render("proposals.sites.most", rows=count_in_words(most))
    if most < least:
        raise usage_error("proposals.sites.small", by=by, values=len(counts), rows=rows, least=least)
    raise usage_error("proposals.sites.lone", by=by, values=len(counts), least=least)


def _among(name: str, cells: pd.Series) -> str:
    """Return the expression that a column has one of some cells."""
    values = [cell.strip() if isinstance(cell, str) else cell for cell in cells.unique().tolist()]
    column = f"table[{name!r}]"
    if not all(isinstance(value, (str, int, float)) for value in values):
        column, values = f"{column}.astype(str)", list(map(str, values))
    lines = [f"{value!r}," for value in sorted(dict.fromkeys(values), key=str)]
    line = f"{column}.isin([{' '.join(lines).removesuffix(',')}])"
    if len(line) <= WIDTH - len("    table = table[table[''].notna() & ~]") - len(name):
        return line
    whole = "".join(f"        {value}\n" for value in lines)
    return f"{column}.isin([\n{whole}    ])"


def choose_rows(conditions: Sequence[str]) -> Prepare:
    """Return the function of a site's package that leaves out the rows of other sites; `inspect` finds its text."""
    steps = "".join(f"    table = table[{condition}]\n" for condition in conditions)
    text = f'def rows_of_site(table):\n    """Return the rows of this site."""\n{steps}    return table\n'
    file = f"<rows of site {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, file, "exec"), scope)
    made: Prepare = scope["rows_of_site"]
    return made


def joined(tables: Sequence[OwnTable], group: str) -> OwnTable:
    """Return the columns of several tables side by side, a row a person; of equal columns the first."""
    named = [own.column(group, "group") for own in tables]
    people = [own.table.set_index(plain_text(own.table[name])) for own, name in zip(tables, named, strict=True)]
    whole, *others = [table[~table.index.duplicated() & table.index.notna()] for table in people]
    for table in others:
        seen = set(map(plain_name, whole.columns))
        whole = whole.join(table[[name for name in table.columns if plain_name(name) not in seen]], how="outer")
    whole = whole.assign(**{named[0]: whole.index}).reset_index(drop=True)
    return OwnTable("parties", Frame(whole), whole)


def with_classes(own: OwnTable, target: str, classes: Sequence[str]) -> OwnTable:
    """Return a table of some classes only with a source that reads just its rows."""
    named = own.column(target, "target")
    texts = plain_text(own.table[named])
    known = texts.isin(classes) | texts.str.casefold().isin(MISSING)
    condition = f"table[{named!r}].isna() | {_among(named, own.table[named][known])}"
    return own.where(condition, pd.Series(True, index=own.table.index))


def source_of(path: Path, *, names: str = "", sheet: str = "", skip: int | None = None) -> Source:
    """Return the source of a file, by its ending and its first lines.

    Parameters
    ----------
    path : Path
        CSV (also .tsv, .txt, and packed as .gz or .zip), Parquet or Excel.
    names : str
        Of the columns, with commas between, where the file has no line of names.
    sheet : str
        Of a workbook; "" for its first one.
    skip : int, optional
        Lines above the names; default: those that hold a title, a comment or nothing.

    Raises
    ------
    UsageError
        If there is no such file, or it holds no table.
    """
    if not path.is_file():
        if path.is_dir():
            raise usage_error("proposals.sites.folder", path=path)
        raise usage_error("proposals.sites.file", path=path)
    whole = str(path.resolve())
    if path.suffix.lower() in PARQUET:
        return Parquet(whole)
    columns = tuple(name.strip() for name in names.split(",")) if names else None
    if path.suffix.lower() in EXCEL:
        excel = Excel(whole, sheet=sheet, columns=columns, skip=skip or 0)
        return excel if columns or skip is not None else replace(excel, skip=excel.lines_above())
    try:
        separator, encoding, skip = table_format(content_of(path, Reading(path, Limits())), len(columns or ()), skip)
    except NoTable as why:
        raise UsageError(f"{path}: {why}") from None
    except OSError as error:
        raise usage_error("rows.source.unopened", path=path, reason=error.strerror) from None
    return Csv(whole, columns=columns, separator=separator, encoding=encoding, skip=skip)


def read_file(path: Path) -> pd.DataFrame:
    """Return a file's table: as plain CSV where it is that, else in the form that `source_of` finds.

    Raises
    ------
    UsageError
        If it cannot be read, or has several sheets.
    """
    broken = None
    if path.suffix.lower() not in (*PARQUET, *EXCEL) and path.is_file():
        try:
            table = Csv(str(path.resolve())).read(())
        except UsageError as error:
            broken = error
        else:
            if table.shape[1] > 1:
                return table
    try:
        table = source_of(path).read(())
    except UsageError as error:
        raise broken or error from None
    if SHEETS in table.attrs:
        raise usage_error("proposals.sites.sheets", path=path, sheets=", ".join(table.attrs[SHEETS]))
    return table


def read_named(source: Source) -> pd.DataFrame:
    """Return a table whose first line holds names.

    Raises
    ------
    UsageError
        If it cannot be read, has no rows, or its names look like a row.
    TableError
        If cells of a workbook are merged, or hold formulas without a value.
    """
    table = source.read(())
    path = getattr(source, "path", "the query")
    if not len(table):
        reason = where_names_stand(table, ()).replace("sheet=", "--sheet")
        raise usage_error("proposals.sites.empty", path=path, reason=reason)
    refuse_row(table, source, Path(path).name)
    if isinstance(source, Excel) and (error := valueless_cells(table)):
        raise error
    return table


def refuse_lines_above(
    table: pd.DataFrame, source: Source, title: str, words: Sequence[str], *, named: bool = True
) -> None:
    """Refuse a table whose first line holds no names, with their likely place.

    A title, or a sheet without rows, may stand in their place.

    Parameters
    ----------
    table : DataFrame
        As the source gave it.
    source : Csv, Parquet, Excel, Sql or Frame
    title : str
        Of the table, for people.
    words : sequence of str
        Expected columns.
    named : bool
        Whether one of them must be there: else the table may well have other names.

    Raises
    ------
    UsageError
        If it has none of them, for a reason that is known.
    """
    own = {plain_name(name) for name in table.columns}
    if any(plain_name(word) in own for word in words):
        return
    why = where_names_stand(table, words)
    other = named and isinstance(source, Excel) and SHEETS in table.attrs
    if other or "further down" in why:
        reason = why.replace("sheet=", "--sheet")
        raise usage_error("proposals.sites.column", title=title, column=words[0], reason=reason)


def refuse_row(table: pd.DataFrame, source: Source, title: str) -> None:
    """Refuse a table whose names look like a row, and are perhaps a person's cells: none of them is shown."""
    # A Parquet file and a query always have names.
    has_names = isinstance(source, Parquet | Sql) or getattr(source, "columns", None) is not None
    if not has_names and looks_like_row(table):
        skip = getattr(source, "skip", 0) + 1
        raise usage_error("proposals.sites.row", title=title, columns=table.shape[1], skip=skip)


def foreign_notes(own: OwnTable, words: Sequence[str]) -> list[str]:
    """Return which rows of a table hold no data; refuse one whose first line holds no names."""
    refuse_row(own.table, own.source, own.title)
    refuse_lines_above(own.table, own.source, own.title, words)
    found = [*hidden_and_signed(own.table, own.table.columns), *foreign_rows(own.table)]
    found += [f"{name!r}: {note}" for name, cells in own.table.items() for note in quoted_texts(cells)]
    return [*skipped_note(own.source, own.title), *(f"{own.title}: {row}" for row in found)]


def skipped_note(source: Source, title: str) -> Iterator[str]:
    """Yield how many lines above the names of columns are skipped."""
    if skip := getattr(source, "skip", 0):
        yield render("proposals.sites.skipped", title=title, lines=counted(skip, "line"))


def slug(text: str) -> str:
    """Return a text as a name of a-z, 0-9 and single hyphens.

    Examples
    --------
    >>> slug("St. Mary's (2024)"), slug("Klinik Köln")
    ('st-mary-s-2024', 'klinik-koeln')
    """
    made = name_signs(text)
    if not made:
        raise usage_error("proposals.sites.slug", text=text)
    return made


def name_signs(text: str) -> str:
    """Return the signs of a text that a name may have."""
    plain = text.translate({ord(sign): pair for sign, pair in UMLAUTS.items()})
    return site_name(unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode())


def names_of_sites(parts: Sequence[OwnTable]) -> list[str]:
    """Return a name for the site of each table.

    Raises
    ------
    UsageError
        If one has no letters, or two would be alike.
    """
    for part in parts:
        if not 0 < len(name_signs(part.title)) <= LONGEST_NAME:
            raise usage_error("proposals.sites.name", title=part.title[:40], longest=LONGEST_NAME)
    names = [slug(part.title) for part in parts]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        titles = " and ".join(repr(part.title) for part, name in zip(parts, names, strict=True) if name == twice)
        raise usage_error("proposals.sites.twice", name=twice, titles=titles)
    return names


READING = "reading.json"
"""File beside a dataset's schema with the reading of its data frames."""


@dataclass(frozen=True)
class FrameReading:
    """Reading of the data frames of a training.

    Attributes
    ----------
    fields : mapping of schema column to Field or None
        None where a column is read unchanged.
    labels : tuple
        The target's own values for the schema's classes, in their order; none for a regression.
    """

    fields: Mapping[str, Field | None]
    labels: tuple[Any, ...]

    @classmethod
    def load(cls, dataset: str) -> Self | None:
        """Return the reading of a dataset's data frames on this machine, or None."""
        path = frames_folder() / "datasets" / dataset / READING
        if not path.is_file():
            return None
        return TypeAdapter(cls).validate_json(path.read_bytes())

    def keep(self, dataset: str, files: Mapping[str, str]) -> None:
        """Write it where studies find a dataset by name, with the files that describe the dataset."""
        settings = {name: field and asdict(field) for name, field in self.fields.items()}
        reading = json.dumps({"fields": settings, "labels": self.labels}, ensure_ascii=False)
        for path, text in {**files, f"datasets/{dataset}/{READING}": reading}.items():
            if path.startswith("datasets/"):
                place = frames_folder() / path
                place.parent.mkdir(parents=True, exist_ok=True)
                write_whole(place, text.encode())

    def mapping(self, names: Sequence[object]) -> dict[str, Entry]:
        """Return the mapping of a data frame with these column names."""
        return columns_by_name(self.fields, names)
