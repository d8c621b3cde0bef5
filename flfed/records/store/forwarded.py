"""The run store of tasks in other processes: what they record is sent to the driver, which alone writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flfed.errors import FlfedError
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore, RunWriter
from flfed.tasks import Driver


class DriverStore:
    """The driver's half: writes what tasks send.

    Parameters
    ----------
    store : RunStore
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._open: dict[str, tuple[int, RunWriter]] = {}
        self.functions: dict[str, Callable[..., Any]] = {
            "begin-series": lambda task, /, **row: store.begin_series(**row),
            "begin-run": lambda task, series, /, **row: self._add(task, store.begin_run(series, **row)),
            "resume-run": self._resume,
            "write": self._write,
            "rounds": self._rounds,
        }

    def _add(self, task: int, writer: RunWriter) -> str:
        self._open[writer.run] = (task, writer)
        return writer.run

    def _resume(self, task: int, run: str, rounds_to_keep: int | FlfedError) -> str:
        def keep(rounds: int) -> int:
            if isinstance(rounds_to_keep, FlfedError):
                raise rounds_to_keep
            return rounds_to_keep

        return self._add(task, self._store.resume_run(run, keep))

    def _write(self, task: int, run: str, method: str, *values: Any, **options: Any) -> Any:
        _, writer = self._open[run]
        result = getattr(writer, method)(*values, **options)
        if method == "finish":
            del self._open[run]
        return result

    def _rounds(self, task: int, run: str) -> int:
        with RunReader.open(self._store.address) as reader:
            return reader.runs_of(run)[0].rounds

    def end(self, status: str, reason: str, task: int | None = None) -> list[str]:
        """Record the end of the open runs of a task, or of all, and return them."""
        runs = [run for run, (owner, _) in self._open.items() if task in (None, owner)]
        for run in runs:
            _, writer = self._open.pop(run)
            writer.finish(status=status, reason=reason)
        return runs


class ForwardedStore:
    """The task's half of a run store, in place of a `RunStore`.

    Parameters
    ----------
    driver : Driver
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def begin_series(self, **row: Any) -> str:
        """Record the start of a study; see `RunStore`."""
        return str(self._driver.call("begin-series", **row))

    def begin_run(self, series: str, **row: Any) -> RunWriter:
        """Record the start of a run; see `RunStore`."""
        return ForwardedWriter(self._driver, self._driver.call("begin-run", series, **row))

    def resume_run(self, run: str, keep: Callable[[int], int]) -> RunWriter:
        """Take over a run; see `RunStore`."""
        rounds = self._driver.call("rounds", run)
        rounds_to_keep: int | FlfedError
        try:
            rounds_to_keep = keep(rounds)
        except FlfedError as error:
            rounds_to_keep = error
        return ForwardedWriter(self._driver, self._driver.call("resume-run", run, rounds_to_keep))


def _forwarded(method: str, *, waits: bool) -> Any:
    """Return a method that the driver's writer carries out."""

    def forward(self: ForwardedWriter, *values: Any, **options: Any) -> Any:
        ready = [_listed(value) for value in values]
        named = {name: _listed(value) for name, value in options.items()}
        if waits or options.get("durable"):
            return self.driver.call("write", self.run, method, *ready, **named)
        return self.driver.post("write", self.run, method, *ready, **named)

    return forward


def _listed(value: Any) -> Any:
    """Return a value that can be pickled: a generator as its list."""
    return list(value) if isinstance(value, Iterable) and iter(value) is value else value


class ForwardedWriter(RunWriter):
    """The task's half of the writer of one run.

    An error of what need not be on the disk at once is raised by a later call.
    """

    def __init__(self, driver: Driver, run: str) -> None:
        self.driver = driver
        self.run = run

    sites = _forwarded("sites", waits=False)
    round = _forwarded("round", waits=False)
    metrics = _forwarded("metrics", waits=False)
    sent = _forwarded("sent", waits=False)
    events = _forwarded("events", waits=False)
    summary = _forwarded("summary", waits=False)
    comparison = _forwarded("comparison", waits=True)
    flush = _forwarded("flush", waits=True)
    finish = _forwarded("finish", waits=True)
    curves = _forwarded("curves", waits=True)
