"""FedYogi: Yogi at the server, with the mean update in place of a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flfed.updates.strategies.fedadagrad import FedAdagrad, Share


@dataclass(kw_only=True, eq=False, repr=False)
class FedYogi(FedAdagrad):
    """Yogi at the server, with the mean update in place of a gradient.

    As FedAdagrad, with `v = v - (1 - beta2) d^2 sign(v - d^2)`: after a large update it forgets slowly.

    Parameters
    ----------
    server_lr : float, > 0
        How far an entry of the model moves in a round, up to a factor. Where updates stay the same, it is at most 2.1
        times this with the plain betas, 6.6 times with `beta2 = 0.999`. Example: `server-lr = 0.01`.
    beta1 : float in [0, 1)
        Share of the first moment that is kept from round to round. Example: `beta1 = 0.9`.
    beta2 : float in [0, 1)
        Share of the second moment that is kept. Example: `beta2 = 0.99`.
    tau : float, > 0
        Below this size of an entry's updates it moves in proportion to them. Example: `tau = 1e-3`.
    fraction, weights, cap, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    There is no correction of the moments' bias, which Adam has. The first round moves an entry by
    `(1 - beta1) / sqrt(1 - beta2)` of `server_lr`. The second moment begins at 0, as in Flower; the source begins it at
    `tau^2` or above.

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2 (FedYogi).
    """

    beta2: Share = 0.99

    def second_moment(self, before: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return the second moment of one array after a round, from the one before and the squared mean update."""
        return np.asarray(before - (1 - self.beta2) * squares * np.sign(before - squares))
