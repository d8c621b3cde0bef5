"""Rounds that are written together: nothing is lost, doubled or out of order that would be there one by one."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, text

from flfed.errors import FlfedError
from flfed.records.store.entries import EventRow, MetricRow, SentRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import VALUES, Event, Metric, Run, Sent, Series
from flfed.records.store.writer import RunStore, RunWriter

RUN: dict[str, Any] = {
    "engine": "inprocess", "path": "stacked", "seed": 42, "rounds_planned": 9, "primary": "log_loss", "task": "binary",
}  # fmt: skip
TOGETHER = (VALUES - 1) // 6
"""Rows of a statement here: six columns have a value, and the run is given once."""
CALLS: dict[str, Callable[[RunWriter], None]] = {
    "site": lambda run: run.sites([SiteRow("a")]),
    "metrics": lambda run: run.metrics(9, [MetricRow("a", "validation", "log_loss", 0.1)]),
    "sent": lambda run: run.sent(9, [SentRow("a", "to-site", "compare", 8)]),
    "events": lambda run: run.events([EventRow(9, "a", "note", "late")]),
    "summary": lambda run: run.summary("table-1", {}),
    "summary-soon": lambda run: run.summary("table-1", {}, durable=False),
    "comparison": lambda run: run.comparison([], []), "finish": lambda run: run.finish(status="stopped"),
    "flush": lambda run: run.flush(), "durable-round": lambda run: run.round(9),
}  # fmt: skip
WAITS = {"events", "summary", "comparison", "finish", "durable-round"}
"""Calls after which a power cut costs nothing that was written before."""


class Hand:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 15, 30, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def store(url: str, hand: Hand) -> Iterator[RunStore]:
    with RunStore.open(url, clock=hand) as opened:
        yield opened


@pytest.fixture
def begun(store: RunStore) -> Callable[[], RunWriter]:
    """A function that begins a run and writes its first round, as every run does."""

    def go() -> RunWriter:
        series = store.begin_series(study="s", study_sha256="", study_text="", repeats=1)
        run = store.begin_run(series, **RUN)
        run.round(1)
        return run

    return go


def tell(run: RunWriter, number: int, *, durable: bool = False, rows: int = 2) -> None:
    run.round(
        number,
        metrics=[MetricRow(f"s{row}", "fit", "loss", number + row / 8) for row in range(rows)],
        scores=[MetricRow("s0", "validation", "log_loss", 1 / number, n=7)],
        seconds=0.5, sent=[SentRow("s0", "to-site", "train", 100 + number)],
        events=[EventRow(number, "s0", "flag", f"odd in {number}")], durable=durable,
    )  # fmt: skip


def rounds_of(url: str, run: RunWriter) -> int:
    with RunReader.open(url) as reader:
        return reader.runs_of(run.run)[0].rounds


def lines(store: RunStore, run: RunWriter) -> list[list[tuple[Any, ...]]]:
    """Return what the store has of a run's rounds, in the order of writing."""
    with store._engine.connect() as connection:
        found = []
        for table in (Metric, Sent, Event):
            kept = [column for column in table.__table__.c if column.name not in ("id", "run_id")]
            rows = connection.execute(select(*kept).where(table.run_id == run.run).order_by(table.id))
            found.append([tuple(row) for row in rows])
        return found


@pytest.mark.parametrize("rows", [1, TOGETHER - 2, TOGETHER - 1, TOGETHER, 2 * TOGETHER - 2, 3 * TOGETHER + 17])
def test_each_of_many_rows_is_written_once_and_in_its_order(begun, store, rows: int):
    run = begun()
    tell(run, 2, rows=rows, durable=True)
    figures, sent, events = lines(store, run)
    mine = [(2, f"s{row}", "fit", "loss", 2 + row / 8, None, None, None, None) for row in range(rows)]
    seconds = (2, None, "clock", "seconds", 0.5, None, None, None, None)
    assert figures == [*mine, seconds, (1, "s0", "validation", "log_loss", 0.5, None, None, None, 7)]
    assert sent == [(2, "s0", "to-site", "train", 102)]
    assert [row[1:-1] for row in events] == [(2, "s0", "flag", "odd in 2")]


def test_fast_rounds_wait_until_one_comes_a_quarter_of_a_second_after_the_last_writing(begun, url, hand):
    run = begun()
    seen = []
    for number in range(2, 9):
        hand.forward(0.1)
        tell(run, number)
        seen.append(rounds_of(url, run))
    # The first round is at 0; at 0.3 three more are there, and again at 0.6.
    assert seen == [1, 1, 4, 4, 4, 7, 7]
    hand.forward(0.3)
    tell(run, 9)
    assert rounds_of(url, run) == 9


def test_slow_rounds_and_those_of_a_clock_set_back_are_written_as_they_come(begun, url, hand):
    run = begun()
    for number, pause in enumerate([0.25, 60.0, -3600.0, -0.01], start=2):
        hand.forward(pause)
        tell(run, number)
        assert rounds_of(url, run) == number


@pytest.mark.parametrize("name", CALLS)
def test_whatever_else_is_written_takes_the_rounds_before_it_along(begun, store, url, name: str):
    run = begun()
    tell(run, 2)
    tell(run, 3)
    assert rounds_of(url, run) == 1
    begins: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda c, cursor, said, *_: begins.append(said))
    CALLS[name](run)
    assert rounds_of(url, run) == (9 if name == "durable-round" else 3)
    levels = [said for said in begins if said.startswith("PRAGMA synchronous")]
    assert levels[-1] == ("PRAGMA synchronous=FULL" if name in WAITS else "PRAGMA synchronous=NORMAL")
    before, sent, events = lines(store, run)
    assert [row[0] for row in before][:8] == [2, 2, 2, 1, 3, 3, 3, 2]  # a round, then scores of the model before it
    assert [row[-1] for row in sent][:2] == [102, 103] and [row[1] for row in events][:2] == [2, 3]


def test_rounds_written_together_leave_the_lines_that_they_leave_one_by_one(begun, store, hand):
    together, alone = begun(), begun()
    for number in range(2, 9):
        hand.forward(0.06)
        tell(together, number)
        tell(alone, number)
        alone.flush()
    together.flush()
    assert lines(store, together) == lines(store, alone)
    at = [row[0] for row in lines(store, together)[2]]  # the time each came, not of the writing
    assert (at[0], at[-1]) == ("2026-11-20T15:30:12.060Z", "2026-11-20T15:30:12.420Z")


def test_a_round_that_waits_is_the_one_that_was_told(begun, store, url):
    run = begun()
    rows, faults = [MetricRow("a", "fit", "loss", 0.5)], [EventRow(2, "a", "fault", "late")]
    run.round(2, metrics=rows, events=faults, durable=False)
    rows[0] = MetricRow("a", "fit", "loss", 9.0)
    faults.clear()
    run.flush()
    with RunReader.open(url) as reader:
        assert [row.value for row in reader.metrics(run.run, 2)] == [0.5]
    assert [row[-2] for row in lines(store, run)[2]] == ["late"]


def test_no_round_that_waits_is_counted_twice(begun, store, url):
    run = begun()
    tell(run, 2)
    tell(run, 3)
    with pytest.raises(ValueError, match="round 3 .* committed already"):
        tell(run, 3)
    with pytest.raises(ValueError, match="round 1 .* committed already"):
        tell(run, 1)
    other = RunWriter(store._engine, store._url, run.run)
    tell(run, 4)
    tell(other, 4, durable=True)
    tell(run, 5)
    wanted = lines(store, run)
    with pytest.raises(ValueError, match="round 4 .* committed already"):  # nor is 5 written, which was built on it
        run.flush()
    assert lines(store, run) == wanted
    run.finish(status="failed")
    assert rounds_of(url, run) == 4


def test_a_round_that_the_database_refuses_costs_none_before_it_and_the_end_is_written(begun, store, url):
    run = begun()
    tell(run, 2)
    tell(run, 3)
    broken = SentRow("a", "to-site", "train", None)  # type: ignore[arg-type]  # the table refuses it
    run.round(4, sent=[broken], durable=False)
    tell(run, 5)
    with pytest.raises(FlfedError, match="could not be written"):
        run.events([EventRow(5, None, "note", "after it")])
    assert rounds_of(url, run) == 3
    run.finish(status="failed", reason="the store")
    with RunReader.open(url) as reader:
        entry = reader.runs_of(run.run)[0]
        assert (entry.rounds, entry.status, reader.metrics(run.run, 5)) == (3, "failed", [])
    assert [row[-2] for row in lines(store, run)[2]] == ["odd in 2", "odd in 3"]


def test_a_full_disk_is_told_and_what_fits_is_kept(begun, store, url):
    run = begun()
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 20}")
    tell(run, 2)
    for number in range(3, 6):
        tell(run, number, rows=600)
    with pytest.raises(FlfedError, match="free some disk space"):
        tell(run, 6, durable=True)
    kept = rounds_of(url, run)
    assert 2 <= kept < 5
    with store._engine.connect() as connection:
        assert connection.execute(select(Metric.round).where(Metric.arm == "fit")).scalars().all()[-1] == kept
        connection.exec_driver_sql("PRAGMA max_page_count=100000")
    run.finish(status="failed", reason="full")
    assert rounds_of(url, run) == kept


def test_repeats_wait_each_for_itself(store, url):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    runs = [store.begin_run(series, repeat=repeat, **RUN) for repeat in (0, 1)]
    for run in runs:
        run.round(1)
        tell(run, 2)
    runs[1].finish(status="completed")
    assert [rounds_of(url, run) for run in runs] == [1, 2]
    with store._engine.connect() as connection:
        assert connection.execute(select(Run.rounds, Series.id).join(Series).order_by(Run.id)).all() == [
            (1, series), (2, series),
        ]  # fmt: skip
        assert connection.execute(text("SELECT count(*) FROM sent")).scalar() == 1
