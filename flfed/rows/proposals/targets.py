"""Proposed targets: task, classes and their order, codes for an unknown outcome, and rows of no class."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.columns import is_code
from flfed.rows.data.findings.oddities import rows_in_other_case
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import Field, has_control
from flfed.rows.data.schema import Column, Task
from flfed.rows.proposals.cells import (
    FEW_VALUES,
    LEAST_ROWS,
    Cells,
    Columns,
    Numbers,
    field_of,
    find_unknowns,
    is_number_text,
    read_numbers,
)
from flfed.rows.proposals.columns import FLAGS, MOST_VALUES, UNLISTED, by_number, round_outward, unit_of
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


def propose_target(
    name: str, cells: pd.Series, task: Task | None = None, *, codes: Sequence[str] = ()
) -> TargetProposal:
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
    unknown = find_unknowns(numbers.values, entries.counts)
    values = numbers.values[unknown.genuine]
    limits = round_outward(float(values.min()), float(values.max()))
    column = Column(kind="target", unit=unit_of(entries.name), range=limits, missing=unknown.codes)
    doubts = [*unknown.doubts, *filter(None, [numbers.doubt])]
    sure = len(values) > FEW_VALUES and not doubts
    unlabelled = entries.rows - int(entries.counts[unknown.genuine].sum()) - entries.strays
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
    finite = [number for number in numbers.values() if abs(number) < math.inf]
    if len(finite) == len(numbers):
        words += _outside(entries, numbers)
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


def find_rare_classes(
    columns: Columns, target: str, task: Task | None, codes: Sequence[str] = ()
) -> RareClasses | None:
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
