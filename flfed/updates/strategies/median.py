"""The median of the sites' updates, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flfed.updates.arrays import Arrays
from flfed.updates.strategies.fedavg import FedAvg, moved_by


@dataclass(kw_only=True, eq=False, repr=False)
class Median(FedAvg):
    """The median of the sites' updates, entry by entry: every site counts the same.

    Parameters
    ----------
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`; `weights` and `cap` have no effect on the model.

    Notes
    -----
    Fewer than half of the sites cannot move an entry beyond what the others send. Where sites' rows differ it costs:
    a large site counts as much as a small one, and what few sites need is not learned.

    Source: Yin, Chen, Ramchandran and Bartlett 2018, "Byzantine-robust distributed learning: towards optimal
    statistical rates", definition 1.
    """

    parts = False  # zeros of sites that train a part would be the middle

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * median(delta_k)` in its dtypes."""
        middle = {name: self.server_lr * np.median(values, axis=0) for name, values in stacked(deltas).items()}
        return moved_by(middle, incoming)


def stacked(deltas: Mapping[str, Arrays]) -> Arrays:
    """Return each array of the sites' updates as float64 [sites, ...], in the order of their names."""
    updates = [deltas[site] for site in sorted(deltas)]
    stacks = {}
    for name in updates[0]:
        stacks[name] = np.stack([update[name] for update in updates]).astype(np.float64)
    return stacks
