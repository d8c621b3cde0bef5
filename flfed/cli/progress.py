"""How far something long is, on standard error: a bar on a terminal, lines elsewhere; its stop; a quicker import."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from flfed.callbacks import WARNING, Clock, Progress
from flfed.errors import RunStopped, Terminated, interruption

if TYPE_CHECKING:
    from rich.console import Console

FIRST = "reading tables"
SENTENCES = ("waiting for ", "without ", WARNING)
"""So begin stages that are said in lines where no bar is shown: nobody shall wait without a word."""
MINUTE = 60.0
SOON = 10.0
"""Seconds after which a line is printed in any case, and before which none is: a short run prints none."""
TENTHS = 10


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """Yield a function that shows stages on standard error while something long runs.

    Where there is no bar, since the output is piped, a line is printed now and then; where it is to be `quiet`, only
    who is waited for is said.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield _waiting
    elif console.is_terminal:
        with _bars(console) as show_stage:
            yield show_stage
    else:
        # A bar that is redrawn would fill a log file.
        yield ProgressLines()


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    """Yield a function that shows stages as bars."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    clocks = (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *clocks)
    with Progress(*columns, console=console, transient=True) as bars:
        # A stage that cannot be counted has no total: its bar moves, and its clock runs.
        tasks: dict[str, Any] = {}
        stand_in = [bars.add_task(FIRST, total=None)]

        def show_stage(stage: str, done: int, of: int) -> None:
            # The first stage is a stand-in until the run tells its own.
            while stand_in:
                bars.remove_task(stand_in.pop())
            if stage.startswith(WARNING):
                console.print(stage, markup=False)
                return
            many = of if of > 1 else None
            # A stage without a count has no full bar to show, and goes when it is done.
            over = many is None and done == of
            if stage not in tasks:
                if over:
                    return
                tasks[stage] = bars.add_task(stage, total=many)
            bars.update(tasks[stage], completed=done, total=many)
            if over:
                bars.remove_task(tasks.pop(stage))

        yield show_stage


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


class ProgressLines:
    """Lines that say how far a stage is and how long it will take: each tenth, or each minute.

    Parameters
    ----------
    say : callable
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(self, say: Callable[[str], None] = _to_stderr, clock: Clock = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._began: dict[str, tuple[float, int]] = {}
        self._last = clock()
        self._tenth = 0

    def __call__(self, stage: str, done: int, of: int) -> None:
        """Tell how much of a stage is done."""
        if of <= 1:
            _waiting(stage, done, of, self._say)
            return
        now = self._clock()
        tenth = done * TENTHS // of
        if stage not in self._began:
            self._began[stage] = (now, done)
            self._tenth = tenth
        waited = now - self._last
        if waited < SOON or (waited < MINUTE and tenth <= self._tenth):
            return
        self._last = now
        self._tenth = tenth
        since, before = self._began[stage]
        line = f"{stage}: {done} of {of}, {in_words(now - since)}"
        if before < done < of:
            line += f", about {in_words((now - since) / (done - before) * (of - done))} left"
        self._say(line)


def in_words(seconds: float) -> str:
    """Return a time in the two largest units.

    Examples
    --------
    >>> in_words(42.4), in_words(63), in_words(7384)
    ('42 s', '1 min 3 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _waiting(stage: str, done: int, of: int, say: Callable[[str], None] = _to_stderr) -> None:
    """Say a stage that is a sentence; show no other."""
    if (done, of) == (0, 1) and stage.startswith(SENTENCES):
        say(stage)


@contextmanager
def stoppable(when: str = "before a run began") -> Iterator[None]:
    """Let SIGTERM stop what is long as Ctrl-C does: what is done so far is kept, and a sentence says how to go on.

    `when` is said of either at which nothing was done yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        raise RunStopped(f"{interruption(error)} {when}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def loading() -> Iterator[None]:
    """Import in a `with` block without a look for garbage after every few hundred new objects.

    Modules are kept for good, so there is nothing to find; looking takes a sixth of a short run's
    seconds (measured). What was loaded is left out of later looks too.
    """
    # The second import finds everything loaded, and changes nothing.
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
