"""Runs on several cores: the same arrays and figures, and a record that a killed process does not spoil."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flfed import Study, federate, tasks
from flfed.errors import RunStopped
from flfed.experiments.audit import audit
from flfed.experiments.sweep import points_of, sweep
from flfed.federation.server.run import resume, run
from flfed.records.store import database
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunWriter
from flfed.rows.comparison import pooled
from flfed.study.study import Study as StudyText
from tests.test_tasks import until

QUICK = {"rounds": 3}


def arrays_of(name: str) -> list[str | None]:
    """Return the hash of the final arrays of each repeat."""
    with RunReader.open() as reader:
        entries = reader.runs_of(name)
    assert {entry.status for entry in entries} == {"completed"}
    return [entry.arrays_sha256 for entry in entries]


def without_names(figures: Any) -> Any:
    """Return a report without the names of runs, times and seconds.

    Numbers have nine digits: where an array begins in memory decides the last bit of a sum over it.
    """
    if isinstance(figures, float):
        return float(f"{figures:.9g}")
    if isinstance(figures, dict):
        left = figures.keys() - {"run", "runs", "started", "finished", "seconds"}
        return {key: without_names(figures[key]) for key in sorted(left)}
    return [without_names(one) for one in figures] if isinstance(figures, list) else figures


def in_a_thread(action: Callable[[], Any]) -> Any:
    """Return what a function returns in a thread of its own, from which no process may be forked."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture(scope="module")
def wine() -> StudyText:
    return Study.load("wine").replace(QUICK)


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each fork, whether it is from the main thread and there is no other."""
    safe: list[bool] = []
    fork = os.fork

    def noted() -> int:
        safe.append(threading.current_thread() is threading.main_thread() and threading.active_count() == 1)
        return fork()

    monkeypatch.setattr(os, "fork", noted)
    return safe


def test_repeats_have_the_same_arrays_for_any_number_of_jobs(home, wine, forks):
    # Two stacks: the first ten repeats, and three.
    rounds: list[int] = []
    alone = run(wine, repeats=13)
    forked = run(wine, repeats=13, jobs=2, observer=lambda stage, number: rounds.append(number))
    served = in_a_thread(lambda: run(wine, repeats=13, jobs=3))
    arrays = arrays_of(alone.run)
    assert len(set(arrays)) == 13
    assert arrays_of(forked.run) == arrays_of(served.run) == arrays
    assert without_names(forked.report) == without_names(served.report) == without_names(alone.report)
    # The driver's own observer saw each round of each repeat.
    assert rounds.count(3) >= 13
    # Neither a thread forks, nor a repeat, each of which has a thread.
    assert forks == [True, True]


def test_a_repeat_beside_others_starts_no_process_for_its_own_models(home, forks, monkeypatch):
    monkeypatch.delattr(tasks, "start_served")
    study = Study.load("breast-cancer").replace({"rounds": 1, "compare.resamples": 200})
    assert run(study, repeats=2, jobs=2).status == "completed"
    assert forks == []


def test_a_callback_in_the_driver_ends_a_repeat(home, wine):
    result = run(
        wine, repeats=11, jobs=2, callback=lambda figures: figures["round"] == 2 and figures["run"].endswith("r11")
    )
    with RunReader.open() as reader:
        rounds = [entry.rounds for entry in reader.runs_of(result.run)]
    assert rounds == [3] * 10 + [2]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("breast-cancer", {}),
        ("breast-cancer", {"model.name": "mlp", "model.hidden": [4]}),
        pytest.param("taiwan-credit-trees", {}, marks=pytest.mark.proof),
    ],
)
def test_own_and_pooled_models_of_other_processes_are_the_same(home, taiwan, tmp_path, monkeypatch, name: str, model):
    processes = tmp_path / "processes"
    model_of = pooled.local_model

    def noted(*arguments: Any) -> Any:
        with processes.open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        return model_of(*arguments)

    # A study of trees trains its models one by one, and the others in stacks: what both call is the model's handler.
    monkeypatch.setattr(pooled, "local_model", noted)
    study = Study.load(name).replace({"rounds": 2, "compare.resamples": 200, **model})
    alone = run(study)
    both = [str(os.getpid())] * 2  # the best pooled model, and that of the study's kind
    assert processes.read_text().split() == both
    processes.unlink()
    forked = run(study, jobs=2)
    others = processes.read_text().split()
    assert len(others) == 2
    # A linear model of the study's kind takes less time than a process.
    assert others.count(both[0]) == (name == "breast-cancer" and not model)
    assert arrays_of(forked.run) == arrays_of(alone.run)
    assert without_names(forked.report) == without_names(alone.report)


@pytest.mark.proof
def test_a_sweep_and_an_audit_are_the_same(home, wine):
    points = points_of(wine.replace({"validation": 0.2}), {"lr": [0.1, 0.3], "batch": [16, 32]})
    alone, forked = (sweep(wine, points, jobs=jobs) for jobs in (1, 3))
    assert without_names(forked.as_json()) == without_names(alone.as_json())
    assert [point.settings for point in forked.points] == [settings for settings, _ in points]
    name = run(wine).run
    first, second = (audit(name, attacks=["membership-inference", "canaries"], jobs=jobs) for jobs in (1, 2))
    assert second.findings == first.findings
    assert len(first.findings) > 5


@pytest.mark.proof
def test_frames_of_a_program_reach_other_processes(home):
    from sklearn.datasets import load_breast_cancer

    rows = load_breast_cancer(as_frame=True).frame
    tables = {"north": rows[0::2], "south": rows[1::2]}
    options: dict[str, Any] = {"target": "target", "rounds": 2, "repeats": 12, "holdout": 0, "say": lambda line: None}
    alone = federate(tables, **options)
    served = in_a_thread(lambda: federate(tables, n_jobs=-1, **options))
    assert arrays_of(served.run) == arrays_of(alone.run)


def workers_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def begin(*words: str) -> subprocess.Popen[str]:
    """Start a command of flfed, in a group of processes of its own."""
    command = [sys.executable, "-c", "from flfed.cli import main; main()", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.fixture(scope="module")
def long() -> tuple[list[str], StudyText]:
    changes = {"rounds": 40, "compare.site-model": "same"}
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    return ["study", "run", "wine", "--repeats", "12", "--jobs", "2", *words], Study.load("wine").replace(changes)


@pytest.mark.proof
def test_a_killed_process_is_replaced_and_its_repeats_go_on(home, long):
    words, study = long
    with begin(*words) as ran:
        assert until(lambda: len(workers_of(ran.pid)) == 2, 60)
        assert until(lambda: _rounds() > 20, 60)
        # One of them may have nothing left to do.
        for worker in workers_of(ran.pid):
            os.kill(worker, signal.SIGKILL)
        assert ran.wait(120) == 0
    with RunReader.open() as reader:
        name = reader.series("latest").series
        reasons = [event.reason for event in reader.events([entry.run for entry in reader.runs_of(name)])]
    assert any("its process was killed" in reason for reason in reasons)
    assert arrays_of(name) == arrays_of(run(study, repeats=12).run)


@pytest.mark.proof
def test_ctrl_c_ends_all_within_two_seconds_and_resume_goes_on(home, long):
    words, study = long
    with begin(*words) as ran:
        assert until(lambda: len(workers_of(ran.pid)) == 2 and _rounds() > 20, 60)
        workers = workers_of(ran.pid)
        os.killpg(ran.pid, signal.SIGINT)
        assert until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 2)
        assert ran.wait(30) == 3
        assert ran.stderr is not None
        said = ran.stderr.read()
    assert "interrupted from the keyboard; all results so far are stored: flfed study resume" in said
    assert "Traceback" not in said
    with RunReader.open() as reader:
        name = reader.series("latest").series
        assert {entry.status for entry in reader.runs_of(name)} == {"stopped"}
    assert resume(name, jobs=2).status == "completed"
    assert arrays_of(name) == arrays_of(run(study, repeats=12).run)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_is_interrupted_within_a_transaction_can_still_record_its_end(home, wine, monkeypatch, jobs: int):
    writing = RunWriter._writing
    left = [20]

    def interrupted(writer: RunWriter, **options: Any) -> Any:
        block = writing(writer, **options)
        left[0] -= 1
        if not left[0]:
            block.__enter__()
            raise KeyboardInterrupt
        return block

    monkeypatch.setattr(database, "BUSY_SECONDS", 1)
    monkeypatch.setattr(RunWriter, "_writing", interrupted)
    with pytest.raises(RunStopped, match="interrupted from the keyboard"):
        run(wine, repeats=12, jobs=jobs)
    with RunReader.open() as reader:
        assert {entry.status for entry in reader.runs()} == {"stopped"}


def _rounds() -> int:
    with RunReader.open() as reader:
        return sum(entry.rounds for entry in reader.runs())
