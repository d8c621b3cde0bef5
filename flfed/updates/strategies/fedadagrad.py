"""FedAdagrad: Adagrad at the server, with the mean update in place of a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from flfed.updates.arrays import Arrays
from flfed.updates.strategies.fedavg import FedAvg, mean_update, moved_by

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(kw_only=True, eq=False, repr=False)
class FedAdagrad(FedAvg):
    """Adagrad at the server, with the mean update in place of a gradient.

    With the mean update d of a round: `m = beta1 m + (1 - beta1) d`, `v = v + d^2`, and the model moves by
    `server_lr * m / (sqrt(v) + tau)`. Steps become smaller from round to round.

    Parameters
    ----------
    server_lr : float, > 0
        About how far an entry of the model moves in a round, at most; where updates stay the same, a fifth of it.
        Example: `server-lr = 0.01`.
    beta1 : float in [0, 1)
        Share of the first moment that is kept from round to round. Example: `beta1 = 0.9`.
    tau : float, > 0
        Below this size of an entry's updates it moves in proportion to them. Example: `tau = 1e-3`.
    fraction, weights, cap, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    As in the source the first moment is not corrected for beginning at 0. The second one begins at 0 too, as in Flower;
    the source begins it at `tau^2` or above.

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2 (FedAdagrad).
    """

    server_lr: Annotated[float, Field(gt=0)] = 0.01
    beta1: Share = 0.9
    tau: Annotated[float, Field(gt=0)] = 1e-3

    sums = True

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * m / (sqrt(v) + tau)` in its dtypes, and keep the moments."""
        mean = mean_update(deltas, weights)
        none = {name: np.zeros_like(value) for name, value in mean.items()}
        first, second = (self.moments.get(name, none) for name in ("first", "second"))
        m = {name: self.beta1 * first[name] + (1 - self.beta1) * value for name, value in mean.items()}
        v = {name: self.second_moment(second[name], value**2) for name, value in mean.items()}
        self.moments |= {"first": m, "second": v}
        return moved_by({name: self.server_lr * m[name] / (np.sqrt(v[name]) + self.tau) for name in m}, incoming)

    def second_moment(self, before: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return the second moment of one array after a round, from the one before and the squared mean update."""
        return np.asarray(before + squares)
