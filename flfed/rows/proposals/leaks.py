"""Columns that reveal the outcome, or that are derived from such a column."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Task
from flfed.rows.proposals.cells import FEW_VALUES, LEAST_ROWS, Columns
from flfed.rows.proposals.columns import FEATURES, MOST_VALUES, UNLISTED, Proposals
from flfed.rows.proposals.targets import TargetProposal
from flfed.words import render

LEAK_AUC = 0.98
"""Least AUC of a column that alone predicts the outcome, and may have been recorded after it."""
LEAK_SHARE = 0.95
"""Least share of the rows with one value that have one outcome, which less than half of the others have."""
LEAK_CORRELATION = 0.99
LEAK_GAPS = 0.9
"""As `LEAK_SHARE`, of the rows in which a column has a value, or has none."""
MOST_ERRORS = 0.3
"""Largest share of other outcomes among the rows of a leaking value, relative to that among all rows."""
SAME = 0.99
"""Least share of equal cells in two columns that count as the same."""
SAME_SIDES = 0.97
"""Least difference of a mark's shares among rows with a value and among the others."""
MOST_SUMMED = 100
ROWS_SUMMED = 2000
"""Largest numbers of columns and rows for which sums are tried."""


def find_leaks(columns: Columns, schema_columns: Proposals, target: TargetProposal, name: str) -> dict[str, str]:
    """Return the columns that reveal the outcome, alone or with another one, with the reason.

    Parameters
    ----------
    columns : mapping of name to Series
        Of all tables together.
    schema_columns : mapping of name to ColumnProposal
        Columns of the schema, without the target.
    target : TargetProposal
    name : str
        The target's.
    """
    outcome = read_column(columns[name], name, target.column, target.field or Field(name))[0]
    judged = _judged(outcome, target)
    outcome = outcome[judged]
    rest = {}
    sources = {}
    reasons = {}
    by_gaps = set[str]()
    for feature, proposal in schema_columns.items():
        if proposal.column is None or proposal.kind not in FEATURES:
            continue
        field = proposal.field or Field(feature)
        values = read_column(columns[feature], feature, proposal.column, field)[0][judged]
        why, is_by_gaps = _strength(values, outcome, target.task)
        if not why:
            rest[feature] = values
            continue
        reasons[feature] = why
        sources[feature] = values
        if is_by_gaps:
            by_gaps.add(feature)
    if target.task == "regression":
        sources[name] = outcome
    else:
        # A date or an identifier of few rows is no feature, but a feature may show which rows have it.
        gap_columns = _telling_by_gaps(columns, {*rest, *sources, name}, judged, outcome)
        sources |= gap_columns
        by_gaps |= set(gap_columns)
    reasons |= find_derived(rest, sources, by_gaps)
    return {feature: reasons[feature] for feature in schema_columns if feature in reasons}


def _telling_by_gaps(
    columns: Columns, but: Collection[str], judged: np.ndarray, outcome: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns, except `but`, whose gaps reveal the outcome of the `judged` rows."""
    leak_columns = {}
    for name, column in columns.items():
        if name not in but:
            values = plain_text(column)[judged].to_numpy()
            if _reveals(pd.isna(values), outcome, LEAK_GAPS):
                leak_columns[name] = values
    return leak_columns


def _judged(outcome: np.ndarray, target: TargetProposal) -> np.ndarray:
    """Return the rows by which leaks are judged, without classes of a few rows: nearly every column reveals these."""
    has_outcome = ~pd.isna(outcome)
    if target.task == "regression":
        return has_outcome
    values, counts = np.unique(outcome[has_outcome].astype(str), return_counts=True)
    large = values[(counts >= 2 * LEAST_ROWS) & (values != UNLISTED)]
    return has_outcome & np.isin(outcome.astype(str), large) if len(large) > 1 else has_outcome


def _strength(cells: np.ndarray, target: np.ndarray, task: Task) -> tuple[str, bool]:
    """Return how a column alone reveals the outcome, or "", and whether it does so by its gaps.

    The text holds no cell, and no share of few rows.
    """
    if not len(cells):
        return "", False
    ranks = _as_ranks(cells, target, task)
    if task == "regression":
        both = ~np.isnan(ranks)
        if both.sum() <= FEW_VALUES or np.ptp(ranks[both]) == 0:
            return "", False
        size = abs(float(np.corrcoef(ranks[both], target[both].astype(float))[0, 1]))
        if size < LEAK_CORRELATION:
            return "", False
        return render("proposals.leak.correlation", correlation=size), False
    by_gaps = _reveals(pd.isna(cells), target, LEAK_GAPS)
    ranks = np.where(np.isnan(ranks), np.nanmin(ranks, initial=0.0) - 1, ranks)
    best = max(_auc(ranks, target == value) for value in pd.unique(target))
    if best >= LEAK_AUC:
        return render("proposals.leak.auc", auc=best), by_gaps
    if by_gaps:
        return render("proposals.leak.gaps"), True
    if _reveals(cells, target, LEAK_SHARE):
        return render("proposals.leak.value"), False
    return "", False


def _reveals(cells: np.ndarray, target: np.ndarray, least: float) -> bool:
    """Return whether nearly all rows of one value have one outcome that most others do not have."""
    outcome = pd.factorize(target)[0]
    every = np.bincount(outcome)
    for value in pd.unique(cells[~pd.isna(cells)])[:MOST_VALUES]:
        counts = np.bincount(outcome[cells == value], minlength=len(every))
        most = int(counts.argmax())
        rows = int(counts.sum())
        rest = len(cells) - rows
        if rows < 2 * LEAST_ROWS or rest < LEAST_ROWS:
            continue
        share = counts[most] / rows
        others = (every[most] - counts[most]) / rest
        # Where an outcome is rare, most rows of every value have the other one.
        rarer = 1 - share <= MOST_ERRORS * (1 - every[most] / len(cells))
        if share >= least and others < 0.5 and rarer:
            return True
    return False


def find_derived(
    cells: Mapping[str, np.ndarray], leaks: Mapping[str, np.ndarray], by_gaps: Collection[str]
) -> dict[str, str]:
    """Return the columns that reveal a leak, with the reason: copies, marks of its gaps, sums.

    Parameters
    ----------
    cells, leaks : mapping of name to array [rows]
        Columns that are no leaks, and columns that reveal the outcome, or the outcome itself.
    by_gaps : collection of str
        Leaks whose gaps reveal the outcome.
    """
    numbers = {name: values for name, values in cells.items() if values.dtype.kind == "f"}
    reasons: dict[str, str] = {}
    for leak, leak_values in leaks.items():
        for name, values in cells.items():
            if leak in by_gaps and _reveals_gaps(values, leak_values):
                reasons.setdefault(name, render("proposals.leak.marks", leak=leak))
        if leak_values.dtype.kind == "f":
            for name, why in _sums(numbers, leak, leak_values).items():
                reasons.setdefault(name, why)
    return reasons


def _reveals_gaps(values: np.ndarray, leak: np.ndarray) -> bool:
    """Return whether one value, or having one, marks just the rows in which a leak has a value."""
    has_value = ~pd.isna(leak)
    if not LEAST_ROWS <= has_value.sum() <= len(has_value) - LEAST_ROWS:
        return False
    marks = [~pd.isna(values), *(values == value for value in pd.unique(values[~pd.isna(values)])[:FEW_VALUES])]
    # On both sides, since most columns would mark a leak that hardly ever lacks a value.
    sides = [(float(mark[has_value].mean()), float(mark[~has_value].mean())) for mark in marks]
    return any(abs(one - other) >= SAME_SIDES for one, other in sides)


def _sums(numbers: Mapping[str, np.ndarray], leak: str, leak_values: np.ndarray) -> dict[str, str]:
    """Return the columns from which another one, added or subtracted, gives a leak; with the reason."""
    names = list(numbers)[:MOST_SUMMED]
    rows = np.flatnonzero(~np.isnan(leak_values) & (leak_values != 0))[:ROWS_SUMMED]
    # Flags and grades are sums of one another by chance, or because one is nearly always 0.
    if len(rows) < 2 * LEAST_ROWS or not names or len(np.unique(leak_values[rows])) <= FEW_VALUES:
        return {}
    table = np.column_stack([numbers[name][rows] for name in names])
    leak_values = leak_values[rows]
    scale = 1e-6 * (np.nanmax(np.abs(leak_values)) + 1e-300)
    often = (np.nan_to_num(table) != 0).mean(axis=0) > 0.5
    reasons: dict[str, str] = {}
    for place, name in enumerate(names):
        if _are_copies(table[:, place], leak_values):
            reasons.setdefault(name, render("proposals.leak.copy", leak=leak))
        less = table[:, [place]] - leak_values[:, None]
        rest = leak_values[:, None] - table[:, [place]]
        for difference, both in ((less, False), (rest, True)):
            equal = (np.abs(table - difference) <= scale).mean(axis=0) >= SAME
            equal[place] = False
            for other in np.flatnonzero(equal & often):
                reasons.setdefault(name, render("proposals.leak.sum", other=names[other], leak=leak))
                if both:
                    reasons.setdefault(names[other], render("proposals.leak.sum", other=name, leak=leak))
    return reasons


def _are_copies(values: np.ndarray, leak: np.ndarray) -> bool:
    """Return whether two columns of numbers are the same but for unit and zero point."""
    both = ~np.isnan(values)
    if both.sum() < 2 * LEAST_ROWS or min(len(np.unique(values[both])), len(np.unique(leak[both]))) <= FEW_VALUES:
        return False
    return abs(float(np.corrcoef(values[both], leak[both])[0, 1])) >= LEAK_CORRELATION


def _as_ranks(cells: np.ndarray, target: np.ndarray, task: Task) -> np.ndarray:
    """Return numbers unchanged, and categories by the outcome's mean; NaN where missing."""
    if cells.dtype.kind == "f":
        return cells
    outcome = target.astype(float) if task == "regression" else (target == pd.unique(target)[0]).astype(float)
    return pd.Series(outcome).groupby(cells).transform("mean").to_numpy()


def _auc(ranks: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, or 1 minus it where that is more."""
    n = int(positive.sum())
    pairs = n * (len(positive) - n)
    if not pairs:
        return 0.5
    area = float((pd.Series(ranks).rank().to_numpy()[positive].sum() - n * (n + 1) / 2) / pairs)
    return max(area, 1 - area)
