"""A gate that is killed, or finds its disk full, between any two writes is never more generous than what it sent."""

import os
import pickle
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import Message

from flfed.deployment.site_state.runs import read_runs
from flfed.records import site_state
from flfed.records.ledger import LedgerError, LockedLedger
from flfed.records.site_state import state_of
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.updates.checkpoints import site_state as run_files
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.kinds import SUMMARISE, TRAIN
from flfed.updates.messages.summarise import SummariseRequest
from flfed.updates.messages.train import TrainRequest
from tests.deployment.summing import said

RUNS, ROUNDS = 3, 3
FULL = site_state.sqlite3.OperationalError("database or disk is full")


def requests(site: Any, shift: float = 0.0) -> list[tuple[str, Message]]:
    """Return the messages of three runs; shifted ones bring other models."""
    found = []
    for number in range(RUNS):
        found.append((f"run-{number}", site.message(SUMMARISE, SummariseRequest())))
        for round in range(1, ROUNDS + 1):
            sent = TrainRequest.from_record(site.trained(round=round).content)
            moved = {name: value + shift for name, value in sent.arrays.items()}
            found.append((f"run-{number}", site.message(TRAIN, replace(sent, arrays=moved))))
    return found


def at_write(patch: pytest.MonkeyPatch, number: int, happens: Callable[[Exception], None]) -> None:
    """Have something happen at one of the writes of a gate, counted before each; with what a full disk raises there."""
    count = [0]

    def around(plain: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def writing(*given: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                happens(error)
            return plain(*given, **named)

        return writing

    class Tables(site_state.sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> Any:
            plain = super().execute
            return around(plain, FULL)(sql, *rest) if sql == "COMMIT" else plain(sql, *rest)

    connect = site_state.sqlite3.connect
    patch.setattr(site_state.sqlite3, "connect", lambda *given, **named: connect(*given, factory=Tables, **named))
    patch.setattr(LockedLedger, "write", around(LockedLedger.write, LedgerError("full")))
    patch.setattr(run_files, "replace_whole", around(run_files.replace_whole, OSError(28, "full")))


def killed(site: Any, number: int, patch: pytest.MonkeyPatch) -> dict[tuple[str, int], str]:
    """Ask a process of the site's gate until it is killed at a write; return the hashes of the replies that left."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        at_write(patch, number, lambda _: os.kill(os.getpid(), signal.SIGKILL))
        site.open()
        for place, (run, message) in enumerate(requests(site)):
            reply = site.answer(message, run=run)
            if not reply.has_error():
                os.write(writing, pickle.dumps(((run, place), content_sha256(reply.content))) + b"\n\n\n")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        parts = pipe.read().split(b"\n\n\n")
    os.waitpid(child, 0)
    return dict(pickle.loads(part) for part in parts if part)


def check_never_more_generous(site: Any, left: dict[tuple[str, int], str]) -> None:
    """Hold a gate that begins anew to what left of the one before."""
    site.open()
    kept = {(run, place): message for place, (run, message) in enumerate(requests(site))}
    others = {(run, place): message for place, (run, message) in enumerate(requests(site, shift=0.5))}
    for (run, place), sha256 in left.items():
        last_rounds = place % (ROUNDS + 1) >= ROUNDS - 1
        again = site.answer(kept[run, place], run=run)
        if again.has_error():
            # Bytes of earlier rounds are gone, and no second answer follows.
            assert not last_rounds and said(again).startswith("it answered this step"), said(again)
        else:
            assert content_sha256(again.content) == sha256
        if place % (ROUNDS + 1):
            assert said(site.answer(others[run, place], run=run)).startswith("it answered this step")
    with_replies = {run for run, _ in left}
    assert len(with_replies) <= read_runs(site.folder, site.site.policy, "small").had <= RUNS
    with state_of(site.folder).transaction() as step:
        (used,) = step.tables.execute("SELECT coalesce(sum(bytes), 0) FROM days").fetchone()
    # A line that a crash left in the state alone is in the ledger by now.
    lines = [line for line in site.lines() if line.kind in ("train", "summarise")]
    assert used == sum(line.facts["bytes"] for line in lines) and site.gate._ledger.problems() == []
    assert {line.facts["sha256"] for line in lines} >= set(left.values())


@pytest.mark.parametrize("seed", range(24))
def test_after_a_kill_at_any_write_the_state_holds_what_left(gated: Any, seed: int, monkeypatch: pytest.MonkeyPatch):
    site = gated(policy=Policy(disclosure="open", resplit=True, runs=RUNS))
    number = random.Random(seed).randint(1, 45)
    with monkeypatch.context() as patch:
        left = killed(site, number, patch)
    check_never_more_generous(site, left)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(24, 200))
def test_after_two_hundred_kills_it_does(gated: Any, seed: int, monkeypatch: pytest.MonkeyPatch):
    test_after_a_kill_at_any_write_the_state_holds_what_left(gated, seed, monkeypatch)


@pytest.mark.parametrize("seed", range(12))
def test_with_a_full_disk_nothing_leaves_that_is_not_written(gated: Any, seed: int, monkeypatch: pytest.MonkeyPatch):
    site = gated(policy=Policy(disclosure="open", resplit=True, runs=RUNS))

    def full(error: Exception) -> None:
        raise error

    left = {}
    with monkeypatch.context() as patch:
        at_write(patch, random.Random(seed).randint(1, 40), full)
        site.open()
        for place, (run, message) in enumerate(requests(site)):
            reply = site.answer(message, run=run)
            if not reply.has_error():
                left[run, place] = content_sha256(reply.content)
    assert len(left) >= RUNS * (ROUNDS + 1) - 1
    check_never_more_generous(site, left)


def test_a_state_without_the_transaction_would_give_a_second_answer(gated: Any, monkeypatch: pytest.MonkeyPatch):
    site = gated(policy=Policy(disclosure="open", resplit=True, runs=RUNS))
    (run, message), (_, other) = requests(site)[1], requests(site, shift=0.5)[1]
    assert said(site.answer(message, run=run)) == ""
    assert said(site.answer(other, run=run)) == str(Refusal("step-answered", round=1))
    with state_of(site.folder).transaction() as step:
        step.tables.execute("DELETE FROM steps")
    assert said(site.answer(other, run=run)) == ""
