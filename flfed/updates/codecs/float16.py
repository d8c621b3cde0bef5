"""Numbers of half precision: half of float32's bytes, a quarter of float64's."""

from __future__ import annotations

import numpy as np

from flfed.study.settings import Settings
from flfed.updates.arrays import Arrays, Shapes, entries_of, flattened, unflattened
from flfed.updates.codec import Codec

LARGEST = float(np.finfo(np.float16).max)
"""A finite entry beyond it becomes it, so that one large entry does not cost a site its round."""
RELATIVE = 2.0**-11
ABSOLUTE = 2.0**-25
"""Half the distance of neighbours, as a share of an entry; and of the smallest ones, below 2^-14."""


class Float16(Codec, Settings, where="[codec]"):
    """Each entry as a number of half precision, rounded to the nearest.

    It takes half the bytes of float32 and a quarter of those of float64.

    Notes
    -----
    It keeps three digits of an entry. One beyond ±65,504 becomes that number, and one below 3e-8 becomes 0.

    Reveals: each entry of the update to three digits. It protects nothing.

    Source: Micikevicius et al. 2018, "Mixed precision training"; the format is IEEE 754-2019, binary16.
    """

    unbiased = False

    def shapes(self, model: Shapes) -> Shapes:
        """Return one array of all entries."""
        return {"values": ((entries_of(model),), np.dtype(np.float16))}

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Return the entries in half precision."""
        entries = flattened(arrays)
        with np.errstate(over="ignore"):
            values = entries.astype(np.float16)
        beyond = np.isinf(values) & np.isfinite(entries)
        if beyond.any():
            values[beyond] = np.copysign(LARGEST, entries[beyond])
        return {"values": values}

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return the entries in the model's types."""
        return unflattened(packed["values"].astype(np.float64), model)

    def largest_error(self, arrays: Arrays) -> dict[str, float]:
        """Return half the distance to the next number, and what lies beyond the largest one."""
        most = {name: float(np.abs(value).max(initial=0.0)) for name, value in arrays.items()}
        return {name: max(at * RELATIVE, ABSOLUTE, at - LARGEST) for name, at in most.items()}
