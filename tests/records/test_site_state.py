"""State of a site: tables and ledger change together, also over a crash."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flfed.records.ledger import Ledger, LedgerLost
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


def site_ledger(folder: Path) -> Ledger:
    """Return a ledger whose lines are also written without a transaction, as a site's."""
    return Ledger(folder / "ledger.jsonl", state=SiteState(folder / "state.db"))


def test_lines_without_a_transaction_are_in_the_state_too_and_may_be_mixed(tmp_path: Path):
    for number in range(3):
        site_ledger(tmp_path).append(kind="train", round=number)
        with SiteState(tmp_path / "state.db", site_ledger(tmp_path)).transaction() as step:
            step.append(kind="spent", round=number)
            step.append(kind="spent", round=number)
    assert [line.n for line in site_ledger(tmp_path).lines()] == list(range(1, 10))
    with site_ledger(tmp_path).lock() as locked:
        assert locked.head()[0] == 9


@pytest.mark.parametrize("at", ["flfed.records.ledger.LockedLedger.write", "flfed.records.site_state._set_end"])
def test_a_write_that_is_killed_costs_nothing(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch):
    site_ledger(tmp_path).append(kind="train", round=1)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        site_ledger(tmp_path).append(kind="train", round=2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    site_ledger(tmp_path).append(kind="train", round=3)
    # What is in the state counts, whether or not its reply left.
    rounds = [1, 2, 3] if at.endswith("write") else [1, 3]
    assert [line.facts["round"] for line in site_ledger(tmp_path).lines()] == rounds
    assert site_ledger(tmp_path).problems() == []


def test_wherever_a_write_was_torn_its_line_is_completed_from_the_state(tmp_path: Path):
    for round in (1, 2):
        site_ledger(tmp_path).append(kind="train", round=round)
    path = tmp_path / "ledger.jsonl"
    whole = path.read_bytes()
    for size in range(whole.index(b"\n") + 1, len(whole) + 1):
        path.write_bytes(whole[:size] + b"\0" * (size % 3))
        with site_ledger(tmp_path).lock() as locked:
            assert locked.head()[0] == 2
        assert path.read_bytes() == whole


def set_back(folder: Path) -> None:
    """Bring the ledger alone back as it was before its last two lines."""
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))


def exchange(folder: Path) -> None:
    """Replace the last line by another one that follows the one before."""
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    Ledger(path).append(kind="train", round=9)


def change(folder: Path) -> None:
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"round":3', b'"round":4'))


LOSSES: dict[str, Callable[[Path], object]] = {
    "ledger": lambda folder: (folder / "ledger.jsonl").unlink(),
    "emptied": lambda folder: (folder / "ledger.jsonl").write_bytes(b""),
    "state": lambda folder: (folder / "state.db").unlink(),
    "damaged": lambda folder: (folder / "state.db").write_bytes(b"x" * 5000),
    "longer": lambda folder: Ledger(folder / "ledger.jsonl").append(kind="train"),
    "cut": set_back, "another": exchange, "changed": change,
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
def test_a_ledger_and_a_state_that_are_not_each_others_take_no_line(tmp_path: Path, loss: Callable[[Path], object]):
    for round in (1, 2, 3):
        site_ledger(tmp_path).append(kind="train", round=round)
    SiteState(tmp_path / "state.db").check(site_ledger(tmp_path))
    loss(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(LedgerLost, match="nothing may leave"):
        SiteState(tmp_path / "state.db").check(site_ledger(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    for _ in range(2):
        with pytest.raises(LedgerLost, match="nothing may leave"):
            site_ledger(tmp_path).append(kind="train", round=4)
        with pytest.raises(LedgerLost), SiteState(tmp_path / "state.db", site_ledger(tmp_path)).transaction() as step:
            step.append(kind="train", round=4)


def test_a_state_in_memory_has_no_ledger():
    state = SiteState()
    with state.transaction() as step:
        assert step.append(kind="train", round=1) is None
