"""Page Overview of one run.

Its verdict comes first, then the figures behind it and what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview, rounds, sites
from flfed.records.dashboard.refresh import Shown
from flfed.records.dashboard.run_page import Opened
from flfed.records.reports.report import purpose_of
from flfed.records.statistics.noised_scores import is_covered, is_uncompared
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.text import escape

FURTHER = {
    "sites": "Should a site join?",
    "curves": "How the scores lie",
    "rounds": "Each round",
    "data": "The data",
    "privacy": "Its privacy",
}
SCORED_ALONE = FURTHER | {"sites": "Each site"}
"""The same where no comparison leaves a site."""
WITHOUT_MODEL = {"sites": "Who takes part", "privacy": "Its privacy"}
"""Pages that say something of a study which trains nothing."""


def show() -> None:
    """Show the run of the address or the newest.

    The page keeps up with it while it runs.
    """
    run_page.show("", parts)


def parts(opened: Opened) -> None:
    """Show each panel in a place of its own.

    So one that comes later moves no other into a new element.
    """
    runs = opened.runs
    shown = opened.shown()
    found = shown.found
    with st.container():
        purpose = purpose_of(shown.study_text)
        if purpose:
            st.markdown(f"{escape(purpose)}.")
    # Figures over all sites would tell one site's people of the others.
    if opened.only:
        _own(shown, opened.only, trains=opened.trains)
    else:
        _all_sites(opened, shown, runs[0].rounds_planned)
    with st.container():
        overview.set_aside(found, shown.events, only=opened.only, trains=opened.trains)
    with st.container():
        pages = WITHOUT_MODEL
        if opened.trains:
            pages = SCORED_ALONE if is_uncompared(found) else FURTHER
        _further(opened.name, pages)
    with st.container():
        overview.report_file(opened.name, opened.mark, opened.viewer)
    overview.words(found, trains=opened.trains)
    overview.facts(shown, runs, made_by=opened.viewer.role == "coordinator", only=opened.only)


def _own(shown: Shown, site: str, *, trains: bool) -> None:
    """Show one site's people whether joining paid."""
    first = st.container()
    with st.container():
        metric = sites.choose_metric(shown.found)
    with first:
        if "statistics" in shown.found:
            overview.statistic(shown.found)
        elif metric is None:
            sites.why_not_told(shown.found, shown.sites, site, trains=trains)
        else:
            sites.answer(shown.found, site, metric)
            overview.warn(odd_sites_in_words(shown.found))


def _all_sites(opened: Opened, shown: Shown, planned: int) -> None:
    """Show whether joining pays on average, each site's gain, and what to know of it."""
    found = shown.found
    first = st.container()  # what the figure chosen below says comes before the choice
    with st.container():
        metric = sites.choose_metric(found)
    with first:
        if "statistics" in found:
            overview.statistic(found)
        elif metric is None:
            overview.not_compared(found, trains=opened.trains)
        else:
            warnings = overview.warnings_of(found, shown)
            overview.answer(found, metric, len(warnings))
            sites.who_gains(found, metric)
            overview.warn(warnings)
            overview.cards(found, metric, planned)
    with st.container():
        covered = metric is not None and is_covered(found)
        left, right = (st.container(), st.container()) if covered else st.columns(2)
        with left:
            if metric is not None and covered:
                sites.noised_figures(found, metric)
            elif metric is not None:
                sites.references(found, metric)
        with right:
            # A statistic is told in words above, and has no rounds to tell of.
            if "statistics" not in found:
                overview.in_words(found, metric, planned)
    with st.container():
        if metric is not None:
            sites.links(found, metric, opened.name)
    with st.container():
        if shown.curve_names or (found["status"] == "running" and not is_covered(found)):
            rounds.together(opened, shown)


def _further(name: str, pages: Mapping[str, str]) -> None:
    """Show links to other pages of the run."""
    st.markdown("### More of this run")
    with st.container(horizontal=True):
        for page, label in pages.items():
            overview.link(page, label, name)


if __name__ == "__main__":
    show()
