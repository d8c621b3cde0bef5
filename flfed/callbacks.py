"""Times, callables and jobs that are passed down: their types, clocks and silent versions."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

Clock = Callable[[], float]
"""Seconds of this process, or of a run's own share of it."""
Now = Callable[[], datetime]
"""The time, for records, ledgers and keys."""
Today = Callable[[], date]
"""The date, for the expiry of studies."""
Notify = Callable[[str], None]
"""Gets a sentence about an event, which may be shown to a person."""
Progress = Callable[[str, int, int], None]
"""Gets a stage, its finished part, and its whole."""

RunObserver = Callable[[str, int], None]
"""Gets a stage of a round and its number: "checkpoint", "round", "evaluation"."""
RoundCallback = Callable[[Mapping[str, Any]], object]
"""Gets the figures of each round; the run ends after it where the return value is true."""


READING = "reading tables"
"""Stage before the first one of a run."""
WARNING = "warning: "
"""Beginning of a stage that is a sentence, shown once, which remains on the screen."""


SOON = 2.0
"""Seconds before the first line of progress: a short call prints none."""
WIDTH = 60


def now_utc() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def today_utc() -> date:
    """Return the date in UTC, as a ledger has it."""
    return now_utc().date()


def stamp(moment: datetime) -> str:
    """Return a UTC time as ISO text with milliseconds; texts sort as the times do.

    Examples
    --------
    >>> stamp(datetime(2026, 11, 20, 15, 30, 12, 5000, tzinfo=UTC))
    '2026-11-20T15:30:12.005Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def silent(sentence: str) -> None:
    """Ignore the message."""


def no_observer(stage: str, round: int) -> None:
    """Ignore the stage."""


def no_progress(stage: str, done: int, of: int) -> None:
    """Ignore the progress."""


@contextmanager
def loading(show_progress: Progress = no_progress, *, freeze: bool = False) -> Iterator[None]:
    """Import in a `with` block without garbage collection.

    Modules are never freed, so that a search for garbage is lost time.

    Parameters
    ----------
    show_progress : callable (stage, done, of)
    freeze : bool
        Whether later searches leave out all that is in memory by then: for a process without a user's own objects.
    """
    # A second import loads nothing new; torch alone, which a notebook may have, is less than half.
    if "flfed.federation.server.run" in sys.modules:
        yield
        return
    words = "loading PyTorch, pandas and Flower"
    show_progress(words, 0, 1)
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if is_enabled:
            gc.enable()
        show_progress(words, 1, 1)


_DISPLAYS: list[Any] = []
"""Displays of this process with a thread of their own, which have methods `stop` and `start`."""


@contextmanager
def displaying(display: Any) -> Iterator[None]:
    """Start a display, which `display_paused` stops for a while, and stop it after the block."""
    display.start()
    _DISPLAYS.append(display)
    try:
        yield
    finally:
        _DISPLAYS.remove(display)
        display.stop()


@contextmanager
def display_paused() -> Iterator[None]:
    """Stop all displays while the block runs: no process may be forked beside their threads."""
    for display in _DISPLAYS:
        display.stop()
    try:
        yield
    finally:
        for display in _DISPLAYS:
            display.start()


@contextmanager
def repeating(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` in a thread of its own each time so many seconds are over, while the block runs."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_watched() -> bool:
    """Return whether a person sees standard error: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def progress_line(after: float = SOON) -> Iterator[Progress]:
    """Yield a function that shows a stage on a line of standard error, after `after` seconds in all."""
    stream = sys.stderr
    began = time.monotonic()
    words = ""
    shown = False

    def show() -> None:
        nonlocal shown
        shown = True
        stream.write("\r" + words.ljust(WIDTH))
        stream.flush()

    def report_stage(stage: str, done: int, of: int) -> None:
        nonlocal words
        words = f"{stage}: {done} of {of}" if of > 1 else f"{stage} …"
        if time.monotonic() - began >= after:
            show()

    # A stage without progress for minutes is shown, too.
    timer = threading.Timer(after, show)
    timer.daemon = True
    timer.start()
    try:
        yield report_stage
    finally:
        timer.cancel()
        timer.join()
        if shown:
            stream.write("\r" + " " * WIDTH + "\r")
            stream.flush()
