"""A lost ledger at the gate: nothing is answered until a restart, after which nothing of before may be spent again."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.operator.budget import budget_as_json
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.ledger_restart import restart
from flfed.deployment.site_state.runs import allow_runs
from flfed.errors import UsageError
from flfed.federation.client.account import spent_at
from flfed.paths import SiteFolder
from flfed.records.ledger import LedgerLost, ledger_of
from flfed.records.site_state import SiteState
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy

PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 0.5\nsampling = 0.2\n'
LOST = Refusal("ledger-lost", site="site-01")


@pytest.fixture
def private(gated: Any, small_study: str) -> Any:
    """An institution with a budget that has answered one run."""
    site = gated(small_study.replace("epochs = 1", "steps = 4") + PRIVATE, policy=Policy(epsilon=1.5, runs=4))
    assert answered(site) == ""
    return site


def answered(site: Any, run: str = "2026-a") -> str:
    reply = site.answer(site.trained(), run=run)
    return str(reply.error.reason) if reply.has_error() else ""


def spent(site: Any) -> float:
    return spent_at(site.folder).epsilon(site.site.policy.delta)


def cut(folder: SiteFolder) -> None:
    """Take the ledger's last two lines away: the state has the last one still."""
    folder.ledger.write_bytes(b"".join(folder.ledger.read_bytes().splitlines(keepends=True)[:-2]))


LOSSES: dict[str, Callable[[SiteFolder], object]] = {
    "cut": cut, "ledger": lambda folder: folder.ledger.unlink(), "state": lambda folder: folder.state.unlink(),
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
@pytest.mark.parametrize("reopened", [False, True])
def test_a_lost_ledger_answers_nothing_and_no_row_is_read(private: Any, loss: Any, reopened: bool):
    loss(private.folder)
    if reopened:
        private.open()
    reads = len(private.site.source.reads)
    left = private.folder.ledger.read_bytes() if private.folder.ledger.exists() else b""
    assert [answered(private, run) for run in ("2026-a", "2026-b")] == [LOST] * 2
    assert len(private.site.source.reads) == reads and private.folder.ledger.read_bytes() == left
    status = status_of(private.folder, private.site)
    assert LOST in status["problems"] and [one["reason"] for one in status["studies"]] == [LOST]
    with pytest.raises(LedgerLost):
        ledger_of(private.folder).append(kind="train")


@pytest.mark.parametrize("loss", [*LOSSES.values(), lambda folder: None], ids=[*LOSSES, "whole"])
def test_after_a_restart_approvals_are_void_and_the_budget_counts_as_spent(private: Any, loss: Any):
    folder = private.folder
    before = folder.ledger.read_bytes()
    loss(folder)
    left = folder.ledger.read_bytes() if folder.ledger.exists() else b""
    aside = restart(folder, by="Dr Kim", why="a disk broke", epsilon=1.5)
    assert sum(path.suffix == ".jsonl" and path.read_bytes() == left for path in aside) == bool(left)
    (line,) = private.lines()
    assert (line.kind, line.facts["by"], line.facts["why"]) == ("restarted", "Dr Kim", "a disk broke")
    assert line.facts["left-bytes"] == len(left) and (len(left) == len(before) or loss is not LOSSES["state"])
    restarted = SiteState(folder.state).restarted()
    assert restarted is not None and (restarted.by, restarted.epsilon) == ("Dr Kim", 1.5)
    assert [one.decision for one in approvals(folder)] == ["withdrawn"]
    assert not folder.states.exists()
    # The gate that ran all the time goes on with the new ledger.
    assert answered(private, "2026-b").startswith("the study was withdrawn here")
    private.approve()
    assert spent(private) == 1.5
    # No run is left before a person allows some.
    assert answered(private, "2026-b") == str(Refusal("too-many-runs", most=0, had=0))
    allow_runs(folder, private.site.policy, "small", 4, by="Dr Kim")
    assert answered(private, "2026-b").startswith("privacy budget: epsilon 1.5 of 1.5 is spent")
    assert budget_as_json(private.site, spent_at(folder), ledger_of(folder))["spent"] == 1.5
    assert not any(line.kind in ("train", "spent") for line in private.lines())


def test_a_larger_budget_is_free_for_what_is_above_the_one_of_the_restart(private: Any):
    restart(private.folder, by="Dr Kim", why="a disk broke", epsilon=1.5)
    private.approve()
    allow_runs(private.folder, private.site.policy, "small", 4, by="Dr Kim")
    private.policy(epsilon=2.2, runs=4)
    before = spent(private)
    assert before == 1.5 and answered(private, "2026-b") == "" and before < spent(private) <= 2.2


def test_a_second_restart_keeps_the_files_of_the_first(private: Any):
    now = datetime.now(UTC)
    first = restart(private.folder, by="Dr Kim", why="a disk broke", epsilon=1.5, now=now)
    with pytest.raises(UsageError, match="this same second"):
        restart(private.folder, by="Dr Kim", why="again", epsilon=1.5, now=now)
    ledger_of(private.folder).append(kind="refused")
    assert len(private.lines()) == 2 and all(path.exists() for path in first)


STEPS = [("os.replace", 1), ("os.replace", 2), ("os.link", 1), ("os.link", 2), ("pathlib.Path.unlink", 2)]


@pytest.mark.parametrize(("step", "number"), STEPS)
def test_a_restart_that_is_killed_never_leaves_a_site_without_a_past(private: Any, step: str, number: int, monkeypatch):
    before = private.folder.ledger.read_bytes()
    child = os.fork()
    if child == 0:
        module, _, name = step.rpartition(".")
        owner = os if module == "os" else Path
        real, calls = getattr(owner, name), count(1)

        def killing(*words: Any, **more: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*words, **more)

        monkeypatch.setattr(step, killing)
        restart(private.folder, by="Dr Kim", why="a disk broke", epsilon=1.5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    # Either the old ledger goes on, or nothing is answered; a restart then completes it.
    if answered(private, "2026-b") != LOST:
        assert private.folder.ledger.read_bytes().startswith(before)
    restart(private.folder, by="Dr Kim", why="a disk broke", epsilon=1.5, now=datetime(2030, 1, 1, tzinfo=UTC))
    assert len(private.lines()) == 1 and SiteState(private.folder.state).restarted() is not None


def test_a_torn_line_and_a_killed_write_cost_nothing(private: Any, monkeypatch: pytest.MonkeyPatch):
    path: Path = private.folder.ledger
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert answered(private, "2026-b") == ""
    assert path.read_bytes().startswith(whole)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("flfed.records.ledger.LockedLedger.write", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        answered(private, "2026-c")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    private.open()
    assert answered(private, "2026-d") == "" and ledger_of(private.folder).problems() == []
