"""Writer of the run store: series, runs, and rounds.

Tasks in other processes send theirs to the driver, which alone writes the store.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Self

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from flfed.callbacks import Now, now_utc, stamp
from flfed.errors import FlfedError, UsageError
from flfed.records.store.database import OpenStore, engine_to_write, in_words, make_tables, store_url
from flfed.records.store.entries import (
    DIFFERENCES,
    FIGURES,
    AuditRow,
    ComparisonRow,
    CurvePoint,
    DifferenceRow,
    EventRow,
    MetricRow,
    SentRow,
    SiteRow,
)
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import (
    Audit,
    Comparison,
    Event,
    Metric,
    Run,
    RunSite,
    Sent,
    Series,
    Summary,
    finite,
    insert_all,
    plain,
    stored,
)
from flfed.records.store.takeover import delete_runs, lock_run, rewind, take_over, this_process
from flfed.tasks import Driver

Line = tuple[Any, ...]
Numbered = tuple[int, Sequence[MetricRow | SentRow]]
"""The number of a round, and its rows."""
EVENTS = ("at", *(field.name for field in fields(EventRow)))
COUNT = update(Run).where(Run.id == bindparam("of"), Run.rounds < bindparam("first")).values(rounds=bindparam("last"))
"""Statement that counts rounds, unless the first of them is already counted."""


@dataclass(frozen=True)
class PendingRound:
    """One round that waits to be written, with lists of its own, which the caller cannot change.

    Attributes
    ----------
    number : int
    metrics, scores : lists of MetricRow
        The scores are of the model before the round.
    sent : list of SentRow
    events : list of tuples
        In the order of `EVENTS`.
    """

    number: int
    metrics: list[MetricRow]
    scores: list[MetricRow]
    sent: list[SentRow]
    events: list[Line]


def event_lines(at: str, rows: Iterable[EventRow]) -> list[Line]:
    """Return events that happened `at`, in the order of `EVENTS`."""
    return [(at, *_values(row)) for row in rows]


def _values(row: EventRow | ComparisonRow | DifferenceRow) -> Line:
    """Return a row's values in field order."""
    return tuple(vars(row).values())


def write_rounds(connection: Connection, run: str, rounds: Sequence[PendingRound]) -> None:
    """Write consecutive rounds in the caller's transaction.

    Raises
    ------
    ValueError
        If the first of them, or a later round, is committed already.
    """
    # One statement counts and checks, so that no other writer can interfere.
    first, last = rounds[0].number, rounds[-1].number
    if not connection.execute(COUNT, {"of": run, "first": first, "last": last}).rowcount:
        done = connection.execute(select(Run.rounds).where(Run.id == run)).scalar_one()
        raise ValueError(f"round {first} of run {run} is committed already (last: {done})")
    # Scores are of the model before the round, and have the number of that round.
    figures = [part for entry in rounds for part in ((entry.number, entry.metrics), (entry.number - 1, entry.scores))]
    insert_numbered(connection, Metric, figures, run)
    insert_numbered(connection, Sent, [(entry.number, entry.sent) for entry in rounds], run)
    insert_all(connection, Event, EVENTS, chain.from_iterable(entry.events for entry in rounds), {"run_id": run})


def insert_numbered(
    connection: Connection, table: type[Metric] | type[Sent], parts: Sequence[Numbered], run: str
) -> None:
    """Insert figures of rounds, or their bytes."""
    names = {Metric: MetricRow._fields, Sent: SentRow._fields}[table]
    lines = chain.from_iterable([(number, *row) for row in rows] for number, rows in parts)
    insert_all(connection, table, ("round", *names), lines, {"run_id": run})


__all__ = ["ComparisonRow", "DifferenceRow", "EventRow", "MetricRow", "RunStore", "RunWriter", "SentRow", "finite"]

FLUSH_INTERVAL = timedelta(seconds=0.25)
"""Rounds that follow each other faster are written together, as a transaction costs as much as a small round."""
NEW_SITE = {
    "status": "accepted", "reason": "", "rows": None, "holdout_rows": None,
    "disclosure": "open", "resplit": False,
}  # fmt: skip
"""Default values of a site; its default title is its name."""


class RunStore(OpenStore):
    """A run store open for writing; `open` makes it where there is none.

    Parameters
    ----------
    engine : Engine
        From `database.engine_to_write`, its tables up to date.
    url : URL
        Its address, for error sentences.
    clock : callable
        Returns the time; tests pass their own.
    """

    def __init__(self, engine: Engine, url: URL, *, clock: Now = now_utc) -> None:
        super().__init__(engine, url)
        self._clock = clock

    @classmethod
    def open(cls, url: str | None = None, *, clock: Now = now_utc) -> Self:
        """Open the store at `url`, else `FLFED_STORE`, else `runs.db` under `home()`, for writing.

        Raises
        ------
        FlfedError
            If it cannot be opened or another version of flfed wrote it, with advice.
        """
        where = store_url(url)
        with in_words(where, "opened"):
            engine = engine_to_write(where)
            make_tables(engine)
        return cls(engine, where, clock=clock)

    def begin_series(self, *, study: str, study_sha256: str, study_text: str, repeats: int = 1) -> str:
        """Record the start of a study and return its series' id.

        Parameters
        ----------
        study : str
            Name of the study.
        study_sha256, study_text : str
            The study's TOML text and its digest.
        repeats : int, >= 1
            Number of its runs.
        """
        now = self._clock()
        with in_words(self._url, "written"), self._engine.begin() as connection:
            name = _free_name(connection, now)
            row = {"id": name, "study": study, "study_sha256": study_sha256, "study_text": study_text}
            connection.execute(insert(Series), [row | {"repeats": repeats, "started": stamp(now)}])
        return name

    def begin_run(
        self,
        series: str,
        *,
        repeat: int = 0,
        engine: str,
        path: str,
        seed: int,
        rounds_planned: int,
        primary: str,
        task: str,
        versions: Mapping[str, Any] | None = None,
        hashes: Mapping[str, Any] | None = None,
    ) -> RunWriter:
        """Record the start of a run and return its writer.

        The run's id is that of its series, with `-r01`, `-r02`, ... where the series has several repeats; `repeat`
        counts from 0.

        Raises
        ------
        ValueError
            If there is no such series, or `repeat` is not one of its repeats.
        UsageError
            If another process has begun it.
        """
        row: dict[str, Any] = {
            "series_id": series, "repeat": repeat, "engine": engine, "path": path, "task": task,
            "primary_metric": primary, "seed": int(seed), "rounds": 0, "rounds_planned": int(rounds_planned),
            "status": "running", "reason": "", "started": stamp(self._clock()),
            "versions": plain(dict(versions or {})), "hashes": plain(dict(hashes or {})),
            **vars(this_process()),
        }  # fmt: skip
        with in_words(self._url, "written"), self._engine.begin() as connection:
            repeats = connection.execute(select(Series.repeats).where(Series.id == series)).scalar()
            if repeats is None or not 0 <= repeat < repeats:
                raise ValueError(f"series {series!r} has {repeats or 'no'} repeats, so no repeat={repeat}")
            # A series that is run once gives its run its own name.
            name = series if repeats == 1 else f"{series}-r{repeat + 1:0{max(2, len(str(repeats)))}d}"
            if connection.execute(select(Run.id).where(Run.id == name)).first() is not None:
                raise UsageError(f"run {name} was begun by another process: see flfed run list")
            connection.execute(insert(Run), [row | {"id": name}])
        return self.added_to(name)

    def resume_run(self, run: str, keep: Callable[[int], int]) -> RunWriter:
        """Take over a run whose process is gone.

        Parameters
        ----------
        run : str
        keep : callable
            Returns the number of rounds to keep, from the number committed. It is called in the same transaction, as
            another process may have written since an earlier read. If it raises, a run whose process died is
            "stopped", as nothing resumes it; another run does not change.

        Raises
        ------
        UsageError
            If the run is completed, or a living process writes it.
        FlfedError
            The error that `keep` raises.
        """
        lost: FlfedError | None = None
        with in_words(self._url, "written"), self._engine.begin() as connection:
            row = lock_run(connection, run)
            try:
                rounds_to_keep = keep(row["rounds"])
            except FlfedError as error:
                lost = error
            if lost is None:
                take_over(connection, run)
                rewind(connection, run, rounds_to_keep)
            elif row["status"] == "running":
                ended = {"status": "stopped", "reason": str(lost), "finished": stamp(self._clock())}
                connection.execute(update(Run).where(Run.id == run).values(ended))
        if lost is not None:
            raise lost
        return self.added_to(run)

    def added_to(self, run: str) -> RunWriter:
        """Return a writer that adds to a finished run."""
        return RunWriter(self._engine, self._url, run, clock=self._clock)

    def delete(self, runs: Sequence[str]) -> None:
        """Delete everything of some runs.

        Raises
        ------
        UsageError
            If a living process writes one of them; nothing is deleted then.
        """
        with in_words(self._url, "written"), self._engine.begin() as connection:
            delete_runs(connection, runs)

    def audit(self, run: str, rows: Iterable[AuditRow]) -> None:
        """Add one audit's figures with one time to the record of a finished run, beside earlier ones.

        Raises
        ------
        UsageError
            If there is no such run.
        """
        at = stamp(self._clock())
        # Values that are not finite become NULL, in the payload as well.
        lines = [{"run_id": run, "at": at, **plain(vars(row))} for row in rows]
        with in_words(self._url, "written"), self._engine.begin() as connection:
            # For an unknown name the error of the foreign key would be in the database's words.
            if connection.execute(select(Run.id).where(Run.id == run)).first() is None:
                raise UsageError(f"run {run!r} is not in the store")
            if lines:
                connection.execute(insert(Audit), lines)


def _free_name(connection: Connection, now: datetime) -> str:
    """Return a free series id that sorts by time."""
    while True:
        name = f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        if connection.execute(select(Series.id).where(Series.id == name)).first() is None:
            return name


class RunWriter:
    """Writer of one run, of which a reader never sees half a round.

    Each method is one transaction, in the order of the calls. Rounds that need not be durable wait for up to
    `FLUSH_INTERVAL` and are then written together. A power cut may lose the data of `sites`, `metrics`, `sent` and
    rounds that are not durable, until any other call writes them to the disk.

    Parameters
    ----------
    engine : Engine
    url : URL
        The store's address, for error sentences.
    run : str
        Id of the run, also the attribute `run`.
    clock : callable
        Returns the time.
    """

    def __init__(self, engine: Engine, url: URL, run: str, *, clock: Now = now_utc) -> None:
        self._engine = engine
        self._url = url
        self._clock = clock
        self.run = run
        self._pending: list[PendingRound] = []
        self._latest, self._written = 0, datetime.min.replace(tzinfo=UTC)

    def sites(self, rows: Iterable[SiteRow]) -> None:
        """Write sites, changing only the given fields of known ones."""
        with self._writing(durable=False) as connection:
            site_names = set(connection.execute(select(RunSite.site).where(RunSite.run_id == self.run)).scalars())
            new: dict[str, dict[str, Any]] = {}
            changed: dict[tuple[str, ...], list[dict[str, Any]]] = {}
            # New sites share one statement, and so do sites that change in the same columns.
            for row in rows:
                cells = {key: value for key, value in vars(row).items() if value is not None}
                (name,) = stored(RunSite.__table__.c.site, [cells.pop("name")])
                if name not in site_names:
                    new[name] = new.get(name, {"run_id": self.run, "site": name, "title": row.name} | NEW_SITE) | cells
                elif cells:
                    changed.setdefault(tuple(cells), []).append({"of": name} | cells)
            if new:
                connection.execute(insert(RunSite), list(new.values()))
            mine = (RunSite.run_id == self.run) & (RunSite.site == bindparam("of"))
            for names, changes in changed.items():
                values: dict[str, Any] = {column: bindparam(column) for column in names}
                connection.execute(update(RunSite).where(mine).values(values), changes)

    def round(
        self,
        number: int,
        *,
        metrics: Iterable[MetricRow] = (),
        scores: Iterable[MetricRow] = (),
        seconds: float | None = None,
        sent: Iterable[SentRow] = (),
        events: Iterable[EventRow] = (),
        durable: bool = True,
    ) -> None:
        """Commit one whole round: figures, bytes and events, or nothing.

        Parameters
        ----------
        number : int, >= 1
            The round; greater than the last one committed.
        metrics : MetricRows of this round's training
        scores : MetricRows of the model before the round
            They are stored under round `number - 1`, whose model it is.
        seconds : float
            Wall clock of the round, stored as metric `seconds` of arm `clock`.
        durable : bool
            Whether it is on the disk when this returns, with all rounds before it. If not, it is in the store after
            `FLUSH_INTERVAL` at the latest as long as rounds come, and before any other data of this writer; an error
            of the database is then raised there. A crash of the process loses the rounds that still wait, a power cut
            those since the last durable one.

        Raises
        ------
        ValueError
            If this round, or a later one, is committed already.
        """
        now = self._clock()
        clock = [] if seconds is None else [MetricRow(None, "clock", "seconds", seconds)]
        this = PendingRound(number, [*metrics, *clock], list(scores), list(sent), event_lines(stamp(now), events))
        in_order, self._latest = number > self._latest, max(number, self._latest)
        if not in_order:
            self.flush()  # a round out of order is checked by itself
        self._pending.append(this)
        # A clock that was set back would make rounds wait for that time.
        if durable or not in_order or not timedelta() <= now - self._written < FLUSH_INTERVAL:
            self._written = now
            self._write_pending(durable=durable)

    def curves(self, arm: str, metric: str) -> list[CurvePoint]:
        """Return the run's figures by round, after writing the rounds that wait; see `RunReader.curves`."""
        self.flush()
        return RunReader(self._engine, self._url).curves([self.run], arm=arm, metric=metric)

    def flush(self) -> None:
        """Write the rounds that wait, if any."""
        if self._pending:
            self._write_pending(durable=False)

    def _write_pending(self, *, durable: bool) -> None:
        """Write the waiting rounds together, or one by one up to the one at fault, where the database refuses them.

        A round that cannot be written ends the run, whose end must be written without it, so no round waits any longer.
        """
        waiting_rounds, self._pending = self._pending, []
        with in_words(self._url, "written"):
            try:
                self._commit(waiting_rounds, durable=durable)
            except DBAPIError as error:
                # A connection that was lost while it committed may have committed.
                if len(waiting_rounds) == 1 or error.connection_invalidated:
                    raise
                for one in waiting_rounds:
                    self._commit([one], durable=durable)

    def _commit(self, rounds: Sequence[PendingRound], *, durable: bool) -> None:
        with self._transaction(durable=durable) as connection:
            write_rounds(connection, self.run, rounds)

    @contextmanager
    def _writing(self, *, durable: bool = True) -> Iterator[Connection]:
        """Begin a transaction after the rounds that came before it."""
        self.flush()
        with in_words(self._url, "written"), self._transaction(durable=durable) as connection:
            yield connection

    def _transaction(self, *, durable: bool) -> AbstractContextManager[Connection]:
        if durable:
            return self._engine.begin()
        return self._engine.execution_options(durable=False).begin()

    def metrics(self, number: int, rows: Iterable[MetricRow]) -> None:
        """Add figures to a round without counting it, before the first that is counted or after the last."""
        with self._writing(durable=False) as connection:
            insert_numbered(connection, Metric, [(number, list(rows))], self.run)

    def sent(self, number: int, rows: Iterable[SentRow]) -> None:
        """Add sent bytes to a round as `metrics` adds figures."""
        with self._writing(durable=False) as connection:
            insert_numbered(connection, Sent, [(number, list(rows))], self.run)

    def events(self, rows: Collection[EventRow]) -> None:
        """Add events, if any, with the time of this call."""
        if rows:
            with self._writing() as connection:
                insert_all(connection, Event, EVENTS, event_lines(stamp(self._clock()), rows), {"run_id": self.run})

    def summary(self, name: str, payload: Mapping[str, Any], *, durable: bool = True) -> None:
        """Write or replace a named object, `durable` as for `round`."""
        row = {"run_id": self.run, "name": name, "payload": plain(dict(payload))}
        with self._writing(durable=durable) as connection:
            connection.execute(delete(Summary).where(Summary.run_id == self.run, Summary.name == name))
            connection.execute(insert(Summary), [row])

    def comparison(self, figures: Sequence[ComparisonRow], differences: Sequence[DifferenceRow]) -> None:
        """Write or replace the figures and differences of the comparison."""
        with self._writing() as connection:
            connection.execute(delete(Comparison).where(Comparison.run_id == self.run))
            mine = {"run_id": self.run}
            insert_all(connection, Comparison, FIGURES, map(_values, figures), mine | {"verdict": ""})
            insert_all(connection, Comparison, DIFFERENCES, map(_values, differences), mine)

    def finish(
        self,
        *,
        status: str,
        reason: str = "",
        seconds: float | None = None,
        arrays_sha256: str | None = None,
        best_round: int | None = None,
    ) -> None:
        """Record the end of the run: "completed", "stopped" or "failed", and the reason."""
        row = {
            "status": status, "reason": reason, "seconds": finite(seconds), "best_round": best_round,
            "arrays_sha256": arrays_sha256, "finished": stamp(self._clock()),
        }  # fmt: skip
        with self._writing() as connection:
            connection.execute(update(Run).where(Run.id == self.run).values(row))


class DriverStore:
    """The driver's half of the store of tasks in other processes: writes what they send.

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
