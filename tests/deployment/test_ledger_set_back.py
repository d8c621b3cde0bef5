"""A ledger from a backup: its copy on another disk, the receipt of a lost line, and what a restart charges."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.operator.lost_runs import restart_ledger
from flfed.deployment.processes.serve import _begin_copy
from flfed.deployment.site_state.ledger_copy import LedgerCopy, take_copy
from flfed.deployment.site_state.ledger_loss import Continuity, RefusedReceipt, restart
from flfed.errors import UsageError
from flfed.federation.client.account import spent_at
from flfed.records.ledger import Ledger, LedgerError, Receipt, ledger_of
from flfed.refusals import NO_LEDGER, Refusal
from flfed.rows.data.policy import Policy
from flfed.signatures import signing_public
from tests.deployment.test_receipts import KEY, OTHER, keep, trust

NOW = datetime(2027, 1, 1, tzinfo=UTC)
LOST = Refusal("ledger-lost", site="site-01")
PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 0.5\nsampling = 0.2\n'


def answered(site: Any, run: str = "2026-a") -> str:
    reply = site.answer(site.trained(), run=run)
    return str(reply.error.reason) if reply.has_error() else ""


def spent(site: Any) -> float:
    return spent_at(site.folder).epsilon(1e-5)


def set_back(site: Any, run: str = "2026-b") -> bytes:
    """Answer one more run, and bring ledger and receipts back as they were before; return the lost ledger."""
    files = [path for path in (site.folder.ledger, site.folder.receipts) if path.exists()]
    before = {path: path.read_bytes() for path in files}
    assert answered(site, run) == ""
    lost = bytes(site.folder.ledger.read_bytes())
    for path in (site.folder.ledger, site.folder.receipts):
        path.unlink(missing_ok=True)
    for path, content in before.items():
        path.write_bytes(content)
        path.chmod(0o600)
    site.open()
    return lost


@pytest.fixture
def private(gated: Any, small_study: str) -> Any:
    """An institution that has answered one of a study's runs."""
    site = gated(small_study.replace("epochs = 1", "steps = 4") + PRIVATE, policy=Policy(epsilon=1.5, runs=4))
    trust(site.folder, KEY)
    assert answered(site) == ""
    return site


@pytest.fixture
def copied(private: Any, tmp_path: Path) -> Any:
    """The same institution, whose ledger has a copy."""
    (tmp_path / "disk").mkdir()
    copy = LedgerCopy(private.folder, tmp_path / "disk")
    copy.begin()
    private.gate._ledger._copy = copy.update
    private.copy = copy
    return private


def head(site: Any) -> Receipt:
    n, head = ledger_of(site.folder).head()
    return Receipt(site="site-01", run="2026-b", n=n, head=head)


@pytest.mark.studies
def test_a_line_is_in_the_copy_before_its_reply_leaves(copied: Any):
    there = copied.copy.path(copied.folder.ledger)
    assert answered(copied, "2026-b") == "" and there.read_bytes() == copied.folder.ledger.read_bytes()
    assert there.stat().st_mode & 0o777 == 0o600
    # Lines of other processes come with the next one, and receipts with a line.
    ledger_of(copied.folder).append(kind="enrol", bytes=1)
    keep(copied.folder, head(copied))
    assert answered(copied, "2026-b") == "" and there.read_bytes() == copied.folder.ledger.read_bytes()
    assert copied.copy.path(copied.folder.receipts).read_bytes() == copied.folder.receipts.read_bytes()
    # A disk that is gone ends all replies, and no new copy is begun in its place.
    shutil.rmtree(copied.copy.folder)
    copied.copy.folder.mkdir()
    assert answered(copied, "2026-b") == NO_LEDGER and list(copied.copy.folder.iterdir()) == []


@pytest.mark.studies
def test_a_ledger_that_was_set_back_answers_nothing_until_its_copy_is_taken(copied: Any):
    before = copied.folder.ledger.read_bytes()
    lost = set_back(copied)
    copied.gate._ledger._copy = copied.copy.update
    assert answered(copied, "2026-c") == NO_LEDGER and copied.folder.ledger.read_bytes() == before
    with pytest.raises(LedgerError, match=r"more lines than the ledger.*--from-copy"):
        copied.copy.begin()
    (copied.folder.states / "2026-under-way").mkdir(parents=True)
    taken = take_copy(copied.folder, copied.copy.folder, by="op")
    runs = ("2026-a", "2026-b", "2026-under-way")
    assert (taken.lines, taken.runs) == (lost.count(b"\n") - before.count(b"\n"), runs)
    assert copied.folder.ledger.read_bytes().startswith(lost) and not copied.folder.states.exists()
    copied.open()
    copied.gate._ledger._copy = copied.copy.update
    # Runs of then get no further answer: their masks would be used twice. Others do.
    assert [answered(copied, run) for run in runs] == [Refusal("run-ended")] * 3
    assert answered(copied, "2026-c") == ""
    with pytest.raises(UsageError, match="has no more lines than the ledger of site-01"):
        take_copy(copied.folder, copied.copy.folder, by="op")


def test_a_copy_that_is_not_of_this_ledger_is_not_taken(copied: Any):
    """Another site's, a changed one, one that went another way, none, and one that nobody signed."""
    lost = set_back(copied)
    there, before = copied.copy.path(copied.folder.ledger), copied.folder.ledger.read_bytes()
    other = lost.replace(b'"kind":"spent"', b'"kind":"enrol"', 1)
    for content, why in (
        (other, "does not go on"), (lost.replace(b'"run":"2026-b"', b'"run":"2026-x"'), "is not as it was written"),
        (before[:40], "does not go on"),
    ):  # fmt: skip
        there.write_bytes(content)
        with pytest.raises(UsageError, match=why):
            take_copy(copied.folder, copied.copy.folder, by="op")
    there.write_bytes(lost)
    copied.folder.ledger.unlink()
    with pytest.raises(UsageError, match="no receipt of the coordinator"):
        take_copy(copied.folder, copied.copy.folder, by="op")
    # A forged receipt does not show it either.
    receipts = copied.folder.receipts
    keep_forged(copied)
    shutil.move(receipts, copied.copy.path(receipts))
    with pytest.raises(UsageError, match="has no signature"):
        take_copy(copied.folder, copied.copy.folder, by="op")
    assert not list(copied.folder.gate.glob("*-coming*"))
    there.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        take_copy(copied.folder, copied.copy.folder, by="op")


def keep_forged(site: Any) -> None:
    """Write a receipt whose signature nobody made."""
    facts = {"run": "r", "line": 1, "head": "ab" * 32, "signature": "00" * 64, "signing_key": signing_public(KEY)}
    Ledger(site.folder.receipts, ordered=False).append(kind="receipt", site="site-01", **facts)


@pytest.mark.studies
def test_a_receipt_of_a_line_that_is_missing_ends_all_replies_until_a_restart(private: Any):
    site = private
    set_back(site)
    signed = Receipt(site="site-01", run="2026-b", n=7, head="ab" * 32)
    # A forged one, and another site's, change nothing.
    for receipt, key in ((signed, OTHER), (replace(signed, site="site-02"), KEY)):
        with pytest.raises(RefusedReceipt, match="no signature of the coordinator"):
            keep(site.folder, receipt, key)
    with pytest.raises(UsageError, match="there is nothing to restart"):
        restart(site.folder, by="op", why="a disk")
    assert answered(site, "2026-a") == ""
    with pytest.raises(RefusedReceipt, match="has line 7, and the ledger has no such line"):
        keep(site.folder, signed)
    # The running process sees it at once, and a new one too.
    before = site.folder.ledger.read_bytes()
    assert answered(site, "2026-a") == LOST
    site.open()
    assert answered(site, "2026-a") == LOST and site.folder.ledger.read_bytes() == before
    found = restart_ledger(site.folder, lambda: site.site, by="op", why="a disk")
    assert found.line.facts["signed-line"] == 7 and found.ended == ("2026-a", "2026-b")
    # The same receipt once more is no other loss.
    keep(site.folder, signed)
    assert not site.folder.receipts.exists() and Continuity(site.folder, ledger_of(site.folder)).refusal() is None
    with pytest.raises(RefusedReceipt):
        keep(site.folder, replace(signed, n=8))
    assert Continuity(site.folder, ledger_of(site.folder)).refusal() == LOST


def test_a_restart_counts_the_rows_of_approved_studies_as_released(gated: Any, small_study: str):
    site = gated(policy=Policy(runs=4))
    trust(site.folder, KEY)
    ledger_of(site.folder).append(kind="enrol", bytes=1)
    with pytest.raises(RefusedReceipt):
        keep(site.folder, Receipt(site="site-01", run="2026-c", n=11, head="ab" * 32))
    restart_ledger(site.folder, lambda: site.site, by="op", why="a disk")
    released = [line for line in site.lines() if line.kind == "released"]
    assert {line.facts["chosen"]["part"] for line in released} == {"training", "holdout"}
    assert all(line.text("run").startswith("lost-") for line in released)
    assert sum(line.facts.get("once") is True for line in released) == 1
    # A table with one person less is too close to them, whatever is approved.
    site.site.source.table.drop(index=site.site.source.table.index[3], inplace=True)
    shutil.rmtree(site.folder.frozen)
    site.freeze()
    site.approve()
    site.open()
    assert answered(site) == Refusal("too-close", least=site.site.policy.cell_minimum)


@pytest.mark.studies
def test_sets_of_rows_come_back_with_the_ledger(gated: Any, small_study: str, tmp_path: Path):
    """The first release since the backup wrote the key and the sets: without them nothing could leave."""
    site = gated(small_study, policy=Policy(runs=4))
    trust(site.folder, KEY)
    ledger_of(site.folder).append(kind="enrol", bytes=1)
    keep(site.folder, replace(head(site), run="r"))
    before = site.folder.ledger.read_bytes()
    copy = LedgerCopy(site.folder, tmp_path)
    copy.begin()
    site.gate._ledger._copy = copy.update
    assert answered(site) == ""
    assert (tmp_path / "site-01-rows.key").read_bytes() == (site.folder.gate / "rows.key").read_bytes()
    shutil.rmtree(site.folder.gate / "released")
    (site.folder.gate / "rows.key").unlink()
    site.folder.ledger.write_bytes(before)
    take_copy(site.folder, tmp_path, by="op")
    site.open()
    assert answered(site, "2026-b") == ""


def test_a_line_of_the_copy_that_a_crash_tore_is_set_aside(copied: Any):
    lost = set_back(copied)
    there = copied.copy.path(copied.folder.ledger)
    there.write_bytes(lost + b'{"at":"2026-')
    take_copy(copied.folder, copied.copy.folder, by="op")
    assert copied.folder.ledger.read_bytes().startswith(lost) and ledger_of(copied.folder).problems() == []
    copied.copy.update()


def test_a_copy_is_begun_once_and_then_must_be_there(copied: Any, tmp_path: Path):
    elsewhere = LedgerCopy(copied.folder, tmp_path / "not-mounted")
    elsewhere.folder.mkdir()
    with pytest.raises(LedgerError, match="cannot be used"):
        elsewhere.begin()
    assert list(elsewhere.folder.iterdir()) == []
    told: list[str] = []
    with pytest.raises(UsageError, match=f"--ledger-copy {copied.copy.folder}"):
        _begin_copy(copied.folder, None, told.append)
    _begin_copy(copied.folder, copied.copy.folder, told.append)
    assert "each line is there" in told[0]
    # A restart begins another ledger: the copy of the old one is moved away, and a new one begins.
    copied.folder.ledger.write_bytes(b"")
    restart(copied.folder, by="op", why="a disk")
    with pytest.raises(LedgerError, match="copy of another ledger"):
        _begin_copy(copied.folder, copied.copy.folder, told.append)
    for path in list(copied.copy.folder.iterdir()):
        path.rename(tmp_path / path.name)
    _begin_copy(copied.folder, copied.copy.folder, told.append)
    assert copied.copy.path(copied.folder.ledger).read_bytes() == copied.folder.ledger.read_bytes()


def test_a_refused_command_leaves_no_empty_ledger_that_counts(private: Any, tmp_path: Path):
    (private.folder.gate / "released").rename(tmp_path / "released")
    private.folder.ledger.unlink()
    private.folder.receipts.unlink(missing_ok=True)
    with pytest.raises(UsageError, match="cannot be read"):
        take_copy(private.folder, tmp_path / "nowhere", by="op")
    private.open()
    assert answered(private, "2026-b") == LOST


@pytest.mark.parametrize("lost", [False, True])
def test_a_receipt_of_a_ledger_that_was_set_aside_is_no_other_loss(private: Any, lost: bool):
    """Its line was carried over, or another restart recorded the loss."""
    signed = head(private)
    if lost:
        keep(private.folder, signed)
        private.folder.ledger.write_bytes(b"")
        restart(private.folder, by="op", why="a disk", now=NOW)
    for year in (1, 2):
        late = NOW + timedelta(days=365 * year)
        ledger_of(private.folder, clock=lambda late=late: late + timedelta(days=30)).append(kind="enrol", bytes=1)
        restart(private.folder, by="op", why="the clock", now=late)
    keep(private.folder, signed)
    assert not private.folder.receipts.exists()
    with pytest.raises(RefusedReceipt):
        keep(private.folder, replace(signed, n=9))


def test_the_last_receipt_counts_and_not_only_the_highest(private: Any):
    keep(private.folder, head(private))
    with pytest.raises(RefusedReceipt):
        keep(private.folder, Receipt(site="site-01", run="2026-c", n=1, head="ab" * 32))
    assert answered(private) == LOST
