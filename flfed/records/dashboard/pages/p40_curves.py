"""Page Curves of the shared model.

It shows ROC, precision and recall, calibration, and operating points, by site and all together.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from flfed.records.charts.colours import site_looks
from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.panels import curves, overview
from flfed.records.dashboard.refresh import read, read_summaries, where
from flfed.records.dashboard.run_page import Opened
from flfed.records.sections.scores import within_groups
from flfed.records.statistics.importances import coefficients, needed_columns, split_columns
from flfed.records.statistics.noised_scores import SCORES, is_covered
from flfed.records.statistics.score_curves import found_in, no_curves_in_words, says_which_repeat, says_whose
from flfed.records.text import escape


def show() -> None:
    """Show the curves of a run.

    It is the run of the address, else the newest. The page keeps up with it while it runs.
    """
    run_page.show("Curves", parts)


def parts(opened: Opened) -> None:
    """Show each part in a place of its own.

    So one that comes later moves no other.
    """
    if overview.trains_nothing(opened.trains):
        return
    if is_covered(opened.shown().found):
        _noised(opened)
        return
    place, payload = _first_with(opened, "score-histograms")
    if payload is None:
        run, shown = opened.runs[0], opened.shown()
        more = " How good the model is stands on the pages Overview and Sites." if run.task != "binary" else ""
        st.info(no_curves_in_words(run, shown.found, shown.sites) + more)
        _more(opened)
        return
    # Of this repeat, not of the mean over all: the figures are compared with those of its curves.
    shown = read(where(), opened.runs[place].run, opened.mark[place : place + 1], opened.only)
    # Colours go by all sites of the run, so that a site has the same one on every page.
    looks = site_looks(site.site for site in shown.sites)
    with st.container():
        repeat = None
        if len(opened.runs) > 1:
            repeat = opened.runs[place].repeat + 1
            st.info(says_which_repeat(repeat, opened.runs[place].repeats))
        said = says_whose(payload, shown.sites, only=opened.only)
        for line in said:
            st.caption(escape(line))
        found = found_in(payload)
        if not found:
            st.info("There are no counts of predictions that may be shown here, so there are no curves.")
            return
        chosen = curves.choose(found)
    with st.container():
        curves.ranking(chosen, looks, shown.found, repeat)
    with st.container():
        curves.calibrated(found, chosen, shown.found, looks, repeat)
    with st.container():
        curves.operating_points(found, chosen, repeat)
    _more(opened)
    with st.container():
        curves.how_to_read()


def _noised(opened: Opened) -> None:
    """Show what noised counts say of the scores, of the first repeat that has some."""
    place, payload = _first_with(opened, SCORES)
    run, shown = opened.runs[place], opened.shown()
    repeat = None
    if payload is None:
        st.info(no_curves_in_words(opened.runs[0], shown.found, shown.sites))
    elif len(opened.runs) > 1:
        repeat = run.repeat + 1
        shown = read(where(), run.run, opened.mark[place : place + 1], opened.only)
        st.info(says_which_repeat(repeat, run.repeats))
    if payload is not None:
        with st.container():
            curves.noised(shown.found, repeat)
    _more(opened)


def _first_with(opened: Opened, name: str) -> tuple[int, dict[str, Any] | None]:
    """Return the first repeat with an object of this name.

    The result is its place and the object, which is None where no repeat has one.
    """
    for place in range(len(opened.runs)):
        payload = read_summaries(where(), opened.mark[place : place + 1], name, opened.only)[0]
        if payload is not None:
            return place, payload
    return 0, None


def _more(opened: Opened) -> None:
    """Show what the study asked for, exact counts, groups, importances; a linear model's coefficients, trees' gains."""
    place, payload = _first_with(opened, "operating-points")
    if payload is not None:
        with st.container():
            curves.exact_counts(payload, _repeat_of(opened, place))
    place, payload = _first_with(opened, "subgroups")
    groups = within_groups(payload, only=opened.only)
    if groups is not None:
        with st.container():
            sections.show(groups, repeat=_repeat_of(opened, place))
    told = read_summaries(where(), opened.mark, "coefficients", opened.only)
    if known := [payload for payload in told if payload is not None]:
        with st.container():
            sections.show(coefficients(known))
    found = opened.shown().found
    for one in (split_columns(found), needed_columns(found)):
        if one is not None:
            with st.container():
                sections.show(one)


def _repeat_of(opened: Opened, place: int) -> int | None:
    """Return the number of a repeat, None where there is one alone."""
    return opened.runs[place].repeat + 1 if len(opened.runs) > 1 else None


if __name__ == "__main__":
    show()
