"""Check of a site's table before it joins.

Each column passes or fails, with counts, never a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flfed.errors import count_in_words
from flfed.paths import write_private
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.oddities import groups_in_words, oddities
from flfed.rows.data.parsing.fields import Finding
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site, SiteTable
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
    lines = [_column_line(name, table, schema, findings) for name in schema.columns]
    extra = [f for f in findings if f.column not in schema.columns]
    lines += [Line(finding.column, False, _broken(finding)) for finding in extra]
    # A table that breaks a rule is not split: further checks would speak of other rows.
    if findings:
        return Checked(site.name, len(table), 0, 0, tuple(lines), tuple(findings))
    lines += [Line(n.column, True, n.text, note=True) for n in oddities(raw, table, schema, site.mapping)]
    opened = site.read()
    lines += _table_lines(opened, schema, site)
    return Checked(site.name, len(table), len(opened.training), opened.holdout_rows, tuple(lines), ())


def _column_line(name: str, table: pd.DataFrame, schema: Schema, findings: Sequence[Finding]) -> Line:
    broken = [finding for finding in findings if finding.column == name]
    if broken:
        return Line(name, False, "; ".join(_broken(finding) for finding in broken))
    missing = int(table[name].isna().sum())
    left_out = "; these are left out: their outcome is not known yet" if missing and name == schema.target else ""
    column = schema.columns[name]
    unit = f", {column.unit}" if column.unit else ""
    groups = f"; {groups_in_words(table[name])}" if name == schema.group else ""
    missed = f"missing in {count_in_words(missing)} of {len(table)} rows"
    return Line(name, True, f"{column.kind}{unit}{groups}; {missed}{left_out}")


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
