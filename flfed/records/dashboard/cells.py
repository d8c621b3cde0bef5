"""Cells that a reader may take to a spreadsheet, as a file or from a table: none becomes a formula there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that some spreadsheet takes for a formula; source: OWASP, "CSV Injection"."""
FIGURE = re.compile(r"[+-][\d.]+( \([+\u2212\d. to]+\))?")
"""A figure with its sign, perhaps with its interval: nothing in it can be called or looked up."""


def plain_cell(value: Any) -> Any:
    """Return a cell for a spreadsheet; text that it would take for a formula starts with a quote.

    Examples
    --------
    >>> plain_cell("=1+1"), plain_cell("long-beach"), plain_cell(-0.03), plain_cell("+.11"), plain_cell("-1+A1")
    ("'=1+1", 'long-beach', -0.03, '+.11', "'-1+A1")
    """
    if isinstance(value, str) and value.lstrip(" ")[:1] in FORMULAS and not FIGURE.fullmatch(value):
        return f"'{value}"
    return value


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
