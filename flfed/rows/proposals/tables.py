"""Proposed schemas of tables, with target, groups and columns that may leak.

A person's wishes about columns are here too, and the options that are offered to them.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, takewhile
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from flfed.errors import nearest
from flfed.rows.data.findings.columns import odd_units
from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.cells import with_long_objects
from flfed.rows.data.parsing.fields import ColumnMapping, Entry, Field, has_control, own_name, plain_name
from flfed.rows.data.schema import Column, Schema, Task
from flfed.rows.proposals.cells import (
    EVERYTHING,
    LEAST_ROWS,
    READINGS,
    Cells,
    Columns,
    is_number_text,
    is_one_of,
    marks_of,
    name_words,
    read_numbers,
)
from flfed.rows.proposals.columns import (
    DATES,
    FEATURES,
    LEAST_COUNTED,
    MOST_VALUES,
    PERSON_WORD,
    ColumnProposal,
    Proposals,
    count_rows,
    holds_whole_names,
    is_identifier_name,
    names_owner,
    propose_column,
    propose_dates,
)
from flfed.rows.proposals.targets import (
    FEW_CLASSES,
    RareClasses,
    TargetProposal,
    find_leaks,
    find_rare_classes,
    propose_target,
)
from flfed.words import render, usage_error

TablesByName = Mapping[str, pd.DataFrame]
Marked = TypeVar("Marked", ColumnProposal, TargetProposal)
RESTARTS = "it counts the rows within each file or site"
FEWEST_VALUES = 20
MOST_ROWS_EACH = 20
"""Least number of values in a column of people, and most rows of one on average: more are of places."""
REPEATED = 0.05
"""Least share of rows that repeat an identifier."""
ORDERED = 0.95
"""Least share of rows that are no earlier than the one before (or no later)."""
FEWEST_DAYS = 10
MOST_COPIES = 3
"""Rows that are alike are copies of an export where no more are, else of few possible values."""
MOST_OFFERED = 3


@dataclass(frozen=True)
class TableProposal:
    """A proposed schema for tables without one.

    Attributes
    ----------
    schema : Schema
    columns : dict of name to ColumnProposal
        Of all columns but the target, in the tables' order.
    target : TargetProposal
    leaks : dict of name to str
        Columns that may reveal the outcome, with the reason.
    rows : int
        Of all tables together.
    offers : tuple of Offer
        Options that may fit.
    medians : dict of plain name to float
        Of the columns of numbers whose marks are no doubt in some table.
    """

    schema: Schema
    columns: Proposals
    target: TargetProposal
    leaks: Mapping[str, str]
    rows: int
    offers: tuple[Offer, ...]
    medians: Mapping[str, float]

    def fields(self) -> dict[str, Field | None]:
        """Return the reading of each column of the schema, None for an unchanged one."""
        fields = {name: proposal.field for name, proposal in self.columns.items()}
        fields[self.schema.target] = self.target.field
        return {name: fields[name] for name in self.schema.columns}

    def with_doubt(self, why: str) -> TableProposal:
        """Return the same with a further reason to check the target."""
        target = replace(self.target, why="; ".join([self.target.why, why]), sure=False)
        schema = self.schema
        name = self.schema.target
        doubtful = schema.unconfirmed if name in schema.unconfirmed else (*schema.unconfirmed, name)
        return replace(self, target=target, schema=schema.model_copy(update={"unconfirmed": doubtful}))

    def mapping(self, names: Sequence[object]) -> dict[str, Entry]:
        """Return the mapping of a table with these column names; see `columns_by_name`."""
        return columns_by_name(self.fields(), names)

    def mapping_of(self, table: pd.DataFrame) -> ColumnMapping:
        """Return the mapping of one table, with its own marks of decimals and thousands, and format of dates."""
        mapping = self.mapping(list(table.columns))
        marks = marks_of(table, self.medians)
        for name, column in self.schema.columns.items():
            entry = mapping.get(name, name)
            own = own_name(entry)
            if own is None or not (column.is_number() or column.kind == "date"):
                continue
            field = entry if isinstance(entry, Field) else Field(own)
            if own in marks:
                mapping[name] = replace(field, decimal=marks[own].decimal, thousands=marks[own].thousands or None)
            elif isinstance(entry, Field):
                mapping[name] = likeliest_marks(table[own], name, column, field)
        return mapping


def likeliest_marks(cells: pd.Series, name: str, column: Column, field: Field) -> Field:
    """Return the first reading by which the fewest cells break a rule."""
    readings = [replace(field, decimal=one.decimal, thousands=one.thousands, censored=one.censored) for one in READINGS]
    if column.kind == "date":
        readings = [field, *(replace(field, date=form) for form in DATES)]
    # The proposed reading of thousands or decimals is preferred.
    elif field.thousands in (".", ",", ""):
        readings[:0] = [field, *(replace(field, decimal=mark, thousands="") for mark in ".,")]
    unread = []
    for reading in readings:
        findings = read_column(cells, name, column, reading)[1]
        unread.append(sum(len(finding.rows) for finding in findings))
        if not unread[-1]:
            break
    return readings[unread.index(min(unread))]


def columns_by_name(fields: Mapping[str, Field | None], names: Sequence[object]) -> dict[str, Entry]:
    """Return the mapping of a table with these column names.

    A column that is read under the schema's own name is left out.

    Parameters
    ----------
    fields : mapping of schema column to Field or None
    names : sequence
        Names of the table; they may differ from the schema's in case, blanks and signs.
    """
    own = {plain_name(name): str(name) for name in reversed(list(names))}
    own |= {plain_name(name): str(name) for name in names if str(name) in fields}
    mapping: dict[str, Entry] = {}
    for name, how in fields.items():
        there = own.get(plain_name(name))
        if there is None:
            mapping[name] = None
        elif how is not None:
            mapping[name] = replace(how, column=there)
        elif there != name:
            mapping[name] = there
    return mapping


def propose_schema(
    tables: TablesByName,
    target: str,
    *,
    name: str,
    group: str = "",
    time: str = "",
    task: Task | None = None,
    leave_out: Sequence[str] = (),
    wishes: Wishes | None = None,
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
        Default: the task that the target's values suggest.
    leave_out : sequence of str
        Columns that are left out.
    wishes : Wishes, optional
        A person's wishes about columns.

    Raises
    ------
    UsageError
        If there is no such column, it is no date where one is needed, or the target cannot be predicted.
    """
    tables, medians, read_as = _with_read_marks(tables)
    columns = together(tables)
    target = column_named(target, "target", columns)
    group = column_named(group, "group", columns)
    time = column_named(time, "time", columns)
    unread = {column_named(word, "leave_out", columns) for word in leave_out}
    _refuse_twice(target, group, time, *unread)
    wishes = wishes or Wishes()
    _refuse_wishes(wishes, {target, group, time} | unread)
    codes = wishes.codes_by_column
    predicted = propose_target(target, columns[target], task, codes=codes.get(target, ()))
    parts = _parts(tables, [columns[name] for name in sorted(unread)])
    large = _large_parts(parts)
    if target_marks := read_as.get(plain_name(target)):
        predicted = _with_marks(predicted, target, target_marks)
    copies = _copies(columns)
    looked_at = [name for name in columns if name not in unread | {target}]
    proposals = {
        one: _forced(_proposed(one, columns[one], wishes, large, copies), one, group, time) for one in looked_at
    }
    for one, marks in [(n, read_as[plain_name(n)]) for n in proposals if plain_name(n) in read_as]:
        # Identifiers have no such marks; what only looks like one may be amounts with them.
        if proposals[one].kind != "id" or not is_identifier_name(name_words(one)):
            proposals[one] = _with_marks(proposals[one].feature or proposals[one], one, marks)
    # Identifiers are left out except the group: a model cannot use them.
    schema_columns = {n: p for n, p in proposals.items() if p.column and (p.kind != "id" or n == group)}
    leaks = _take_leaks(columns, proposals, schema_columns, predicted, target, wishes)
    if not any(proposal.kind in FEATURES and one not in leaks for one, proposal in schema_columns.items()):
        raise usage_error("proposals.table.featureless")
    schema = _schema(name, target, group, columns, schema_columns, predicted, leaks)
    free = {n: proposal for n, proposal in proposals.items() if n not in leaks and proposal.why != RESTARTS}
    offers = offers_of(columns, free, parts, group, time)
    return TableProposal(schema, proposals, predicted, leaks, len(columns[target]), offers, medians)


def _with_read_marks(
    tables: TablesByName,
) -> tuple[dict[str, pd.DataFrame], dict[str, float], dict[str, list[Field]]]:
    """Return tables with numbers for cells that `marks_of` reads, its medians, and its readings by plain name."""
    alone = [marks_of(table, {}) for table in tables.values()]
    unclear = {plain_name(name) for marks in alone for name, reading in marks.items() if reading.thousands is None}
    known: dict[str, list[float]] = {name: [] for name in unclear}
    for table, marks in zip(tables.values(), alone, strict=True):
        for name in map(str, table.columns):
            mark = marks[name].thousands if name in marks else ""
            if plain_name(name) in unclear and mark is not None:
                texts = table[name].astype(str).str.replace(mark, "", regex=False).str.replace(",", ".")
                known[plain_name(name)] += pd.to_numeric(texts, errors="coerce").dropna().tolist()
    medians = {name: float(np.median(amounts)) for name, amounts in known.items() if amounts}
    read = dict(tables)
    readings: dict[str, list[Field]] = {}
    for (key, table), marks in zip(tables.items(), alone, strict=True):
        for name, reading in (marks_of(table, medians) if medians else marks).items():
            readings.setdefault(plain_name(name), []).append(reading)
            if reading.thousands is not None:
                numbers = read_column(table[name], name, EVERYTHING, reading)[0]
                read[key] = read[key].assign(**{name: table[name].where(np.isnan(numbers), numbers)})
    return read, medians, readings


def _with_marks(proposal: Marked, name: str, readings: Sequence[Field]) -> Marked:
    """Return a column with the `readings` of the tables in which every mark stands before three digits.

    Where nothing decides, the range has both, so that the site's check asks.
    """
    column = proposal.column
    if column is None or column.range is None:
        return proposal
    field = proposal.field or Field(name)
    if any(one.thousands is None for one in readings):
        factor = 0.001 if field.thousands in (".", ",") else 1000
        ends = [end * times for end in column.range for times in (1, factor)]
        column = column.model_copy(update={"range": (min(ends), max(ends))})
        doubt = render("proposals.cells.unclear")
    else:
        doubt = render("proposals.cells.read", likely="thousands" if readings[0].thousands else "decimals")
    if all(one == readings[0] for one in readings):
        field = replace(field, decimal=readings[0].decimal, thousands=readings[0].thousands or None)
    return replace(proposal, column=column, field=field, sure=False, why="; ".join([proposal.why, doubt]))


def _refuse_wishes(wishes: Wishes, named: Collection[str]) -> None:
    """Refuse to drop or keep a column that has another role already."""
    for option, columns in (("keep", wishes.keep), ("drop", wishes.drop)):
        if taken := [name for name in columns if name in named]:
            raise usage_error("proposals.table.taken", option=option, column=taken[0])


def _refuse_twice(*named: str) -> None:
    if twice := [name for name in named if name and named.count(name) > 1]:
        raise usage_error("proposals.table.twice", column=twice[0])


def _schema(
    name: str,
    target: str,
    group: str,
    columns: Collection[str],
    schema_columns: Proposals,
    predicted: TargetProposal,
    leaks: Mapping[str, str],
) -> Schema:
    """Return the schema of the chosen columns, in the order of the table."""
    made = {name: proposal.column for name, proposal in schema_columns.items() if proposal.column} | {
        target: predicted.column
    }
    made |= {leak: made[leak].model_copy(update={"leak": why}) for leak, why in leaks.items()}
    unsure = [n for n, proposal in schema_columns.items() if proposal.from_rows or not proposal.sure or n in leaks]
    if predicted.task == "regression" or not predicted.sure:
        unsure.append(target)
    unlabelled: Literal["leave-out", "refuse"] = "leave-out" if predicted.unlabelled else "refuse"
    return Schema(
        name=name,
        task=predicted.task,
        target=target,
        group=group,
        unlabelled=unlabelled,
        columns={n: made[n] for n in columns if n in made},
        unconfirmed=tuple(n for n in columns if n in unsure),
    )


def _take_leaks(
    columns: Columns,
    proposals: dict[str, ColumnProposal],
    schema_columns: dict[str, ColumnProposal],
    predicted: TargetProposal,
    target: str,
    wishes: Wishes,
) -> dict[str, str]:
    """Return the columns that reveal the outcome, and change `proposals` and `schema_columns` accordingly."""
    # A column of few values that is an identifier by its heading alone is a category where it reveals the outcome.
    by_heading = {
        n: p.feature
        for n, p in proposals.items()
        if n not in schema_columns and p.feature and p.feature.kind == "category"
    }
    leaks = find_leaks(columns, schema_columns | by_heading, predicted, target)
    leaking_columns = {n: p for n, p in by_heading.items() if n in leaks}
    proposals |= leaking_columns
    schema_columns |= leaking_columns
    for one in sorted(leaks.keys() & set(wishes.keep)):
        why = "; ".join([proposals[one].why, render("proposals.why.kept", why=leaks.pop(one))])
        proposals[one] = schema_columns[one] = replace(proposals[one], why=why, sure=False)
    return leaks


def _parts(tables: TablesByName, by: Sequence[pd.Series]) -> np.ndarray:
    """Return the number of each row's table and site [rows]."""
    parts = np.repeat(np.arange(len(tables)), [len(table) for table in tables.values()])
    for cells in by:
        place = pd.factorize(plain_text(cells))[0]
        parts = parts * (int(place.max(initial=0)) + 2) + place + 1
    return parts


def _large_parts(parts: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each part with enough of them to test whether a column counts them."""
    order = np.argsort(parts, kind="stable")
    starts = np.flatnonzero(np.diff(parts[order])) + 1
    return [own for own in np.split(order, starts) if len(own) >= LEAST_COUNTED]


def _copies(columns: Columns) -> np.ndarray:
    """Return which rows [rows] copy an earlier one; none where so many are alike that few values explain it."""
    texts = [
        (cells.astype(str) if cells.dtype == object else cells).reset_index(drop=True) for cells in columns.values()
    ]
    hashes = pd.util.hash_pandas_object(pd.concat(texts, axis=1), index=False)
    copies = hashes.duplicated().to_numpy()
    return copies & (hashes.value_counts().max() <= MOST_COPIES)


def _proposed(
    name: str, cells: pd.Series, wishes: Wishes, parts: Sequence[np.ndarray], copies: np.ndarray
) -> ColumnProposal:
    """Return the proposed kind of a column, unless a person drops it; `parts` are the rows of each site."""
    if name in wishes.drop:
        return ColumnProposal(name, "left-out", render("proposals.why.dropped"))
    codes = wishes.codes_by_column.get(name, ())
    guess = propose_column(name, cells, codes=codes, keep=name in wishes.keep, copies=copies)
    if guess.kind in ("id", "category") and name not in wishes.keep:
        filled = [some for own in parts if (some := cells.iloc[own]).notna().any()]
        looked_at = (propose_dates(Cells.of(name, some, codes)) for some in filled)
        dates = [*filter(None, takewhile(bool, looked_at))]
        if 1 < len(dates) == len(filled):
            fields = [date.field for date in dates if date.field]
            why = render("proposals.why.several")
            return replace(dates[0], field=fields[0], why=why, sure=all(date.sure for date in dates), gaps=guess.gaps)
    if guess.kind != "number" or guess.column is None or name in wishes.keep:
        return guess
    field = guess.field or Field(name)
    # The first part rules out most columns.
    if len(parts) < 2 or not all(
        count_rows(read_column(cells.iloc[own], name, guess.column, field)[0]) for own in parts
    ):
        return guess
    return replace(_as_identifier(guess, RESTARTS, sure=False), feature=guess)


def _as_identifier(proposal: ColumnProposal, why: str, *, sure: bool) -> ColumnProposal:
    """Return a column as identifiers; of its reading only codes for "not known" hold: not values, marks or `other`."""
    missing = proposal.field.missing if proposal.field else ()
    field = Field(proposal.name, missing=missing) if missing else None
    return ColumnProposal(proposal.name, "id", why, sure, Column(kind="id"), field)


def refuse_names(table: pd.DataFrame, title: str) -> None:
    """Refuse a table whose column names could be confused, or are no line of text.

    Raises
    ------
    UsageError
        If two are alike but for case, blanks and signs, or one has a control character: that one by its place.
    """
    own: dict[str, str] = {}
    for place, name in enumerate(map(str, table.columns), start=1):
        if has_control(_schema_name(name)):
            raise usage_error("proposals.table.control", title=title, place=place)
        other = own.setdefault(plain_name(name) or name, name)
        if other == name and list(table.columns).count(name) > 1:
            raise usage_error("proposals.table.repeated", title=title, name=name)
        if other != name:
            raise usage_error("proposals.table.similar", title=title, other=other, name=name)


def _schema_name(name: str) -> str:
    """Return a column's name in the schema, always on one line."""
    return " ".join(name.split()) if has_control(name) else name.strip()


def together(tables: TablesByName) -> dict[str, pd.Series]:
    """Return the columns of all tables, each over all rows, missing where a table lacks one."""
    names = dict[str, str]()
    parts = list[dict[str, pd.Series]]()
    for table in map(with_long_objects, tables.values()):
        parts.append({})
        for place, name in enumerate(table.columns):
            plain = plain_name(name) or str(name)
            names.setdefault(plain, _schema_name(str(name)))
            parts[-1].setdefault(plain, table.iloc[:, place])
    columns = {}
    for plain, name in names.items():
        one = next(own[plain] for own in parts if plain in own)
        # Empty cells of the same type, so that dates and numbers do not change.
        typed = one.astype(object) if one.dtype.kind == "b" else one
        empty = typed.iloc[:0]
        cells = [own.get(plain, empty.reindex(range(len(of)))) for own, of in zip(parts, tables.values(), strict=True)]
        columns[name] = pd.concat(cells, ignore_index=True) if cells[1:] else cells[0]
    return columns


def notes_on_units(name: str, numbers: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield which sites seem to have a column in another unit than the others, by its numbers [rows] at each site."""
    for site, power in odd_units(numbers).items():
        times = f"{10**power:,} times" if power > 0 else f"1/{10**-power:,} of"
        yield render("proposals.workspace.unit", site=site, column=name, times=times)


def rare_classes(tables: TablesByName, target: str, task: Task | None, wishes: Wishes) -> RareClasses | None:
    """Return the few rows that have none of the target's classes, or None."""
    columns = together(tables)
    named = column_named(target, "target", columns)
    return find_rare_classes(columns, named, task, wishes.codes_by_column.get(named, ()))


def check_alike(tables: TablesByName, target: str) -> None:
    """Refuse tables that write the classes of a target in other ways.

    Raises
    ------
    UsageError
        If one table has no class in common with the others: its codes would count as other classes.
    """
    cells_by_table = {}
    for name, table in tables.items():
        named = column_named(target, "target", table.columns, f"table {name!r}")
        cells_by_table[name] = Cells.of(target, table[named])
    for name, cells in cells_by_table.items():
        others = {*chain.from_iterable(those.texts for those in cells_by_table.values() if those is not cells)}
        few = max(len(cells.texts), len(others)) <= MOST_VALUES and read_numbers(cells) is None
        coded = few or len({*cells.texts} | others) <= FEW_CLASSES
        if coded and cells.texts and others and not others & {*cells.texts}:
            raise usage_error("proposals.table.classes", column=target, title=name)


def _forced(proposal: ColumnProposal, name: str, group: str, time: str) -> ColumnProposal:
    """Return the proposal with the kind that a person chose for a column."""
    if name == group:
        return _as_identifier(proposal, render("proposals.why.group"), sure=True)
    if name == time and proposal.kind != "date":
        raise usage_error("proposals.table.dates", column=name, why=proposal.why)
    return proposal


@dataclass(frozen=True)
class Wishes:
    """A person's wishes about columns.

    Attributes
    ----------
    keep : collection of str
        Columns that are features in any case.
    drop : collection of str
        Columns that are left out.
    codes : tuple of str
        Codes for "not known" in every column.
    codes_by_column : dict of column to tuple of str
    """

    keep: Collection[str] = ()
    drop: Collection[str] = ()
    codes: tuple[str, ...] = ()
    codes_by_column: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, columns: Iterable[str], keep: Sequence[str] = (), drop: Sequence[str] = (), missing: Sequence[str] = ()
    ) -> Wishes:
        """Return wishes about existing columns.

        Parameters
        ----------
        columns : iterable of str
        keep, drop : sequence of str
            Names of columns; case and signs may differ.
        missing : sequence of str
            Each a value, or `COLUMN=VALUE` of one column.

        Raises
        ------
        UsageError
            If a column does not exist, or is in both `keep` and `drop`.
        """
        names = list(columns)
        _check_texts("keep", keep, "COLUMN")
        _check_texts("drop", drop, "COLUMN")
        _check_texts("missing", missing, "VALUE")
        keep_columns = [column_named(word, "keep", names) for word in keep]
        dropped = [column_named(word, "drop", names) for word in drop]
        if both := set(keep_columns) & set(dropped):
            raise usage_error("proposals.table.both", column=min(both))
        by_column = dict[str, tuple[str, ...]]()
        for word in missing:
            column, value = _column_and_value(word, names)
            by_column[column] = (*by_column.get(column, ()), value)
        return cls(tuple(keep_columns), tuple(dropped), by_column.pop("", ()), by_column)

    def refuse_absent_codes(self, tables: Sequence[pd.DataFrame]) -> None:
        """Refuse a code for "not known" that no cell has: it is mistyped, or of another column."""
        for column, codes in {"": self.codes, **self.codes_by_column}.items():
            for code in codes:
                if any(_has_code(table, column, code) for table in tables):
                    continue
                if column:
                    raise usage_error("proposals.table.uncoded", column=column, code=code)
                raise usage_error("proposals.table.code", code=code)

    def without_codes(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table in which the codes of every column are missing."""
        changed = {}
        for name, cells in table.items():
            hidden = plain_text(cells).map(lambda cell: cell is not None and is_one_of(cell, self.codes))
            if hidden.any():
                if cells.dtype.kind not in "fM":
                    cells = cells.astype(object)
                changed[str(name)] = cells.where(~hidden)
        return table.assign(**changed)


def _check_texts(option: str, words: Sequence[str], example: str) -> None:
    if isinstance(words, str) or not all(isinstance(one, str) and one.strip() for one in words):
        raise usage_error("proposals.table.texts", option=option, example=example)


def _has_code(table: pd.DataFrame, column: str, code: str) -> bool:
    """Return whether a cell of a column, or of any column for "", has a code."""
    for name in table.columns:
        if not column or plain_name(name) == plain_name(column):
            if any(is_one_of(text, (code,)) for text in plain_text(table[name].dropna()).dropna()):
                return True
    return False


def _column_and_value(word: str, names: Sequence[str]) -> tuple[str, str]:
    """Return column and value of `COLUMN=VALUE`; the column is "" for a value of all columns."""
    if "=" not in word:
        return "", word.strip()
    places = [place for place, sign in enumerate(word) if sign == "="]
    plain = {plain_name(name) for name in names}
    # A heading may contain the sign itself.
    place = next((one for one in reversed(places) if plain_name(word[:one]) in plain), places[0])
    return column_named(word[:place].strip(), "missing", names), word[place + 1 :].strip()


def column_named(word: str, option: str, columns: Iterable[str], table: str = "the table") -> str:
    """Return the column that a word names, whatever its case and signs.

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
    # A row that was read as names has numbers among them.
    if any(map(is_number_text, names)):
        raise usage_error("proposals.table.names", option=option, table=table, column=word, columns=len(names))
    hint = nearest(word, names)
    raise usage_error("proposals.table.column", option=option, table=table, column=word, hint=hint)


@dataclass(frozen=True)
class Offer:
    """An option that may fit, which only a person applies.

    Attributes
    ----------
    option : {"group", "time"}
    column : str
    why : str
        Holds no cell.
    """

    option: str
    column: str
    why: str

    def __str__(self) -> str:
        """Return it as text, with the option to type."""
        return f"{self.why}: --{self.option} {shlex.quote(self.column)}"


def offers_of(columns: Columns, proposals: Proposals, parts: np.ndarray, group: str, time: str) -> tuple[Offer, ...]:
    """Return the options that may fit a table.

    Parameters
    ----------
    columns : mapping of name to Series
    proposals : mapping of name to ColumnProposal
        Columns that may be offered.
    parts : array [rows]
        Number of each row's file and site.
    group, time : str
        A person's choice; nothing is offered in its place.
    """
    offers = list[Offer]()
    if not group:
        offers += islice(_groups(columns, proposals), MOST_OFFERED)
    if not time:
        offers += islice(_times(columns, proposals, parts), MOST_OFFERED)
    return tuple(offers)


def _groups(columns: Columns, proposals: Proposals) -> Iterator[Offer]:
    for name, proposal in proposals.items():
        if proposal.kind != "id":
            continue
        cells = Cells.of(name, columns[name])
        words = cells.words
        named = names_owner(words) or is_identifier_name(words) or holds_whole_names(cells)
        rows = cells.n_present
        distinct = len(cells.texts)
        repeats = rows - distinct >= max(LEAST_ROWS, REPEATED * rows)
        # A heading of people distinguishes them from places, however many rows one has.
        few_each = rows <= MOST_ROWS_EACH * distinct or PERSON_WORD.search(words)
        if named and repeats and distinct >= FEWEST_VALUES and few_each:
            yield Offer("group", name, render("proposals.offer.group", rows=rows, values=distinct, column=name))


def _times(columns: Columns, proposals: Proposals, parts: np.ndarray) -> Iterator[Offer]:
    for name, proposal in proposals.items():
        if proposal.kind != "date":
            continue
        dates = read_column(columns[name], name, Column(kind="date"), proposal.field or Field(name))[0]
        moments = pd.to_datetime(pd.Series(dates))
        has_date = moments.notna().to_numpy()
        at = moments[has_date].to_numpy().astype("int64")
        of = parts[has_date]
        steps = np.diff(at)[of[1:] == of[:-1]]
        if len(steps) < 2 * LEAST_ROWS or moments.dt.normalize().nunique() < FEWEST_DAYS:
            continue
        if max((steps >= 0).mean(), (steps <= 0).mean()) >= ORDERED:
            yield Offer("time", name, render("proposals.offer.time", column=name))
