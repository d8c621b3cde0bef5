"""A long table with a scroll bar, which a reader may take to a spreadsheet: no cell becomes a formula there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

from flfed.spreadsheet import plain_cell


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
