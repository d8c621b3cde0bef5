"""Overview: one run, its verdict first, then the figures behind it and what went wrong."""

from __future__ import annotations

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import panels
from flfed.records.entries import RunEntry
from flfed.records.reading import RunReader
from flfed.records.reports import primary_of, report
from flfed.records.verdicts import metric_name

EVERY_SECONDS = 2  # how often the page of a running run looks again


def show() -> None:
    """Show the run of the address (`?run=ID`), else the newest one."""
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
    name = _choose_repeat(name, runs)
    running = any(run.status == "running" for run in runs)
    st.fragment(body, run_every=EVERY_SECONDS if running else None)(name)


def _choose_repeat(name: str, runs: list[RunEntry]) -> str:
    """Return the series, or the one repeat of it that the reader picked."""
    if len(runs) == 1:
        return name
    options = [name, *(run.run for run in runs)]
    labels = dict(zip(options, ["all repeats together", *(f"repeat {r.repeat + 1}" for r in runs)], strict=True))
    return str(st.selectbox("Show", options, format_func=lambda option: labels[option]))


def body(name: str) -> None:
    """Show everything about one run or series; opened anew each time, so it shows what is there now."""
    try:
        with RunReader.open() as reader:
            _panels(reader, name)
    except FlfedError as error:
        st.error(panels.escape(str(error)))


def _panels(reader: RunReader, name: str) -> None:
    runs = reader.runs_of(name)
    found = report(reader, name)
    events = reader.events([run.run for run in runs])
    metrics = list(found["global"])
    panels.head(found, runs)
    metric = primary_of(found)
    if len(metrics) > 1:
        metric = st.radio("Figure shown below", metrics, format_func=metric_name, horizontal=True)
    if metric is not None:
        panels.verdicts(found, metric)
        panels.cards(found, metric, runs[0].rounds_planned)
    panels.in_words(found, metric, runs[0].rounds_planned)
    panels.set_aside(found, events)
    if metric is not None:
        panels.comparison(found, metric)
    panels.curves(reader, runs, found)
    panels.leaks(events, reader.summary(runs[0].run, "leaks"))
    panels.table_1(reader.summary(runs[0].run, "table-1"))
    panels.facts(reader, runs)


if __name__ == "__main__":
    show()
