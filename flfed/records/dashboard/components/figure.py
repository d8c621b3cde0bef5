"""Chart with title, words, table and file.

Every chart of the pages is shown so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import streamlit as st

from flfed.records.charts.chart import Chart, Line
from flfed.records.dashboard.components.tables import table
from flfed.records.statistics.verdict import number
from flfed.spreadsheet import csv_text

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


def csv_of(lines: Iterable[Line]) -> str:
    """Return lines as CSV.

    The heading has all their names.
    """
    there = list(lines)
    # Lines may lack a name that others have: its cell is empty there.
    names = list(dict.fromkeys(name for line in there for name in line))
    return csv_text(names, ([line.get(name) for name in names] for line in there))
