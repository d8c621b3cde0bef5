"""Cells of one column: distinct texts with their counts, and how they are read as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Column

LEAST_ROWS = 10
"""Of a value of fewer rows nothing is written down."""
FEW_VALUES = 12
"""Whole numbers of so few values may be codes."""
MOST_WORDS = 3
"""A column of numbers has at most so many words among them; those of enough rows are codes for "not known"."""
WORDS_SHARE = 0.6
"""Of rows at most: a column that is mostly words is none of numbers."""
MOST_TRIED = 50
"""Texts that are tried first, the most frequent ones."""
STRAYS = "some cells are words that fewer than ten rows have: site check counts them"

MISSING = {"na", "n/a", "n.a.", "nan", "null", "nil", "<na>", "#n/a", "?", "(null)", "nat"}
"""Words for "not known" in any column, in lower case."""
NO_NUMBER = {"none", "-", "--", ".", "unknown", "missing", "not available", "nd", "n.d.", "k.a.", "not done"}
"""Words for "not known" between numbers or dates; elsewhere they may be values."""
EVERYTHING = Column(kind="number", range=(-math.inf, math.inf))
READINGS = tuple(
    Field("", decimal=decimal, thousands=thousands, censored=censored)
    for censored in ("refuse", "limit")
    for decimal, thousands in ((".", None), (",", None), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"))
)
"""Ways to read numbers, the plain one first."""

DIGITS = re.compile(r"\d")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
ZEROS_FIRST = re.compile(r"0\d+")
_ONE_MARK = re.compile(r"(?:[<>]=?\s*)?[+-]?[1-9]\d{0,2}([.,])\d{3}")
_ZEROS_LAST = re.compile(r"[1-9]\d{0,2}\.000")


@dataclass(frozen=True)
class Cells:
    """Distinct texts of one column, and how many rows have each.

    Attributes
    ----------
    name : str
    texts : list of str
        Without codes for "not known".
    counts : int array [texts]
    missing : tuple of str
        Codes for "not known" that were found.
    rows : int
        Of the table.
    strays : int
        Rows with words among numbers that are not in `texts`, for too few rows have them to write them down.
    as_written : Cells or None
        The same with "35.000" as it stands, where such a text is there: in `texts` it is 35.
    """

    name: str
    texts: list[str]
    counts: np.ndarray
    missing: tuple[str, ...]
    rows: int
    strays: int = 0
    as_written: Cells | None = None

    @classmethod
    def of(cls, name: str, cells: pd.Series) -> Cells:
        """Return what is known of a column."""
        texts = plain_text(cells)
        found = cls._counted(name, texts)
        if pd.api.types.infer_dtype(cells, skipna=True) != "string":
            return found
        zeros = [text for text in cells.dropna().unique() if _ZEROS_LAST.fullmatch(text.strip())]
        if not zeros:
            return found
        return replace(found, as_written=cls._counted(name, texts.where(~cells.isin(zeros), cells.str.strip())))

    @classmethod
    def _counted(cls, name: str, texts: pd.Series) -> Cells:
        known = texts.value_counts()
        words = [str(text) for text in known.index]
        absent = [text.casefold() in MISSING for text in words]
        found = tuple(sorted(text for text, out in zip(words, absent, strict=True) if out))
        kept = [text for text, out in zip(words, absent, strict=True) if not out]
        return cls(name, kept, known.to_numpy()[~np.array(absent, dtype=bool)], found, len(texts))

    @property
    def known(self) -> int:
        """Rows with a value."""
        return int(self.counts.sum())

    @property
    def share_distinct(self) -> float:
        """Distinct values for each row that has one."""
        return len(self.texts) / max(self.known, 1)

    def without(self, words: Sequence[str]) -> Cells:
        """Return the column with further codes for "not known"; those that too few rows have are strays."""
        kept = np.array([text not in words for text in self.texts], dtype=bool)
        codes, strays = [], 0
        for text, count in zip(self.texts, self.counts.tolist(), strict=True):
            if text in words and (count >= LEAST_ROWS or text.casefold() in NO_NUMBER):
                codes.append(text)
            elif text in words:
                strays += count
        texts = [text for text, keep in zip(self.texts, kept, strict=True) if keep]
        missing = (*self.missing, *sorted(codes))
        whole = self.as_written and self.as_written.without(words)
        return replace(self, texts=texts, counts=self.counts[kept], missing=missing, strays=strays, as_written=whole)


@dataclass(frozen=True)
class Numbers:
    """A column that can be read as numbers.

    Attributes
    ----------
    cells : Cells
        Without words.
    reading : Field
        By which marks it is read.
    values : float array [texts]
    doubt : str
        Why a person should look at it; empty where it is sure.
    other : Numbers or None
        The same by the other reading, where nobody can tell decimals from thousands.
    """

    cells: Cells
    reading: Field
    values: np.ndarray
    doubt: str = ""
    other: Numbers | None = None


def is_number_text(text: object) -> bool:
    """Tell whether a text is a number in figures.

    Examples
    --------
    >>> is_number_text(" -1,5"), is_number_text("x1")
    (True, False)
    """
    return bool(_NUMBER.fullmatch(str(text).strip()))


def field_of(found: Cells, reading: Field | None = None) -> Field | None:
    """Return how cells are read, None where as they stand."""
    field = replace(reading or Field(found.name), column=found.name, missing=found.missing)
    return None if field == Field(found.name) else field


def read_numbers(found: Cells) -> Numbers | None:
    """Return how cells are read as numbers, None where they are none."""
    words = [text for text in found.texts if not DIGITS.search(text)]
    few = len(words) <= MOST_WORDS and len(found.texts) > FEW_VALUES
    few = few or all(word.casefold() in NO_NUMBER for word in words)
    if not few:
        return None
    rest = found.without(words) if words else found
    # A few words among many numbers stand for "not known", but not where numbers are names, such as 01 or 0815.
    if not rest.known or found.known - rest.known > WORDS_SHARE * found.known:
        return None
    if words and any(map(ZEROS_FIRST.fullmatch, rest.texts)):
        return None
    read = _with_either_mark(rest) or next(filter(None, (_by(rest, reading) for reading in READINGS)), None)
    if read is not None and rest.strays:
        return replace(read, doubt="; ".join(filter(None, (read.doubt, STRAYS))))
    return read


def _by(found: Cells, reading: Field) -> Numbers | None:
    """Return numbers by one reading, None where it does not fit every text."""
    if breaks(found.texts[:MOST_TRIED], EVERYTHING, reading):
        return None
    values, broken = read_column(pd.Series(found.texts, dtype=object), found.name, EVERYTHING, reading)
    return None if broken else Numbers(found, reading, values)


def _with_either_mark(found: Cells) -> Numbers | None:
    """Return numbers whose every mark stands before three digits: decimals, or amounts of thousands.

    None where that can be told.
    """
    texts = (found.as_written or found).texts
    marked = [text for text in texts if "." in text or "," in text]
    marks = {match[1] if match else "" for match in map(_ONE_MARK.fullmatch, marked)}
    if not marks or "" in marks:
        return None
    mark = min(marks)
    censored: Literal["refuse", "limit"] = "limit" if any(text[:1] in "<>" for text in texts) else "refuse"
    thousands = Field("", decimal="," if mark == "." else ".", thousands=mark, censored=censored)
    decimals = Field("", decimal=mark, thousands="" if len(marks) == 1 else " ", censored=censored)
    readings = {"thousands": _by(found.as_written or found, thousands), "decimals": _by(found, decimals)}
    # Where amounts below a thousand stand without a mark, the others' is one of thousands.
    unmarked = [len(DIGITS.findall(text)) for text in texts if "." not in text and "," not in text]
    likely = "thousands" if mark == "," or (unmarked and max(unmarked) <= 3) else "decimals"
    if len(marks) == 2:
        likely = "decimals"  # one reading has both marks before decimals, and none has them between thousands
    read, other = readings.pop(likely), *readings.values()
    if read is None:
        return other
    doubt = f"each mark stands before three digits: it is read as one of {likely}, and could be one of {[*readings][0]}"
    return replace(read, doubt=doubt, other=other)


def breaks(texts: Sequence[str], column: Column, field: Field) -> bool:
    """Tell whether some texts cannot be read so."""
    return bool(read_column(pd.Series(texts, dtype=object), "", column, field)[1])
