"""Accountant of the privacy that releases spend together.

It gives ε for a δ, of Gaussian mechanisms on Poisson samples; neighbours are tables with and without one row (person).

One function does so for calibration, account and promise. Releases without sampling have a closed form (Balle and Wang
2018, "Improving the Gaussian mechanism", theorem 8). All others go through dp-accounting's privacy loss distributions
(Doroshenko et al. 2022, "Connect the dots"), whose rounding is always towards more ε.

A budget (ε, δ) is split over all releases of a site in a study. Shares are of μ², the square of sensitivity over noise.
Of Gaussian queries it adds up, and the whole is that of the one Gaussian that spends the budget alone. Persons who are
trained on and persons who are held out have accounts apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Annotated, Any, NamedTuple

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
FINE = 8
COARSE = 2
"""Points of the grid in one standard deviation of a step's privacy loss: ε is some 0.1 and some 2 % above the exact."""
WIDEST = 0.25
"""Standard deviation from which the grid is not made wider: with little noise the loss has a long tail."""
POINTS = 3000
"""Points of all kinds' single steps, times those in a deviation: where little is sampled, the grid is wider for it."""
MOST_STEPS = 10**8
"""Of all kinds with sampling. More of them count as infinite: they would need more memory than there is."""
MOST_VARIANCE = 5000.0
"""Of all losses together. Above it ε is some hundred at least, and counts as infinite: it promises nothing."""
TAIL = 30.0
"""A step's loss is cut off, and counts as infinite, where its tail is exp(-30) of δ."""
STAGE = 1000
MOST_AT_ONCE = 100_000
"""Steps that are composed at once, at least and at most: the library takes a small number to the power of them."""
WIDE = 150_000
"""Points by which the library's bounds may be too wide: of more steps at once they are far wider."""
ROUNDING_ONCE = 4e-15
ROUNDING_A_STEP = 1e-17
"""Of the Fourier transforms, in δ."""
MOST_ON_ONE_SIDE = 4
CREEPING = 0.01
"""Guesses of a calibration on one side of the target, after which it goes further beyond it."""
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

    It is never below the exact one, and 0 of no release. Without sampling it is exact, else some 0.1 % above.

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


@lru_cache(maxsize=4096)
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
    if not mu > 0:
        return 0.0
    from dp_accounting import get_epsilon_gaussian  # with scipy a second, which only needs who counts

    return float(get_epsilon_gaussian(1 / mu, delta)) + 1e-11  # it is sought to 1e-12


@lru_cache(maxsize=4096)
def _epsilon(history: tuple[Release, ...], delta: float, points: int) -> float:
    _check(delta)
    if not all(LEAST_NOISE <= release.noise < math.inf for release in history):
        return math.inf
    # The μ of Gaussian differential privacy of all queries without sampling.
    mu = math.sqrt(sum(release.steps / release.noise**2 for release in history if release.sampling == 1))
    sampled = [release for release in history if release.sampling < 1]
    if not sampled:
        return gaussian_epsilon(mu, delta)
    # All queries without sampling are one.
    kinds = [*sampled, Release(1 / mu, 1.0, 1)] if mu else sampled
    exact = delta - ROUNDING_ONCE * len(kinds) - ROUNDING_A_STEP * _steps(kinds)
    variance = mu**2 + sum(release.steps * _deviation(release) ** 2 for release in sampled)
    if exact <= 0 or variance > MOST_VARIANCE or _steps(sampled) > MOST_STEPS:
        return math.inf
    grid = _grid(sampled, kinds, delta, points)
    with np.errstate(over="ignore", divide="ignore"):
        losses = [_loss(kind, grid, math.log(delta) - TAIL) for kind in kinds]
        return float(_together(losses).get_epsilon_for_delta(exact))


def _steps(history: Sequence[Release]) -> int:
    return sum(release.steps for release in history)


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
    narrow = WIDE * _reach(kind, tail) * grid / (10 * _deviation(kind) ** 2)
    stage = round(min(max(narrow, STAGE), MOST_AT_ONCE))
    losses = []
    left = kind.steps
    while left:
        left, rest = divmod(left, stage)
        if rest:
            # The library takes seconds to compose many points once.
            loss = step if rest == 1 else step.self_compose(rest)
            losses.append(loss)
        if left:
            step = step.self_compose(stage)
            stage = STAGE
    return _together(losses)


def _grid(sampled: Sequence[Release], kinds: Sequence[Release], delta: float, points: int) -> float:
    """Return the width of the grid of losses.

    It is a power of two, so that a finer grid has all points of a coarser one, and does not depend on the number of
    steps. More of them never seem to spend less.
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
        raise usage_error("mechanisms.refusals.range", delta=delta)


def affordable(releases: Iterable[Release], release: Release, budget: float, delta: float) -> bool:
    """Return whether a release still fits the budget.

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
    return None if delta * units < 1 else Refusal("delta-gives-away", delta=f"{delta:g}")


def is_close(delta: float, rows: float) -> bool:
    """Return whether `delta` is close to one over the rows.

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
    start = least
    if rough is not None:
        # What else is spent may be above the target by the rough bound alone.
        start = _least(rough, target, least, near=ROUGHLY) or least
    thousandths = _least(spent, target, start)
    if thousandths is None:
        raise usage_error("mechanisms.refusals.unreachable", most=MOST_NOISE, epsilon=target)
    return thousandths / 1000


def _least(spent: Callable[[float], float], target: float, start: int, near: float = 0.0) -> int | None:
    """Return the least thousandths whose ε is at most `target`, or a share `near` more; None if there are none.

    ε is nearly a power of the noise. A line through the two nearest of the noises that were tried, in logarithms, says
    which to try next.
    """
    low = round(LEAST_NOISE * 1000) - 1
    high = round(MOST_NOISE * 1000) + 1
    most = high
    tried = dict[int, float]()
    guess = start
    on_one_side = 0
    while high - low > max(1, near * high):
        tried[guess] = math.log(min(max(spent(guess / 1000), 1e-9), 1e9) / target)
        if tried[guess] > 0:
            low = guess
            on_one_side = max(on_one_side, 0) + 1
        else:
            high = guess
            on_one_side = min(on_one_side, 0) - 1
        # Ever further beyond where the line says, so that both sides close in on the noise that is sought.
        beyond = near if abs(on_one_side) <= MOST_ON_ONE_SIDE else CREEPING
        beyond *= 2.0 ** min(abs(on_one_side) - 2, 10)
        guess = math.ceil(_on_line(tried) * (1 + math.copysign(beyond, on_one_side)))
        if not low < guess <= high:
            guess = round(math.sqrt(low * high))
        guess = min(max(guess, low + 1), high - 1)
    return None if high == most else high


def _on_line(tried: Mapping[int, float]) -> float:
    """Return the thousandths at which a line through the two nearest of those that were tried has the target."""
    latest_first = [*tried][::-1]
    nearest, *others = sorted(latest_first, key=lambda thousandths: abs(tried[thousandths]))[:2]
    slope = -2.0
    if others:
        slope = (tried[nearest] - tried[others[0]]) / math.log(nearest / others[0])
    # A step of the grid is no slope.
    move = -tried[nearest] / min(slope, -0.1)
    return nearest * math.exp(min(max(move, -0.7), 0.7))


# a person's account     histograms  sums   the rest
# training, ε at δ       0.20         0.05    0.75 training
#   own model compared   0.25         0.05    0.50 training, 0.20 the own model
# holdout, ε at δ        0.20         0.05    0.35 scores, 0.40 comparison

ROUNDING = 1e-9
"""Of shares such as 0.2 + 0.05 + 0.75 in floats."""


class TrainingShares(NamedTuple):
    """Shares of the budget of persons who are trained on.

    Attributes
    ----------
    histograms : float in (0, 1)
        Of the histograms that the encoder is made of.
    sums : float in (0, 1)
        Of the number of rows, and of values of flags, categories and classes.
    training : float in (0, 1)
        Of all rounds of the shared model.
    own : float in (0, 1) or None
        Of the site's own model, where it is compared; None where nothing of it leaves.
    """

    histograms: float = 0.2
    sums: float = 0.05
    training: float = 0.75
    own: float | None = None

    @classmethod
    def with_own(cls) -> TrainingShares:
        """Return the shares of a study whose comparison with own models leaves.

        Examples
        --------
        >>> TrainingShares.with_own()
        TrainingShares(histograms=0.25, sums=0.05, training=0.5, own=0.2)
        """
        return cls(histograms=0.25, sums=0.05, training=0.5, own=0.2)


class HoldoutShares(NamedTuple):
    """Shares of the budget of persons who are held out.

    Attributes
    ----------
    histograms : float in (0, 1)
        Of the first counts of scores, which give the edges of the others.
    sums : float in (0, 1)
        Of the number of rows of each class, which follows from the counts of scores: nobody asks for it.
    scores : float in (0, 1)
        Of the counts of scores by class.
    comparison : float in (0, 1)
        Of pairs won by the shared model minus those won by the own one, and of its variance.
    """

    histograms: float = 0.2
    sums: float = 0.05
    scores: float = 0.35
    comparison: float = 0.4


HOLDOUT_SHARES = HoldoutShares()


class TrainingReleases(NamedTuple):
    """What the sites of a study release of each person whom they train on.

    Attributes
    ----------
    histograms, sums : Release
        One answer each, of noise in its own sensitivities.
    training : Release
        All steps of the shared model.
    own : Release or None
        All steps of the own model.
    """

    histograms: Release
    sums: Release
    training: Release
    own: Release | None = None


class HoldoutReleases(NamedTuple):
    """What the sites of a study release of each person whom they hold out.

    Attributes
    ----------
    histograms, sums, scores, comparison : Release
        One answer each, of noise in its own sensitivities.
    """

    histograms: Release
    sums: Release
    scores: Release
    comparison: Release


@lru_cache(maxsize=256)
def gaussian_releases(shares: Sequence[float], target: float, delta: float) -> tuple[Release, ...]:
    """Return a Gaussian query for each share of μ².

    Parameters
    ----------
    shares : tuple of float, each > 0
        At most 1 together.
    target, delta : float
        The budget.

    Returns
    -------
    tuple of Release
        Of noise multiplier `1 / (sqrt(share) · μ)` up to the next thousandth, μ that of the whole budget.

    Guarantee: together they spend at most ε = `target` at `delta` by the project's accountant.

    Notes
    -----
    Gaussian queries of μ_1, μ_2, … are together one of the root of the sum of their squares.

    Source: Dong, Roth and Su 2022, "Gaussian differential privacy", corollary 3.3.

    Examples
    --------
    >>> [release.noise for release in gaussian_releases((0.2, 0.05, 0.75), 3.0, 1e-5)]
    [3.111, 6.221, 1.607]
    """
    whole = noise_for(target, delta, 1.0, 1)
    return tuple(Release(_in_thousandths(whole / math.sqrt(share)), 1.0, 1) for share in shares)


@lru_cache(maxsize=256)
def training_releases(
    shares: TrainingShares, target: float, delta: float, *, sampling: float, steps: int
) -> TrainingReleases:
    """Return what may be released of persons who are trained on.

    Parameters
    ----------
    shares : TrainingShares
    target, delta : float
        The budget of one person.
    sampling : float in (0, 1]
        With what probability a person takes part in a step.
    steps : int, >= 1
        Of all rounds together; of the own model as many.

    Returns
    -------
    TrainingReleases
        The noise of training is the least, in thousandths, that the accountant leaves: whatever is not training's
        stands in the account as the Gaussian query of its share. The own model has the rest then.

    Raises
    ------
    UsageError
        If no noise up to 1000 is enough.

    Guarantee: all together they spend at most ε = `target` at `delta`.

    Examples
    --------
    >>> from flfed.updates.accounting import epsilon
    >>> found = training_releases(TrainingShares(), 3.0, 1e-5, sampling=0.05, steps=400)
    >>> found.training, round(epsilon(found[:3], 1e-5), 2)
    (Release(noise=1.81, sampling=0.05, steps=400), 3.0)
    """
    budget_shares = [shares.histograms, shares.sums]
    if shares.own:
        budget_shares.append(shares.own)
    beside = gaussian_releases(tuple(budget_shares), target, delta)
    releases = TrainingReleases(beside[0], beside[1], _trained(beside, target, delta, sampling, steps))
    if shares.own:
        releases = releases._replace(own=_trained(releases[:3], target, delta, sampling, steps))
    return releases


def holdout_releases(target: float, delta: float) -> HoldoutReleases:
    """Return what may be released of persons who are held out.

    Parameters
    ----------
    target, delta : float
        The budget of one person. What a query may fail by is taken off δ first: the cap of the comparison.

    Guarantee: all together they spend at most ε = `target` at `delta`.

    Examples
    --------
    >>> holdout_releases(3.0, 1e-5).scores
    Release(noise=2.352, sampling=1.0, steps=1)
    """
    return HoldoutReleases(*gaussian_releases(HOLDOUT_SHARES, target, delta))


def _trained(beside: Sequence[Release], target: float, delta: float, sampling: float, steps: int) -> Release:
    """Return the steps with the least noise that other releases leave."""
    return Release(noise_beside(beside, target, delta, sampling, steps), sampling, steps)


def _in_thousandths(noise: float) -> float:
    """Return the next thousandth from above: less noise than a share's would spend more than it."""
    return math.ceil(noise * 1000 - ROUNDING) / 1000


EXACT = 50
"""The number of rounds is exact to one in so many."""


def rounds_left(spent: Sequence[Release], release: Release, budget: float, delta: float, most: int = 10_000) -> int:
    """Return how many more rounds a budget allows.

    They are like `release` and beside the spent ones, at most `most`, to one in fifty.

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
