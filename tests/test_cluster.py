"""Tasks on a Ray cluster of two nodes, which these tests start: the same arrays, and what is lost with a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import Study, federate
from flfed.callbacks import WARNING, no_progress
from flfed.cluster import opened_jobs
from flfed.errors import UsageError
from flfed.experiments.audit import audit
from flfed.experiments.sweep import points_of, sweep
from flfed.federation.server.run import resume, run
from flfed.records.store.reader import RunReader
from flfed.tasks import ALL, Tasks, read_jobs, usable_jobs
from tests.federation.test_jobs import _rounds, arrays_of, begin, without_names
from tests.federation.test_ray import processes_of
from tests.test_tasks import is_running, killed, scaled, until

pytestmark = pytest.mark.servers

NODES = """
import sys
from ray.cluster_utils import Cluster
config = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
head = {**small, "include_dashboard": False, "_system_config": config}
cluster = Cluster(initialize_head=True, head_node_args=head)
print(cluster.address, flush=True)
for line in sys.stdin:
    node = cluster.add_node(**small, env_vars={"PYTHONPATH": line.strip()})
    print(node.all_processes["raylet"][0].process.pid, flush=True)
cluster.shutdown()
"""


class Nodes:
    """A Ray cluster of this machine, of one node at first."""

    def __init__(self) -> None:
        # Ray's processes would wait for all others of a machine that is busy.
        environment = {**os.environ, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        pipe = subprocess.PIPE
        self._ran = subprocess.Popen(
            [sys.executable, "-c", NODES], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self.address = self._line()
        self.second = self.add(os.environ.get("PYTHONPATH", ""))

    def _line(self) -> str:
        assert self._ran.stdout is not None
        return self._ran.stdout.readline().strip()

    def add(self, path: str) -> int:
        """Add a node with a path of modules, and return the number of its process."""
        assert self._ran.stdin is not None
        self._ran.stdin.write(f"{path}\n")
        self._ran.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        self._ran.communicate(timeout=60)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.close()


@pytest.fixture(autouse=True)
def address(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` be the cluster of this file, whose second node lives."""
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    if not is_running(nodes.second):
        nodes.second = nodes.add(os.environ.get("PYTHONPATH", ""))


def on_nodes(action: Callable[[Any], Any], jobs: int = ALL, shown: list[str] | None = None) -> Any:
    """Return what a function returns that gets the cluster."""
    sentences: list[str] = [] if shown is None else shown
    with opened_jobs(jobs, "auto", lambda stage, *_: sentences.append(stage)) as cluster:
        return action(cluster)


def stored_objects() -> float:
    """Return the bytes in the object stores of all nodes."""
    import ray

    return ray.cluster_resources()["object_store_memory"] - ray.available_resources()["object_store_memory"]


@pytest.mark.proof
def test_repeats_and_points_have_the_same_arrays_on_two_nodes_and_no_row_is_in_an_object_store(home):
    wine = Study.load("wine").replace({"rounds": 3})
    points = points_of(wine.replace({"validation": 0.2}), {"lr": [0.1, 0.3, 0.5]})
    alone, alone_swept = run(wine, repeats=13), sweep(wine, points)
    threads = threading.active_count()

    def all_of(cluster: Any) -> tuple[str, Any, Any, float]:
        assert [usable_jobs(cluster, tasks) for tasks in (1, 2, 9)] == [1, 2, 2]
        functions = {"note": lambda place, task: None, "twice": lambda place, task: 2 * task}
        # A hundred pieces.
        begun = Tasks(partial(scaled, np.arange(800_000.0)), [1, 13, 4], cluster, functions=functions)
        with begun:
            outcomes = dict(begun)
        ran, swept = run(wine, repeats=13, jobs=cluster), sweep(wine, points, jobs=cluster)
        return ran.run, outcomes, swept, stored_objects()

    shown: list[str] = []
    name, outcomes, swept, stored = on_nodes(all_of, shown=shown)
    assert shown == []
    # The sum of 0 … 799,999; each of two nodes has a fork server.
    assert [outcomes[place][0] for place in (0, 2)] == [319_999_600_000.0, 1_279_998_400_000.0]
    assert (type(outcomes[1]), str(outcomes[1])) == (UsageError, "no thirteen")
    assert arrays_of(name) == arrays_of(alone.run)
    assert without_names(swept.as_json()) == without_names(alone_swept.as_json())
    assert arrays_of_points(swept) == arrays_of_points(alone_swept)
    assert stored == 0
    assert until(lambda: threading.active_count() == threads, 10)
    assert until(lambda: not processes_of(home), 10)
    assert not list(home.glob(".cluster-*"))


def arrays_of_points(swept: Any) -> list[str | None]:
    with RunReader.open() as reader:
        return [reader.runs_of(point.run)[0].arrays_sha256 for point in swept.ranked()]


OTHERS = {
    "flfed": ("flfed/__init__.py", '__version__ = "0.0.1"\n'),
    "numpy": ("numpy-0.0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n"),
    "torch": ("torch-0.0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n"),
}
"""What a node loads in place of ours: a file before all others on its path."""


@pytest.mark.parametrize(
    "package", ["flfed", pytest.param("numpy", marks=pytest.mark.proof), pytest.param("torch", marks=pytest.mark.proof)]
)
def test_another_version_is_refused_before_a_row_is_sent(package: str, nodes, tmp_path, monkeypatch):
    message = rf"has {package} 0\.0\.1, and this process \d.*: install the same"
    with other_node(nodes, tmp_path, monkeypatch, *OTHERS[package]), pytest.raises(UsageError, match=message):
        on_nodes(lambda cluster: None)


@pytest.mark.proof
def test_another_processor_is_reported(nodes, tmp_path, monkeypatch):
    shown: list[str] = []
    code = "import platform\nplatform.machine = lambda: 'riscv64'\n"
    path = os.environ.get("PYTHONPATH", "")
    with other_node(nodes, tmp_path, monkeypatch, "sitecustomize.py", code, path):
        assert on_nodes(lambda cluster: cluster.processes, shown=shown) == 3
    assert len(shown) == 1
    assert shown[0].startswith(WARNING)
    assert "has another processor (riscv64" in shown[0]


@contextmanager
def other_node(
    nodes: Nodes, folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, path: str = ""
) -> Iterator[None]:
    """Add a node that finds a file before all others, while the block runs."""
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(text)
    # Ray lets nodes find modules in the driver's working folder first.
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    number = nodes.add(os.pathsep.join(filter(None, [str(folder), path])))
    try:
        yield
    finally:
        os.kill(number, signal.SIGKILL)
        assert until(lambda: not is_running(number), 10)


@pytest.mark.parametrize("address", ["here", "local", "ray://head", "10.0.0.1:6379", ""])
def test_another_address_is_refused(address: str):
    with pytest.raises(UsageError, match="must be auto, or ray://HOST:PORT"), opened_jobs(1, address, no_progress):
        pass


def killing_its_node(folder: Path, raylet: int, task: int, driver: Any) -> int:
    """Kill the second node in the first try of task 2; return how many tries there were before."""
    tries = len(list(folder.glob(f"{task}-*")))
    (folder / f"{task}-{tries}").touch()
    if task == 2 and tries == 0:
        os.kill(raylet, signal.SIGKILL)
    time.sleep(1)
    return tries


@pytest.mark.proof
def test_a_killed_node_or_process_costs_its_tasks_a_try_and_nobody_else(nodes, tmp_path):
    """Sweep below: a whole study. Here: each try is counted."""
    lost: list[int] = []
    (tmp_path / "node").mkdir()

    def outcomes(cluster: Any) -> tuple[dict[int, Any], ...]:
        with Tasks(partial(killed, tmp_path, {1: 1, 2: 2, 3: 9}), range(5), cluster, lost=lost.append) as begun:
            first = dict(begun)
        with Tasks(partial(killing_its_node, tmp_path / "node", nodes.second), range(5), cluster) as begun:
            second = dict(begun)
        cluster.end()
        with Tasks(partial(killed, tmp_path, {}), range(2), cluster) as begun:
            return first, second, dict(begun)

    by_process, by_node, by_none = on_nodes(outcomes)
    assert [by_process[task] for task in (0, 1, 2, 4)] == [0, 1, 2, 0]
    assert "3 processes in turn ended in the middle of a task (exit code -9)" in str(by_process[3])
    assert sorted(lost) == [1, 2, 2, 3, 3, 3]
    # Either task may have been on the node that was killed.
    assert sum(by_node.values()) <= 2
    assert set(by_node) == set(range(5))
    # All nodes are lost.
    assert [str(by_none[task])[:22] for task in (0, 1)] == ["3 processes in turn en"] * 2


@pytest.mark.proof
def test_a_sweep_ends_complete_though_a_node_is_killed_in_the_middle(nodes, heart):
    study = Study.load("heart-disease").replace({"validation": 0.2, "rounds": 60})
    points = points_of(study, {"lr": [0.05, 0.1, 0.2], "batch": [16, 32]})
    alone = sweep(study, points)

    def swept_without_a_node(cluster: Any) -> Any:
        timer = threading.Thread(target=kill_later, args=(nodes.second,))
        timer.start()
        swept = sweep(study, points, jobs=cluster)
        timer.join()
        return swept

    swept = on_nodes(swept_without_a_node)
    assert not is_running(nodes.second)
    assert {point.status for point in swept.points} == {"completed"}
    assert arrays_of_points(swept) == arrays_of_points(alone)
    with RunReader.open() as reader:
        reasons = [entry.reason for entry in reader.runs() if entry.status == "failed"]
    assert reasons == ["its process was killed"]


def kill_later(raylet: int) -> None:
    """Kill a node with all its processes once rounds of the sweep are in the store."""
    with RunReader.open() as reader:
        before = len(reader.runs())
    assert until(lambda: new_rounds(before) > 20, 120)
    os.kill(raylet, signal.SIGKILL)


def new_rounds(before: int) -> int:
    with RunReader.open() as reader:
        entries = reader.runs()
    return sum(entry.rounds for entry in entries) if len(entries) > before + 1 else 0


@pytest.mark.proof
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_killed_driver_end_all_processes_of_nodes(number: int, home):
    words = ["study", "run", "wine", "--repeats", "12", "--set", "rounds=60", "--cluster", "auto"]
    with begin(*words) as ran:
        assert until(lambda: _rounds() > 20, 120)
        assert len(on_nodes_of(home)) >= 4  # a fork server and a process on each
        os.killpg(ran.pid, number)
        assert until(lambda: not on_nodes_of(home), 2 if number == signal.SIGINT else 10)
        assert ran.wait(30) == (3 if number == signal.SIGINT else -signal.SIGKILL)
        assert ran.stderr is not None
        said = ran.stderr.read()
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert "interrupted from the keyboard; all results so far are stored: flfed study resume" in said
    with RunReader.open() as reader:
        name = reader.series("latest").series
    assert on_nodes(lambda cluster: resume(name, jobs=cluster)).status == "completed"
    alone = run(Study.load("wine").replace({"rounds": 60}), repeats=12)
    assert arrays_of(name) == arrays_of(alone.run)


def on_nodes_of(home: Path) -> list[str]:
    """Return the processes of tasks on nodes."""
    return [command for command in processes_of(home) if "forkserver" in command]


SHIPPED = (
    "wine", "heart-disease", "breast-cancer", "diabetes", "preterm-birth", "taiwan-credit", "taiwan-credit-trees",
)  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_have_the_same_arrays(name: str, taiwan, heart):
    study = Study.load(name).replace({"rounds": 3, "compare.resamples": 200})
    # A task is ten repeats of a stack, or one of trees.
    repeats = 2 if name.endswith("trees") else 11
    alone = run(study, repeats=repeats)
    shared = on_nodes(lambda cluster: run(study, repeats=repeats, jobs=cluster))
    assert arrays_of(shared.run) == arrays_of(alone.run)
    assert without_names(shared.report) == without_names(alone.report)


@pytest.mark.proof
def test_an_audit_is_the_same():
    name = run(Study.load("wine").replace({"rounds": 3})).run
    attacks = ["membership-inference", "canaries"]
    first = audit(name, attacks=attacks)
    second = on_nodes(lambda cluster: audit(name, attacks=attacks, jobs=cluster))
    assert second.findings == first.findings
    assert len(first.findings) > 5


@pytest.mark.proof
def test_frames_of_a_program_reach_nodes():
    from sklearn.datasets import load_breast_cancer

    rows = load_breast_cancer(as_frame=True).frame
    tables = {"north": rows[0::2], "south": rows[1::2]}
    options: dict[str, Any] = {"target": "target", "rounds": 2, "repeats": 12, "holdout": 0, "say": lambda line: None}
    alone = federate(tables, **options)
    shared = federate(tables, cluster="auto", **options)
    assert arrays_of(shared.run) == arrays_of(alone.run)
    assert [read_jobs(None, "auto"), read_jobs(3, "auto")] == [ALL, 3]
