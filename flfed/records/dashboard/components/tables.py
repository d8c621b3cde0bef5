"""Tables of the pages.

A short one is shown as it is, a long one with a scroll bar. No cell becomes a formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

from flfed.records.text import escape
from flfed.spreadsheet import plain_cell


def scrolled(
    lines: Sequence[Mapping[str, Any]], *, key: str | None = None, height: int | Literal["auto"] = "auto"
) -> None:
    """Show a long table with its own scroll bar.

    What its toolbar or a copy of it gives away holds no formula.

    Parameters
    ----------
    lines : sequence of mappings
        Headings and cells as they are: nothing of them is taken for Markdown here.
    key : str, optional
        Of the table on its page.
    height : int or "auto"
        In pixels.
    """
    # The toolbar offers the table as a file, which a spreadsheet may open.
    plain = [{plain_cell(name): plain_cell(cell) for name, cell in line.items()} for line in lines]
    st.dataframe(plain, hide_index=True, key=key, height=height)


SITES_SHOWN = 24


def table(lines: Sequence[Mapping[str, Any]], *, most: int = SITES_SHOWN) -> None:
    """Show a table with its text as text.

    One of up to `most` lines is shown as it is, a longer one with a scroll bar.
    """
    if len(lines) <= most:
        shown = [{key: str(plain_cell(cell)) for key, cell in line.items()} for line in lines]  # it may be copied
        st.table([{escape(plain_cell(key)): escape(cell) for key, cell in line.items()} for line in shown])
    else:
        scrolled(lines)
