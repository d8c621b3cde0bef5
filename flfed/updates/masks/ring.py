"""Fixed-point numbers that can be added, under a mask or without one.

An entry is a whole number modulo 2^32, or 2^64, so that a sum with a uniformly random number is uniformly random.
Noise that sites add to their own updates before a sum is made of such numbers, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flfed.refusals import Refusal

TYPES: dict[int, tuple[np.dtype[Any], np.dtype[Any]]] = {
    32: (np.dtype(np.uint32), np.dtype(np.int32)),
    64: (np.dtype(np.uint64), np.dtype(np.int64)),
}
"""Of each number of bits: the type that wraps modulo 2^bits, and the type of the same bits with a sign."""
LARGEST_TOTAL = {32: 2**31 - 1, 64: 2**60 - 1}
"""Of each number of bits: the largest absolute whole number of a sum. Tags are modulo 2^61 - 1 (`verify`), and of two
totals beyond 2^60 - 1 that differ by a multiple of it they would be the same."""

LARGEST_ENTRY = 8.0
"""Largest absolute entry of a site's update in a sum; `SiteNoise` has one of its own."""


@dataclass(frozen=True)
class Ring:
    """Whole numbers modulo 2^bits that stand for numbers of at most `largest`.

    Attributes
    ----------
    bits : {32, 64}
    scale : float, > 0
        Whole numbers a unit: an entry `x` is `x * scale`, rounded up or down at random.
    largest : float, > 0
        Largest absolute entry of one site.

    Notes
    -----
    Source: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", section 4,
    for sums modulo a number; Alistarh et al. 2017, "QSGD", for the rounding.
    """

    bits: int
    scale: float
    largest: float

    def __post_init__(self) -> None:
        """Refuse a ring without numbers; raises ValueError."""
        if self.bits not in TYPES:
            raise ValueError(f"bits={self.bits} must be 32 or 64")
        if not (0 < self.scale < math.inf and 0 < self.largest < math.inf):
            raise ValueError(f"scale={self.scale} and largest={self.largest} must be above 0 and finite")

    @classmethod
    def of_updates(cls, sites: int, largest: float) -> Ring:
        """Return the ring of 32 bits for updates.

        Of 20 sites, its step is `largest` / 107,374,181.

        Parameters
        ----------
        sites : int, >= 1
            Sites of a sum, at most.
        largest : float, > 0
            Largest absolute entry of one site, its weight counted in.

        Raises
        ------
        ValueError
            If so many sites leave no whole number to an entry.

        Examples
        --------
        >>> ring = Ring.of_updates(20, 8.0)
        >>> ring.scale == ((2**31 - 1) / 20 - 1) / 8
        True
        """
        return cls(32, _scale(32, sites, largest), largest)

    @classmethod
    def of_sums(cls, sites: int, largest: float) -> Ring:
        """Return the ring of 64 bits for sums, losses and metrics.

        Parameters and errors are those of `of_updates`.
        """
        return cls(64, _scale(64, sites, largest), largest)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the ring's numbers: uint32 or uint64, which numpy adds modulo 2^bits."""
        return TYPES[self.bits][0]

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray | Refusal:
        """Return one site's entries as numbers of the ring, or why there are none.

        Parameters
        ----------
        values : float64 array [entries]
        rng : Generator
            One number is drawn for each entry: the same state gives the same numbers on every engine.

        Returns
        -------
        array of `dtype` [entries], or Refusal
            The mean over draws is `values * scale` to within float64. An entry that is not finite or beyond `largest`
            is refused without its value.
        """
        return self.encode_all(values[np.newaxis], [rng])[0]

    def encode_all(self, values: np.ndarray, rngs: Sequence[np.random.Generator]) -> list[np.ndarray | Refusal]:
        """Return the entries of many sites, each as `encode` returns them.

        Parameters
        ----------
        values : float64 array [sites, entries]
        rngs : sequence of Generator
            Each site's own.
        """
        # Of a value that is no number the comparison is false.
        fits = (np.abs(values) <= self.largest).all(axis=1)
        fraction = np.where(fits[:, np.newaxis], values, 0.0)
        fraction *= self.scale
        below = np.floor(fraction)
        # The rest is exact in float64, and so is the sum in int64, which no float64 of 53 bits could hold.
        fraction -= below
        whole = below.astype(np.int64)
        for own, part, rng in zip(whole, fraction, rngs, strict=True):
            own += rng.random(len(own)) < part
        numbers = whole.astype(self.dtype)
        refusal = Refusal("entry-too-large", limit=f"{self.largest:g}")
        encodings: list[np.ndarray | Refusal] = []
        for own, fit in zip(numbers, fits, strict=True):
            if fit:
                encodings.append(own)
            else:
                encodings.append(refusal)
        return encodings

    def pack(self, values: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> list[np.ndarray | Refusal]:
        """Return the entries of each of many sites, as `encode_all` does."""
        return self.encode_all(np.stack(values), rngs)

    def add(self, vectors: Iterable[np.ndarray]) -> np.ndarray:
        """Return the sum modulo 2^bits.

        Parameters
        ----------
        vectors : iterable of array of `dtype` [entries]
            Of at least one site.
        """
        first, *others = vectors
        total = np.array(first, dtype=self.dtype)
        for vector in others:
            total += vector
        return total

    def encode_total(self, values: np.ndarray) -> np.ndarray:
        """Return a float64 array [entries] of a sum as numbers of the ring, each the nearest one."""
        most = LARGEST_TOTAL[self.bits]
        return np.clip(np.rint(values * self.scale), -most, most).astype(np.int64).astype(self.dtype)

    def decode(self, total: np.ndarray) -> np.ndarray:
        """Return the float64 array [entries] that a sum stands for.

        Parameters
        ----------
        total : array of `dtype` [entries]
            Of at most as many sites as the ring was made for: of more, a sum may have wrapped.
        """
        return np.asarray(np.ascontiguousarray(total).view(TYPES[self.bits][1]) / self.scale)


@lru_cache(maxsize=64)
def rings(sites: int, largest: float) -> tuple[Ring, Ring]:
    """Return the rings of a run's updates, and of its weights, which are at most 1."""
    return Ring.of_updates(sites, largest), Ring.of_sums(sites, 1.0)


@lru_cache(maxsize=64)
def ring_of_counts(sites: int, largest: float) -> Ring:
    """Return a ring of 64 bits in which whole numbers stay exact: its scale is a power of two."""
    return Ring(64, 2.0 ** math.floor(math.log2(_scale(64, sites, largest))), largest)


def _scale(bits: int, sites: int, largest: float) -> float:
    """Return the largest scale with which the sum of the largest entries of all sites is in `LARGEST_TOTAL`.

    Of it each site has its part, less one for rounding up.
    """
    most = LARGEST_TOTAL[bits]
    room = most / sites - 1
    if not room >= 1:
        raise ValueError(f"sites={sites} are too many for a sum in {bits} bits")
    scale: float = room / largest
    # Near 2^60 float64 has steps of 128, and the quotient may be rounded up by one: ceil is exact.
    while scale < math.inf and math.ceil(scale * largest) * sites > most:
        scale = math.nextafter(scale, 0)
    return scale
