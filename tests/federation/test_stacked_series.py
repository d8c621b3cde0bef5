"""Repeats side by side: the same numbers as one by one, each repeat its own end, and gone on with all at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import Study, run
from flfed.errors import FlfedError, RunStopped
from flfed.federation.engines.engine import engine_of, path_of
from flfed.federation.server import repeats
from flfed.federation.server.run import resume
from flfed.records.store.reader import RunReader
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints

Record = Callable[[str], dict[str, Any]]
ROOT = Path(__file__).parents[2]
QUICK = {"strategy.rounds": 3, "plan.validation": 0.2}
BENT = """
import numpy as np
import torch
class Bent:
    '''A model that names no layers: outputs are sines.'''
    tasks = ("binary", "multi-class", "regression")
    linear, penalised, intercept = False, ("weight",), ""
    def first_arrays(self, inputs, outputs, rng):
        return {"weight": rng.normal(size=(inputs, outputs))}
    def outputs(self, arrays, x):
        return torch.sin(x @ arrays["weight"])
"""


def entries() -> list[Any]:
    """Return the runs of the newest series, by repeat."""
    with RunReader.open() as reader:
        return reader.runs_of(reader.runs(limit=1)[0].series)


def how() -> list[tuple[int, str, int]]:
    return [(entry.repeat, entry.status, entry.rounds) for entry in entries()]


def final(run: str) -> Arrays:
    return checkpoints.final(run).arrays


def assert_same_arrays(first: list[str], second: list[str], atol: float = 1e-10) -> None:
    for one, other in zip(map(final, first), map(final, second), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=0, atol=atol)


def assert_same_rows(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-6) -> None:
    """Compare every row of the store but for rounding; its hash of the arrays is of every bit."""
    for part in ("metric", "comparison", "sent", "run_site", "event"):
        assert len(one[part]) == len(other[part]) > 0 or part == "event"
        for mine, theirs in zip(one[part], other[part], strict=True):
            numbers = [(a, b) for a, b in zip(mine, theirs, strict=True) if isinstance(a, float)]
            assert [a for a in mine if not isinstance(a, float)] == [b for b in theirs if not isinstance(b, float)]
            assert all(abs(a - b) < tolerance for a, b in numbers), (part, mine, theirs)


def interrupter(count: int) -> Callable[[str, int], None]:
    """Return an observer that sends Ctrl-C, as a terminal does, after `count` rounds of all repeats together."""
    rounds: list[int] = []

    def observer(stage: str, round: int) -> None:
        rounds.extend([round] * (stage == "round"))
        if stage == "round" and len(rounds) == count:
            os.kill(os.getpid(), signal.SIGINT)

    return observer


@pytest.mark.studies
def test_a_series_side_by_side_writes_down_what_one_by_one_does(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study).replace(QUICK | {"strategy.rounds": 2}), small_sites(2)
    done = [run(study, sites=sites, repeats=3, stacked=stacked) for stacked in (True, True, False)]
    assert [result.report["path"] for result in done] == ["stacked", "stacked", "one-by-one"]
    runs = [[f"{result.run}-r0{number}" for number in (1, 2, 3)] for result in done]
    assert_same_arrays(runs[0], runs[2])
    for one, again, alone in zip(*runs, strict=True):
        assert record(one)["run"] == record(again)["run"]  # the hash of the arrays is among it
        assert_same_rows(record(one), record(alone))


@pytest.mark.studies
def test_a_repeat_that_fails_is_written_down_and_the_others_go_on(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study).replace(QUICK), small_sites(2)
    whole = run(study, sites=sites, repeats=3)
    second: list[int] = []

    def observer(stage: str, round: int) -> None:
        second.extend([1] * ((stage, round) == ("checkpoint", 2)))
        if len(second) == 2:
            second.append(1)
            raise FlfedError("the disk is full")

    with pytest.raises(FlfedError, match="the disk is full") as failed:
        run(study, sites=sites, repeats=3, observer=observer)
    assert failed.value.run == entries()[1].run
    assert how() == [(0, "completed", 3), (1, "failed", 1), (2, "completed", 3)]
    done = resume("latest", sites=sites)
    for number in (1, 2, 3):
        assert_same_rows(record(f"{done.run}-r0{number}"), record(f"{whole.run}-r0{number}"), 1e-9)


@pytest.mark.studies
def test_ctrl_c_stops_every_repeat_and_a_resume_goes_on_with_all_of_them(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study).replace(QUICK), small_sites(2)
    whole = run(study, sites=sites, repeats=3)
    with pytest.raises(RunStopped, match="flfed study resume") as stopped:
        run(study, sites=sites, repeats=3, observer=interrupter(5))
    name = entries()[0].series
    assert stopped.value.run == name and name in str(stopped.value)
    # The fifth round is the second one of the second repeat; the third has begun its own.
    assert [status for _, status, _ in how()] == ["stopped"] * 3
    assert {entry.reason for entry in entries()} == {"interrupted from the keyboard"}
    assert [rounds for _, _, rounds in how()][:2] == [2, 2]
    done = resume("latest", sites=sites)
    assert (done.report["path"], done.report["status"]) == ("stacked", "completed")
    assert_same_arrays(*([f"{of}-r0{number}" for number in (1, 2, 3)] for of in (whole.run, name)))
    for number in (1, 2, 3):
        assert_same_rows(record(f"{whole.run}-r0{number}"), record(f"{name}-r0{number}"), 1e-9)


@pytest.mark.studies
def test_a_repeat_that_misses_its_quorum_stops_alone(small_sites, small_study):
    tight = {"strategy.quorum": 1.0, "strategy.flag-norm": 1.0, "strategy.refuse-norm": 1.55, "strategy.rounds": 9}
    steps: list[tuple[str, int, int]] = []
    study, sites = Study.parse(small_study).replace(tight), small_sites(3)
    done = run(study, sites=sites, repeats=3, progress=lambda *step: steps.append(step))
    assert how() == [(0, "completed", 9), (1, "stopped", 1), (2, "completed", 9)]
    assert done.status == "stopped"  # exit code 3
    rounds = [number for stage, number, _ in steps if stage == "rounds of 3 repeats"]
    assert rounds == sorted(set(rounds)) and rounds[-1] == 9


def test_what_cannot_be_stacked_runs_one_by_one_and_the_record_says_so(small_sites, small_study, tmp_path, monkeypatch):
    info = tmp_path / "plugged" / "bent_model-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bent-model\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[flfed.model]\nbent = bent_model:Bent\n")
    (info.parent / "bent_model.py").write_text(BENT)
    monkeypatch.syspath_prepend(str(info.parent))
    bent = Study.parse(small_study.replace('name = "logistic"', 'name = "bent"')).replace(QUICK)
    done = run(bent, sites=small_sites(2), repeats=2)
    assert done.report["path"] == "one-by-one" and [entry.path for entry in entries()] == ["one-by-one"] * 2
    for name, path in (("logistic", "stacked"), ("mlp", "stacked"), ("bent", "one-by-one")):
        study = Study.parse(small_study.replace('name = "logistic"', f'name = "{name}"'))
        assert path_of(engine_of("inprocess"), study, stacked=True) == path
        assert (
            path_of(engine_of("inprocess"), study, stacked=False)
            == path_of(engine_of("ray"), study, stacked=True)
            == "one-by-one"
        )


@pytest.mark.studies
def test_repeats_of_large_tables_wait_for_room_and_give_the_same(small_sites, small_study, monkeypatch):
    study, sites = Study.parse(small_study).replace(QUICK), small_sites(2)
    steps: list[tuple[str, int, int]] = []
    whole = run(study, sites=sites, repeats=5)
    monkeypatch.setattr(repeats, "ROWS_AT_ONCE", 2 * 130)  # two repeats of 60 and 70 rows
    done = run(study, sites=sites, repeats=5, progress=lambda *step: steps.append(step))
    assert [done for stage, done, _ in steps if stage == "repeats"] == [2, 4, 5]
    runs = ([f"{result.run}-r0{number}" for number in range(1, 6)] for result in (whole, done))
    assert_same_arrays(*runs)


CHILD = """
import os, signal, sys
from flfed import Study, run
rounds = []

def observer(stage, number):
    rounds.extend([number] * (stage == sys.argv[1]))
    if len(rounds) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

run(Study.load("preterm-birth").replace({"strategy.rounds": 6, "compare.resamples": 200}), repeats=3, observer=observer)
"""


@pytest.mark.proof
@pytest.mark.studies
def test_a_series_killed_between_its_repeats_goes_on_to_the_same_arrays_and_records(record: Record):
    def child(stage: str, count: int) -> int:
        command = [sys.executable, "-c", CHILD, stage, str(count)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300).returncode

    assert child("none", 1) == 0
    whole = [entry.run for entry in entries()]
    for stage, count, rounds in (("round", 7, [3, 2, 2]), ("checkpoint", 11, [4, 3, 3]), ("round", 18, [6, 6, 6])):
        assert child(stage, count) == -signal.SIGKILL
        assert how() == [(number, "interrupted", of) for number, of in enumerate(rounds)]
        command = [sys.executable, "-c", "from flfed.cli import main; main()", "study", "resume", "latest", "--json"]
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), timeout=300)
        assert again.returncode == 0, again.stderr
        assert (json.loads(again.stdout)["status"], json.loads(again.stdout)["path"]) == ("completed", "stacked")
        assert_same_arrays(whole, [entry.run for entry in entries()])
        for one, other in zip(whole, entries(), strict=True):
            assert_same_rows(record(one), record(other.run), 1e-9)
