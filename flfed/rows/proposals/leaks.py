"""Columns that tell the outcome, or that are made of such."""

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

LEAK_AUC = 0.98
"""A column that alone ranks the outcome so well may have been recorded after it."""
LEAK_SHARE = 0.95
"""Of the rows with one value: so many have one outcome, which less than half of the others have."""
LEAK_CORRELATION = 0.99
LEAK_GAPS = 0.9
"""As `LEAK_SHARE`, of the rows in which a column has a value, or has none."""
MOST_ERRORS = 0.3
"""Of the rows with another outcome: so many are left among those of the value that tells it."""
SAME = 0.99
"""Of the rows: so many equal cells make two columns the same."""
SAME_SIDES = 0.97
"""Of a mark of the rows that have a value: its share among them, less that among the others."""
MOST_SUMMED = 100
ROWS_SUMMED = 2000
"""Columns and rows of which sums are tried."""


def find_leaks(columns: Columns, schema_columns: Proposals, target: TargetProposal, name: str) -> dict[str, str]:
    """Return the columns that tell the outcome, alone or with another one.

    Parameters
    ----------
    columns : mapping of name to Series
        Of all tables together.
    schema_columns : mapping of name to ColumnProposal
        Columns that the schema has, without the target.
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
        # A date or an identifier that few rows have is no feature, but a feature may say which rows have it.
        gap_columns = _telling_by_gaps(columns, {*rest, *sources, name}, judged, outcome)
        sources |= gap_columns
        by_gaps |= set(gap_columns)
    reasons |= find_derived(rest, sources, by_gaps)
    return {feature: reasons[feature] for feature in schema_columns if feature in reasons}


def _telling_by_gaps(
    columns: Columns, but: Collection[str], judged: np.ndarray, outcome: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns, but some, that tell the outcome by where they have a value, of the rows that are judged."""
    leak_columns = {}
    for name, column in columns.items():
        if name not in but:
            values = plain_text(column)[judged].to_numpy()
            if _tells(pd.isna(values), outcome, LEAK_GAPS):
                leak_columns[name] = values
    return leak_columns


def _judged(outcome: np.ndarray, target: TargetProposal) -> np.ndarray:
    """Return the rows by which leaks are judged: of a class of a few rows nearly every column tells something."""
    has_outcome = ~pd.isna(outcome)
    if target.task == "regression":
        return has_outcome
    values, counts = np.unique(outcome[has_outcome].astype(str), return_counts=True)
    large = values[(counts >= 2 * LEAST_ROWS) & (values != UNLISTED)]
    return has_outcome & np.isin(outcome.astype(str), large) if len(large) > 1 else has_outcome


def _strength(cells: np.ndarray, target: np.ndarray, task: Task) -> tuple[str, bool]:
    """Return how a column alone tells the outcome, "" where it does not; and whether by where it has a value.

    It holds no cell, and no share of few rows.
    """
    if not len(cells):
        return "", False
    ranks = _as_ranks(cells, target, task)
    if task == "regression":
        both = ~np.isnan(ranks)
        if both.sum() <= FEW_VALUES or np.ptp(ranks[both]) == 0:
            return "", False
        size = abs(float(np.corrcoef(ranks[both], target[both].astype(float))[0, 1]))
        why = f"its correlation with the outcome is {size:.2f}"
        if size < LEAK_CORRELATION:
            return "", False
        return why, False
    by_gaps = _tells(pd.isna(cells), target, LEAK_GAPS)
    ranks = np.where(np.isnan(ranks), np.nanmin(ranks, initial=0.0) - 1, ranks)
    best = max(_auc(ranks, target == value) for value in pd.unique(target))
    if best >= LEAK_AUC:
        return f"alone it tells the outcome with an AUC of {best:.2f}", by_gaps
    if by_gaps:
        return "nearly all rows that have a value, or that have none, have the same outcome", True
    if _tells(cells, target, LEAK_SHARE):
        return "nearly all rows with one of its values have the same outcome", False
    return "", False


def _tells(cells: np.ndarray, target: np.ndarray, least: float) -> bool:
    """Tell whether nearly all rows of one value have one outcome that most others do not have."""
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
        # Of a rare outcome most rows of every value have the other one.
        rarer = 1 - share <= MOST_ERRORS * (1 - every[most] / len(cells))
        if share >= least and others < 0.5 and rarer:
            return True
    return False


def find_derived(
    cells: Mapping[str, np.ndarray], leaks: Mapping[str, np.ndarray], by_gaps: Collection[str]
) -> dict[str, str]:
    """Return the columns that say what a leak says: its copies, whether it has a value, or sums with it.

    Parameters
    ----------
    cells, leaks : mapping of name to array [rows]
        Columns that are none, and such as tell the outcome, or the outcome itself.
    by_gaps : collection of str
        Leaks that tell the outcome by where they have a value.
    """
    numbers = {name: values for name, values in cells.items() if values.dtype.kind == "f"}
    reasons: dict[str, str] = {}
    for leak, leak_values in leaks.items():
        for name, values in cells.items():
            if leak in by_gaps and _reveals_gaps(values, leak_values):
                reasons.setdefault(name, f"it says which rows have a value of {leak!r}, which tells the outcome")
        if leak_values.dtype.kind == "f":
            for name, why in _sums(numbers, leak, leak_values).items():
                reasons.setdefault(name, why)
    return reasons


def _reveals_gaps(values: np.ndarray, leak: np.ndarray) -> bool:
    """Tell whether one value, or having one, stands in just the rows in which a leak has a value."""
    has_value = ~pd.isna(leak)
    if not LEAST_ROWS <= has_value.sum() <= len(has_value) - LEAST_ROWS:
        return False
    marks = [~pd.isna(values), *(values == value for value in pd.unique(values[~pd.isna(values)])[:FEW_VALUES])]
    # On both sides: of a column that hardly ever lacks a value most others would say the same.
    sides = [(float(mark[has_value].mean()), float(mark[~has_value].mean())) for mark in marks]
    return any(abs(one - other) >= SAME_SIDES for one, other in sides)


def _sums(numbers: Mapping[str, np.ndarray], leak: str, leak_values: np.ndarray) -> dict[str, str]:
    """Return the columns that give a leak when another one is added or taken away."""
    names = list(numbers)[:MOST_SUMMED]
    rows = np.flatnonzero(~np.isnan(leak_values) & (leak_values != 0))[:ROWS_SUMMED]
    # Flags and grades are sums of one another by chance, and where one is nearly always 0.
    if len(rows) < 2 * LEAST_ROWS or not names or len(np.unique(leak_values[rows])) <= FEW_VALUES:
        return {}
    table = np.column_stack([numbers[name][rows] for name in names])
    leak_values = leak_values[rows]
    scale = 1e-6 * (np.nanmax(np.abs(leak_values)) + 1e-300)
    often = (np.nan_to_num(table) != 0).mean(axis=0) > 0.5
    reasons: dict[str, str] = {}
    for place, name in enumerate(names):
        if _are_copies(table[:, place], leak_values):
            reasons.setdefault(name, f"it is a copy of {leak!r}, which tells the outcome")
        less = table[:, [place]] - leak_values[:, None]
        rest = leak_values[:, None] - table[:, [place]]
        for difference, both in ((less, False), (rest, True)):
            equal = (np.abs(table - difference) <= scale).mean(axis=0) >= SAME
            equal[place] = False
            for other in np.flatnonzero(equal & often):
                reasons.setdefault(name, f"with {names[other]!r} it gives {leak!r}, which tells the outcome")
                if both:
                    reasons.setdefault(names[other], f"with {name!r} it gives {leak!r}, which tells the outcome")
    return reasons


def _are_copies(values: np.ndarray, leak: np.ndarray) -> bool:
    """Tell whether two columns of numbers are the same but for unit and zero point."""
    both = ~np.isnan(values)
    if both.sum() < 2 * LEAST_ROWS or min(len(np.unique(values[both])), len(np.unique(leak[both]))) <= FEW_VALUES:
        return False
    return abs(float(np.corrcoef(values[both], leak[both])[0, 1])) >= LEAK_CORRELATION


def _as_ranks(cells: np.ndarray, target: np.ndarray, task: Task) -> np.ndarray:
    """Return numbers as they are, and categories by the outcome's mean; NaN where missing."""
    if cells.dtype.kind == "f":
        return cells
    outcome = target.astype(float) if task == "regression" else (target == pd.unique(target)[0]).astype(float)
    return pd.Series(outcome).groupby(cells).transform("mean").to_numpy()


def _auc(ranks: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, or 1 minus it where that is more."""
    from scipy.stats import rankdata

    n = int(positive.sum())
    pairs = n * (len(positive) - n)
    if not pairs:
        return 0.5
    area = float((rankdata(ranks)[positive].sum() - n * (n + 1) / 2) / pairs)
    return max(area, 1 - area)
