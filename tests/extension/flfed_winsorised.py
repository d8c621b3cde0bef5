"""A strategy in a package of its own: the mean once the extremes are drawn in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flfed import Arrays, FedAvg, UsageError


class WinsorisedMean(FedAvg):
    """For each coordinate, the mean once the lowest and the highest share of the sites are drawn in to the next.

    Parameters
    ----------
    trim : float in [0, 0.5)
        Share drawn in at either end, rounded down to sites; 0 is the equal mean.

    Source: Tukey 1962, "The future of data analysis", on trimming and Winsorizing.
    """

    sums = False  # it looks at each site's own update

    def __init__(self, *, trim: float = 0.2, fraction: float = 1.0, quorum: float = 0.75) -> None:
        if not 0 <= trim < 0.5:
            raise UsageError(f"[strategy]: trim={trim} must be in [0, 0.5)")
        super().__init__(fraction=fraction, quorum=quorum, weights="equal")
        self.trim = trim

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming` plus the Winsorised mean of the deltas, of the incoming dtypes."""
        cut = int(self.trim * len(deltas))
        found = {}
        for name, value in incoming.items():
            stack = np.sort(np.stack([delta[name] for delta in deltas.values()]).astype(np.float64), axis=0)
            mean = stack.clip(stack[cut], stack[len(stack) - cut - 1]).mean(axis=0)
            found[name] = (value.astype(np.float64) + mean).astype(value.dtype)
        return found
