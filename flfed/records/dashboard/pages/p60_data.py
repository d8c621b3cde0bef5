"""Page Data of one run: Table 1, missing values, differences between sites, and columns that may leak the target."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.panels import overview
from flfed.records.dashboard.refresh import Opened
from flfed.records.reports.faults import no_sums_in_words
from flfed.records.sections import answer, data
from flfed.records.statistics.noised_scores import wording
from flfed.records.text import escape
from flfed.words import render

SITES_DRAWN = 12
"""Sites shown unless the reader picks others."""


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that a later one moves no other."""
    shown = opened.shown
    if overview.trains_nothing(opened):
        overview.who_takes_part(opened)
        return
    no_sums = wording(shown.report).no_sums
    if no_sums:
        # One reason covers all of it: three headings without a table would repeat it.
        with st.container():
            st.info(escape(no_sums))
            overview.who_takes_part(opened)
        return
    first = opened.of_repeat(opened.runs[0])
    table_1 = first.summaries("table-1")[0]
    columns = first.summaries("columns")[0]
    why = no_sums_in_words(shown.report, shown.events)
    every = data.sites_of(table_1, columns)
    of = max(len(every), sum(site.status != "refused" for site in shown.sites))
    with st.container():
        if opened.is_repeated:
            st.caption(render("pages.data.repeat"))
        sites = choose_sites(every)
    # Charts come first, as a table of all columns would push them out of sight.
    sections.show_all(
        data.missing(columns, sites, of=of, why_none=why),
        data.drift(columns, sites, of=of, why_none=why),
        data.table_1(table_1, set(every) - set(sites), why_none=why),
        answer.leaks(shown),
    )


def choose_sites(sites: Sequence[str]) -> list[str]:
    """Return all sites, or the reader's pick of many."""
    if len(sites) <= SITES_DRAWN:
        return list(sites)
    chosen = st.multiselect("Sites shown", sites, default=sites[:SITES_DRAWN], max_selections=40, key="data-sites")
    return list(chosen)


if __name__ == "__main__":
    run_page.show("Data", parts)
