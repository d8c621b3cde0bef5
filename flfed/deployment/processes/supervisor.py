"""Supervision of child processes.

They are started, watched, started again, logged and ended together.

Run as a program (`python -m flfed.deployment.processes.supervisor PARENT COMMAND…`) it becomes the command, bound
to the life of its parent: the kernel kills it when the parent dies, however that happens.
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

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0, 30.0)
"""Seconds before a child that ended is started again, by how often it did: the first six reach past the
60 seconds within which Flower refuses a node that was killed and comes back."""
STEADY_SECONDS = 60.0
"""A child that ran this long has done well: what came before is forgotten."""
LOOK_SECONDS = 0.2
STAND_STILL_SECONDS = 5.0
"""Between two looks: then this process, or the whole machine, stood still, and its children with it."""
LOG_BYTES = 5_000_000
"""How much of a child's output is kept, and as much again of what came before."""
OURS = "flfed: "
LONGEST = 300
"""What a sentence of ours in a child's output begins with; of what was said last, so many characters are told."""
NEWS = "flfed says: "
"""What a sentence begins with that is told at once, and not when the child ends."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Life:
    """A child's signs of life.

    Attributes
    ----------
    pulse : Pulse
    silence : float, seconds
        How long none may come: then the child is ended, and started anew.
    meaning : str
        What it means that none came, as "has not reached its node".
    """

    pulse: Pulse
    silence: float
    meaning: str


@dataclass(frozen=True)
class Child:
    """One process to keep running.

    Attributes
    ----------
    name : str
        What it is called in messages.
    command : tuple of str
        Shown to every local user by the system: no secret may stand here.
    log : Path
        Where its output goes, readable by its owner only; `LOG.1` holds what came before.
    environment : mapping of str to str
        Added to what of this process's is passed on (`child_processes`).
    life : Life, optional
        Its signs of life; without them it is started anew only where it ends.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    life: Life | None = None


@dataclass
class LimitedLog:
    """Log file with a size limit.

    A full file is put aside, in place of the one put aside before.

    Parameters
    ----------
    path : Path
    limit : int, bytes
    news : callable
        Told at once the sentences that begin with NEWS.
    """

    path: Path
    news: Notify = silent
    limit: int = LOG_BYTES
    last_sentence: str = ""

    def take(self, stream: IO[bytes]) -> None:
        """Write a stream to the log until it ends.

        Where the disk is full, the output is lost.

        `last_sentence` is the last one of ours in it.
        """
        self.last_sentence = ""
        while data := os.read(stream.fileno(), 65536):
            lines = data.decode(errors="replace").splitlines()
            # News are told at once; of the other sentences only the last one, when the child has ended.
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
        self._log = LimitedLog(child.log, lambda sentence: notify(f"{child.name}: {sentence}"))
        self.process: subprocess.Popen[bytes] | None = None
        self.began = self.due = self._heard = 0.0
        self._seen: int | None = None
        self.ends = 0
        self._reader = threading.Thread()

    @property
    def last_sentence(self) -> str:
        """The last flfed sentence in the child's output."""
        return self._log.last_sentence

    def start(self, now: float) -> None:
        """Start the child in its own process group.

        Ctrl-C is for the supervisor, which ends its children in order.
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
        self._heard = now
        self._seen = None
        self._reader = threading.Thread(target=self._log.take, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def ended(self) -> int | None:
        """Return the exit code of a child that ended, once."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self._bury()
        return code

    def hear(self, now: float) -> None:
        """Count a sign of life that nobody could hear."""
        self._heard = now

    def silence(self, now: float) -> str:
        """Return how long the child has been silent.

        An empty text where that is not too long. It is counted by our clock, whatever the file's time says.
        """
        life = self.child.life
        if life is None or self.process is None:
            return ""
        seen = life.pulse.seen()
        # Any change of the file's time counts, also backwards: only our own clock measures.
        if seen == BUSY or seen != self._seen:
            self._seen = seen
            self._heard = now
        if now - self._heard >= life.silence:
            return f"{life.meaning} for {life.silence:g} s"
        return ""

    def end(self, patience: float) -> None:
        """End the child.

        It is asked first, and killed where it has not ended after `patience` seconds.
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
        # What the child had started would go on without anybody who looks after it.
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
        Told in a sentence when a child ends and when it will be started again.
    pauses : sequence of float, seconds
        Before a child is started again, by how often it has ended; the last one counts from there on.
    patience : float, seconds
        How long a child may take to end.
    clock : callable
        Seconds; tests pass their own.

    Notes
    -----
    On Linux a child is killed when the thread that started it dies, so that a supervisor that is
    killed leaves nothing behind: start and supervise in one thread, which lives as long.
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

        Where one cannot be started, those that were are ended.
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
            # While the machine slept nobody could touch a file: that is no silence.
            if stood_still:
                runner.hear(now)
            if code is not None:
                self._note_end(runner, now, f"{runner.child.name} ended ({in_words(code)})")
            elif silence := runner.silence(now):
                runner.end(self._patience)
                self._note_end(runner, now, f"{runner.child.name} {silence}, and was ended")
            if runner.process is None and now >= runner.due:
                runner.start(now)

    def _note_end(self, runner: _ChildRunner, now: float, what: str) -> None:
        """Report a child's end and its next start."""
        # A child that ran well for long begins with the shortest pause again.
        runner.ends = 1 if now - runner.began >= STEADY_SECONDS else runner.ends + 1
        pause = self._pauses[min(runner.ends, len(self._pauses)) - 1]
        runner.due = now + pause
        detail = f": {runner.last_sentence}" if runner.last_sentence else ""
        self._notify(f"{what}{detail}, see {runner.child.log}; started again in {pause:g} s")

    def renew(self, name: str) -> None:
        """Restart one child at once.

        What it reads at its start has changed.
        """
        runner = self._runners[name]
        runner.end(self._patience)
        runner.start(self._clock())

    def end(self) -> None:
        """End the children, the one started last first."""
        for runner in reversed(self._runners.values()):
            runner.end(self._patience)


def in_words(code: int) -> str:
    """Return an exit code as a person says it.

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

    It replaces what these signals do; for the main thread only.
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
        # It may have died before this was said; then somebody else is the parent.
        if os.getppid() != parent:
            sys.exit(1)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.exit(f"{command[0]}: cannot be started ({error.strerror}); is it installed?")


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
