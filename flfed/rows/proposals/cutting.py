"""One table, cut into sites by a column or narrowed to rows of some classes, with the expressions that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from keyword import iskeyword

import pandas as pd

from flfed.errors import UsageError, count_in_words
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.expressions import LONGEST
from flfed.rows.data.sources import Frame, Source
from flfed.rows.proposals.cells import MISSING
from flfed.rows.proposals.columns import UNLISTED
from flfed.rows.proposals.wishes import column_named

LEAST_OF_SITE = 50
"""Rows of a site that is cut from a table; those of smaller ones are one site together."""
MOST_SITES = 200
OF_CLASS = "of_a_class"
"""Derived column for the rows of some classes, where one expression would be too long."""


@dataclass(frozen=True)
class OwnTable:
    """One table of one's own, and how it is read.

    Attributes
    ----------
    title : str
        What people call its site.
    source : Csv, Parquet, Excel, Sql or Frame
    table : DataFrame
        What the source gives.
    """

    title: str
    source: Source
    table: pd.DataFrame


def cut_by(tables: Sequence[OwnTable], by: str) -> tuple[list[OwnTable], int]:
    """Return a table for each value of a column, and the rows that are in none."""
    parts = []
    left_out = 0
    for own in tables:
        named = column_named(by, "by", map(str, own.table.columns), f"table {own.title!r}")
        cells = plain_text(own.table[named])
        absent = [str(text) for text in cells.dropna().unique() if str(text).casefold() in MISSING]
        cells = cells.where(~cells.isin(absent), None)
        counts = cells.value_counts()
        large = [str(value) for value in counts.index if counts[value] >= LEAST_OF_SITE]
        if len(large) > MOST_SITES:
            raise UsageError(f"by: column {by!r} has {len(large)} values: that many sites are no institutions")
        column = as_written(named)
        parts += [_part(own, value, f"{column} == {value!r}", {}, cells == value) for value in large]
        rest = int(cells.notna().sum() - counts[large].sum())
        # Rare names are not written down: the others are those that are none of the large ones.
        if rest >= LEAST_OF_SITE and large:
            others = cells.notna() & ~cells.isin(large)
            parts.append(_part(own, UNLISTED, *_none_of(column, [*large, *absent], own.table.columns), others))
        else:
            left_out += rest
        left_out += int(cells.isna().sum())
    return parts, left_out


def refuse_one_site(tables: Sequence[OwnTable], by: str, parts: Sequence[OwnTable]) -> None:
    """Refuse a column of sites that gives fewer than two.

    Raises
    ------
    UsageError
        With how many values it has, and of how many rows each.
    """
    if len(parts) > 1:
        return
    cells = [plain_text(own.table[column_named(by, "by", map(str, own.table.columns))]) for own in tables]
    counts = pd.concat(cells).value_counts()
    help_ = "name a column with one value for each institution, or give a file for each"
    if len(counts) < 2:
        many = "no value" if counts.empty else "one value only"
        raise UsageError(f"by: column {by!r} has {many}, and a study needs two sites: {help_}")
    most = int(counts.iloc[0])
    rows = "one row each" if most == 1 else f"{count_in_words(most)} rows at most"
    if most < LEAST_OF_SITE:
        raise UsageError(
            f"by: column {by!r} has {len(counts)} values of {rows}, and a site needs {LEAST_OF_SITE}: {help_}"
        )
    raise UsageError(
        f"by: of the {len(counts)} values of column {by!r} one alone has the {LEAST_OF_SITE} rows that a site needs, "
        f"and a study needs two sites: {help_}"
    )


def _none_of(column: str, values: Sequence[str], taken: Iterable[object]) -> tuple[str, dict[str, str]]:
    """Return an expression for the rows that have none of some values, with columns that it needs.

    More values than one expression may have are told apart by derived columns.
    """
    parts: list[list[str]] = [[]]
    for value in values:
        if parts[-1] and sum(len(repr(one)) + 2 for one in (column, *parts[-1], value)) > LONGEST - len(" not in ()"):
            parts.append([])
        parts[-1].append(value)
    none = [f"{column} not in {tuple(part)!r}" for part in parts]
    if len(none) == 1:
        return none[0], {}
    free = (name for number in count(1) if (name := f"elsewhere_{number}") not in set(taken))
    derive = dict(zip(free, none, strict=False))
    return " and ".join(f"{name} == 1" for name in derive), derive


def _part(own: OwnTable, value: str, where: str, derive: Mapping[str, str], rows: pd.Series) -> OwnTable:
    """Return the rows for which `where` holds, as a table of their own."""
    table = own.table[rows.to_numpy(dtype=bool)].reset_index(drop=True)
    source = Frame(table) if isinstance(own.source, Frame) else replace(own.source, where=where, derive=derive)
    return OwnTable(value, source, table)


def as_written(name: str) -> str:
    """Return how an expression names a column.

    Examples
    --------
    >>> as_written("age"), as_written("blood pressure")
    ('age', "column('blood pressure')")
    """
    # Python takes "ﬁrm" for "firm", and no keyword for a name.
    plain = name.isascii() and name.isidentifier() and not iskeyword(name)
    return name if plain else f"column({name!r})"


def with_classes(own: OwnTable, target: str, classes: Sequence[str]) -> OwnTable:
    """Return a table whose source reads only rows of some classes, or without an outcome.

    Its own rows are those already.
    """
    if isinstance(own.source, Frame):
        return own
    column = as_written(column_named(target, "target", map(str, own.table.columns), f"table {own.title!r}"))
    wanted = f"{column} in {tuple(classes)!r} or missing({column})"
    where = f"{own.source.where} and ({wanted})" if own.source.where else wanted
    if len(where) <= LONGEST:
        return replace(own, source=replace(own.source, where=where))
    derive = {**own.source.derive, OF_CLASS: f"{column} in {tuple(classes)!r}"}
    where = f"{own.source.where} and {OF_CLASS} == 1"
    return replace(own, source=replace(own.source, where=where, derive=derive))
