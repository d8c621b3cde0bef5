"""A strategy in a package of its own: the mean of what is left when the extremes are cut off."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flfed import Arrays, FedAvg, UsageError


class TrimmedMean(FedAvg):
    """For each coordinate, the mean without the lowest and the highest share of the sites.

    Parameters
    ----------
    trim : float in [0, 0.5)
        Share cut off at either end, rounded down to sites; 0 is the equal mean.

    Source: Yin, Chen, Ramchandran and Bartlett 2018, "Byzantine-robust distributed learning:
    towards optimal statistical rates", definition 2.
    """

    sums = False  # it looks at each site's own update

    def __init__(self, *, trim: float = 0.2, fraction: float = 1.0, quorum: float = 0.75) -> None:
        if not 0 <= trim < 0.5:
            raise UsageError(f"[strategy]: trim={trim} must be in [0, 0.5)")
        super().__init__(fraction=fraction, quorum=quorum, weights="equal")
        self.trim = trim

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming` plus the trimmed mean of the deltas, of the incoming dtypes."""
        cut = int(self.trim * len(deltas))
        found = {}
        for name, value in incoming.items():
            stack = np.sort(np.stack([delta[name] for delta in deltas.values()]).astype(np.float64), axis=0)
            mean = stack[cut : len(stack) - cut].mean(axis=0)
            found[name] = (value.astype(np.float64) + mean).astype(value.dtype)
        return found
