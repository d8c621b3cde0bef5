"""How many more rounds a privacy budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flfed.updates.accounting import Release, affordable

EXACT = 50
"""The number of rounds is exact to one in so many."""


def rounds_left(spent: Sequence[Release], release: Release, budget: float, delta: float, most: int = 10_000) -> int:
    """Return how many more rounds a budget allows.

    They are like `release` and beside what is spent, at most `most`, to one in fifty.

    Examples
    --------
    >>> spent = [Release(1.5, 0.05, 400)]
    >>> 30 < rounds_left(spent, Release(1.5, 0.05, 4), 4.0, 1e-5) < 45, rounds_left(spent, spent[0], 4.0, 1e-5)
    (True, 0)
    """

    def fits(rounds: int) -> bool:
        more = Release(release.noise, release.sampling, rounds * release.steps)
        return affordable(spent, more, budget, delta)

    return _largest(fits, most)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` that fits, to one in fifty."""
    low = 0
    high = 1
    while high <= most and fits(high):
        low = high
        high = 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // EXACT):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
