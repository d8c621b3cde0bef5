"""Tasks in several processes: the same outcomes however many there are, and whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import tasks
from flfed.errors import UsageError
from flfed.tasks import Driver, Tasks, may_fork, open_tasks, read_jobs, usable_jobs


def scaled(rows: np.ndarray, task: int, driver: Driver) -> tuple[float, int, Any]:
    """Return a product that needs the shared rows, the process's parent, and a reply of the driver."""
    driver.progress("products", 1, 1)
    driver.post("note", task)
    if task == 13:
        raise UsageError("no thirteen")
    return float(rows.sum()) * task, os.getppid(), driver.call("twice", task)


@pytest.fixture
def beside() -> Iterator[None]:
    """Run a second thread, beside which no process may be forked."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


def outcomes_of(jobs: int, numbers: list[int]) -> tuple[dict[int, Any], list[int], list[tuple[str, int, int]]]:
    noted: list[int] = []
    shown: list[tuple[str, int, int]] = []
    functions = {"note": lambda place, task: noted.append(task), "twice": lambda place, task: 2 * task}
    run = partial(scaled, np.arange(1000.0))
    begun = Tasks(run, numbers, jobs, functions=functions, progress=lambda *stage: shown.append(stage))
    with begun:
        return dict(begun), noted, shown


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_outcomes_are_the_same_for_any_number_of_forked_processes(jobs: int):
    outcomes, noted, shown = outcomes_of(jobs, [1, 2, 13, 4])
    # The sum of 0 … 999 is 499,500.
    assert [outcomes[place][::2] for place in (0, 1, 3)] == [(499_500.0, 2), (999_000.0, 4), (1_998_000.0, 8)]
    assert {outcomes[place][1] for place in (0, 1, 3)} == {os.getpid()}
    assert (type(outcomes[2]), str(outcomes[2])) == (UsageError, "no thirteen")
    assert sorted(noted) == [1, 2, 4, 13]
    assert shown[-1] == ("products", 4, 4)


def test_beside_another_thread_a_fork_server_has_the_same_outcomes(beside: None):
    assert not may_fork()
    outcomes, _, _ = outcomes_of(2, [1, 4])
    assert [outcome[::2] for _, outcome in sorted(outcomes.items())] == [(499_500.0, 2), (1_998_000.0, 8)]
    assert os.getpid() not in {outcome[1] for outcome in outcomes.values()}


def test_a_fork_server_with_another_version_is_refused(beside: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flfed.__version__", "0.0.1")
    outcomes, _, _ = outcomes_of(2, [1, 4])
    assert {type(outcome) for outcome in outcomes.values()} == {UsageError}
    assert f"loads flfed {version('flfed')}, and this one has 0.0.1: start this program anew" in str(outcomes[0])


def test_a_thread_never_forks():
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(may_fork()))
    assert may_fork()
    thread.start()
    thread.join()
    assert answers == [False]


def test_what_cannot_be_sent_is_left_to_the_caller(beside: None):
    shown: list[str] = []
    assert open_tasks(lambda task, driver: task, [1, 2], 2, progress=lambda stage, *_: shown.append(stage)) is None
    assert "one process runs everything" in shown[0]
    assert open_tasks(scaled, [1], 4) is None


def killed(folder: Path, often: dict[int, int], task: int, driver: Driver) -> int:
    """End the process as if killed, so many times a task; then return how many others were there."""
    tries = len(list(folder.glob(f"{task}-*")))
    (folder / f"{task}-{tries}-{os.getpid()}").touch()
    if tries < often.get(task, 0):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


def test_a_killed_process_costs_its_task_a_try_and_nobody_else(tmp_path: Path):
    lost: list[int] = []
    with Tasks(partial(killed, tmp_path, {1: 1, 2: 2, 3: 9}), range(5), 2, lost=lost.append) as begun:
        outcomes = dict(begun)
    assert [outcomes[task] for task in (0, 1, 2, 4)] == [0, 1, 2, 0]
    assert "3 processes in turn ended in the middle of a task (exit code -9)" in str(outcomes[3])
    assert sorted(lost) == [1, 2, 2, 3, 3, 3]
    # Every try had a process of its own.
    assert len({path.name.split("-")[2] for path in tmp_path.glob("3-*")}) == 3


def test_an_error_of_the_driver_is_raised_in_the_task_and_the_first_one_at_the_end():
    def refuse(place: int, task: int) -> None:
        raise UsageError(f"no place for {task}")

    functions = {"note": refuse, "twice": lambda place, task: task}
    done: list[int] = []
    begun = Tasks(partial(scaled, np.ones(2)), [7, 8], 2, functions=functions)
    with pytest.raises(UsageError, match="no place for 7"):
        begun.finish(lambda place, outcome: done.append(place))
    assert done == []


BUSY = """
import sys, threading, time
from flfed import tasks
from tests.test_tasks import sleeping
print("began", flush=True)
if sys.argv[1] == "served":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
with tasks.Tasks(sleeping, [0, 1], 2, functions={"ready": lambda place, pid: print(pid, flush=True)}) as begun:
    list(begun)
"""


def sleeping(task: int, driver: Driver) -> None:
    """Tell the process's number and sleep."""
    driver.post("ready", os.getpid())
    time.sleep(60)


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that nobody waited for does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, and return whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("how", ["forked", "served"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_driver_and_no_script_runs_twice(how: str, number: int, tmp_path: Path):
    # The script has no guard, so that importing it in a process would start it again.
    script = tmp_path / "script.py"
    script.write_text(BUSY)
    root = Path(tasks.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), how]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == "began\n"
        pids = [int(ran.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, pids))
        # Ctrl-C in a terminal goes to all processes.
        (os.killpg if number == signal.SIGINT else os.kill)(ran.pid, number)
        assert until(lambda: not any(map(is_running, pids)), 2.0)
        assert "began" not in ran.stdout.read()


@pytest.mark.parametrize(("n_jobs", "jobs"), [(None, 1), (1, 1), (3, 3), (-1, -1)])
def test_the_number_of_jobs_is_that_of_scikit_learn(n_jobs: int | None, jobs: int):
    assert read_jobs(n_jobs) == jobs


@pytest.mark.parametrize("n_jobs", [0, -2, True, 1.5, "2"])
def test_another_number_of_jobs_is_refused(n_jobs: Any):
    with pytest.raises(UsageError, match="must be None, a number of processes from 1, or -1"):
        read_jobs(n_jobs)


def test_all_jobs_are_the_cores_that_memory_can_feed(monkeypatch: pytest.MonkeyPatch):
    cores = len(os.sched_getaffinity(0))
    assert 1 <= usable_jobs(-1, 99) <= cores
    assert [usable_jobs(8, 3), usable_jobs(2, 3), usable_jobs(2, 0)] == [3, 2, 1]
    half = {os.sched_getaffinity(0).pop()}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, half)
    try:
        assert usable_jobs(-1, 99) == 1
    finally:
        os.sched_setaffinity(0, before)
