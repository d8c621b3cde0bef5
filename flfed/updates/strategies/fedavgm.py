"""FedAvgM, federated averaging with server momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from flfed.updates.arrays import Arrays
from flfed.updates.strategies.fedavg import FedAvg, mean_update, moved_by


@dataclass(kw_only=True, eq=False, repr=False)
class FedAvgM(FedAvg):
    """Mean of the sites' models, with momentum at the server.

    The momentum is `v = momentum * v + mean update`, and the model moves by `server_lr * v`.

    Parameters
    ----------
    momentum : float in [0, 1)
        Share of the momentum that is kept from round to round; 0 is FedAvg. Example: `momentum = 0.9`.
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    Where sites agree the model moves by `server_lr / (1 - momentum)` mean updates a round in the end. With a momentum
    of 0.9 take a tenth of the `server_lr`, or of the sites' `lr`.

    Source: Hsu, Qi and Brown 2019, "Measuring the effects of non-identical data distribution for federated visual
    classification", section 4.3.
    """

    momentum: Annotated[float, Field(ge=0, lt=1), "in [0, 1); 0 is plain averaging"] = 0.9

    sums = True

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * v` in its dtypes."""
        mean = mean_update(deltas, weights)
        before = self.moments.get("velocity", {})
        velocity = {name: self.momentum * before.get(name, 0.0) + value for name, value in mean.items()}
        self.moments["velocity"] = velocity
        return moved_by({name: self.server_lr * value for name, value in velocity.items()}, incoming)
