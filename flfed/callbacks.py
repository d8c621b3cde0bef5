"""Times, and callables that are passed down: their types, clocks and silence.

Each has one name and one sentence.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime

Clock = Callable[[], float]
"""Seconds of a run: of this process, or of a run's own share of it."""
Now = Callable[[], datetime]
"""The time, as records, ledgers and keys have it."""
Today = Callable[[], date]
"""The date, as studies expire by it."""
Notify = Callable[[str], None]
"""Told in a sentence what happens; what it is told may be shown to a person."""
Progress = Callable[[str, int, int], None]
"""Told a stage, how much of it is done, and of how much."""
WARNING = "warning: "
"""So begins a stage that is a sentence, told once: it stays on the screen."""


SOON = 10.0
"""Seconds before which no line of progress is shown: a short call prints none."""
WIDTH = 60


def now_utc() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def today_utc() -> date:
    """Return the date in UTC, as a ledger has it."""
    return now_utc().date()


def stamp(moment: datetime) -> str:
    """Return a UTC time as ISO text.

    It has milliseconds, so that texts sort as the times do.

    Examples
    --------
    >>> stamp(datetime(2026, 11, 20, 15, 30, 12, 5000, tzinfo=UTC))
    '2026-11-20T15:30:12.005Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def silent(sentence: str) -> None:
    """Ignore the message."""


def no_progress(stage: str, done: int, of: int) -> None:
    """Ignore the progress."""


def is_watched() -> bool:
    """Tell whether a person sees standard error: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def progress_line(after: float = SOON) -> Iterator[Progress]:
    """Yield what shows a stage on one line of standard error, once all takes longer than `after` seconds."""
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

    # A stage that tells nothing for minutes is shown too.
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
