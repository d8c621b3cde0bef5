"""Whole numbers of four bits, two a byte: an eighth of float32's bytes."""

from __future__ import annotations

import numpy as np

from flfed.updates.codecs.int8 import Int8

MIDDLE = 8
"""Four bits that mean 0: a whole number is stored plus this."""


class Int4(Int8):
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

    levels = 7
    dtype = np.uint8
    a_value = 2

    def whole_packed(self, whole: np.ndarray) -> np.ndarray:
        """Return whole numbers [sites, entries], two a byte."""
        sites, entries = whole.shape
        halves = np.full((sites, entries + entries % 2), MIDDLE, np.uint8)
        halves[:, :entries] = whole + MIDDLE
        found: np.ndarray = halves[:, 0::2] | halves[:, 1::2] << 4
        return found

    def whole_unpacked(self, values: np.ndarray) -> np.ndarray:
        """Return the whole numbers of such bytes; one too many of an odd number."""
        halves = np.stack([values & 15, values >> 4], axis=-1).reshape(len(values), -1)
        found: np.ndarray = halves.astype(np.int8) - MIDDLE
        return found
