"""Times, callables and jobs that are passed down: their types, clocks and silent versions."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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
OWN_MODELS = "sites' own models"
"""Stage of a comparison, in which each site's own model is searched for."""
WARNING = "warning: "
"""Beginning of a stage that is a sentence, shown once, which remains on the screen."""


SENTENCES = ("Waiting for ", "without ", WARNING)
"""Beginnings of stages that are printed even without a bar, so that nobody waits without knowing why."""
MINUTE = 60.0
BEAT = 10.0
"""Seconds before the first line of progress where no bar can be drawn, and least seconds between two."""
TENTHS = 10
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
"""Displays of this process, which have methods `stop` and `start`: the last one is stopped first."""


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
    for display in reversed(_DISPLAYS):
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


class Repeated:
    """An action in a thread of its own each time so many seconds are over, which `displaying` runs and may pause."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self._seconds = seconds
        self._action = action
        self._shown = ExitStack()

    def start(self) -> None:
        """Begin."""
        self._shown.enter_context(repeating(self._seconds, self._action))

    def stop(self) -> None:
        """End; the thread has ended as well."""
        self._shown.close()


@contextmanager
def progress_line(after: float = SOON) -> Iterator[Progress]:
    """Yield a function whose stages are shown on a line of standard error, each `after` seconds and by each change."""
    stream = sys.stderr
    began = time.monotonic()
    words = f"{READING} …"
    shown = False

    def show() -> None:
        nonlocal shown
        shown = True
        stream.write("\r" + f"{words}, {in_words(time.monotonic() - began)}".ljust(WIDTH))
        stream.flush()

    def report_stage(stage: str, done: int, of: int) -> None:
        nonlocal words
        words = f"{stage}: {done} of {of}" if of > 1 else f"{stage} …"
        if time.monotonic() - began >= after:
            show()

    # A stage without progress for minutes is shown, too.
    try:
        with displaying(Repeated(after, show)):
            yield report_stage
    finally:
        if shown:
            stream.write("\r" + " " * WIDTH + "\r")
            stream.flush()


@contextmanager
def progress_lines(beat: float = BEAT, most: float = MINUTE) -> Iterator[Progress]:
    """Yield a function whose stages are printed on standard error, also while one stands still.

    The first line comes after `beat` seconds. The time between two lines grows with that of the run, up to `most`.
    """
    lines = ProgressLines(soon=beat, most=most)
    with displaying(Repeated(beat / 2, lines.beat)):
        yield lines


def shown_progress(progress: Progress | None) -> AbstractContextManager[Progress]:
    """Return the progress of a call; by default a line where a person watches, and lines now and then elsewhere."""
    if progress is None:
        return progress_line() if is_watched() else progress_lines()
    return nullcontext(progress)


def print_sentence(stage: str, done: int, of: int) -> None:
    """Print a stage that is a sentence, and no other."""
    if (done, of) == (0, 1) and stage.startswith(SENTENCES):
        to_stderr(stage)


def to_stderr(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)


class ProgressLines:
    """Lines with the progress of a stage and the time left: for each tenth, or where nothing was printed for a while.

    Parameters
    ----------
    say : callable
    clock : callable
        Seconds; tests pass their own.
    soon, most : float, seconds
        Least time between two lines, and most where the stage goes on.
    """

    def __init__(
        self,
        say: Notify = to_stderr,
        clock: Clock = time.monotonic,
        soon: float = BEAT,
        most: float = MINUTE,
    ) -> None:
        self._say = say
        self._clock = clock
        self._soon = soon
        self._most = most
        self._start = self._last = clock()
        self._began: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}
        self._stage = (READING, 0, 1)
        self._tenth = 0

    def __call__(self, stage: str, done: int, of: int) -> None:
        """Print the progress of a stage, if a line is due."""
        if of <= 1 and stage.startswith(SENTENCES):
            if done < of:
                self._say(stage)
            return
        now = self._clock()
        tenth = done * TENTHS // max(of, 1)
        self._stage = (stage, done, of)
        # A stage that begins anew, as of another run, is timed anew.
        if done < self._done.get(stage, done + 1):
            self._began[stage] = (now, done)
            self._tenth = tenth
        self._done[stage] = done
        waited = now - self._last
        if of > 1 and waited >= self._soon and (waited >= self._most or tenth > self._tenth):
            self._tenth = tenth
            self._print(now)

    def beat(self) -> None:
        """Print the stage, if nothing was printed for a tenth of the time so far."""
        now = self._clock()
        if now - self._last >= min(self._most, max(self._soon, (now - self._start) / TENTHS)):
            self._print(now)

    def _print(self, now: float) -> None:
        self._last = now
        stage, done, of = self._stage
        since, before = self._began.get(stage, (self._start, 0))
        line = f"{stage}: {done} of {of}" if of > 1 else stage
        line += f", {in_words(now - since)}"
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
