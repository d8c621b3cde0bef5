"""A codec in a package of its own: one bit for each entry."""

from __future__ import annotations

import numpy as np

from flfed import Arrays, Codec
from flfed.updates.codec import Shapes, entries_of, flattened, unflattened


class Signs(Codec):
    """The sign of each entry, one bit, times the mean absolute entry of the update.

    Reveals: each entry's sign, and their mean absolute value. It protects nothing.

    Source: Karimireddy et al. 2019, "Error feedback fixes SignSGD and other gradient compression schemes", EF-SignSGD.
    """

    feedback = True

    def shapes(self, model: Shapes) -> Shapes:
        """Return an array of eight signs a byte, and one of their common size."""
        signs = ((entries_of(model) + 7) // 8,)
        return {"signs": (signs, np.dtype(np.uint8)), "size": ((1,), np.dtype(np.float32))}

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Return the signs and the size."""
        entries = flattened(arrays)
        return {"signs": np.packbits(entries > 0), "size": np.abs(entries).mean(keepdims=True).astype(np.float32)}

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return the size with each entry's sign."""
        above = np.unpackbits(packed["signs"], count=entries_of(model))
        return unflattened(np.where(above, 1.0, -1.0) * packed["size"].astype(np.float64), model)
