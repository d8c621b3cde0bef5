"""FedAdagrad: Adagrad at the server, with the mean update in place of a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from flfed.updates.messages.fields import Arrays
from flfed.updates.strategies.fedavg import FedAvg, mean_update, moved_by

FIRST, SECOND = "server-first-moment", "server-second-moment"
"""Names of the moments in a checkpoint."""


@dataclass(kw_only=True, eq=False, repr=False)
class FedAdagrad(FedAvg):
    """Adagrad at the server, with the mean update in place of a gradient.

    With the mean update d of a round: `m = beta1 m + (1 - beta1) d`, `v = v + d^2`, and the model moves by
    `server_lr * m / (sqrt(v) + tau)`. Steps become smaller from round to round.

    Parameters
    ----------
    server_lr : float, > 0
        About how far an entry of the model moves in a round, at most. Example: `server-lr = 0.01`.
    beta1 : float in [0, 1)
        What is kept of the first moment from round to round. Example: `beta1 = 0.9`.
    tau : float, > 0
        Below this size of an entry's updates it moves in proportion to them. Example: `tau = 1e-3`.
    fraction, weights, cap, quorum, deadline, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    As in the source the moments are not corrected for beginning at 0.

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2 (FedAdagrad).
    """

    server_lr: Annotated[float, Field(gt=0), "> 0"] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1), "in [0, 1)"] = 0.9
    tau: Annotated[float, Field(gt=0), "> 0"] = 1e-3
    _first: Arrays = field(default_factory=dict, init=False)
    _second: Arrays = field(default_factory=dict, init=False)

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * m / (sqrt(v) + tau)` in its dtypes."""
        mean = mean_update(deltas, weights)
        none = {name: np.zeros_like(value) for name, value in mean.items()}
        first, second = self._first or none, self._second or none
        self._first = {name: self.beta1 * first[name] + (1 - self.beta1) * value for name, value in mean.items()}
        self._second = {name: self.second_moment(second[name], value**2) for name, value in mean.items()}
        step = {
            name: self.server_lr * value / (np.sqrt(self._second[name]) + self.tau)
            for name, value in self._first.items()
        }
        return moved_by(step, incoming)

    def second_moment(self, before: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return the second moment of one array after a round, from the one before and the squared mean update."""
        found: np.ndarray = before + squares
        return found

    def state(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Return FedAvg's, and the moments."""
        arrays, facts = super().state()
        return {**arrays, FIRST: self._first, SECOND: self._second} if self._first else arrays, facts

    def restore(self, round: int, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Resume with the moments of then."""
        super().restore(round, arrays, facts)
        self._first, self._second = dict(arrays.get(FIRST, {})), dict(arrays.get(SECOND, {}))
