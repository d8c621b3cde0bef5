"""Cells that a reader may take to a spreadsheet, as a file or from a table: none becomes a formula there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that some spreadsheet takes for a formula; source: OWASP, "CSV Injection"."""
FIGURE = re.compile(r"[+-][\d.]+(\s\(([+\u2212\d.\sto]+|n/a)\))?(,\s[a-z]+)?")
"""A figure with its sign, perhaps with its interval and a word: nothing in it can be called or looked up."""
ENDS = re.compile(r"(?<=.[;\t\r\n])(?!\n)", re.DOTALL)
"""Where a cell may end that a spreadsheet splits at other signs than commas; source: OWASP, "CSV Injection"."""


def plain_cell(value: Any) -> Any:
    """Return a cell for a spreadsheet; text that it would take for a formula starts with a quote.

    So does what follows a semicolon, a tab or an end of line in it, where some spreadsheets begin another cell.

    Examples
    --------
    >>> plain_cell("=1+1"), plain_cell("long-beach"), plain_cell(-0.03), plain_cell("-1+A1")
    ("'=1+1", 'long-beach', -0.03, "'-1+A1")
    >>> plain_cell("+.11 (+.02 to +.20), shared"), plain_cell("1.5 mg/dl; -0.3"), plain_cell("late;=A1")
    ('+.11 (+.02 to +.20), shared', '1.5 mg/dl; -0.3', "late;'=A1")
    """
    return "".join(map(_quoted, ENDS.split(value))) if isinstance(value, str) else value


def _quoted(part: str) -> str:
    is_formula = part.lstrip(" ")[:1] in FORMULAS and not FIGURE.fullmatch(part.strip(" ;\t\r\n"))
    return f"'{part}" if is_formula else part


def scrolled(
    lines: Sequence[Mapping[str, Any]], *, key: str | None = None, height: int | Literal["auto"] = "auto"
) -> None:
    """Show a long table with a scroll bar of its own; what its toolbar or a copy of it gives away holds no formula.

    Parameters
    ----------
    lines : sequence of mappings
        Headings and cells as they are: nothing of them is taken for Markdown here.
    key : str, optional
        Of the table on its page.
    height : int or "auto"
        In pixels.
    """
    plain = [{plain_cell(name): plain_cell(cell) for name, cell in line.items()} for line in lines]
    st.dataframe(plain, hide_index=True, key=key, height=height)
