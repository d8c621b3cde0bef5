"""The mean of the sites' updates without the extremes, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flfed.updates.arrays import Arrays
from flfed.updates.strategies.fedavg import FedAvg, moved_by
from flfed.updates.strategies.median import stacked


@dataclass(kw_only=True, eq=False, repr=False)
class TrimmedMean(FedAvg):
    """Mean of updates without the extremes: a wrong site moves it little.

    It is taken entry by entry, and every site counts the same.

    Parameters
    ----------
    trim : float in [0, 0.5)
        Share of the sites cut off at either end, rounded down to sites; 0 is the equal mean. Example: `trim = 0.2`.
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`; `weights` and `cap` have no effect on the model.

    Notes
    -----
    Of four sites a fifth is none: nothing is cut. No more sites than are cut at one end may be wrong.

    Source: Yin, Chen, Ramchandran and Bartlett 2018, "Byzantine-robust distributed learning: towards optimal
    statistical rates", definition 2.
    """

    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
    parts = False  # zeros of sites that train a part would be the middle

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming + server_lr * mean` of the remaining deltas, in its dtypes."""
        left = {name: self.server_lr * trim_mean(values, self.trim) for name, values in stacked(deltas).items()}
        return moved_by(left, incoming)


def trim_mean(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return the mean over the first axis without the extremes.

    Parameters
    ----------
    values : array [sites, ...]
    share : float in [0, 0.5)
        Of the sites that are cut off at either end.

    Examples
    --------
    >>> trim_mean(np.array([[9.0], [1.0], [2.0], [-50.0]]), 0.25)
    array([1.5])
    """
    sites = len(values)
    cut = int(share * sites)
    ordered = np.partition(values, (cut, sites - cut - 1), axis=0)
    return np.asarray(np.mean(ordered[cut : sites - cut], axis=0))
