"""Cells of one column: distinct texts with counts, their reading as numbers, and codes for "not known"."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from typing import Literal

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.columns import FAR, MOST, WIDE, is_code
from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.fields import Field, plain_name
from flfed.rows.data.schema import LARGEST, Column
from flfed.words import render

Columns = Mapping[str, pd.Series]
"""Columns of all tables together, by name."""
MOST_CODES = 3
"""Largest number of codes in a column."""
NEIGHBOURS = 5
HEAPED = 5
"""A heap of nines has so many times the rows of each of so many values next to it."""
FENCES = 3
"""Number of interquartile ranges between the quartiles and Tukey's outer fences."""
FARTHEST = 20
"""An amount is outside the drafted range where its distance from the median is so many times that of all others."""
STEEPEST = 10
"""Its distance's logarithm is also beyond all others by so many times the mean of the tail (Hill's estimate)."""
TAIL = 0.05
"""Share of rows that are the tail next to it."""
FEW_BELOW = 0.01
"""Largest share of rows below 0 in a column whose other numbers are not."""
LEAST_ROWS = 10
"""Values of fewer rows are never written down."""
FEW_VALUES = 12
"""Largest number of different whole numbers that may be codes."""
MANY_VALUES = 120
"""Columns with more different texts are no codes, however each is written."""
MOST_WORDS = 3
"""Largest number of words in a column of numbers; those of enough rows are codes for "not known"."""
WORDS_SHARE = 0.6
"""Largest share of rows with words in a column of numbers."""
MOST_TRIED = 50
"""Number of the most frequent texts, which are tried first."""
MOST_NUMBERS = 0.9
"""Least share of rows with numbers in a column of numbers, whatever its other cells are."""
MISSING = {"na", "n/a", "n.a.", "nan", "null", "nil", "<na>", "#n/a", "?", "(null)", "nat"}
"""Words for "not known" in any column, in lower case."""
ERRORS = {"#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"}
"""Cells of a spreadsheet's formulas without a result."""
NO_NUMBER = {"none", "-", "--", ".", "unknown", "missing", "not available", "nd", "n.d.", "k.a.", "not done"}
"""Words for "not known" between numbers or dates; elsewhere they may be values."""
EVERYTHING = Column(kind="number", range=(-LARGEST, LARGEST))
MARKS = ((".", None), (",", None), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"))
READINGS = (
    *(Field("", decimal=decimal, thousands=thousands) for decimal, thousands in MARKS),
    *(Field("", decimal=decimal, thousands=thousands, censored="limit") for decimal, thousands in MARKS),
)
"""Ways to read numbers, the plain one first."""
DIGITS = re.compile(r"\d")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
ZEROS_FIRST = re.compile(r"0\d+")
_ONE_MARK = re.compile(r"(?:[<>]=?\s*)?[+-]?[1-9]\d{0,2}([.,])\d{3}")
_DECIMALS = re.compile(r"[+-]?(?:\d{1,3}(?:[.,' ]\d{3})+|\d+)([.,])\d+")
_ZEROS_LAST = re.compile(r"[1-9]\d{0,2}\.000")
_CODE = re.compile(r"[A-Za-z]{1,3}-?\d[\w.]*")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class Cells:
    """Distinct texts of one column, with their numbers of rows.

    Attributes
    ----------
    name : str
    texts : list of str
        Without codes for "not known".
    counts : int array [texts]
    missing : tuple of str
        Codes for "not known" in the column.
    rows : int
        Of the table.
    strays : int
        Rows with words among numbers that too few rows have to be in `texts`.
    as_written : Cells or None
        The same with "35.000" unchanged, where such a text occurs: in `texts` it is 35.
    infinite : int
        Rows with an infinite number among numbers.
    named : tuple of str
        Sentences on words of ten rows or more that count as "not known".
    keep : bool
        Whether a person wants all its numbers in the range.
    copies : int
        Rows with a value that are copies of an earlier row as a whole.
    guessed : tuple of str
        Those on words that may mean something else.
    """

    name: str
    texts: list[str]
    counts: np.ndarray
    missing: tuple[str, ...]
    rows: int
    strays: int = 0
    as_written: Cells | None = None
    infinite: int = 0
    named: tuple[str, ...] = ()
    keep: bool = False
    copies: int = 0
    guessed: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, cells: pd.Series, codes: Sequence[str] = ()) -> Cells:
        """Count the texts of a column; `codes` are a person's codes for "not known"."""
        texts = plain_text(cells)
        entries = cls._counted(name, texts, codes)
        if pd.api.types.infer_dtype(cells, skipna=True) != "string":
            return entries
        zeros = [text for text in cells.dropna().unique() if _ZEROS_LAST.fullmatch(text.strip())]
        if not zeros:
            return entries
        return replace(
            entries, as_written=cls._counted(name, texts.where(~cells.isin(zeros), cells.str.strip()), codes)
        )

    @classmethod
    def _counted(cls, name: str, texts: pd.Series, codes: Sequence[str]) -> Cells:
        sizes = texts.value_counts()
        entries = cls(name, list(map(str, sizes.index)), sizes.to_numpy(), (), len(texts))
        plain = MISSING | ERRORS
        return entries.with_missing(
            [text for text in entries.texts if text.casefold() in plain or is_one_of(text, codes)]
        )

    @property
    def words(self) -> str:
        """The name as words in lower case."""
        return name_words(self.name)

    @property
    def rows_by_text(self) -> dict[str, int]:
        """Number of rows of each text."""
        return dict(zip(self.texts, self.counts.tolist(), strict=True))

    @property
    def n_present(self) -> int:
        """Rows with a value."""
        return int(self.counts.sum())

    @property
    def share_distinct(self) -> float:
        """Distinct values for each row that has one and is no copy."""
        return len(self.texts) / max(self.n_present - self.copies, 1)

    def with_missing(self, codes: Sequence[str]) -> Cells:
        """Return the column with further codes for "not known", of any form."""
        return replace(self._drop(codes), missing=(*self.missing, *sorted(codes)))

    def _drop(self, words: Collection[str]) -> Cells:
        selection = np.array([text not in words for text in self.texts], dtype=bool)
        return replace(self, texts=list(compress(self.texts, selection)), counts=self.counts[selection])

    def without(self, words: Sequence[str]) -> Cells:
        """Return the column with further codes for "not known"; those of too few rows are strays."""
        codes = []
        strays = 0
        infinite = 0
        named = list(self.named)
        guessed = list(self.guessed)
        for text, count in self.rows_by_text.items():
            if text not in words:
                continue
            known = text.casefold() in NO_NUMBER
            # A text with figures, such as "60+", is known in part and is no code.
            if is_infinite(text):
                codes.append(text)  # as a category it would be a value that the schema does not allow
                infinite += count
            elif known or (count >= LEAST_ROWS and not DIGITS.search(text)):
                codes.append(text)
                if count >= LEAST_ROWS:
                    word = render("proposals.code.word")
                    (named if known else guessed).append(
                        render("proposals.cells.taken", code=repr(text), rows=count, reason=word)
                    )
            else:
                strays += count
        rest = self._drop(words).with_missing(codes)
        whole = self.as_written and self.as_written.without(words)
        rest = replace(rest, named=tuple(named), guessed=tuple(guessed))
        return replace(rest, strays=strays, infinite=infinite, as_written=whole)


@dataclass(frozen=True)
class Numbers:
    """A column that can be read as numbers.

    Attributes
    ----------
    cells : Cells
        Without words.
    reading : Field
        Marks of decimals and thousands.
    values : float array [texts]
    doubt : str
        Why a person should check it; empty where it is sure.
    other : Numbers or None
        The same by the other reading, where decimals and thousands are ambiguous.
    """

    cells: Cells
    reading: Field
    values: np.ndarray
    doubt: str = ""
    other: Numbers | None = None


def name_words(name: str) -> str:
    """Return a name as words in lower case.

    Examples
    --------
    >>> name_words("PatientID"), name_words("admission_type_id")
    ('patient id', 'admission type id')
    """
    return _HUMPS.sub(" ", name).replace("_", " ").casefold()


def is_number_text(text: object) -> bool:
    """Return whether a text is a number in figures.

    Examples
    --------
    >>> is_number_text(" -1,5"), is_number_text("x1")
    (True, False)
    """
    return bool(_NUMBER.fullmatch(str(text).strip()))


def is_one_of(text: str, codes: Sequence[str]) -> bool:
    """Return whether a cell is one of some codes, as a text or as a number.

    Examples
    --------
    >>> is_one_of("-200,0", ["-200"]), is_one_of("20", ["-200"])
    (True, False)
    """
    return text in codes or any(_as_float(text) == _as_float(code) for code in codes)


def _as_float(text: str) -> float:
    """Return a text as a number, NaN where it is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def is_infinite(text: str) -> bool:
    """Return whether a cell is an infinite number."""
    return math.isinf(_as_float(text))


def field_of(entries: Cells, reading: Field | None = None) -> Field | None:
    """Return the reading of cells, None where they are read unchanged."""
    field = replace(reading or Field(entries.name), column=entries.name, missing=entries.missing)
    return None if field == Field(entries.name) else field


def read_numbers(entries: Cells) -> Numbers | None:
    """Return cells as numbers, None where they are none."""
    rest = _without_words(entries)
    if rest is not None:
        # Every cell is a number, except for a few words.
        for read in chain([_with_either_mark(rest)], (_by(rest, reading) for reading in READINGS)):
            if read is not None:
                return _doubted(read)
    return _read_most(entries)


def _without_words(entries: Cells) -> Cells | None:
    """Return a column of numbers without its words; None where these are too many, or the numbers are names."""
    words = [text for text in entries.texts if not DIGITS.search(text)]
    few = len(words) <= MOST_WORDS and len(entries.texts) > FEW_VALUES
    if not few and not all(word.casefold() in NO_NUMBER or is_infinite(word) for word in words):
        return None
    rest = entries.without(words)
    # A few words among many numbers stand for "not known", but not where numbers are names, such as 01 or 0815.
    if not rest.n_present or entries.n_present - rest.n_present > WORDS_SHARE * entries.n_present:
        return None
    if words and any(map(ZEROS_FIRST.fullmatch, rest.texts)):
        return None
    return rest


def _read_most(entries: Cells) -> Numbers | None:
    """Return numbers without cells such as "60+"; None where these are more than one of ten."""
    figures = np.array([bool(DIGITS.search(text)) for text in entries.texts], dtype=bool)
    if len(entries.texts) <= FEW_VALUES or entries.counts[figures].sum() < MOST_NUMBERS * entries.n_present:
        return None
    numbers = replace(entries, texts=list(compress(entries.texts, figures)))
    tried = numbers.texts[:MOST_TRIED]
    best = min(READINGS, key=lambda one: int(_odd(tried, one).sum()))
    if 2 * _odd(tried, best).sum() > len(tried):
        return None
    odd = np.ones(len(entries.texts), dtype=bool)
    odd[figures] = _odd(numbers.texts, best)
    words = list(compress(entries.texts, odd))
    rest = entries.without(words)
    # Where the others are V57 or E909, the numbers beside them are codes too.
    coded = sum(map(bool, map(_CODE.fullmatch, words))) > len(words) / 2
    zeros = any(map(ZEROS_FIRST.fullmatch, rest.texts))
    if coded or zeros or len(rest.texts) <= FEW_VALUES or rest.n_present < MOST_NUMBERS * entries.n_present:
        return None
    read = _with_either_mark(rest) or _by(rest, best)
    return read and _doubted(read)


def _doubted(read: Numbers) -> Numbers:
    """Return numbers with what a person should know of cells that are none, or only limits of one."""
    cells = read.cells
    limits = cells.counts[[text.startswith(("<", ">")) for text in cells.texts]].sum()
    counts = {"words": cells.strays, "infinite": cells.infinite, "limits": int(limits)}
    told = [render(f"proposals.odd.{key}", cells=count_in_words(many)) for key, many in counts.items() if many]
    return add_doubt(read, "; ".join([*cells.guessed, *told]))


def add_doubt(read: Numbers, doubt: str) -> Numbers:
    """Return numbers with one more doubt."""
    return replace(read, doubt="; ".join(filter(None, (read.doubt, doubt))))


def _odd(texts: Sequence[str], reading: Field) -> np.ndarray:
    """Return which texts are no finite numbers by a reading [texts]."""
    values, broken = read_column(pd.Series(texts, dtype=object), "", EVERYTHING, reading)
    odd = ~np.isfinite(values)
    for finding in broken:
        odd[finding.rows] = True
    return odd


def _by(entries: Cells, reading: Field) -> Numbers | None:
    """Return numbers by one reading, or None where it does not fit every text."""
    if breaks(entries.texts[:MOST_TRIED], EVERYTHING, reading):
        return None
    values, broken = read_column(pd.Series(entries.texts, dtype=object), entries.name, EVERYTHING, reading)
    return None if broken or not np.isfinite(values).all() else Numbers(entries, reading, values)


def _with_either_mark(entries: Cells) -> Numbers | None:
    """Return numbers whose every mark stands before three digits: decimals, or amounts of thousands.

    None where the marks are not ambiguous.
    """
    texts = (entries.as_written or entries).texts
    marks = _only_marks(texts)
    if not marks:
        return None
    mark = min(marks)
    censored: Literal["refuse", "limit"] = "limit" if any(text[:1] in "<>" for text in texts) else "refuse"
    other_mark = "," if mark == "." else "."
    between = "" if len(marks) == 1 else " "
    thousands = Field("", decimal=other_mark, thousands=mark, censored=censored)
    decimals = Field("", decimal=mark, thousands=between, censored=censored)
    readings = {"thousands": _by(entries.as_written or entries, thousands), "decimals": _by(entries, decimals)}
    likely = _likely_mark(texts, mark)
    if len(marks) == 2:
        likely = "decimals"  # one reading has both marks before decimals, and none has them between thousands
    read, other = readings.pop(likely), *readings.values()
    if read is None:
        return other
    doubt = render("proposals.cells.marks", likely=likely, other=[*readings][0])
    return replace(read, doubt=doubt, other=other)


def marks_of(table: pd.DataFrame, medians: Mapping[str, float]) -> dict[str, Field]:
    """Return the reading of each column in which every mark stands before three digits: decimals, or thousands.

    Other columns of the table decide, then numbers without a mark, then the column's median in other tables (by
    `plain_name`). Where nothing does, `thousands` is None, and the site's check asks.
    """
    doubtful: dict[str, tuple[str, list[str]]] = {}
    shown = set()
    for name, cells in table.items():
        texts = [*{str(cell).strip() for cell in cells.dropna()}] if cells.dtype == object else []
        if sum(map(is_number_text, texts)) < MOST_NUMBERS * len(texts):
            continue
        if marks := _only_marks(texts):
            doubtful[str(name)] = min(marks), texts
            continue
        matches = [_DECIMALS.fullmatch(text) for text in texts if not _ONE_MARK.fullmatch(text)]
        shown |= {match[1] for match in matches if match and match[0].count(match[1]) == 1}
    fields = {}
    for name, (mark, texts) in doubtful.items():
        unmarked = [abs(_as_float(text)) for text in texts if text.lstrip("+-").isdecimal()]
        marked = [_as_float(text.lstrip("<>= ")) for text in texts if mark in text]
        median = float(np.median(marked))
        usual = medians.get(plain_name(name), 0.0)
        size = round(math.log10(usual / median)) if usual * median > 0 else -1
        likely = {0: "decimals", 3: "thousands"}.get(size, "")
        if len(shown) == 1:
            likely = "decimals" if shown == {mark} else "thousands"
        elif unmarked and max(unmarked) >= 1000:
            likely = "decimals"
        elif unmarked and np.median(unmarked) > 10 * np.median(np.abs(marked)):
            # Whole numbers among decimals, such as 2 among 1.234, are about as large as these.
            likely = "thousands"
        other = "," if mark == "." else "."
        decimals = Field("", decimal=mark, thousands="" if likely else None)
        fields[name] = Field("", decimal=other, thousands=mark) if likely == "thousands" else decimals
    return fields


def breaks(texts: Sequence[str], column: Column, field: Field) -> bool:
    """Return whether some texts break a rule of a column by a reading."""
    return bool(read_column(pd.Series(texts, dtype=object), "", column, field)[1])


def _only_marks(texts: Sequence[str]) -> set[str]:
    """Return the marks of texts with one each, before three digits; empty where some text differs."""
    marked = [text for text in texts if "." in text or "," in text]
    matches = list(map(_ONE_MARK.fullmatch, marked))
    marks = {match[1] for match in matches if match is not None}
    return set() if None in matches else marks


def _likely_mark(texts: Sequence[str], mark: str) -> str:
    """Return "thousands" for a mark that smaller amounts do not have, else "decimals"."""
    unmarked = [len(DIGITS.findall(text)) for text in texts if "." not in text and "," not in text]
    return "thousands" if mark == "," or (unmarked and max(unmarked) <= 3) else "decimals"


@dataclass(frozen=True)
class Unknowns:
    """Numbers of a column that stand for "not known".

    Attributes
    ----------
    codes : tuple of float
    genuine : bool array [values]
        Which values are amounts.
    far : bool array [values]
        Which of them are so far from all others that a range with them would leave one value of the rest.
    doubts : tuple of str
        Why a person should check the column.
    """

    codes: tuple[float, ...]
    genuine: np.ndarray
    far: np.ndarray
    doubts: tuple[str, ...]


def find_unknowns(values: np.ndarray, counts: np.ndarray, *, keep: bool = False) -> Unknowns:
    """Return which numbers stand for "not known".

    Only a value of ten rows or more is written down as a code.

    Parameters
    ----------
    values, counts : array [values]
        Distinct numbers, and their numbers of rows.
    keep : bool
        Whether no amount is too far from the others for a range.

    Examples
    --------
    >>> find_unknowns(np.array([*range(20, 90), -1]), np.array([9] * 70 + [30])).codes
    (-1.0,)
    """
    # The same number may be written in several ways: -200 and -200,0.
    amounts, place_of = np.unique(values, return_inverse=True)
    rows = np.bincount(place_of, counts).astype(int)
    genuine = np.ones(len(amounts), dtype=bool)
    codes = []
    doubts = []
    for _ in range(MOST_CODES):
        place, why = _suspect(amounts, rows, genuine)
        if place is None:
            break
        code = f"{amounts[place]:.15g}"
        reason = render(f"proposals.code.{why}")
        doubts.append(render("proposals.cells.taken", code=code, rows=rows[place], reason=reason))
        codes.append(float(amounts[place]))
        genuine[place] = False
    far = np.zeros_like(genuine)
    if not keep:
        far[genuine] = find_far(amounts[genuine], rows[genuine])
    if far.any():
        doubts.append(render("proposals.cells.outside", rows=count_in_words(int(rows[far].sum()))))
    doubts += _doubt_ends(amounts[genuine & ~far], rows[genuine & ~far])
    return Unknowns(tuple(codes), genuine[place_of], far[place_of], tuple(doubts))


def find_far(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return which distinct amounts [values] lie so far from all others that these look alike beside them.

    They have two rows at most: more may be ill people. Amounts with a long tail, such as money, lie far apart too:
    the gap is compared with the steepness of the tail next to it.

    Examples
    --------
    >>> ages = np.array([*range(20, 90), 4500])
    >>> np.flatnonzero(find_far(ages, np.full(71, 2))), np.flatnonzero(find_far(1.2**ages[:70], np.full(70, 2)))
    (array([70]), array([], dtype=int64))
    """
    far = np.zeros(len(values), dtype=bool)
    distance = np.abs(values - np.quantile(values, 0.5, weights=counts, method="inverted_cdf"))
    order = np.argsort(-distance, kind="stable")
    rows = np.cumsum(counts[order])
    apart = counts[distance > 0].sum()
    for place in np.flatnonzero(rows <= 2) + 1:
        size = min(max(2 * LEAST_ROWS, TAIL * rows[-1]), (apart - rows[place - 1]) / 2)
        if size < LEAST_ROWS:
            break
        end = int(np.searchsorted(rows, rows[place - 1] + size)) + 1
        tail = np.log(distance[order[place:end]])
        steepness = np.average(tail - tail[-1], weights=counts[order[place:end]])
        if np.log(distance[order[place - 1]]) - tail[0] > max(np.log(FARTHEST), STEEPEST * steepness):
            far[order[:place]] = True
    return far


def _doubt_ends(values: np.ndarray, counts: np.ndarray) -> Iterator[str]:
    """Yield why the least or greatest of sorted amounts may be errors.

    They lie beyond Tukey's outer fences, and further from the amounts within these than half the span of those. Where
    amounts lie in that gap, the distribution has a long tail, and none is doubted.
    """
    low, high = np.quantile(values, (0.25, 0.75), weights=counts, method="inverted_cdf")
    reach = FENCES * (high - low)
    start = np.searchsorted(values, low - reach)
    end = np.searchsorted(values, high + reach, side="right")
    gap = np.ptp(values[start:end]) / 2
    steps = np.diff(values, prepend=values[:1], append=values[-1:])
    far = counts[:start].sum() * (steps[start] > gap) + counts[end:].sum() * (steps[end] > gap)
    if gap and far:
        yield render("proposals.cells.far", rows=count_in_words(far))
    below = counts[values < 0].sum()
    if 0 < below <= FEW_BELOW * counts.sum():
        yield render("proposals.cells.below", rows=count_in_words(below))


def _suspect(values: np.ndarray, counts: np.ndarray, genuine: np.ndarray) -> tuple[int | None, str]:
    """Return the place of a value that is probably no amount, or None, and the reason by its key."""
    order = np.flatnonzero(genuine)[np.argsort(values[genuine])]
    rows = int(counts[genuine].sum())
    if len(order) < 4 or rows < 2 * LEAST_ROWS:
        return None, ""
    last = (order[-1], order[:-1], order[:-1][-NEIGHBOURS:])
    first = (order[0], order[1:], order[1:][:NEIGHBOURS])
    for place, others, near in (last, first):
        value = float(values[place])
        count = int(counts[place])
        if count < LEAST_ROWS or (value == 0 and MOST * count > rows):
            continue
        why = _why_unknown(value, count, values[others], counts[near])
        if why:
            return int(place), why
    return None, ""


def _why_unknown(value: float, count: int, others: np.ndarray, near: np.ndarray) -> str:
    """Return the key of why a value at the end is probably no amount; `near` counts its neighbours."""
    whole_below = value < 0 and value.is_integer()
    if whole_below and others.min() >= 0:
        return "below"
    if (whole_below or is_code(value)) and _is_far(value, others):
        return "far"
    heaped = len(others) >= FEW_VALUES and count > HEAPED * np.median(near)
    return "heap" if heaped and value and is_code(value) else ""


def _is_far(value: float, others: np.ndarray) -> bool:
    """Return whether a value is further from the others than they are from each other."""
    ordered = np.sort(others)
    span = float(ordered[-1] - ordered[0])
    step = float(np.median(np.diff(ordered)))
    gap = float(np.abs(ordered - value).min())
    return gap > span or (is_code(value) and gap > max(FAR * step, WIDE * span))
