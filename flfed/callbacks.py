"""Types of the callables that are passed down.

Each has one name and one sentence.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds of a run: of this process, or of a run's own share of it."""
Today = Callable[[], datetime.date]
"""The date, as studies expire by it."""
Notify = Callable[[str], None]
"""Told in a sentence what happens; what it is told may be shown to a person."""
Progress = Callable[[str, int, int], None]
"""Told a stage, how much of it is done, and of how much."""


def silent(sentence: str) -> None:
    """Ignore the message."""


def no_progress(stage: str, done: int, of: int) -> None:
    """Ignore the progress."""
