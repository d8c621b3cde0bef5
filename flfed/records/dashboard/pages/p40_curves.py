"""Curves: ROC, precision and recall, and calibration of the shared model, by site and all together."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import curve_panels, panels, run_page
from flfed.records.dashboard.live import read, read_summaries, where
from flfed.records.dashboard.run_page import Opened


def show() -> None:
    """Show the curves of the run of the address, else of the newest; keep up with it while it runs."""
    run_page.show("Curves", parts)


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that one that comes later moves no other."""
    shown = opened.shown()
    payload = next(iter(read_summaries(where(), opened.mark[:1], "score-histograms", opened.only)), None)
    sites = sorted(shown.found["sites"])
    if payload is None:
        _why_none(opened, compared=bool(shown.found["global"]))
        return
    with st.container():
        st.caption(panels.escape(curve_panels.says_whose(payload, sites)).replace("\\`", "`"))
        if len(opened.runs) > 1:
            st.caption(
                "Each repeat has a holdout of its own: these are the curves of the first. Others are in the margin."
            )
        found = curve_panels.choose(curve_panels.found_in(payload))
    first = read(where(), opened.runs[0].run, opened.mark[:1], opened.only)
    looks_of = [site.site for site in shown.sites]
    with st.container():
        curve_panels.areas(found, first.found)
    with st.container():
        curve_panels.ranking(found, looks_of)
    with st.container():
        curve_panels.calibrated(found, looks_of)


def _why_none(opened: Opened, *, compared: bool) -> None:
    """Say why there are no curves."""
    if opened.runs[0].task != "binary":
        task = opened.runs[0].task.replace("-", " ")
        st.info(f"Curves of this kind are for outcomes that are yes or no; this study's is {task}. See the page Sites.")
    elif not compared:
        st.info("The curves come with the comparison, after the last round.")
    else:
        st.info(
            "No site gave its counts of predictions, without which there are no curves. A site's policy has to name "
            'them: `outputs = ["score-histogram"]` in its policy.toml. Runs of an earlier version of flfed have none.'
        )


if __name__ == "__main__":
    show()
