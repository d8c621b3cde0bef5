"""Proposed targets: task, classes and their order, codes for an unknown outcome, and rows of no class.

Columns that reveal a target, or are derived from such a column, are found here too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.columns import is_code
from flfed.rows.data.findings.oddities import rows_in_other_case
from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.fields import Field, has_control
from flfed.rows.data.schema import Column, Task
from flfed.rows.proposals.cells import (
    FEW_VALUES,
    LEAST_ROWS,
    Cells,
    Columns,
    Numbers,
    field_of,
    is_infinite,
    is_number_text,
    name_words,
    read_numbers,
)
from flfed.rows.proposals.columns import FEATURES, FLAGS, MOST_VALUES, UNLISTED, Proposals, by_number, describe_amounts
from flfed.words import render, usage_error

FEW_CLASSES = 5
"""Largest number of different whole numbers that are classes; more are a number to predict."""
POSITIVE = {
    *("1", "yes", "true", "y", "t", "positive", "pos", "present", "case", "event", "dead", "died", "death", "bad"),
    *("default", "fraud", "malignant", "m", "disease", "sick", "ill", "abnormal", "readmitted", "churn", "relapse"),
}
"""Positive classes in lower case; without one, the rarer class is positive."""
UNKNOWN_CLASSES = {"unknown", "missing", "not available", "nd", "n.d.", "k.a.", "not done", "."}
"""Classes of an unknown outcome, in lower case."""
UNKNOWN_LETTERS = {"u", "unk"}
"""Further ones beside yes and no."""
FEW_ROWS = 0.03
"""Largest share of rows that are of no class."""
FEW_SLIPS = 0.01
"""Largest share of rows whose values are slips, of fewer than ten rows each, and no classes."""
ONE_FORM = 0.9
"""Least share of a column's cells of one form that makes the others odd."""
ODD_COLUMNS = 2
ODD_SHARE = 0.25
"""Least number and least share of odd cells in a row that is no row of the table."""

_FIGURES = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]+")
_EVENT = re.compile(
    r"death|dead|died|deceased|mortal|surviv|event|relapse|recurr|tod|verstorben|décès|muert|mort|decess"
)
_FOLLOW_UP = re.compile(
    r"follow ?up|fu ?time|surviv|time to|days to|months to|^time$|nachbeobacht|überleb|suivi|seguimiento"
)
"""Names of outcomes that end a time of observation, and of such times."""


@dataclass(frozen=True)
class TargetProposal:
    """Proposed task and classes of a target.

    Attributes
    ----------
    task : {"binary", "multi-class", "regression"}
    column : Column
    field : Field or None
        Reading of its cells; None where they are read unchanged.
    why : str
    sure : bool
        Whether no person needs to check task and order of classes.
    unlabelled : int
        Rows without a value.
    """

    task: Task
    column: Column
    field: Field | None
    why: str
    sure: bool
    unlabelled: int


def propose_target(name: str, cells: pd.Series, task: Task | None, *, codes: Sequence[str]) -> TargetProposal:
    """Return the proposed task and classes of a target.

    Parameters
    ----------
    name : str
    cells : Series
    task : {"binary", "multi-class", "regression"}, optional
    codes : sequence of str
        A person's codes for "not known".

    Raises
    ------
    UsageError
        If it has one value only, or classes of too few rows.
    """
    entries = Cells.of(name, cells, codes)
    if len(entries.texts) < 2:
        many = "no value" if not entries.texts else "only one value"
        raise usage_error("proposals.target.single", column=name, many=many)
    numbers = read_numbers(entries)
    if numbers is None:
        if task == "regression":
            raise usage_error("proposals.target.texts", column=name)
    else:
        whole = (numbers.values == np.rint(numbers.values)).all()
        most = FEW_CLASSES if whole else 2
        if task == "regression" or (task is None and len(numbers.cells.texts) > most):
            return _amounts(numbers)
    return _classes(entries, task)


def _amounts(numbers: Numbers) -> TargetProposal:
    """Return a number to be predicted; rows with a code for "not known" have none."""
    entries = numbers.cells
    column, doubts = describe_amounts(numbers, "target")
    sure = len(numbers.values) > FEW_VALUES and not doubts
    labelled = entries.counts[~np.isin(numbers.values, column.missing)]
    unlabelled = entries.rows - int(labelled.sum()) - entries.strays
    why = "; ".join([render("proposals.why.numbers"), *entries.named, *doubts])
    return TargetProposal("regression", column, field_of(entries, numbers.reading), why, sure, unlabelled)


def unknown_classes(entries: Cells) -> list[str]:
    """Return the classes that rather mean an unknown outcome: "unknown", or -1 and 9 beside 0 and 1."""
    letters = {text.casefold() for text in entries.texts} - UNKNOWN_LETTERS
    unknown = UNKNOWN_CLASSES
    if letters in FLAGS:
        unknown = unknown | UNKNOWN_LETTERS
    words = [text for text in entries.texts if text.casefold() in unknown]
    numbers = {text: by_number(text)[0] for text in entries.texts if text not in words}
    infinite = [text for text in numbers if is_infinite(text)]
    finite = {text: number for text, number in numbers.items() if abs(number) < math.inf}
    if len(finite) + len(infinite) == len(numbers):
        words += [*infinite, *_outside(entries, finite)]
    return words if len(entries.texts) - len(words) >= 2 else []


def _outside(entries: Cells, numbers: Mapping[str, float]) -> list[str]:
    """Return the codes among classes of numbers: they lie outside of the others, which begin with 0 or 1."""
    low = min(numbers.values(), default=0.0)
    high = max(numbers.values(), default=0.0)
    high_is_code = is_code(high) and high > 7
    inside = {number for number in numbers.values() if number >= 0 and not (number == high and high_is_code)}
    rows = entries.rows_by_text
    least = min((rows[text] for text, number in numbers.items() if number in inside), default=0)
    outside = [text for text, number in numbers.items() if number not in inside and number in (low, high)]
    # With as many rows as the others it is a class, such as -1, 0 and 1 of a mood.
    return [text for text in outside if LEAST_ROWS <= rows[text] < least / 2]


def _classes(entries: Cells, task: Task | None) -> TargetProposal:
    """Return classes for a target, the positive one last."""
    codes = unknown_classes(entries) if task is None else []
    counts = entries.rows_by_text
    entries = entries.with_missing(codes)
    common = _common_texts(entries, counts)
    order, sure = _ordered(sorted(common, key=by_number), counts)
    field = field_of(entries)
    if len(common) < len(entries.texts):
        field = Field(entries.name, missing=entries.missing, other=UNLISTED)
        if UNLISTED not in order:
            order = [*order, UNLISTED]
    classes = len(order)
    chosen: Task = "binary" if classes == 2 else "multi-class"
    if task is not None and task != chosen:
        raise usage_error("proposals.target.task", column=entries.name, classes=classes, chosen=chosen, task=task)
    why = [f"{classes} classes"]
    if chosen == "binary":
        why.append(render("proposals.target.positive", value=order[-1]))
    doubts = list(_doubts(entries, counts, common, codes))
    column = Column(kind="target", values=tuple(order))
    unlabelled = entries.rows - entries.n_present
    return TargetProposal(chosen, column, field, "; ".join([*why, *doubts]), sure and not doubts, unlabelled)


def _doubts(entries: Cells, counts: Mapping[str, int], common: list[str], codes: list[str]) -> Iterator[str]:
    """Yield why a person should check the classes."""
    if codes:
        shown = [f"{code!r} ({count_in_words(counts[code])} rows)" for code in codes]
        yield render("proposals.target.unknown", codes=", ".join(shown))
    if many := rows_in_other_case(entries.texts, entries.counts):
        yield render("proposals.cells.cases", rows=many)
    if len(common) < len(entries.texts):
        few = count_in_words(entries.n_present - sum(counts[text] for text in common))
        yield render("proposals.target.other", other=UNLISTED, rows=few)


def _common_texts(entries: Cells, counts: Mapping[str, int]) -> list[str]:
    """Return the texts with enough rows for a class; refuse a column without classes."""
    common = [text for text in entries.texts if counts[text] >= LEAST_ROWS]
    rare = len(entries.texts) - len(common)
    if len(common) > MOST_VALUES or not common:
        raise usage_error("proposals.target.many", column=entries.name, texts=len(entries.texts))
    if len(common) + (rare > 1) < 2 or (len(entries.texts) == 2 and rare):
        raise usage_error("proposals.target.few", column=entries.name, least=LEAST_ROWS)
    if any(map(has_control, common)):
        raise usage_error("proposals.target.control", column=entries.name)
    return common


def _ordered(classes: list[str], counts: Mapping[str, int]) -> tuple[list[str], bool]:
    """Return two classes with the positive one last, and whether that is sure."""
    if len(classes) != 2:
        return classes, True
    # Of two numbers the larger one is the event, which is sure for 0 and 1.
    if all(by_number(text)[0] < float("inf") for text in classes):
        return classes, classes == ["0", "1"]
    named = [text for text in classes if text.casefold() in POSITIVE]
    if len(named) == 1:
        return [text for text in classes if text not in named] + named, True
    return sorted(classes, key=lambda text: -counts[text]), False


@dataclass(frozen=True)
class RareClasses:
    """Rows that have none of the classes.

    Attributes
    ----------
    classes : tuple of str
        All other rows have one of them, or no outcome.
    rows : bool array [rows]
    odd : int
        Number of these rows that are odd in other columns too.
    """

    classes: tuple[str, ...]
    rows: np.ndarray
    odd: int

    def words(self, target: str) -> str:
        """Return a sentence on them that holds no cell."""
        rows = count_in_words(int(self.rows.sum()))
        classes = ", ".join(map(repr, self.classes))
        if self.odd:
            return render("proposals.target.odd", rows=rows, target=target, classes=classes)
        return render("proposals.target.rare", rows=rows, target=target, classes=classes)


def find_rare_classes(columns: Columns, target: str, task: Task | None, codes: Sequence[str]) -> RareClasses | None:
    """Return the few rows that have none of the classes of a target, or None.

    Parameters
    ----------
    columns : mapping of name to Series
        Of all tables together.
    target : str
    task : {"binary", "multi-class", "regression"}, optional
    codes : sequence of str
        A person's codes for "not known".
    """
    if task == "regression":
        return None
    texts = plain_text(columns[target])
    texts = texts.where(~texts.isin(Cells.of(target, columns[target], codes).missing), None)
    counts = texts.value_counts()
    large = counts[counts >= max(LEAST_ROWS, FEW_ROWS * counts.sum())]
    few = texts.notna() & ~texts.isin(large.index)
    # A number to be predicted has no value that many rows share.
    if not 2 <= len(large) <= MOST_VALUES or not 0 < few.sum() <= 2 * FEW_ROWS * counts.sum():
        return None
    odd = few.to_numpy() & _odd_rows([cells for name, cells in columns.items() if name != target], len(few))
    # Among the rest, each value of ten rows is a class.
    rest = texts[~odd].value_counts()
    classes = rest[rest >= LEAST_ROWS].index
    slips = texts.notna().to_numpy() & ~odd & ~texts.isin(classes).to_numpy()
    # Numbers of a few rows each may be amounts, but not where most of these rows are odd.
    amounts = len(rest) > len(classes) and all(map(is_number_text, rest.index)) and 2 * odd.sum() < few.sum()
    dropped = odd if amounts or slips.sum() > FEW_SLIPS * counts.sum() else odd | slips
    left = texts[~dropped].dropna().unique()
    if not dropped.any() or len(classes) < 2 or len(left) > len(classes):
        return None
    return RareClasses(tuple(sorted(map(str, classes))), dropped, int(odd.sum()))


def _odd_rows(columns: Sequence[pd.Series], rows: int) -> np.ndarray:
    """Return which rows have cells that do not fit their columns [rows]."""
    odd = np.zeros(rows, dtype=int)
    judged = np.zeros(rows, dtype=int)
    for cells in columns:
        if cells.dtype.kind in "fiubM":
            continue
        texts = plain_text(cells)
        has_text = texts.notna()
        fits = _fitting(texts)
        if fits is not None:
            odd += (has_text & ~fits).to_numpy()
            judged += has_text.to_numpy()
    return (odd >= ODD_COLUMNS) & (odd >= ODD_SHARE * judged)


def _fitting(texts: pd.Series) -> pd.Series | None:
    """Return which cells fit their column, or None where they have no form in common."""
    counts = texts.value_counts()
    rows = counts.sum()
    if not rows:
        return None
    # A form is such as 0-0-0 for a date.
    forms = pd.Series(counts.index.map(str), index=counts.index)
    plain = forms.str.replace(_FIGURES, "0", regex=True).str.replace(_LETTERS, "a", regex=True)
    forms = plain.where(~forms.map(is_number_text), "0")
    sizes = counts.groupby(forms).sum()
    usual = sizes.index[sizes >= ONE_FORM * rows]
    listed = counts.index[counts >= LEAST_ROWS]
    # In a column of a few values the others are odd, whatever their form.
    if counts[listed].sum() >= (1 - FEW_ROWS) * rows:
        return texts.isin(listed)
    return texts.isin(forms.index[forms.isin(usual)]) if len(usual) else None


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
    by_gaps = set()
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
    if _EVENT.search(name_words(name)):
        times = [one for one, proposal in schema_columns.items() if proposal.kind == "number"]
        times = [one for one in times if _FOLLOW_UP.search(name_words(one))]
        reasons = dict.fromkeys(times, render("proposals.leak.follow-up")) | reasons
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
