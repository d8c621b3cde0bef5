"""Progress on standard error, the stop of what takes long, and a quicker import.

Progress is a bar on a terminal and lines elsewhere.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from flfed.callbacks import READING, WARNING, Clock, Progress, displaying, loading, repeating
from flfed.errors import RunStopped, Terminated, interruption

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console

SENTENCES = ("Waiting for ", "without ", WARNING)
"""Beginnings of stages that are printed even without a bar, so that nobody waits without knowing why."""
MINUTE = 60.0
LOADING = 1.0
"""Seconds after which an import that goes on is named."""
SOON = 10.0
"""Most and least seconds between two lines: a short run prints none."""
REDRAWN = 0.1
"""Seconds between two drawings of a bar."""
STEADY = 4.0
"""Seconds between two lines where a person waits for a short run."""
TENTHS = 10


@contextmanager
def progress(quiet: bool = False, *, steady: bool = False) -> Iterator[Progress]:
    """Yield a function that shows stages on standard error.

    On a pipe there is no bar, and a line is printed now and then: every `STEADY` seconds where `steady`. Where `quiet`,
    only waits and warnings are printed.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield _waiting
    elif console.is_terminal:
        with _bars(console) as show_stage:
            yield show_stage
    elif steady:
        with _steady_lines() as show_stage:
            yield show_stage
    else:
        # A redrawn bar would fill a log file.
        yield ProgressLines()


@contextmanager
def loading_line() -> Iterator[None]:
    """Import in a `with` block as `loading` does; a terminal gets a line on what takes a second or more."""
    if not sys.stderr.isatty():
        with loading(freeze=True):
            yield
        return
    timers = []

    def report_stage(stage: str, done: int, of: int) -> None:
        if done < of:
            timers.append(threading.Timer(LOADING, _to_stderr, (f"{stage} …",)))
            timers[0].daemon = True
            timers[0].start()
        else:
            timers[0].cancel()
            timers[0].join()

    with loading(report_stage, freeze=True):
        yield


@contextmanager
def _steady_lines() -> Iterator[Progress]:
    """Yield a function that takes stages; the last one is printed every few seconds, also while it stands still."""
    began = time.monotonic()
    words = READING

    def report_stage(stage: str, done: int, of: int) -> None:
        nonlocal words
        words = stage if of <= 1 else f"{stage}: {done} of {of}"

    def print_line() -> None:
        _to_stderr(f"{words}, {in_words(time.monotonic() - began)}")

    with repeating(STEADY, print_line):
        yield report_stage


class _Display:
    """Bars with a thread that draws them anew, and has ended when `stop` returns, as the thread of rich may not have.

    Parameters
    ----------
    bars : rich.progress.Progress
    """

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars
        self._shown = ExitStack()

    def start(self) -> None:
        self._shown.enter_context(self._bars)
        self._shown.enter_context(repeating(REDRAWN, self._bars.refresh))

    def stop(self) -> None:
        self._shown.close()


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
    bars = Progress(*columns, console=console, transient=True, auto_refresh=False)
    with displaying(_Display(bars)):
        # A stage without a count has no total: its bar moves, and its clock runs.
        tasks = {}
        stand_in = [bars.add_task(READING, total=None)]

        def show_stage(stage: str, done: int, of: int) -> None:
            # The first stage stands for the run's own stages until one of them begins.
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


_to_stderr: Callable[[str], None] = partial(typer.echo, err=True)


class ProgressLines:
    """Lines with the progress of a stage and the time left, for each tenth or each minute.

    Parameters
    ----------
    say : callable
    clock : callable
        Seconds; tests pass their own.
    soon : float, seconds
        Least time between two lines.
    """

    def __init__(
        self, say: Callable[[str], None] = _to_stderr, clock: Clock = time.monotonic, soon: float = SOON
    ) -> None:
        self._say = say
        self._clock = clock
        self._soon = soon
        self._began: dict[str, tuple[float, int]] = {}
        self._last = clock()
        self._tenth = 0

    def __call__(self, stage: str, done: int, of: int) -> None:
        """Print the progress of a stage, if a line is due."""
        if of <= 1:
            _waiting(stage, done, of, self._say)
            return
        now = self._clock()
        tenth = done * TENTHS // of
        if stage not in self._began:
            self._began[stage] = (now, done)
            self._tenth = tenth
        waited = now - self._last
        if waited < self._soon or (waited < MINUTE and tenth <= self._tenth):
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
    """Print a stage that is a sentence, and no other."""
    if (done, of) == (0, 1) and stage.startswith(SENTENCES):
        say(stage)


@contextmanager
def stoppable(when: str = "before a run began") -> Iterator[None]:
    """Let SIGTERM stop a long command as Ctrl-C does: its results so far are kept.

    `when` ends the sentence where the stop came before the first result.
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
