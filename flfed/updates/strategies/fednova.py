"""FedNova: updates normalised by the steps that they took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from flfed.study.plan import Plan
from flfed.updates.arrays import Arrays
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import usage_error


@dataclass(kw_only=True, eq=False, repr=False)
class FedNova(FedAvg):
    """Mean of the sites' updates, each taken as if all had made the same number of steps.

    With shares p_k of the weights and effective steps a_k, the model moves by
    `server_lr * (sum p_k a_k) * sum p_k delta_k / a_k`. Sites of equal steps give FedAvg.

    Parameters
    ----------
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    Under `epochs` a site of more rows makes more steps, and FedAvg's fixed point is drawn towards its optimum. The
    effective steps of plain SGD are its steps. With momentum r they are `(s - r (1 - r^s) / (1 - r)) / (1 - r)`.

    Source: Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated optimization",
    equation 6 and section 4.
    """

    by_steps: ClassVar[bool] = True  # a site with false ones would weigh as much as it likes

    def check(self, plan: Plan) -> None:
        """Refuse an optimiser whose steps are not sums of gradients."""
        super().check(plan)
        if plan.optimiser != "sgd":
            raise usage_error("study.strategies.fednova", optimiser=plan.optimiser)

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * (sum p_k a_k) * sum p_k delta_k / a_k` in its dtypes."""
        steps = {site: self.run.plan.effective_steps(self.round.result.accepted[site].steps) for site in deltas}
        if len(set(steps.values())) == 1:
            return super().combine(incoming, deltas, weights)
        total = math.fsum(weights[site] for site in sorted(weights))
        mean = math.fsum(weights[site] * steps[site] for site in sorted(weights)) / total
        scaled = {}
        for site, delta in deltas.items():
            # A site without a step sent no change, and counts with its weight.
            times = mean / steps[site] if steps[site] else 0.0
            scaled[site] = {name: times * value for name, value in delta.items()}
        return super().combine(incoming, scaled, weights)
