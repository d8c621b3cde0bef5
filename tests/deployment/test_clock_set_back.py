"""A clock that is set back frees nothing: lines keep their order in time, or none is written until a person helps."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flfed.callbacks import stamp
from flfed.deployment.gate.gate import Gate
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_app.ledger_reader import read_ledger
from flfed.deployment.site_state.ledger_restart import restart
from flfed.deployment.site_state.runs import allow_runs
from flfed.records.ledger import Ledger, LedgerError, ledger_of
from flfed.records.ledger_line import SLACK, START, new_line
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def gate_at(site: Any, clock: Clock) -> None:
    """Open the site's gate with another clock."""
    ledger = ledger_of(site.folder, clock=clock)
    site.gate = Gate(
        site.folder, site.site, today=lambda: clock.now.date(), ledger=ledger
    )  # fmt: skip


def asked(site: Any, run: str = "2026-a") -> str:
    reply = site.answer(site.message(SUMMARISE, SummariseRequest()), run=run)
    return str(reply.error.reason) if reply.has_error() else ""


@pytest.mark.parametrize(("back", "written"), [
    (timedelta(0), NOON), (timedelta(milliseconds=1), NOON), (SLACK, NOON),
    (-timedelta(seconds=1), NOON + timedelta(seconds=1)), (SLACK + timedelta(milliseconds=1), None),
    (timedelta(days=1), None),
])  # fmt: skip
def test_up_to_five_minutes_back_a_line_takes_the_time_before_and_then_none_is_written(tmp_path, back, written):
    clock = Clock()
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=clock)
    ledger.append(kind="enrol")
    before, clock.now = ledger.path.read_bytes(), NOON - back
    if written is None:
        with pytest.raises(
            LedgerError, match=r"line 1 is of 2026-11-20T12:00:00.000Z, later than this machine's clock"
        ):
            ledger.append(kind="train")
        assert ledger.path.read_bytes() == before
    else:
        assert datetime.fromisoformat(ledger.append(kind="train").at) == written
        assert ledger.problems() == []


def test_a_clock_that_creeps_back_gains_no_more_than_five_minutes(tmp_path):
    clock = Clock()
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=clock)
    with pytest.raises(LedgerError, match="later than this machine's clock"):
        for _ in range(10):
            ledger.append(kind="train")
            clock.now -= timedelta(minutes=1)
    assert [line.at for line in ledger.lines()] == ["2026-11-20T12:00:00.000Z"] * 6


def test_a_day_back_neither_the_days_bytes_nor_a_last_day_come_back(gated):
    site, clock = gated(), Clock(datetime(2026, 11, 21, 0, 30, tzinfo=UTC))
    gate_at(site, clock)
    assert asked(site) == ""
    lines = site.folder.ledger.read_bytes()
    clock.now -= timedelta(days=1)
    said = asked(site)
    assert said == (
        "line 1 of its ledger is of 2026-11-21T00:30:00.000Z, later than its clock, so nothing leaves the site; "
        "at the site: set the clock right, or flfed site ledger site-01 --restart --why TEXT"
    )
    gate_at(site, clock)  # a gate that is started anew is no way out
    assert asked(site) == said and site.folder.ledger.read_bytes() == lines
    clock.now += timedelta(days=1)
    assert asked(site) == "" and len(site.lines()) == 2


def test_a_clock_that_was_years_ahead_is_forgotten_by_a_restart_alone(gated, flfed):
    site, clock = gated(), Clock()
    gate_at(site, clock)
    now = datetime.now(UTC)
    clock.now = now + timedelta(days=3650)
    assert asked(site, "2026-a") == ""
    clock.now = now
    assert "later than its clock" in asked(site)
    (last,) = site.lines()
    said = f"line 1 of its ledger is of {last.at}, later than its clock"
    assert [one for one in status_of(site.folder, site.site)["problems"] if one.startswith(said)]
    assert read_ledger(site.folder).blocked.startswith(said)
    code, _, error = flfed("site", "ledger", "site-01", "--verify")
    assert code == 1 and said in error
    restart(site.folder, by="op", why="the clock said 2036", epsilon=None)
    assert asked(site, "2026-c").startswith("the study was withdrawn here")
    site.approve()
    allow_runs(site.folder, site.site.policy, "small", 1, by="op")
    assert asked(site, "2026-c") == ""


def test_a_line_of_an_earlier_time_is_a_break(tmp_path):
    before, texts = START, []
    for n, at in enumerate((NOON, NOON - timedelta(days=1), NOON), start=1):
        line = new_line(n, before, stamp(at), "train", {})
        before = line.hash
        texts.append(line.raw + b"\n")
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(texts))
    (tmp_path / "ledger.jsonl").chmod(0o600)
    (problem,) = Ledger(tmp_path / "ledger.jsonl").problems()
    assert "the line after line 1 is not as it was written" in problem
