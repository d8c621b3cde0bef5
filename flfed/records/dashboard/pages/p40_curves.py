"""Page Curves of the shared model, by site and for all sites together.

It shows ROC, precision and recall, calibration, and operating points.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from flfed.records.charts.colours import site_looks
from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.panels import curves, overview
from flfed.records.dashboard.refresh import Opened
from flfed.records.reports.calibration import calibration_of_sites
from flfed.records.sections.scores import within_groups
from flfed.records.statistics.importances import coefficients, needed_columns, split_columns
from flfed.records.statistics.noised_scores import SCORES
from flfed.records.statistics.score_curves import no_curves_in_words, read_score_counts, says_whose
from flfed.records.text import escape
from flfed.words import render


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that a later one moves no other."""
    if not opened.shown.run.is_validation and overview.trains_nothing(opened):
        return
    if noised := _first_with(opened, SCORES):
        which = _show_repeat(opened, noised[0])
        sections.contained(curves.noised, noised[0].report, which)
        _more(opened)
    elif counted := _first_with(opened, "score-histograms"):
        _curves(opened, *counted)
    else:
        run = opened.runs[0]
        why_none = [no_curves_in_words(run, opened.report)]
        if run.task != "binary":
            why_none.append(render("pages.curves.elsewhere"))
        st.info(" ".join(why_none))
        _more(opened)


def _curves(opened: Opened, one: Opened, payload: dict[str, Any]) -> None:
    """Show the curves of the first repeat that has score counts, `one`."""
    # Figures are of this repeat, not means over all, as they are compared with its curves.
    shown = one.shown
    # Colours follow from all sites of the run, so that a site has the same one on every page.
    looks = site_looks(site.site for site in shown.sites)
    with st.container():
        which = _show_repeat(opened, one)
        for line in says_whose(payload, shown.compared_sites):
            st.caption(escape(line))
        counts_by_name = read_score_counts(payload)
        if not counts_by_name:
            st.info(render("pages.curves.none"))
            return
        chosen = curves.choose(counts_by_name)
    sections.contained(curves.ranking, chosen, looks, shown.report, which)
    sections.contained(curves.calibrated, counts_by_name, chosen, shown.report, looks, which)
    sections.contained(curves.operating_points, counts_by_name, chosen, which)
    _more(opened)
    sections.contained(curves.how_to_read)


def _first_with(opened: Opened, name: str) -> tuple[Opened, dict[str, Any]] | None:
    """Return the first repeat with an object of this name, and the object; None where no repeat has one."""
    for run in opened.runs:
        one = opened.of_repeat(run)
        (payload,) = one.summaries(name)
        if payload is not None:
            return one, payload
    return None


def _more(opened: Opened) -> None:
    """Show flagged rows and groups of one repeat; means of calibration, coefficients, trees' gains and importances."""
    if points := _first_with(opened, "operating-points"):
        sections.contained(curves.flagged_at_rates, points[1], _which(opened, points[0]))
    if groups := _first_with(opened, "subgroups"):
        sections.show(within_groups(groups[1]), which=_which(opened, groups[0]))
    which = ""
    if opened.is_repeated:
        which = render("report.curves.mean", repeats=opened.shown.run.repeats)
    sections.show(calibration_of_sites(opened.report), which=which)
    if repeats := [payload for payload in opened.summaries("coefficients") if payload is not None]:
        sections.show(coefficients(repeats), which=which)
    sections.show(split_columns(opened.report), which=which)
    sections.show(needed_columns(opened.report), which=which)


def _which(opened: Opened, one: Opened) -> str:
    """Return which repeat is shown, "" where there is only one."""
    return f"in repeat {one.runs[0].repeat + 1}" if opened.is_repeated else ""


def _show_repeat(opened: Opened, one: Opened) -> str:
    """Return which repeat is shown, and say so on the page."""
    which = _which(opened, one)
    if which:
        st.info(render("report.curves.shown", which=which, repeats=one.runs[0].repeats))
    return which


if __name__ == "__main__":
    run_page.show("Curves", parts)
