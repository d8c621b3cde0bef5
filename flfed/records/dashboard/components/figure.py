"""A chart as the pages show each of them: its title, what it says in words, its table, and a file to keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.dashboard.components.round_chart import Curves
from flfed.records.dashboard.components.tables import table
from flfed.records.statistics.verdict import number
from flfed.spreadsheet import csv_text

PADDING = dict.fromkeys(("left", "top", "right", "bottom"), 8)
"""Pixels around each chart: a browser's letters are larger than Vega takes them for."""
Line = Mapping[str, Any]
"""One line of a table: figures as numbers, None where there is none."""


def figure(column: Any, title: str, drawn: Any, lines: Sequence[Line], *, key: str, says: str = "") -> None:
    """Show a chart under its title, and its table and a CSV file folded below it; nothing to draw is said.

    Parameters
    ----------
    column : st or a container
    title : str
    drawn : Altair chart, Curves or None
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
            st.caption("No figures to draw yet.")
            return
        if isinstance(drawn, Curves):
            spec = {"padding": PADDING, **drawn.spec}
            st.vega_lite_chart(drawn.rows, spec, width="stretch", alt=says or title, key=f"{key}-chart")
        else:
            st.altair_chart(drawn.properties(padding=PADDING), width="stretch", alt=says or title, key=f"{key}-chart")
        behind(lines, key=key)


def behind(lines: Sequence[Line], *, key: str) -> None:
    """Show a table folded away, sent to the browser only once it is unfolded, with its CSV file."""
    folded = st.expander("Table", key=f"{key}-table", on_change="rerun")
    if folded.open:
        with folded:
            table([{name: _cell(value) for name, value in line.items()} for line in lines])
            download(lines, key=key)


def download(lines: Sequence[Line], *, key: str) -> None:
    """Show a button that keeps a table as a CSV file.

    The file is made at once: one made at the click is lost where the page looks again in between.
    """
    name = f"{key}.csv"
    st.download_button("Download as CSV", csv_of(lines), name, "text/csv", on_click="ignore", key=name)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def csv_of(lines: Iterable[Line]) -> str:
    """Return lines as CSV, with a heading of all their names."""
    there = list(lines)
    names = list(dict.fromkeys(name for line in there for name in line))
    return csv_text(names, ([line.get(name) for name in names] for line in there))
