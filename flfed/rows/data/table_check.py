"""Check of a site's table before it joins.

Each column passes or fails, with counts and never a cell. The oddities of a table that breaks no rule are counted too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.paths import write_private
from flfed.rows.data.findings.oddities import EMPTY, foreign_rows, missing_cells, oddities, spelling, written_as
from flfed.rows.data.holdout import Holdout, SortedRows
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.origin import as_rows
from flfed.rows.data.parsing.fields import Field, Finding
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.sampling import BATCH, has_same_rows, sample_in_words
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site, SiteTable, split_rows
from flfed.spreadsheet import csv_text
from flfed.words import counted, render

NO_PERSON = "names nobody"
SAME_PERSON = "names a person who has an earlier row"


@dataclass(frozen=True)
class Line:
    """One line of a site's check.

    Attributes
    ----------
    column : str
        Name in the schema, or "table" for the whole.
    passed : bool
    detail : str
        The broken rule and how often it is broken, or the counts.
    note : bool
        Whether it is an oddity that people should examine, and breaks no rule.
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
        """Return whether the site could join."""
        return all(line.passed for line in self.lines)


def check_site(site: Site, *, today: date | None = None) -> Checked:
    """Check every column of a site's table.

    Each passes or fails. Dates after `today` are noted; default: the day of the call.

    Raises
    ------
    UsageError
        If the table cannot be read at all.
    """
    # A sample's rules are checked on all rows, of which few are in memory.
    site = site if site.source.sample < 1 else as_rows(site)
    raw, table, findings, schema = site.examine()
    findings = [*findings, *_unfit_identifiers(table, schema, site)]
    missing = missing_cells(table, schema)
    lines = [_column_line(name, table, missing[name], schema, findings, site) for name in schema.columns]
    lines += [
        Line(finding.column, False, _broken(finding)) for finding in findings if finding.column not in schema.columns
    ]
    lines = [*_sample_lines(site, len(table)), *_unsteady(site, raw, table, schema), *lines]
    features = len(schema.features())
    mapped = sum(missing[name] < len(table) for name in schema.features())
    # A table that breaks a rule is not split: further checks would speak of other rows.
    if findings:
        # A row without data breaks the rules of many columns, so it comes first.
        foreign = [Line("table", False, words) for words in foreign_rows(raw)]
        lines = [*foreign, *_in_other_case(raw, schema, findings, site), *lines]
        return Checked(site.name, len(table), 0, 0, features, mapped, tuple(lines), tuple(findings))
    if 2 * mapped < features:
        lines.append(_few_features(mapped, features, partial=site.partial))
    if site.policy.width < 1:
        lines.append(_note("table", render("findings.check.width", part=width_in_words(site.policy.width))))
    lines += [_note("table", words) for words in foreign_rows(raw)]
    noted = oddities(raw, table, schema, site.mapping, today=today, missing=missing)
    # The line of an empty column says so already.
    lines += [_note(odd.column, odd.text) for odd in noted if odd.text != EMPTY]
    if not site.has_outcome:
        # The party with the outcome holds rows out.
        lines += _declared(table, schema, site)
        return Checked(site.name, len(table), 0, 0, features, mapped, tuple(lines), ())
    opened = _outcomes(site, table, schema)
    lines += _table_lines(opened, schema, site)
    lines += _declared(table, schema, site)
    training = len(opened.training)
    return Checked(site.name, len(table), training, opened.holdout_rows, features, mapped, tuple(lines), ())


def _outcomes(site: Site, table: pd.DataFrame, schema: Schema) -> SiteTable:
    """Return both sides of the table; only a site with its own way of reading reads a second time."""
    if type(site) is not Site:
        return site.read()
    # Of the others' sides outcomes are looked at alone.
    rows = site.with_draws(SortedRows.of(table, schema))
    return split_rows(replace(rows, source=rows.source[[schema.target]]), rows.sides(site.holdout, 0))


def _sample_lines(site: Site, rows: int) -> Iterator[Line]:
    """Yield what a sample's counts are of."""
    source = site.source
    if source.sample < 1:
        yield _note(
            "table", f"{rows} rows, a {sample_in_words(source.sample, source.keep)}: all counts here are of them"
        )


def _unsteady(site: Site, raw: pd.DataFrame, table: pd.DataFrame, schema: Schema) -> Iterator[Line]:
    """Yield that `prepare` gives another table the second time, or where its rows come in other batches."""
    source = site.source
    if source.prepare is None:
        return
    name = source.prepare.__qualname__
    if source.sample == 1:
        if not site.prepared_table(compact=True).equals(raw):
            yield Line("table", False, f"{name} gives another table each time it runs")
        return
    # Rows that are there for their outcome say nothing of how many the table has.
    plain = len(raw) if source.keep is None else int((table[schema.target] != source.keep[1]).sum())
    third = min(BATCH, int(max(1, plain) / source.sample)) // 3
    if not has_same_rows(table, site.examine(max(1, third))[1]):
        words = f"{name} gives another table where it gets the rows in other batches: it must take each row by itself"
        yield Line("table", False, words)


def _unfit_identifiers(table: pd.DataFrame, schema: Schema, site: Site) -> Iterator[Finding]:
    """Yield the rows of a site with columns alone that cannot be aligned."""
    # A table without any has a finding of its own.
    if site.has_outcome or not schema.group or table[schema.group].isna().all():
        return
    identifiers = table[schema.group]
    for rule, rows in ((NO_PERSON, identifiers.isna()), (SAME_PERSON, identifiers.duplicated() & identifiers.notna())):
        if rows.any():
            yield Finding(schema.group, rule, np.flatnonzero(rows))


def _side_lines(sides: Sequence[int], site: Site) -> list[Line]:
    least = site.policy.least_rows()
    lines = []
    for part, rows in zip(("training", "holdout"), sides, strict=True):
        words = render("findings.check.rows", rows=count_in_words(rows), part=part, least=least)
        lines.append(Line("table", rows >= least, words))
    return lines


def _note(place: str, words: str) -> Line:
    return Line(place, True, words, note=True)


def _in_other_case(raw: pd.DataFrame, schema: Schema, findings: Sequence[Finding], site: Site) -> Iterator[Line]:
    """Yield how many cells are one of a column's values in another case."""
    if site.source.sample < 1:
        return  # findings are of rows that are not in memory
    for name in {finding.column for finding in findings if len(finding.rows)} & set(schema.columns):
        entry = site.mapping.get(name, name)
        values = {spelling(value) for value in schema.columns[name].values}
        if not isinstance(entry, str) or entry not in raw.columns or not values:
            continue
        wrong = np.unique(np.concatenate([finding.rows for finding in findings if finding.column == name]))
        cells = plain_text(raw[entry].iloc[wrong]).dropna()
        if many := sum(spelling(text) in values for text in cells):
            yield _note(name, render("findings.check.cases", rows=count_in_words(many), entry=entry))


def _few_features(mapped: int, features: int, *, partial: bool) -> Line:
    """Return the line of a site that has fewer than half of the features."""
    if partial:
        return _note("table", render("findings.check.partial", mapped=mapped, features=features))
    return Line("table", False, render("findings.check.few", mapped=mapped, features=features))


def _declared(table: pd.DataFrame, schema: Schema, site: Site) -> Iterator[Line]:
    """Yield the unconfirmed columns, and how many rows of a column have a value outside its schema."""
    if schema.unconfirmed:
        many = counted(len(schema.unconfirmed), "column")
        yield _note("table", render("findings.check.unconfirmed", many=many, columns=", ".join(schema.unconfirmed)))
    for name in schema.columns:
        field = site.mapping.get(name)
        if isinstance(field, Field) and field.other is not None:
            others = int((table[name] == field.other).sum())
            if others:
                yield _note(name, render("findings.check.other", rows=count_in_words(others), other=field.other))


def _column_line(
    name: str, table: pd.DataFrame, missing: int, schema: Schema, findings: Sequence[Finding], site: Site
) -> Line:
    broken = "; ".join(_broken(finding) for finding in findings if finding.column == name)
    if broken:
        return Line(name, False, broken)
    column = schema.columns[name]
    kind = ", ".join(filter(None, (column.kind, column.unit)))
    # An empty table has a finding of its own.
    if missing == len(table) and missing:
        if site.mapping.get(name, name) is None:
            return _note(name, render("findings.check.absent", kind=kind))
        return _note(name, render("findings.check.empty", kind=kind))
    parts = [kind]
    if name == schema.group:
        sizes = table[name].value_counts()
        largest = count_in_words(int(sizes.iloc[:1].sum()))
        facts = {"groups": count_in_words(len(sizes)), "largest": largest, "form": written_as(map(str, sizes.index))}
        parts.append(render("findings.check.groups", **facts))
    parts.append(render("findings.check.missing", missing=count_in_words(missing), rows=len(table)))
    if missing and name == schema.target:
        parts.append(render("findings.check.unlabelled"))
    return Line(name, True, "; ".join(parts))


def _broken(finding: Finding) -> str:
    rule = finding.rule
    if many := len(finding.rows):
        rule = render("findings.check.broken", rule=rule, rows=count_in_words(many))
    return ": ".join(filter(None, [rule, finding.hint]))


def _table_lines(opened: SiteTable, schema: Schema, site: Site) -> list[Line]:
    """Check the number of rows and classes, and note the site's settings."""
    lines = _side_lines((len(opened.training), opened.holdout_rows), site)
    if site.source.prepare is not None:
        lines.append(_note("table", f"its rows are those that {site.source.prepare.__qualname__} gives"))
    # Without a salt, anybody who knows a row can compute its hash.
    if isinstance(site.holdout, Holdout) and not site.holdout.salt:
        lines.append(_note("table", render("findings.check.salt")))
    if schema.task != "regression":
        classes = opened.training[schema.target].nunique()
        class_line = Line(schema.target, True, render("findings.check.classes", classes=classes))
        if classes < 2:
            class_line = _note(schema.target, render("findings.check.single"))
        lines.append(class_line)
    return lines


def write_local_rows(checked: Checked, path: Path) -> int:
    """Write which row breaks which rule to a file, and return the number of lines.

    The file is for the site's own eyes: it has mode 600 and never replaces another. Rows are numbered from 1 in the
    source.

    Raises
    ------
    UsageError
        If the file is there already.
    """
    lines: list[tuple[int, str, str]] = []
    for finding in checked.findings:
        lines += [(int(row) + 1, finding.column, finding.rule) for row in finding.rows]
    table = csv_text(("row", "column", "rule"), sorted(lines))
    write_private(path, table, advice=render("findings.check.advice"))
    return len(lines)
