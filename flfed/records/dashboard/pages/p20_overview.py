"""Overview: one run, its verdict first, then the figures behind it and what went wrong."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import by_round, learning, page_files, panels, run_page
from flfed.records.dashboard.run_page import Opened
from flfed.records.reports import primary_of, purpose_of
from flfed.records.verdicts import metric_name


def show() -> None:
    """Show the run of the address, else the newest one; keep up with it while it runs."""
    run_page.show("", parts)


def parts(opened: Opened) -> None:
    """Show each panel in a place of its own, so that one that comes later moves no other into a new element."""
    runs, shown = opened.runs, opened.shown()
    found, planned = shown.found, runs[0].rounds_planned
    with st.container():
        purpose = purpose_of(shown.study_text)
        if purpose:
            st.markdown(f"{panels.escape(purpose)}.")
        privacy = page_files()["privacy"]
        st.page_link(privacy, label="Its privacy", icon=":material/arrow_forward:", query_params={"run": opened.name})
    with st.container():
        metric = _choose_metric(list(found["global"]), primary_of(found))
        if metric is None:
            panels.not_compared(found)
        else:
            panels.verdicts(found, metric)
            panels.cards(found, metric, planned)
    with st.container():
        panels.in_words(found, metric, planned)
        panels.set_aside(found, shown.events)
    with st.container():
        if metric is not None:
            panels.comparison(found, metric)
    with st.container():
        learning.curve(shown)
    with st.container():
        by_round.curves(shown, runs)
    with st.container():
        panels.leaks(shown.events, shown.summaries["leaks"])
        panels.table_1(shown.summaries["table-1"])
    panels.facts(shown, runs)


def _choose_metric(metrics: list[str], primary: str | None) -> str | None:
    """Return the compared metric that the reader picked, the primary one first; None where none was compared."""
    if len(metrics) < 2:
        return primary
    return st.radio("Figure shown below", metrics, format_func=metric_name, horizontal=True, key="metric")


if __name__ == "__main__":
    show()
