"""Privacy: what one run promised, what each site spent of its budget, what attacks reached, and what left."""

from __future__ import annotations

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import attack_panels, crossing, live, page_files, panels, privacy_panels
from flfed.records.entries import CrossedEntry, RunEntry
from flfed.records.privacy import Private, Runs, audit_of, privacy_of
from flfed.records.reading import RunReader

LISTED = 50  # series to choose from; a docstring here would be shown on the page (Streamlit's "magic")


def show() -> None:
    """Show the privacy of the run of the address (`?run=ID`), else of the newest; keep up with it while it runs."""
    panels.close_up()
    st.title("Privacy")
    try:
        with RunReader.open() as reader:
            runs = reader.runs(limit=500)
            if not runs:
                panels.no_runs()
                return
            name = _choose(runs, st.query_params.get("run", runs[0].series))
            course = live.course_of(reader.runs_of(name))
    except FlfedError as error:
        st.error(panels.escape(str(error)))
        return
    st.query_params["run"] = name
    st.fragment(body, run_every=course[0])(name, course)


def _choose(runs: list[RunEntry], asked: str) -> str:
    """Return the run or series that the reader picked: first that of the address."""
    newest = {run.series: run for run in reversed(runs)}
    options = list(newest)[::-1][:LISTED]
    options += [] if asked in options else [asked]

    def label(series: str) -> str:
        run = newest.get(series)
        return f"{run.study}, {panels.moment(run.started)} ({series})" if run else series

    first = options.index(asked)
    return str(st.selectbox("Run", options, index=first, format_func=label, key="privacy-run", width=520))


def body(name: str, course: live.Course) -> None:
    """Show all parts for a series, as it is now; the page is shown anew when the run begins or ends."""
    try:
        with RunReader.open() as reader:
            runs = reader.runs_of(name)
            if live.course_of(runs) != course:
                st.rerun()
            found: Runs = [(run, {site.site: site for site in reader.sites(run.run)}) for run in runs]
            privacy, audit = privacy_of(reader, found), audit_of(reader, found)
            crossed = reader.crossed([run.run for run in runs])
    except FlfedError as error:
        st.error(panels.escape(str(error)))
        return
    _parts(found, privacy, audit, crossed)


def _parts(found: Runs, privacy: Private, audit: list[Private], crossed: list[CrossedEntry]) -> None:
    """Show each part in a place of its own, so that one that comes later moves no other."""
    run, sites = found[0]
    many = f", {len(found)} repeats" if len(found) > 1 else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        went = f"{panels.STATUS_WORDS[run.status]}, {run.rounds} of {run.rounds_planned} rounds"
        st.caption(f"{panels.escape(run.study)}: {went}{many}", width="content")
        st.page_link(
            page_files()["overview"],
            label="How well it did",
            icon=":material/arrow_forward:",
            query_params={"run": run.series},
        )
    with st.container():
        privacy_panels.promise(privacy, audit, attackable=attack_panels.has_model(run))
    with st.container():
        privacy_panels.spending(privacy)
    with st.container():
        attack_panels.attacks(privacy, audit, run)
    with st.container():
        privacy_panels.mechanisms(privacy, list(sites.values()))
    with st.container():
        crossing.left(crossed)
    with st.container():
        privacy_panels.uncharged(privacy)


if __name__ == "__main__":
    show()
