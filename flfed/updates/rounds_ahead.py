"""How many more rounds a privacy budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flfed.updates.accounting import Release, affordable, quick_epsilon

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

    def after(rounds: int) -> Release:
        return Release(release.noise, release.sampling, rounds * release.steps)

    # The quick bound of most numbers is known from others; the account itself is asked from there on.
    guess = _largest(lambda rounds: quick_epsilon([*spent, after(rounds)], delta) <= budget, 0, most)
    return _largest(lambda rounds: affordable(spent, after(rounds), budget, delta), guess, most)


def _largest(fits: Callable[[int], bool], guess: int, most: int) -> int:
    """Return the largest number up to `most` that fits, to one in fifty, sought upwards from one that does."""
    low = guess
    step = max(1, guess // EXACT)
    while low + step <= most and fits(low + step):
        low += step
        step *= 2
    high = min(low + step, most + 1)
    while high - low > max(1, low // EXACT):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
