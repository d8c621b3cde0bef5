"""Names of columns in a table's first line.

They tell which of a table's columns may be meant, and whether that line holds names at all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


ABSENT = "is not in the table"
MAP_IT = " (map it to None if the site does not have it)"
MAY_BE_ABSENT = ABSENT + MAP_IT
ABSENT_RULES = (ABSENT, MAY_BE_ABSENT)
NONE_FOUND = "is not in the table, and neither is any other column of the schema"
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
    found = alike(wanted, names)
    return f"did you mean {found[0]!r}?" if found else ""


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
