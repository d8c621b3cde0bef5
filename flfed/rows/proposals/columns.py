"""Proposed kinds of columns, from names and cells.

A proposal is for a person to confirm: what is not sure says so, and what was read off rows is marked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from flfed.rows.data.mapping import plain_text, read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.parsing.headers import has_control
from flfed.rows.data.schema import Column
from flfed.rows.data.table_check import far_from_all

ProposedKind = Literal["number", "category", "flag", "date", "id", "left-out"]
UNLISTED = "other"
"""Value of a category that stands for all values of few rows."""
LEAST_ROWS = 10
"""Of a value of fewer rows nothing is written down."""
MOST_VALUES = 50
"""Values of a category at most; the least frequent of more are `UNLISTED`."""
FEW_CODES = 5
"""Whole numbers of so few values are taken for codes."""
FEW_VALUES = 12
"""Whole numbers of so few values may be codes."""
MOST_WORDS = 3
"""A column of numbers has at most so many words among them, as codes for "not known"."""
WORDS_SHARE = 0.6
"""Of rows at most: a column that is mostly words is none of numbers."""

MISSING = {"na", "n/a", "n.a.", "nan", "null", "nil", "<na>", "#n/a", "?", "(null)", "nat"}
"""Words for "not known" in any column, in lower case."""
NO_NUMBER = {"none", "-", "--", ".", "unknown", "missing", "not available", "nd", "n.d.", "k.a.", "not done"}
"""Words for "not known" between numbers or dates; elsewhere they may be values."""
FLAGS = ({"yes", "no"}, {"true", "false"}, {"y", "n"}, {"t", "f"}, {"ja", "nein"}, {"oui", "non"})
TRUE = {"1", "yes", "true", "y", "t", "ja", "oui"}
DATES = tuple(
    f"{day}{time}"
    for day in ("", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y")
    for time in (("", " %H:%M", " %H:%M:%S") if day else ("",))
)
"""Formats that are tried, ISO 8601 first."""
EVERYTHING = Column(kind="number", range=(-math.inf, math.inf))
READINGS = tuple(
    Field("", decimal=decimal, thousands=thousands, censored=censored)
    for censored in ("refuse", "limit")
    for decimal, thousands in ((".", None), (",", None), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"))
)
"""Ways to read numbers, the plain one first."""

_ID_NAME = re.compile(
    r"(^|[^a-z])(id|ids|uid|udi|uuid|guid|mrn|ssn|iban|index|rowid|identifier)($|[^a-z])|[a-z].*[^a-z](nr|nbr|no|number|key)$|#$"
)
_PERSON_NAME = re.compile(r"^(subject|patient|customer|client|person|member|account)s?[^a-z]*$")
_CODE_NAME = re.compile(r"code|type|class|category|group|status|sex|gender|race|ethnic|region|education|marri|marital")
_AREA_NAME = re.compile(r"zip|postal|postcode|plz|fips")
_UNIT = re.compile(r"[\[(]([^\[\]()]{1,20})[\])]\s*$")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DIGITS = re.compile(r"\d")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
_SHORT_YEAR = re.compile(r"\d{1,2}([-./])(\d{1,2}|[A-Za-z]{3})\1\d{2}(\s|$)")
_ZEROS_FIRST = re.compile(r"0\d+")


@dataclass(frozen=True)
class ColumnProposal:
    """What a column is taken for.

    Attributes
    ----------
    name : str
        The table's own.
    kind : {"number", "category", "flag", "date", "id", "left-out"}
        "left-out" is a column that no schema has use for.
    why : str
        What it was told by; holds no cell.
    sure : bool
        Whether no person needs to look at the kind.
    column : Column or None
        For the schema; None for one that is left out.
    field : Field or None
        How it is read; None where its cells are read as they stand.
    from_rows : bool
        Whether range or values were read off rows.
    unlisted : int
        Rows whose value is `UNLISTED`.
    gaps : bool
        Whether some rows have no value.
    """

    name: str
    kind: ProposedKind
    why: str
    sure: bool = True
    column: Column | None = None
    field: Field | None = None
    from_rows: bool = False
    unlisted: int = 0
    gaps: bool = False


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
    """

    name: str
    texts: list[str]
    counts: np.ndarray
    missing: tuple[str, ...]
    rows: int

    @classmethod
    def of(cls, name: str, cells: pd.Series) -> Cells:
        """Return what is known of a column."""
        known = plain_text(cells).value_counts()
        words = [str(text) for text in known.index]
        absent = [text.casefold() in MISSING for text in words]
        found = tuple(sorted(text for text, out in zip(words, absent, strict=True) if out))
        kept = [text for text, out in zip(words, absent, strict=True) if not out]
        return cls(name, kept, known.to_numpy()[~np.array(absent, dtype=bool)], found, len(cells))

    @property
    def known(self) -> int:
        """Rows with a value."""
        return int(self.counts.sum())

    @property
    def share_distinct(self) -> float:
        """Distinct values for each row that has one."""
        return len(self.texts) / max(self.known, 1)

    def without(self, words: Sequence[str]) -> Cells:
        """Return the column with further codes for "not known"."""
        kept = np.array([text not in words for text in self.texts], dtype=bool)
        texts = [text for text, keep in zip(self.texts, kept, strict=True) if keep]
        return replace(self, texts=texts, counts=self.counts[kept], missing=(*self.missing, *sorted(words)))


def propose_column(name: str, cells: pd.Series) -> ColumnProposal:
    """Return what a column is taken for.

    Parameters
    ----------
    name : str
    cells : Series
        As a source gives them: texts of a CSV file, or values of a data frame.
    """
    found = Cells.of(name, cells)
    proposal = _proposal(found, cells)
    return replace(proposal, gaps=found.known < found.rows or bool(proposal.field and proposal.field.missing))


def _proposal(found: Cells, cells: pd.Series) -> ColumnProposal:
    name = found.name
    if not found.known:
        return ColumnProposal(name, "left-out", "is empty")
    if len(found.texts) == 1:
        return ColumnProposal(name, "left-out", "has the same value in every row that has one")
    # What a data frame or a database says of its columns is believed.
    if cells.dtype.kind == "M":
        return _date(found, "")
    if cells.dtype.kind == "b" or _is_flag(found):
        return _flag(found)
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return _category(found, "it is declared as categorical")
    for propose in (_as_number, _as_date, _as_words):
        proposal = propose(found)
        if proposal is not None:
            return proposal
    return _identifier(found, "its texts are nearly all different, or long", sure=found.share_distinct > 0.9)


def name_words(name: str) -> str:
    """Return a name as words in lower case.

    Examples
    --------
    >>> name_words("PatientID"), name_words("admission_type_id")
    ('patient id', 'admission type id')
    """
    return _HUMPS.sub(" ", name).replace("_", " ").casefold()


def unit_of(name: str) -> str:
    """Return the unit that stands in brackets at a name's end.

    Examples
    --------
    >>> unit_of("Torque [Nm]"), unit_of("weight (kg)"), unit_of("age")
    ('Nm', 'kg', '')
    """
    found = _UNIT.search(name.strip())
    return found[1].strip() if found else ""


def round_outward(low: float, high: float) -> tuple[float, float]:
    """Return a range of round numbers around another one.

    Its ends lie up to a fifth of the span further out, which is less than a row's value.

    Examples
    --------
    >>> round_outward(29, 77), round_outward(0.02, 0.97), round_outward(0, 4)
    ((25.0, 80.0), (0.0, 1.0), (0.0, 4.0))
    """
    span = high - low
    step = _nice(span / 5)
    start, end = math.floor(low / step) * step, math.ceil(high / step) * step
    digits = max(0, 2 - math.floor(math.log10(step)))
    return round(start, digits), round(end, digits)


def _nice(size: float) -> float:
    """Return the next of 1, 2, 5, 10 times a power of ten from below."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(part * power for part in (10, 5, 2, 1) if part * power <= size * (1 + 1e-9))


def _is_flag(found: Cells) -> bool:
    texts = {text.casefold() for text in found.texts}
    return texts in ({"0", "1"}, *FLAGS)


def _flag(found: Cells) -> ColumnProposal:
    words = {text.casefold() for text in found.texts}
    field = field_of(found)
    if not words <= {"0", "1", "yes", "no", "true", "false"}:
        field = replace(field or Field(found.name), values={t: str(int(t.casefold() in TRUE)) for t in found.texts})
    return ColumnProposal(found.name, "flag", "has two values, yes and no", column=Column(kind="flag"), field=field)


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


def _as_number(found: Cells) -> ColumnProposal | None:
    """Return what a column of numbers is, None for other cells."""
    read = read_numbers(found)
    if read is None:
        return None
    found, reading, values = read
    words = name_words(found.name)
    whole = bool((values == np.rint(values)).all())
    if whole and any(_ZEROS_FIRST.fullmatch(text) for text in found.texts):
        return _codes(found, "its numbers begin with zeros")
    if whole and (proposal := _whole_numbers(found, values, words)):
        return proposal
    if whole and len(values) <= FEW_CODES:
        return _category(found, f"it has {len(values)} whole numbers: if they are amounts, a number", sure=False)
    sure = len(values) > FEW_VALUES or not whole
    why = "its values are numbers" if sure else f"it has {len(values)} whole numbers: if they are codes, a category"
    return _number(found, reading, values, why, sure=sure and not _AREA_NAME.search(words))


def read_numbers(found: Cells) -> tuple[Cells, Field, np.ndarray] | None:
    """Return how cells are read as numbers.

    With it come the cells without words for "not known", and their values. None where they are no numbers.
    """
    words = [text for text in found.texts if not _DIGITS.search(text)]
    few = len(words) <= MOST_WORDS and len(found.texts) > FEW_VALUES
    few = few or all(word.casefold() in NO_NUMBER for word in words)
    rest = found.without(words) if words else found
    # A few words among many numbers stand for "not known", but not where numbers are names, such as 01 or 0815.
    if not few or not rest.known or found.known - rest.known > WORDS_SHARE * found.known:
        return None
    if words and any(map(_ZEROS_FIRST.fullmatch, rest.texts)):
        return None
    for reading in READINGS:
        if not _broken(rest.texts[:MOST_VALUES], EVERYTHING, reading):
            values, broken = read_column(pd.Series(rest.texts, dtype=object), found.name, EVERYTHING, reading)
            if not broken:
                return rest, reading, values
    return None


def _broken(texts: Sequence[str], column: Column, field: Field) -> bool:
    """Tell whether some texts cannot be read so."""
    return bool(read_column(pd.Series(texts, dtype=object), "", column, field)[1])


def _whole_numbers(found: Cells, values: np.ndarray, words: str) -> ColumnProposal | None:
    """Return what whole numbers are where they are no amounts."""
    named = bool(_ID_NAME.search(words) or _PERSON_NAME.search(words))
    distinct = len(values)
    span = float(values.max() - values.min()) + 1
    if distinct == found.known >= LEAST_ROWS * 2 and distinct >= 0.9 * span:
        return _identifier(found, "it counts the rows", sure=values.min() in (0, 1) or named)
    # Of so many amounts drawn from this range two or more pairs would be equal.
    if distinct == found.known and distinct * (distinct - 1) > 4 * span:
        return _identifier(found, "each row has another whole number: if they are amounts, a number", sure=False)
    if named and found.share_distinct > 0.9:
        return _identifier(found, "its name and its distinct numbers say so")
    if named and distinct > (FEW_VALUES if _PERSON_NAME.search(words) else MOST_VALUES):
        return _identifier(found, "its name says so, and rows of one number may belong together", sure=False)
    if _AREA_NAME.search(words) or (found.share_distinct > 0.99 and found.known > 100 and values.min() > 1e5):
        return _codes(found, "its numbers name something")
    if distinct <= MOST_VALUES and distinct > 2 and (named or _CODE_NAME.search(words)):
        return _category(found, "its name speaks of codes", sure=False)
    gaps = distinct <= FEW_VALUES and distinct < span <= 100 and values.min() >= 0 and span > 1.5 * distinct
    return _category(found, "its few whole numbers have gaps", sure=False) if gaps else None


def _codes(found: Cells, why: str) -> ColumnProposal:
    few = len(found.texts) <= MOST_VALUES and found.share_distinct < 0.2
    return _category(found, why, sure=False) if few else _identifier(found, why, sure=False)


def _number(found: Cells, reading: Field, values: np.ndarray, why: str, *, sure: bool) -> ColumnProposal:
    codes: tuple[float, ...] = ()
    rows = pd.Series(np.repeat(values, found.counts))
    # One value far from all others, in several rows, is a code for "not known" more often than an amount.
    if far_from_all(rows):
        ends = np.sort(values)[[0, -1]]
        far = ends[0] if far_from_all(rows[rows < ends[1]]) else ends[1]
        codes, values = (float(far),), values[values != far]
        sure, why = False, f"{why}; one value far from all others is taken for 'not known'"
    low, high = float(values.min()), float(values.max())
    column = Column(kind="number", unit=unit_of(found.name), range=round_outward(low, high), missing=codes)
    return ColumnProposal(found.name, "number", why, sure, column, field_of(found, reading), from_rows=True)


def _as_date(found: Cells) -> ColumnProposal | None:
    """Return a column of dates, None for other cells."""
    words = [text for text in found.texts if text.casefold() in NO_NUMBER]
    found = found.without(words) if words else found
    texts = found.texts
    if not texts or not all(map(_DIGITS.search, texts[:MOST_VALUES])):
        return None
    forms = list(_formats(texts))
    if not forms:
        return None
    # 3.4.2026 may be March or April, where no day is above 12.
    return _date(found, forms[0], sure=len(forms) == 1)


def _formats(texts: Sequence[str]) -> Iterator[str]:
    """Yield the formats by which all texts are dates."""
    column = Column(kind="date")
    for form in DATES:
        field = Field("", date=form)
        if not _broken(texts[:MOST_VALUES], column, field) and not _broken(texts, column, field):
            yield form


def _date(found: Cells, form: str, *, sure: bool = True) -> ColumnProposal:
    why = "its values are dates" if sure else "its values are dates; day and month could be exchanged"
    field = field_of(found, Field("", date=form))
    return ColumnProposal(found.name, "date", why, sure, Column(kind="date"), field)


def _as_words(found: Cells) -> ColumnProposal | None:
    """Return a column of words, None where they are nearly all different."""
    words = name_words(found.name)
    distinct, named = len(found.texts), bool(_ID_NAME.search(words) or _PERSON_NAME.search(words))
    if all(map(_SHORT_YEAR.match, found.texts[:MOST_VALUES])):
        return _identifier(found, "its dates have two digits of the year: have the source give four", sure=False)
    mixed = sum(map(bool, map(_NUMBER.fullmatch, found.texts)))
    if mixed and distinct > MOST_VALUES and found.share_distinct > 0.1:
        return _identifier(found, "its cells are partly numbers, partly texts", sure=False)
    long = float(np.average([len(text) for text in found.texts], weights=found.counts)) > 60
    if long or found.share_distinct > 0.5 or (named and distinct > MOST_VALUES):
        sure = distinct == found.known or long or named
        return _identifier(found, "its texts are long" if long else "its texts are nearly all different", sure=sure)
    if (found.counts >= LEAST_ROWS).any():
        return _category(found, "it has few texts", sure=distinct <= MOST_VALUES)
    return None


def _identifier(found: Cells, why: str, *, sure: bool = True) -> ColumnProposal:
    return ColumnProposal(found.name, "id", why, sure, Column(kind="id"), field_of(found))


def _category(found: Cells, why: str, *, sure: bool = True) -> ColumnProposal:
    """Return a category of the values that enough rows have."""
    order = np.argsort(-found.counts, kind="stable")[:MOST_VALUES]
    common = [place for place in order if found.counts[place] >= LEAST_ROWS]
    listed = [place for place in common if not has_control(found.texts[place])]
    if not listed:
        return _identifier(found, "no value has ten rows", sure=False)
    if len(listed) < len(common):
        why, sure = f"{why}; values with a line break in them are {UNLISTED!r}", False
    unlisted = found.known - int(found.counts[listed].sum())
    values = sorted((found.texts[place] for place in listed), key=by_number)
    field = field_of(found)
    if unlisted:
        values = [*(value for value in values if value != UNLISTED), UNLISTED]
        field = replace(field or Field(found.name), other=UNLISTED)
    if len(values) < 2:
        return ColumnProposal(found.name, "left-out", "has the same value in every row that has one")
    column = Column(kind="category", values=tuple(values))
    return ColumnProposal(found.name, "category", why, sure, column, field, from_rows=True, unlisted=unlisted)


def by_number(text: str) -> tuple[float, str]:
    """Return a key that sorts numbers by size, and other texts after them."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text
