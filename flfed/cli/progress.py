"""Progress on standard error, the stop of what takes long, and a quicker import.

Progress is a bar on a terminal and lines elsewhere.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from flfed.callbacks import READING, WARNING, Progress, Repeated, displaying, loading, print_sentence, progress_lines
from flfed.errors import RunStopped, Terminated, interruption

if TYPE_CHECKING:
    from rich.console import Console

LOADING = 1.0
"""Seconds after which an import that goes on is named."""
REDRAWN = 0.1
"""Seconds between two drawings of a bar."""
STEADY = 4.0
"""Seconds between two lines where a person waits for a short run."""


@contextmanager
def progress(quiet: bool = False, *, steady: bool = False) -> Iterator[Progress]:
    """Yield a function that shows stages on standard error.

    On a pipe there is no bar, and a line is printed now and then, also while a stage stands still: every `STEADY`
    seconds where `steady`. Where `quiet`, only waits and warnings are printed.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield print_sentence
    elif console.is_terminal:
        with _bars(console) as show_stage:
            yield show_stage
    else:
        # A redrawn bar would fill a log file.
        with progress_lines(STEADY, STEADY) if steady else progress_lines() as show_stage:
            yield show_stage


@contextmanager
def loading_line() -> Iterator[None]:
    """Import in a `with` block as `loading` does; a terminal gets a line on what takes a second, others after 10 s."""
    if not sys.stderr.isatty():
        with progress_lines() as show_stage, loading(show_stage, freeze=True):
            yield
        return
    timers = []

    def report_stage(stage: str, done: int, of: int) -> None:
        if done < of:
            timers.append(threading.Timer(LOADING, typer.echo, (f"{stage} …",), {"err": True}))
            timers[0].daemon = True
            timers[0].start()
        else:
            timers[0].cancel()
            timers[0].join()

    with loading(report_stage, freeze=True):
        yield


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
    # The thread of rich may not have ended when its bars are stopped.
    with displaying(bars), displaying(Repeated(REDRAWN, bars.refresh)):
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
