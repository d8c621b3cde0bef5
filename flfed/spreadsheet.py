"""Tables as CSV without spreadsheet formulas.

No cell becomes a formula where a spreadsheet opens it, wherever it splits a line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""How a formula begins, as the inside of a character class; also as full-width and small forms of the four signs."""
ENDS = ";|\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029"
"""Where a spreadsheet may take a cell to end, besides at a comma: what has a comma is quoted whole."""
BLANKS = ' "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\xa0\xad\u061c\u1680\u180e\u2000-\u206f\u3000\ufeff'
"""What a spreadsheet drops, or does not show, before what stands in a cell; a quote and dashes among them."""
FIGURE = re.compile(r"[+-][\d.]+(\s\(([+\u2212\d.\sto]+|n/a)\))?(,\s[a-z]+)?")
"""A figure with its sign, perhaps with its interval and a word: nothing in it can be called or looked up."""
_START = re.compile(f"((?:^|[{ENDS}])[{BLANKS}]*)([{SIGNS}][^{ENDS}]*)")
_WITHIN = re.compile(f"(?<=[{BLANKS}])(?=[=@\uff1d\uff20\ufe66\ufe6b]\\S|[{SIGNS}][^\\s;|]*[(|!])")
"""A formula after a blank, where somebody splits at blanks; of + and - only what calls something."""
_BROKEN = ("\t", "\r", "\n")


def plain_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet evaluates.

    Text that it would take for a formula has an apostrophe before it.

    So has what follows a semicolon, a bar, a tab, an end of line or a blank in it, where some spreadsheets
    begin another cell. Numbers stay numbers, and a figure with its interval stays as it is.

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
    # Some spreadsheets drop a leading tab or line end, and then see the formula behind it.
    if plain.startswith(_BROKEN):
        return f"'{plain}"
    return plain


def _quoted(match: re.Match[str]) -> str:
    before, formula = match.groups()
    # A figure with its sign is no formula, and stays readable.
    if FIGURE.fullmatch(formula.strip()):
        return match[0]
    return f"{before}'{formula}"


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV with a heading.

    Numbers keep all their digits, and None becomes an empty cell.

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
