"""Whole numbers of eight bits, rounded at random: a quarter of float32's bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from flfed.refusals import Refusal
from flfed.study.settings import Settings
from flfed.updates.codec import Codec, Shapes, entries_of, flattened, unflattened

if TYPE_CHECKING:
    from flfed.updates.messages.fields import Arrays

LEVELS = 127
"""Largest whole number; -128 is not used, so that each has its opposite."""


class Int8(Codec, Settings, where="[codec]"):
    """Each entry as a whole number up to ±127 times its array's scale.

    The scale is the array's largest entry / 127. An entry between two multiples becomes one of them at random, the
    nearer the likelier, so that the mean over draws is the entry itself. A quarter of the bytes of float32.

    Reveals: of each array the largest entry, and of every other the multiple above or below it. It protects nothing.

    Source: Alistarh et al. 2017, "QSGD: communication-efficient SGD via gradient quantization and encoding", with the
    largest entry in place of the norm.
    """

    def shapes(self, model: Shapes) -> Shapes:
        """Return an array of all entries, and one of a scale for each array."""
        return {
            "values": ((entries_of(model),), np.dtype(np.int8)),
            "scales": ((len(model),), np.dtype(np.float32)),
        }

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Return the entries as whole numbers, and the scales."""
        whole, scales = quantised(arrays, LEVELS, rng)
        return {"values": whole.astype(np.int8), "scales": scales}

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return each whole number times its scale."""
        return multiples(packed["values"], packed["scales"], model)

    def defect(self, packed: Arrays, model: Shapes) -> Refusal | None:
        """Return why packed arrays cannot be read, else None: scales that no update has are one more reason."""
        return super().defect(packed, model) or scales_defect(packed["scales"], LEVELS)

    def largest_error(self, arrays: Arrays) -> dict[str, float]:
        """Return the distance of two multiples for each array."""
        return distances(arrays, LEVELS)


def quantised(arrays: Arrays, levels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return each entry in units of its array's scale, rounded at random, and the scales.

    It is `floor(x / scale + u)` with `u` uniform in [0, 1): the mean over `u` is `x / scale`.

    Parameters
    ----------
    arrays : dict of name to float array
    levels : int
        Largest whole number.
    rng : Generator
        One draw for each entry.

    Returns
    -------
    whole : float64 array [entries], whole numbers of at most `levels`
    scales : float32 array [arrays]
        Of an array with a value that is not finite, or beyond float32, the scale is not finite or too large.
    """
    whole, sizes = flattened(arrays), [arrays[name].size for name in sorted(arrays)]
    scales = _scales(whole, sizes, levels)
    with np.errstate(invalid="ignore"):
        whole /= np.repeat(scales, sizes)
    if not np.isfinite(scales).all():
        whole[~np.isfinite(whole)] = 0.0  # the scale is what such an array is refused by
    whole += rng.random(len(whole))
    np.floor(whole, out=whole)
    # A draw close to 1 may round a sum up to the next whole number; no sum is below that of a draw of 0.
    np.minimum(whole, levels, out=whole)
    return whole, scales


def multiples(values: np.ndarray, scales: np.ndarray, model: Shapes) -> Arrays:
    """Return arrays of whole numbers times the scale of their array, in the model's types."""
    sizes = [math.prod(model[name][0]) for name in sorted(model)]
    return unflattened(values * np.repeat(scales.astype(np.float64), sizes), model)


def scales_defect(scales: np.ndarray, levels: int) -> Refusal | None:
    """Return why finite scales are unfit, else None."""
    if not (scales > 0).all():
        return Refusal("scale-unfit", array="scales")
    # The whole number below -levels fits into the bits too: with it a multiple is to be finite in float32.
    most = np.finfo(np.float32).max / (levels + 1)
    return Refusal("scale-too-large", array="scales") if (scales > most).any() else None


def distances(arrays: Arrays, levels: int) -> dict[str, float]:
    """Return the scale of each array, and what its type rounds of a multiple besides."""
    sizes = [arrays[name].size for name in sorted(arrays)]
    scales = dict(zip(sorted(arrays), _scales(flattened(arrays), sizes, levels).tolist(), strict=True))
    return {name: scales[name] * (1 + levels * float(np.finfo(value.dtype).eps)) for name, value in arrays.items()}


def _scales(entries: np.ndarray, sizes: Sequence[int], levels: int) -> np.ndarray:
    """Return the scale of each array, as float32 [arrays] in the order of their names.

    It is the largest absolute entry / `levels`, rounded up so that no entry is beyond `levels` times it. Of zeros alone
    it is 1.
    """
    absolute = np.zeros(len(entries) + 1)  # one more, for an array without entries at the end
    np.abs(entries, out=absolute[:-1])
    most = np.maximum.reduceat(absolute, list(accumulate(sizes[:-1], initial=0)))
    most[np.equal(sizes, 0)] = 0.0
    with np.errstate(over="ignore"):
        scales = (most / levels).astype(np.float32)
    low = scales * np.float64(levels) < most
    scales[low] = np.nextafter(scales[low], np.float32(math.inf))
    scales[most == 0] = 1.0
    return scales
