"""A run that is killed (-9) at ten random points goes on to the arrays and the record of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from flfed import Study, registry, run
from flfed.export.run_folder import export
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.server.run import resume
from flfed.records.store.reader import RunReader

ROOT = Path(__file__).parents[2]
ROUNDS = 12
CHANGES = {"strategy.rounds": ROUNDS, "strategy.select": "best", "plan.validation": 0.2, "compare.resamples": 200}
CHILDREN = """
import json, os, signal, sys, time
from flfed import Study, run
import flfed.federation.client.client, flfed.federation.server.repeats  # what a run loads, once for all children
from flfed.updates.checkpoints.site_state import NodeState

keep, kept = NodeState.keep, []

def keeping(self, number, arrays):
    keep(self, number, arrays)
    kept.append(number)
    if where == "kept" and kept.count(round) == 2:  # of some sites the next round's is there, of others not
        os.kill(os.getpid(), signal.SIGKILL)

NodeState.keep = keeping

def observer(stage, number):
    if where == "outside" and stage == "round":
        time.sleep(0.05 if number < round else 2)  # so that the parent's blow falls here
    if (stage, number) == (where, round):
        os.kill(os.getpid(), signal.SIGKILL)

def progress(stage, done, of):
    if stage == where:
        os.kill(os.getpid(), signal.SIGKILL)

study = Study.load("preterm-birth").replace(json.loads(sys.argv[1]))
for line in sys.stdin:
    where, round = json.loads(line)
    child = os.fork()
    if not child:
        run(study, observer=observer, progress=progress)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Starts a process for each line, a fork of one that has loaded what a run needs: its id, then its exit code."""
Record = Callable[[str], dict[str, Any]]


class Children:
    """Processes that each do one run, and are killed in it."""

    def __init__(self, changes: dict[str, Any] = CHANGES) -> None:
        self.changes = changes
        command = [sys.executable, "-c", CHILDREN, json.dumps(changes)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, where: str, round: int) -> int:
        """Start one; return its id."""
        assert self._process.stdin is not None
        print(json.dumps([where, round]), file=self._process.stdin, flush=True)
        return self._number()

    def ended(self) -> int:
        """Wait for its end; return its exit code."""
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def children(home: Path) -> Iterator[Children]:
    made = Children()
    with threadpool_limits(1):  # as they have: sums are taken in one order in every process
        yield made
    made.close()


def rounds_of_newest() -> tuple[str, int, str]:
    with RunReader.open() as reader:
        found = reader.runs(limit=1)
    return (found[0].run, found[0].rounds, found[0].status) if found else ("", 0, "")


def killed_from_outside(children: Children, round: int, known: str) -> None:
    """Start a run and kill it once the store has `round` rounds of it."""
    process = children.start("outside", round)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        name, rounds, _ = rounds_of_newest()
        if name != known and rounds >= round:
            break
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert children.ended() == -signal.SIGKILL


def gone_on(run: str, *, anew: bool) -> str:
    """Go on with a run, in a process of its own where it is to be `anew`; return its arrays' hash."""
    if not anew:
        return str(resume(run).report["arrays-sha256"])
    command = [sys.executable, "-c", "from flfed.cli import main; main()", "study", "resume", run, "--json"]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), timeout=300)
    assert again.returncode == 0, again.stderr
    return str(json.loads(again.stdout)["arrays-sha256"])


def check_kills(
    children: Children, record: Record, points: int, away: Callable[[], AbstractContextManager[None]] = nullcontext
) -> None:
    """Kill runs at random points and go on with them, while what `away` takes away is gone."""
    children.start("nowhere", 0)
    assert children.ended() == 0
    first, rounds, status = rounds_of_newest()
    assert (rounds, status) == (ROUNDS, "completed")
    wanted = record(first)
    rng = np.random.default_rng(20261120)
    outside = [("outside", int(n)) for n in rng.choice(np.arange(1, ROUNDS), points, replace=False)]
    between = [("checkpoint", int(n)) for n in rng.choice(np.arange(1, ROUNDS + 1), points, replace=False)]
    latest = first
    for where, round in [*outside, *between, ("round", ROUNDS), ("compare", 0)]:
        if where == "outside":
            killed_from_outside(children, round, latest)
        else:
            children.start(where, round)
            assert children.ended() == -signal.SIGKILL
        latest, rounds, status = rounds_of_newest()
        assert status == "interrupted" and latest != first
        assert rounds >= round if where == "outside" else rounds == {"checkpoint": round - 1}.get(where, ROUNDS)
        with away():
            sha256 = gone_on(latest, anew=where == "compare")
        assert sha256 == wanted["run"][0].arrays_sha256
        found = record(latest)
        rows = [row[:4] for row in found["metric"]]
        assert len(rows) == len(set(rows)) and len(rows) == len(wanted["metric"])
        for part in ("metric", "sent", "comparison", "run_site", "summary", "run"):
            assert found[part] == wanted[part], (where, round, part)
        assert {row[-1] for row in found["event"]} == {row[-1] for row in wanted["event"]}


@pytest.mark.servers
@pytest.mark.parametrize("points", [1, pytest.param(4, marks=pytest.mark.proof)])
def test_a_run_killed_at_random_points_goes_on_to_the_same_arrays_and_record(children, record, points):
    check_kills(children, record, points)


@pytest.mark.proof
@pytest.mark.servers
def test_a_run_that_begins_with_an_earlier_model_goes_on_after_a_kill_while_that_is_gone(home, record, tmp_path):
    model, network = tmp_path / "model", {"model.name": "mlp", "model.hidden": [6, 4]}
    with threadpool_limits(1):
        earlier = run(Study.load("preterm-birth").replace({**CHANGES, **network, "seed": 5}))
        export(earlier.run, model)
        children = Children({**CHANGES, **network, "model.warm-start": str(model), "model.frozen-layers": 1})

        @contextmanager
        def away() -> Iterator[None]:
            model.rename(model.with_name("elsewhere"))
            yield
            model.with_name("elsewhere").rename(model)

        try:
            check_kills(children, record, 2, away)
        finally:
            children.close()


TOP_K = CHANGES | {"codec.name": "top-k", "codec.share": 0.1}
VARIATES = CHANGES | {"strategy.name": "scaffold"}
OWN_LAYER = CHANGES | {"strategy.name": "fedper", "strategy.select": "last"}
OWN_MODEL = CHANGES | {"strategy.name": "ditto"}


@pytest.fixture(params=[TOP_K, VARIATES, OWN_LAYER, OWN_MODEL], ids=["top-k", "scaffold", "fedper", "ditto"])
def children_with_feedback(home: Path, request: pytest.FixtureRequest) -> Iterator[Children]:
    made = Children(request.param)
    with threadpool_limits(1):
        yield made
    made.close()


@pytest.mark.proof
@pytest.mark.servers
def test_what_sites_keep_is_there_after_a_kill_and_without_it_the_arrays_are_others(
    children_with_feedback: Children, record: Record, monkeypatch: pytest.MonkeyPatch
):
    children = children_with_feedback
    children.start("nowhere", 0)
    assert children.ended() == 0
    first, _, _ = rounds_of_newest()
    wanted = record(first)
    for where, round in (("round", 3), ("kept", 6), ("checkpoint", 8), ("compare", 0)):
        children.start(where, round)
        assert children.ended() == -signal.SIGKILL
        killed, rounds, status = rounds_of_newest()
        assert killed != first and status == "interrupted"
        assert rounds == {"kept": round - 1, "checkpoint": round - 1, "compare": ROUNDS}.get(where, round)
        assert resume(killed).report["arrays-sha256"] == wanted["run"][0].arrays_sha256, where
        found = record(killed)
        for part in ("metric", "sent", "comparison", "run_site", "summary", "run"):
            assert found[part] == wanted[part], (where, part)
    children.start("round", 3)
    assert children.ended() == -signal.SIGKILL
    killed, _, _ = rounds_of_newest()
    # A checkpoint without the sites' own arrays: what they left out before, their control variates, or what is their
    # own of the model, are lost.
    monkeypatch.setattr(InProcessGrid, "restore_states", lambda self, round, states: None)
    found = resume(killed).report["arrays-sha256"]
    assert record(killed)["comparison"] != wanted["comparison"]
    assert (found == wanted["run"][0].arrays_sha256) == (children.changes == OWN_MODEL)


@pytest.mark.proof
@pytest.mark.servers
# Trees and parties with other columns have no logistic model: their own tests resume them.
@pytest.mark.parametrize("strategy", sorted({*registry.names("strategy")} - {"boosted-trees", "vertical"}))
def test_a_run_of_any_strategy_goes_on_after_a_kill(strategy: str, home: Path, record: Record):
    last = {"strategy.select": "last"} if strategy == "fedper" else {}  # own layers of an earlier round are gone
    children = Children(CHANGES | {"strategy.name": strategy, **last})
    try:
        with threadpool_limits(1):
            children.start("nowhere", 0)
            assert children.ended() == 0
            first, _, _ = rounds_of_newest()
            wanted = record(first)
            for where, round in (("kept", 4), ("checkpoint", 6), ("round", 9)):
                children.start(where, round)
                # Of a strategy whose sites keep nothing no state is written.
                killed = children.ended() == -signal.SIGKILL
                assert killed or where == "kept"
                if not killed:
                    continue
                latest, _, status = rounds_of_newest()
                assert latest != first and status == "interrupted"
                assert resume(latest).report["arrays-sha256"] == wanted["run"][0].arrays_sha256, where
                assert record(latest)["comparison"] == wanted["comparison"]
    finally:
        children.close()
