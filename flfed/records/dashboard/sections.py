"""Sections of a report on a page of the app, with the charts and tables in them.

Every chart is shown with title, words, table and file. A short table is shown as it is, a long one with a scroll bar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import streamlit as st

from flfed.records.charts.chart import Chart, Line
from flfed.records.section import Drawing, Section, Table, names_of
from flfed.records.statistics.verdict import number
from flfed.records.text import escape, heading, with_code
from flfed.spreadsheet import csv_text, plain_cell

UNBROKEN = "\u00a0"
"""A space at which no line ends."""
EMPHASIS = re.compile(r"\\\*(\w+)\\\*")
PADDING = dict.fromkeys(("left", "top", "right", "bottom"), 8)
"""Pixels around each chart: a browser's letters are larger than Vega takes them for."""


def figure(column: Any, title: str, drawn: Any, lines: Sequence[Line], *, key: str, says: str = "") -> None:
    """Show a chart under its title.

    Its table and a CSV file are folded below it. Where there is nothing to draw, that is said.

    Parameters
    ----------
    column : st or a container
    title : str
    drawn : Altair chart, Chart or None
        None where there are no figures.
    lines : sequence of mappings
        The figures of the chart, with units in the names.
    key : str
        Of the chart on its page; also the name of the file.
    says : str
        What a reader who cannot see the chart is told; the title unless given.
    """
    with column.container():
        st.markdown(f"**{title}**")
        if drawn is None or not lines:
            st.caption("No figures to draw.")
            return
        # A `Chart` is in Vega-Lite's own words: Altair's checks would be too slow for a running run.
        if isinstance(drawn, Chart):
            spec = {"padding": PADDING, **drawn.spec}
            st.vega_lite_chart(drawn.rows, spec, width="stretch", alt=says or title, key=f"{key}-chart")
        else:
            st.altair_chart(drawn.properties(padding=PADDING), width="stretch", alt=says or title, key=f"{key}-chart")
        behind(lines, key=key)


def behind(lines: Sequence[Line], *, key: str) -> None:
    """Show a table folded away, with its CSV file.

    It is sent to the browser only once it is unfolded.
    """
    folded = st.expander("Table", key=f"{key}-table", on_change="rerun")
    if folded.open:
        with folded:
            table([{name: _cell(value) for name, value in line.items()} for line in lines])
            download(lines, key=key)


def download(lines: Sequence[Line], *, key: str) -> None:
    """Show a button for a table's CSV file.

    The file is made at once: one made at the click is lost where the page looks again in between.
    """
    name = f"{key}.csv"
    st.download_button("Download as CSV", csv_of(lines), name, "text/csv", on_click="ignore", key=name)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def bullets(lines: Iterable[str]) -> str:
    """Return lines of Markdown as a list."""
    return "\n".join(f"- {line}" for line in lines)


def csv_of(lines: Iterable[Line]) -> str:
    """Return lines as CSV.

    The heading has all their names.
    """
    there = list(lines)
    # Lines may lack a name that others have: its cell is empty there.
    names = names_of(there)
    return csv_text(names, ([line.get(name) for name in names] for line in there))


def scrolled(lines: Sequence[Line], *, key: str | None = None, height: int | Literal["auto"] = "auto") -> None:
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


def table(lines: Sequence[Line]) -> None:
    """Show a table with its text as text.

    One of up to `SITES_SHOWN` lines is shown as it is, a longer one with a scroll bar.
    """
    if len(lines) <= SITES_SHOWN:
        shown = [{key: str(plain_cell(cell)) for key, cell in line.items()} for line in lines]  # it may be copied
        st.table([{escape(plain_cell(key)): escape(cell) for key, cell in line.items()} for line in shown])
    else:
        scrolled(lines)


COLUMNS_ABREAST = 8
"""Columns of a table beside each other on a screen of 1,280 pixels."""
BESIDE = 2
"""Charts side by side."""


def show(section: Section | None, *, repeat: int | None = None, titled: bool = True) -> None:
    """Show a section in a place of its own: its sentences, charts, tables and notes; nothing of none.

    Parameters
    ----------
    section : Section or None
    repeat : int, optional
        The one of several that its figures are of.
    titled : bool
        Whether its title stands above it.
    """
    with st.container():
        if section is None:
            return
        if titled:
            st.markdown(heading(section.title, repeat))
        for line in section.lead:
            st.caption(with_code(line))
        _show_charts(section.charts)
        for one in section.tables:
            if not one.is_drawn:
                _show_table(one)
        if section.says:
            st.markdown(bullets(map(with_code, section.says)))
        for line in section.note:
            # A word between stars is emphasised, as in a document.
            st.caption(EMPHASIS.sub(r"*\1*", with_code(line)))


def _show_table(of: Table) -> None:
    place = st.expander(escape(of.title)) if of.is_folded else st.container()
    with place:
        if of.title and not of.is_folded:
            st.markdown(f"**{escape(of.title)}**")
        if of.lead:
            st.markdown(escape(of.lead))
        if of.is_whole:
            _show_whole(of.lines)
        else:
            table(of.lines)
        if of.key:
            download(of.rows or of.lines, key=of.key)


def _show_whole(lines: Sequence[Line]) -> None:
    """Show a table with all of its lines; no figure in it is broken."""
    shown = []
    for line in lines:
        cells = {escape(name): escape(str(cell)) for name, cell in line.items()}
        first, *others = cells
        shown.append({first: cells[first]} | {name: cells[name].replace(" ", UNBROKEN) for name in others})
    st.table(shown)
    # Of many sites the columns go on to the right, so that no figure stands in two lines.
    if shown and len(shown[0]) > COLUMNS_ABREAST:
        st.caption("The table goes on to the right.")


def _show_charts(charts: Sequence[Drawing]) -> None:
    for start in range(0, len(charts), BESIDE):
        row = charts[start : start + BESIDE]
        columns = st.columns(BESIDE) if len(charts) > 1 else [st]
        for column, drawing in zip(columns, row, strict=False):
            figure(column, escape(drawing.title), drawing.draw(), drawing.lines, key=drawing.key, says=drawing.says)
