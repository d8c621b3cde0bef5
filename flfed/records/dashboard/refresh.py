"""Refresh of a page while its run goes on.

It decides when to look again, and caches what was read for a page while it is true.

A page looks again by running a part of itself (a fragment) in the rhythm of a timer in the browser. The
whole page is run anew only when its course changes: `st.rerun` inside a fragment can override a click
on another page that arrives in the same moment (measured with Streamlit 1.67).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from flfed.records.reports.recorded_run import methods_of
from flfed.records.reports.report import report
from flfed.records.statistics import Report
from flfed.records.store.database import store_url
from flfed.records.store.entries import CurvePoint, EventEntry, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader

LOOK_SECONDS = 0.5
"""Between two looks at a running run: a committed round must show within 2 seconds."""
SLOW_SECONDS = 5.0
"""Between two looks where nothing runs, but something may begin: a resume, the next repeat, another run."""
KEPT_SECONDS = 60
"""How long what was read is kept for other readers of the same page."""

Mark = tuple[tuple[str, int, str, str | None], ...]
"""Run, rounds committed, status and end of each run a page shows: differs whenever there is more to see."""
BatchPlan = tuple[float | None, tuple[str, ...]]
"""How often to look, and at which runs."""


def mark_of(runs: Sequence[RunEntry]) -> Mark:
    """Return the mark of some runs."""
    return tuple((run.run, run.rounds, run.status, run.finished) for run in runs)


def course_of(runs: Sequence[RunEntry]) -> BatchPlan:
    """Return how to keep up with a series.

    It is looked at often while it runs, at times while more may come, else not at all.

    A series waits between two repeats, and after an interruption until somebody resumes it.
    """
    names, states = tuple(run.run for run in runs), {run.status for run in runs}
    if "running" in states:
        return LOOK_SECONDS, names
    # A series that failed or was stopped gets no further repeat by itself.
    waits = "interrupted" in states or (states == {"completed"} and len(runs) < runs[0].repeats)
    return SLOW_SECONDS if waits else None, names


def course_of_list(reader: RunReader) -> BatchPlan:
    """Return how to keep up with all runs.

    They are looked at often while one runs, else at times, for there may be a new one.
    """
    # A study's name may hold the searched word too, so that the status is asked for itself.
    running = [run for run in reader.runs(search="running") if run.status == "running"]
    names = tuple(run.run for run in [*reader.runs(limit=1), *running])
    return LOOK_SECONDS if running else SLOW_SECONDS, names


@dataclass(frozen=True)
class Shown:
    """Content of a run's page from the store.

    It is read at once, and cached while the mark is the same.

    Attributes
    ----------
    found : dict
        From `reports.report`.
    sites : list of SiteEntry
        Of the first run, refused ones too.
    curve_names : dict of arm to metrics
        The curves by round there are.
    leaks : dict or None
        The object "leaks" of the first run.
    """

    found: Report
    events: list[EventEntry]
    sites: list[SiteEntry]
    curve_names: dict[str, list[str]]
    leaks: dict[str, Any] | None
    study_text: str


def where() -> str:
    """Return the store's address without its password.

    It is part of the key under which results are cached.
    """
    return store_url().render_as_string(hide_password=True)


@st.cache_data(max_entries=64, ttl=KEPT_SECONDS, show_spinner=False)
def read(store: str, name: str, mark: Mark, only: str | None = None) -> Shown:
    """Return the page content of a run or series.

    It is read once for each `store`, `mark` and `only`.
    """
    names = [run for run, *_ in mark]
    with RunReader.open(only=only) as reader:
        series = reader.series(name)
        return Shown(
            found=report(reader, name),
            events=reader.events(names),
            sites=reader.sites(names[0]),
            curve_names=reader.curve_names(names),
            leaks=reader.summary(names[0], "leaks"),
            study_text=series.study_text,
        )


@st.cache_data(max_entries=64, ttl=KEPT_SECONDS, show_spinner=False)
def read_summaries(store: str, mark: Mark, name: str, only: str | None = None) -> list[dict[str, Any] | None]:
    """Return one summary object of each run.

    It is the object `name` of each run of `mark`, None where it has none. It is read once for each `mark`.
    """
    with RunReader.open(only=only) as reader:
        return [reader.summary(run, name) for run, *_ in mark]


@st.cache_data(max_entries=16, ttl=KEPT_SECONDS, show_spinner=False)
def read_methods(store: str, name: str, mark: Mark) -> list[Report]:
    """Return the methods that were tried on the same random splits as a run, read once for each `mark`."""
    with RunReader.open() as reader:
        return methods_of(reader, name)


@st.cache_data(max_entries=512, ttl=KEPT_SECONDS, show_spinner=False)
def read_curves(
    store: str,
    names: Sequence[str],
    between: tuple[int, int],
    mark: Mark | None,
    *,
    arm: str,
    metric: str,
    sites: Sequence[str],
    width: int,
    only: str | None = None,
) -> list[CurvePoint]:
    """Return one figure by round over the repeats.

    It is averaged in the database, and read once for each `mark`.

    It is None for rounds that are over, of which no figure comes any more: they are read once a minute.
    """
    with RunReader.open(only=only) as reader:
        return reader.curves(names, arm=arm, metric=metric, sites=sites, width=width, between=between)
