"""Frame of each page of a run: it opens the run, shows errors as sentences, and refreshes the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import access, page_files, refresh, sections
from flfed.records.dashboard.panels import overview
from flfed.records.dashboard.refresh import Opened
from flfed.records.reports.privacy import covers_study
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.text import TIME_IN_NAME, escape, moment, with_code
from flfed.study.study_text import parsed_study
from flfed.words import render

LISTED = 50
"""Series in the list of runs; the page Runs opens others."""
SESSION_PREFIX = "kept-"
"""Prefix of the address's values in a session: Streamlit empties the address when the reader turns to another page."""


def show(title: str, parts: Callable[[Opened], None]) -> None:
    """Show a page of a run: that of the address (`?run=ID`), else the last one opened, else the newest.

    Parameters
    ----------
    title : str
        Of the page, before the study's name; "" for the name alone.
    parts : callable
        Shows the page's parts for the current state of the run; called again while the run goes on. It puts each
        part in a place of its own (`st.container()`), so that a later one moves no other.
    """
    sections.close_up()
    access.require()
    try:
        with RunReader.open() as reader:
            listed = reader.runs(limit=500)
            if not listed:
                st.title(title or "Overview")
                st.info(render("pages.runs.none"))
                return
            name = of_address("run") or listed[0].series
            try:
                runs = reader.runs_of(name)
            except FlfedError as error:
                _choose(listed, None)
                _says_why_not(title, error)
                st.page_link(page_files()["runs"], label="All runs", icon=":material/arrow_forward:")
                return
    except FlfedError as error:
        _says_why_not(title, error)
        return
    # "latest" is resolved once: a newer run must not take its place.
    if name == "latest":
        name = runs[0].series
    keep("run", name)
    _choose(listed, runs[0].series, name)
    course = refresh.course_of(runs)
    # Only the parts run again, so that a choice in the margin stays.
    st.fragment(_body, run_every=course[0])(title, parts, name, course)


def _says_why_not(title: str, error: FlfedError) -> None:
    st.title(title or "Overview")
    st.error(with_code(str(error)))


def of_address(key: str) -> str | None:
    """Return the address's value of `key` ("run" or "site"), else that of the page before."""
    parameter: str | None = st.query_params.get(key, st.session_state.get(SESSION_PREFIX + key))
    return parameter


def keep(key: str, value: str) -> None:
    """Write `value` into the address, and keep it for the next page."""
    if st.query_params.get(key) != value:
        st.query_params[key] = value
    st.session_state[SESSION_PREFIX + key] = value


def choose_site(sites: Sequence[str], *, label: str) -> str:
    """Return the site that the reader picked, at first that of the address (`?site=NAME`), else the first."""
    first = 0
    address_site = of_address("site")
    # A site without figures here is kept for the pages on which it has some.
    if address_site in sites:
        first = sites.index(address_site)
        keep("site", sites[first])
    elif address_site is not None:
        st.caption(escape(render("pages.run.absent", site=repr(address_site), shown=sites[0])))
    key = f"site-{sites[first]}"
    return str(st.selectbox(label, sites, index=first, key=key, on_change=partial(_turn_to, "site", key), width=320))


def pick_site(sites: Sequence[str], label: str, name: str) -> str:
    """Return the site that the reader picked, at first that of the address, which does not change.

    `name` begins the key of the widget.
    """
    address_site = of_address("site")
    first = sites.index(address_site) if address_site in sites else 0
    return str(st.selectbox(label, sites, index=first, key=f"{name}-{sites[first]}", width=320))


def _turn_to(key: str, widget: str) -> None:
    """Turn to the reader's pick in a widget."""
    keep(key, st.session_state[widget])


def _choose(listed: Sequence[RunEntry], series: str | None, name: str = "") -> None:
    """Show which run is open, in the margin, where the reader can pick another, or one repeat of it."""
    # Each series is listed once, the newest first, with its first repeat, when it began.
    first_repeats = {run.series: run for run in listed}
    options = list(first_repeats)[:LISTED]
    first = None
    if series is not None:
        if series not in options:
            options.append(series)
        first = options.index(series)
    labels = {run: _label(first_repeats[run]) for run in options if run in first_repeats}
    alike = Counter(labels.values())

    def label(of: str) -> str:
        text = labels.get(of, of)
        if alike[text] > 1:
            return f"{of[-4:]} {text}"
        return text

    key = f"run-{series}"
    with st.sidebar:
        turn = partial(_turn_to, "run", key)
        st.selectbox("Run", options, index=first, format_func=label, key=key, on_change=turn, placeholder="Choose one")
        repeats = sorted((run.run for run in listed if run.series == series), key=str)
        if len(repeats) > 1 and series is not None:
            _choose_repeat(series, repeats, name)


def _label(run: RunEntry) -> str:
    """Return the start and the study of a run: the margin cuts off the end of a long name."""
    day, _, time = moment(run.started).partition(", ")
    # The study of a call without a name ends in its time.
    return f"{day.rpartition(' ')[0]} {time} {TIME_IN_NAME.sub('', run.study)}"


def _choose_repeat(series: str, repeats: Sequence[str], name: str) -> None:
    labels = {series: "all together"}
    for number, repeat in enumerate(repeats, start=1):
        labels[repeat] = f"repeat {number}"
    key = f"repeat-{name}"
    first = [*labels].index(name) if name in labels else 0
    turn = partial(_turn_to, "run", key)
    st.selectbox("Repeats", labels, index=first, format_func=labels.__getitem__, key=key, on_change=turn)


def _body(title: str, parts: Callable[[Opened], None], name: str, course: refresh.BatchPlan) -> None:
    """Show the page's parts for the current run, and reload the page when all of it changes."""
    access.require()
    try:
        with RunReader.open() as reader:
            runs, study = reader.runs_of(name), parsed_study(reader.series(name).study_text)
        # A run that begins or ends changes how often the whole page is refreshed.
        if refresh.course_of(runs) != course:
            st.rerun()
        with st.container():
            overview.head(title, runs, name, noised=covers_study(study))
        parts(Opened(runs, name))
    except FlfedError as error:
        st.error(with_code(str(error)))


def link(page: str, label: str, run: str) -> None:
    """Show a link to a page of a run."""
    st.page_link(page_files()[page], label=label, icon=":material/arrow_forward:", query_params={"run": run})
