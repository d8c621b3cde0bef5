"""Data: who is in the data, what is missing where, how far sites lie apart, and what may give the answer away."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import data_panels, panels, run_page
from flfed.records.dashboard.live import read_summaries, where
from flfed.records.dashboard.run_page import Opened


def show() -> None:
    """Show the data of the run of the address, else of the newest; keep up with it while it runs."""
    run_page.show("Data", parts)


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that one that comes later moves no other."""
    shown = opened.shown()
    table_1, columns = (
        next(iter(read_summaries(where(), opened.mark[:1], name, opened.only)), None) for name in ("table-1", "columns")
    )
    going = shown.found["status"] == "running"
    why_none = data_panels.NOT_YET if going or not shown.found["global"] else data_panels.OLDER
    of = data_panels.sites_of(table_1, columns)
    with st.container():
        if len(opened.runs) > 1:
            st.caption("The rows are the same in every repeat; what follows was summed in the first.")
        sites = data_panels.choose_sites(of)
    with st.container():
        data_panels.table_1(table_1, sites, of, why_none=why_none)
    with st.container():
        data_panels.missing(columns, sites, why_none=why_none)
    with st.container():
        data_panels.drift(columns, sites, why_none=why_none)
    with st.container():
        panels.leaks(shown.events, shown.leaks)


if __name__ == "__main__":
    show()
