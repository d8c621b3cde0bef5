"""Tables as CSV in which a spreadsheet finds no formula, wherever it splits a line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""First characters of a formula, also in full-width and small forms; the inside of a character class."""
ENDS = ";|\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029"
"""Characters at which a spreadsheet may end a cell, besides a comma: a text with a comma is quoted."""
BLANKS = ' "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\xa0\xad\u061c\u1680\u180e\u2000-\u206f\u3000\ufeff'
"""Characters that a spreadsheet drops or hides at the beginning of a cell, a quote and dashes included."""
FIGURE = re.compile(r"[+-][\d.]+(\s\(([+\u2212\d.\sto]+|n/a)\))?(,\s[a-z]+)?")
"""Figure with its sign, perhaps with its interval and a word: a spreadsheet can run nothing in it."""
_START = re.compile(f"((?:^|[{ENDS}])[{BLANKS}]*)([{SIGNS}][^{ENDS}]*)")
_WITHIN = re.compile(f"(?<=[{BLANKS}])(?=[=@\uff1d\uff20\ufe66\ufe6b]\\S|[{SIGNS}][^\\s;|]*[(|!])")
"""Formula after a blank, for those who split at blanks; after + and - only a call."""
_BROKEN = ("\t", "\r", "\n")


def plain_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet evaluates: an apostrophe precedes each text like a formula.

    This includes text after a semicolon, a bar, a tab, an end of line or a blank, where some spreadsheets begin another
    cell. Numbers, and figures with their intervals, do not change.

    Source: OWASP, "CSV Injection".

    Examples
    --------
    >>> plain_cell("=1+1"), plain_cell("long-beach"), plain_cell(-0.03), plain_cell("-1+A1")
    ("'=1+1", 'long-beach', -0.03, "'-1+A1")
    >>> plain_cell("+0.11 (+0.02 to +0.20), shared"), plain_cell("1.5 mg/dl; -0.3"), plain_cell("late;=A1")
    ('+0.11 (+0.02 to +0.20), shared', '1.5 mg/dl; -0.3', "late;'=A1")
    """
    if not isinstance(value, str):
        return value
    plain = _WITHIN.sub("'", _START.sub(_quoted, value))
    # Some spreadsheets drop a leading tab or line end, and then evaluate the rest.
    return f"'{plain}" if plain.startswith(_BROKEN) else plain


def _quoted(match: re.Match[str]) -> str:
    before, formula = match.groups()
    # A figure with its sign is no formula.
    return match[0] if FIGURE.fullmatch(formula.strip()) else f"{before}'{formula}"


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV with a heading; numbers have all their digits, and None is an empty cell.

    Examples
    --------
    >>> print(csv_text(["a", "b"], [["=1+1", -0.5], [None, "x"]]), end="")
    a,b
    '=1+1,-0.5
    ,x
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(plain_cell, headers))
    writer.writerows(map(plain_cell, row) for row in rows)
    return text.getvalue()
