"""Accountant of the privacy that releases spend together.

It gives ε for a δ, of Gaussian mechanisms on Poisson samples; neighbours are tables with and without one row (person).

One function does so for calibration, account and promise. Releases without sampling have a closed form (Balle and Wang
2018, "Improving the Gaussian mechanism", theorem 8). All others go through dp-accounting's privacy loss distributions
(Doroshenko et al. 2022, "Connect the dots"), whose rounding is always towards more ε.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from flfed.errors import UsageError
from flfed.refusals import Refusal

Epsilon = Annotated[float, Field(gt=0, le=100), "in (0, 100]; above 10 it hardly promises anything"]
Delta = Annotated[float, Field(gt=0, lt=0.1)]
Clip = Annotated[float, Field(gt=0, lt=1e6), "> 0"]
Sampling = Annotated[float, Field(gt=0, le=1)]
LEAST_NOISE = 0.3
"""Noise multiplier below which all privacy counts as spent: ε would promise nothing."""
MOST_NOISE = 1000.0
FINE, COARSE = 8, 2
"""Points of the grid in one standard deviation of a step's privacy loss: ε is some .1 and some 2 % above the exact."""
WIDEST = 0.25
"""Standard deviation from which the grid is not made wider: with little noise the loss has a long tail."""
POINTS = 3000
"""Points of all kinds' single steps, times those in a deviation: where little is sampled, the grid is wider for it."""
MOST_VARIANCE = 5000.0
"""Of all losses together. Above it ε is some hundred at least, and counts as infinite: it promises nothing."""
TAIL = 30.0
"""A step's loss is cut off, and counts as infinite, where its tail is exp(-30) of δ."""
STAGE = 1000
"""Steps that are composed at once: the library's bounds on the whole are far too wide for many more."""
ROUNDING_ONCE, ROUNDING_A_STEP = 4e-15, 1e-17
"""Of the Fourier transforms, in δ."""
ROUGHLY = 0.01
"""Share of the noise to which a calibration looks roughly before it looks closely."""
DIGITS = 4
"""Binary digits of the number of steps that the quick bound looks at."""


@dataclass(frozen=True, order=True)
class Release:
    """Steps of one kind that a row or person joined.

    Attributes
    ----------
    noise : float, >= 0
        Noise multiplier σ, in clipping bounds; below 0.3 all privacy counts as spent.
    sampling : float in (0, 1]
        Probability of taking part in a step.
    steps : int, >= 1
    """

    noise: float
    sampling: float
    steps: int


def composed(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Return sorted releases, with steps of the same kind added.

    Examples
    --------
    >>> composed([Release(1.5, 0.05, 10), Release(1.5, 0.05, 20)])
    (Release(noise=1.5, sampling=0.05, steps=30),)
    """
    counts = Counter[tuple[float, float]]()
    for release in releases:
        if release.steps > 0:
            counts[release.noise, release.sampling] += release.steps
    return tuple(Release(noise, sampling, steps) for (noise, sampling), steps in sorted(counts.items()))


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε that releases spend together at `delta`.

    It is never below the exact one, and 0 of no release. Without sampling it is exact, else some .1 % above.

    It is infinite where a release has a noise multiplier below 0.3: no figure would be worth the name. And it is
    where `delta` is below what the computation rounds away: some 1e-14, and 1e-17 for each step.

    Raises
    ------
    UsageError
        If `delta` is not between 0 and 1.

    Examples
    --------
    >>> round(epsilon([Release(1.5, 0.05, 400)], 1e-5), 3)
    3.363
    >>> epsilon([], 1e-5), epsilon([Release(0.1, 0.05, 1)], 1e-5)
    (0.0, inf)
    """
    return _epsilon(composed(releases), delta, FINE)


def quick_epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return a bound on ε, some percent above it.

    It is that of a few more steps on a coarse grid, which many histories share: of a run's rounds few are computed.

    Examples
    --------
    >>> quick_epsilon([Release(1.5, 0.05, 385)], 1e-5) == quick_epsilon([Release(1.5, 0.05, 416)], 1e-5)
    True
    """
    return _epsilon(tuple(_more_steps(release) for release in composed(releases)), delta, COARSE)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the ε of a Gaussian query, in its closed form.

    Queries add up in μ²: k of noise multiplier σ are one with μ = √k / σ.

    Parameters
    ----------
    mu : float, >= 0
        Sensitivity over the noise's standard deviation.
    delta : float in (0, 1)

    Source: Balle and Wang 2018, theorem 8; Dong, Roth and Su 2022, corollary 3.3.

    Examples
    --------
    >>> round(gaussian_epsilon(math.sqrt(10) / 1.0, 1e-5), 2)
    17.86
    """
    _check(delta)
    return _gaussian_epsilon(mu, delta) if mu > 0 else 0.0


@lru_cache(maxsize=4096)
def _gaussian_epsilon(mu: float, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian  # with scipy a second, which only needs who counts

    return float(get_epsilon_gaussian(1 / mu, delta)) + 1e-11  # it is sought to 1e-12


@lru_cache(maxsize=4096)
def _epsilon(history: tuple[Release, ...], delta: float, points: int) -> float:
    _check(delta)
    if not all(LEAST_NOISE <= release.noise < math.inf for release in history):
        return math.inf
    mu = math.sqrt(sum(release.steps / release.noise**2 for release in history if release.sampling == 1))
    sampled = [release for release in history if release.sampling < 1]
    if not sampled:
        return gaussian_epsilon(mu, delta)
    # All queries without sampling are one.
    kinds = [*sampled, Release(1 / mu, 1.0, 1)] if mu else sampled
    exact = delta - ROUNDING_ONCE * len(kinds) - ROUNDING_A_STEP * sum(release.steps for release in kinds)
    variance = mu**2 + sum(release.steps * _deviation(release) ** 2 for release in sampled)
    if exact <= 0 or variance > MOST_VARIANCE:
        return math.inf
    grid = _grid(sampled, kinds, delta, points)
    with np.errstate(over="ignore", divide="ignore"):
        losses = [_loss(kind, grid, math.log(delta) - TAIL) for kind in kinds]
        return float(_together(losses).get_epsilon_for_delta(exact))


def _together(losses: Sequence[Any]) -> Any:
    return reduce(lambda whole, loss: whole.compose(loss), losses)


@lru_cache(maxsize=32)
def _loss(kind: Release, grid: float, tail: float) -> Any:
    """Return the privacy loss distribution of steps of one kind, for both directions of neighbours.

    In a ledger most kinds stay as they are from round to round.
    """
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    options = {"value_discretization_interval": grid, "log_mass_truncation_bound": tail}
    step = from_gaussian_mechanism(kind.noise, sampling_prob=kind.sampling, **options)
    losses = []
    left = kind.steps
    while left:
        left, rest = divmod(left, STAGE)
        if rest:
            losses.append(step.self_compose(rest))
        if left:
            step = step.self_compose(STAGE)
    return _together(losses)


def _grid(sampled: Sequence[Release], kinds: Sequence[Release], delta: float, points: int) -> float:
    """Return the width of the grid of losses.

    It is a power of two, so that a finer grid has all points of a coarser one, and does not depend on the number of
    steps: more of them never seem to spend less.
    """
    needed = min(_deviation(release) for release in sampled) / points
    reach = sum(_reach(release, math.log(delta) - TAIL) for release in kinds)
    return 2.0 ** math.floor(math.log2(max(needed, reach / (points * POINTS))))


def _deviation(release: Release) -> float:
    """Return about the standard deviation of one step's privacy loss."""
    return min(1 / release.noise, release.sampling * math.sqrt(math.expm1(min(1 / release.noise**2, 100.0))), WIDEST)


def _reach(release: Release, tail: float) -> float:
    """Return about how far one step's privacy loss reaches, to both sides."""
    # Without sampling the loss at x deviations is x / σ + 1 / (2σ²).
    most = math.sqrt(-2 * tail) / release.noise + 0.5 / release.noise**2
    if release.sampling == 1:
        return 2 * most
    return math.log1p(release.sampling * math.expm1(min(most, 700.0))) + min(most, -math.log1p(-release.sampling))


def _more_steps(release: Release) -> Release:
    """Return the release with its steps rounded up to four binary digits."""
    unit = 2 ** max(0, release.steps.bit_length() - DIGITS)
    return Release(release.noise, release.sampling, -(-release.steps // unit) * unit)


def _check(delta: float) -> None:
    if not 0 < delta < 1:
        raise UsageError(f"delta={delta} must be between 0 and 1")


def affordable(releases: Iterable[Release], release: Release, budget: float, delta: float) -> bool:
    """Tell whether a release still fits the budget.

    It comes on top of `releases`, within ε = `budget` at `delta`.

    Where the budget is far away the quick bound says so, which most rounds share; `epsilon` is asked near it alone.

    Examples
    --------
    >>> spent = [Release(1.5, 0.05, 400)]
    >>> affordable(spent, Release(1.5, 0.05, 100), 4.0, 1e-5), affordable(spent, Release(1.5, 0.05, 400), 4.0, 1e-5)
    (True, False)
    """
    history = composed([*releases, release])
    most = budget * (1 + 1e-9)  # a budget that the run's noise was made for is not missed by a rounding
    return quick_epsilon(history, delta) <= most or epsilon(history, delta) <= most


def delta_defect(delta: float, units: int) -> Refusal | None:
    """Return why `delta` is too large, None where it is not.

    It is held against so many rows or persons of a table.

    With δ of one over the rows, giving one row away whole would keep the promise. No count is named:
    the sentence may leave the site.

    Examples
    --------
    >>> delta_defect(1e-5, 3000) is None, delta_defect(1e-3, 3000).code
    (True, 'delta-gives-away')
    """
    if delta * units < 1:
        return None
    return Refusal("delta-gives-away", delta=f"{delta:g}")


def is_close(delta: float, rows: float) -> bool:
    """Tell whether `delta` is close to one over the rows.

    It is where it is above a tenth of that, while it should be far below.

    Examples
    --------
    >>> is_close(1e-5, 3000), is_close(1e-4, 3000)
    (False, True)
    """
    return delta * rows > 0.1


@lru_cache(maxsize=1024)
def noise_for(target: float, delta: float, sampling: float, steps: int) -> float:
    """Return the least noise multiplier for a privacy budget.

    It is in thousandths, and with it `steps` steps spend at most ε = `target`.

    It takes half a second; nothing of it is kept on a disk, so that nothing damaged there can be believed.

    Raises
    ------
    UsageError
        If none from 0.3 to 1000 does.

    Examples
    --------
    >>> noise_for(3.0, 1e-5, 0.05, 400)
    1.622
    """
    return noise_beside((), target, delta, sampling, steps)


def noise_beside(beside: Sequence[Release], target: float, delta: float, sampling: float, steps: int) -> float:
    """Return the least noise multiplier of steps that other releases leave of a budget.

    All together they spend at most ε = `target`.
    """

    def spent(noise: float, points: int = FINE) -> float:
        return _epsilon(composed([*beside, Release(noise, sampling, steps)]), delta, points)

    return least_noise(spent, target, rough=lambda noise: spent(noise, COARSE))


def least_noise(
    spent: Callable[[float], float], target: float, *, rough: Callable[[float], float] | None = None
) -> float:
    """Return the least noise multiplier for an ε.

    It is in thousandths from 0.3, and its ε is at most `target`.

    Parameters
    ----------
    spent : callable (noise) → float
        The ε, which falls with the noise.
    target : float, > 0
    rough : callable (noise) → float, optional
        A bound on it, to look roughly with: the noise that it asks for is where `spent` begins.

    Raises
    ------
    UsageError
        If no noise up to 1000 has it.
    """
    least = round(LEAST_NOISE * 1000)
    start = None if rough is None else _least(rough, target, least, near=ROUGHLY)
    # What else is spent may be above the target by the rough bound alone.
    found = _least(spent, target, least if start is None else start)
    if found is None:
        raise UsageError(
            f"[privacy]: no noise up to {MOST_NOISE:g} spends as little as epsilon={target:g}: take fewer steps or "
            "rounds, or a larger epsilon or delta"
        )
    return found / 1000


def _least(spent: Callable[[float], float], target: float, start: int, near: float = 0.0) -> int | None:
    """Return the least thousandths whose ε is at most `target`, or a share `near` more; None if there are none.

    They are sought from a start on.
    """
    least = round(LEAST_NOISE * 1000)
    most = round(MOST_NOISE * 1000)
    low = start
    high = start
    while spent(high / 1000) > target:
        if high == most:
            return None
        low = high
        high = min(2 * high, most)
    step = max(1, start // 32)
    while low > least and spent(low / 1000) <= target:
        high = low
        low = max(least, low - step)
        step *= 2
    if spent(low / 1000) <= target:
        return low
    return _least_between(spent, target, low, high, near)


def _least_between(spent: Callable[[float], float], target: float, low: int, high: int, near: float) -> int:
    """Return the least thousandths for an ε, or a share `near` more.

    Their ε is at most `target`; they are more than `low`, and `high` at most.
    """

    def over(thousandths: int) -> float:
        return math.log(min(max(spent(thousandths / 1000), 1e-9), 1e9) / target)

    at_low = over(low)
    at_high = over(high)
    turn = 0
    while high - low > max(1, near * high):
        # ε is nearly a power of the noise: the secant in logarithms finds the place, and a halving now and then
        # keeps it from creeping.
        share = at_low / (at_low - at_high) if turn % 3 < 2 and at_low > at_high else 0.5
        guess = math.exp(math.log(low) + share * math.log(high / low))
        middle = min(max(round(guess), low + 1), high - 1)
        turn += 1
        at_middle = over(middle)
        if at_middle > 0:
            low = middle
            at_low = at_middle
        else:
            high = middle
            at_high = at_middle
    return high
