"""Settings of one column, findings in it, and names of columns.

A site's mapping gives the settings, and its check the findings. Names in a table's first line tell which of its columns
may be meant, and whether that line holds names at all.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np

from flfed.errors import TableError, UsageError

if TYPE_CHECKING:
    import pandas as pd


NO_GROUP = "has no value, but rows are grouped by it"


@dataclass(frozen=True)
class Field:
    """The origin and reading of one schema column.

    It says which own column it comes from, and how its cells are read.

    Parameters
    ----------
    column : str
        Name in the institution's own table. Example: `column="CHOL_MMOL"`.
    values : mapping of text to text, optional
        Own code to schema value, such as `{"1": "male", "0": "female"}`. Keys are compared after
        blanks are stripped and a trailing "0.0" is removed. A code that is not a key is an error.
        Example: `values={"1": "male", "0": "female"}`.
    multiply, add : float
        Unit conversion: `value * multiply + add`, such as 38.67 for cholesterol from mmol/L.
        Examples: `multiply=38.67`, `add=-273.15`.
    decimal : str
        Decimal mark of numbers written as text; "," reads "6,2" as 6.2, and reports "1.234". Example: `decimal=","`.
    censored : {"refuse", "limit"}
        `limit` reads "<0.5" as 0.5 and "> 89" as 89; `refuse` reports them.
    missing : tuple of str
        Own codes for "not known", besides the schema's. Example: `missing=("-9", "NULL")`.
    thousands : str, optional
        Mark between the thousands of numbers written as text: "." reads "35.000" as 35000, "" says that there is
        none, so that "35.125" is a little over 35. Without it, a column in which every mark stands before just three
        digits is reported, for nobody can tell which of the two is meant. A blank stands for any kind of blank.
        Example: `thousands=","`.
    date : str
        How dates written as text are to be read, such as "%d.%m.%Y", with four digits of the year;
        default: 2026-01-31. Example: `date="%d.%m.%Y"`.
    other : str, optional
        The schema's value for every cell whose value it does not allow, such as "other": of a category, or of
        classes. Without it such cells are reported. Example: `other="other"`.
    """

    column: str
    values: Mapping[str, str] | None = None
    multiply: float = 1.0
    add: float = 0.0
    decimal: str = "."
    censored: Literal["refuse", "limit"] = "refuse"
    missing: tuple[str, ...] = ()
    thousands: str | None = None
    date: str = ""
    other: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings that would silently spoil a column."""
        where = f"Field({self.column!r})"
        _check_number(where, "multiply", self.multiply)
        _check_number(where, "add", self.add)
        if self.multiply == 0:
            raise UsageError(f"{where}: multiply=0 would make every cell the same")
        if self.values is not None and not isinstance(self.values, Mapping):
            raise UsageError(f"{where}: values must map own codes to the schema's values")
        check_codes(where, self.missing)
        if self.thousands is not None and self.thousands not in ("", ".", ",", " ", "'", "’"):
            raise UsageError(f"{where}: thousands={self.thousands!r} must be '.', ',', ' ', an apostrophe, or ''")
        if self.thousands == self.decimal:
            other = "," if self.thousands == "." else "."
            raise UsageError(f"{where}: thousands and decimal are the same mark; set decimal={other!r}")
        if self.date:
            check_date_format(where, self.date)


ColumnMapping = Mapping[str, str | Field | None]
"""Schema column to own column, Field, or None where the site does not have it."""


def own_name(entry: str | Field | None) -> str | None:
    """Return the name of a column in the source, by a mapping's entry; None where the source has none."""
    return entry.column if isinstance(entry, Field) else entry


def check_date_format(where: str, form: str, *, century: int = 0) -> None:
    """Refuse a date format that loses the day.

    It is one without a year or a month, or with a time zone; of two digits of a year only where `century` says which
    hundred years they are of.
    """
    # The day and the month of this moment cannot be taken for one another.
    moment = datetime(2021, 11, 23)
    try:
        whole = datetime.strptime(moment.strftime(form), form) == moment
    except ValueError:
        whole = False
    if not whole or "%z" in form or "%Z" in form:
        raise UsageError(f"{where}: date={form!r} must say day, month and year, such as '%d.%m.%Y'")
    if not century and re.search(r"(?<!%)(?:%%)*%[yx]", form):
        # Python takes 68 for 2068 and 69 for 1969.
        raise UsageError(
            f"{where}: date={form!r} has two digits of a year, of which nobody can tell the century: have the source "
            "give four (%Y)"
        )


def check_codes(where: str, missing: object) -> None:
    """Refuse one text where codes are meant.

    A tuple is needed: "NA" would be read as "N" and "A".
    """
    if isinstance(missing, str) or not isinstance(missing, (tuple, list)):
        raise UsageError(f"{where}: missing={missing!r} must be a tuple of codes, such as ('NA',)")


@dataclass(frozen=True)
class Finding:
    """One rule that a column breaks, and where.

    `rows` and `hint` never leave the site.

    Attributes
    ----------
    column : str
    rule : str
        A fixed phrase, as `TableError` takes it.
    rows : int array
        Row numbers in the source, from 0.
    hint : str
        What may be meant, for the site's own eyes; holds no cell.
    """

    column: str
    rule: str
    rows: np.ndarray
    hint: str = ""

    def error(self) -> TableError:
        """Return the error that names column, rule and count."""
        return TableError(self.column, self.rule, len(self.rows) or None)


def _check_number(where: str, key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{where}: {key}={value!r} must be a finite number")


ABSENT = "is not in the table"
MAP_IT = " (map it to None if the site does not have it)"
MAY_BE_ABSENT = ABSENT + MAP_IT
ABSENT_RULES = (ABSENT, MAY_BE_ABSENT)
NO_COLUMN = "is not in the table, and neither is any other column of the schema"
SHEETS = "sheets"
"""In a table's `attrs`: the names of a workbook's sheets, where it has several and the first one was read unnamed."""
ROWS_LOOKED_AT = 20
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, halves of characters, and ends of lines."""


def plain_name(name: object) -> str:
    """Return the letters and digits of a name.

    Case, blanks, marks of a file's beginning and all other signs are left out.

    Examples
    --------
    >>> plain_name(" Age_Years "), plain_name("age years")
    ('ageyears', 'ageyears')
    """
    text = unicodedata.normalize("NFKC", str(name)).removeprefix("ï»¿")
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def has_control(text: str) -> bool:
    r"""Tell whether a text has a line break or another control character.

    Examples
    --------
    >>> has_control("two\nlines"), has_control("München (ca. 5 %)")
    (True, False)
    """
    return any(unicodedata.category(sign) in _UNSHOWN for sign in text)


def one_line(text: str) -> str:
    r"""Return a text on one line, with single blanks and no control character.

    Examples
    --------
    >>> one_line("two\n  lines\x07")
    'two lines'
    """
    return " ".join("".join(" " if has_control(sign) else sign for sign in text).split())


def with_text_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have texts for names: 0 is "0"."""
    if all(isinstance(name, str) for name in table.columns):
        return table
    return table.set_axis([str(name) for name in table.columns], axis=1)


def alike(wanted: str, names: Iterable[object]) -> list[str]:
    """Return names that differ in spelling only.

    They differ from `wanted` in case, blanks or signs: so they tell nothing that it does not.
    """
    plain = plain_name(wanted)
    return [str(name) for name in names if name != wanted and plain and plain_name(name) == plain]


def did_you_mean(wanted: str, names: Iterable[object]) -> str:
    """Return a question after a misspelt name.

    It is asked where one of `names` differs from `wanted` in case, blanks or signs only; else it is "".

    Examples
    --------
    >>> did_you_mean("age", ["Age ", "sex"])
    "did you mean 'Age '?"
    """
    matches = alike(wanted, names)
    return f"did you mean {matches[0]!r}?" if matches else ""


def where_names_stand(raw: pd.DataFrame, wanted: Sequence[str]) -> str:
    """Return where the names of columns stand.

    It is asked of a table without any of them in its first line.
    """
    plain = {plain_name(name) for name in wanted}
    for number, row in enumerate(raw.head(ROWS_LOOKED_AT).itertuples(index=False), start=1):
        if 2 * len({plain_name(cell) for cell in row} & plain) > len(plain):
            return f"the names stand {number} lines further down: remove what is above them"
    if sheets := raw.attrs.get(SHEETS):
        return f"the first sheet was read, of {', '.join(map(repr, sheets))}: name the one that is meant with sheet="
    return "is it another file, or one without a line of names?"
