"""Check of a site's table before it joins.

Each column passes or fails, with counts, never a cell. Oddities of a table that breaks no rule are
counted, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.paths import write_private
from flfed.rows.data.holdout import Holdout, SortedRows
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import Field, Finding
from flfed.rows.data.parsing.headers import alike
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import CachedSite, Site, SiteTable
from flfed.rows.data.sources import UNENDED, Selection
from flfed.rows.data.transactions.source import Transactions
from flfed.spreadsheet import csv_text


@dataclass(frozen=True)
class Line:
    """One line of a site's check.

    Attributes
    ----------
    column : str
        Name in the schema, or "table" for the whole.
    passed : bool
    detail : str
        The rule that is broken and how often, or what was counted.
    note : bool
        Whether it is something odd that people should look at, and breaks no rule.
    """

    column: str
    passed: bool
    detail: str
    note: bool = False


@dataclass(frozen=True, eq=False)
class Checked:
    """The result of checking one site.

    Attributes
    ----------
    site : str
    rows, training_rows, holdout_rows : int
        The last two are 0 where the table breaks a rule.
    lines : tuple of Line
    findings : tuple of Finding
        With row numbers: they stay at the site.
    """

    site: str
    rows: int
    training_rows: int
    holdout_rows: int
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Tell whether the site could join."""
        return all(line.passed for line in self.lines)


def check_site(site: Site) -> Checked:
    """Check every column of a site's table.

    Each passes or fails.

    Raises
    ------
    UsageError
        If the table cannot be read at all.
    """
    raw, table, findings, schema = site.examine()
    every = site.schema_of(schema)
    lines = [_column_line(name, table, every, findings, own=name in site.own) for name in every.columns]
    extra = [f for f in findings if f.column not in every.columns]
    lines += [Line(finding.column, False, _broken(finding)) for finding in extra]
    # A table that breaks a rule is not split: further checks would speak of other rows.
    if findings:
        return Checked(site.name, len(table), 0, 0, tuple(lines), tuple(findings))
    if site.policy.width < 1:
        lines.append(Line("table", True, f"the site {width_in_words(site.policy.width)}", note=True))
    lines += [Line(n.column, True, n.text, note=True) for n in oddities(raw, table, every, site.columns)]
    once = CachedSite.of(site)
    # Only a site that reads in a way of its own does so a second time.
    if isinstance(once, CachedSite):
        once.opened[()] = SortedRows.of(table, schema)
    opened = once.read()
    lines += _table_lines(opened, schema, site)
    if schema.unconfirmed:
        many = f"{len(schema.unconfirmed)} columns were" if schema.unconfirmed[1:] else "1 column was"
        lines.append(Line("table", True, f"{many} {UNCONFIRMED}: {', '.join(schema.unconfirmed)}", note=True))
    lines += [Line(name, True, words, note=True) for name, words in _others(table, schema, site)]
    return Checked(site.name, len(table), len(opened.training), opened.holdout_rows, tuple(lines), ())


UNCONFIRMED = "proposed from rows, and nobody has confirmed kind, range or values (unconfirmed in schema.toml)"


def _others(table: pd.DataFrame, schema: Schema, site: Site) -> Iterator[tuple[str, str]]:
    """Yield how many rows a column has whose value is none of the schema's."""
    for name in schema.columns:
        field = site.mapping.get(name)
        if isinstance(field, Field) and field.other is not None:
            others = int((table[name] == field.other).sum())
            yield name, f"{count_in_words(others)} rows have another value than those listed: {field.other!r}"


def _column_line(name: str, table: pd.DataFrame, schema: Schema, findings: Sequence[Finding], *, own: bool) -> Line:
    broken = [finding for finding in findings if finding.column == name]
    if broken:
        return Line(name, False, "; ".join(_broken(finding) for finding in broken))
    missing = int(table[name].isna().sum())
    left_out = "; these are left out: their outcome is not known yet" if missing and name == schema.target else ""
    column = schema.columns[name]
    unit = f", {column.unit}" if column.unit else ""
    groups = f"; {groups_in_words(table[name])}" if name == schema.group else ""
    missed = f"missing in {count_in_words(missing)} of {len(table)} rows"
    stays = "; the site's own, which stays here" if own else ""
    return Line(name, True, f"{column.kind}{unit}{groups}; {missed}{left_out}{stays}")


def _broken(finding: Finding) -> str:
    where = f" in {count_in_words(len(finding.rows))} rows" if len(finding.rows) else ""
    return f"{finding.rule}{where}" + (f": {finding.hint}" if finding.hint else "")


def _table_lines(opened: SiteTable, schema: Schema, site: Site) -> list[Line]:
    """Check the table as a whole.

    It needs enough rows, and more than one class.
    """
    least = site.policy.least_rows()
    lines = [
        Line("table", rows >= least, f"{count_in_words(rows)} {part} rows; at least {least} are needed")
        for part, rows in (("training", len(opened.training)), ("holdout", opened.holdout_rows))
    ]
    if isinstance(site.source, Transactions):
        words = "history of others comes from a feed, not from the site's own transactions"
        lines += [Line(owner, True, words) for owner in site.source.feeds]
    if isinstance(site.source, Selection) and site.source.where:
        lines.append(Line("table", True, f"only the rows with {site.source.where} are read", note=True))
    # Without a salt the hash of a row can be computed by anybody who knows the row.
    if isinstance(site.holdout, Holdout) and not site.holdout.salt:
        words = "warning: the holdout has no salt, so whoever knows a row can tell its side; set Holdout(salt=...)"
        lines.append(Line("table", True, words, note=True))
    if schema.task != "regression":
        classes = opened.training[schema.target].nunique()
        words = "has one class only: rank metrics such as the AUC are undefined here"
        lines.append(Line(schema.target, True, words if classes < 2 else f"{classes} classes among training rows"))
    return lines


def write_local_rows(checked: Checked, path: Path) -> int:
    """Write the rows that break rules to a file.

    It says which row breaks which rule, for the site's own eyes. Returns how many lines were written.

    The file is made with mode 600 and never replaced. Rows are numbered from 1 in the source.

    Raises
    ------
    UsageError
        If the file is there already.
    """
    lines = [(int(row) + 1, f.column, f.rule) for f in checked.findings for row in f.rows]
    write_private(path, csv_text(("row", "column", "rule"), sorted(lines)), advice="name a file where you may write")
    return len(lines)


FEWEST = 20
"""Rows with a value from which on a column is looked at."""
LEAST, SHARE = 5, 0.01
"""A code for "not known" stands in at least so many rows, and in this share of them."""
MOST = 4
"""A 0 in more than a quarter of the rows is a value: most people have no visit."""
TIMES = 3
"""Copies are told where they are so many times the pairs of rows that are alike by chance."""
EMPTY, MAP_TO_NONE = "is empty", ": map it to None if the site does not have it"
FAR, WIDE = 5, 0.1
"""It is further from the next value than five usual steps, and than a tenth of what the others span."""


@dataclass(frozen=True)
class Note:
    """One odd thing about a column or table.

    `column` is "table" for the whole; `text` says what it is, with a count.
    """

    column: str
    text: str


def oddities(
    raw: pd.DataFrame, table: pd.DataFrame, schema: Schema, mapping: Mapping[str, str | Field | None]
) -> list[Note]:
    """List the oddities of a table.

    They are what people should look at where the mapping reported nothing.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.
    table : DataFrame
        Mapped, in the schema's columns.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
    """
    notes = [Note("table", text) for text in _of_the_whole(raw)]
    fields = {name: mapping.get(name, name) for name in schema.columns}
    owns = {name: field.column if isinstance(field, Field) else field for name, field in fields.items()}
    read = set(owns.values()) & set(raw.columns)
    for name, column in schema.columns.items():
        own = owns[name]
        # Another column of nearly the same name may be the one that was meant.
        notes += [Note(name, text) for text in _of_names(own, [other for other in raw.columns if other not in read])]
        if own in read:
            notes += [Note(name, text) for text in _of_cells(name, table[name], column, schema)]
    return notes


def groups_in_words(cells: pd.Series) -> str:
    """Describe the number and size of groups.

    Says how many groups there are, and how many rows the largest has.

    Examples
    --------
    >>> groups_in_words(pd.Series([*"abcdef", *"g" * 9]))
    '7 groups, the largest of 9 rows'
    """
    sizes = cells.value_counts()
    largest = count_in_words(int(sizes.iloc[0])) if len(sizes) else "0"
    return f"{count_in_words(len(sizes))} groups, the largest of {largest} rows"


def _of_the_whole(raw: pd.DataFrame) -> Iterator[str]:
    if raw.attrs.get(UNENDED):
        yield "the last line of the file has no end: is the file whole?"
    texts = pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in range(raw.shape[1])})
    empty = int(texts.isna().all(axis=1).sum())
    if empty:
        yield f"{count_in_words(empty)} rows are empty throughout: remove them"
    # Few columns give equal rows by chance, which are no copies.
    copies = int(texts.dropna(how="all").duplicated().sum())
    if copies > TIMES * _pairs_by_chance(texts):
        yield f"{count_in_words(copies)} rows are copies of another row in every column: was something exported twice?"


def _pairs_by_chance(texts: pd.DataFrame) -> float:
    """Return the expected number of equal pairs of rows.

    It is that of columns that have nothing to do with each other.
    """
    alike_in_each = [
        float(np.square(cells.value_counts(normalize=True, dropna=False)).sum()) for _, cells in texts.items()
    ]
    return len(texts) * (len(texts) - 1) / 2 * math.prod(alike_in_each)


def _of_names(own: str | None, unread: Sequence[object]) -> Iterator[str]:
    others = alike(own, unread) if own is not None else []
    if others:
        yield f"the table has {', '.join(map(repr, others))} too; {own!r} is read"


def _of_cells(name: str, cells: pd.Series, column: Column, schema: Schema) -> Iterator[str]:
    known = cells.dropna()
    if column.kind == "id":
        yield from _of_identifiers(name, known, len(cells), schema)
        return
    if column.leak or column.kind == "target" and not column.is_number():
        return
    if len(cells) and not len(known):
        yield EMPTY + MAP_TO_NONE
    elif len(known) >= FEWEST and known.nunique() == 1:
        yield "has the same value in every row that has one"
    many = far_from_all(known) if column.is_number() or column.kind == "date" else 0
    if many:
        yield f"{count_in_words(many)} rows have one value that is far from all others: a code for 'not known'?"


def _of_identifiers(name: str, known: pd.Series, rows: int, schema: Schema) -> Iterator[str]:
    sizes = known.value_counts()
    if name == schema.group:
        if len(sizes) and len(known) >= FEWEST and 2 * int(sizes.iloc[0]) > rows:
            yield "one identifier stands in more than half of the rows"
    elif not schema.group and len(sizes) < len(known) < 2 * len(sizes):
        twice = count_in_words(len(known) - len(sizes))
        yield f"{twice} rows repeat an identifier, and the schema does not keep rows of one together"


def far_from_all(known: pd.Series) -> int:
    """Count rows with an extreme value like a code.

    It is the largest or smallest value, where it looks like a code for "not known"; else the count is 0.

    Parameters
    ----------
    known : Series of numbers or dates, without gaps

    Examples
    --------
    >>> ages = pd.Series([*range(20, 90), *[999] * 7])
    >>> far_from_all(ages), far_from_all(ages[:70])
    (7, 0)
    """
    numbers = known.to_numpy().astype("int64" if known.dtype.kind == "M" else float)
    values, counts = np.unique(numbers, return_counts=True)
    if len(numbers) < FEWEST or len(values) < 4:
        return 0
    enough = max(LEAST, SHARE * len(numbers))
    for place, others in ((-1, values[:-1]), (0, values[1:])):
        gap = abs(float(values[place]) - float(others[place]))
        span, step = float(others[-1]) - float(others[0]), float(np.median(np.diff(others)))
        alone_below = place == 0 and values[0] < 0 <= values[1] and float(values[0]).is_integer()
        far = gap > span or (is_code(values[place]) and gap > max(FAR * step, WIDE * span)) or alone_below
        common = values[place] == 0 and MOST * counts[place] > len(numbers)
        if far and counts[place] >= enough and not common:
            return int(counts[place])
    return 0


def is_code(value: float) -> bool:
    """Tell whether a number looks like a code.

    It is 0, or all nines or eights, below or above 0.

    Examples
    --------
    >>> is_code(-999), is_code(481516.23)
    (True, False)
    """
    digits = f"{abs(value):.15g}"
    return value == 0 or set(digits) in ({"9"}, {"8"})
