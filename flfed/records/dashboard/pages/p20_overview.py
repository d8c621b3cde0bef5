"""Overview: one run, its verdict first, then the figures behind it and what went wrong."""

from __future__ import annotations

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import by_round, learning, live, page_files, panels
from flfed.records.entries import RunEntry
from flfed.records.reading import RunReader
from flfed.records.reports import primary_of, purpose_of
from flfed.records.verdicts import metric_name


def show() -> None:
    """Show the run of the address (`?run=ID`), else the newest one; keep up with it while it runs."""
    panels.close_up()
    try:
        with RunReader.open() as reader:
            newest = reader.runs(limit=1)
            if not newest:
                st.title("Overview")
                panels.no_runs()
                return
            name = st.query_params.get("run", newest[0].series)
            runs = reader.runs_of(name)
    except FlfedError as error:
        st.error(panels.escape(str(error)))
        return
    st.query_params["run"] = name
    chosen, course = _choose_repeat(name, runs), live.course_of(runs)
    st.fragment(body, run_every=course[0])(name, chosen, course)


def body(name: str, chosen: str, course: live.Course) -> None:
    """Show everything about a series or one repeat of it, as it is now; the page is shown anew when all changes."""
    try:
        with RunReader.open() as reader:
            runs = reader.runs_of(name)
        if live.course_of(runs) != course:
            st.rerun()
        _panels(chosen, [run for run in runs if chosen in (name, run.run)])
    except FlfedError as error:
        st.error(panels.escape(str(error)))


def _choose_repeat(name: str, runs: list[RunEntry]) -> str:
    """Return the series, or the one repeat of it that the reader picked."""
    if len(runs) == 1:
        return name
    options = [name, *(run.run for run in runs)]
    labels = dict(zip(options, ["all repeats together", *(f"repeat {r.repeat + 1}" for r in runs)], strict=True))
    return str(st.selectbox("Show", options, format_func=lambda option: labels[option], key="repeat"))


def _panels(name: str, runs: list[RunEntry]) -> None:
    """Show each panel in a place of its own, so that one that comes later moves no other into a new element."""
    shown = live.read(live.where(), name, live.mark_of(runs))
    found, planned = shown.found, runs[0].rounds_planned
    with st.container():
        panels.head(found, runs, purpose_of(shown.study_text))
        privacy = page_files()["privacy"]
        st.page_link(privacy, label="Its privacy", icon=":material/arrow_forward:", query_params={"run": name})
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
