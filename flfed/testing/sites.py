"""What every site keeps: its table fits its schema, and its rows stay on their side."""

from __future__ import annotations

import pickle

import pandas as pd

from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.site import Site, SiteTable
from flfed.testing.rules import Rule, check, hold


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
        check(SITE_RULES, site.serving(dataset))


def its_table_fits_its_schema(site: Site) -> None:
    """Kinds, units, ranges and categories are the dataset's; `flfed site check` says more."""
    _, findings, _ = site.inspect()
    hold(not findings, "; ".join(str(finding.error()) for finding in findings[:3]))


def every_row_is_on_one_side(site: Site) -> None:
    """A row is trained on or held out; a person has one side only, unless a holdout by time says otherwise."""
    table = site.inspect()[0]
    found = site.read()
    held = found.holdout("check")
    schema = found.schema
    hold(len(found.training), "it has no training rows")
    hold(len(held), "it has no holdout rows")
    if isinstance(site.holdout, HoldoutByTime):
        column = site.holdout.column
        gap = pd.Timedelta(days=site.holdout.gap_days)
        early = int((held[column] < found.training[column].max() + gap).sum())
        hold(not early, f"holdout rows earlier than the last training row and the gap of {gap.days} days: {early}")
    both = set(found.training[schema.group]) & set(held[schema.group]) if schema.group else set()
    hold(not both or getattr(site.holdout, "same_groups", False), f"groups stand on both sides: {len(both)}")
    if isinstance(site.holdout, Holdout):
        with_target = int(table[schema.target].notna().sum())
        hold(len(found.training) + len(held) == with_target, "a row is on no side, or on both")


def two_readings_are_the_same_rows(site: Site) -> None:
    """Batches, holdout and hashes follow from the table alone."""
    one = site.read()
    two = site.read()
    hold(_same(one, two), "the table came in another order or with other cells")


def its_target_has_two_classes_on_both_sides(site: Site) -> None:
    """Where all outcomes are alike nothing can be learned, or nothing judged."""
    found = site.read()
    if found.schema.task == "regression":
        return
    for side, rows in (("training", found.training), ("holdout", found.holdout("check"))):
        hold(rows[found.schema.target].nunique() >= 2, f"its {side} rows all have one class")


def its_holdout_has_a_salt(site: Site) -> None:
    """Without one anybody who knows a row can tell which side it is on."""
    hold(not isinstance(site.holdout, Holdout) or site.holdout.salt, "give it one: holdout=Holdout(salt='...')")


def it_can_be_sent_to_another_process(site: Site) -> None:
    """The engine 'ray' answers for a site in another process."""
    try:
        again = pickle.loads(pickle.dumps(site))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        words = "a function in it must stand in an installed package, a file in it must not be open"
        hold(False, f"it cannot be pickled ({type(error).__name__}): {words}")
    else:
        hold(_same(again.read(), site.read()), "after the way there and back it reads other rows")


SITE_RULES: tuple[Rule, ...] = (
    its_table_fits_its_schema,
    every_row_is_on_one_side,
    two_readings_are_the_same_rows,
    its_target_has_two_classes_on_both_sides,
    its_holdout_has_a_salt,
    it_can_be_sent_to_another_process,
)


def _same(one: SiteTable, two: SiteTable) -> bool:
    pairs: list[tuple[pd.DataFrame, pd.DataFrame]] = [
        (one.training, two.training),
        (one.holdout("check"), two.holdout("check")),
    ]
    return all(a.equals(b) for a, b in pairs)
