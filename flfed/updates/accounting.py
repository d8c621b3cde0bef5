"""Accountant of the privacy that releases spend together.

It gives ε for a δ, of Gaussian mechanisms on Poisson samples.

Two accountants, both upper bounds: Rényi DP (Mironov, Talwar and Zhang 2019, with the conversion of Balle et
al. 2020, theorem 21), quick, and privacy random variables (Gopi, Lee and Wutschitz 2021), 8 to 9 % tighter.
Their mathematics are Opacus'. Neighbours are tables with and without one row (person).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
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
"""Noise multiplier below which the accountant needs more memory than there is, and ε is over 100 anyway."""
MOST_NOISE = 1000.0
MOST_TIGHT = 200.0
"""ε by Rényi DP above which the tighter accountant is not asked: nothing is promised by either figure."""
MOST_POINTS = 2**23
"""Of the tighter accountant's grid, about 600 MB; only of a million steps or more."""
NEGLIGIBLE, LEAST_LOG, TERMS = -30.0, -1e300, 64
"""Logarithms of a term that ends a series and of none yet, and terms of a series that are computed at once."""
ORDERS = (
    *(1 + n / 100 for n in range(1, 10)),
    *(1 + n / 10 for n in range(1, 100)),
    *range(11, 64),
    *(72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024),
)
"""Rényi orders: Opacus' own and more at either end, where the best one is for much noise and for little."""


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

    It is the less of both accountants' bounds, and 0 of none.

    It is infinite where a release has a noise multiplier below 0.3: no figure would be worth the name.

    Raises
    ------
    UsageError
        If `delta` is not between 0 and 1.

    Examples
    --------
    >>> round(epsilon([Release(1.5, 0.05, 400)], 1e-5), 3)
    3.371
    >>> epsilon([], 1e-5), epsilon([Release(0.1, 0.05, 1)], 1e-5)
    (0.0, inf)
    """
    return _epsilon(composed(releases), delta)


@lru_cache(maxsize=1024)
def _epsilon(history: tuple[Release, ...], delta: float) -> float:
    return min(rdp_epsilon(history, delta), prv_epsilon(history, delta))


def affordable(releases: Iterable[Release], release: Release, budget: float, delta: float) -> bool:
    """Tell whether a release still fits the budget.

    It comes on top of `releases`, within ε = `budget` at `delta`.

    Quick where Rényi DP says so already, or the budget is far away: the tighter accountant is asked
    where only that can tell.

    Examples
    --------
    >>> spent = [Release(1.5, 0.05, 400)]
    >>> affordable(spent, Release(1.5, 0.05, 100), 4.0, 1e-5), affordable(spent, Release(1.5, 0.05, 400), 4.0, 1e-5)
    (True, False)
    """
    history = composed([*releases, release])
    most = budget * (1 + 1e-9)  # a budget that the run's noise was made for is not missed by a rounding
    return rdp_epsilon(history, delta) <= most or epsilon(history, delta) <= most


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


def rdp_epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return a quick bound on ε by Rényi differential privacy.

    Examples
    --------
    >>> round(rdp_epsilon([Release(1.5, 0.05, 400)], 1e-5), 3)
    3.689
    """
    if not 0 < delta < 1:
        raise UsageError(f"delta={delta} must be between 0 and 1")
    history = composed(releases)
    if not history:
        return 0.0
    if not all(LEAST_NOISE <= release.noise < math.inf for release in history):
        return math.inf
    spent = sum(release.steps * _renyi(release.noise, release.sampling) for release in history)
    orders = np.array(ORDERS)
    found = spent - (math.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders)
    known = found[np.isfinite(found)]
    return max(0.0, float(known.min())) if len(known) else math.inf


@lru_cache(maxsize=1024)
def _renyi(noise: float, sampling: float) -> np.ndarray:
    """Return the Rényi divergence [orders] of one step."""
    if sampling == 1:
        return np.array(ORDERS) / (2 * noise**2)  # Mironov 2017, proposition 7
    orders = np.array(ORDERS, dtype=float)
    found, whole = np.empty(len(orders)), orders == np.floor(orders)
    found[whole] = [_whole_moment(noise, sampling, int(order)) for order in orders[whole]]
    found[~whole] = _fractional_moments(noise, sampling, orders[~whole])
    return np.asarray(found / (orders - 1))


def _whole_moment(noise: float, sampling: float, order: int) -> float:
    """Return the log moment of one step at a whole order.

    Source: Mironov, Talwar and Zhang 2019, section 3.3.
    """
    from scipy.special import binom, logsumexp

    i = np.arange(order + 1)
    taken = i * math.log(sampling) + (order - i) * math.log(1 - sampling)
    return float(logsumexp(np.log(binom(order, i)) + taken + (i * i - i) / (2 * noise**2)))


def _fractional_moments(noise: float, sampling: float, orders: np.ndarray) -> np.ndarray:
    """Return the log moments of one step at fractional orders.

    An order whose series falls below 0 by rounding counts as infinite, and never is the best one.

    Source: Mironov, Talwar and Zhang 2019, section 3.3, as Opacus adds it up, whose Python takes ten times as long.
    """
    from scipy.special import binom, log_ndtr

    found, going = np.full(len(orders), np.inf), np.arange(len(orders))
    middle, i = noise**2 * math.log(1 / sampling - 1) + 0.5, np.arange(TERMS)[:, None]
    most, total = np.full((2, 1, len(orders)), LEAST_LOG), np.zeros((2, 1, len(orders)))
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        while len(going):
            j = orders[going] - i
            coefficient = binom(orders[going], i)
            # Two integrals, below `middle` and above it; each is a series in i, [2, terms, orders].
            below = i * math.log(sampling) + j * math.log(1 - sampling) + log_ndtr((middle - i) / noise)
            above = j * math.log(sampling) + i * math.log(1 - sampling) + log_ndtr((j - middle) / noise)
            powers = np.stack([below + (i * i - i) / (2 * noise**2), above + (j * j - j) / (2 * noise**2)])
            terms = np.log(np.abs(coefficient)) + powers
            small = terms.max(axis=0) < NEGLIGIBLE
            ended = small.any(axis=0)
            counted = i - i[0] <= np.where(ended, small.argmax(axis=0), TERMS - 1)
            before, most = most, np.maximum(most, terms.max(axis=1, keepdims=True))
            signed = np.where(counted, np.sign(coefficient) * np.exp(terms - most), 0.0)
            sums = total * np.exp(before - most) + signed.cumsum(axis=1)
            sound, total = (sums >= 0).all(axis=(0, 1)), sums[:, -1:]
            done, again = sound & ended, sound & ~ended
            found[going[done]] = np.logaddexp(*(most + np.log(total))[:, 0, done])
            going, most, total, i = going[again], most[..., again], total[..., again], i + TERMS
    return found


def prv_epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε by privacy random variables.

    The error of its own computation is added.

    The error is a hundredth of ε below 1, then 0.01, and 1/500 of ε above 5. Infinite where it is too large
    to be computed, or to promise anything: `epsilon` then has the other bound.

    Source: Gopi, Lee and Wutschitz 2021, "Numerical composition of differential privacy", algorithm 1.
    """
    history = composed(releases)
    rough = rdp_epsilon(history, delta)
    if not history or rough > MOST_TIGHT:
        return math.inf if history else 0.0
    # The grid is so fine that the rounding of all steps together stays below the error.
    error, slack = max(0.001, 0.01 * min(rough, max(1.0, rough / 5))), delta / 1000
    prv, counts = opacus_analysis("prv"), [release.steps for release in history]
    mesh = error / math.sqrt(sum(counts) * math.log(12 / slack) / 2)
    # Beyond its reach, what is lost of the random variables' tails is a small part of delta.
    single = slack / (8 * sum(counts))
    alone = max(rdp_epsilon([Release(r.noise, r.sampling, 1)], single) for r in history)
    reach = max(rdp_epsilon(history, slack / 4), alone, error) + 3  # remark 5.6
    if 2 * reach / mesh > MOST_POINTS:
        return math.inf
    domain = prv.Domain.create_aligned(-reach, reach, mesh)
    try:
        with np.errstate(divide="ignore", under="ignore"):  # log(1 - q) of q = 1 is meant to be -inf
            parts = [
                prv.discretize(prv.TruncatedPrivacyRandomVariable(variable, domain.t_min, domain.t_max), domain)
                for variable in (prv.PoissonSubsampledGaussianPRV(r.sampling, r.noise) for r in history)
            ]
            whole = prv.compose_heterogeneous(dprvs=parts, num_self_compositions=counts)
            return max(0.0, float(whole.compute_epsilon(delta, slack, error)[2]))
    except (ArithmeticError, RuntimeError, ValueError):
        return math.inf


@cache
def opacus_analysis(name: str) -> Any:
    """Import one module of Opacus' accountants alone.

    It is one of `accountants.analysis` ("prv", "rdp"). All of Opacus is not imported.

    Importing Opacus takes 3 CPU seconds, for torch, hooks and optimisers that no accountant needs; its files
    of mathematics take 0.7, with scipy. Loaded beside it, under a name of their own, they leave
    `import opacus` as it is.
    """
    spec = importlib.util.find_spec("opacus")
    if spec is None or spec.origin is None:
        raise UsageError("a study with differential privacy needs the package opacus, which is not installed")
    root, folder = f"{__name__}_opacus", Path(spec.origin).parent / "accountants"
    # The packages are stand-ins, so that Opacus' own do not run and import torch.
    for part, path in (("", folder), (".analysis", folder / "analysis")):
        if root + part not in sys.modules:
            package = ModuleType(root + part)
            package.__path__ = [str(path)]
            sys.modules[root + part] = package
    if f"{root}.rdp" not in sys.modules:
        # What the file of the domains asks there is the one function that `prv_epsilon` does itself.
        stand_in = ModuleType(f"{root}.rdp")
        vars(stand_in)["RDPAccountant"] = None
        sys.modules[f"{root}.rdp"] = stand_in
    return importlib.import_module(f"{root}.analysis.{name}")


@lru_cache(maxsize=1024)
def noise_for(target: float, delta: float, sampling: float, steps: int) -> float:
    """Return the least noise multiplier for a privacy budget.

    It is in thousandths, and with it `steps` steps spend at most ε = `target`.

    It takes about a second; nothing of it is kept on a disk, so that nothing damaged there can be believed.

    Raises
    ------
    UsageError
        If none from 0.3 to 1000 does.

    Examples
    --------
    >>> noise_for(3.0, 1e-5, 0.05, 400)
    1.625
    """
    return least_noise(
        lambda noise: epsilon([Release(noise, sampling, steps)], delta),
        target,
        quick=lambda noise: rdp_epsilon([Release(noise, sampling, steps)], delta),
    )


def least_noise(
    spent: Callable[[float], float], target: float, *, quick: Callable[[float], float] | None = None
) -> float:
    """Return the least noise multiplier for an ε.

    It is in thousandths from 0.3, and its ε is at most `target`.

    Parameters
    ----------
    spent : callable (noise) → float
        The ε, which falls with the noise.
    target : float, > 0
    quick : callable (noise) → float, optional
        A bound on it, to look roughly with.

    Raises
    ------
    UsageError
        If no noise up to 1000 has it.
    """
    # Doubling with the quick bound finds noise that is certainly enough.
    least = high = round(LEAST_NOISE * 1000)
    bound = quick or spent
    while bound(high / 1000) > target:
        high *= 2
        if high > MOST_NOISE * 1000 and bound is not spent:
            bound, high = spent, least  # what else is spent may be above the target by the quick bound alone
        elif high > MOST_NOISE * 1000:
            raise UsageError(
                f"[privacy]: no noise up to {MOST_NOISE:g} spends as little as epsilon={target:g}: take fewer steps or "
                "rounds, or a larger epsilon"
            )
    # Halving with the exact figure then finds noise that is too little, if there is any.
    low = high
    while low > least and spent(low / 1000) <= target:
        low, high = max(least, low // 2), low
    return (low if spent(low / 1000) <= target else _least(spent, target, low, high)) / 1000


def _least(spent: Callable[[float], float], target: float, low: int, high: int) -> int:
    """Return the least thousandths for an ε.

    Their ε is at most `target`; they are more than `low`, and `high` at most.
    """

    def over(thousandths: int) -> float:
        return math.log(min(max(spent(thousandths / 1000), 1e-9), 1e9) / target)

    at_low = over(low)
    at_high = over(high)
    turn = 0
    while high - low > 1:
        # ε is nearly a power of the noise: the secant in logarithms finds the place, and a halving now and then
        # keeps it from creeping.
        share = at_low / (at_low - at_high) if turn % 3 < 2 and at_low > at_high else 0.5
        guess = math.exp(math.log(low) + share * math.log(high / low))
        middle, turn = min(max(round(guess), low + 1), high - 1), turn + 1
        at_middle = over(middle)
        if at_middle > 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return high
