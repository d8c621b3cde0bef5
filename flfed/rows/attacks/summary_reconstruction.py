"""Reconstruction of cells from a site's sums.

It counts rows whose cells follow exactly from the summary that a site sends before any training.
"""

from __future__ import annotations

import numpy as np

from flfed.rows.comparison.attack_runner import Attacked, Finding, nothing, share
from flfed.rows.evaluation.intervals import NAN
from flfed.rows.features.encode import ColumnArrays
from flfed.rows.training.requests import Asking
from flfed.summaries.summary import ColumnLayout, Layout, Summary
from flfed.words import render

NAME = "summary-reconstruction"
METRIC = "share-given-away"
FEW = 2
"""Values of a number that follow from their count, sum and sum of squares; of three there is a circle of solutions."""


class SummaryReconstruction:
    """Attack that counts cells given away by sums.

    The training rows count of which the site's own summary gives a cell away exactly.

    A row's cell is given away where its count is known to be 1: somebody has it, and nobody else, so that whoever is
    known to stand out is found. Or where its count is known to be that of all rows: then everybody has it. A count is
    known where it is in the summary, or where the total leaves no choice. Also given away are the values of a number
    that at most two rows have: they follow from its count, sum and sum of squares. So is the outcome of the rows in
    which a column is missing, where that is one row or where all of these have the same.

    Notes
    -----
    Under disclosure "open" everything leaves as it is, and the share is often large: the site said that
    its rows are public. Under "institution" the share is 0 by the rules of `disclose`, and a figure over 0
    is a bug.

    Limits: only the summary of the training rows is attacked, with arithmetic. Two summaries over rows that differ are
    not (the site's ledger guards against these). Nor is the rule of suppression used, which a test tries out on all
    small tables. A bin of a number says its value to 1/64 of the range.

    Reveals: the share of rows. Under disclosure "institution" a small count of them stays.

    Source: Dwork and Naor 2010, "On the difficulties of disclosure prevention in statistical databases"; Hundepool et
    al. 2012, "Statistical Disclosure Control", chapter 4.
    """

    metrics = (METRIC,)

    def findings(self, attacked: Attacked) -> Asking[tuple[Finding, ...]]:
        """Return the share of rows, without any request."""
        work = attacked.session
        table = work.table.training
        if why := attacked.too_few(training=len(table)):
            return (nothing(NAME, METRIC, why),)
        leaking_rows = find_leaking_rows(
            work.summary(), work.layout, work.coded(table), grouped=bool(work.schema.group)
        )
        if work.site.policy.is_open:
            promise = NAN
            says = render("figures.attacks.open")
        else:
            promise = 0.0
            says = render("figures.attacks.promised")
        return (share(attacked, NAME, METRIC, int(leaking_rows.sum()), len(table), promise=promise, says=says),)
        yield  # a generator, as every attack is


def find_leaking_rows(summary: Summary, layout: Layout, rows: ColumnArrays, *, grouped: bool = False) -> np.ndarray:
    """Return which rows have a cell given away.

    It follows from the summary, bool [rows].

    Parameters
    ----------
    summary : Summary
        Of one site: what it sends.
    layout : Layout
    rows : ColumnArrays
        The rows that it is of, to see whose the cells are. The attack itself reads the summary alone.
    grouped : bool
        Whether several rows are of one person: the missingness test is then of a draw of one row each, whose
        table does not follow from the counts of all rows.
    """
    leaking_rows = np.zeros(rows.rows, dtype=bool)
    total = float(summary.rows[0])
    for number, column in enumerate(layout.columns):
        counts, derivable = derive_counts(summary, layout, number)
        # Who is alone in a cell is found, and a cell of all rows is everybody's.
        telling = derivable & ((counts == 1) | (counts == total))
        telling[-1] = False  # that a value is missing is no value
        leaking_rows |= telling[rows.codes[column.name]]
        present = rows.codes[column.name] != len(column.cells) - 1
        if _few_values(summary, column, number):
            leaking_rows |= present
        if number < len(layout.features) and not grouped:
            missing = counts[-1] if derivable[-1] else NAN
            leaking_rows |= _find_leaking_outcomes(summary, layout, number, missing, rows, ~present)
    return leaking_rows


def derive_counts(summary: Summary, layout: Layout, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one column's counts that follow.

    They are those of the cells that follow from the summary, and which do, [cells] each.

    A cell that was not given follows where it is the only one, or where the others have at least as
    many rows as are left over.
    """
    place = list(layout.slices().values())[number]
    is_released = summary.cells_known[place] > 0
    lower = summary.lower[place]
    # A target is never missing, whether or not it says so.
    possible = np.ones(len(is_released), dtype=bool)
    possible[-1] = number < len(layout.features) or bool(is_released[-1])
    # One hidden cell is the rest, and several follow where their lower bounds use it up.
    hidden = ~is_released & possible
    left = float(summary.left[number])
    if hidden.sum() == 1 or left <= lower[hidden].sum():
        counts = np.where(hidden, np.where(hidden.sum() == 1, left, lower), summary.cells[place])
        return counts, np.ones(len(is_released), dtype=bool)
    return np.where(is_released, summary.cells[place], NAN), is_released


def _few_values(summary: Summary, column: ColumnLayout, number: int) -> bool:
    """Return whether a number's values follow.

    They would from its count, sum and sum of squares. Coarse sums give none.
    """
    # Under "institution" the moments are those of bins, each group of them at least the minimum of rows.
    return column.kind == "number" and bool(summary.moments_known[number]) and 0 < summary.moments[number, 0] <= FEW


def _find_leaking_outcomes(
    summary: Summary, layout: Layout, number: int, missing: float, rows: ColumnArrays, gap: np.ndarray
) -> np.ndarray:
    """Return the rows whose outcome follows.

    A column is missing in them, and the class follows from the missingness test, bool [rows].
    """
    leaking_rows = np.zeros(rows.rows, dtype=bool)
    classes, derivable = derive_counts(summary, layout, len(layout.features))
    # Without all counts of the classes the table does not follow.
    if layout.task == "regression" or not missing > 0 or not derivable[:-1].all():
        return leaking_rows
    wanted = range(layout.outcomes) if layout.task == "multi-class" else (1,)
    for outcome, code in enumerate(wanted):
        if not summary.leaks_known[number, outcome, 0]:
            continue
        # U is the number in the cell less what independence expects.
        both = round(float(summary.leaks[number, outcome, 0] + missing * classes[code] / summary.rows[0]))
        own = rows.codes[layout.target.name] == code
        if both in (1, missing):
            leaking_rows |= gap & own
        if layout.task == "binary" and missing - both in (1, missing):
            leaking_rows |= gap & ~own
    return leaking_rows
