"""Page Data of one run.

It shows who is in the data, what is missing where, how far sites lie apart, and what may give the answer away.
"""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import data, overview
from flfed.records.dashboard.refresh import read_summaries, where
from flfed.records.dashboard.run_page import Opened
from flfed.records.reports.events import SUMS_ONLY, no_sums_in_words
from flfed.records.statistics.listed.noised_scores import is_covered
from flfed.records.text import escape


def show() -> None:
    """Show the data of a run.

    It is the run of the address, else the newest. The page keeps up with it while it runs.
    """
    run_page.show("Data", parts)


def parts(opened: Opened) -> None:
    """Show each part in a place of its own.

    So one that comes later moves no other.
    """
    shown = opened.shown()
    if overview.trains_nothing(opened.trains):
        overview.who_takes_part(shown.found, shown.sites)
        return
    table_1, columns = (
        next(iter(read_summaries(where(), opened.mark[:1], name, opened.only)), None) for name in ("table-1", "columns")
    )
    why = escape(no_sums_in_words(shown.found, shown.events))
    if opened.only and table_1 and not table_1["rows"]:
        why = SUMS_ONLY
    of = data.sites_of(table_1, columns)
    # A site in sums only is in neither table, but it took part all the same.
    taking_part = max(len(of), sum(site.status != "refused" for site in shown.sites))
    if is_covered(shown.found):
        # One reason for all of it: three headings without a table would say it three times.
        with st.container():
            st.info(escape(why))
            overview.who_takes_part(shown.found, shown.sites)
        return
    with st.container():
        if len(opened.runs) > 1:
            st.caption("Of the first repeat; the rows are the same in each.")
        sites = data.choose_sites(of)
    # Charts first: a table of all columns would hide them.
    with st.container():
        data.missing(columns, sites, of=taking_part, why_none=why)
    with st.container():
        data.drift(columns, sites, of=taking_part, why_none=why)
    with st.container():
        data.table_1(table_1, sites, of, why_none=why)
    with st.container():
        overview.leaks(shown.events, shown.leaks, only=opened.only)


if __name__ == "__main__":
    show()
