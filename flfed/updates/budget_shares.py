"""Split of one privacy budget (ε, δ) over all that leaves a site in a study.

Shares are of μ², the square of sensitivity over noise: of Gaussian queries it adds up, and the whole is that of the one
Gaussian that spends the budget alone. Persons who are trained on and persons who are held out have accounts apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from flfed.updates.accounting import Release, noise_beside, noise_for

# a person's account     histograms  sums   what is left
# training, ε at δ       .20         .05    .75 training
#   own model compared   .25         .05    .50 training, .20 the own model
# holdout, ε at δ        .20         .05    .35 scores, .40 comparison

ROUNDING = 1e-9
"""Of shares such as .2 + .05 + .75 in floats."""


@dataclass(frozen=True, kw_only=True)
class TrainingShares:
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
        Of the site's own model, where what leaves is held against it; None where nothing of it leaves.
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


@dataclass(frozen=True, kw_only=True)
class HoldoutShares:
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


@dataclass(frozen=True, kw_only=True)
class TrainingReleases:
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

    @property
    def all(self) -> tuple[Release, ...]:
        """All releases, as an account has them."""
        own = () if self.own is None else (self.own,)
        return (self.histograms, self.sums, self.training, *own)


@dataclass(frozen=True, kw_only=True)
class HoldoutReleases:
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

    @property
    def all(self) -> tuple[Release, ...]:
        """All releases, as an account has them."""
        return (self.histograms, self.sums, self.scores, self.comparison)


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


def divided(release: Release, answers: int) -> Release:
    """Return the release of several answers that spend what one would.

    Parameters
    ----------
    release : Release
        Of one Gaussian query.
    answers : int, >= 1
        Each has the root of so many times the noise.

    Examples
    --------
    >>> divided(Release(2.0, 1.0, 1), 4)
    Release(noise=4.0, sampling=1.0, steps=4)
    """
    return Release(_in_thousandths(release.noise * math.sqrt(answers)), release.sampling, answers * release.steps)


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
        stands in the account as the Gaussian query of its share. The own model has what is left then.

    Raises
    ------
    UsageError
        If no noise up to 1000 is enough.

    Guarantee: all together they spend at most ε = `target` at `delta`.

    Examples
    --------
    >>> from flfed.updates.accounting import epsilon
    >>> found = training_releases(TrainingShares(), 3.0, 1e-5, sampling=0.05, steps=400)
    >>> found.training, round(epsilon(found.all, 1e-5), 2)
    (Release(noise=1.81, sampling=0.05, steps=400), 3.0)
    """
    own = () if shares.own is None else (shares.own,)
    histograms, sums, *others = gaussian_releases((shares.histograms, shares.sums, *own), target, delta)
    training = _trained((histograms, sums, *others), target, delta, sampling, steps)
    if shares.own is None:
        return TrainingReleases(histograms=histograms, sums=sums, training=training)
    own_training = _trained((histograms, sums, training), target, delta, sampling, steps)
    return TrainingReleases(histograms=histograms, sums=sums, training=training, own=own_training)


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
    of = HOLDOUT_SHARES
    histograms, sums, scores, comparison = gaussian_releases(
        (of.histograms, of.sums, of.scores, of.comparison), target, delta
    )
    return HoldoutReleases(histograms=histograms, sums=sums, scores=scores, comparison=comparison)


def _trained(beside: Sequence[Release], target: float, delta: float, sampling: float, steps: int) -> Release:
    """Return the steps with the least noise that other releases leave."""
    return Release(noise_beside(beside, target, delta, sampling, steps), sampling, steps)


def _in_thousandths(noise: float) -> float:
    """Return the next thousandth from above: less noise than a share's would spend more than it."""
    return math.ceil(noise * 1000 - ROUNDING) / 1000
