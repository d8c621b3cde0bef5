"""Page Sites of one run: the verdict at one site, and every model's figures at each."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview, sites
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import show, show_all
from flfed.records.reports import report
from flfed.records.reports.faults import leaks_in_words
from flfed.records.reports.site_answer import own_figures, together
from flfed.records.sections.unseen_sites import unseen_sites, validated_sites
from flfed.records.statistics.noised_scores import is_uncompared
from flfed.records.text import escape
from flfed.words import render


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that a later one moves no other."""
    run_report = opened.report
    metric = report.primary_of(run_report)
    first = st.container()  # the verdict stands above the choice of its figure
    with st.container():
        if metric is None or not run_report["sites"]:
            metric = None
            overview.not_compared(opened)
        else:
            metric = sites.choose_metric(run_report)
    validated = validated_sites(run_report)
    with first:
        if metric is not None and validated is None:
            _one_site(opened, metric)
    with st.container():
        show_all(validated)
        if metric is not None and validated is not None:
            return
        if metric is not None:
            sites.everywhere(opened, metric)
            show(unseen_sites(run_report))
            sites.how_to_read(run_report, metric)
            return
        for line in together(run_report, ""):
            st.info(escape(line))
        overview.who_takes_part(opened)


def _one_site(opened: Opened, metric: str) -> None:
    """Show the verdict at the site that the reader picks."""
    run_report = opened.report
    own = own_figures(run_report)
    if not own:
        st.info(render("pages.sites.summed"))
        return
    label = "Site"
    if not is_uncompared(run_report):
        label = render("pages.sites.question")
    sites.answer(run_report, run_page.choose_site(own, label=label), metric)
    overview.warn(leaks_in_words(opened.shown.leaks))


if __name__ == "__main__":
    run_page.show("Sites", parts)
