"""Tasks on the nodes of a Ray cluster.

On each node an actor starts processes, as a fork server does on this machine, and passes on their bytes. All that it
receives and returns comes in pieces that Ray carries within its calls: no row reaches Ray's object store, whose objects
Ray writes to a disk where memory is short. A node receives the tables once, for all its processes.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from flfed.callbacks import WARNING, Jobs, Progress
from flfed.errors import require_extra
from flfed.paths import home
from flfed.tasks import ALL, WORKER_BYTES, Packed, memory_file, start_served
from flfed.words import render, usage_error

ADDRESS = re.compile(r"auto|ray://[^/\s]+:\d+")
PIECE = 64 * 1024
"""Bytes of a call. Ray carries at most 100 KiB within a call, and 10 MiB within all that wait."""
PIECES_AT_ONCE = 32
START_SECONDS = 60.0
"""How long a node may take to start its actor; it waits for cores that other programs use."""
END_SECONDS = 1.0
PASSED_ON = re.compile(r"FLFED_(?!STORE).*|(OMP|OPENBLAS|MKL)_NUM_THREADS")
"""Settings of this process that nodes get: without the store, which it alone opens, and its password."""


class NodeProcesses:
    """The processes of one node: the actor.

    Parameters
    ----------
    environment : mapping of str to str
        Settings of the driver.
    path : sequence of str
        Folders in which the driver finds modules.
    """

    def __init__(self, environment: Mapping[str, str], path: Sequence[str]) -> None:
        os.environ.update(environment)
        sys.path += [folder for folder in path if folder not in sys.path]
        self._lock = threading.Lock()
        self._packed: dict[str, Packed] = {}
        self._processes: dict[int, tuple[Any, Connection]] = {}

    def ready(self) -> bool:
        """Return true as soon as the actor runs."""
        return True

    def prepare(self, key: str, bounds: list[tuple[int, int]]) -> None:
        """Prepare the memory for packed tasks."""
        self._packed[key] = Packed(key, memory_file(), bounds)

    def add(self, key: str, start: int, piece: bytes) -> None:
        """Add a piece of packed tasks, in any order."""
        os.pwrite(self._packed[key].file.fileno(), piece, start)

    def begin(self, number: int, key: str) -> None:
        """Start a process for packed tasks."""
        node_end, process_end = Pipe()
        with self._lock:
            process = start_served(process_end, self._packed[key])
        process_end.close()
        self._processes[number] = (process, node_end)

    def send(self, number: int, piece: bytes) -> None:
        """Pass bytes on to a process."""
        view = memoryview(piece)
        with suppress(OSError):  # it was killed, which the next `receive` returns
            while view:
                view = view[os.write(self._processes[number][1].fileno(), view) :]

    def receive(self, number: int) -> bytes | int:
        """Return the next bytes of a process, or its exit code."""
        process, node_end = self._processes[number]
        with suppress(ConnectionResetError):
            piece = os.read(node_end.fileno(), PIECE)
            if piece:
                return piece
        process.join()
        return int(process.exitcode or 0)

    def end(self, number: int) -> None:
        """Kill a process."""
        if number in self._processes:
            self._processes[number][0].kill()

    def drop(self, key: str) -> None:
        """Free the memory of packed tasks."""
        if key in self._packed:
            self._packed.pop(key).file.close()


class Node:
    """A node, and its actor.

    Parameters
    ----------
    name : str
    actor : handle of Ray
    cores : int
    """

    def __init__(self, name: str, actor: Any, cores: int) -> None:
        self.name = name
        self.actor = actor
        self.cores = cores
        self.is_lost = False
        self.running = 0
        self._lock = threading.Lock()
        self._loaded: set[str] = set()

    def load(self, packed: Packed) -> None:
        """Send packed tasks, unless the node has them."""
        import ray

        with self._lock:
            if packed.key in self._loaded:
                return
            ray.get(self.actor.prepare.remote(packed.key, packed.bounds))
            waiting: list[Any] = []
            for start in range(0, packed.bounds[-1][1], PIECE):
                piece = os.pread(packed.file.fileno(), PIECE, start)
                waiting.append(self.actor.add.remote(packed.key, start, piece))
                if len(waiting) == PIECES_AT_ONCE:
                    ray.get(waiting.pop(0))
            ray.get(waiting)
            self._loaded.add(packed.key)

    def end(self) -> None:
        """End the actor and its processes, without waiting."""
        import ray

        self.is_lost = True
        ray.kill(self.actor)


class NodeProcess:
    """A process on a node, as the driver sees it; its bytes pass through two threads.

    Parameters
    ----------
    node : Node, optional
        Where all nodes are lost, the process has ended at once.
    number : int
    connection : Connection
        The end of the process.
    packed : Packed
    """

    def __init__(self, node: Node | None, number: int, connection: Connection, packed: Packed) -> None:
        self.exitcode = -signal.SIGKILL.value
        self._node = node
        self._number = number
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._threads: list[threading.Thread] = []
        if node is None:
            self._socket.close()
            return
        node.running += 1
        self._run(partial(self._send, node, packed))

    def _run(self, action: Callable[[], None]) -> None:
        """Run one direction in a thread; when it ends, so does the connection."""

        def run() -> None:
            import ray

            try:
                action()
            # The driver has closed its end, or the packed tasks.
            except (OSError, ValueError, ray.exceptions.RayTaskError):
                with suppress(OSError, ray.exceptions.RayError):  # its connection to the cluster may be lost, too
                    self.kill()
            except ray.exceptions.RayError:
                with suppress(OSError, ray.exceptions.RayError):
                    self._lose()
            finally:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _send(self, node: Node, packed: Packed) -> None:
        """Start the process, and send it what the driver writes."""
        import ray

        node.load(packed)
        ray.get(node.actor.begin.remote(self._number, packed.key))
        self._run(partial(self._receive, node))
        while piece := self._socket.recv(PIECE):
            ray.get(node.actor.send.remote(self._number, piece))
        self.kill()

    def _receive(self, node: Node) -> None:
        """Pass on what the process writes, until it ends."""
        import ray

        while isinstance(piece := ray.get(node.actor.receive.remote(self._number)), bytes):
            self._socket.sendall(piece)
        self.exitcode = piece

    def _lose(self) -> None:
        if self._node is not None and not self._node.is_lost:
            self._node.end()

    def kill(self) -> None:
        """End the process, without waiting."""
        if self._node is not None and not self._node.is_lost:
            self._node.actor.end.remote(self._number)

    def join(self) -> None:
        """Wait for the end of its threads, for a moment."""
        for thread in self._threads:
            thread.join(END_SECONDS)
        self._socket.close()
        if self._node is not None:
            self._node.running -= 1


class Cluster:
    """The nodes of a Ray cluster, with an actor on each.

    Parameters
    ----------
    nodes : sequence of Node
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._numbers = itertools.count()

    @property
    def processes(self) -> int:
        """How many processes may run at a time."""
        return sum(node.cores for node in self._living())

    def _living(self) -> list[Node]:
        return [node for node in self._nodes if not node.is_lost]

    def start(self, connection: Connection, packed: Packed) -> NodeProcess:
        """Start a process on the node with most free cores."""
        node = max(self._living(), key=lambda node: node.cores - node.running, default=None)
        return NodeProcess(node, next(self._numbers), connection, packed)

    def drop(self, key: str) -> None:
        """Free the memory of packed tasks on all nodes."""
        for node in self._living():
            node.actor.drop.remote(key)

    def end(self) -> None:
        """End all actors and their processes, without waiting."""
        for node in self._nodes:
            node.end()


@contextmanager
def opened_jobs(jobs: int, address: str | None, progress: Progress) -> Iterator[Jobs]:
    """Yield where tasks run: in processes of this machine, or on a cluster whose actors end with the block.

    Parameters
    ----------
    jobs : int
        Most processes, on all nodes together; `tasks.ALL` for all cores that memory can feed.
    address : str, optional
        Of the cluster: `auto`, or `ray://HOST:PORT`. A program that called `ray.init` has its cluster.
    progress : callable (stage, done, of)
        Receives a sentence for each node with another processor, or that gives no cores.

    Raises
    ------
    UsageError
        If there is no such cluster, no node gives a core, or one has another flfed, torch, numpy or data folder.
    """
    if address is None:
        yield jobs
        return
    if not ADDRESS.fullmatch(address):
        raise usage_error("run.cluster.address", address=address)
    require_extra("ray", "--cluster", "ray")
    with _ray(address):
        cluster = Cluster(_started(_compared(_listed(), progress), jobs, progress))
        try:
            yield cluster
        finally:
            cluster.end()


@contextmanager
def _ray(address: str) -> Iterator[None]:
    """Connect to Ray, unless the program has."""
    import ray

    if ray.is_initialized():
        yield
        return
    on_term = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        # Of many small calls, of files that Python closes, and of changes to come.
        for module in ("ray", "google"):
            warnings.filterwarnings("ignore", module=module)
        warnings.filterwarnings("ignore", "unclosed file .*/dev/null", ResourceWarning)
        try:
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise usage_error("run.cluster.absent", address=address, kind=type(error).__name__) from error
        # Ray would end the process at once, and the run's end would not be recorded.
        if callable(on_term) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)
        try:
            yield
        finally:
            ray.shutdown()
            gc.collect()  # while the warnings of unclosed files are silenced


def _listed() -> list[dict[str, Any]]:
    """Return the living nodes that have cores and memory for a process, as Ray describes them."""
    import ray

    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [node for node in nodes() if node["Alive"] and _cores_of(node)]


def _cores_of(node: Mapping[str, Any]) -> int:
    """Return the cores of a node that its memory can feed."""
    resources = node["Resources"]
    return min(int(resources.get("CPU", 0)), int(resources.get("memory", 0)) // WORKER_BYTES)


def _probe() -> Callable[[str], dict[str, str]]:
    """Return a function that Ray sends whole: another flfed need not have this module."""

    def probe(token: str) -> dict[str, str]:
        import importlib.metadata
        import platform
        from pathlib import Path

        import flfed

        facts = {"flfed": flfed.__version__}
        for package in ("torch", "numpy"):
            facts[package] = importlib.metadata.version(package)
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        facts["processor"] = " ".join([platform.machine(), *models[:1]])
        facts["token"] = str(Path(token).is_file())
        return facts

    return probe


def _compared(nodes: Sequence[dict[str, Any]], progress: Progress) -> list[dict[str, Any]]:
    """Return the nodes that answer, after a comparison of each with this process."""
    import ray

    compared = []
    with _token() as token:
        ours = _probe()(token)
        remote = ray.remote(num_cpus=0)(_probe())
        for node, reply in [(node, remote.options(**_on(node)).remote(token)) for node in nodes]:
            name = node["NodeName"]
            try:
                _compare(name, ray.get(reply, timeout=START_SECONDS), ours, progress)
                compared.append(node)
            except ray.exceptions.RayTaskError as error:
                raise usage_error("run.cluster.silent", node=name, kind=type(error.cause).__name__) from None
            except ray.exceptions.RayError:  # the node was lost a moment ago
                progress(WARNING + render("run.cluster.busy", node=name), 0, 1)
    return compared


def _compare(node: str, theirs: dict[str, str], ours: dict[str, str], progress: Progress) -> None:
    """Refuse a node with another version or data folder; name another processor."""
    for package in ("flfed", "torch", "numpy"):
        if theirs[package] != ours[package]:
            versions = {"theirs": theirs[package], "ours": ours[package]}
            raise usage_error("run.cluster.version", node=node, package=package, **versions)
    if theirs["token"] != ours["token"]:
        raise usage_error("run.cluster.folder", node=node, folder=home())
    if theirs["processor"] != ours["processor"]:
        processors = {"theirs": theirs["processor"], "ours": ours["processor"]}
        progress(WARNING + render("run.cluster.processor", node=node, **processors), 0, 1)


@contextmanager
def _token() -> Iterator[str]:
    """Make a file in the data folder while the block runs."""
    path = home() / f".cluster-{secrets.token_hex(8)}"
    path.touch()
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _on(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of Ray that choose a node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


def _started(nodes: Sequence[dict[str, Any]], jobs: int, progress: Progress) -> list[Node]:
    """Return nodes with their actors: as few as have the cores."""
    import ray

    left = sys.maxsize if jobs == ALL else jobs
    environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    environment["FLFED_HOME"] = str(home())
    path = [os.path.abspath(folder) for folder in sys.path]
    starting: list[tuple[Node, Any]] = []
    for node in nodes:
        cores = min(_cores_of(node), left)
        left -= cores
        if cores:
            options = {"num_cpus": cores, "max_concurrency": 2 * cores + PIECES_AT_ONCE, **_on(node)}
            actor: Any = ray.remote(NodeProcesses).options(**options).remote(environment, path)
            starting.append((Node(node["NodeName"], actor, cores), actor.ready.remote()))
    ready = []
    end = time.monotonic() + START_SECONDS
    for started, reply in starting:
        try:
            ray.get(reply, timeout=max(0.0, end - time.monotonic()))
            ready.append(started)
        except ray.exceptions.RayError:
            started.end()
            progress(WARNING + render("run.cluster.busy", node=started.name), 0, 1)
    if not ready:
        raise usage_error("run.cluster.none")
    return ready
