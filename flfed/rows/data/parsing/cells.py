"""Parsing of cells: dates, marks of numbers, identifiers.

Dates and moments are those that the wall clock of the place shows, in whatever way they are written. Marks stand
before decimals, or between thousands. Identifiers are spoiled where one stands for several people.

Columns of text are of dtype object under pandas 2 and 3 alike, and a missing text is None or NaN as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.errors import TableError
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Column

if TYPE_CHECKING:
    import pandas as pd


NO_DATE = "is not a date such as 2026-01-31"
OTHER_FORMAT = "is not a date as its mapping says"
SHIFTED = "is midnight of another time zone (have the source give local dates)"
_WHOLE = re.compile(r"\d{4}(-\d{1,2}-\d{1,2}|\d{4})\D?.*", re.DOTALL)
_ZONE = re.compile(r"(.*\d[T ]\d.*?)\s*(Z|[+-]\d\d(?::?\d\d)?)$")
_UTC = ("Z", "+00:00", "+0000", "+00", "-00:00")
FEWEST = 5
"""Rows from which on it is told that all of them are midnights of another zone."""
LATEST = 14
"""Hours by which the earliest time zone is before UTC: its midnight is 10:00 of the day before."""


def wall_clock(cells: pd.Series) -> pd.Series:
    """Return moments without a time zone.

    They are datetime64 as written, for a date is that of the place; NaT where a cell is none.

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
        zoned = getattr(cells.dt, "tz", None) is not None
        local = cells.dt.tz_localize(None) if zoned else cells
        return local.astype("datetime64[ns]")
    # The zone is cut off and not applied: midnight in Berlin is no moment of the day before.
    texts = [None if cell is None or cell is pd.NaT else _ZONE.sub(r"\1", str(cell).strip()) for cell in cells]
    found = pd.to_datetime(pd.Series(texts, index=cells.index, dtype=object), format="ISO8601", errors="coerce")
    return found.astype("datetime64[ns]")


def read_dates(
    texts: Sequence[str | None], form: str = "", rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Parse dates, and report texts that are none.

    Returns the dates [texts], NaT where there is none; which texts break a rule; and which rule.

    Parameters
    ----------
    texts : sequence of str or None
    form : str
        As `Field.date`; ISO 8601 where empty, with day, month and year.
    rows : int array [texts], optional
        In how many rows each text stands; default: in one.
    """
    import pandas as pd

    known = np.array([text is not None for text in texts], dtype=bool)
    if form:
        dates = pd.to_datetime(pd.Series(list(texts), dtype=object), format=form, errors="coerce")
        found = dates.astype("datetime64[ns]").to_numpy()
        return found, np.isnat(found) & known, OTHER_FORMAT
    # A year alone, or year and month, would be read as its first day: a date must name a day.
    whole = blanked(texts, [not _WHOLE.fullmatch(text or "") for text in texts])
    found = wall_clock(pd.Series(whole, dtype=object)).to_numpy()
    bad = np.isnat(found) & known
    if rows is None:
        rows = np.ones(len(whole))
    shifted = _shifted(whole, found, rows)
    return (found, bad, NO_DATE) if bad.any() or not shifted.any() else (found, shifted, SHIFTED)


def dates_written(texts: pd.Series, form: str, century: int = 0) -> tuple[pd.Series, int]:
    """Parse a column's dates in one format.

    Returns the days [rows], NaT where missing, and how many texts are none.

    Parameters
    ----------
    texts : Series of str or None
    form : str
        As `Field.date`.
    century : int
        First of the hundred years that two digits of a year stand for; 0 where all four are written.

    Examples
    --------
    >>> import pandas as pd
    >>> days, bad = dates_written(pd.Series(["29-Feb-68", "31-Feb-06", None]), "%d-%b-%y", 2000)
    >>> str(days[0].date()), bad
    ('2068-02-29', 1)
    """
    import pandas as pd

    dates = pd.to_datetime(texts, format=form, errors="coerce")
    if century:
        # Python takes 69 for 1969; a day that the other century does not have is none.
        years = century + (dates.dt.year - century) % 100
        dates = pd.to_datetime({"year": years, "month": dates.dt.month, "day": dates.dt.day}, errors="coerce")
    return dates.astype("datetime64[ns]"), int((dates.isna() & texts.notna()).sum())


def _shifted(texts: Sequence[str | None], dates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Find local midnights that were written in UTC.

    [texts]; they are moments in UTC, where all of these are at one or two times of the late day.

    So a table looks whose dates were midnights, an hour apart in summer, east of Greenwich.
    """
    zones = [_ZONE.match(text or "") for text in texts]
    in_utc = np.array([zone is not None and zone[2] in _UTC for zone in zones], dtype=bool) & ~np.isnat(dates)
    times = np.unique(dates[in_utc] - dates[in_utc].astype("datetime64[D]"))
    late = len(times) in (1, 2) and bool((times >= np.timedelta64(24 - LATEST, "h")).all())
    return in_utc if late and rows[in_utc].sum() >= FEWEST else np.zeros(len(texts), dtype=bool)


Texts = list[str | None]
"""Cells as `plain_text` gives them, each value once."""
Broken = list[tuple[str, np.ndarray]]
"""Rules that are broken, and by which values; [values] each."""
AMBIGUOUS = "has three digits after every mark: a decimal or a thousand (set thousands)"
MISPLACED = "has marks between thousands at other places"
_BLANKS = "[ \u00a0\u2009\u202f]"


def read_marks(values: Sequence[Any], texts: Texts, column: Column, field: Field, broken: Broken) -> Texts:
    """Remove the marks between thousands from numbers.

    What cannot be told becomes None, and is noted.

    Parameters
    ----------
    values : sequence
        Cells as the source gives them, each once; "35.000" has lost its zeros in `texts`.
    texts : list of str or None [values]
    column : Column
    field : Field
    broken : list
        Added to.
    """
    written = [
        value.strip() if isinstance(value, str) and text is not None else ""
        for value, text in zip(values, texts, strict=True)
    ]
    if field.thousands:
        return _without_thousands(written, texts, field, broken)
    if field.decimal != ".":
        # "1.234" may be 1234: a person has to say so.
        grouped = ["." in cell for cell in written]
        texts = without(texts, grouped, f"has a '.' although its decimal mark is {field.decimal!r}", broken)
    if field.thousands is None:
        texts = without(texts, _ambiguous(written, column, field), AMBIGUOUS, broken)
    return texts


def without(texts: Texts, bad: Sequence[bool] | np.ndarray, rule: str, broken: Broken) -> Texts:
    """Remove texts that break a rule, noting it."""
    if not any(bad):
        return texts
    broken.append((rule, np.array(bad, dtype=bool)))
    return blanked(texts, bad)


def blanked(texts: Sequence[str | None], bad: Sequence[bool] | np.ndarray) -> Texts:
    """Return texts with None in place of those that are bad."""
    return [None if wrong else text for text, wrong in zip(texts, bad, strict=True)]


def _without_thousands(written: Sequence[str], texts: Texts, field: Field, broken: Broken) -> Texts:
    mark = _BLANKS if field.thousands == " " else re.escape(str(field.thousands))
    whole = re.compile(rf"([<>]=?\s*)?[+-]?\d{{1,3}}({mark}\d{{3}})+({re.escape(field.decimal)}\d*)?")
    found = re.compile(mark)
    marked = [bool(found.search(cell)) for cell in written]
    # A mark at another place is none of thousands: what the cell means cannot be told.
    bad = [has and not whole.fullmatch(cell) for has, cell in zip(marked, written, strict=True)]
    read = [found.sub("", cell) if has else text for has, cell, text in zip(marked, written, texts, strict=True)]
    return without(read, bad, MISPLACED, broken)


def _ambiguous(written: Sequence[str], column: Column, field: Field) -> list[bool]:
    """Find cells whose mark may be of thousands.

    They are all cells with a mark, where each has three digits after it and most may be thousands by their range.
    """
    marked = [field.decimal in cell for cell in written]
    grouped = re.compile(rf"(?:[<>]=?\s*)?([+-]?[1-9]\d{{0,2}}(?:{re.escape(field.decimal)}\d{{3}})+)")
    cells = [grouped.fullmatch(cell) for cell, has in zip(written, marked, strict=True) if has]
    numbers = [cell[1].replace(field.decimal, "") for cell in cells if cell]
    if not numbers or len(numbers) < len(cells):
        return [False] * len(written)
    low, high = column.range or (-np.inf, np.inf)
    inside = sum(low <= float(number) * field.multiply + field.add <= high for number in numbers)
    return marked if 2 * inside >= len(cells) else [False] * len(written)


MANGLED = "has identifiers that a spreadsheet rounded or made dates of (export them as text)"
LOST_SIGNS = "has signs that were lost in another encoding (export it anew)"
NO_IDENTIFIER = "has words for 'not known' such as NULL (name them in missing)"
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d{2,3}")
_MONTHS = "jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
_DATE = re.compile(rf"\d{{1,2}}[-.](?:{_MONTHS})\.?|(?:{_MONTHS})[-.]\d{{2}}", re.IGNORECASE)
_ERRORS = re.compile(r"#(N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|#+)|#NV|#BEZUG!|#WERT!", re.IGNORECASE)
_NOT_KNOWN = {"null", "nan", "none", "n/a", "nil", "<na>", "(null)", "nat", "?"}
MERGED_CELL = "#MERGED!"
UNSTORED_CELL = "#FORMULA!"
"""Marks of a workbook's empty cells that are merged with another one, or hold a formula without a value."""
VALUELESS = {
    MERGED_CELL: "is merged with other cells (undo the merging, and fill each cell)",
    UNSTORED_CELL: "is a formula without a stored value (open and save the workbook, or export it as CSV)",
}
Rules = list[tuple[str, list[bool]]]


def valueless_cells(raw: pd.DataFrame) -> TableError | None:
    """Return the error of a workbook's first column with cells that have no value of their own, None where none has.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it, with marks in such cells.
    """
    for name, cells in raw.items():
        for mark, rule in VALUELESS.items():
            if cells.dtype == object and (many := int((cells == mark).sum())):
                return TableError(str(name), rule, many)
    return None


def spoiled(texts: Sequence[str | None]) -> Rules:
    """Return the rules that identifiers break.

    With each rule it says which of the identifiers break it.

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
        dates = [False] * len(texts)  # a way of numbering, such as MAR-01: a spreadsheet makes dates of some only
    rounded = which(texts, lambda text: _ROUNDED.fullmatch(text) or _ERRORS.fullmatch(text))
    rules = (
        (MANGLED, [one or other for one, other in zip(rounded, dates, strict=True)]),
        (LOST_SIGNS, which(texts, lambda text: "\ufffd" in text)),
        (NO_IDENTIFIER, which(texts, lambda text: text.casefold() in _NOT_KNOWN)),
    )
    return [(rule, bad) for rule, bad in rules if any(bad)]


def which(texts: Sequence[str | None], test: Callable[[str], object]) -> list[bool]:
    """Return which texts pass a test; one that is missing does not."""
    return [bool(text and test(text)) for text in texts]


def with_text_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns of text are of dtype object.

    Columns of a type that a user chose, as `string[pyarrow]`, stay as they are.
    """
    import pandas as pd

    texts = [at for at, dtype in enumerate(table.dtypes) if dtype == "str" and isinstance(dtype, pd.StringDtype)]
    if not texts:
        return table
    found = table.copy(deep=False)
    # By place, since a name may stand in the table more than once.
    for at in texts:
        cells: Any = table.iloc[:, at].astype(object)  # its types know of no Series here
        found.isetitem(at, cells)
    found.attrs = table.attrs
    return found


def table_of(columns: Mapping[Any, Any], index: Any = None) -> pd.DataFrame:
    """Return a table of columns, each in its own type: texts stay objects."""
    import pandas as pd

    return pd.DataFrame({name: _as_it_is(cells, index) for name, cells in columns.items()}, index=index)


def _as_it_is(cells: Any, index: Any) -> Any:
    import pandas as pd

    is_text = isinstance(cells, list) or (isinstance(cells, np.ndarray) and cells.dtype == object)
    return pd.Series(cells, index=index, dtype=object) if is_text else cells
