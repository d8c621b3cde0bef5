"""State of a site: tables and ledger change together, also over a crash."""

import os
import signal
from pathlib import Path

import pytest

from flfed.records.ledger import Ledger, LedgerError
from flfed.records.site_state import SiteState


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def state_of(ledger: Ledger) -> SiteState:
    return SiteState(ledger.path.with_name("state.db"), ledger)


def test_tables_and_lines_are_written_together(ledger: Ledger):
    state = state_of(ledger)
    with state.transaction() as step:
        step.tables.execute("CREATE TABLE numbers (number INTEGER)")
    with pytest.raises(ZeroDivisionError), state.transaction() as step:
        step.tables.execute("INSERT INTO numbers VALUES (1)")
        step.append(kind="train", round=1)
        raise ZeroDivisionError
    with state.transaction() as step:
        step.tables.execute("INSERT INTO numbers VALUES (2)")
        first, second = step.append(kind="train", round=1), step.append(kind="train", round=2)
    assert first is not None and second is not None and second.before == first.hash
    assert [line.hash for line in ledger.lines()] == [first.hash, second.hash] and ledger.problems() == []
    with state_of(ledger).transaction() as step:
        assert step.tables.execute("SELECT number FROM numbers").fetchall() == [(2,)]
    assert (ledger.path.parent / "state.db").stat().st_mode & 0o777 == 0o600


def test_lines_that_a_crash_kept_from_the_ledger_come_next(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    with state_of(ledger).transaction() as step:
        step.append(kind="train", round=1)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("flfed.records.ledger.LockedLedger.write", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with state_of(ledger).transaction() as step:
            step.append(kind="train", round=2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [line.facts["round"] for line in ledger.lines()] == [1]
    with state_of(ledger).transaction() as step:
        step.append(kind="train", round=3)
    assert [line.facts["round"] for line in ledger.lines()] == [1, 2, 3] and ledger.problems() == []


def test_a_ledger_that_lost_more_than_the_last_lines_takes_none(ledger: Ledger):
    for round in (1, 2):
        with state_of(ledger).transaction() as step:
            step.append(kind="train", round=round)
    ledger.path.write_bytes(b"")
    with pytest.raises(LedgerError, match="lines are missing"), state_of(ledger).transaction() as step:
        step.append(kind="train", round=3)


def test_a_state_in_memory_has_no_ledger():
    state = SiteState()
    with state.transaction() as step:
        assert step.append(kind="train", round=1) is None
