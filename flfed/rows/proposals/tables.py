"""Proposed schemas of tables, with target, groups and columns that may leak.

What a person says of columns stands here too, and which options are offered to them.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Literal

import numpy as np
import pandas as pd

from flfed.errors import UsageError, nearest
from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.fields import ColumnMapping, Field, has_control, plain_name
from flfed.rows.data.schema import CONTROL, Column, Schema, Task
from flfed.rows.proposals.cells import LEAST_ROWS, READINGS, Cells, Columns, is_number_text, is_one_of, read_numbers
from flfed.rows.proposals.columns import (
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
)
from flfed.rows.proposals.leaks import find_leaks
from flfed.rows.proposals.targets import FEW_CLASSES, TargetProposal, propose_target

RESTARTS = "it counts the rows of each file or site, from the first one on"
FEWEST_VALUES = 20
MOST_ROWS_EACH = 20
"""Values of a column of people at least, and rows of one on average at most: more are of places."""
REPEATED = 0.05
"""Of the rows: so many repeat an identifier at least."""
ORDERED = 0.95
"""Of the rows: so many are no earlier than the one before (or no later)."""
FEWEST_DAYS = 10
GROUPED = "where rows of one are of one person or customer, keep them on one side of the holdout"
MOST_OFFERED = 3


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
    offers : tuple of Offer
        Options that may fit.
    """

    schema: Schema
    columns: Proposals
    target: TargetProposal
    leaks: Mapping[str, str]
    rows: int
    offers: tuple[Offer, ...] = ()

    def fields(self) -> dict[str, Field | None]:
        """Return how each column of the schema is read, None where it is as it stands."""
        fields = {name: proposal.field for name, proposal in self.columns.items()}
        fields[self.schema.target] = self.target.field
        return {name: fields[name] for name in self.schema.columns}

    def with_doubt(self, why: str) -> TableProposal:
        """Return the same with a further reason to look at the target."""
        target = replace(self.target, why=f"{self.target.why}; {why}", sure=False)
        schema = self.schema
        name = self.schema.target
        doubtful = schema.unconfirmed if name in schema.unconfirmed else (*schema.unconfirmed, name)
        return replace(self, target=target, schema=schema.model_copy(update={"unconfirmed": doubtful}))

    def mapping(self, names: Sequence[object]) -> dict[str, str | Field | None]:
        """Return how a table of these column names is read; see `columns_by_name`."""
        return columns_by_name(self.fields(), names)

    def mapping_of(self, table: pd.DataFrame) -> ColumnMapping:
        """Return how one table is read; its marks of decimals and thousands may be others than another table's."""
        mapping = self.mapping(list(table.columns))
        for name, entry in mapping.items():
            column = self.schema.columns[name]
            if isinstance(entry, Field) and column.is_number():
                mapping[name] = _likeliest_marks(table[entry.column], name, column, entry)
        return mapping


def _likeliest_marks(cells: pd.Series, name: str, column: Column, field: Field) -> Field:
    """Return the first reading by which no cell breaks a rule, or else the one by which the fewest do."""
    readings = [replace(field, decimal=one.decimal, thousands=one.thousands, censored=one.censored) for one in READINGS]
    # What was taken for thousands, or for decimals, is read so wherever it can be.
    if field.thousands in (".", ",", ""):
        readings.insert(1, field)
    unread = []
    for reading in readings:
        findings = read_column(cells, name, column, reading)[1]
        unread.append(sum(len(finding.rows) for finding in findings))
        if not unread[-1]:
            break
    return readings[unread.index(min(unread))]


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
    mapping: dict[str, str | Field | None] = {}
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
    tables: Mapping[str, pd.DataFrame],
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
        Instead of what the target's values say.
    leave_out : sequence of str
        Columns that are to be in no schema.
    wishes : Wishes, optional
        What a person says of columns.

    Raises
    ------
    UsageError
        If there is no such column, it is no date where one is needed, or the target cannot be predicted.
    """
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
    looked_at = [name for name in columns if name not in unread | {target}]
    proposals = {one: _forced(_proposed(one, columns[one], wishes, large), one, group, time) for one in looked_at}
    schema_columns = _select_columns(proposals, group)
    leaks = _take_leaks(columns, proposals, schema_columns, predicted, target, wishes)
    _refuse_unlearnable(schema_columns, leaks)
    schema = _schema(name, target, group, columns, schema_columns, predicted, leaks)
    free = {n: proposal for n, proposal in proposals.items() if n not in leaks and proposal.why != RESTARTS}
    offers = offers_of(columns, free, parts, group, time)
    return TableProposal(schema, proposals, predicted, leaks, len(columns[target]), offers)


def _refuse_unlearnable(schema_columns: Proposals, leaks: Mapping[str, str]) -> None:
    if not any(proposal.kind in FEATURES and name not in leaks for name, proposal in schema_columns.items()):
        raise UsageError(
            "no column can be learnt from: all are empty, identifiers, dates or texts, or tell the outcome themselves"
        )


def _select_columns(proposals: Proposals, group: str) -> dict[str, ColumnProposal]:
    """Return the columns that stay: identifiers tell a model nothing, and whoever needs one names it as the group."""
    return {n: p for n, p in proposals.items() if p.column and (p.kind != "id" or n == group)}


def _refuse_wishes(wishes: Wishes, named: Collection[str]) -> None:
    """Refuse to drop or keep a column that has another part already."""
    for option, columns in (("keep", wishes.keep), ("drop", wishes.drop)):
        if taken := [name for name in columns if name in named]:
            raise UsageError(f"{option}: column {taken[0]!r} is target, by, group or time, and no feature")


def _refuse_twice(*named: str) -> None:
    if twice := [name for name in named if name and named.count(name) > 1]:
        raise UsageError(f"column {twice[0]!r} is named twice: target, by, group and time each need one of their own")


def _schema(
    name: str,
    target: str,
    group: str,
    columns: Collection[str],
    schema_columns: Proposals,
    predicted: TargetProposal,
    leaks: Mapping[str, str],
) -> Schema:
    """Return the schema of the columns that are kept, in the order of the table."""
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
    """Return the columns that tell the outcome; `proposals` and `schema_columns` are changed accordingly."""
    # A heading alone makes an identifier of a column of few values: where it tells the outcome, that is the reason.
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
        why = f"{proposals[one].why}; it is kept as was wished, though {leaks.pop(one)}"
        proposals[one] = schema_columns[one] = replace(proposals[one], why=why, sure=False)
    return leaks


def _parts(tables: Mapping[str, pd.DataFrame], by: Sequence[pd.Series]) -> np.ndarray:
    """Return which table and site each row is of [rows]."""
    parts = np.repeat(np.arange(len(tables)), [len(table) for table in tables.values()])
    for cells in by:
        place = pd.factorize(plain_text(cells))[0]
        parts = parts * (int(place.max(initial=0)) + 2) + place + 1
    return parts


def _large_parts(parts: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each part that has enough of them to tell whether a column counts them."""
    order = np.argsort(parts, kind="stable")
    starts = np.flatnonzero(np.diff(parts[order])) + 1
    return [own for own in np.split(order, starts) if len(own) >= LEAST_COUNTED]


def _proposed(name: str, cells: pd.Series, wishes: Wishes, parts: Sequence[np.ndarray]) -> ColumnProposal:
    """Return what a column is taken for, where a person does not drop it; `parts` are the rows of each site."""
    if name in wishes.drop:
        return ColumnProposal(name, "left-out", "is dropped as was wished")
    guess = propose_column(name, cells, codes=wishes.codes_by_column.get(name, ()), keep=name in wishes.keep)
    if guess.kind != "number" or guess.column is None or name in wishes.keep:
        return guess
    field = guess.field or Field(name)
    # Of most columns the first part tells that they count nothing.
    if len(parts) < 2 or not all(
        count_rows(read_column(cells.iloc[own], name, guess.column, field)[0]) for own in parts
    ):
        return guess
    return ColumnProposal(name, "id", RESTARTS, sure=False, column=Column(kind="id"), feature=guess)


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


def together(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Return the columns of all tables, each over all rows; a table that lacks one has no value of it."""
    names = dict[str, str]()
    parts = list[dict[str, pd.Series]]()
    for table in tables.values():
        parts.append({})
        for place, name in enumerate(table.columns):
            plain = plain_name(name) or str(name)
            names.setdefault(plain, _schema_name(str(name)))
            parts[-1].setdefault(plain, table.iloc[:, place])
    columns = {}
    for plain, name in names.items():
        one = next(own[plain] for own in parts if plain in own)
        # Of the same type, so that dates and numbers stay what they are.
        typed = one.astype(object) if one.dtype.kind == "b" else one
        empty = typed.iloc[:0]
        cells = [own.get(plain, empty.reindex(range(len(of)))) for own, of in zip(parts, tables.values(), strict=True)]
        columns[name] = pd.concat(cells, ignore_index=True) if cells[1:] else cells[0]
    return columns


def check_alike(tables: Mapping[str, pd.DataFrame], target: str) -> None:
    """Refuse tables that write the classes of a target in other ways.

    Raises
    ------
    UsageError
        If one table has no class in common with the others: its codes would be taken for other classes.
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
            raise UsageError(
                f"target: column {target!r} of table {name!r} has no value that the other tables have: write its "
                "classes alike in all of them, or map that table afterwards with flfed site new"
            )


def _forced(proposal: ColumnProposal, name: str, group: str, time: str) -> ColumnProposal:
    """Return the kind that a person gave a column."""
    if name == group:
        return ColumnProposal(name, "id", "rows of one belong together", True, Column(kind="id"), proposal.field)
    if name == time and proposal.kind != "date":
        raise UsageError(f"time: column {name!r} holds no dates that can be read: {proposal.why}")
    return proposal


@dataclass(frozen=True)
class Wishes:
    """What a person says of columns.

    Attributes
    ----------
    keep : collection of str
        Columns that are features whatever they look like.
    drop : collection of str
        Columns that are in no schema.
    codes : tuple of str
        What stands for "not known" in every column.
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
        """Return wishes for columns that are there.

        Parameters
        ----------
        columns : iterable of str
        keep, drop : sequence of str
            Names of columns, in other case or with other signs too.
        missing : sequence of str
            Each a value, or `COLUMN=VALUE` of one column.

        Raises
        ------
        UsageError
            If a column is not there, or is to be kept and to be dropped.
        """
        names = list(columns)
        _check_texts("keep", keep, "COLUMN")
        _check_texts("drop", drop, "COLUMN")
        _check_texts("missing", missing, "VALUE")
        keep_columns = [column_named(word, "keep", names) for word in keep]
        dropped = [column_named(word, "drop", names) for word in drop]
        if both := set(keep_columns) & set(dropped):
            raise UsageError(f"column {min(both)!r} is to be kept and to be dropped: say one of them")
        by_column = dict[str, tuple[str, ...]]()
        for word in missing:
            column, value = _column_and_value(word, names)
            by_column[column] = (*by_column.get(column, ()), value)
        return cls(tuple(keep_columns), tuple(dropped), by_column.pop("", ()), by_column)

    def refuse_absent_codes(self, tables: Sequence[pd.DataFrame]) -> None:
        """Refuse a code for "not known" that no cell has: it is mistyped, or of another column."""
        for column, codes in {"": self.codes, **self.codes_by_column}.items():
            for code in codes:
                if not any(_has_code(table, column, code) for table in tables):
                    where = f" of column {column!r}" if column else ""
                    raise UsageError(f"missing: no cell{where} has {code!r}")

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
        raise UsageError(f"{option}: give texts, such as [{example!r}]")


def _has_code(table: pd.DataFrame, column: str, code: str) -> bool:
    """Tell whether a column, or any where none is named, has a cell with a code."""
    for name in table.columns:
        if not column or plain_name(name) == plain_name(column):
            texts = plain_text(table[name].dropna()).dropna()
            if any(is_one_of(text, (code,)) for text in texts):
                return True
    return False


def _column_and_value(word: str, names: Sequence[str]) -> tuple[str, str]:
    """Return column and value of `COLUMN=VALUE`; the column is empty where a value is meant for all."""
    if "=" not in word:
        return "", word.strip()
    places = [place for place, sign in enumerate(word) if sign == "="]
    plain = {plain_name(name) for name in names}
    # A heading may have the sign itself.
    place = next((one for one in reversed(places) if plain_name(word[:one]) in plain), places[0])
    return column_named(word[:place].strip(), "missing", names), word[place + 1 :].strip()


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
    hint = nearest(word, names)
    # A row that was taken for names has numbers among them.
    if any(map(is_number_text, names)):
        hint = f": if its first line holds no names, give those of its {len(names)} columns with --names"
    raise UsageError(f"{option}: {table} has no column {word!r}{hint}")


@dataclass(frozen=True)
class Offer:
    """An option that may fit, which nobody applies but a person.

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
        """Return it in one sentence, with the option as it is written."""
        return f"{self.why}: --{self.option} {shlex.quote(self.column)}"


def offers_of(columns: Columns, proposals: Proposals, parts: np.ndarray, group: str, time: str) -> tuple[Offer, ...]:
    """Return the options that may fit a table.

    Parameters
    ----------
    columns : mapping of name to Series
    proposals : mapping of name to ColumnProposal
        Those that may be offered.
    parts : array [rows]
        Which file and site each row is of.
    group, time : str
        As a person named them; for one that is named none is offered.
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
        # A heading of people tells them from places, however many rows one has.
        few_each = rows <= MOST_ROWS_EACH * distinct or PERSON_WORD.search(words)
        if named and repeats and distinct >= FEWEST_VALUES and few_each:
            yield Offer("group", name, f"{rows} rows have {distinct} values of {name!r}; {GROUPED}")


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
            yield Offer("time", name, f"Rows stand in the order of {name!r}; to predict later rows from earlier ones")
