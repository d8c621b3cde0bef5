"""Supervision of child processes.

They are started, watched, restarted, logged and ended together.

Run as a program (`python -m flfed.deployment.processes.supervisor PARENT COMMAND…`) it becomes the command, bound to
the life of its parent. The kernel kills it when the parent dies in any way.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn, Self

from flfed.callbacks import Clock, Notify, silent
from flfed.deployment.processes.child_processes import BUSY, Pulse, passed_on, python
from flfed.words import render

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0, 30.0)
"""Seconds before a child that ended is started again, by how often it ended. The first six reach past the 60 seconds
for which Flower refuses a node that was killed and comes back."""
STEADY_SECONDS = 60.0
"""After a run of this length a child's earlier ends no longer count."""
LOOK_SECONDS = 0.2
STAND_STILL_SECONDS = 5.0
"""A longer time between two looks means that this process, or the machine, stood still, and its children with it."""
LOG_BYTES = 5_000_000
"""Size limit of a child's log, and of the log before it."""
OURS = "flfed: "
LONGEST = 300
"""Prefix of flfed's sentences in a child's output; so many characters of the last one are reported."""
NEWS = "flfed says: "
"""Prefix of a sentence that is reported at once, and not at the child's end."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Life:
    """A child's signs of life.

    Attributes
    ----------
    pulse : Pulse
    silence : float, seconds
        Longest time without one: then the child is ended, and started again.
    meaning : str
        Meaning of the silence, as "has not reached its node".
    startup : float, seconds
        Longest time until the first sign: a busy machine imports slowly.
    """

    pulse: Pulse
    silence: float
    meaning: str
    startup: float = 0.0


@dataclass(frozen=True)
class Child:
    """One process to keep running.

    Attributes
    ----------
    name : str
        Its name in messages.
    command : tuple of str
        Shown to every local user by the system: it must have no secret.
    log : Path
        File of its output, readable by its owner alone; `LOG.1` has the earlier output.
    environment : mapping of str to str
        Added to the variables that this process passes on (`child_processes`).
    life : Life, optional
        Its signs of life; without them it is started again only after its end.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    life: Life | None = None


@dataclass
class LimitedLog:
    """Log file with a size limit.

    A full file replaces the one that was put aside before.

    Parameters
    ----------
    path : Path
    limit : int, bytes
    news : callable
        Receives at once the sentences that begin with NEWS.
    """

    path: Path
    news: Notify = silent
    limit: int = LOG_BYTES
    last_sentence: str = ""

    def take(self, stream: IO[bytes]) -> None:
        """Write a stream to the log until it ends.

        Where the disk is full, the output is lost.

        `last_sentence` is flfed's last one in it.
        """
        self.last_sentence = ""
        while data := os.read(stream.fileno(), 65536):
            lines = data.decode(errors="replace").splitlines()
            # News are reported at once; of the other sentences only the last one, at the child's end.
            for who, colon, sentence in (line.partition(": ") for line in lines):
                if who + colon == NEWS:
                    self.news(sentence[:LONGEST])
                elif who + colon == OURS:
                    self.last_sentence = sentence[:LONGEST]
            with suppress(OSError):
                self.write(data)

    def write(self, data: bytes) -> None:
        """Append to the file."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_size + len(data) > self.limit:
                os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "ab") as file:
            file.write(data)


class _ChildRunner:
    """One child over its lives."""

    def __init__(self, child: Child, notify: Notify) -> None:
        self.child = child
        self.log = LimitedLog(child.log, lambda sentence: notify(f"{child.name}: {sentence}"))
        self.process: subprocess.Popen[bytes] | None = None
        self.began = self.due = self.heard = 0.0
        self._seen: int | None = None
        self.ends = 0
        self._reader = threading.Thread()

    def start(self, now: float) -> None:
        """Start the child in its own process group.

        Ctrl-C reaches the supervisor alone, which ends its children in order.
        """
        if self.child.life is not None:
            self.child.life.pulse.forget()
        self.process = subprocess.Popen(
            python("flfed.deployment.processes.supervisor", str(os.getpid()), *self.child.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**passed_on(), **self.child.environment},
            start_new_session=True,
        )
        self.began = now
        self.heard = now
        self._seen = None
        self._reader = threading.Thread(target=self.log.take, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def ended(self) -> int | None:
        """Return the exit code of a child that ended, once."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self._bury()
        return code

    def silence(self, now: float) -> str:
        """Return a sentence where the child was silent for too long.

        It is empty elsewhere. The supervisor's clock counts, whatever the file's time is.
        """
        life = self.child.life
        if life is None or self.process is None:
            return ""
        seen = life.pulse.seen()
        # Any change of the file's time counts, also backwards: only the supervisor's clock measures.
        if seen == BUSY or seen != self._seen:
            self._seen = seen
            self.heard = now
        limit = max(life.silence, life.startup) if self._seen is None else life.silence
        if now - self.heard >= limit:
            return render("processes.child.silence", meaning=life.meaning, seconds=limit)
        return ""

    def end(self, patience: float) -> None:
        """End the child.

        It gets a signal first, and is killed where it has not ended after `patience` seconds.
        """
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self._bury()

    def _bury(self) -> None:
        """Kill the rest of the child's group."""
        if self.process is None:
            return
        # Processes that the child had started would go on without supervision.
        self._signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(2.0)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()
        self.process = None

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """Supervisor of child processes.

    It keeps them running, and ends all of them, the last one first.

    Parameters
    ----------
    children : sequence of Child
        In the order in which they are started.
    notify : callable
        Receives a sentence when a child ends, with the time of its next start.
    pauses : sequence of float, seconds
        Before a child is started again, by how often it has ended; the last one counts from there on.
    patience : float, seconds
        How long a child may take to end.
    clock : callable
        Seconds; tests pass their own.

    Notes
    -----
    On Linux a child is killed when the thread that started it dies, so that a killed supervisor leaves no process
    behind. Start and supervise in one thread, which lives as long.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        notify: Notify = silent,
        pauses: Sequence[float] = PAUSES,
        patience: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._runners = {child.name: _ChildRunner(child, notify) for child in children}
        self._notify = notify
        self._pauses = tuple(pauses)
        self._patience = patience
        self._clock = clock
        self._looked = clock()

    def __enter__(self) -> Self:
        """Start all children, or none.

        Where one cannot be started, the others are ended.
        """
        try:
            for runner in self._runners.values():
                runner.start(self._clock())
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all children."""
        self.end()

    @property
    def processes(self) -> dict[str, int]:
        """Process ids of the children that run, by name."""
        return {name: runner.process.pid for name, runner in self._runners.items() if runner.process is not None}

    def supervise(self, stop: threading.Event, also: Callable[[], None] = lambda: None) -> None:
        """Watch the children until `stop` is set.

        `also` is called after each look, five times a second.
        """
        while not stop.wait(LOOK_SECONDS):
            self.look()
            also()

    def look(self) -> None:
        """Notice ended and silent children, and restart them.

        A child is started again when its pause is over.
        """
        stood_still = self._clock() - self._looked > STAND_STILL_SECONDS
        self._looked = self._clock()
        for runner in self._runners.values():
            code = runner.ended()
            now = self._clock()
            # While the machine slept no process could touch a file: that is no silence.
            if stood_still:
                runner.heard = now
            if code is not None:
                self._note_end(runner, now, render("processes.child.ended", name=runner.child.name, how=in_words(code)))
            elif silence := runner.silence(now):
                runner.end(self._patience)
                self._note_end(runner, now, render("processes.child.killed", name=runner.child.name, silence=silence))
            if runner.process is None and now >= runner.due:
                runner.start(now)

    def _note_end(self, runner: _ChildRunner, now: float, what: str) -> None:
        """Report a child's end and its next start."""
        # After a long run a child begins with the shortest pause again.
        runner.ends = 1 if now - runner.began >= STEADY_SECONDS else runner.ends + 1
        pause = self._pauses[min(runner.ends, len(self._pauses)) - 1]
        runner.due = now + pause
        last = runner.log.last_sentence
        detail = f": {last}" if last else ""
        facts = {"event": what, "detail": detail, "log": runner.child.log, "pause": pause}
        self._notify(render("processes.child.again", **facts))

    def renew(self, name: str) -> None:
        """Restart one child at once.

        The files that it reads at its start have changed.
        """
        runner = self._runners[name]
        runner.end(self._patience)
        runner.start(self._clock())

    def end(self) -> None:
        """End the children, the one started last first."""
        for runner in reversed(self._runners.values()):
            runner.end(self._patience)


def in_words(code: int) -> str:
    """Return an exit code in words.

    Examples
    --------
    >>> in_words(1), in_words(-9)
    ('exit code 1', 'SIGKILL')
    """
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event set by SIGTERM and SIGINT.

    It replaces the handlers of these signals; for the main thread only.
    """
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def become(parent: int, command: Sequence[str]) -> NoReturn:
    """Become the command, tied to its parent's life.

    On Linux the kernel kills it when `parent` dies; elsewhere it just becomes the command.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before this call; then another process is the parent.
        if os.getppid() != parent:
            sys.exit(1)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.exit(render("processes.child.unstarted", command=command[0], why=error.strerror))


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
