"""Page Runs: all runs, the newest first, as a table that the reader sorts and filters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import access, refresh, run_page, sections
from flfed.records.dashboard.panels import compare
from flfed.records.dashboard.panels.overview import how_to_go_on
from flfed.records.dashboard.panels.run_table import run_table
from flfed.records.reports.catalogue import series_list
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.text import with_code
from flfed.words import render

RESUMED = 3  # of runs that were interrupted; a docstring here would be shown on the page (Streamlit's "magic")


def show() -> None:
    """Show the list of runs: a line for a series of repeats, running ones first, then the newest."""
    sections.close_up()
    st.title("Runs")
    if "run" in st.query_params:  # the pages of a run then open this one
        run_page.keep("run", st.query_params["run"])
    access.require()
    try:
        with RunReader.open() as reader:
            runs = reader.runs(limit=refresh.MOST_RUNS)
            course = refresh.course_of_list(reader)
        _compare({run.series for run in runs})
        _list(runs, course)
    except FlfedError as error:
        st.error(with_code(str(error)))


def _list(runs: Sequence[RunEntry], course: refresh.BatchPlan) -> None:
    """Show running series, which a fragment reads again, above the table of all others."""
    going = {run.series for run in runs if run.status == "running"}
    st.fragment(_going, run_every=course[0])(sorted(going, reverse=True), course)
    ended = [run for run in runs if run.series not in going]
    if ended:
        run_table(refresh.read_list(ended))
    elif not runs:
        st.info(render("pages.runs.none"))
    if len(runs) == refresh.MOST_RUNS:
        st.caption(render("pages.runs.newest", runs=refresh.MOST_RUNS))
    for run in [run for run in runs if run.status == "interrupted"][:RESUMED]:
        st.caption(how_to_go_on([run]))


def _compare(listed: set[str]) -> None:
    """Show the runs of the address (`?compare=A,B`) side by side."""
    addressed_names = dict.fromkeys(st.query_params.get("compare", "").split(","))  # a run is not compared with itself
    chosen = [name for name in addressed_names if name in listed][: compare.MOST]
    if len(chosen) < 2:
        st.query_params.pop("compare", None)
        return
    st.query_params["compare"] = ",".join(chosen)
    try:
        compare.side_by_side(chosen)
    except FlfedError as error:
        st.error(with_code(str(error)))
    st.button(render("pages.runs.close"), on_click=_close)


def _close() -> None:
    st.query_params.pop("compare", None)


def _going(listed: Sequence[str], course: refresh.BatchPlan) -> None:
    """Show the current state of running series, and reload the page when a run begins or ends."""
    access.require()
    with suppress(FlfedError), RunReader.open() as reader:  # a busy store is read at the next refresh
        # Only a reload moves a series from the running ones to the others.
        if refresh.course_of_list(reader) != course:
            st.rerun()
        runs = [run for series in listed for run in reader.runs_of(series)[::-1]]
        if runs:
            st.markdown(f"**{render('pages.runs.going')}**")
            run_table(series_list(reader, runs), key="runs-going", controls=False)


if __name__ == "__main__":
    show()
