"""Studies on two cores where people start them, and what goes wrong there: no hang, nothing lost, no process left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run as call
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from flfed import Study
from flfed.experiments.sweep import points_of, sweep
from flfed.federation.server.run import resume, run
from flfed.records.store.reader import RunReader
from flfed.study.study import Study as StudyText
from tests.federation.test_jobs import _rounds, arrays_of, begin, without_names, workers_of
from tests.federation.test_ray import processes_of
from tests.terminal import Dialogue
from tests.test_tasks import is_running, until

pytestmark = [pytest.mark.proof, pytest.mark.servers]

TIMES = 50
ROOT = Path(__file__).resolve().parents[1]
QUICK = {"rounds": 5, "compare.site-model": "same", "compare.resamples": 200}
LONG = {**QUICK, "rounds": 60}
REPEATS = 12
"""Two stacks, and so two tasks."""


def words_of(changes: dict[str, Any], *more: str) -> list[str]:
    """Return a command that runs a study in two processes."""
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    return ["study", "run", "wine", "--repeats", str(REPEATS), "--jobs", "2", *settings, *more]


def alone(changes: dict[str, Any]) -> list[str | None]:
    """Return the arrays of the same repeats in one process."""
    return arrays_of(run(Study.load("wine").replace(changes), repeats=REPEATS).run)


def newest() -> str:
    with RunReader.open() as reader:
        return reader.series("latest").series


@pytest.mark.timeout(3600)
def test_no_command_hangs_in_a_terminal_with_its_bar(home):
    arrays = alone(QUICK)
    for _ in range(TIMES):
        command = Dialogue(*words_of(QUICK), environment=os.environ, folder=ROOT)
        command.wait_for("rounds of", 300)
        # Processes are forked, although the bar has a thread.
        assert not [words for words in processes_of(home) if "forkserver" in words]
        assert command.ended(300) == 0
        assert arrays_of(newest()) == arrays
    assert not processes_of(home)


CELL = """
import multiprocessing.forkserver
from flfed import Study, run
study = Study.load("wine").replace({changes})
result = run(study, repeats={repeats}, n_jobs=2)
print(multiprocessing.forkserver._forkserver._forkserver_pid is not None)
"""


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("default")  # of Jupyter's packages
def test_no_kernel_of_jupyter_hangs(home):
    arrays = alone(QUICK)
    cell = nbformat.v4.new_code_cell(CELL.format(changes=QUICK, repeats=REPEATS))
    for _ in range(TIMES):
        notebook = nbformat.v4.new_notebook(cells=[cell])
        NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3").execute()
        assert "True" in notebook.cells[0].outputs[-1].text
        assert arrays_of(newest()) == arrays
    assert until(lambda: not processes_of(home), 10)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_kernel_that_is_interrupted_or_killed_ends_its_processes(number: int, home):
    manager, client = start_new_kernel(startup_timeout=300, kernel_name="python3")
    try:
        cell = client.execute(CELL.format(changes=LONG, repeats=REPEATS))
        assert until(lambda: _rounds() > 20, 300)
        assert len(tasks_of(home)) == 3  # a fork server, and two
        if number == signal.SIGINT:
            manager.interrupt_kernel()
            assert reply_to(cell, client)["ename"] == "RunStopped"
        else:
            os.kill(manager.provisioner.pid, signal.SIGKILL)
        assert until(lambda: len(tasks_of(home)) <= (number == signal.SIGINT), 2)
        if number == signal.SIGINT:
            cell = client.execute(f"from flfed import resume\nresume({newest()!r}, n_jobs=2)")
            assert reply_to(cell, client)["status"] == "ok"
        else:
            resume(newest(), jobs=2)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert arrays_of(newest()) == alone(LONG)


def reply_to(cell: str, client: Any) -> dict[str, Any]:
    """Return the kernel's reply to a cell: it may answer several questions of its start before."""
    while (reply := client.get_shell_msg(timeout=300))["parent_header"]["msg_id"] != cell:
        pass
    content: dict[str, Any] = reply["content"]
    return content


def tasks_of(home: Path) -> list[str]:
    """Return the processes of tasks, and their fork server."""
    return [words for words in processes_of(home) if "forkserver" in words]


def test_a_killed_driver_takes_its_processes_along_and_resume_goes_on(home):
    with begin(*words_of(LONG)) as ran:
        assert until(lambda: len(workers_of(ran.pid)) == 2 and _rounds() > 20, 300)
        workers = workers_of(ran.pid)
        ran.kill()
        assert until(lambda: not any(map(is_running, workers)), 2)
    goes_on()


GRID = {"lr": [0.05, 0.1, 0.2], "batch": [8, 16]}


@pytest.fixture
def swept() -> tuple[list[str], Any]:
    """Return the command of a sweep, and what it finds in one process."""
    study: StudyText = Study.load("wine").replace({"validation": 0.2, "rounds": 60})
    settings = ["--set", "validation=0.2", "--set", "rounds=60"]
    grid = [word for key, values in GRID.items() for word in ("--grid", f"{key}={','.join(map(str, values))}")]
    found = sweep(study, points_of(study, GRID))
    return ["study", "sweep", "wine", *settings, *grid, "--jobs", "2", "--json"], without_names(found.as_json())


@pytest.mark.parametrize("victim", ["process", "driver"])
def test_a_sweep_is_complete_though_a_process_or_the_driver_is_killed(victim: str, home, swept):
    words, found = swept
    before = _rounds()
    with begin(*words) as ran:
        assert until(lambda: len(workers_of(ran.pid)) == 2 and _rounds() > before + 20, 300)
        workers = workers_of(ran.pid)
        for pid in workers if victim == "process" else [ran.pid]:
            os.kill(pid, signal.SIGKILL)
        out, _ = ran.communicate(timeout=300)
    assert until(lambda: not any(map(is_running, workers)), 2)
    if victim == "driver":
        again = begin(*words)
        out, _ = again.communicate(timeout=300)
    shown = json.loads(out)
    assert "plan.lr" in shown["best"].pop("options")  # of the command alone
    assert without_names(shown) == found
    with RunReader.open() as reader:
        lost = [entry.status for entry in reader.runs() if entry.status != "completed"]
    assert set(lost) <= {"failed" if victim == "process" else "interrupted"}
    assert 1 <= len(lost) <= 2


@pytest.fixture
def small_disk(home: Path) -> Iterator[Callable[[int], None]]:
    """A function that fills the disk of this home up to so many KB."""
    mounted = call(["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "none", str(home)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")

    def fill(kilobytes: int) -> None:
        disk = os.statvfs(home)
        (home / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - kilobytes * 1024))

    yield fill
    call(["umount", "--lazy", str(home)], check=True)


@pytest.mark.parametrize(("kilobytes", "jobs"), [(0, "2"), (400, "2"), (700, "1"), (2000, "2"), (3500, "2")])
def test_a_full_disk_is_one_sentence_and_after_space_is_made_the_study_goes_on(
    kilobytes: int, jobs: str, home: Path, small_disk
):
    small_disk(kilobytes)
    with begin(*words_of(LONG, "--jobs", jobs)) as ran:
        _, said = ran.communicate(timeout=300)
    assert ran.returncode == (1 if kilobytes else 2)
    assert "Traceback" not in said and "free some disk space" in said
    assert said.count("flfed: ") == 1
    (home / "filler").unlink()
    if kilobytes:
        goes_on()
    assert not processes_of(home)


def goes_on() -> None:
    """Resume the newest study: no round of the store runs again, and the arrays are the undisturbed ones."""
    before = _rounds()
    rounds: list[int] = []
    name = newest()
    assert resume(name, jobs=2, observer=lambda stage, round: rounds.append(round) if stage == "round" else None)
    assert 0 < len(rounds) <= REPEATS * LONG["rounds"] - before
    assert arrays_of(name) == alone(LONG)
