"""A strategy in a package of its own, with arrays that cross beside the model and stay at the sites."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flfed import Arrays, FedAvg
from flfed.updates.codec import Shapes
from flfed.updates.extra import ExtraArrays, ExtraShapes, LocalUpdate, SiteArrays


class EqualVariates(FedAvg):
    """Averaging of sites that count the same, whose gradients are corrected by control variates.

    Reveals: how a site's mean gradient changed since its last round, which follows from its updates too.

    Source: Karimireddy et al. 2020, "SCAFFOLD", algorithm 1, option II.
    """

    sums = False  # it looks at each site's own arrays

    def __init__(self, *, fraction: float = 1.0, quorum: float = 0.75) -> None:
        super().__init__(fraction=fraction, quorum=quorum, weights="equal")

    @classmethod
    def extra_shapes(cls, model: Shapes) -> ExtraShapes:
        """Return that arrays like the model's go to the sites, come back and stay there."""
        return ExtraShapes(sent=model, returned=model, kept=model)

    def client_arrays(self) -> Arrays:
        """Return the mean variate of all sites, which every site is sent."""
        none = {name: np.zeros_like(value) for name, value in self.round.incoming.items()}
        return self.moments.get("variate", none)

    @classmethod
    def client_terms(cls, settings: Mapping[str, float], arrays: SiteArrays) -> tuple[Arrays, ...]:
        """Return a constant gradient: the mean variate minus the site's own."""
        return ({name: value - arrays.kept.get(name, 0) for name, value in arrays.received.items()},)

    @classmethod
    def client_extra(cls, settings: Mapping[str, float], arrays: SiteArrays, update: LocalUpdate) -> ExtraArrays:
        """Return the change of the site's variate, for the server, and the new one, which stays."""
        (correction,) = cls.client_terms(settings, arrays)
        length = update.steps * update.lr
        own = {name: -value / length - correction[name] for name, value in update.delta.items()}
        change = {name: value - arrays.kept.get(name, 0) for name, value in own.items()}
        return ExtraArrays(returned=change, kept=own)

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return the mean model, and add the sites' changes to the mean variate."""
        sent = [self.round.result.accepted[site].extra for site in sorted(deltas)]
        before, sites = self.client_arrays(), len(self.run.participants)
        self.moments["variate"] = {n: value + sum(own[n] for own in sent) / sites for n, value in before.items()}
        return super().combine(incoming, deltas, weights)
