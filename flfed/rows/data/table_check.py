"""Check of a site's table before it joins.

Each column passes or fails, with counts, never a cell. Oddities of a table that breaks no rule are
counted, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.paths import write_private
from flfed.rows.data.findings.oddities import EMPTY, MAP_TO_NONE, foreign_rows, oddities, spelling
from flfed.rows.data.holdout import Holdout, SortedRows
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import Field, Finding
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import CachedSite, Site, SiteTable
from flfed.rows.data.sources import Selection
from flfed.rows.data.transactions import Transactions
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
    features, mapped : int
        Features of the schema, and those of them that have a value here.
    lines : tuple of Line
    findings : tuple of Finding
        With row numbers: they stay at the site.
    """

    site: str
    rows: int
    training_rows: int
    holdout_rows: int
    features: int
    mapped: int
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Tell whether the site could join."""
        return all(line.passed for line in self.lines)


def check_site(site: Site, *, today: date | None = None) -> Checked:
    """Check every column of a site's table.

    Each passes or fails. Dates after `today` are noted; default: the day of the call.

    Raises
    ------
    UsageError
        If the table cannot be read at all.
    """
    raw, table, findings, schema = site.examine()
    every = site.schema_of(schema)
    lines = [_column_line(name, table, every, findings, site) for name in every.columns]
    lines += [
        Line(finding.column, False, _broken(finding)) for finding in findings if finding.column not in every.columns
    ]
    features = len(schema.features())
    mapped = sum(bool(table[name].notna().any()) for name in schema.features())
    # A table that breaks a rule is not split: further checks would speak of other rows.
    if findings:
        # A row that is none breaks the rules of many columns: it is told first.
        foreign = [Line("table", False, words) for words in foreign_rows(raw)]
        lines = [*foreign, *_in_other_case(raw, every, findings, site), *lines]
        return Checked(site.name, len(table), 0, 0, features, mapped, tuple(lines), tuple(findings))
    if 2 * mapped < features:
        lines.append(_few_features(mapped, features, partial=site.partial))
    if site.policy.width < 1:
        lines.append(_note("table", f"the site {width_in_words(site.policy.width)}"))
    lines += [_note("table", words) for words in foreign_rows(raw)]
    noted = oddities(raw, table, every, site.columns, today=today)
    # Of an empty column that is the line of the column itself.
    lines += [_note(odd.column, odd.text) for odd in noted if odd.text != EMPTY + MAP_TO_NONE]
    once = CachedSite.of(site)
    # Only a site that reads in a way of its own does so a second time.
    if isinstance(once, CachedSite):
        once.opened[()] = SortedRows.of(table, schema)
    opened = once.read()
    lines += _table_lines(opened, schema, site)
    lines += _declared(table, schema, site)
    training = len(opened.training)
    return Checked(site.name, len(table), training, opened.holdout_rows, features, mapped, tuple(lines), ())


def _note(place: str, words: str) -> Line:
    return Line(place, True, words, note=True)


def _in_other_case(raw: pd.DataFrame, schema: Schema, findings: Sequence[Finding], site: Site) -> Iterator[Line]:
    """Yield how many cells are none of a column's values, and are one in another case."""
    for name in {finding.column for finding in findings if len(finding.rows)} & set(schema.columns):
        entry = site.columns.get(name, name)
        values = {spelling(value) for value in schema.columns[name].values}
        if not isinstance(entry, str) or entry not in raw.columns or not values:
            continue
        wrong = np.unique(np.concatenate([finding.rows for finding in findings if finding.column == name]))
        cells = plain_text(raw[entry].iloc[wrong]).dropna()
        if many := sum(spelling(text) in values for text in cells):
            words = (
                f"{count_in_words(many)} rows have one of its values in another case: write them alike, or map them by "
                f"Field({entry!r}, values={{...}})"
            )
            yield _note(name, words)


def _few_features(mapped: int, features: int, *, partial: bool) -> Line:
    """Return the line of a site that has fewer than half of the features."""
    words = f"only {features_in_words(mapped, features)}"
    if partial:
        return _note("table", f"{words}, as its package says (partial=True)")
    return Line("table", False, f"{words}: map those that it has, or set partial=True in its package")


def features_in_words(mapped: int, features: int) -> str:
    """Return how many features have a value at a site.

    Examples
    --------
    >>> features_in_words(2, 15)
    '2 of 15 features are mapped'
    """
    return f"{mapped} of {features} features are mapped"


ONE_CLASS = (
    "has one class only: no figure can tell models apart here, and rank metrics such as the AUC are undefined; "
    "are rows of the other class missing, or mapped to this one?"
)
UNCONFIRMED = "proposed from rows, and nobody has confirmed kind, range or values (unconfirmed in schema.toml)"


def _declared(table: pd.DataFrame, schema: Schema, site: Site) -> Iterator[Line]:
    """Yield what nobody has confirmed, and how many rows a column has whose value is none of the schema's."""
    if schema.unconfirmed:
        many = f"{len(schema.unconfirmed)} columns were" if schema.unconfirmed[1:] else "1 column was"
        yield _note("table", f"{many} {UNCONFIRMED}: {', '.join(schema.unconfirmed)}")
    for name in schema.columns:
        field = site.mapping.get(name)
        if isinstance(field, Field) and field.other is not None:
            others = int((table[name] == field.other).sum())
            if others:
                words = f"{count_in_words(others)} rows have another value than those listed: {field.other!r}"
                yield _note(name, words)


def _column_line(name: str, table: pd.DataFrame, schema: Schema, findings: Sequence[Finding], site: Site) -> Line:
    broken = "; ".join(_broken(finding) for finding in findings if finding.column == name)
    if broken:
        return Line(name, False, broken)
    column = schema.columns[name]
    kind = ", ".join(filter(None, (column.kind, column.unit)))
    missing = int(table[name].isna().sum())
    # A table with a finding may be empty, and says so itself.
    if missing == len(table) and missing:
        why = "the site does not have it" if site.columns.get(name, name) is None else EMPTY + MAP_TO_NONE
        return _note(name, f"{kind}; missing in every row: {why}")
    parts = [kind]
    if name == schema.group:
        sizes = table[name].value_counts()
        largest = count_in_words(int(sizes.iloc[:1].sum()))
        parts.append(f"{count_in_words(len(sizes))} groups, the largest of {largest} rows")
    parts.append(f"missing in {count_in_words(missing)} of {len(table)} rows")
    if missing and name == schema.target:
        parts.append("these are left out: their outcome is not known yet")
    if name in site.own:
        parts.append("the site's own, which stays here")
    return Line(name, True, "; ".join(parts))


def _broken(finding: Finding) -> str:
    where = f" in {count_in_words(len(finding.rows))} rows" if len(finding.rows) else ""
    hint = f": {finding.hint}" if finding.hint else ""
    return f"{finding.rule}{where}{hint}"


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
        lines.append(_note("table", f"only the rows with {site.source.where} are read"))
    # Without a salt the hash of a row can be computed by anybody who knows the row.
    if isinstance(site.holdout, Holdout) and not site.holdout.salt:
        words = "warning: the holdout has no salt, so whoever knows a row can tell its side; set Holdout(salt=...)"
        lines.append(_note("table", words))
    if schema.task != "regression":
        classes = opened.training[schema.target].nunique()
        class_line = Line(schema.target, True, f"{classes} classes among training rows")
        if classes < 2:
            class_line = _note(schema.target, ONE_CLASS)
        lines.append(class_line)
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
    lines: list[tuple[int, str, str]] = []
    for finding in checked.findings:
        lines += [(int(row) + 1, finding.column, finding.rule) for row in finding.rows]
    write_private(path, csv_text(("row", "column", "rule"), sorted(lines)), advice="name a file where you may write")
    return len(lines)
