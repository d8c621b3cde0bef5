"""Sections of a report on a page of the app."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.dashboard.components.figure import figure
from flfed.records.dashboard.components.tables import table
from flfed.records.section import Drawing, Section
from flfed.records.text import escape, heading, with_code

BESIDE = 2
"""Charts side by side."""


def show(section: Section, *, repeat: int | None = None, titled: bool = True) -> None:
    """Show a section: its sentences, charts, tables and notes.

    Parameters
    ----------
    section : Section
    repeat : int, optional
        The one of several that its figures are of.
    titled : bool
        Whether its title stands above it.
    """
    if titled:
        st.markdown(heading(section.title, repeat))
    for line in section.lead:
        st.caption(with_code(line))
    _show_charts(section.charts)
    for one in section.tables:
        if one.is_drawn:
            continue
        if one.title:
            st.markdown(f"**{escape(one.title)}**")
        table(one.lines)
    for line in section.note:
        st.caption(with_code(line))


def _show_charts(charts: Sequence[Drawing]) -> None:
    for start in range(0, len(charts), BESIDE):
        row = charts[start : start + BESIDE]
        columns = st.columns(BESIDE) if len(charts) > 1 else [st]
        for column, drawing in zip(columns, row, strict=False):
            figure(column, escape(drawing.title), drawing.draw(), drawing.lines, key=drawing.key, says=drawing.says)
