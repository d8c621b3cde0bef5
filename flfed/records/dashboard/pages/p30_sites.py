"""Page Sites of one run.

It shows whether joining was worth it at one site, and how every model did at each.
"""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview, sites
from flfed.records.dashboard.run_page import Opened
from flfed.records.reports import report
from flfed.records.reports.site_answer import own_figures, together
from flfed.records.statistics.noised_scores import is_uncompared
from flfed.records.text import escape


def show() -> None:
    """Show the sites of a run.

    It is the run of the address, else the newest. The page keeps up with it while it runs.
    """
    run_page.show("Sites", parts)


def parts(opened: Opened) -> None:
    """Show each part in a place of its own.

    So one that comes later moves no other.
    """
    shown = opened.shown()
    found = shown.found
    metric = None
    first = st.container()  # what the figure chosen below says comes before the choice
    with st.container():
        if report.primary_of(found) is None and opened.only:
            sites.why_not_told(found, shown.sites, opened.only, trains=opened.trains)
        elif report.primary_of(found) is None or not found["sites"]:
            overview.not_compared(found, trains=opened.trains)
        else:
            metric = sites.choose_metric(found)
    with first:
        if metric is not None:
            # Sites that share sums only have no figures to look at by themselves.
            own = own_figures(found, shown.sites)
            if own:
                label = "Site" if is_uncompared(found) else "Was it worth joining for this site?"
                site = run_page.choose_site(own, label=label)
                sites.answer(found, site, metric)
                overview.warn(overview.leak_warnings(shown))
            else:
                st.info("Nothing can be told of one site: all share their figures in sums over all sites only.")
    with st.container():
        if metric is not None:
            sites.everywhere(found, metric, shown.sites, opened.only)
            sites.how_to_read(found, metric)
        else:
            if not opened.only:
                for line in together(found, ""):
                    st.info(escape(line))
            overview.who_takes_part(found, shown.sites)


if __name__ == "__main__":
    show()
