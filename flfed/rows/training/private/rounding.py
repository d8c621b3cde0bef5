"""Public grid for sums of gradients and noise.

Both lie on it, so that no last bit of a float tells them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from flfed.errors import UsageError
from flfed.study.plan import PrivateSteps

FINENESS = 27
"""How many bits the grid is finer than the noise's deviation, or the clip where that is more. Each cell then holds
2^26 doubles near the deviation, so that rounded noise is as good as rounded normal noise; and 10,000 numbers lose a
millionth of the clip."""
LARGEST_DRAW = 18.0
"""No draw is as far from 0: those of `SystemNoise` are within the root of 2 log 2^53, which is 8.6."""


@dataclass(frozen=True)
class PublicGrid:
    """The grid on which sums and noise lie.

    It also says what each row may add so that the guarantee holds.

    Attributes
    ----------
    step : float
        Between two numbers of the grid, a power of two; 0 where there is no noise, and no grid.
    clip : float, > 0
        Largest norm of a row's gradient: less than the promise's, by what rounding may add.

    Guarantee: what leaves a step is `round(S + z)`, S the sum put on the grid and z normal noise of deviation
    σC, with C the promise's clip: as S is on the grid, `round(S + z) = S + round(z)`, and so is computed without
    any further rounding. That is post-processing of the Gaussian mechanism on S. With and without a row (person)
    two S differ by at most C in L2: by `clip` before rounding; by half a step in each of d numbers of each sum,
    together `sqrt(d)` steps; and by what float64 makes of sums of N rows in whatever order, at most
    `2 (N + 1)^2 + d` times 2^-53 of C; `clip` is C less both. N is the site's rows (persons), taken as known, as
    the divisor of a step takes it. Two things are not in it. Rounded noise is that of doubles: a cell holds 2^26
    of them about its deviation, so that it is as likely as by normal noise within about 1e-8. And of the
    gradients themselves it is assumed that a row's does not depend, in its last bits, on the rows beside it.

    Source: Mironov 2012, "On significance of the least significant bits for differential privacy"; Casacuberta
    et al. 2022, "Widespread underestimation of sensitivity in differentially private libraries and how to fix it".
    """

    step: float
    clip: float

    @classmethod
    def of(cls, private: PrivateSteps, units: int, numbers: int) -> PublicGrid:
        """Return the grid of one site.

        It is about 2^-27 of the site's noise, or so coarse that sums of many rows are exact.

        Parameters
        ----------
        private : PrivateSteps
        units : int
            Rows, or persons, that can be sampled.
        numbers : int
            Of the gradient, all arrays together.

        Raises
        ------
        UsageError
            Where rounding alone could move a sum by the clip.
        """
        if not private.noise:
            return cls(0.0, private.clip)
        largest = (units + LARGEST_DRAW * private.noise) * private.clip
        wanted = math.floor(math.log2(max(1.0, private.noise) * private.clip)) - FINENESS
        exact = math.ceil(math.log2(largest)) - 52  # sums then are fewer than 2^52 steps, and none is rounded
        step = 2.0 ** max(wanted, exact)
        # What rounding could add to a row's share of the sum is taken off its clip beforehand.
        lost = math.sqrt(numbers) * step + (2 * (units + 1) ** 2 + numbers) * 2.0**-53 * private.clip
        if not lost < private.clip:
            raise UsageError(
                f"[privacy]: clip={private.clip:g} is too small for {numbers} numbers and this many rows: rounding "
                "alone could move a sum by as much"
            )
        return cls(step, private.clip - lost)

    def rounded(self, total: Tensor) -> Tensor:
        """Round a sum to the grid, in place.

        It is float64, of any shape.
        """
        return total.div_(self.step).round_().mul_(self.step) if self.step else total

    def noise(self, normal: np.ndarray, deviation: float) -> np.ndarray:
        """Return draws on the grid, of a deviation.

        `normal`, float64 [any], is written over.

        Half-way cases go up, and not to even numbers, of which there would be more.
        """
        normal *= deviation / self.step
        normal += 0.5
        np.floor(normal, out=normal)
        normal *= self.step
        return normal
