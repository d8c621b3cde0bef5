"""Writing the run store: a series, its runs, and what each round measured, while it happens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update
from sqlalchemy.engine import URL

from flfed.errors import UsageError
from flfed.records.alive import this_process
from flfed.records.bulk import finite, insert_all, plain, stored
from flfed.records.database import engine_to_write, in_words, store_url, upgrade
from flfed.records.entries import ComparisonRow, DifferenceRow, EventRow, LearningPoint, MetricRow, SentRow, SiteRow
from flfed.records.resuming import rewind, take_over
from flfed.records.tables import Comparison, Curve, Event, Metric, Run, RunSite, Sent, Series, Summary

__all__ = ["ComparisonRow", "DifferenceRow", "EventRow", "MetricRow", "RunStore", "RunWriter", "SentRow", "finite"]

Clock = Callable[[], datetime]
COUNT = (
    update(Run).where(Run.id == bindparam("of"), Run.rounds < bindparam("number")).values(rounds=bindparam("number"))
)
"""Counts a round, unless it is counted already."""
EVENTS = tuple(field.name for field in fields(EventRow))
FIGURES = tuple(field.name for field in fields(ComparisonRow))
DIFFERENCES = ("site", "arm", "against", *(field.name for field in fields(DifferenceRow)[3:]))
POINTS = tuple(field.name for field in fields(LearningPoint))
NEW_SITE = {
    "status": "accepted", "reason": "", "rows": None, "holdout_rows": None,
    "disclosure": "open", "shared_as": "named", "resplit": False,
}  # fmt: skip
"""What is written of a site unless it is given; the title is its name."""


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Return a UTC time as ISO text with milliseconds, which sorts as it happened.

    Examples
    --------
    >>> stamp(datetime(2026, 11, 20, 15, 30, 12, 5000, tzinfo=UTC))
    '2026-11-20T15:30:12.005Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RunStore:
    """A run store open for writing; `open` makes and migrates it.

    Parameters
    ----------
    engine : Engine
        From `database.engine_to_write`, its tables up to date.
    url : URL
        Where it is, for error sentences.
    clock : callable
        Returns the time; tests pass their own.
    """

    def __init__(self, engine: Engine, url: URL, *, clock: Clock = utc_now) -> None:
        self._engine, self._url, self._clock = engine, url, clock

    @classmethod
    def open(cls, url: str | None = None, *, clock: Clock = utc_now) -> Self:
        """Open the store at `url` (else `FLFED_STORE`, else `runs.db` under `home()`) for writing.

        Raises
        ------
        FlfedError
            If it cannot be opened or a newer flfed wrote it; says what to do.
        """
        where = store_url(url)
        with in_words(where, "opened"):
            engine = engine_to_write(where)
            upgrade(engine)
        return cls(engine, where, clock=clock)

    def close(self) -> None:
        """Let go of the database; SQLite then folds its log into the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Return the store, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def begin_series(self, *, study: str, study_sha256: str, study_text: str, repeats: int = 1) -> str:
        """Write down that a study starts, and return the id of its series.

        Parameters
        ----------
        study : str
            Name of the study.
        study_sha256, study_text : str
            The study as it travels: TOML text and its digest.
        repeats : int, >= 1
            How many runs will follow.
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
        """Write down that a run starts, and return its writer.

        The run's id is that of its series, with `-r01`, `-r02`, ... where the series has several
        repeats; `repeat` counts from 0.

        Raises
        ------
        ValueError
            If there is no such series, or `repeat` is not one of its repeats.
        UsageError
            If another process has begun it.
        """
        writer = this_process()
        row: dict[str, Any] = {
            "series_id": series, "repeat": repeat, "engine": engine, "path": path, "task": task,
            "primary_metric": primary, "seed": int(seed), "rounds": 0, "rounds_planned": int(rounds_planned),
            "status": "running", "reason": "", "started": stamp(self._clock()),
            "versions": plain(dict(versions or {})), "hashes": plain(dict(hashes or {})),
            "host": writer.host, "boot": writer.boot, "pid": writer.pid, "process": writer.process,
        }  # fmt: skip
        with in_words(self._url, "written"), self._engine.begin() as connection:
            repeats = connection.execute(select(Series.repeats).where(Series.id == series)).scalar()
            if repeats is None or not 0 <= repeat < repeats:
                raise ValueError(f"series {series!r} has {repeats or 'no'} repeats, so no repeat={repeat}")
            name = series if repeats == 1 else f"{series}-r{repeat + 1:0{max(2, len(str(repeats)))}d}"
            if connection.execute(select(Run.id).where(Run.id == name)).first() is not None:
                raise UsageError(f"run {name} was begun by another process: see flfed run list")
            connection.execute(insert(Run), [row | {"id": name}])
        return RunWriter(self._engine, self._url, name, clock=self._clock)

    def resume_run(self, run: str, keep: Callable[[int], int]) -> RunWriter:
        """Take over a run whose process is gone and return its writer.

        Parameters
        ----------
        run : str
        keep : callable
            Given the number of rounds committed, returns how many are kept. It is asked in the same
            transaction: what was read before may be older than what another process wrote since. What
            it raises leaves the run as it was.

        Raises
        ------
        UsageError
            If the run is completed, or a living process writes it.
        """
        with in_words(self._url, "written"), self._engine.begin() as connection:
            rewind(connection, run, keep(take_over(connection, run)))
        return RunWriter(self._engine, self._url, run, clock=self._clock)


def _free_name(connection: Connection, now: datetime) -> str:
    """Return a series id that sorts by time and is not taken."""
    while True:
        name = f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        if connection.execute(select(Series.id).where(Series.id == name)).first() is None:
            return name


class RunWriter:
    """Writes one run; each method is one transaction, so a reader never sees half a round.

    Parameters
    ----------
    engine : Engine
    url : URL
        Where the store is, for error sentences.
    run : str
        Id of the run, also the attribute `run`.
    clock : callable
        Returns the time.
    """

    def __init__(self, engine: Engine, url: URL, run: str, *, clock: Clock = utc_now) -> None:
        self._engine, self._url, self._clock = engine, url, clock
        self.run = run

    def site(
        self,
        name: str,
        *,
        title: str | None = None,
        status: str | None = None,
        reason: str | None = None,
        rows: int | None = None,
        holdout_rows: int | None = None,
        disclosure: str | None = None,
        shared_as: str | None = None,
        resplit: bool | None = None,
    ) -> None:
        """Write down one site of the run, as `sites` does; the words are those of `SiteRow`."""
        self.sites([SiteRow(name, title, status, reason, rows, holdout_rows, disclosure, shared_as, resplit)])

    def sites(self, rows: Iterable[SiteRow]) -> None:
        """Write down sites of the run; for one that is there already, change what is given and nothing else."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            known = set(connection.execute(select(RunSite.site).where(RunSite.run_id == self.run)).scalars())
            new: dict[str, dict[str, Any]] = {}
            changed: dict[tuple[str, ...], list[dict[str, Any]]] = {}
            for row in rows:
                given = {key: value for key, value in vars(row).items() if value is not None}
                (name,) = stored(RunSite.__table__.c.site, [given.pop("name")])
                if name not in known:
                    new[name] = new.get(name, {"run_id": self.run, "site": name, "title": row.name} | NEW_SITE) | given
                elif given:
                    changed.setdefault(tuple(given), []).append({"of": name} | given)
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
        """Commit one round whole: figures, bytes and events, or nothing of it.

        Parameters
        ----------
        number : int, >= 1
            The round; greater than the last one committed.
        metrics : MetricRows of this round's training
        scores : MetricRows of the model that came into the round
            Kept under round `number - 1`, after which it was that model.
        seconds : float
            Wall clock of the round; kept as metric `seconds` of arm `clock`.
        durable : bool
            Whether to wait until it is on the disk, so that it outlives a power cut; a crash of the
            process costs nothing either way. A later durable round takes those before it along.

        Raises
        ------
        ValueError
            If this round, or a later one, is committed already.
        """
        clock = [] if seconds is None else [MetricRow(None, "clock", "seconds", seconds)]
        engine = self._engine if durable else self._engine.execution_options(durable=False)
        with in_words(self._url, "written"), engine.begin() as connection:
            if not connection.execute(COUNT, {"of": self.run, "number": number}).rowcount:
                done = connection.execute(select(Run.rounds).where(Run.id == self.run)).scalar_one()
                raise ValueError(f"round {number} of run {self.run} is committed already (last: {done})")
            self._insert_metrics(connection, number, [*metrics, *clock])
            self._insert_metrics(connection, number - 1, scores)
            self._insert_sent(connection, number, sent)
            self._insert_events(connection, events)

    def metrics(self, number: int, rows: Iterable[MetricRow]) -> None:
        """Add figures to round `number` without counting a round: before the first, after the last."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            self._insert_metrics(connection, number, rows)

    def sent(self, number: int, rows: Iterable[SentRow]) -> None:
        """Add bytes that crossed at round `number` without counting a round: before the first, after the last."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            self._insert_sent(connection, number, rows)

    def events(self, rows: Collection[EventRow]) -> None:
        """Add events, stamped with the time of this call; without any, the store is left alone."""
        if rows:
            with in_words(self._url, "written"), self._engine.begin() as connection:
                self._insert_events(connection, rows)

    def summary(self, name: str, payload: Mapping[str, Any]) -> None:
        """Write, or write anew, a named object: "table-1", "encoder", "leaks"."""
        row = {"run_id": self.run, "name": name, "payload": plain(dict(payload))}
        with in_words(self._url, "written"), self._engine.begin() as connection:
            connection.execute(delete(Summary).where(Summary.run_id == self.run, Summary.name == name))
            connection.execute(insert(Summary), [row])

    def comparison(self, figures: Sequence[ComparisonRow], differences: Sequence[DifferenceRow]) -> None:
        """Write, or write anew, the comparison of the run: figures and their differences."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            connection.execute(delete(Comparison).where(Comparison.run_id == self.run))
            mine = {"run_id": self.run}
            insert_all(connection, Comparison, FIGURES, map(_values, figures), mine | {"verdict": ""})
            insert_all(connection, Comparison, DIFFERENCES, map(_values, differences), mine)

    def learning_curve(self, points: Iterable[LearningPoint]) -> None:
        """Write, or write anew, the learning curve of the series that this run belongs to."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            series = connection.execute(select(Run.series_id).where(Run.id == self.run)).scalar_one()
            connection.execute(delete(Curve).where(Curve.series_id == series))
            insert_all(connection, Curve, POINTS, map(_values, points), {"series_id": series})

    def finish(
        self,
        *,
        status: str,
        reason: str = "",
        seconds: float | None = None,
        arrays_sha256: str | None = None,
        best_round: int | None = None,
    ) -> None:
        """Write down how the run ended: "completed", "stopped" or "failed", and why."""
        row = {
            "status": status, "reason": reason, "seconds": finite(seconds), "best_round": best_round,
            "arrays_sha256": arrays_sha256, "finished": stamp(self._clock()),
        }  # fmt: skip
        with in_words(self._url, "written"), self._engine.begin() as connection:
            connection.execute(update(Run).where(Run.id == self.run).values(row))

    def _insert_metrics(self, connection: Connection, number: int, rows: Iterable[MetricRow]) -> None:
        insert_all(connection, Metric, MetricRow._fields, rows, {"run_id": self.run, "round": number})

    def _insert_sent(self, connection: Connection, number: int, rows: Iterable[SentRow]) -> None:
        insert_all(connection, Sent, SentRow._fields, rows, {"run_id": self.run, "round": number})

    def _insert_events(self, connection: Connection, rows: Iterable[EventRow]) -> None:
        same = {"run_id": self.run, "at": stamp(self._clock())}
        insert_all(connection, Event, EVENTS, map(_values, rows), same)


def _values(row: ComparisonRow | DifferenceRow | EventRow | LearningPoint) -> tuple[Any, ...]:
    """Return what a line of a record has, in the order of its fields."""
    return tuple(vars(row).values())
