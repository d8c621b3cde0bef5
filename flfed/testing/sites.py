"""What every site keeps: its table, and the sides of its rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
from numpy.typing import NDArray

from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.site import Site, SiteTable
from flfed.testing.rules import check, hold

TASKS = ("binary", "multi-class", "regression")
CLOSE = 1e-12
Rows = NDArray[Any]


def check_site(site: Site) -> None:
    """Check a site against its contract; it reads the table.

    Parameters
    ----------
    site : Site
        As `flfed.rows.data.site_discovery.load(name)` gives it, or made in Python. Each dataset that it serves is
        checked.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold; columns, rules and counts, never a cell.

    Examples
    --------
    >>> from flfed.rows.data import site_discovery
    >>> check_site(site_discovery.load("kentucky-clinic"))
    """
    for dataset in site.datasets:
        check(globals(), site.serving(dataset))


def its_table_fits_its_schema(site: Site) -> None:
    """Kinds, units, ranges and categories are the dataset's.

    `flfed site check` says more.
    """
    _, findings, _ = site.inspect()
    hold(not findings, f"{'; '.join(str(finding.error()) for finding in findings[:3])}")


def every_row_is_on_one_side(site: Site) -> None:
    """A row is trained on or held out.

    A person has one side only, unless a holdout by time says otherwise. Of columns alone, the party with the outcome
    chooses the sides.
    """
    if not site.has_outcome:
        return
    table = site.inspect()[0]
    site_table = site.read()
    test_rows = site_table.holdout("check")
    schema = site_table.schema
    hold(len(site_table.training), "it has no training rows")
    hold(len(test_rows), "it has no holdout rows")
    if isinstance(site.holdout, HoldoutByTime):
        column = site.holdout.column
        gap = pd.Timedelta(days=site.holdout.gap_days)
        early = int((test_rows[column] < site_table.training[column].max() + gap).sum())
        hold(not early, f"{early} holdout rows are earlier than the last training row and the gap of {gap.days} days")
    both = set(site_table.training[schema.group]) & set(test_rows[schema.group]) if schema.group else set()
    hold(not both or getattr(site.holdout, "same_groups", False), f"{len(both)} groups have rows on both sides")
    if isinstance(site.holdout, Holdout):
        with_target = int(table[schema.target].notna().sum())
        hold(len(site_table.training) + len(test_rows) == with_target, "a row is on neither side, or on both")


def two_readings_are_the_same_rows(site: Site) -> None:
    """Batches, holdout and hashes follow from the table alone."""
    hold(_same(_read(site), _read(site)), "a second reading gave another order or other cells")


def its_target_has_two_classes_on_both_sides(site: Site) -> None:
    """Where all outcomes are alike nothing can be learned, or nothing judged."""
    if not site.has_outcome or (site_table := site.read()).schema.task == "regression":
        return
    for side, rows in (("training", site_table.training), ("holdout", site_table.holdout("check"))):
        hold(rows[site_table.schema.target].nunique() >= 2, f"its {side} rows have one class only")


def its_holdout_has_a_salt(site: Site) -> None:
    """Without one anybody who knows a row can compute its side."""
    if site.has_outcome:
        hold(not isinstance(site.holdout, Holdout) or site.holdout.salt, "set one: holdout=Holdout(salt='...')")


def _read(site: Site) -> SiteTable:
    return site.read() if site.has_outcome else site.read_columns()


def _same(one: SiteTable, two: SiteTable) -> bool:
    return one.training.equals(two.training) and one.holdout("check").equals(two.holdout("check"))
