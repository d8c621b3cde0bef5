"""A clock that is set back frees nothing: lines keep their order in time, or none is written until a person helps."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.gate.gate import Gate
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_app.ledger_reader import LedgerReader
from flfed.deployment.site_state.ledger_loss import restart
from flfed.errors import UsageError
from flfed.federation.client.account import spent_at
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, LedgerError, ledger_of
from flfed.records.ledger_line import SLACK, START, new_line, read_line
from flfed.rows.data.policy import Policy
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'


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
        assert (ledger.path.read_bytes(), ledger.is_ahead(ledger.last())) == (before, True)
    else:
        assert datetime.fromisoformat(ledger.append(kind="train").at) == written
        assert ledger.problems() == [] and not ledger.is_ahead(ledger.last())


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
        "at the site: set the clock right, or flfed site ledger site-01 --restart WHY"
    )
    gate_at(site, clock)  # a gate that is started anew is no way out
    assert asked(site) == said and site.folder.ledger.read_bytes() == lines
    clock.now += timedelta(days=1)
    assert asked(site) == "" and len(site.lines()) == 2


def test_a_clock_that_was_years_ahead_is_forgotten_by_a_restart_alone(gated, small_study: str, flfed):
    site, clock = gated(small_study.replace("epochs = 1", "steps = 4") + PRIVATE, policy=Policy(epsilon=9.0)), Clock()
    gate_at(site, clock)
    assert not site.answer(site.trained(), run="2026-a").has_error()
    now = datetime.now(UTC)
    clock.now = now + timedelta(days=3650)
    assert not site.answer(site.trained(), run="2026-b").has_error()
    spent = spent_at(site.folder).epsilon(1e-5)
    clock.now = now
    assert "later than its clock" in asked(site)
    last = site.lines()[-1]
    assert [said for said in status_of(site.folder, site.site, last=1)["problems"] if f"line {last.n} of its" in said]
    assert LedgerReader(site.folder).read(1).ahead.startswith(f"line {last.n} of its ledger is of {last.at}")
    code, out, error = flfed("site", "ledger", "site-01", "--verify")
    assert code == 1 and "Every line is as it was written." in out
    assert f"line {last.n} is of {last.at}, later than this machine's clock; set the clock right, or: flfed" in error
    code, out, _ = flfed("site", "ledger", "site-01", "--restart", "the clock said 2036", "--json")
    assert code == 0 and json.loads(out)["carried"] == len(site.lines()[1:])
    first = site.lines()[0]
    assert first.facts["complete"] is True and not first.follows_loss
    assert (first.facts["ahead-line"], first.facts["ahead-at"], first.facts["why"]) == (
        last.n, last.at, "the clock said 2036",
    )  # fmt: skip
    clock.now = datetime.now(UTC)
    assert asked(site, "2026-c") == ""
    after = spent_at(site.folder).epsilon(1e-5)
    assert after == spent > 2.0
    with pytest.raises(UsageError, match="there is nothing to restart"):
        restart(site.folder, by="op", why="again")


def test_a_torn_line_after_a_late_one_is_repaired_and_then_begun_anew(home: Path):
    folder = SiteFolder("site-01")
    folder.make()
    ledger_of(folder, clock=lambda: NOON + timedelta(days=9)).append(kind="train")
    with folder.ledger.open("ab") as stream:
        stream.write(b'{"at":"20')
    ledger = ledger_of(folder, clock=lambda: NOON)
    line = ledger.repair(by="op", why="power")
    assert line is not None and (line.n, line.at[:10]) == (2, "2026-11-29")
    found = restart(folder, by="op", why="a clock", now=NOON)
    assert (found.line.facts["ahead-line"], found.line.at[:10]) == (2, "2026-11-20")
    assert ledger_of(folder, clock=lambda: NOON).append(kind="train").n == 2


def test_a_line_of_an_earlier_time_or_of_another_format_is_a_break(tmp_path):
    lines = tmp_path / "ledger.jsonl"
    times = iter([NOON, NOON - timedelta(days=1), NOON])
    for kind, ordered in (("a", True), ("b", False), ("c", False)):
        Ledger(lines, clock=lambda: next(times), ordered=ordered).append(kind=kind)
    said = "line 2 is of 2026-11-19T12:00:00.000Z, an earlier time than line 1"
    formats = [f"line {n} is of another format than this version writes" for n in (2, 3)]
    assert Ledger(lines).problems() == [formats[0], said, formats[1]]
    # The same times, in lines that say that their time was held to the one before.
    before, texts = START, []
    for line in (read_line(raw.removesuffix(b"\n")) for raw in Ledger(lines).raws()):
        fresh = new_line(line.n, before, line.at, line.kind, line.facts, format=2)
        before = fresh.hash
        texts.append(fresh.raw + b"\n")
    lines.write_bytes(b"".join(texts))
    assert Ledger(lines).problems() == [said]
