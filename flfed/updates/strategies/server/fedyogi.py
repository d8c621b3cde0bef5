"""FedYogi: FedAdam whose second moment grows and shrinks by small steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flfed.updates.strategies.server.fedadam import FedAdam


@dataclass(kw_only=True, eq=False, repr=False)
class FedYogi(FedAdam):
    """Yogi at the server, with the mean update in place of a gradient.

    As FedAdam, with `v = v - (1 - beta2) d^2 sign(v - d^2)`: after one large update it forgets the smaller ones slowly.

    Parameters
    ----------
    server_lr, beta1, beta2, tau : as in FedAdam
        As for `FedAdam`.
    fraction, weights, cap, quorum, deadline, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2 (FedYogi).
    """

    def second_moment(self, before: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return the second moment of one array after a round, from the one before and the squared mean update."""
        found: np.ndarray = before - (1 - self.beta2) * squares * np.sign(before - squares)
        return found
