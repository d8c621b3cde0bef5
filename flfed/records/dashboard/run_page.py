"""Frame of each page of a run.

It finds the run, chosen or from the address, shows errors as sentences, and keeps up with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import access, page_files, page_style, refresh
from flfed.records.dashboard.panels import overview
from flfed.records.dashboard.refresh import Opened
from flfed.records.reports.privacy import covers_study
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import parsed_study
from flfed.records.text import escape, with_code
from flfed.study.study import has_analysis

OWN = (
    "You see the figures of {site} only. Figures over all sites are not shown to one site's people: with their own "
    "taken away, they would tell of others. The coordinator can hand them out in the study's report."
)
OWN_NOISED = (
    "You see the figures of {site}, and over all sites those that are made of noised counts of three sites or more. "
    "Those of another site are not shown to one site's people."
)
"""The same of a run in which all that leaves a site is charged."""
LISTED = 50
"""Series to choose from in the list; others are opened from the page Runs."""
SESSION_PREFIX = "kept-"
"""Begins what a session keeps of the address, which Streamlit empties when the reader turns to another page."""


def show(title: str, parts: Callable[[Opened], None]) -> None:
    """Show a page of a run.

    It is the run of the address (`?run=ID`), else the last one looked at, else the newest.

    Parameters
    ----------
    title : str
        Of the page, before the study's name; "" for the name alone.
    parts : callable
        Shows the page's parts, as the run is now; called again while the run goes on. It puts each
        part in a place of its own (`st.container()`), so that one that comes later moves no other.
    """
    page_style.close_up()
    viewer = access.viewer()
    try:
        with RunReader.open(only=viewer.site) as reader:
            listed = reader.runs(limit=500)
            # Without any run there is nothing to choose, which is said instead.
            if not listed:
                st.title(title or "Overview")
                overview.no_runs()
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
    # The run that "latest" means now is kept: a newer one must not take its place.
    if name == "latest":
        name = runs[0].series
    keep("run", name)
    _choose(listed, runs[0].series, name)
    course = refresh.course_of(runs)
    # Only the parts are run again: a choice in the margin stays as it is.
    st.fragment(_body, run_every=course[0])(title, parts, name, course)


def seen_in_words(site: str, study: Mapping[str, Any]) -> str:
    """Return what one site's people see of a run, by its study's tables.

    Examples
    --------
    >>> seen_in_words("vienna", {}).partition(".")[0]
    'You see the figures of vienna only'
    >>> seen_in_words("vienna", {"statistic": {"name": "summary"}}).partition(",")[0]
    'You see the figures of vienna'
    """
    noised = has_analysis(study) or covers_study(study)
    return (OWN_NOISED if noised else OWN).format(site=site)


def _says_why_not(title: str, error: FlfedError) -> None:
    st.title(title or "Overview")
    st.error(with_code(str(error)))


def of_address(key: str) -> str | None:
    """Return the address's value of `key`.

    The key is "run" or "site". Without a value it is what the address said on the page before.
    """
    parameter: str | None = st.query_params.get(key, st.session_state.get(SESSION_PREFIX + key))
    return parameter


def keep(key: str, value: str) -> None:
    """Write `value` into the address.

    It is kept for the next page too.
    """
    if st.query_params.get(key) != value:
        st.query_params[key] = value
    st.session_state[SESSION_PREFIX + key] = value


def choose_site(sites: Sequence[str], *, label: str = "Site") -> str:
    """Return the site that the reader picked.

    At first it is that of the address (`?site=NAME`), else the first of `sites`.
    """
    first = 0
    address_site = of_address("site")
    # A site that has no figures here is kept for the pages on which it has.
    if address_site in sites:
        first = sites.index(address_site)
        keep("site", sites[first])
    elif address_site is not None:
        st.caption(escape(f"Site {address_site!r} has no figures here; this is {sites[0]}."))
    key = f"site-{sites[first]}"
    return str(st.selectbox(label, sites, index=first, key=key, on_change=partial(_turn_to, "site", key), width=320))


def pick_site(sites: Sequence[str], label: str, name: str) -> str:
    """Return the site that the reader picked, at first that of the address, which stays as it is.

    `name` begins the key of the widget.
    """
    address_site = of_address("site")
    first = sites.index(address_site) if address_site in sites else 0
    return str(st.selectbox(label, sites, index=first, key=f"{name}-{sites[first]}", width=320))


def _turn_to(key: str, widget: str) -> None:
    """Turn to the reader's pick in a widget.

    The widget's own key goes by what it showed first.
    """
    keep(key, st.session_state[widget])


def _choose(listed: Sequence[RunEntry], series: str | None, name: str = "") -> None:
    """Show which run is open, in the margin.

    The reader can pick another, or one repeat of it.
    """
    # Each series stands in the list once, the newest first.
    newest = {run.series: run for run in reversed(listed)}
    options = list(newest)[::-1][:LISTED]
    first = None
    if series is not None:
        if series not in options:
            options.append(series)
        first = options.index(series)

    def label(of: str) -> str:
        if of not in newest:
            return of
        study = newest[of].study
        alike = sum(newest[other].study == study for other in options if other in newest)
        return study if alike == 1 else f"{study} {of[-4:]}"

    key = f"run-{series}"
    with st.sidebar:
        turn = partial(_turn_to, "run", key)
        st.selectbox("Run", options, index=first, format_func=label, key=key, on_change=turn, placeholder="Choose one")
        repeats = sorted((run.run for run in listed if run.series == series), key=str)
        if len(repeats) > 1 and series is not None:
            _choose_repeat(series, repeats, name)


def _choose_repeat(series: str, repeats: Sequence[str], name: str) -> None:
    labels = {series: "all together"}
    for number, repeat in enumerate(repeats, start=1):
        labels[repeat] = f"repeat {number}"
    key = f"repeat-{name}"
    first = [*labels].index(name) if name in labels else 0
    turn = partial(_turn_to, "run", key)
    st.selectbox("Repeats", labels, index=first, format_func=labels.__getitem__, key=key, on_change=turn)


def _body(title: str, parts: Callable[[Opened], None], name: str, course: refresh.BatchPlan) -> None:
    """Show the page's parts for the current run.

    The page is shown anew when all of it changes, or who may see it.
    """
    viewer = access.viewer()
    try:
        with RunReader.open(only=viewer.site) as reader:
            runs, study = reader.runs_of(name), parsed_study(reader.series(name).study_text)
        # A run that begins or ends changes the rhythm of looking, which is the whole page's.
        if refresh.course_of(runs) != course:
            st.rerun()
        with st.container():
            after = overview.COUNTED if covers_study(study) else overview.COMPARED
            overview.head(title, runs, name, only=viewer.site, after=after)
            if viewer.site:
                st.caption(escape(seen_in_words(viewer.site, study)))
        parts(Opened(viewer, runs, name))
    except FlfedError as error:
        st.error(with_code(str(error)))


def link(page: str, label: str, run: str) -> None:
    """Show a link to a page of a run."""
    st.page_link(page_files()[page], label=label, icon=":material/arrow_forward:", query_params={"run": run})
