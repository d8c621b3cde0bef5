"""Sites: whether joining was worth it at one site, and how every model did at each."""

from __future__ import annotations

import streamlit as st

from flfed.records import reports
from flfed.records.dashboard import learning, panels, run_page, site_panels
from flfed.records.dashboard.run_page import Opened


def show() -> None:
    """Show the sites of the run of the address, else of the newest; keep up with it while it runs."""
    run_page.show("Sites", parts)


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that one that comes later moves no other."""
    shown = opened.shown()
    found = shown.found
    metric = None
    with st.container():
        if reports.primary_of(found) is None and opened.only:
            site_panels.why_not_told(found, shown.sites, opened.only)
        elif reports.primary_of(found) is None or not found["sites"]:
            panels.not_compared(found)
        else:
            metric = site_panels.choose_metric(found)
    with st.container():
        if metric is not None:
            own = site_panels.own_figures(found, shown.sites)
            if own:
                site = run_page.choose_site(own, label="Was it worth joining for this site?")
                site_panels.answer(found, site, metric)
                panels.leak_notice(shown, opened.name)
                learning.curve(shown, site)
            else:
                st.info("Nothing can be told of one site: all share their figures in sums over all sites only.")
    with st.container():
        if metric is not None:
            site_panels.everywhere(found, metric, shown.sites, opened.only)
            site_panels.how_to_read(found, metric)
        else:
            panels.who_takes_part(shown.sites)
            if learning.is_asked(shown):
                learning.curve(shown, "")


if __name__ == "__main__":
    show()
