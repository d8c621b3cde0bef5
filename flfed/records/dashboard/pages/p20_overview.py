"""Page Overview of one run, like its report: question, answer and forest plot, what it rests on, what to do next."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview, rounds, sites, statistic
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import contained, show, show_all
from flfed.records.sections import answer as answers
from flfed.records.sections.gains import are_known
from flfed.records.sections.unseen_sites import validated_sites
from flfed.records.statistics.noised_scores import is_uncompared, noised_scores, wording
from flfed.records.statistics.training_state import WARM_START, seen_in_words
from flfed.records.text import escape

FURTHER = {"sites": "Each site's gain"}
FURTHER |= {page: page.capitalize() for page in ("curves", "rounds", "data", "privacy")}
SCORED_ALONE = FURTHER | {"sites": "Each site"}
"""The same where no comparison leaves a site."""
WITHOUT_MODEL = {"sites": "Sites", "privacy": "Privacy"}
VALIDATED = WITHOUT_MODEL | {"curves": "Curves"}
"""Pages with content on a study that trains nothing, and on one that validates a model."""


def parts(opened: Opened) -> None:
    """Show question, answer and forest plot, then what they rest on and what to do next; each part in its place."""
    shown = opened.shown
    with st.container():
        if purpose := shown.purpose:
            st.markdown(escape(purpose))
    first = st.container()  # the verdict stands above the choice of its figure
    metric = contained(sites.choose_metric, shown.report)
    with first:
        _answer(opened, metric)
    rounds_place = st.container()
    with st.container():
        left, right = st.columns(2)
        with left:
            show(answers.basis(shown))
        with right:
            show(answers.next_steps(shown, metric))
            _further(opened, metric)
    contained(_figures, opened, metric)
    # A run that compared nothing has no other chart.
    place = rounds_place if metric is None else st.container()
    with place:
        if shown.curve_names or (opened.is_running and not wording(shown.report).no_rounds):
            rounds.together(opened)
    show_all(answers.set_aside(shown))
    contained(overview.report_file, opened)
    overview.words(opened)
    overview.facts(opened)


def _answer(opened: Opened, metric: str | None) -> None:
    """Show the verdict and the forest plot."""
    report = opened.report
    validated = validated_sites(report)
    if opened.shown.run.is_statistic:
        statistic.statistic(report)
    elif validated is not None:
        overview.warn(seen_in_words(report.get(WARM_START)))
        show_all(validated)
    elif metric is None:
        overview.not_compared(opened)
    else:
        warnings = answers.warnings(opened.shown)
        overview.answer(report, metric, len(warnings))
        sites.who_gains(report, metric)
        overview.warn(warnings)


def _figures(opened: Opened, metric: str | None) -> None:
    """Show the shared model beside its references, and the run in words."""
    report = opened.report
    # Without a forest plot the references stand in its place.
    is_left = metric is not None and (is_uncompared(report) or are_known(report, metric))
    is_left = is_left and not opened.shown.run.is_of_parties
    left = st.container()
    right = st.container()
    # A table of noised figures is as wide as the page.
    if is_left and noised_scores(report) is None:
        left, right = st.columns(2)
    with left:
        if metric is not None and is_left:
            sites.figures_of_all(report, metric)
    with right:
        # A statistic stands in words above, and has no rounds.
        if not opened.shown.run.is_statistic:
            overview.in_words(opened, metric)


def _further(opened: Opened, metric: str | None) -> None:
    """Show links to other pages of the run, and to each site on its page."""
    pages = VALIDATED if opened.shown.run.is_validation else WITHOUT_MODEL
    if opened.trains:
        pages = SCORED_ALONE if is_uncompared(opened.report) else FURTHER
    with st.container(horizontal=True):
        for page, label in pages.items():
            run_page.link(page, label, opened.name)
    if metric is not None:
        sites.link_sites(opened, metric)


if __name__ == "__main__":
    run_page.show("", parts)
