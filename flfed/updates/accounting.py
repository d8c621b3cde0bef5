"""Accountant of the privacy that releases spend together, by dp-accounting's privacy loss distributions.

It gives ε for a δ, of Gaussian mechanisms on Poisson samples; neighbours are tables with and without one row (person).
Its rounding is always towards more ε.

Source: Doroshenko et al. 2022, "Connect the dots"; without sampling the closed form of Balle and Wang 2018, theorem 8.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Annotated

import numpy as np
from pydantic import Field

from flfed.refusals import Refusal
from flfed.words import usage_error

Epsilon = Annotated[float, Field(gt=0, le=100), "in (0, 100]; above 10 it hardly promises anything"]
Delta = Annotated[float, Field(gt=0, lt=0.1)]
Clip = Annotated[float, Field(gt=0, lt=1e6), "> 0"]
Sampling = Annotated[float, Field(gt=0, le=1)]
LEAST_NOISE = 0.3
"""Noise multiplier below which all privacy counts as spent: ε would promise nothing."""
MOST_NOISE = 1000.0
MOST_STEPS = 10**7
"""With sampling. More of them, or losses of a deviation above 70, count as infinite: they promise nothing."""


@dataclass(frozen=True, order=True)
class Release:
    """Steps of one kind that a row or person joined.

    Attributes
    ----------
    noise : float, >= 0
        Noise multiplier σ, in clipping bounds; below 0.3 with sampling all privacy counts as spent.
    sampling : float in (0, 1]
        Probability of taking part in a step.
    steps : int, >= 1
    """

    noise: float
    sampling: float
    steps: int

    @property
    def deviation(self) -> float:
        """About the standard deviation of one step's privacy loss; with little noise its tail is long."""
        sampled = self.sampling * math.sqrt(math.expm1(min(1 / self.noise**2, 100.0)))
        return min(1 / self.noise, sampled, 0.25)

    @property
    def reach(self) -> float:
        """About how far one step's privacy loss reaches."""
        most = 9 / self.noise + 0.5 / self.noise**2
        return 2 * most if self.sampling == 1 else 2 * math.log1p(self.sampling * math.expm1(most))


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε that releases spend together at `delta`.

    It is never below the exact one: without sampling exact, else some 0.1 % above. It is infinite where a noise
    multiplier with sampling is below 0.3, or `delta` below what the computation rounds away: some 1e-14, and 1e-17 for
    each step.

    Examples
    --------
    >>> round(epsilon([Release(1.5, 0.05, 400)], 1e-5), 3), round(epsilon([Release(1.0, 1.0, 10)], 1e-5), 2)
    (3.363, 17.86)
    >>> epsilon([], 1e-5), epsilon([Release(0.1, 0.05, 1)], 1e-5)
    (0.0, inf)
    """
    counts = Counter[tuple[float, float]]()
    for release in releases:
        counts[release.noise, release.sampling] += release.steps
    return _epsilon(tuple(Release(*kind, steps) for kind, steps in sorted(counts.items()) if steps > 0), delta)


@lru_cache(maxsize=4096)
def _epsilon(history: tuple[Release, ...], delta: float) -> float:
    if not 0 < delta < 1:
        raise usage_error("mechanisms.refusals.range", delta=delta)
    if not all((0 if one.sampling == 1 else LEAST_NOISE - 1e-12) < one.noise < math.inf for one in history):
        return math.inf
    from dp_accounting import get_epsilon_gaussian  # with scipy a second, which only needs who counts
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    mu = math.sqrt(sum(release.steps / release.noise**2 for release in history if release.sampling == 1))
    sampled = [release for release in history if release.sampling < 1]
    if not sampled:
        return float(get_epsilon_gaussian(1 / mu, delta)) + 1e-11 if mu else 0.0  # it is sought to 1e-12
    kinds = [*sampled, Release(1 / mu, 1.0, 1)] if mu else sampled  # all queries without sampling are one
    steps = sum(release.steps for release in sampled)
    exact = delta - 4e-15 * len(kinds) - 1e-17 * steps  # what Fourier transforms round away
    spread = math.sqrt(sum(release.steps * release.deviation**2 for release in sampled))
    if exact <= 0 or math.hypot(spread, mu) > 70 or steps > MOST_STEPS:
        return math.inf
    # With eight points in a standard deviation of a step ε is some 0.1 % too high; with fewer where little is sampled.
    finest = min(release.deviation for release in sampled) / 8
    grid = 2.0 ** math.floor(math.log2(max(finest, sum(release.reach for release in kinds) / 24_000)))
    steps_of_kinds = (
        from_gaussian_mechanism(kind.noise, sampling_prob=kind.sampling, value_discretization_interval=grid)
        for kind in kinds
    )
    with np.errstate(over="ignore", divide="ignore"):
        losses = [step.self_compose(kind.steps) for step, kind in zip(steps_of_kinds, kinds, strict=True)]
        return float(reduce(lambda whole, loss: whole.compose(loss), losses).get_epsilon_for_delta(exact))


@lru_cache(maxsize=1024)
def noise_for(target: float, delta: float, sampling: float, steps: int, beside: tuple[Release, ...] = ()) -> float:
    """Return the least noise multiplier, in thousandths, with which steps and the releases beside them spend `target`.

    Raises UsageError where none from 0.3 to 1000 does.

    Examples
    --------
    >>> noise_for(3.0, 1e-5, 0.05, 400)
    1.622
    """
    from scipy.optimize import brentq

    def excess(thousandths: float) -> float:
        spent = epsilon([*beside, Release(thousandths / 1000, sampling, steps)], delta)
        return math.log(min(max(spent, 1e-9), 1e9) / target)

    low, high = round(1000 * LEAST_NOISE), round(1000 * MOST_NOISE)
    if excess(high) > 0:
        raise usage_error("mechanisms.refusals.unreachable", most=MOST_NOISE, epsilon=target)
    if excess(low) > 0:
        low = round(math.exp(brentq(lambda log: excess(math.exp(log)), math.log(low), math.log(high), xtol=2e-4)))
    low = max(low - 1, round(1000 * LEAST_NOISE))  # a root within a thousandth
    while excess(low) > 0:
        low += 1
    return low / 1000


def delta_defect(delta: float, units: int) -> Refusal | None:
    """Return why `delta` is too large for so many rows or persons; the sentence names no count, since it may leave.

    With δ of one over the rows, giving one row away whole would keep the promise.

    Examples
    --------
    >>> delta_defect(1e-5, 3000) is None, delta_defect(1e-3, 3000).code
    (True, 'delta-gives-away')
    """
    return None if delta * units < 1 else Refusal("delta-gives-away", delta=f"{delta:g}")
