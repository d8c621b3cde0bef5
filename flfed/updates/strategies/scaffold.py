"""SCAFFOLD, federated averaging whose sites correct their gradients by control variates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flfed.study.plan import Plan
from flfed.updates.arrays import Arrays, Shapes
from flfed.updates.extra import NO_ARRAYS, ExtraArrays, ExtraShapes, LocalUpdate, SiteArrays
from flfed.updates.strategies.fedavg import FedAvg, Term, mean_update
from flfed.words import render, usage_error

VARIATE = "variate-"
"""Begins the names of the sites' control variates among the strategy's moments."""
COUNTED = "weights"
"""Name among the moments of what each site's variate counts."""


@dataclass(kw_only=True, eq=False, repr=False)
class Scaffold(FedAvg):
    """Federated averaging whose sites correct their gradients by control variates.

    A site k takes steps by `g_k - c_k + c`. c_k is its mean gradient in its last round, which it keeps, and c the mean
    of all sites' c_k, weighted as the model is. At the optimum of all rows every corrected gradient is zero, so that
    sites stay there however many steps they take.

    Parameters
    ----------
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    Control variates are those of the paper's option II, `c_k - c - delta / (a lr)`, with the learning rate in force in
    the round and a the sum of the weights that gradients have in an update: the steps, and more with momentum
    (`Plan.effective_steps`). A site sends c_k whole and not its change, and the server keeps the last one of each. A
    reply that is lost or set aside spoils no later round. A site that has not trained yet has a variate of zero, and
    counts as the mean of those that have.

    Reveals: the mean gradient over a site's steps, without its correction. It follows from the update and the arrays
    that crossed before, so that a reader of all messages learns nothing that the updates do not show.

    Source: Karimireddy et al. 2020, "SCAFFOLD: stochastic controlled averaging for federated learning", algorithm 1
    with option II; there all sites count the same.
    """

    parts: ClassVar[bool] = False  # of units that a site does not train it knows no gradient

    def check(self, plan: Plan) -> None:
        """Refuse a plan whose updates are no sums of gradients."""
        super().check(plan)
        why = ""
        if plan.optimiser != "sgd":
            why = render("study.scaffold.optimiser", optimiser=plan.optimiser)
        elif plan.clip:
            why = render("study.scaffold.clip", clip=plan.clip)
        elif plan.l1:
            why = render("study.scaffold.penalty", l1=plan.l1)
        if why:
            raise usage_error("study.strategies.scaffold", why=why)

    @classmethod
    def extra_shapes(cls, model: Shapes) -> ExtraShapes:
        """Return the shapes of the control variates: the model's, in both directions and at the site."""
        return ExtraShapes(sent=model, returned=model, kept=model)

    def client_arrays(self) -> Arrays:
        """Return the control variate of all sites, zero before the first round."""
        weights = self.moments.get(COUNTED, {})
        sites = [site for site in sorted(self.run.participants) if site in weights]
        model = self.round.incoming
        if not sites:
            return {name: np.zeros_like(value) for name, value in model.items()}
        variates = {site: self.moments[f"{VARIATE}{site}"] for site in sites}
        mean = mean_update(variates, {site: float(weights[site]) for site in sites})
        share = len(sites) / len(self.run.participants)
        return {name: (share * mean[name]).astype(value.dtype) for name, value in model.items()}

    @classmethod
    def client_terms(cls, settings: Mapping[str, float], arrays: SiteArrays = NO_ARRAYS) -> tuple[Term | Arrays, ...]:
        """Return the correction `c - c_k` of each gradient."""
        return (_correction(arrays),)

    @classmethod
    def client_extra(cls, settings: Mapping[str, float], arrays: SiteArrays, update: LocalUpdate) -> ExtraArrays:
        """Return the site's new control variate `c_k - c - delta / (a lr)`, to send and to keep."""
        length = update.plan.effective_steps(update.steps) * update.lr
        correction = _correction(arrays)
        variates = {}
        for name, value in update.delta.items():
            # Without a step, or at a rate of zero, nothing is known of the gradient.
            old = arrays.kept.get(name, np.zeros_like(value))
            variates[name] = (-value / length - correction[name]).astype(value.dtype) if length > 0 else old
        return ExtraArrays(returned=variates, kept=variates)

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return the model as FedAvg does, and take note of the sites' control variates."""
        accepted = self.round.result.accepted
        for site in deltas:
            self.moments[f"{VARIATE}{site}"] = dict(accepted[site].extra)
        counted = {site: np.array(float(weight)) for site, weight in weights.items()}
        self.moments[COUNTED] = {**self.moments.get(COUNTED, {}), **counted}
        return super().combine(incoming, deltas, weights)


def _correction(arrays: SiteArrays) -> Arrays:
    own = arrays.kept
    if not own:
        return dict(arrays.received)
    return {name: value - own[name] for name, value in arrays.received.items()}
