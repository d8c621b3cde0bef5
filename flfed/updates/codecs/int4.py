"""Whole numbers of four bits, two a byte: an eighth of float32's bytes."""

from __future__ import annotations

import numpy as np

from flfed.refusals import Refusal
from flfed.study.settings import Settings
from flfed.updates.arrays import Arrays, Shapes, entries_of
from flfed.updates.codec import Codec
from flfed.updates.codecs.int8 import distances, multiples, quantised, scales_defect

LEVELS = 7
MIDDLE = 8
"""Four bits that mean 0: a whole number is stored plus this."""


class Int4(Codec, Settings, where="[codec]"):
    """Each entry as a whole number up to ±7 times its array's scale.

    The scale is the array's largest entry / 7. An entry between two multiples becomes one of them at random, the nearer
    the likelier, so that the mean over draws is the entry itself. An eighth of the bytes of float32.

    Notes
    -----
    A byte holds two entries, the first in its lower four bits; of an odd number the last byte's upper bits mean 0.

    Reveals: of each array the largest entry, and every other to within one multiple, as who knows the study's seed can
    draw the rounding again. It protects nothing.

    Source: Alistarh et al. 2017, "QSGD: communication-efficient SGD via gradient quantization and encoding", with the
    largest entry in place of the norm.
    """

    def shapes(self, model: Shapes) -> Shapes:
        """Return an array of half as many bytes as entries, and one of a scale for each array."""
        return {
            "values": (((entries_of(model) + 1) // 2,), np.dtype(np.uint8)),
            "scales": ((len(model),), np.dtype(np.float32)),
        }

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Return the entries as whole numbers, two a byte, and the scales."""
        (whole,), (scales,) = quantised([arrays], LEVELS, [rng])
        halves = np.full(len(whole) + len(whole) % 2, MIDDLE, np.uint8)
        halves[: len(whole)] = whole + MIDDLE
        return {"values": halves[0::2] | halves[1::2] << 4, "scales": scales}

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return each whole number times its scale."""
        values = packed["values"]
        halves = np.empty(2 * len(values), np.int8)
        halves[0::2] = values & 15
        halves[1::2] = values >> 4
        halves -= MIDDLE
        return multiples(halves[None, : entries_of(model)], packed["scales"][None], model)[0]

    def defect(self, packed: Arrays, model: Shapes) -> Refusal | None:
        """Return why packed arrays cannot be read, else None: scales that no update has are one more reason."""
        return super().defect(packed, model) or scales_defect(packed["scales"], LEVELS)

    def largest_error(self, arrays: Arrays) -> dict[str, float]:
        """Return the distance of two multiples for each array."""
        return distances(arrays, LEVELS)
