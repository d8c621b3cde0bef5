"""Whole numbers of eight bits, rounded at random: a quarter of float32's bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from flfed.refusals import Refusal
from flfed.study.settings import Settings
from flfed.updates.arrays import Arrays, Shapes, entries_of, flattened_all, unflattened
from flfed.updates.codec import Codec

LARGEST = float(np.finfo(np.float32).max)
LEVELS = 127
"""Largest whole number; -128 is not used, so that each has its opposite."""


class Int8(Codec, Settings, where="[codec]"):
    """Each entry as a whole number up to ±127 times its array's scale.

    The scale is the array's largest entry / 127. An entry between two multiples becomes one of them at random, the
    nearer the likelier, so that the mean over draws is the entry itself. A quarter of the bytes of float32.

    Reveals: of each array the largest entry, and every other to within one multiple, as who knows the study's seed can
    draw the rounding again. It protects nothing.

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
        return self.encode_all([arrays], [rng])[0]

    def encode_all(self, arrays: Sequence[Arrays], rngs: Sequence[np.random.Generator]) -> list[Arrays]:
        """Return the packed arrays of many sites."""
        whole, scales = quantised(arrays, rngs)
        values = whole.astype(np.int8)
        return [{"values": own, "scales": scale} for own, scale in zip(values, scales, strict=True)]

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return each whole number times its scale."""
        return self.decode_all([packed], model)[0]

    def decode_all(self, packed: Sequence[Arrays], model: Shapes) -> list[Arrays]:
        """Return the arrays of many sites."""
        values = [own["values"] for own in packed]
        scales = [own["scales"] for own in packed]
        return multiples(np.stack(values), np.stack(scales), model)

    def defect(self, packed: Arrays, model: Shapes) -> Refusal | None:
        """Return why packed arrays cannot be read, else None: scales that no update has are one more reason."""
        return super().defect(packed, model) or scales_defect(packed["scales"])


def quantised(arrays: Sequence[Arrays], rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, np.ndarray]:
    """Return each entry in units of its array's scale, rounded at random, and the scales.

    It is `floor(x / scale + u)` with `u` uniform in [0, 1): the mean over `u` is `x / scale`.

    Parameters
    ----------
    arrays : sequence of dict of name to float array
        Of each site, all of the same names and shapes.
    rngs : sequence of Generator
        Each site's own, of which one number is drawn for each entry.

    Returns
    -------
    whole : float64 array [sites, entries], whole numbers of at most `LEVELS`
    scales : float32 array [sites, arrays]
        Of an array with a value that is not finite, or beyond float32, the scale is not finite or too large.
    """
    whole = flattened_all(arrays)
    sizes = tuple(arrays[0][name].size for name in sorted(arrays[0]))
    scales = _scales(whole, sizes)
    each = np.repeat(scales.astype(np.float64), sizes, axis=1)
    if math.isfinite(scales.sum()):
        whole /= each
    else:
        with np.errstate(invalid="ignore"):
            whole /= each
        whole[~np.isfinite(whole)] = 0.0  # the scale is what such an array is refused by
    for own, rng in zip(whole, rngs, strict=True):
        own += rng.random(len(own))
    np.floor(whole, out=whole)
    # A draw close to 1 may round a sum up to the next whole number; no sum is below that of a draw of 0.
    np.minimum(whole, LEVELS, out=whole)
    return whole, scales


def multiples(values: np.ndarray, scales: np.ndarray, model: Shapes) -> list[Arrays]:
    """Return each site's arrays of whole numbers times the scale of their array, in the model's types.

    Parameters
    ----------
    values : int array [sites, entries]
    scales : float32 array [sites, arrays]
    model : mapping of name to (shape, dtype)
    """
    sizes = [math.prod(model[name][0]) for name in sorted(model)]
    # A product of eight bits and float32's twenty-four has one rounding in float32, and none in float64.
    if any(dtype != np.float32 for _, dtype in model.values()):
        scales = scales.astype(np.float64)
    return [unflattened(own, model) for own in values * np.repeat(scales, sizes, axis=1)]


def scales_defect(scales: np.ndarray) -> Refusal | None:
    """Return why finite scales are unfit, else None."""
    if not scales.min() > 0:
        return Refusal("scale-unfit", array="scales")
    # The whole number below -LEVELS fits into the bits too: with it a multiple is to be finite in float32.
    return Refusal("scale-too-large", array="scales") if scales.max() > LARGEST / (LEVELS + 1) else None


def _scales(entries: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Return the scale of each array, as float32 [sites, arrays] in the order of their names.

    It is the largest absolute entry / `LEVELS`, rounded up so that no entry is beyond `LEVELS` times it. Of zeros alone
    it is 1.
    """
    starts, empty = _places(sizes)
    # An array without entries would take the next one's, or one beyond the end.
    padded = entries if empty is None else np.pad(entries, ((0, 0), (0, 1)))
    most = np.maximum.reduceat(np.abs(padded), starts, axis=1)
    if empty is not None:
        most[:, empty] = 0.0
    with np.errstate(over="ignore"):
        scales = (most / LEVELS).astype(np.float32)
    # The next number above, where float32 rounded down.
    np.nextafter(scales, np.float32(math.inf), out=scales, where=scales * np.float64(LEVELS) < most)
    scales[most == 0] = 1.0
    return scales


@lru_cache(maxsize=64)
def _places(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return where each array's entries begin, and which arrays have none, None where all have some."""
    starts = np.cumsum((0, *sizes[:-1]))
    empty = np.equal(sizes, 0)
    return (starts, empty) if empty.any() else (starts, None)
