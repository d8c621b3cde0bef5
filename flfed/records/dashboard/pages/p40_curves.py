"""Page Curves of the shared model.

It shows ROC, precision and recall, calibration, and operating points, by site and all together.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from flfed.records.charts.colours import site_looks
from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.panels import curves, overview
from flfed.records.dashboard.refresh import Opened
from flfed.records.sections.scores import within_groups
from flfed.records.statistics.importances import coefficients, needed_columns, split_columns
from flfed.records.statistics.noised_scores import SCORES
from flfed.records.statistics.score_curves import no_curves_in_words, read_score_counts, says_whose
from flfed.records.text import escape
from flfed.words import render


def parts(opened: Opened) -> None:
    """Show each part in a place of its own.

    So one that comes later moves no other.
    """
    if overview.trains_nothing(opened):
        return
    if noised := _first_with(opened, SCORES):
        repeat = _show_repeat(opened, noised[0])
        with st.container():
            curves.noised(noised[0].report, repeat)
        _more(opened)
    elif counted := _first_with(opened, "score-histograms"):
        _curves(opened, *counted)
    else:
        run = opened.runs[0]
        more = " How good the model is stands on the pages Overview and Sites." if run.task != "binary" else ""
        st.info(no_curves_in_words(run, opened.report, opened.shown.sites) + more)
        _more(opened)


def _curves(opened: Opened, one: Opened, payload: dict[str, Any]) -> None:
    """Show the curves of the first repeat that has score counts, `one`."""
    # Of this repeat, not of the mean over all: the figures are compared with those of its curves.
    shown = one.shown
    # Colours go by all sites of the run, so that a site has the same one on every page.
    looks = site_looks(site.site for site in shown.sites)
    with st.container():
        repeat = _show_repeat(opened, one)
        for line in says_whose(payload, shown.sites, only=opened.only):
            st.caption(escape(line))
        counts_by_name = read_score_counts(payload)
        if not counts_by_name:
            st.info("There are no counts of predictions that may be shown here, so there are no curves.")
            return
        chosen = curves.choose(counts_by_name)
    with st.container():
        curves.ranking(chosen, looks, shown.report, repeat)
    with st.container():
        curves.calibrated(counts_by_name, chosen, shown.report, looks, repeat)
    with st.container():
        curves.operating_points(counts_by_name, chosen, repeat)
    _more(opened)
    with st.container():
        curves.how_to_read()


def _first_with(opened: Opened, name: str) -> tuple[Opened, dict[str, Any]] | None:
    """Return the first repeat with an object of this name, and the object; None where no repeat has one."""
    for run in opened.runs:
        one = opened.of_repeat(run)
        (payload,) = one.summaries(name)
        if payload is not None:
            return one, payload
    return None


def _more(opened: Opened) -> None:
    """Show what the study asked for, exact counts, groups, importances; a linear model's coefficients, trees' gains."""
    if points := _first_with(opened, "operating-points"):
        with st.container():
            curves.exact_counts(points[1], _repeat_of(opened, points[0]))
    if groups := _first_with(opened, "subgroups"):
        sections.show(within_groups(groups[1], only=opened.only), repeat=_repeat_of(opened, groups[0]))
    if repeats := [payload for payload in opened.summaries("coefficients") if payload is not None]:
        sections.show(coefficients(repeats))
    sections.show(split_columns(opened.report))
    sections.show(needed_columns(opened.report))


def _repeat_of(opened: Opened, one: Opened) -> int | None:
    """Return the number of a repeat, None where there is one alone."""
    return one.runs[0].repeat + 1 if opened.is_repeated else None


def _show_repeat(opened: Opened, one: Opened) -> int | None:
    """Return the same, and say of which repeat the page is."""
    repeat = _repeat_of(opened, one)
    if repeat is not None:
        st.info(render("report.curves.shown", repeat=repeat, repeats=one.runs[0].repeats))
    return repeat


if __name__ == "__main__":
    run_page.show("Curves", parts)
