"""What people should look at in a table where its mapping reported nothing.

Identifiers and values of a category that are written in two ways, so that they count as two; rows that repeat others;
and rows that are none: comments, the names of the columns once more, and sums at the end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.columns import (
    FEWEST,
    far_from_all,
    first_of_each,
    half_a_unit,
    odd_dates,
    once_a_block,
    repeated_codes,
    row_of_means,
    unit_change,
)
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import ColumnMapping, alike, own_name, plain_name
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.sources import UNENDED

EMPTY = "is empty"
MAP_TO_NONE = ": map it to None if the site does not have it"


@dataclass(frozen=True)
class Note:
    """One odd thing about a column or table.

    `column` is "table" for the whole; `text` says what it is, with a count and no cell.
    """

    column: str
    text: str


def oddities(
    raw: pd.DataFrame,
    table: pd.DataFrame,
    schema: Schema,
    mapping: ColumnMapping,
    *,
    today: date | None = None,
) -> list[Note]:
    """List the oddities of a table.

    They are what people should look at where the mapping reported nothing.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.
    table : DataFrame
        Mapped, in the schema's columns and the order of `raw`.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
    today : date, optional
        Later dates are told; default: the day of the call.
    """
    texts = pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in range(raw.shape[1])})
    notes = _notes("table", _of_the_whole(raw, texts))
    fields = {name: mapping.get(name, name) for name in schema.columns}
    read = set(map(own_name, fields.values())) & set(raw.columns)
    unread = [other for other in raw.columns if other not in read]
    for name in schema.columns:
        own = own_name(fields[name])
        # Another column of nearly the same name may be the one that was meant.
        notes += _notes(name, _of_names(own, unread))
        if own in read:
            notes += _notes(name, _of_cells(name, table, schema, today or date.today()))
    notes += _notes("table", contradictions(table, schema))
    if len(raw) == len(table) and row_of_means(_numbers(texts, raw, table, schema, fields)):
        notes.append(Note("table", "the last row holds the means or sums of those above it: remove it"))
    return notes


def _notes(place: str, texts: Iterable[str]) -> list[Note]:
    return [Note(place, text) for text in texts]


def _of_names(own: str | None, unread: Sequence[object]) -> Iterator[str]:
    if own is not None and (others := alike(own, unread)):
        yield f"the table has {', '.join(map(repr, others))} too; {own!r} is read"


def _of_the_whole(raw: pd.DataFrame, texts: pd.DataFrame) -> Iterator[str]:
    if raw.attrs.get(UNENDED):
        yield "the last line of the file has no end: is the file whole?"
    if empty := int(texts.isna().all(axis=1).sum()):
        yield f"{count_in_words(empty)} rows are empty throughout: remove them"
    # Few columns give equal rows by chance, which are no copies.
    many = int(texts.dropna(how="all").duplicated().sum())
    if many > TIMES * pairs_by_chance(texts):
        yield f"{count_in_words(many)} rows are copies of another row in every column: was something exported twice?"


def _of_cells(name: str, table: pd.DataFrame, schema: Schema, today: date) -> Iterator[str]:
    cells = table[name]
    present_cells = cells.dropna()
    column = schema.columns[name]
    if column.kind == "id":
        yield from _of_identifiers(name, present_cells, len(cells), schema)
        return
    if column.leak:
        return
    people = table[schema.group] if schema.group else None
    if column.values:
        sizes = present_cells.astype(str).value_counts()
        if twice := rows_in_other_case(list(sizes.index), sizes.to_numpy()):
            yield f"{twice} rows have a value that differs from another one in case or blanks alone: map both to one"
    yield from _of_empty(cells, column, schema.group, people)
    if column.kind == "target" and not column.is_number():
        return
    yield from _of_spread(present_cells, len(cells), rare=column.kind in ("flag", "category"))
    yield from _of_values(cells, column, today, people)


def _of_values(cells: pd.Series, column: Column, today: date, people: pd.Series | None) -> Iterator[str]:
    """Yield what is odd in a column of dates or numbers."""
    present_cells = cells.dropna()
    if column.kind == "date":
        yield from odd_dates(present_cells, today, people)
    elif not column.is_number():
        return
    if many := far_from_all(present_cells):
        yield f"{count_in_words(many)} rows have one value that is far from all others: a code for 'not known'?"
    elif column.is_number() and (many := repeated_codes(present_cells)):
        rows = count_in_words(many)
        yield f"{rows} rows have values such as 77, 88 or 999 that few others are near: codes for 'not known'?"
    if column.is_number() and (change := unit_change(cells)):
        yield f"{change} ({count_in_words(change.rows)} rows)"


def _of_empty(cells: pd.Series, column: Column, group: str, people: pd.Series | None) -> Iterator[str]:
    if blanks := once_a_block(cells, number=column.is_number() or column.kind == "date"):
        yield f"{count_in_words(blanks)} rows are empty, as if it stood once a block (merged cells?): fill each cell"
    elif column.kind in ("flag", "category") and people is not None and (blanks := first_of_each(cells, people)):
        yield f"{count_in_words(blanks)} rows are empty, all but the first of each {group!r}: fill each cell"


RARE = 500
LARGE = 10_000
"""One row alone may well have a flag, or be of a category, in so few rows and in so many."""


def _of_spread(present_cells: pd.Series, rows: int, *, rare: bool) -> Iterator[str]:
    """Yield whether a column has no value, or hardly more than one."""
    if rows and not len(present_cells):
        yield EMPTY + MAP_TO_NONE
    elif len(present_cells) >= FEWEST:
        sizes = present_cells.value_counts()
        if len(sizes) == 1:
            yield "has the same value in every row that has one"
        elif len(present_cells) - int(sizes.iloc[0]) == 1 and (not rare or RARE <= len(present_cells) <= LARGE):
            yield "has the same value in every row but one"


def _of_identifiers(name: str, present_cells: pd.Series, rows: int, schema: Schema) -> Iterator[str]:
    yield from odd_identifiers(present_cells)
    sizes = present_cells.value_counts()
    if name == schema.group:
        if len(sizes) and len(present_cells) >= FEWEST and 2 * int(sizes.iloc[0]) > rows:
            yield "one identifier stands in more than half of the rows"
    elif not schema.group and len(sizes) < len(present_cells) < 2 * len(sizes):
        twice = count_in_words(len(present_cells) - len(sizes))
        yield f"{twice} rows repeat an identifier, and the schema does not keep rows of one together"


def _numbers(
    texts: pd.DataFrame,
    raw: pd.DataFrame,
    table: pd.DataFrame,
    schema: Schema,
    fields: ColumnMapping,
) -> list[tuple[pd.Series, float]]:
    """Return the columns of numbers, each with half a unit of its last cell's last decimal place."""
    numeric_columns = []
    for name, column in schema.columns.items():
        field = fields[name]
        own = own_name(field)
        if column.is_number() and own is not None and own in raw.columns and len(texts):
            last = texts.iat[len(texts) - 1, list(raw.columns).index(own)]
            scale = getattr(field, "multiply", 1.0)
            numeric_columns.append((table[name], half_a_unit(str(last), scale=scale)))
    return numeric_columns


LEAST = 5
"""Shorter identifiers at least, where none of them stands with its zeros too."""


def odd_identifiers(present_cells: pd.Series) -> Iterator[str]:
    """Yield what is odd in how identifiers are written.

    They lost leading zeros in a part of the rows, or stand in upper and lower case. None of them is changed.

    Parameters
    ----------
    present_cells : Series of str, without gaps

    Examples
    --------
    >>> list(odd_identifiers(pd.Series(["0071", "0342", "71", "342"] * 5)))[0].partition(" (")[0]
    '10 rows have identifiers without the leading zeros that others have'
    """
    if len(present_cells) < FEWEST:
        return
    sizes = present_cells.value_counts()
    if rows := _without_zeros(sizes):
        many = count_in_words(rows)
        yield (
            f"{many} rows have identifiers without the leading zeros that others have (export them as text): "
            "one person may count as two"
        )
    folded = sizes.index.map(str).str.casefold().value_counts()
    if people := int((folded > 1).sum()):
        yield (
            f"{count_in_words(people)} identifiers stand in upper and in lower case, and count as two each: "
            "write them in one way"
        )


def _without_zeros(sizes: pd.Series) -> int:
    """Count the rows whose identifiers lost their leading zeros; 0 where nothing tells so."""
    digits = sizes[[isinstance(text, str) and text.isdecimal() for text in sizes.index]]
    with_zeros = {text for text in digits.index if text.startswith("0") and text.strip("0")}
    if not with_zeros:
        return 0
    bare = {text.lstrip("0") for text in with_zeros}
    lost = bare.intersection(digits.index)
    # Of one length, all that have zeros; a shorter one without them lost its own.
    longest = max(map(len, with_zeros))
    if longest == min(map(len, with_zeros)):
        shorter = [text for text in digits.index if len(text) < longest]
        if len(shorter) >= LEAST:
            lost.update(shorter)
    return int(digits[list(lost)].sum())


TIMES = 3
"""Copies are told where they are so many times the pairs of rows that are alike by chance."""


def contradictions(table: pd.DataFrame, schema: Schema) -> Iterator[str]:
    """Yield how many rows are like another one in all but their class.

    Parameters
    ----------
    table : DataFrame
        In the schema's columns.
    schema : Schema
        Of a regression nothing is told: what is measured twice differs.
    """
    others = _compared_columns(schema)
    named = [name for name in others if schema.columns[name].kind == "id" and table[name].notna().any()]
    # Without identifiers two people may well be alike in all that a table has.
    if schema.task == "regression" or not named:
        return
    candidates = table[table[schema.target].notna() & table[others].notna().any(axis=1)]
    alike = candidates[candidates.duplicated(others, keep=False)]
    if alike.empty:
        return
    classes = alike.groupby(others, dropna=False, observed=True)[schema.target].transform("nunique")
    many = int((classes > 1).sum())
    if many > 2 * TIMES * pairs_by_chance(candidates[others]):
        yield (
            f"{count_in_words(many)} rows are like another row in everything but {schema.target!r}: "
            "which of them holds?"
        )


def _compared_columns(schema: Schema) -> list[str]:
    others = [name for name in schema.columns if name != schema.target and not schema.columns[name].leak]
    if schema.group:  # other identifiers may number the rows
        others = [name for name in others if name == schema.group or schema.columns[name].kind != "id"]
    return others


def pairs_by_chance(cells: pd.DataFrame) -> float:
    """Return the expected number of equal pairs of rows.

    It is that of columns that have nothing to do with each other.
    """
    alike_in_each = [
        float(np.square(column.value_counts(normalize=True, dropna=False)).sum()) for _, column in cells.items()
    ]
    return len(cells) * (len(cells) - 1) / 2 * math.prod(alike_in_each)


def spelling(text: str) -> str:
    """Return a text without case and blanks.

    Examples
    --------
    >>> spelling(" Not  known "), spelling("MALE")
    ('not known', 'male')
    """
    return " ".join(text.split()).casefold()


def rows_in_other_case(texts: Sequence[str], counts: np.ndarray) -> str:
    """Count the rows whose value differs from a more frequent one in case or blanks alone; "" where none does.

    Parameters
    ----------
    texts : sequence of str
        Distinct values.
    counts : int array [texts]

    Examples
    --------
    >>> rows_in_other_case(["Male", "male", "MALE", "female"], np.array([200, 30, 8, 250]))
    '38'
    >>> rows_in_other_case(["male", "female"], np.array([200, 250]))
    ''
    """
    most: dict[str, int] = {}
    rows = 0
    for text, count in zip(texts, counts.tolist(), strict=True):
        plain = spelling(text)
        if plain in most:
            rows += min(count, most[plain])
        most[plain] = max(count, most.get(plain, 0))
    return count_in_words(rows) if rows else ""


MOST = 5
SHARE = 0.01
"""Rows of one kind at most, or this share of all: of more they are values."""
LAST = 3
"""Rows at the end that may hold sums."""
HEADER = 0.5
"""Of a row's cells: so many are the names of their columns."""
_COMMENT = re.compile(r"\s*(#|//|%)+\s*[^\W\d_].*", re.DOTALL)
_SUM = re.compile(
    r"(grand |sub)?totals?|sums?|averages?|means?|medians?|count|summe|gesamt|insgesamt|mittelwert|durchschnitt|anzahl"
    r"|totaal|gemiddelde|somme|moyenne|ensemble|totalt|i alt|gjennomsnitt|summa|medel|yhteensä|keskiarvo|totale",
    re.IGNORECASE,
)


def foreign_rows(raw: pd.DataFrame) -> Iterator[str]:
    """Yield which rows belong to no table, by their number from 1.

    None of their cells is quoted.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.

    Examples
    --------
    >>> ages = [str(age) for age in range(20, 60)]
    >>> table = pd.DataFrame({"name": [*"ab" * 20, "Total"], "age": [*ages, "1580"]})
    >>> list(foreign_rows(table))
    ['row 41, at the end, is one of sums or counts: remove it']
    """
    words = [place for place in range(raw.shape[1]) if raw.iloc[:, place].dtype.kind not in "fiubM"]
    if not words or not len(raw):
        return
    texts = pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in words})
    comments = texts[words[0]].map(lambda text: bool(text and _COMMENT.fullmatch(text))).to_numpy(dtype=bool)
    matches = _named_cells(raw, texts)
    headers = (matches >= 2) & (matches >= HEADER * raw.shape[1])
    most = max(MOST, SHARE * len(raw))
    for rows, what in ((comments, "a comment"), (headers & ~comments, "the names of the columns once more")):
        if 0 < rows.sum() <= most:
            more = f" (and {rows.sum() - 1} more)" if rows.sum() > 1 else ""
            yield f"row {np.flatnonzero(rows)[0] + 1}{more} is {what}: remove it"
    yield from _sums(texts, len(raw))


def _named_cells(raw: pd.DataFrame, texts: pd.DataFrame) -> np.ndarray:
    """Count the cells of each row that hold the name of their column [rows]."""
    matches = np.zeros(len(raw), dtype=int)
    for place in map(int, texts.columns):
        if name := plain_name(raw.columns[place]):
            same = [text for text in texts[place].dropna().unique() if plain_name(text) == name]
            matches += texts[place].isin(same).to_numpy()
    return matches


def _sums(texts: pd.DataFrame, rows: int) -> Iterator[str]:
    """Yield which of the last rows is one of sums, by a word that stands nowhere above."""
    for place in range(max(0, rows - LAST), rows):
        for column in texts:
            text = texts[column].iat[place]
            is_sum = isinstance(text, str) and _SUM.fullmatch(text.strip(" :.="))
            if is_sum and (texts[column] == text).sum() <= LAST:
                yield f"row {place + 1}, at the end, is one of sums or counts: remove it"
                return
