"""Waiting times between requests and after failures.

Requests are frequent while a study runs, and rare otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SHARE = 20
"""A wait is at most this part of the time since the last message. It adds a twentieth to the time that a site waited
anyway, and a hundred sites do not overload the server."""


class Pace:
    """The seconds to wait before the next request.

    Parameters
    ----------
    least, most : float, seconds
        Shortest and longest wait.
    clock : callable
        Returns seconds; tests pass their own.

    Examples
    --------
    >>> now = [0.0]
    >>> pace = Pace(0.15, 10, clock=lambda: now[0])
    >>> waits = []
    >>> for now[0] in (1, 20, 60, 300):
    ...     waits.append(pace.seconds())
    >>> waits
    [0.15, 1.0, 3.0, 10]
    >>> pace.came()
    >>> pace.seconds()
    0.15
    """

    def __init__(self, least: float, most: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._least = least
        self._most = most
        self._clock = clock
        self._last = clock()

    def came(self) -> None:
        """Note that a message came now."""
        self._last = self._clock()

    def seconds(self) -> float:
        """Return how long to wait now."""
        return min(self._most, max(self._least, (self._clock() - self._last) / SHARE))


@dataclass
class Backoff:
    """Waiting times that double after each failure.

    Parameters
    ----------
    first, most : float, seconds

    Examples
    --------
    >>> backoff = Backoff(0.1, 1)
    >>> [backoff.seconds() for _ in range(5)]
    [0.1, 0.2, 0.4, 0.8, 1]
    >>> backoff.reset()
    >>> backoff.seconds()
    0.1
    """

    first: float
    most: float
    _next: float = 0.0

    def seconds(self) -> float:
        """Return how long to wait now."""
        wait = self._next or self.first
        self._next = min(self.most, 2 * wait)
        return wait

    def reset(self) -> None:
        """Note a success."""
        self._next = 0.0


def pauses(first: float, most: float) -> Iterator[float]:
    """Yield waiting times that double after each failure, without end."""
    backoff = Backoff(first, most)
    while True:
        yield backoff.seconds()
