"""Settings of one column, findings in it, and names of columns.

A site's mapping has the settings, and its check the findings. The names in a table's first line suggest the intended
column, and show whether that line holds names at all.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flfed.errors import TableError
from flfed.rows.data.parsing.text_files import shape
from flfed.words import counted, render, usage_error

if TYPE_CHECKING:
    import pandas as pd


NO_GROUP = "has no value, but rows are grouped by it"
NOT_NUMBER = "is not a number"
REPEATED = "stands in the table more than once"


NATURAL = (str, bool, int, float, Decimal, date, np.generic, type(None))
"""Types of the schema's values in a mapping; None is "not known"."""


@dataclass(frozen=True)
class Field:
    """Origin of one schema column, and how its cells are read.

    Parameters
    ----------
    column : str
        Name in the institution's own table. Example: `column="CHOL_MMOL"`.
    values : mapping of code to value, optional
        Own code to schema value, such as `{"1": "male", "0": "female"}`; both may also be numbers, True and False
        or dates, and a value None is "not known". Keys are compared after blanks are stripped and a trailing "0.0"
        is removed. A code that is not a key is an error.
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
        Mark between the thousands of numbers written as text: "." reads "35.000" as 35000, "" states that there is
        none, so that "35.125" is a little over 35. Without it, a column in which every mark stands before just three
        digits is reported as ambiguous. A blank stands for any kind of blank.
        Example: `thousands=","`.
    date : str
        Format of dates written as text, such as "%d.%m.%Y", with four digits of the year;
        default: 2026-01-31. Example: `date="%d.%m.%Y"`.
    other : str, optional
        The schema's value for every cell whose value it does not allow, such as "other": of a category, or of
        classes, and refused elsewhere. Without it such cells are reported. Example: `other="other"`.

    Examples
    --------
    >>> from flfed import Field
    >>> chol = Field("CHOL_MMOL", multiply=38.67, decimal=",")
    >>> chol.column, chol.multiply
    ('CHOL_MMOL', 38.67)
    """

    column: str
    values: Mapping[Any, Any] | None = None
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
            raise usage_error("rows.field.multiply", where=where)
        if self.values is not None and not isinstance(self.values, Mapping):
            raise usage_error("rows.field.values", where=where)
        for value in (self.values or {}).values():
            # What has no text of its own, as a list, can be no cell of the schema.
            if not isinstance(value, NATURAL) or (isinstance(value, float) and math.isinf(value)):
                raise usage_error("rows.field.value", where=where, kind=type(value).__name__)
        check_codes(where, self.missing)
        if self.thousands is not None and self.thousands not in ("", ".", ",", " ", "'", "’"):
            raise usage_error("rows.field.thousands", where=where, thousands=self.thousands)
        if self.thousands == self.decimal:
            other = "," if self.thousands == "." else "."
            raise usage_error("rows.field.mark", where=where, other=other)
        if self.date:
            check_date_format(where, self.date)


Entry = str | Field | None
"""Own column, Field, or None where the site does not have it."""
ColumnMapping = Mapping[str, Entry]
"""Entry of each schema column."""


def own_name(entry: Entry) -> str | None:
    """Return the name of the source's column in a mapping's entry, or None."""
    return entry.column if isinstance(entry, Field) else entry


def check_date_format(where: str, form: str) -> None:
    """Refuse a date format without a day, month or four digits of a year, or with a time zone."""
    # Day and month of this moment cannot be confused.
    moment = datetime(2021, 11, 23)
    try:
        whole = datetime.strptime(moment.strftime(form), form) == moment
    except ValueError:
        whole = False
    if not whole or "%z" in form or "%Z" in form:
        raise usage_error("rows.field.date", where=where, form=form)
    if re.search(r"(?<!%)(?:%%)*%[yx]", form):
        # Python takes 68 for 2068 and 69 for 1969.
        raise usage_error("rows.field.year", where=where, form=form)


def check_codes(where: str, missing: object) -> None:
    """Refuse a text in place of a tuple of codes: "NA" would be read as "N" and "A"."""
    if isinstance(missing, str) or not isinstance(missing, (tuple, list)):
        raise usage_error("rows.field.missing", where=where, missing=missing)


@dataclass(frozen=True)
class Finding:
    """One rule that a column breaks, and the rows that break it.

    `rows` and `hint` never leave the site.

    Attributes
    ----------
    column : str
    rule : str
        A fixed phrase, as `TableError` takes it.
    rows : int array
        Row numbers in the source, from 0.
    hint : str
        Likely cause, for the site's own eyes; holds no cell.
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
        raise usage_error("rows.field.number", where=where, key=key, value=value)


ABSENT = "is not in the table"
MAP_IT = " (map it to None if the site does not have it)"
MAY_BE_ABSENT = ABSENT + MAP_IT
ABSENT_RULES = (ABSENT, MAY_BE_ABSENT)
NO_COLUMN = "is not in the table, and neither is any other column of the schema"
SHEETS = "sheets"
"""Key in a table's `attrs`: the names of a workbook's sheets, if the first of several was read by default."""
HIDDEN = "hidden"
"""Key in a table's `attrs`: the number of a sheet's rows that Excel hides."""
ROWS_LOOKED_AT = 20
ROWS_COMPARED = 2000
"""First rows of a table whose cells are compared with the names of their columns."""
NAME_LIKE_A_CELL = 0.03
"""Share of names that are like a cell of their own column."""
LEAST_ODDS = 1.5
"""Logarithm of the odds above which names are a row; one name that is like a cell has up to 3.5."""
_FIGURES = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?")
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, halves of characters, and ends of lines."""


@lru_cache(4096, typed=True)
def plain_name(name: object) -> str:
    """Return the letters and digits of a name, without case, blanks and all other signs.

    Examples
    --------
    >>> plain_name(" Age_Years "), plain_name("age years")
    ('ageyears', 'ageyears')
    """
    text = unicodedata.normalize("NFKC", str(name)).removeprefix("ï»¿")
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def has_control(text: str) -> bool:
    r"""Return whether a text has a line break or another control character.

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


def site_name(text: str) -> str:
    """Convert text to a site's name of a-z, 0-9 and single hyphens; "" where nothing remains.

    Examples
    --------
    >>> site_name("St. Mary (north)")
    'st-mary-north'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def with_text_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with texts as names of columns: 0 becomes "0"."""
    if all(isinstance(name, str) for name in table.columns):
        return table
    return table.set_axis([str(name) for name in table.columns], axis=1)


def alike(wanted: str, names: Iterable[object]) -> list[str]:
    """Return the names that differ from `wanted` in case, blanks or signs only.

    Such a name reveals nothing beyond `wanted`.
    """
    plain = plain_name(wanted)
    return [str(name) for name in names if name != wanted and plain and plain_name(name) == plain]


def did_you_mean(wanted: str, names: Iterable[object]) -> str:
    """Return a suggestion if one of `names` differs from `wanted` in case, blanks or signs only; else "".

    Examples
    --------
    >>> did_you_mean("age", ["Age ", "sex"])
    "did you mean 'Age '?"
    """
    matches = alike(wanted, names)
    return f"did you mean {matches[0]!r}?" if matches else ""


def where_names_stand(raw: pd.DataFrame, wanted: Sequence[str]) -> str:
    """Return the likely place of the names, of a table without any of them in its first line."""
    plain = {plain_name(name) for name in wanted}
    for number, row in enumerate(raw.head(ROWS_LOOKED_AT).itertuples(index=False), start=1):
        if 2 * len({plain_name(str(cell)) for cell in row} & plain) > len(plain):
            return render("findings.names.below", lines=counted(number, "line"), skip=number)
    if looks_like_row(raw):
        return render("findings.names.row")
    if sheets := raw.attrs.get(SHEETS):
        return render("findings.names.sheet", sheets=", ".join(map(repr, sheets)))
    return render("findings.names.file")


def looks_like_row(raw: pd.DataFrame) -> bool:
    """Return whether the names of a table's columns are rather one more of its rows.

    Each name is weighed by the odds that such a cell stands in its column: a number among numbers, a code of the same
    form or a value that other rows have speak for a row, "age" above numbers speaks against it.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [["Roe", 61, "no"], ["Poe", 48, "yes"], ["Lee", 70, "no"]] * 9
    >>> looks_like_row(pd.DataFrame(rows, columns=["Doe", "54", "yes"]))
    True
    >>> looks_like_row(pd.DataFrame(rows, columns=["name", "age", "died"]))
    False
    """
    # pandas calls a second "yes" "yes.1", and a column without a name "Unnamed: 3".
    names = [str(name) for name in raw.columns]
    names = [base if (base := name.rpartition(".")[0]) and base in names else name for name in names]
    unnamed = [not isinstance(name, str) or name.startswith("Unnamed: ") for name in raw.columns]
    forms = ["" if none else _form(name) for none, name in zip(unnamed, names, strict=True)]
    figures = [re.fullmatch(r"\d+(\.\d+)?", name) for name in names]
    steps = np.diff([float(name) for name, figure in zip(names, figures, strict=True) if figure])
    if len(steps) > 1 and steps[0] and np.allclose(steps, steps[0], rtol=0.02):  # years, places or wavelengths
        forms = ["" if figure else form for form, figure in zip(forms, figures, strict=True)]
    first = raw.head(ROWS_COMPARED)
    # Some exports repeat the names among the rows.
    rows = first[(first.map(str).to_numpy() != np.array(names)).any(axis=1)].map(_form).to_numpy(dtype=object)
    odds = 0.0
    for place, form in enumerate(forms):
        cells = Counter(filter(None, rows[:, place]))
        # Ticked cells may repeat the name of their column, which is then its only value.
        ticked = [*cells] == [form] != ["0"] and {*filter(_form, map(str, first.iloc[:, place]))} == {names[place]}
        if not form or not cells or ticked:
            continue
        alone = sum(many == 1 for many in cells.values()) / cells.total()
        as_cell, as_name = (1 - alone, NAME_LIKE_A_CELL) if form in cells else (alone, 1 - NAME_LIKE_A_CELL)
        odds += math.log(max(as_cell, 0.01) / as_name)
    return odds > LEAST_ODDS


def shown_names(raw: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Return names of columns for people to see, in place of one that is like a cell of its column its place.

    Examples
    --------
    >>> import pandas as pd
    >>> shown_names(pd.DataFrame({"age": [54, 61], "61": [7, 9]}), ["age", "61"])
    ['age', 'column 2']
    """
    places = {str(name): place for place, name in enumerate(raw.columns)}
    return [
        f"column {places[name] + 1}" if _form(name) in set(map(_form, raw.iloc[:, places[name]].unique())) else name
        for name in names
    ]


def _form(cell: object) -> str:
    """Return 0 for a number, the shape of another text with digits, else the text itself; "" where it is missing."""
    text = str(cell).strip().casefold()
    if _FIGURES.fullmatch(text):
        return "0"
    if text in ("nan", "none", "nat", "<na>"):
        return ""
    return shape(text) if any(map(str.isdecimal, text)) else text
