"""Parsing of cells: dates, marks of numbers, identifiers.

Dates and moments are in local time, in any notation. Marks stand before decimals, or between thousands. Identifiers
are spoiled where one stands for several people.

Columns of text have dtype object under pandas 2 and 3 alike, and a missing text is None or NaN as in the source.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.errors import TableError
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Column

if TYPE_CHECKING:
    import pandas as pd


EXACT = 2.0**53
"""From here on floating point rounds whole numbers."""
EXACT_DIGITS = 15
"""Digits of a number that all parsers, and spreadsheets, read alike: an integer below 2**53 over a power of ten."""
NO_DATE = "is not a date such as 2026-01-31"
OTHER_FORMAT = "is not a date as its mapping says"
SHIFTED = "is midnight of another time zone (have the source give local dates)"
_WHOLE = re.compile(r"\d{4}(-\d{1,2}-\d{1,2}|\d{4})\D?.*", re.DOTALL)
_ZONE = re.compile(r"(.*\d[T ]\d.*?)\s*(Z|[+-]\d\d(?::?\d\d)?)$")
_UTC = ("Z", "+00:00", "+0000", "+00", "-00:00")
FEWEST = 5
"""Least number of rows reported as midnights of another zone, and of long identifiers reported as rounded."""
LATEST = 14
"""Hours by which the earliest time zone is before UTC: its midnight is 10:00 of the day before."""


def wall_clock(cells: pd.Series) -> pd.Series:
    """Return local moments without a time zone as datetime64; NaT where a cell is none.

    Parameters
    ----------
    cells : Series
        Text in ISO 8601, dates, or moments with or without a time zone.

    Examples
    --------
    >>> import pandas as pd
    >>> str(wall_clock(pd.Series(["2026-01-31T00:00:00+01:00"]))[0])
    '2026-01-31 00:00:00'
    """
    import pandas as pd

    if cells.dtype.kind == "M":
        if isinstance(cells.dtype, pd.DatetimeTZDtype):
            cells = cells.dt.tz_localize(None)
        return cells.astype("datetime64[ns]")
    # The zone is removed and not applied: midnight in Berlin is no moment of the day before.
    texts = [None if cell is None or cell is pd.NaT else _ZONE.sub(r"\1", str(cell).strip()) for cell in cells]
    moments = pd.to_datetime(pd.Series(texts, index=cells.index, dtype=object), format="ISO8601", errors="coerce")
    return moments.astype("datetime64[ns]")


def read_dates(texts: Sequence[str | None], form: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Parse dates, and report texts that are none.

    Returns the dates [texts], NaT where there is none; which texts break a rule; and which rule.

    Parameters
    ----------
    texts : sequence of str or None
    form : str
        As `Field.date`; ISO 8601 where empty, with day, month and year.
    rows : int array [texts]
        Number of rows of each text.
    """
    import pandas as pd

    if form:
        written = pd.Series(list(texts), dtype=object)
        dates = pd.to_datetime(written, format=form, errors="coerce").astype("datetime64[ns]")
        return dates.to_numpy(), (dates.isna() & written.notna()).to_numpy(), OTHER_FORMAT
    # A year alone, or year and month, would be read as its first day: a date must name a day.
    days = Texts(list(texts))
    days.refuse(lambda text: not _WHOLE.fullmatch(text), NO_DATE)
    moments = wall_clock(pd.Series(days.cells, dtype=object)).to_numpy()
    bad = np.isnat(moments) & ~pd.isna(np.array(texts, dtype=object))
    if not bad.any():
        shifted = _shifted(days.cells, moments, rows)
        if shifted.any():
            return moments, shifted, SHIFTED
    return moments, bad, NO_DATE


def unquoted(text: str) -> str:
    """Return the text in a cell such as ="0123", as a spreadsheet keeps one; any other cell unchanged."""
    return text[2:-1].strip() if text.startswith('="') and text.endswith('"') else text


def refuse_cells(column: str, rule: str, bad: np.ndarray | pd.Series) -> None:
    """Raise the error of a column and a rule where `bad` cells [rows] break it."""
    if many := int(bad.sum()):
        raise TableError(column, rule, many)


def _shifted(texts: Sequence[str | None], dates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which texts are local midnights written in UTC [texts].

    They are moments in UTC, all of which are at one or two late times of the day. Dates east of Greenwich look so if
    they were written as midnights, an hour earlier in summer.
    """
    zones = [_ZONE.match(text or "") for text in texts]
    in_utc = np.array([zone is not None and zone[2] in _UTC for zone in zones], dtype=bool) & ~np.isnat(dates)
    times = np.unique(dates[in_utc] - dates[in_utc].astype("datetime64[D]"))
    late = len(times) in (1, 2) and bool((times >= np.timedelta64(24 - LATEST, "h")).all())
    return in_utc if late and rows[in_utc].sum() >= FEWEST else np.zeros_like(in_utc)


Broken = list[tuple[str, np.ndarray]]
"""Broken rules, each with the values that break it [values]."""


@dataclass
class Texts:
    """Cells of a column as `plain_text` gives them, while rules are applied to them.

    Attributes
    ----------
    cells : list of str or None
        Each value once; None where it is missing, or breaks a rule.
    broken : list of (str, bool array [cells])
        Broken rules, each with the values that break it.
    """

    cells: list[str | None]
    broken: Broken = field(default_factory=list)

    def remove(self, bad: Sequence[bool] | np.ndarray, rule: str) -> None:
        """Remove cells that break a rule, noting it."""
        if any(bad):
            self.broken.append((rule, np.array(bad, dtype=bool)))
            for place in np.flatnonzero(bad):
                self.cells[place] = None

    def refuse(self, test: Callable[[str], object], rule: str) -> None:
        """Remove cells that pass a test, noting it."""
        self.remove([text is not None and bool(test(text)) for text in self.cells], rule)

    def change(self, new: Callable[[str], str | None]) -> None:
        """Change all cells that are not missing."""
        for place, text in enumerate(self.cells):
            if text is not None:
                self.cells[place] = new(text)

    def missing(self) -> np.ndarray:
        """Return which cells are missing [cells]."""
        return np.array([text is None for text in self.cells], dtype=bool)


AMBIGUOUS = "has three digits after every mark: a decimal or a thousand (set thousands)"
MISPLACED = "has marks between thousands at other places"
_BLANKS = "[ \u00a0\u2009\u202f]"


def read_marks(values: Sequence[Any], texts: Texts, column: Column, field: Field) -> None:
    """Remove the marks between thousands from numbers.

    Ambiguous cells become None, and their rule is noted.

    Parameters
    ----------
    values : sequence
        Cells as the source gives them, each once; "35.000" has lost its zeros in `texts`.
    texts : Texts
    column : Column
    field : Field
    """
    written = [
        unquoted(value.strip()) if isinstance(value, str) and text is not None else ""
        for value, text in zip(values, texts.cells, strict=True)
    ]
    if field.thousands:
        _remove_thousands(written, texts, field)
        return
    if field.decimal != ".":
        # "1.234" may be 1234: a person has to say so.
        rule = f"has a '.' although its decimal mark is {field.decimal!r}"
        texts.remove(["." in cell for cell in written], rule)
    if field.thousands is None:
        texts.remove(_ambiguous(written, column, field), AMBIGUOUS)


def _remove_thousands(written: Sequence[str], texts: Texts, field: Field) -> None:
    mark = _BLANKS if field.thousands == " " else re.escape(str(field.thousands))
    whole = re.compile(rf"([<>]=?\s*)?[+-]?\d{{1,3}}({mark}\d{{3}})+({re.escape(field.decimal)}\d*)?")
    bad = []
    for place, cell in enumerate(written):
        plain = re.sub(mark, "", cell)
        # A mark at another place is none of thousands: the cell is ambiguous.
        bad.append(plain != cell and not whole.fullmatch(cell))
        if plain != cell:
            texts.cells[place] = plain
    texts.remove(bad, MISPLACED)


def _ambiguous(written: Sequence[str], column: Column, field: Field) -> list[bool]:
    """Return which cells have a mark that may be one of thousands.

    They are all cells with a mark, if each has three digits after it and most lie in the range as thousands.
    """
    mark = field.decimal
    grouped = re.compile(rf"(?:[<>]=?\s*)?([+-]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+)")
    cells = [grouped.fullmatch(cell) for cell in written if mark in cell]
    low, high = column.range or (-np.inf, np.inf)
    inside = 0
    for cell in cells:
        if cell is None:
            return [False] * len(written)
        number = float(cell[1].replace(mark, ""))
        inside += low <= number * field.multiply + field.add <= high
    return [mark in cell and 2 * inside >= len(cells) for cell in written]


MANGLED = "has identifiers that a spreadsheet rounded or made dates of (export them as text)"
LOST_SIGNS = "has signs that were lost in another encoding (export it anew)"
NO_IDENTIFIER = "has words for 'not known' such as NULL (name them in missing)"
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d{2,3}")
_LONG = re.compile(r"\d{16,}")
_ZEROS_LAST = re.compile(rf"\d{{{EXACT_DIGITS}}}0+")
"""A spreadsheet turns all digits after the fifteenth to zeros."""
_MONTHS = "jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
_DATE = re.compile(rf"\d{{1,2}}[-.](?:{_MONTHS})\.?|(?:{_MONTHS})[-.]\d{{2}}", re.IGNORECASE)
_ERRORS = re.compile(r"#(N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|#+)|#NV|#BEZUG!|#WERT!", re.IGNORECASE)
_MISSING_WORDS = {"null", "nan", "none", "n/a", "nil", "<na>", "(null)", "nat", "?", "inf", "-inf"}
MERGED_CELL = "#MERGED!"
UNSTORED_CELL = "#FORMULA!"
"""Marks of a workbook's cells without a value: merged with another one, or a formula without a stored value."""
VALUELESS = {
    MERGED_CELL: "is merged with other cells (undo the merging, and fill each cell)",
    UNSTORED_CELL: "is a formula without a stored value (open and save the workbook, or export it as CSV)",
}


def valueless_cells(raw: pd.DataFrame) -> TableError | None:
    """Return the error of a workbook's first column with merged cells or unstored formulas, or None.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it, with marks in such cells.
    """
    for name, cells in raw.items():
        for mark, rule in VALUELESS.items():
            if many := cells.tolist().count(mark):
                return TableError(str(name), rule, many)
    return None


def spoiled(texts: Sequence[str | None]) -> list[tuple[str, list[bool]]]:
    """Return the rules that identifiers break, each with the identifiers that break it.

    Parameters
    ----------
    texts : sequence of str or None
        Each identifier once.

    Examples
    --------
    >>> [rule[:26] for rule, _ in spoiled(["1.0E+09", "P1"])], spoiled(["MAR-01", "MAR-02"])
    (['has identifiers that a spr'], [])
    """
    dates = which(texts, _DATE.fullmatch)
    if 2 * sum(dates) > sum(text is not None for text in texts):
        dates = [False] * len(texts)  # a numbering such as MAR-01: a spreadsheet makes dates of some only
    rounded = which(texts, lambda text: _ROUNDED.fullmatch(text) or _ERRORS.fullmatch(text))
    long = which(texts, _LONG.fullmatch)
    if sum(long) >= FEWEST and long == which(texts, _ZEROS_LAST.fullmatch):
        rounded = list(map(operator.or_, rounded, long))
    rules = (
        (MANGLED, list(map(operator.or_, rounded, dates))),
        (LOST_SIGNS, which(texts, lambda text: "\ufffd" in text)),
        (NO_IDENTIFIER, which(texts, lambda text: text.casefold() in _MISSING_WORDS)),
    )
    return [(rule, bad) for rule, bad in rules if any(bad)]


def which(texts: Sequence[str | None], test: Callable[[str], object]) -> list[bool]:
    """Return which texts pass a test; one that is missing does not."""
    return [bool(text and test(text)) for text in texts]


def with_text_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns of text have dtype object.

    Columns of a type that a user chose, such as `string[pyarrow]`, are not changed.
    """
    import pandas as pd

    texts = [at for at, dtype in enumerate(table.dtypes) if dtype == "str" and isinstance(dtype, pd.StringDtype)]
    if not texts:
        return table
    copy = table.copy(deep=False)
    # By position, since a name may occur more than once.
    for at in texts:
        cells: Any = table.iloc[:, at].astype(object)  # its types know of no Series here
        copy.isetitem(at, cells)
    copy.attrs = table.attrs
    return copy


def exceeds_floats(cells: pd.Series) -> bool:
    """Return whether a column has numbers so large that whole ones are rounded in floating point."""
    return cells.dtype.kind in "fiu" and bool((cells >= EXACT).any() or (cells <= -EXACT).any())


def with_long_objects(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose long whole numbers are objects, which stay as they are beside gaps of another table."""
    copy = table.copy(deep=False)
    for at, dtype in enumerate(table.dtypes):
        cells: Any = table.iloc[:, at]  # its types know of no Series below
        if dtype.kind in "iu" and exceeds_floats(cells):
            copy.isetitem(at, cells.astype(object))
    return copy


def table_of(columns: Mapping[Any, Any], index: Any = None, *, copy: bool = True) -> pd.DataFrame:
    """Return a table of columns, each in its own type: texts stay objects."""
    import pandas as pd

    cells_by_name = {}
    for name, cells in columns.items():
        cells_by_name[name] = cells
        if isinstance(cells, list) or (isinstance(cells, np.ndarray) and cells.dtype == object):
            cells_by_name[name] = pd.Series(cells, index=index, dtype=object)
    return pd.DataFrame(cells_by_name, index=index, copy=copy)
