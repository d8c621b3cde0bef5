"""The largest entries of an update alone, with their places."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from flfed.refusals import Refusal
from flfed.study.settings import Settings
from flfed.updates.arrays import Arrays, Shapes, entries_of, flattened, unflattened
from flfed.updates.codec import Codec

HAIR = 1e-9
"""Of a product: 0.55 of 100 entries are 55.000…01 of them in floating point, and 55 are meant."""


class TopK(Codec, Settings, where="[codec]"):
    """The entries of largest absolute value, over all arrays together.

    The omitted part is not lost: the site adds it to its next update, and never sends it by itself (error feedback). An
    update that came too late, or was refused, is lost as any is: what it held is not sent again.

    Parameters
    ----------
    share : float in [0.1, 1)
        Share of the entries that are sent, rounded up. Each takes six bytes up to 65,536 entries, and else eight. A
        share of 0.1 is a seventh of the bytes of float32, and from 0.6 on little or nothing is saved. Example: `share =
        0.2`.

    Reveals: the largest entries in single precision, and which they are. It protects nothing.

    Source: Stich, Cordonnier and Jaggi 2018, "Sparsified SGD with memory"; why without the memory it need
    not converge: Karimireddy et al. 2019, "Error feedback fixes SignSGD and other gradient compression schemes".
    """

    feedback = True

    share: Annotated[float, Field(ge=0.1, lt=1)] = 0.1

    def shapes(self, model: Shapes) -> Shapes:
        """Return an array of the entries that are sent, and one of their places."""
        entries = entries_of(model)
        sent = (self._sent(entries),)
        return {"values": (sent, np.dtype(np.float32)), "indexes": (sent, _index_type(entries))}

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Return the largest entries, and their places in ascending order."""
        entries = flattened(arrays)
        indexes = _largest(np.abs(entries), self._sent(len(entries)))
        with np.errstate(over="ignore"):
            values = entries[indexes].astype(np.float32)
        return {"values": values, "indexes": indexes.astype(_index_type(len(entries)))}

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return the entries that were sent, and zeros elsewhere."""
        entries = np.zeros(entries_of(model))
        entries[packed["indexes"]] = packed["values"]
        return unflattened(entries, model)

    def defect(self, packed: Arrays, model: Shapes) -> Refusal | None:
        """Return why packed arrays cannot be read, else None.

        Places beyond the last entry, or not in ascending order, so that one stands there twice, are one more reason.
        """
        if wrong := super().defect(packed, model):
            return wrong
        indexes = packed["indexes"]
        if (indexes[1:] > indexes[:-1]).all() and indexes[-1] < entries_of(model):
            return None
        return Refusal("index-unfit", array="indexes")

    def _sent(self, entries: int) -> int:
        """Return how many entries are sent."""
        return max(1, math.ceil(self.share * entries - HAIR))


def _index_type(entries: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest whole type that has every place."""
    return np.dtype(np.uint16) if entries <= 2**16 else np.dtype(np.uint32)


def _largest(absolute: np.ndarray, count: int) -> np.ndarray:
    """Return the ascending places of the largest values [count].

    Of equal ones the first.
    """
    absolute = np.where(np.isnan(absolute), math.inf, absolute)  # so that it is sent, and refused
    least = np.partition(absolute, len(absolute) - count)[len(absolute) - count]
    above = np.flatnonzero(absolute > least)
    # NumPy's own choice among equal values differs between processors.
    equal = np.flatnonzero(absolute == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))
