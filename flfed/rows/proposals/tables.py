"""Proposed schemas of tables, with target, groups and columns that may leak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flfed.errors import UsageError, nearest
from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.parsing.headers import has_control, plain_name
from flfed.rows.data.schema import CONTROL, Column, Schema, Task
from flfed.rows.proposals.cells import FEW_VALUES, LEAST_ROWS, Cells, field_of, is_number_text, read_numbers
from flfed.rows.proposals.columns import (
    MOST_VALUES,
    UNLISTED,
    ColumnProposal,
    by_number,
    propose_column,
    round_outward,
    unit_of,
)

LEAK_AUC = 0.98
"""A column that alone ranks the outcome so well may have been recorded after it."""
LEAK_SHARE = 0.95
"""Of the rows with one value: so many have one outcome, which less than half of the others have."""
LEAK_CORRELATION = 0.99
FEW_CLASSES = 5
"""Whole numbers of at most so many values are classes; more are a number to predict."""
POSITIVE = {
    *("1", "yes", "true", "y", "t", "positive", "pos", "present", "case", "event", "dead", "died", "death", "bad"),
    *("default", "fraud", "malignant", "m", "disease", "sick", "ill", "abnormal", "readmitted", "churn", "relapse"),
}
"""Classes that a study is after, in lower case; else it is the rarer one."""


@dataclass(frozen=True)
class TargetProposal:
    """What is to be predicted.

    Attributes
    ----------
    task : {"binary", "multi-class", "regression"}
    column : Column
    field : Field or None
        How it is read; None where its cells are read as they stand.
    why : str
    sure : bool
        Whether no person needs to look at task and order of classes.
    unlabelled : int
        Rows without a value.
    """

    task: Task
    column: Column
    field: Field | None
    why: str
    sure: bool
    unlabelled: int


@dataclass(frozen=True)
class TableProposal:
    """A schema for tables that had none.

    Attributes
    ----------
    schema : Schema
    columns : dict of name to ColumnProposal
        Of all columns that were looked at but the target, in the tables' order.
    target : TargetProposal
    leaks : dict of name to str
        Columns that may tell the outcome, with how well they do.
    rows : int
        Of all tables together.
    """

    schema: Schema
    columns: Mapping[str, ColumnProposal]
    target: TargetProposal
    leaks: Mapping[str, str]
    rows: int

    def fields(self) -> dict[str, Field | None]:
        """Return how each column of the schema is read, None where it is as it stands."""
        fields = {name: proposal.field for name, proposal in self.columns.items()}
        fields[self.schema.target] = self.target.field
        return {name: fields[name] for name in self.schema.columns}

    def mapping(self, names: Sequence[object]) -> dict[str, str | Field | None]:
        """Return how a table of these column names is read; see `columns_by_name`."""
        return columns_by_name(self.fields(), names)


def columns_by_name(fields: Mapping[str, Field | None], names: Sequence[object]) -> dict[str, str | Field | None]:
    """Return how a table of these column names is read.

    A column that the schema reads under its own name is left out.

    Parameters
    ----------
    fields : mapping of schema column to Field or None
    names : sequence
        Of the table; they may differ from the schema's in case, blanks and signs.
    """
    own = {plain_name(name): str(name) for name in reversed(list(names))}
    own |= {plain_name(name): str(name) for name in names if str(name) in fields}
    found: dict[str, str | Field | None] = {}
    for name, field in fields.items():
        there = own.get(plain_name(name))
        if there is None:
            found[name] = None
        elif field is not None:
            found[name] = replace(field, column=there)
        elif there != name:
            found[name] = there
    return found


def propose_schema(
    tables: Mapping[str, pd.DataFrame],
    target: str,
    *,
    name: str,
    group: str = "",
    time: str = "",
    task: Task | None = None,
    leave_out: Sequence[str] = (),
) -> TableProposal:
    """Return a schema for one table or several.

    Parameters
    ----------
    tables : mapping of site to DataFrame
        Columns whose names differ in case, blanks and signs only are one column.
    target : str
    name : str
        Of the dataset.
    group : str
        Column whose rows belong to one patient or customer.
    time : str
        Column of dates by which rows are held out.
    task : {"binary", "multi-class", "regression"}, optional
        Instead of what the target's values say.
    leave_out : sequence of str
        Columns that are to be in no schema.

    Raises
    ------
    UsageError
        If there is no such column, it is no date where one is needed, or the target cannot be predicted.
    """
    columns = _together(tables)
    target, group, time = (column_named(word, option, columns) for word, option in _options(target, group, time))
    unread = {column_named(word, "leave_out", columns) for word in leave_out}
    named = [name for name in (target, group, time, *unread) if name]
    if twice := [name for name in named if named.count(name) > 1]:
        raise UsageError(f"column {twice[0]!r} is named twice: target, by, group and time each need one of their own")
    predicted = propose_target(target, columns[target], task)
    proposals = {
        name: _forced(propose_column(name, cells), name, group, time)
        for name, cells in columns.items()
        if name != target and name not in unread
    }
    # Identifiers and free texts tell a model nothing, and whoever needs one names it as the group.
    kept = {
        n: proposal for n, proposal in proposals.items() if proposal.column and (proposal.kind != "id" or n == group)
    }
    if not any(proposal.kind in ("number", "category", "flag") for proposal in kept.values()):
        raise UsageError("no column can be learnt from: all are empty, identifiers, dates or texts")
    leaks = _leaks(columns, kept, predicted, target)
    made = {name: proposal.column for name, proposal in kept.items() if proposal.column} | {target: predicted.column}
    unsure = [n for n, proposal in kept.items() if proposal.from_rows or not proposal.sure or n in leaks]
    unsure += [target] if predicted.task == "regression" or not predicted.sure else []
    schema = Schema(
        name=name,
        task=predicted.task,
        target=target,
        group=group,
        unlabelled="leave-out" if predicted.unlabelled else "refuse",
        columns={n: made[n] for n in columns if n in made},
        unconfirmed=tuple(n for n in columns if n in unsure),
    )
    return TableProposal(schema, proposals, predicted, leaks, len(columns[target]))


def _options(target: str, group: str, time: str) -> list[tuple[str, str]]:
    return [(target, "target"), (group, "group"), (time, "time")]


def refuse_names(table: pd.DataFrame, title: str) -> None:
    """Refuse a table whose column names could be taken for one another, or are no line of text.

    Raises
    ------
    UsageError
        If two are alike but for case, blanks and signs, or one has a control character: that one by its place.
    """
    own: dict[str, str] = {}
    for place, name in enumerate(map(str, table.columns), start=1):
        if has_control(_schema_name(name)):
            raise UsageError(f"table {title!r}: the name of column {place} has a {CONTROL}: rename it")
        other = own.setdefault(plain_name(name) or name, name)
        if other == name and list(table.columns).count(name) > 1:
            raise UsageError(f"table {title!r} has several columns {name!r}: rename all but one")
        if other != name:
            raise UsageError(
                f"table {title!r} has the columns {other!r} and {name!r}, which differ in case, blanks or signs only: "
                "rename one"
            )


def _schema_name(name: str) -> str:
    """Return a column's name in the schema: a name of several lines is on one there."""
    return " ".join(name.split()) if has_control(name) else name.strip()


def _together(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Return the columns of all tables, each over all rows; a table that lacks one has no value of it."""
    names, parts = dict[str, str](), list[dict[str, pd.Series]]()
    for table in tables.values():
        parts.append({})
        for place, name in enumerate(table.columns):
            plain = plain_name(name) or str(name)
            names.setdefault(plain, _schema_name(str(name)))
            parts[-1].setdefault(plain, table.iloc[:, place])
    found = {}
    for plain, name in names.items():
        one = next(own[plain] for own in parts if plain in own)
        # Of the same type, so that dates and numbers stay what they are.
        empty = (one.astype(object) if one.dtype.kind == "b" else one).iloc[:0]
        cells = [own.get(plain, empty.reindex(range(len(of)))) for own, of in zip(parts, tables.values(), strict=True)]
        found[name] = pd.concat(cells, ignore_index=True) if cells[1:] else cells[0]
    return found


def check_alike(tables: Mapping[str, pd.DataFrame], target: str) -> None:
    """Refuse tables that write the classes of a target in other ways.

    Raises
    ------
    UsageError
        If one table has no class in common with the others: its codes would be taken for other classes.
    """
    columns = {name: {str(own): table[own] for own in table.columns} for name, table in tables.items()}
    named = {name: column_named(target, "target", own, f"table {name!r}") for name, own in columns.items()}
    found = {name: Cells.of(target, own[named[name]]) for name, own in columns.items()}
    for name, cells in found.items():
        others = {text for other, those in found.items() if other != name for text in those.texts}
        few = max(len(cells.texts), len(others)) <= MOST_VALUES and read_numbers(cells) is None
        coded = few or len(set(cells.texts) | others) <= FEW_CLASSES
        if coded and cells.texts and others and not others & set(cells.texts):
            raise UsageError(
                f"target: column {target!r} of table {name!r} has no value that the other tables have: write its "
                "classes alike in all of them, or map that table afterwards with flfed site new"
            )


def column_named(word: str, option: str, columns: Iterable[str], table: str = "the table") -> str:
    """Return the column that a word names, in other case or with other signs too.

    Raises
    ------
    UsageError
        If there is none.
    """
    names = list(columns)
    plain = {plain_name(name): name for name in names}
    if not word or word in names:
        return word
    if plain_name(word) in plain:
        return plain[plain_name(word)]
    # A row that was taken for names has numbers among them.
    nameless = any(is_number_text(name) for name in names)
    hint = f": if its first line holds no names, give those of its {len(names)} columns with --names"
    raise UsageError(f"{option}: {table} has no column {word!r}{hint if nameless else nearest(word, names)}")


def _forced(proposal: ColumnProposal, name: str, group: str, time: str) -> ColumnProposal:
    """Return the kind that a person gave a column."""
    if name == group:
        return ColumnProposal(name, "id", "rows of one belong together", True, Column(kind="id"), proposal.field)
    if name == time and proposal.kind != "date":
        raise UsageError(f"time: column {name!r} holds no dates that can be read: {proposal.why}")
    return proposal


def propose_target(name: str, cells: pd.Series, task: Task | None = None) -> TargetProposal:
    """Return how a column is to be predicted.

    Raises
    ------
    UsageError
        If it has one value only, or classes of too few rows.
    """
    found = Cells.of(name, cells)
    if len(found.texts) < 2:
        many = "no value" if not found.texts else "only one value"
        raise UsageError(f"target: column {name!r} has {many}: there is nothing to predict")
    numbers = read_numbers(found)
    whole = numbers is not None and bool((numbers.values == np.rint(numbers.values)).all())
    several = len(found.texts) > (FEW_CLASSES if whole else 2)
    if task == "regression" or (task is None and numbers is not None and several):
        if numbers is None:
            raise UsageError(f"target: column {name!r} holds texts, so that no number can be predicted")
        found, values = numbers.cells, numbers.values
        column = Column(
            kind="target", unit=unit_of(name), range=round_outward(float(values.min()), float(values.max()))
        )
        field = field_of(found, numbers.reading)
        why = "; ".join(filter(None, ("its values are numbers", numbers.doubt)))
        sure = len(values) > FEW_VALUES and not numbers.doubt
        return TargetProposal("regression", column, field, why, sure, found.rows - found.known - found.strays)
    return _classes(found, task)


def _classes(found: Cells, task: Task | None) -> TargetProposal:
    """Return classes for a target, the one that a study is after last."""
    counts = dict(zip(found.texts, found.counts.tolist(), strict=True))
    common = [text for text in found.texts if counts[text] >= LEAST_ROWS]
    rare = len(found.texts) - len(common)
    if len(common) > MOST_VALUES or not common:
        raise UsageError(f"target: column {found.name!r} has {len(found.texts)} texts, too many for classes")
    if len(common) + (rare > 1) < 2 or (len(found.texts) == 2 and rare):
        raise UsageError(f"target: fewer than {LEAST_ROWS} rows of column {found.name!r} have another value")
    if any(map(has_control, common)):
        raise UsageError(f"target: a class of column {found.name!r} has a {CONTROL}: correct it in the source")
    field = field_of(found)
    if rare:
        field = replace(field or Field(found.name), other=UNLISTED)
    unlabelled = found.rows - found.known
    order, sure = _ordered(sorted(common, key=by_number), counts)
    values = (*order, UNLISTED) if rare and UNLISTED not in order else tuple(order)
    chosen: Task = "binary" if len(values) == 2 else "multi-class"
    if task is not None and task != chosen:
        raise UsageError(f"target: column {found.name!r} has {len(values)} classes, which is {chosen}, not {task}")
    why = f"{len(values)} classes" + (f"; {values[-1]!r} is the one that is predicted" if chosen == "binary" else "")
    return TargetProposal(chosen, Column(kind="target", values=values), field, why, sure, unlabelled)


def _ordered(classes: list[str], counts: Mapping[str, int]) -> tuple[list[str], bool]:
    """Return two classes with the positive one last, and whether that is sure."""
    if len(classes) != 2:
        return classes, True
    # Of two numbers the larger one is the event, which 0 and 1 say plainly.
    if all(by_number(text)[0] < float("inf") for text in classes):
        return classes, classes == ["0", "1"]
    named = [text for text in classes if text.casefold() in POSITIVE]
    if len(named) == 1:
        return [text for text in classes if text not in named] + named, True
    return sorted(classes, key=lambda text: -counts[text]), False


def _leaks(
    columns: Mapping[str, pd.Series], kept: Mapping[str, ColumnProposal], target: TargetProposal, name: str
) -> dict[str, str]:
    """Return the columns that alone tell the outcome."""
    read = read_column(columns[name], name, target.column, target.field or Field(name))[0]
    known = ~pd.isna(read)
    found = {}
    for feature, proposal in kept.items():
        if proposal.column is None or proposal.kind not in ("number", "category", "flag"):
            continue
        cells = read_column(columns[feature], feature, proposal.column, proposal.field or Field(feature))[0]
        strength, words = _strength(cells[known], read[known], target.task)
        if strength:
            found[feature] = words
    return found


def _strength(cells: np.ndarray, target: np.ndarray, task: Task) -> tuple[bool, str]:
    """Return whether a column alone tells the outcome, and in which words."""
    ranks = _as_ranks(cells, target, task)
    if task == "regression":
        both = ~np.isnan(ranks)
        size = (
            abs(float(np.corrcoef(ranks[both], target[both].astype(float))[0, 1])) if both.sum() > FEW_VALUES else 0.0
        )
        return size >= LEAK_CORRELATION, f"its correlation with the outcome is {size:.2f}"
    ranks = np.where(np.isnan(ranks), np.nanmin(ranks, initial=0.0) - 1, ranks)
    best = max(_auc(ranks, target == value) for value in pd.unique(target))
    if best >= LEAK_AUC:
        return True, f"alone it tells the outcome with an AUC of {best:.2f}"
    return _tells(cells, target)


def _tells(cells: np.ndarray, target: np.ndarray) -> tuple[bool, str]:
    """Return whether nearly all rows of one value have one outcome that most others do not have."""
    outcome = pd.factorize(target)[0]
    every = np.bincount(outcome)
    for value in pd.unique(cells[~pd.isna(cells)])[:MOST_VALUES]:
        counts = np.bincount(outcome[cells == value], minlength=len(every))
        most, rows = int(counts.argmax()), int(counts.sum())
        others = (every[most] - counts[most]) / max(len(cells) - rows, 1)
        share = counts[most] / rows
        if rows >= 2 * LEAST_ROWS and share >= LEAK_SHARE and others < 0.5:
            return True, "nearly all rows with one of its values have the same outcome"
    return False, ""


def _as_ranks(cells: np.ndarray, target: np.ndarray, task: Task) -> np.ndarray:
    """Return numbers as they are, and categories by the outcome's mean; NaN where missing."""
    if cells.dtype.kind == "f":
        return cells
    outcome = target.astype(float) if task == "regression" else (target == pd.unique(target)[0]).astype(float)
    place, values = pd.factorize(cells)
    sizes = np.bincount(place[place >= 0], minlength=len(values))
    means = np.bincount(place[place >= 0], outcome[place >= 0], minlength=len(values)) / np.maximum(sizes, 1)
    return np.where(place >= 0, means[place], np.nan)


def _auc(ranks: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, or 1 minus it where that is more."""
    from scipy.stats import rankdata

    n = int(positive.sum())
    pairs = n * (len(positive) - n)
    if not pairs:
        return 0.5
    area = float((rankdata(ranks)[positive].sum() - n * (n + 1) / 2) / pairs)
    return max(area, 1 - area)
