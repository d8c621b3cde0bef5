"""Writing the run store: a series, its runs, and what each round measured, while it happens."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update
from sqlalchemy.engine import URL

from flfed.errors import UsageError
from flfed.records.alive import this_process
from flfed.records.database import engine_to_write, in_words, store_url, upgrade
from flfed.records.entries import ComparisonRow, DifferenceRow, EventRow, LearningPoint, MetricRow, SentRow
from flfed.records.resuming import rewind, take_over
from flfed.records.tables import Base, Comparison, Curve, Event, Metric, Run, RunSite, Sent, Series, Summary

__all__ = ["ComparisonRow", "DifferenceRow", "EventRow", "MetricRow", "RunStore", "RunWriter", "SentRow"]

Clock = Callable[[], datetime]


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
        """Write down one site of the run; a second call changes what it names and nothing else.

        Parameters
        ----------
        name : str
            The site's name, or its pseudonym.
        title : str
            What people call it; the name unless given.
        status : str
            "accepted" (unless given) or "refused", with `reason`.
        rows, holdout_rows : int
            All rows of the site, and how many of them are holdout.
        disclosure : str
            "open" (unless given) or "institution".
        shared_as : str
            "named" (unless given), "pseudonym" or "aggregate-only".
        resplit : bool
            Whether the repeats of a series drew a new holdout here; decides how their spread reads.
        """
        given = {
            "title": title, "status": status, "reason": reason, "rows": rows, "holdout_rows": holdout_rows,
            "disclosure": disclosure, "shared_as": shared_as, "resplit": resplit,
        }  # fmt: skip
        change = {key: value for key, value in given.items() if value is not None}
        first = {"title": name, "status": "accepted", "reason": ""}
        first |= {"disclosure": "open", "shared_as": "named"}
        with in_words(self._url, "written"), self._engine.begin() as connection:
            mine = (RunSite.run_id == self.run) & (RunSite.site == name)
            if connection.execute(select(RunSite.site).where(mine)).first() is None:
                row = {"run_id": self.run, "site": name, "rows": None, "holdout_rows": None, "resplit": False}
                connection.execute(insert(RunSite), [row | first | change])
            elif change:
                connection.execute(update(RunSite).where(mine).values(change))

    def round(
        self,
        number: int,
        *,
        metrics: Iterable[MetricRow] = (),
        scores: Iterable[MetricRow] = (),
        seconds: float | None = None,
        sent: Iterable[SentRow] = (),
        events: Iterable[EventRow] = (),
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

        Raises
        ------
        ValueError
            If this round, or a later one, is committed already.
        """
        clock = [] if seconds is None else [MetricRow(None, "clock", "seconds", seconds)]
        with in_words(self._url, "written"), self._engine.begin() as connection:
            done = connection.execute(select(Run.rounds).where(Run.id == self.run)).scalar_one()
            if number <= done:
                raise ValueError(f"round {number} of run {self.run} is committed already (last: {done})")
            self._insert(connection, Metric, number, [*metrics, *clock])
            self._insert(connection, Metric, number - 1, scores)
            self._insert(connection, Sent, number, sent)
            self._insert_events(connection, events)
            connection.execute(update(Run).where(Run.id == self.run).values(rounds=number))

    def metrics(self, number: int, rows: Iterable[MetricRow]) -> None:
        """Add figures to round `number` without counting a round: before the first, after the last."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            self._insert(connection, Metric, number, rows)

    def sent(self, number: int, rows: Iterable[SentRow]) -> None:
        """Add bytes that crossed at round `number` without counting a round: before the first, after the last."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            self._insert(connection, Sent, number, rows)

    def events(self, rows: Iterable[EventRow]) -> None:
        """Add events, stamped with the time of this call."""
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
        nothing: dict[str, Any] = {"run_id": self.run, "against": None, "p": None, "n": None, "verdict": ""}
        rows = [nothing | vars(figure) for figure in figures]
        for difference in differences:
            fields = dict(vars(difference))
            rows.append(nothing | {"arm": fields.pop("a"), "against": fields.pop("b")} | fields)
        with in_words(self._url, "written"), self._engine.begin() as connection:
            connection.execute(delete(Comparison).where(Comparison.run_id == self.run))
            _insert_all(connection, Comparison, rows)

    def learning_curve(self, points: Iterable[LearningPoint]) -> None:
        """Write, or write anew, the learning curve of the series that this run belongs to."""
        with in_words(self._url, "written"), self._engine.begin() as connection:
            series = connection.execute(select(Run.series_id).where(Run.id == self.run)).scalar_one()
            connection.execute(delete(Curve).where(Curve.series_id == series))
            _insert_all(connection, Curve, [{"series_id": series} | vars(point) for point in points])

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

    def _insert(
        self,
        connection: Connection,
        table: type[Base],
        number: int,
        rows: Iterable[MetricRow | SentRow],
    ) -> None:
        _insert_all(connection, table, [{"run_id": self.run, "round": number} | vars(row) for row in rows])

    def _insert_events(self, connection: Connection, rows: Iterable[EventRow]) -> None:
        same = {"run_id": self.run, "at": stamp(self._clock())}
        _insert_all(connection, Event, [same | vars(row) for row in rows])


def _insert_all(connection: Connection, table: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert many rows in one statement; numbers that are not finite become NULL."""
    if rows and isinstance(table.__table__, Table):
        connection.execute(insert(table.__table__), [plain(row) for row in rows])


def finite(value: float | None) -> float | None:
    """Return a number as a float, or None where it is None, infinite or not a number.

    Examples
    --------
    >>> finite(3), finite(float("nan")), finite(None)
    (3.0, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(value)


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: text keys, lists, Python numbers, None for NaN.

    Examples
    --------
    >>> plain({1: (0.5, float("inf"))})
    {'1': [0.5, None]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return plain(value.tolist())
    return str(value)
