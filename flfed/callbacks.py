"""Times, and callables that are passed down: their types, clocks and silence.

Each has one name and one sentence.
"""

from __future__ import annotations

from collections.abc import Callable
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
