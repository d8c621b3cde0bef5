"""Tasks in several processes of this machine, with the driver as the one that records and shows them.

A process is forked where that is safe, so that it shares the tables that were read. Elsewhere a fork server starts it,
and it maps the tables from shared memory. The pools of joblib and concurrent.futures give up all tasks where one
process is killed, and none of their tasks can send its driver what it records.
"""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Self

from flfed import registry
from flfed.callbacks import WARNING, Progress, display_paused, no_progress
from flfed.errors import FlfedError
from flfed.words import flfed_error, render, usage_error

SAME = ("flfed", "torch", "numpy")
"""Packages of which the driver and its processes have one version."""
WORKER_BYTES = 400 * 2**20
"""Memory of a process beyond what it shares, by which the number of processes is chosen."""
TRIES = 3
"""Processes that a task may lose: the last one runs alone."""
ALL = -1
"""Number of jobs that stands for all cores that this process may use."""
PRELOADED = ["flfed.federation.server.run", "flfed.experiments.audit", "flfed.experiments.sweep"]
Run = Callable[[Any, "Driver"], Any]
"""Runs one task in a process, and returns what can be pickled."""


def read_jobs(n_jobs: int | None) -> int:
    """Return the number of jobs of a program's `n_jobs`: None is one, and -1 all cores that may be used.

    Raises
    ------
    UsageError
        For any other number below 1.
    """
    if n_jobs is None:
        return 1
    if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != ALL):
        raise usage_error("run.jobs.number", jobs=n_jobs)
    return n_jobs


def usable_jobs(jobs: int, tasks: int) -> int:
    """Return the number of processes for some tasks: `jobs`, or of `ALL` the cores that memory can feed."""
    if jobs == ALL:
        jobs = min(_allowed_cores(), _free_bytes() // WORKER_BYTES)
    return max(1, min(jobs, tasks))


def _allowed_cores() -> int:
    """Return the cores that affinity and control groups allow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota, period in _group_files("cpu.max"):
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _free_bytes() -> int:
    """Return the memory that this process may still take; without limit where that is unknown."""
    free = sys.maxsize
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = [line.split() for line in meminfo.read_text().splitlines()]
        free = min([int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"], default=free)
    for (most,), (used,) in zip(_group_files("memory.max"), _group_files("memory.current")):
        if most != "max":
            free = min(free, int(most) - int(used))
    return free


def _group_files(name: str) -> list[list[str]]:
    """Return the words of a file of this process's control group, and of each group above it."""
    groups = Path("/proc/self/cgroup")
    lines = groups.read_text().splitlines() if groups.is_file() else []
    words = []
    for line in lines:
        if line.startswith("0::"):
            folder = Path("/sys/fs/cgroup", line.removeprefix("0::").lstrip("/"))
            files = [place / name for place in (folder, *folder.parents)]
            words += [file.read_text().split() for file in files if file.is_file()]
    return words


def may_fork() -> bool:
    """Return whether this process may be forked: from its only Python thread, on Linux.

    A lock that another thread has at that moment would never be opened in the child.
    """
    alone = threading.current_thread() is threading.main_thread() and threading.active_count() == 1
    return alone and sys.platform == "linux"


class Driver:
    """The driver, as a task in another process sees it.

    Parameters
    ----------
    connection : Connection
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def call(self, name: str, *values: Any, **options: Any) -> Any:
        """Call a function of the driver and return its result; an error of it is raised here."""
        self._connection.send((True, name, values, options))
        error, result = self._connection.recv()
        if error is not None:
            raise error
        return result

    def post(self, name: str, *values: Any, **options: Any) -> None:
        """Call a function of the driver without waiting; an error of it is raised by the next `call`."""
        self._connection.send((False, name, values, options))

    def progress(self, stage: str, done: int, of: int) -> None:
        """Show the progress of the task."""
        self.post("progress", stage, done, of)


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    task: int | None = None
    error: Exception | None = None


class Tasks:
    """Tasks that run in other processes from now on; iterated over, their outcomes as they come.

    An outcome is the number of a task, and what it returned, or its error. A task whose process was killed is done
    again in a new one, then alone, and then has an error; the others stand. All processes end with the block, and when
    the driver ends.

    Parameters
    ----------
    run : callable (task, Driver)
    tasks : sequence
    jobs : int >= 1, or ALL
        Processes at a time.
    functions : mapping of name to callable (number of the task, ...)
        What tasks may call; they run in the driver.
    progress : callable (stage, done, of)
        Of all tasks together.
    lost : callable (number of the task)
        Receives each task whose process was killed.

    Raises
    ------
    NotShareable
        If processes cannot be forked here, nor receive what the tasks need.
    """

    def __init__(
        self,
        run: Run,
        tasks: Sequence[Any],
        jobs: int,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        progress: Progress = no_progress,
        lost: Callable[[int], None] = lambda task: None,
    ) -> None:
        self._count = len(tasks)
        self._jobs = usable_jobs(jobs, len(tasks))
        self._functions = {"progress": self._show, **(functions or {})}
        self._progress = progress
        self._lost = lost
        self._shown: dict[str, dict[int, int]] = {}
        self._waiting = deque(range(self._count))
        self._last_tries: deque[int] = deque()
        self._losses: Counter[int] = Counter()
        self._workers: list[_Worker] = []
        self._content = (run, tasks, registry.lent_classes())
        self._packed: Packed | None = None
        with display_paused():
            if not may_fork():
                self._packed = _pack(self._content)
        self._deal()

    def __enter__(self) -> Self:
        """Return the tasks, whose processes end with the block."""
        return self

    def __exit__(self, kind: object, error: object, trace: types.TracebackType | None) -> None:
        """End all processes."""
        if isinstance(error, KeyboardInterrupt):
            # A function that Ctrl-C interrupted has the store open, and so locked, for as long as its frame is there.
            traceback.clear_frames(trace)
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            self._close(worker)
        self._workers.clear()
        if self._packed is not None:
            self._packed.file.close()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield the number of each task and its outcome, as they end."""
        over = 0
        while over < self._count:
            self._deal()
            by_connection = {worker.connection: worker for worker in self._workers}
            for ready in wait(list(by_connection)):
                for outcome in self._receive(by_connection[ready]):  # type: ignore[index]  # all - of these are connections
                    over += 1
                    # The process goes on before anybody looks at its outcome.
                    self._deal()
                    yield outcome

    def finish(self, done: Callable[[int, Any], None]) -> None:
        """Call `done` with the number of each task and what it returned, as they end.

        After all have ended, the error of the first task that failed is raised.
        """
        errors: dict[int, Exception] = {}
        with self:
            for number, outcome in self:
                if isinstance(outcome, Exception):
                    errors[number] = outcome
                else:
                    done(number, outcome)
        for number in sorted(errors):
            raise errors[number]

    def _deal(self) -> None:
        """Give idle processes a task, and start processes for the others."""
        for worker in self._workers:
            if worker.task is None and self._waiting:
                self._give(worker, self._waiting.popleft())
        while self._waiting and len(self._workers) < self._jobs:
            self._give(self._start(), self._waiting.popleft())
        if self._last_tries and all(worker.task is None for worker in self._workers):
            for worker in self._workers:
                worker.process.kill()
                self._close(worker)
            self._workers.clear()
            self._give(self._start(), self._last_tries.popleft())

    def _give(self, worker: _Worker, task: int) -> None:
        worker.task = task
        self._send(worker, task)

    @staticmethod
    def _send(worker: _Worker, message: Any) -> None:
        with suppress(OSError):  # it was killed, which the next read shows
            worker.connection.send(message)

    def _receive(self, worker: _Worker) -> Iterator[tuple[int, Any]]:
        """Read one message of a process; yield the outcome of a task that ended."""
        try:
            waits, name, values, options = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._remove(worker)
            return
        task = worker.task or 0
        error = worker.error
        result = None
        if name == "over":
            worker.task = worker.error = None
            self._complete(task)
            # What it posted last may have failed after the task was done.
            yield task, error or values[0]
            return
        try:
            result = None if error else self._functions[name](task, *values, **options)
        except Exception as failed:  # noqa: BLE001 - raised again in the task
            error = failed
        worker.error = None if waits else error
        if waits:
            self._send(worker, (error, result))

    def _remove(self, worker: _Worker) -> Iterator[tuple[int, Any]]:
        """Remove a process that was killed; yield the outcome of its task after the last try."""
        self._workers.remove(worker)
        self._close(worker)
        task = worker.task
        if task is None:
            return
        self._losses[task] += 1
        self._lost(task)
        if self._losses[task] == TRIES:
            self._complete(task)
            yield task, flfed_error("run.jobs.killed", times=TRIES, code=worker.process.exitcode)
        elif self._losses[task] == TRIES - 1:
            self._last_tries.append(task)
        else:
            self._waiting.appendleft(task)

    @staticmethod
    def _close(worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()

    def _start(self) -> _Worker:
        """Start a process."""
        driver_end, worker_end = multiprocessing.Pipe()
        with display_paused(), _without_signals():
            if self._packed is None and may_fork():
                process = _forked(worker_end, lambda: self._content)
            else:
                # A thread may have begun since the first one.
                self._packed = self._packed or _pack(self._content)
                process = start_served(worker_end, self._packed)
        worker_end.close()
        worker = _Worker(process, driver_end)
        self._workers.append(worker)
        return worker

    def _show(self, task: int, stage: str, done: int, of: int) -> None:
        """Show the sum of a stage over all tasks."""
        if stage.startswith(WARNING):
            self._progress(stage, done, of)
            return
        shares = self._shown.setdefault(stage, {})
        shares[task] = max(done, shares.get(task, 0))
        self._progress(stage, sum(shares.values()), of * self._count)

    def _complete(self, task: int) -> None:
        """Count a task as whole in each of its stages."""
        for shares in self._shown.values():
            if task in shares:
                shares[task] = max(shares.values())


def open_tasks(
    run: Run, tasks: Sequence[Any], jobs: int, *, progress: Progress = no_progress, **options: Any
) -> Tasks | None:
    """Return tasks that run in other processes, or None where this process has to run them.

    That is so with one job or one task, or where the tasks cannot be sent. Parameters are those of `Tasks`.
    """
    if usable_jobs(jobs, len(tasks)) == 1:
        return None
    try:
        return Tasks(run, tasks, jobs, progress=progress, **options)
    except NotShareable:
        progress(WARNING + render("run.jobs.alone"), 0, 1)
        return None


class NotShareable(Exception):
    """What tasks need cannot be sent to another process."""


@dataclass(eq=False)
class Packed:
    """A pickled object in shared memory, which each process maps, with first and last byte of each part."""

    file: IO[bytes]
    bounds: list[tuple[int, int]]


def _pack(content: Any) -> Packed:
    """Return a pickled object.

    Raises
    ------
    NotShareable
        If it cannot be pickled, or only the program's own script could read it.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    except (pickle.PicklingError, TypeError, AttributeError):
        raise NotShareable from None
    # The script is not run again in the process, so that its classes are unknown there.
    if b"__main__" in head or "forkserver" not in multiprocessing.get_all_start_methods():
        raise NotShareable
    packed = Packed(_memory_file(), [])
    for part in (memoryview(head), *[buffer.raw() for buffer in buffers]):
        packed.file.write(bytes(-packed.file.tell() % 64))  # numpy's arrays are aligned
        start = packed.file.tell()
        packed.file.write(part)
        packed.bounds.append((start, packed.file.tell()))
    packed.file.flush()
    return packed


def _memory_file() -> IO[bytes]:
    """Return an open file in memory; where the system has none, in the folder of temporary files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("flfed"), "w+b")
    return tempfile.TemporaryFile()


def _versions() -> dict[str, str]:
    """Return the versions of these packages, as they are loaded."""
    return {name: str(sys.modules[name].__version__) for name in SAME if name in sys.modules}


def _unpack(file: Connection, bounds: Sequence[tuple[int, int]], versions: Mapping[str, str]) -> Any:
    """Return a packed object; its arrays share the pages until they are written to.

    Raises
    ------
    UsageError
        If the driver has other versions: a new fork server loads packages that were installed since a notebook began.
    """
    for package, theirs in _versions().items():
        ours = versions.get(package, theirs)
        if theirs != ours:
            raise usage_error("run.jobs.version", package=package, theirs=theirs, ours=ours)
    whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    head, *buffers = [whole[start:end] for start, end in bounds]
    return pickle.loads(head, buffers=buffers)


def _forked(connection: Connection, content: Callable[[], Any]) -> Any:
    """Return a started process that is forked from this one."""
    # Memory that no search for garbage touches stays shared.
    is_frozen = bool(gc.get_freeze_count())
    gc.freeze()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(connection, content), daemon=True)
    with warnings.catch_warnings():
        # Python 3.12 also counts the threads of libraries, which no process here needs.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    if not is_frozen:
        gc.unfreeze()
    return process


def start_served(connection: Connection, packed: Packed) -> Any:
    """Return a started process of the fork server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # A process can be given a connection, and so any file.
    file = Connection(os.dup(packed.file.fileno()), writable=False)
    content = partial(_unpack, file, packed.bounds, _versions())
    process = context.Process(target=_work, args=(connection, content, dict(os.environ)), daemon=True)
    # A program's script is not run again: without its guard it would start the study once more.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
        file.close()
    return process


@contextmanager
def _without_signals() -> Iterator[None]:
    """Hold Ctrl-C back in the block, and for good in a process that begins in it: its driver decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, content: Callable[[], Any], environment: Mapping[str, str] | None = None) -> None:
    """Run the tasks that the driver gives to this process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    os.environ.update(environment or {})
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    load = cache(content)
    driver = Driver(connection)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            run, tasks, classes = load()
            registry.lend_classes(classes)
            outcome = run(tasks[task], driver)
        except Exception as error:  # noqa: BLE001 - it is the outcome of the task
            if not isinstance(error, FlfedError):
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
            outcome = error
        try:
            driver.post("over", outcome)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            driver.post("over", RuntimeError(f"{type(outcome).__name__} cannot be sent: {type(error).__name__}"))


def _end_with_driver() -> None:
    """End this process as soon as its driver has ended."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)
