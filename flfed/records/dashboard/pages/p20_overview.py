"""Page Overview of one run: the verdict first, then its figures, and rejected updates and refusals."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import page_files, run_page
from flfed.records.dashboard.panels import curves, overview, rounds, sites
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import contained
from flfed.records.reports.faults import missing_in_words
from flfed.records.reports.report import purpose_of
from flfed.records.sections.gains import at_the_ends
from flfed.records.statistics.noised_scores import is_uncompared, noised_scores, wording
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.text import escape
from flfed.words import render

FURTHER = {"sites": "Each site's gain"}
FURTHER |= {page: page.capitalize() for page in ("curves", "rounds", "data", "privacy")}
SCORED_ALONE = FURTHER | {"sites": "Each site"}
"""The same where no comparison leaves a site."""
WITHOUT_MODEL = {"sites": "Sites", "privacy": "Privacy"}
"""Pages with content on a study that trains nothing."""


def parts(opened: Opened) -> None:
    """Show each panel in a place of its own, so that a later one moves no other."""
    with st.container():
        purpose = purpose_of(opened.shown.study_text)
        if purpose:
            st.markdown(f"{escape(purpose)}.")
        if opened.shown.note:
            st.markdown(render("document.document.note", note=escape(opened.shown.note)))
    # Figures over all sites would reveal those of other sites to people of one site.
    if opened.only:
        _own(opened, opened.only)
    else:
        _all_sites(opened)
    contained(overview.set_aside, opened)
    contained(_further, opened)
    contained(overview.report_file, opened)
    overview.words(opened)
    overview.facts(opened)


def _own(opened: Opened, site: str) -> None:
    """Show the verdict at one site to its people."""
    report = opened.report
    first = st.container()
    metric = contained(sites.choose_metric, report)
    with first:
        if "statistics" in report:
            curves.statistic(report)
        elif metric is None:
            sites.explain_missing_figures(opened, site)
        else:
            sites.answer(report, site, metric)
            overview.warn(odd_sites_in_words(report))


def _all_sites(opened: Opened) -> None:
    """Show whether joining improves the figure on average, each site's gain, and warnings."""
    report = opened.report
    first = st.container()  # the verdict stands above the choice of its figure
    metric = contained(sites.choose_metric, report)
    with first:
        if "statistics" in report:
            curves.statistic(report)
        elif metric is None:
            overview.not_compared(opened)
        else:
            leaks = overview.leak_warnings(opened.shown)
            warnings = [*missing_in_words(report), *leaks, *odd_sites_in_words(report)]
            overview.answer(report, metric, len(warnings))
            sites.who_gains(report, metric)
            overview.warn(warnings)
            overview.cards(report, metric, opened.planned)
    with st.container():
        # A table of noised figures is as wide as the page.
        noised = metric is not None and noised_scores(report) is not None
        left, right = (st.container(), st.container()) if noised else st.columns(2)
        with left:
            if metric is not None:
                sites.figures_of_all(report, metric)
        with right:
            # A statistic stands in words above, and has no rounds.
            if "statistics" not in report:
                overview.in_words(report, metric, opened.planned)
    with st.container():
        if metric is not None:
            st.markdown("### Single sites")
            with st.container(horizontal=True, gap="xsmall"):
                for site in at_the_ends(report, metric, sites.FEW_SITES):
                    address = {"run": opened.name, "site": site}
                    st.page_link(page_files()["sites"], label=escape(site), query_params=address)
    with st.container():
        if opened.shown.curve_names or (report["status"] == "running" and not wording(report).no_rounds):
            rounds.together(opened)


def _further(opened: Opened) -> None:
    """Show links to other pages of the run."""
    pages = WITHOUT_MODEL
    if opened.trains:
        pages = SCORED_ALONE if is_uncompared(opened.report) else FURTHER
    st.markdown("### More pages")
    with st.container(horizontal=True):
        for page, label in pages.items():
            run_page.link(page, label, opened.name)


if __name__ == "__main__":
    run_page.show("", parts)
