"""Refresh of a page while its run goes on.

It decides when to look again, and caches what was read for a page while it is true.

A page looks again by running a part of itself (a fragment) in the rhythm of a timer in the browser. The
whole page is run anew only when its course changes: `st.rerun` inside a fragment can override a click
on another page that arrives in the same moment (measured with Streamlit 1.67).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import streamlit as st

from flfed.records.document.content import Seen
from flfed.records.document.document import document
from flfed.records.reports.recorded_run import methods_of
from flfed.records.reports.report import report
from flfed.records.statistics import Report
from flfed.records.store.database import store_url
from flfed.records.store.entries import CurvePoint, EventEntry, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import Viewer

LOOK_SECONDS = 0.5
"""Between two looks at a running run: a committed round must show within 2 seconds."""
SLOW_SECONDS = 5.0
"""Between two looks where nothing runs, but something may begin: a resume, the next repeat, another run."""
CACHE_SECONDS = 60
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
    report : dict
        From `reports.report`.
    sites : list of SiteEntry
        Of the first run, refused ones too.
    curve_names : dict of arm to metrics
        The curves by round there are.
    leaks : dict or None
        The object "leaks" of the first run.
    """

    report: Report
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


@st.cache_data(max_entries=64, ttl=CACHE_SECONDS, show_spinner=False)
def read(store: str, name: str, mark: Mark, only: str | None = None) -> Shown:
    """Return the page content of a run or series.

    It is read once for each `store`, `mark` and `only`.
    """
    names = [run for run, *_ in mark]
    with RunReader.open(only=only) as reader:
        series = reader.series(name)
        return Shown(
            report=report(reader, name),
            events=reader.events(names),
            sites=reader.sites(names[0]),
            curve_names=reader.curve_names(names),
            leaks=reader.summary(names[0], "leaks"),
            study_text=series.study_text,
        )


@st.cache_data(max_entries=64, ttl=CACHE_SECONDS, show_spinner=False)
def read_summaries(store: str, mark: Mark, name: str, only: str | None = None) -> list[dict[str, Any] | None]:
    """Return one summary object of each run.

    It is the object `name` of each run of `mark`, None where it has none. It is read once for each `mark`.
    """
    with RunReader.open(only=only) as reader:
        return [reader.summary(run, name) for run, *_ in mark]


@st.cache_data(max_entries=16, ttl=CACHE_SECONDS, show_spinner=False)
def read_methods(store: str, name: str, mark: Mark) -> list[Report]:
    """Return the methods that were tried on the same random splits as a run, read once for each `mark`."""
    with RunReader.open() as reader:
        return methods_of(reader, name)


@st.cache_data(max_entries=16, ttl=CACHE_SECONDS, show_spinner=False)
def read_document(store: str, name: str, mark: Mark, viewer: Viewer) -> str:
    """Return a run's report as a file, made once for each `mark` and `viewer`."""
    return document(name, viewer=viewer)


@st.cache_data(max_entries=512, ttl=CACHE_SECONDS, show_spinner=False)
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


@dataclass(frozen=True)
class Opened(Seen):
    """The run that a page shows.

    Attributes
    ----------
    name : str
        Of the series, or of the one repeat that the reader picked.
    """

    name: str

    @property
    def mark(self) -> Mark:
        """Mark that differs whenever there is more to see."""
        return mark_of(self.runs)

    @property
    def is_running(self) -> bool:
        """Whether one of the repeats goes on."""
        return any(run.status == "running" for run in self.runs)

    @cached_property
    def shown(self) -> Shown:
        """The store's content of the run, read once for each `mark`."""
        return read(where(), self.name, self.mark, self.only)

    @property
    def report(self) -> Report:
        """Report of the run."""
        return self.shown.report

    def of_repeat(self, run: RunEntry) -> Self:
        """Return one of the repeats alone."""
        return replace(self, name=run.run, runs=[run])

    def summaries(self, name: str) -> list[dict[str, Any] | None]:
        """Return an object of each repeat, None where it has none."""
        return read_summaries(where(), self.mark, name, self.only)

    def document(self) -> str:
        """Return the report as a file, with what the viewer may see."""
        return read_document(where(), self.name, self.mark, self.viewer)

    def bytes_sent(self) -> Mapping[str, int]:
        """Return how many bytes crossed, either way."""
        with RunReader.open(only=self.only) as reader:
            return reader.bytes_sent(self.names)
