"""Noise that sites add to their own updates before a secure sum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flfed.study.study import Study
from flfed.updates.masking.ring import Ring

Normals = Callable[[int], np.ndarray]
"""Draws so many numbers of mean 0 and deviation 1, as float64: the server's own noise of one round."""


@dataclass(frozen=True, kw_only=True)
class SiteNoise:
    """What a site does to its own update before a secure sum.

    It clips the update, and adds its part of the noise on the grid of the sum.

    Attributes
    ----------
    noise : float
        Noise multiplier σ of a sum of `least` sites; of more sites it is higher.
    clip : float
        Largest norm C of an update.
    least : int
        Sites t that a sum has at least.

    Notes
    -----
    In units of the ring, of which there are s to 1, a clipped update is at most s·C long. Rounding it up or down at
    random moves each of its p entries by less than one, and so its length by less than √p: one site moves the sum by
    at most s·C + √p. Each site adds whole numbers, normal draws of deviation σ (s·C + √p) / √t that are rounded; t of
    them have deviation σ (s·C + √p) together. So the multiplier, and with it ε, is σ with the rounding counted in, and
    the noise is larger than σ·C by the share √p / (s·C), which is 0.001 % of 20 sites and 4,000 entries.

    A sum of rounded normal draws tells no more than that of the draws before rounding: given the latter, the parts
    that rounding takes off are uniform, whatever the updates are, but for a probability below exp(-π² d²), where d is
    the deviation in units; of 1,000 sites with σ = 0.3 it is over 1,000. So no allowance is made for that.

    Source: Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with
    secure aggregation", for rounding before noise in sums modulo a number.
    """

    noise: float
    clip: float
    least: int

    @property
    def deviation(self) -> float:
        """Standard deviation of a site's noise, the part for rounding left out."""
        return self.noise * self.clip / math.sqrt(self.least)

    @property
    def largest(self) -> float:
        """Largest entry of the ring, in place of the study's `largest-entry`.

        No honest update with its noise has a larger one, nor does the check of a sum's norm refuse honest sites: it is
        ten times what clip and one deviation are together, rounded up to a power of two, so that all sites have the
        same number.
        """
        return 2.0 ** math.ceil(math.log2(10 * (self.clip + self.deviation)))

    def clipped(self, entries: np.ndarray) -> np.ndarray:
        """Return an update whose norm is at most `clip`; one that is not finite has entries that are not either."""
        norm = float(np.linalg.norm(entries))
        return entries if norm <= self.clip else entries * (self.clip / norm)

    def units(self, entries: int, scale: float) -> float:
        """Return the deviation of a site's noise in units of a ring, rounding counted in the sensitivity."""
        return self.noise * (scale * self.clip + math.sqrt(entries)) / math.sqrt(self.least)

    def added(self, vector: np.ndarray, ring: Ring, normals: Normals) -> np.ndarray:
        """Return a clipped update, as numbers of the ring, with a site's noise.

        Parameters
        ----------
        vector : array of the ring's dtype [entries]
        ring : Ring
        normals : callable (count) → float64 [count]
            The site's own draws: they must never be drawn again for another update.
        """
        drawn = np.rint(self.units(vector.size, ring.scale) * normals(vector.size)).astype(np.int64)
        found: np.ndarray = vector + drawn.astype(ring.dtype)
        return found


def summed(study: Study) -> bool:
    """Tell whether sites add the noise themselves, before a secure sum."""
    return study.aggregation.masks_always
