"""Gaussian mechanism for the counts and clipped sums of one answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flfed.rows.training.private.noise import NoiseSource
from flfed.rows.training.private.rounding import PublicGrid

STEP = 2.0**-20
"""Between two numbers of a weighted count or a sum, of which one row adds at most 1: sums of 2^32 rows are exact."""


@dataclass(frozen=True, kw_only=True)
class GaussianQuery:
    """Query whose answer has normal noise.

    Attributes
    ----------
    sensitivity : float, > 0
        Most that one person moves all numbers of the answer together, in L2: of k histograms, in each of which a
        person's rows weigh at most one together, it is the root of k.
    noise : float, > 0
        Noise multiplier: deviation of the noise in sensitivities.
    step : float, a power of two
        Between two numbers of an answer: 1 of counts, `STEP` of weighted counts and sums.

    Guarantee: an answer is `S + round(z)`, S the exact numbers and z normal noise of deviation `noise · sensitivity`,
    rounded to the step. S lies on multiples of the step, so that this is `round(S + z)`, which is post-processing of
    the Gaussian mechanism on S: no last bit tells S. Tables with and without one person differ in S by at most
    `sensitivity`; of tables in which a person is another one it would be twice that, or √2 times in histograms.
    It costs one step of this noise over all rows, however many sums the answer has. Draws must be such as nobody can
    repeat (`SystemNoise`).

    Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A; of the rounding,
    Mironov 2012, "On significance of the least significant bits for differential privacy".

    Examples
    --------
    >>> query = GaussianQuery(sensitivity=24**0.5, noise=3.766)
    >>> round(query.deviation, 2)
    18.45
    """

    sensitivity: float
    noise: float
    step: float = 1.0

    @property
    def deviation(self) -> float:
        """Deviation of the noise on each number."""
        return self.noise * self.sensitivity

    def answer(self, exact: np.ndarray, chance: NoiseSource) -> np.ndarray:
        """Return the noised numbers, float64 of the same shape, multiples of the step.

        Parameters
        ----------
        exact : array of counts or sums
            Multiples of the step.
        chance : NoiseSource

        Raises
        ------
        ValueError
            If a number is no multiple of the step: then its last bits would show through the noise.
        """
        values = np.asarray(exact, dtype=np.float64)
        if not (np.floor(values / self.step) * self.step == values).all():
            raise ValueError(f"an answer must have multiples of {self.step:g}")
        grid = PublicGrid(self.step, self.sensitivity)
        return np.asarray(values + grid.noise(chance.normal(values.size), self.deviation).reshape(values.shape))


def person_weights(persons: np.ndarray | None, rows: int) -> np.ndarray:
    """Return the weight of each row, float64 [rows]: those of one person weigh at most 1 together.

    Parameters
    ----------
    persons : int array [rows] or None
        Code of each row's person; None where each row is another one's.
    rows : int

    Examples
    --------
    >>> weights = person_weights(np.array([0, 1, 0, 0]), 4)
    >>> float(weights[1]), float(weights[[0, 2, 3]].sum()) <= 1
    (1.0, True)
    """
    if persons is None:
        return np.ones(rows)
    return np.asarray(np.floor(1 / (np.bincount(persons)[persons] * STEP)) * STEP, dtype=np.float64)


def clipped(values: np.ndarray, low: float, high: float, weights: np.ndarray) -> np.ndarray:
    """Return what each row adds to a sum of clipped values: from -1 at `low` to 1 at `high`, times its weight.

    It is rounded towards 0 to a multiple of `STEP`, so that sums of rows are exact in any order and a person adds at
    most 1. A value that is not known adds 0.

    Parameters
    ----------
    values, weights : float64 array [rows]
    low, high : float
        Of the schema or the study, and never of the rows.

    Examples
    --------
    >>> clipped(np.array([20.0, 95.0, 300.0, np.nan]), 40.0, 150.0, np.ones(4)).tolist()
    [-1.0, 0.0, 1.0, 0.0]
    """
    middle = (low + high) / 2
    half = (high - low) / 2
    scaled = np.clip((np.nan_to_num(values, nan=middle) - middle) / half, -1.0, 1.0) * weights
    return np.asarray(np.trunc(scaled / STEP) * STEP, dtype=np.float64)
