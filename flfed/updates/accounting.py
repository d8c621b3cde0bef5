"""How much privacy releases spend together: ε for a δ, of Gaussian mechanisms on Poisson samples.

Two accountants, both upper bounds: Rényi DP (Mironov, Talwar and Zhang 2019), fast, and privacy random
variables (Gopi, Lee and Wutschitz 2021), 8 to 9 % tighter, both as Opacus has them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from flfed.errors import UsageError

LEAST_NOISE = 0.3
"""Noise multiplier below which the accountant needs more memory than there is, and ε is over 100 anyway."""


@dataclass(frozen=True, order=True)
class Release:
    """Steps of one kind that one row, or one person, took part in.

    Attributes
    ----------
    noise : float, >= 0.3
        Noise multiplier σ, in clipping bounds.
    sampling : float in (0, 1]
        Probability of taking part in a step.
    steps : int, >= 1
    """

    noise: float
    sampling: float
    steps: int


def composed(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Return releases with the steps of the same kind added up, sorted: all that an accountant needs.

    Examples
    --------
    >>> composed([Release(1.5, 0.05, 10), Release(1.5, 0.05, 20)])
    (Release(noise=1.5, sampling=0.05, steps=30),)
    """
    counts = Counter[tuple[float, float]]()
    for release in releases:
        counts[release.noise, release.sampling] += release.steps
    return tuple(Release(noise, sampling, steps) for (noise, sampling), steps in sorted(counts.items()))


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε that releases spend together at `delta`: the less of both accountants' bounds; 0 of none."""
    history = composed(releases)
    return _epsilon(history, delta) if history else 0.0


@lru_cache(maxsize=256)
def _epsilon(history: tuple[Release, ...], delta: float) -> float:
    return min(rdp_epsilon(history, delta), prv_epsilon(history, delta))


def rdp_epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε by Rényi differential privacy; a bound, and quick."""
    return _opacus("RDPAccountant", releases, delta)


def prv_epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε by privacy random variables, with the error of its own computation added."""
    return _opacus("PRVAccountant", releases, delta)


def _opacus(name: str, releases: Iterable[Release], delta: float) -> float:
    from opacus import accountants  # seconds, and only who protects needs them

    history = composed(releases)
    low = [release.noise for release in history if release.noise < LEAST_NOISE]
    if low:
        raise UsageError(f"noise multiplier {low[0]:g} is under {LEAST_NOISE}: nothing worth the name is promised")
    accountant = getattr(accountants, name)()
    accountant.history = [(release.noise, release.sampling, release.steps) for release in history]
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def noise_for(target: float, delta: float, sampling: float, steps: int) -> float:
    """Return the least noise multiplier, rounded up to 1e-3, with which `steps` steps spend at most ε = `target`.

    Raises
    ------
    UsageError
        If none from 0.3 to 1000 does.
    """
    low, high = LEAST_NOISE, LEAST_NOISE
    while epsilon([Release(high, sampling, steps)], delta) > target:
        low, high = high, high * 2
        if high > 1000:
            raise UsageError(f"no noise makes {steps} steps spend as little as epsilon={target:g} at delta={delta:g}")
    while high - low > 5e-4:
        middle = (low + high) / 2
        spent = epsilon([Release(middle, sampling, steps)], delta)
        low, high = (middle, high) if spent > target else (low, middle)
    return math.ceil(high * 1000) / 1000
