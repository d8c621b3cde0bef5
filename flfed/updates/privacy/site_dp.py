"""Site-level differential privacy.

The server clips each site's update and adds noise to their mean; under secure sums each site does it for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np

from flfed.study.plan import Plan
from flfed.study.settings import Settings
from flfed.study.study import Study
from flfed.updates.accounting import LEAST_NOISE, MOST_NOISE, Clip, Delta, Epsilon, Release, epsilon, noise_for
from flfed.updates.aggregation.guard import joint_norms, weighted_mean
from flfed.updates.arrays import Arrays
from flfed.updates.mechanism import WEAK_EPSILON, Mechanism, Normals, Promise, SiteNoise, uncharged_outputs
from flfed.words import render, usage_error

FEW_SITES = 10


class SiteDp(Mechanism, Settings, where="[privacy]"):
    """Noise that protects a whole site: on the mean of clipped updates.

    Every site counts the same, and the mean stands in place of the sites' own updates.

    Parameters
    ----------
    epsilon : float, > 0
        What all rounds of the run may spend together; the noise follows from it and from the rounds.
        Example: `epsilon = 4.0`.
    noise : float, >= 0
        Noise multiplier σ; above 0 it stands in place of `epsilon`. Example: `noise = 1.0`.
    delta : float in (0, 0.1)
        Less than one over the sites; a tenth of that, if possible. Example: `delta = 0.001`.
    clip : float, > 0
        Largest norm of a site's update, over all its arrays together. Example: `clip = 0.5`.

    Notes
    -----
    Every site counts the same. A study that sets `strategy.weights` to another rule is refused, and one that sets none
    gets equal weights by this mechanism. The strategy sees one update, the mean. The mean divides by the sites asked,
    whatever they answered: how many did would depend on a site. For the same reason no update is set aside for its norm
    among the others', which clipping bounds. The sites of a round follow from the study's seed, which everybody has. A
    sample that is known hides nobody, so that nothing is taken off for it, and a site counts as taking part in every
    round.

    Under `secure-aggregation = "on"` each site clips its own update and adds noise itself (`SiteNoise`), before its
    vector is masked, so that the noise of all sites together is enough. The mean divides by all of them. The noise of
    a round is drawn once and kept with the masked vector. A round that is asked for again has the same bits, and is
    charged once.

    Guarantee: whoever sees the models that the server sends on learns almost the same whether or not
    one site's updates were in them: (ε, δ) by `promise`. Neighbours are federations with and without one
    site's updates; replacing them all by others moves a sum twice as far. Assumes a server that is
    trusted: it sees every update without noise, and could draw the noise again. Under secure sums the server
    need not be trusted: the same (ε, δ) holds against it, as long as no site colludes with it. Sites that collude take
    their own noise off. With c of n, ε is that of a multiplier of σ √((n - c) / n). The run's warnings have it for one
    site and for a third of them. Neighbours are then runs in which one site's updates are as they are, or zero: that
    the site takes part is known.

    Source: McMahan et al. 2018, "Learning differentially private recurrent language models", algorithm 1;
    ε by Balle and Wang 2018, "Improving the Gaussian mechanism for differential privacy", theorem 8.
    """

    refuses_by_norm = False

    epsilon: Epsilon = 8.0
    noise: float = 0.0
    delta: Annotated[Delta, "in (0, 0.1): less than one over the sites"] = 1e-2
    clip: Clip = 1.0

    def __post_init__(self) -> None:
        """Refuse noise that no accountant can count."""
        super().__post_init__()
        if self.noise and not LEAST_NOISE <= self.noise <= MOST_NOISE:
            raise usage_error("mechanisms.refusals.noise", noise=self.noise, least=LEAST_NOISE, most=MOST_NOISE)

    def check(self, study: Study) -> None:
        """Refuse a study that would break the promise.

        It has unequal weights, or a strategy that does not aggregate as FedAvg does.
        """
        from flfed.updates.strategies.fedavg import FedAvg  # loads Flower, which who only promises does without

        kind = type(study.strategy.build("strategy"))
        # Noise is added where FedAvg aggregates: a strategy of its own would leave it out.
        if getattr(kind, "aggregate_train", None) is not FedAvg.aggregate_train:
            raise usage_error("mechanisms.refusals.aggregates", strategy=study.strategy.name)
        if not kind.sums:
            raise usage_error("mechanisms.refusals.single", strategy=study.strategy.name)
        weights = study.strategy.settings.get("weights", "equal")
        if weights != "equal":
            raise usage_error("mechanisms.refusals.weights", weights=weights)
        self._noise(study.rounds)  # there may be none that is enough

    def check_sites(self, sites: int) -> None:
        """Refuse a `delta` that could give one site away.

        It is too large for so few sites.
        """
        if self.delta * sites >= 1:
            raise usage_error("mechanisms.refusals.delta", delta=self.delta, sites=sites, tenth=0.1 / sites)

    def promise(self, plan: Plan, rounds: int) -> Promise | None:
        """Return what the run promises as it is planned."""
        noise = self._noise(rounds)
        return Promise(
            mechanism="site-dp", unit="site", epsilon=site_epsilon(noise, rounds, self.delta), delta=self.delta,
            noise=noise, sampling=1.0, clip=self.clip, steps=rounds,
        )  # fmt: skip

    def spent(self, plan: Plan, rounds: int, asked: int) -> float | None:
        """Return the ε of `asked` rounds."""
        return site_epsilon(self._noise(rounds), asked, self.delta)

    def merged(
        self, deltas: Mapping[str, Arrays], *, plan: Plan, rounds: int, asked: int, normals: Normals
    ) -> Arrays | None:
        """Return the noised mean of the clipped updates.

        It is their sum over `asked`, with noise of deviation `noise * clip / asked`.
        """
        updates = [deltas[site] for site in sorted(deltas)]
        # An update within the bound keeps its length: no scale is above 1.
        scales = self.clip / np.maximum(joint_norms(updates), self.clip)
        # A site that changes nothing takes what the shares of a mean lack to one.
        still = {name: np.zeros_like(value) for name, value in updates[0].items()}
        shares = np.array([1 - scales.sum() / asked, *(scales / asked)])
        deviation = self._noise(rounds) * self.clip / asked
        means = {}
        for name in sorted(still):
            mean = weighted_mean([still, *updates], name, shares)
            means[name] = mean + deviation * normals(mean.size).reshape(mean.shape)
        return {name: means[name] for name in still}

    def site_noise(self, rounds: int, sites: int) -> SiteNoise:
        """Return how a site clips and adds noise before a secure sum."""
        return SiteNoise(noise=self._noise(rounds), clip=self.clip, sites=sites)

    def colluding(self, rounds: int, sites: int, colluding: int) -> float:
        """Return the ε of `rounds` sums against a server with which some sites collude."""
        return site_epsilon(self._noise(rounds) * math.sqrt((sites - colluding) / sites), rounds, self.delta)

    def warnings(self, study: Study, sites: int) -> tuple[str, ...]:
        """Return whom the promise leaves out, and its worth.

        It is worth less with few sites.
        """
        if study.aggregation.masks_updates:
            warnings = [self._collusion(study.rounds, sites)]
        else:
            warnings = [render("mechanisms.warnings.trusted")]
        if sites < FEW_SITES:
            warnings.append(render("mechanisms.warnings.few", sites=sites, delta=self.delta, tenth=0.1 / sites))
        if (ε := self.spent(study.plan, study.rounds, study.rounds)) is not None and ε > WEAK_EPSILON:
            warnings.append(render("mechanisms.warnings.weak", epsilon=math.ceil(100 * ε) / 100))
        return tuple(warnings)

    def uncharged(self, study: Study) -> tuple[str, ...]:
        """Return a sentence for each output beside the mean.

        The mean alone has noise.
        """
        outputs = uncharged_outputs(study)
        if study.aggregation.masks_updates:
            return (render("mechanisms.uncharged.masked"), *outputs)
        return (render("mechanisms.uncharged.trusted"), render("mechanisms.uncharged.guarded"), *outputs)

    def _collusion(self, rounds: int, sites: int) -> str:
        """Return a sentence on who knows part of the noise."""
        third = max(1, sites // 3)
        one, some = (math.ceil(100 * self.colluding(rounds, sites, count)) / 100 for count in (1, third))
        return render("mechanisms.warnings.collusion", one=one, third=third, sites=sites, some=some)

    def _noise(self, rounds: int) -> float:
        return self.noise or noise_for(self.epsilon, self.delta, 1.0, rounds)


def site_epsilon(noise: float, rounds: int, delta: float) -> float:
    """Return the ε of noised sums, in its closed form.

    It is at `delta`, of `rounds` sums with noise multiplier `noise`.

    Neighbours are with and without one site. Nothing is taken off for sampling: who is asked follows from the study's
    seed, which everybody has.

    Examples
    --------
    >>> round(site_epsilon(1.0, 10, 1e-3), 2)
    14.08
    """
    return epsilon([Release(noise, 1.0, rounds)], delta)
