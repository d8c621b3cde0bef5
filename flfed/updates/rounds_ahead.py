"""How many more rounds a privacy budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from flfed.updates.accounting import Release, affordable, epsilon, rdp_epsilon

EXACT = 50
"""The number of rounds is exact to one in so many."""


def rounds_left(spent: Sequence[Release], release: Release, budget: float, delta: float, most: int = 10_000) -> int:
    """Return how many more rounds a budget allows.

    They are like `release` and beside what is spent, at most `most`, to one in fifty.

    Notes
    -----
    The tighter accountant takes a fifth of a second a question, and more of many kinds of releases. The quick bound is
    above it by about as much at one number of rounds as at another: so it says roughly how many there are, and the
    other is asked near that number alone.

    Examples
    --------
    >>> spent = [Release(1.5, 0.05, 400)]
    >>> 30 < rounds_left(spent, Release(1.5, 0.05, 4), 4.0, 1e-5) < 45, rounds_left(spent, spent[0], 4.0, 1e-5)
    (True, 0)
    """

    def several(rounds: int) -> list[Release]:
        return [*spent, Release(release.noise, release.sampling, rounds * release.steps)]

    def roughly(bound: float, guess: int) -> int:
        return _largest(lambda rounds: rdp_epsilon(several(rounds), delta) <= bound, guess, most)

    guess = 0
    for _ in range(2):
        known, rough = epsilon(several(guess), delta), rdp_epsilon(several(guess), delta)
        guess = roughly(budget * (rough / known if 0 < known < math.inf else 1.0), guess)
    return _largest(lambda rounds: affordable(spent, several(rounds)[-1], budget, delta), guess, most)


def _largest(fits: Callable[[int], bool], guess: int, most: int) -> int:
    """Return the largest number up to `most` that fits, to one in fifty; it is sought from a guess on."""
    step = max(1, guess // EXACT)
    if guess == 0 or fits(guess):
        low, high = guess, guess + step
        while high <= most and fits(high):
            low, step = high, 2 * step
            high = low + step
        high = min(high, most + 1)
    else:
        low, high = guess - step, guess
        while low > 0 and not fits(low):
            low, high, step = low - 2 * step, low, 2 * step
        low = max(0, low)
    while high - low > max(1, low // EXACT):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
