"""A run that is killed (-9) at ten random points goes on to the arrays and the record of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed.federation.server.run import resume
from flfed.records.store.reader import RunReader

ROOT = Path(__file__).parents[2]
ROUNDS = 12
CHANGES = {"strategy.rounds": ROUNDS, "strategy.select": "best", "plan.validation": 0.2, "compare.draws": 200}
CHILD = """
import json, os, signal, sys
from flfed import Study, run
where, round, changes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])

def observer(stage, number):
    if where == "outside" and stage == "round":
        import time; time.sleep(0.05 if number < round else 2)  # so that the parent's blow falls here
    if (stage, number) == (where, round):
        os.kill(os.getpid(), signal.SIGKILL)

def progress(stage, done, of):
    if stage == where:
        os.kill(os.getpid(), signal.SIGKILL)

run(Study.load("preterm-birth").replace(changes), observer=observer, progress=progress)
"""
Record = Callable[[str], dict[str, Any]]


def child(where: str, round: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, where, str(round), json.dumps(CHANGES)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rounds_of_newest() -> tuple[str, int, str]:
    with RunReader.open() as reader:
        found = reader.runs(limit=1)
    return (found[0].run, found[0].rounds, found[0].status) if found else ("", 0, "")


def killed_from_outside(round: int, known: str) -> None:
    """Start a run and kill it once the store has `round` rounds of it."""
    process = child("outside", round)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        name, rounds, _ = rounds_of_newest()
        if name != known and rounds >= round:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_at_ten_random_points_goes_on_to_the_same_arrays_and_record(record: Record):
    whole = child("nowhere", 0)
    assert whole.wait(300) == 0
    first, rounds, status = rounds_of_newest()
    assert (rounds, status) == (ROUNDS, "completed")
    wanted = record(first)
    rng = np.random.default_rng(20261120)
    outside = [("outside", int(n)) for n in rng.choice(np.arange(1, ROUNDS), 4, replace=False)]
    between = [("checkpoint", int(n)) for n in rng.choice(np.arange(1, ROUNDS + 1), 4, replace=False)]
    latest = first
    for where, round in [*outside, *between, ("round", ROUNDS), ("compare", 0)]:
        if where == "outside":
            killed_from_outside(round, latest)
        else:
            process = child(where, round)
            assert process.wait(300) == -signal.SIGKILL
        latest, rounds, status = rounds_of_newest()
        assert status == "interrupted" and latest != first
        assert rounds >= round if where == "outside" else rounds == {"checkpoint": round - 1}.get(where, ROUNDS)
        if where == "compare":
            command = [sys.executable, "-c", "from flfed.cli import main; main()", "study", "resume", latest, "--json"]
            again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), timeout=300)
            assert again.returncode == 0, again.stderr
            sha256 = json.loads(again.stdout)["arrays-sha256"]
        else:
            sha256 = resume(latest).report["arrays-sha256"]
        assert sha256 == wanted["run"][0].arrays_sha256
        found = record(latest)
        rows = [row[:4] for row in found["metric"]]
        assert len(rows) == len(set(rows)) and len(rows) == len(wanted["metric"])
        for part in ("metric", "sent", "comparison", "run_site", "summary", "run"):
            assert found[part] == wanted[part], (where, round, part)
        assert {row[-1] for row in found["event"]} == {row[-1] for row in wanted["event"]}
