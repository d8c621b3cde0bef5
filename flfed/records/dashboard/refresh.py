"""Refresh of a page while its run goes on: its rhythm, and the cache of its content.

A timer in the browser runs a part of the page (a fragment) again. The whole page runs again only when its course
changes: `st.rerun` inside a fragment can override a click on another page at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Self

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.document.document import document
from flfed.records.reports.catalogue import series_list
from flfed.records.reports.shown_run import Seen, ShownRun
from flfed.records.section import group
from flfed.records.statistics import Report
from flfed.records.store.database import store_url
from flfed.records.store.entries import CurvePoint, RunEntry
from flfed.records.store.reader import RunReader

LOOK_SECONDS = 0.5
"""Seconds between two refreshes of a running run: a committed round must show within 2 seconds."""
SLOW_SECONDS = 5.0
"""Seconds between two refreshes where nothing runs, but a resume, the next repeat or another run may begin."""
CACHE_SECONDS = 60
"""Seconds for which content is cached for other readers of the same page."""

Mark = tuple[tuple[str, int, str, str | None], ...]
"""Run, rounds committed, status and end of each run on a page: it differs whenever there is new content."""
BatchPlan = tuple[float | None, tuple[str, ...]]
"""Seconds between two refreshes, and the runs."""


def mark_of(runs: Sequence[RunEntry]) -> Mark:
    """Return the mark of some runs."""
    return tuple((run.run, run.rounds, run.status, run.finished) for run in runs)


def course_of(runs: Sequence[RunEntry]) -> BatchPlan:
    """Return how often to refresh a series: often while it runs, at times while it waits, else never.

    A series waits between two repeats, and after an interruption until somebody resumes it.
    """
    names, states = tuple(run.run for run in runs), {run.status for run in runs}
    if "running" in states:
        return LOOK_SECONDS, names
    # A series that failed or was stopped starts no further repeat by itself.
    waits = "interrupted" in states or (states == {"completed"} and len(runs) < runs[0].repeats)
    return SLOW_SECONDS if waits else None, names


def course_of_list(reader: RunReader) -> BatchPlan:
    """Return how often to refresh the list of runs: often while one runs, else at times, for new ones."""
    # A study's name may contain the searched word, so the status is checked, too.
    running = [run for run in reader.runs(search="running") if run.status == "running"]
    names = tuple(run.run for run in [*reader.runs(limit=1), *running])
    return LOOK_SECONDS if running else SLOW_SECONDS, names


def where() -> str:
    """Return the store's address without its password, a part of the key of cached results."""
    return store_url().render_as_string(hide_password=True)


@st.cache_data(max_entries=64, ttl=CACHE_SECONDS, show_spinner=False)
def read(store: str, name: str, mark: Mark) -> ShownRun:
    """Return the page content of a run or series, read once for each `store` and `mark`."""
    with RunReader.open() as reader:
        return ShownRun.read(reader, name)


MOST_RUNS = 2000
"""Runs of the list, the newest ones."""
MOST_LINES = 10_000
"""Lines of the list of runs that are cached for all readers."""


@cache
def _lines() -> dict[tuple[object, ...], Report]:
    return {}


def read_list_ahead() -> None:
    """Read the list of runs before the first reader comes."""
    with suppress(FlfedError):  # the page itself shows why a store cannot be read
        with RunReader.open() as reader:
            runs = reader.runs(limit=MOST_RUNS)
        read_list([run for run in runs if run.status != "running"])


def read_list(runs: Sequence[RunEntry]) -> list[Report]:
    """Return the lines of the list of runs, each read once for its mark."""
    lines = _lines()
    if len(lines) > MOST_LINES:
        lines.clear()
    keys = {}
    for series, of in group((run.series, run) for run in runs).items():
        keys[series] = (where(), mark_of(of))
    # A run that ended since is read alone, and not the whole store.
    cached = {series: lines[key] for series, key in keys.items() if key in lines}
    missing = [series for series in keys if series not in cached]
    with RunReader.open() as reader:
        newer = series_list(reader, [run for run in runs if run.series not in cached])
    for series, line in zip(missing, newer, strict=True):
        cached[series] = lines[keys[series]] = line
    return [cached[series] for series in keys]


@st.cache_data(max_entries=64, ttl=CACHE_SECONDS, show_spinner=False)
def read_summaries(store: str, mark: Mark, name: str) -> list[dict[str, Any] | None]:
    """Return the object `name` of each run of `mark`, None where it has none, read once for each `mark`."""
    with RunReader.open() as reader:
        return [reader.summary(run, name) for run, *_ in mark]


@st.cache_data(max_entries=16, ttl=CACHE_SECONDS, show_spinner=False)
def read_document(store: str, name: str, mark: Mark) -> str:
    """Return a run's report as a file, made once for each `mark`."""
    return document(name)


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
) -> list[CurvePoint]:
    """Return one figure by round over the repeats, averaged in the database, and read once for each `mark`.

    `mark` is None for complete rounds, which get no further figure: they are read once a minute.
    """
    with RunReader.open() as reader:
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
        """Mark that differs whenever there is new content."""
        return mark_of(self.runs)

    @property
    def is_running(self) -> bool:
        """Whether one of the repeats is running."""
        return any(run.status == "running" for run in self.runs)

    @cached_property
    def shown(self) -> ShownRun:
        """The store's content of the run, read once for each `mark`."""
        return read(where(), self.name, self.mark)

    @property
    def report(self) -> Report:
        """Report of the run."""
        return self.shown.report

    def of_repeat(self, run: RunEntry) -> Self:
        """Return one of the repeats alone."""
        return replace(self, name=run.run, runs=[run])

    def summaries(self, name: str) -> list[dict[str, Any] | None]:
        """Return an object of each repeat, None where it has none."""
        return read_summaries(where(), self.mark, name)

    def document(self) -> str:
        """Return the report as a file."""
        return read_document(where(), self.name, self.mark)

    def bytes_sent(self) -> Mapping[str, int]:
        """Return the number of bytes sent in each direction."""
        with RunReader.open() as reader:
            return reader.bytes_sent(self.names)


def open_series(series: Sequence[str]) -> list[Opened]:
    """Return some series as a page shows them."""
    with RunReader.open() as reader:
        return [Opened(reader.runs_of(name), name) for name in series]
