"""Oddities for people to examine in a table that breaks no rule.

Identifiers and values of a category that are written in two ways count as two. Rows may repeat others. Comments, a
repeated header, and sums at the end are no rows.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.columns import (
    FEWEST,
    far_from_all,
    first_of_each,
    odd_dates,
    once_a_block,
    repeated_codes,
    rows_alike,
    rows_without_value,
    unit_change,
)
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.arrow_reader import may_hold
from flfed.rows.data.parsing.cells import unquoted
from flfed.rows.data.parsing.fields import HIDDEN, ColumnMapping, alike, own_name, plain_name
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.sources import UNENDED
from flfed.words import counted, render

EMPTY = "is empty"


@dataclass(frozen=True)
class Note:
    """One oddity of a column or table.

    `column` is "table" for the whole; `text` describes the oddity with a count and no cell.
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
    missing: Mapping[str, int] | None = None,
) -> list[Note]:
    """List the oddities of a table that its mapping accepted.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.
    table : DataFrame
        Mapped, in the schema's columns and the order of `raw`.
    schema : Schema
    mapping : mapping of schema column to own column, Field or None
    today : date, optional
        Later dates are reported; default: the day of the call.
    missing : mapping of schema column to int, optional
        Its missing cells, where they were counted before.
    """
    missing = missing or missing_cells(table, schema)
    notes = _notes("table", _of_the_whole(raw, table, mapping))
    fields = {name: mapping.get(name, name) for name in schema.columns}
    read = set(map(own_name, fields.values())) & set(raw.columns)
    unread = [other for other in raw.columns if other not in read]
    notes += _notes("table", hidden_and_signed(raw, read))
    for name in schema.columns:
        own = own_name(fields[name])
        # Another column of nearly the same name may be the intended one.
        notes += _notes(name, _of_names(own, unread))
        if own in read:
            notes += _notes(name, quoted_texts(raw[own]))
            empty = table[name].isna().to_numpy() if len(raw) == len(table) else np.ones(len(raw), dtype=bool)
            if schema.columns[name].is_number() and (many := _infinite(raw.loc[empty, own])):
                notes.append(Note(name, render("findings.column.infinite", rows=count_in_words(many))))
            notes += _notes(name, _of_cells(name, table, schema, today or date.today(), missing[name]))
    return notes


def missing_cells(table: pd.DataFrame, schema: Schema) -> dict[str, int]:
    """Return the number of missing cells of each of the schema's columns."""
    return {name: int(table[name].isna().sum()) for name in schema.columns}


def _notes(place: str, texts: Iterable[str]) -> list[Note]:
    return [Note(place, text) for text in texts]


def _of_names(own: str | None, unread: Sequence[object]) -> Iterator[str]:
    if own is not None and (others := alike(own, unread)):
        yield render("findings.column.similar", others=", ".join(map(repr, others)), own=own)


def quoted_texts(raw_cells: pd.Series) -> Iterator[str]:
    """Yield how many cells of a source's column are written as ="0123"; they are read, and so no rule is broken."""
    if raw_cells.dtype.kind in "fiubM" or not may_hold(raw_cells, '="'):
        return
    if many := sum(isinstance(cell, str) and unquoted(cell.strip()) != cell.strip() for cell in raw_cells):
        yield render("findings.column.quoted", rows=count_in_words(many))


def _infinite(raw_cells: pd.Series) -> int:
    """Return how many cells of a source's column are infinite numbers."""
    numbers = pd.to_numeric(plain_text(raw_cells).dropna().astype(object), errors="coerce")
    return int(np.isinf(numbers.to_numpy(dtype=float)).sum())


def _is_compared(name: object, mapping: ColumnMapping) -> bool:
    """Return whether equal texts of a column have equal values: marks of thousands may stand in one of two."""
    return not getattr(mapping.get(str(name)), "thousands", None)


def _of_the_whole(raw: pd.DataFrame, table: pd.DataFrame, mapping: ColumnMapping) -> Iterator[str]:
    if raw.attrs.get(UNENDED):
        yield render("findings.table.unended")
    # Texts are compared only of rows whose mapped cells are all missing, or those of another row.
    read = [name for name in table if _is_compared(name, mapping)]
    whole = len(raw) != len(table)
    rows = np.arange(len(raw))
    blank = rows if whole else rows_without_value(table)
    if empty := int(_texts_of(raw.iloc[blank]).isna().all(axis=1).sum()):
        yield render("findings.table.empty", rows=count_in_words(empty))
    alike = rows if whole else rows_alike(table[read])
    # With few columns, rows are equal by chance and no copies.
    many = int(_texts_of(raw.iloc[alike]).dropna(how="all").duplicated().sum())
    if many and many > TIMES * pairs_by_chance(_texts_of(raw)):
        yield render("findings.table.copies", rows=count_in_words(many))


def _texts_of(raw: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in range(raw.shape[1])})


def _of_cells(name: str, table: pd.DataFrame, schema: Schema, today: date, missing: int) -> Iterator[str]:
    cells = table[name]
    # Most columns are complete, and need no copy.
    present_cells = cells.dropna() if missing else cells
    column = schema.columns[name]
    if column.kind == "id":
        yield from _of_identifiers(name, present_cells, len(cells), schema)
        return
    if column.leak:
        return
    people = table[schema.group] if schema.group else None
    if column.values:
        codes, texts = pd.factorize(present_cells)
        if twice := rows_in_other_case(list(map(str, texts)), np.bincount(codes, minlength=len(texts))):
            yield render("findings.column.cases", rows=twice)
    yield from _of_empty(cells, len(present_cells), column, schema.group, people)
    if column.kind == "target" and not column.is_number():
        return
    yield from _of_spread(present_cells, len(cells), rare=column.kind in ("flag", "category"))
    yield from _of_values(cells, present_cells, column, today)


def _of_values(cells: pd.Series, present_cells: pd.Series, column: Column, today: date) -> Iterator[str]:
    """Yield the oddities of a column of dates or numbers."""
    if column.kind == "date":
        yield from odd_dates(present_cells, today)
    elif not column.is_number():
        return
    if many := far_from_all(present_cells):
        yield render("findings.column.far", rows=count_in_words(many))
    elif column.is_number() and (many := repeated_codes(present_cells)):
        yield render("findings.column.codes", rows=count_in_words(many))
    if column.is_number() and (change := unit_change(cells)):
        yield str(change)
    # Scaled by the schema, such a column's inputs are nearly equal; scaled by sums, they lose three digits and more.
    if column.range is not None and column.typical is None and len(present_cells) >= FEWEST:
        low, high = column.scale(np.array(column.range))
        if 0 < np.ptp(column.scale(present_cells.to_numpy())) < (high - low) / 1000:
            yield render("findings.column.wide", low=column.range[0], high=column.range[1])


def _of_empty(cells: pd.Series, filled: int, column: Column, group: str, people: pd.Series | None) -> Iterator[str]:
    if filled == len(cells):
        return
    if blanks := once_a_block(cells, number=column.is_number() or column.kind == "date"):
        yield render("findings.column.block", rows=count_in_words(blanks))
    elif column.kind in ("flag", "category") and people is not None and (blanks := first_of_each(cells, people)):
        yield render("findings.column.first", rows=count_in_words(blanks), group=group)


RARE = 500
LARGE = 10_000
"""In tables with fewer rows, or with more, a flag or category of a single row is usual."""


def _of_spread(present_cells: pd.Series, rows: int, *, rare: bool) -> Iterator[str]:
    """Yield the oddity of a column without a value, or with hardly more than one."""
    if rows and not len(present_cells):
        yield EMPTY
    elif len(present_cells) >= FEWEST:
        # A value in all rows but one is in the first or second.
        values = present_cells.to_numpy()
        others = min(int((values != values[at]).sum()) for at in (0, 1))
        if not others:
            yield render("findings.column.constant")
        elif others == 1 and (not rare or RARE <= len(present_cells) <= LARGE):
            yield render("findings.column.nearly")


def _of_identifiers(name: str, present_cells: pd.Series, rows: int, schema: Schema) -> Iterator[str]:
    codes, texts = pd.factorize(present_cells.to_numpy())
    sizes = pd.Series(np.bincount(codes, minlength=len(texts)), index=texts)
    yield from odd_identifiers(present_cells, sizes)
    if name == schema.group:
        if len(present_cells) >= FEWEST and 2 * int(sizes.max()) > rows:
            yield render("findings.column.frequent")
    elif not schema.group and len(sizes) < len(present_cells) < 2 * len(sizes):
        yield render("findings.column.repeated", rows=count_in_words(len(present_cells) - len(sizes)))


LEAST = 5
"""Least number of shorter identifiers, where none of them also occurs with its zeros."""


def odd_identifiers(present_cells: pd.Series, sizes: pd.Series | None = None) -> Iterator[str]:
    """Yield the oddities in the spelling of identifiers.

    They lost leading zeros in some rows, or are written in upper and lower case. No identifier is changed.

    Parameters
    ----------
    present_cells : Series of str, without gaps
    sizes : Series of int, optional
        Rows of each identifier, if they were counted before.

    Examples
    --------
    >>> list(odd_identifiers(pd.Series(["0071", "0342", "71", "342"] * 5)))[0].partition(":")[0]
    '10 rows have identifiers without the leading zeros that others have'
    """
    if len(present_cells) < FEWEST:
        return
    sizes = present_cells.value_counts(sort=False) if sizes is None else sizes
    texts = list(map(str, sizes.index))
    # A million texts are searched much faster as one.
    joined = "\n".join(["", *texts])
    if "\n0" in joined and (rows := _without_zeros(sizes)):
        yield render("findings.column.zeros", rows=count_in_words(rows))
    folded = joined.casefold().split("\n")[1:]
    if len(folded) > len(texts):  # a line break within one
        folded = list(map(str.casefold, texts))
    # Usually there are none, which a set shows soonest.
    if len(set(folded)) == len(folded):
        return
    if people := sum(spellings > 1 for spellings in Counter(folded).values()):
        yield render("findings.column.capitals", identifiers=count_in_words(people))


def _without_zeros(sizes: pd.Series) -> int:
    """Count the rows whose identifiers lost their leading zeros; 0 without evidence."""
    zeros = [text for text in map(str, sizes.index) if text.startswith("0")]
    with_zeros = {text for text in zeros if text.isdecimal() and text.strip("0")}
    if not with_zeros:
        return 0
    digits = sizes[list(map(str.isdecimal, map(str, sizes.index)))]
    lost = {text.lstrip("0") for text in with_zeros}.intersection(digits.index)
    # Where all identifiers with zeros have one length, a shorter one without them lost its own.
    longest = max(map(len, with_zeros))
    if longest == min(map(len, with_zeros)):
        shorter = [text for text in digits.index if len(text) < longest]
        if len(shorter) >= LEAST:
            lost.update(shorter)
    return int(digits[list(lost)].sum())


_RUN = re.compile(r"\d+|[^\W\d_]+|\s+|[\W_]")
MOST_RUNS = 8
"""Longest form that is described: a hash has many runs of digits and letters."""


def written_as(identifiers: Iterable[str]) -> str:
    """Return the three most frequent forms of some identifiers, without any of their digits and letters.

    Examples
    --------
    >>> written_as(["00071", "00342", "10342"]), written_as(["P 7", "P 8"])
    ('5 digits with leading zeros or 5 digits', '1 capital letter + blank + 1 digit')
    """
    forms = Counter[str]()
    for text in identifiers:
        runs = _RUN.findall(text)
        forms[" + ".join(map(_form, runs)) if len(runs) <= MOST_RUNS else counted(len(text), "sign")] += 1
    return " or ".join(form for form, _ in forms.most_common(3)) or "no identifier"


def _form(run: str) -> str:
    if not run.isalnum():
        return "blank" if run.isspace() else repr(run)
    kind = "digit" if run.isdecimal() else "capital letter" if run.isupper() else "letter"
    return counted(len(run), kind) + " with leading zeros" * (len(run) > 1 and run[0] == "0")


TIMES = 3
"""Copies are reported where they are so many times the pairs of rows that are alike by chance."""


def pairs_by_chance(cells: pd.DataFrame) -> float:
    """Return the expected number of equal pairs of rows, for independent columns."""
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
    """Count the rows whose value differs from a more frequent one only in case or blanks; "" for none.

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
"""Largest number, or largest share, of rows of one foreign kind. Where there are more, they are values."""
LAST = 3
"""Rows at the end that may hold sums."""
HEADER = 0.5
"""Least share of a row's cells that repeat the names of their columns."""
_COMMENT = re.compile(r"\s*(#|//|%)+\s*[^\W\d_].*", re.DOTALL)
_SUM = re.compile(
    r"(grand |sub)?totals?|sums?|averages?|means?|medians?|count|summe|gesamt|insgesamt|mittelwert|durchschnitt|anzahl"
    r"|totaal|gemiddelde|somme|moyenne|ensemble|totalt|i alt|gjennomsnitt|summa|medel|yhteensä|keskiarvo|totale",
    re.IGNORECASE,
)


SIGNED_ROWS = 200
"""First values of a column in which signs beside numbers are looked for."""
_SIGNED = re.compile(r"(?:[€$£¥]|EUR|USD|CHF|GBP)\s*-?\d[\d.,'\s]*|-?\d[\d.,'\s]*(?:[€$£¥%‰]|EUR|USD|CHF|GBP)")


def hidden_and_signed(raw: pd.DataFrame, read: Collection[object]) -> Iterator[str]:
    """Yield how many rows Excel hides, and which of the columns `read` have numbers with a sign, as of a currency."""
    if hidden := raw.attrs.get(HIDDEN):
        yield render("findings.table.hidden", rows=hidden)
    signed = []
    for name, cells in raw.items():
        if name in read and cells.dtype.kind not in "fiubM":
            texts = plain_text(cells.dropna().head(SIGNED_ROWS)).dropna().str.strip()
            forms = [re.sub(r"\d+", "9", text) for text in texts if _SIGNED.fullmatch(text)]
            if 2 * len(forms) > len(texts):
                signed.append(f"{name!r} ({forms[0]})")
    if signed:
        yield render("findings.table.signs", columns=", ".join(signed))


def foreign_rows(raw: pd.DataFrame) -> Iterator[str]:
    """Yield which rows hold no data, by their number from 1, without their cells.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.

    Examples
    --------
    >>> ages = [str(age) for age in range(20, 60)]
    >>> table = pd.DataFrame({"name": [*"ab" * 20, "Total"], "age": [*ages, "1580"]})
    >>> list(foreign_rows(table))
    ['row 41, at the end, holds sums or counts: remove it']
    """
    words = [place for place in range(raw.shape[1]) if raw.iloc[:, place].dtype.kind not in "fiubM"]
    if not words or not len(raw):
        return
    comments = np.zeros(len(raw), dtype=bool)
    if any(may_hold(raw.iloc[:, words[0]], sign) for sign in "#/%"):
        texts = plain_text(raw.iloc[:, words[0]])
        is_comment = texts.map(lambda text: bool(text and _COMMENT.fullmatch(text)))
        comments = is_comment.to_numpy(dtype=bool)
    matches = _named_cells(raw, words)
    headers = (matches >= 2) & (matches >= HEADER * raw.shape[1])
    most = max(MOST, SHARE * len(raw))
    for kind, rows in (("comment", comments), ("header", headers & ~comments)):
        if 0 < rows.sum() <= most:
            first = str(np.flatnonzero(rows)[0] + 1)
            if rows.sum() > 1:
                first = render("findings.table.several", first=first, more=rows.sum() - 1)
            yield render(f"findings.foreign.{kind}", row=first)
    yield from _sums(raw, words)


def _named_cells(raw: pd.DataFrame, words: Sequence[int]) -> np.ndarray:
    """Count the cells of each row at the places `words` that hold their column's name [rows]."""
    matches = np.zeros(len(raw), dtype=int)
    for place in words:
        name = plain_name(raw.columns[place])
        if name and may_hold(raw.iloc[:, place], name):
            texts = plain_text(raw.iloc[:, place])
            same = [text for text in texts.dropna().unique() if plain_name(text) == name]
            matches += texts.isin(same).to_numpy()
    return matches


def _sums(raw: pd.DataFrame, words: Sequence[int]) -> Iterator[str]:
    """Yield which of the last rows holds sums, by a word that occurs nowhere above."""
    first = max(0, len(raw) - LAST)
    last = {place: plain_text(raw.iloc[first:, place]).tolist() for place in words}
    for at in range(len(raw) - first):
        for place, texts in last.items():
            text = texts[at]
            is_sum = isinstance(text, str) and _SUM.fullmatch(text.strip(" :.="))
            if is_sum and (plain_text(raw.iloc[:, place]) == text).sum() <= LAST:
                yield render("findings.foreign.sums", row=first + at + 1)
                return
