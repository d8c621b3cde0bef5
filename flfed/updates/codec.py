"""Interface of the codecs in `updates/codecs/`.

A codec packs a model's arrays, or an update's, into fewer bytes and reads them back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed import registry
from flfed.refusals import Refusal
from flfed.study.study import Study

if TYPE_CHECKING:
    from flfed.updates.messages.fields import Arrays

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and type of each array, by its name."""

CIPHERTEXT = "ciphertext"
"""Name of the one array of a model that stands encrypted."""


class Codec:
    """Codec that changes nothing.

    Each listed one says what it does instead.

    Notes
    -----
    The packed arrays' names, shapes and types follow from the model alone, so that a reader knows them before a message
    comes. Where the entries of all arrays are packed into one, they stand in the order of the arrays' names, each array
    in C order.
    """

    feedback = False
    """Whether what was left out is added to the site's next update. It is kept at the site, and never sent."""
    unbiased = True
    """Whether the mean over draws of `decode(encode(x))` is `x`."""

    def shapes(self, model: Shapes) -> Shapes:
        """Return names, shapes and types of the packed arrays.

        Parameters
        ----------
        model : mapping of name to (shape, dtype)
            Of the arrays that are packed.
        """
        return dict(model)

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Return the packed arrays.

        An array with a value that is not finite is packed so that `defect` refuses it.

        Parameters
        ----------
        arrays : dict of name to float array, any shapes
            Left as they are.
        rng : Generator
            What is drawn comes from it alone: the same state gives the same bytes.
        """
        return dict(arrays)

    def encode_all(self, arrays: Sequence[Arrays], rngs: Sequence[np.random.Generator]) -> list[Arrays]:
        """Return the packed arrays of many sites, each as `encode` packs it.

        Parameters
        ----------
        arrays : sequence of dict of name to float array
            All of the same names, shapes and types.
        rngs : sequence of Generator
            Each site's own.
        """
        return [self.encode(own, rng) for own, rng in zip(arrays, rngs, strict=True)]

    def decode_all(self, packed: Sequence[Arrays], model: Shapes) -> list[Arrays]:
        """Return the arrays of many sites, each as `decode` reads it."""
        return [self.decode(own, model) for own in packed]

    def decode(self, packed: Arrays, model: Shapes) -> Arrays:
        """Return the arrays in the model's names, shapes and types.

        Parameters
        ----------
        packed : dict of name to array
            Without a `defect`; then what is read is finite.
        model : mapping of name to (shape, dtype)
        """
        return dict(packed)

    def defect(self, packed: Arrays, model: Shapes) -> Refusal | None:
        """Return why packed arrays cannot be read, else None.

        They have other names, shapes or types than `shapes`, or values that are not finite.
        """
        return arrays_defect(packed, self.shapes(model))

    def largest_error(self, arrays: Arrays) -> dict[str, float]:
        """Return a bound of `|decode(encode(x)) - x|` for each array of finite values."""
        return dict.fromkeys(arrays, 0.0)


def codec_of(study: Study) -> Codec | None:
    """Return the codec of a study's updates, None where it has none.

    Raises
    ------
    UsageError
        For settings that it does not have.
    """
    if study.codec.name == "none":
        return None
    found: Codec = study.codec.build("codec")
    return found


def download_of(study: Study) -> Codec | None:
    """Return the codec of the model that sites are sent, None where it has none."""
    if study.download == "none":
        return None
    found: Codec = registry.load("codec", study.download)()
    return found


def is_encrypted(arrays: Mapping[str, object]) -> bool:
    """Tell whether arrays are ciphertexts of a model, and not the model."""
    return set(arrays) == {CIPHERTEXT}


def arrays_defect(arrays: Arrays, expected: Shapes) -> Refusal | None:
    """Return why arrays are not such as expected, else None: other names, shapes, types, or values not finite."""
    if set(arrays) != set(expected):
        return Refusal("array-names-differ")
    for name, (shape, dtype) in expected.items():
        found = arrays[name]
        if found.shape != shape:
            return Refusal("array-shape-differs", array=name, shape=found.shape, expected=shape)
        if found.dtype != dtype:
            return Refusal("array-dtype-differs", array=name, dtype=found.dtype, expected=dtype)
        if not np.isfinite(found).all():
            return Refusal("array-infinite", array=name)
    return None


def shapes_of(arrays: Arrays) -> Shapes:
    """Return the shape and type of each array."""
    return {name: (value.shape, value.dtype) for name, value in arrays.items()}


def entries_of(model: Shapes) -> int:
    """Return how many entries all arrays have together."""
    return sum(math.prod(shape) for shape, _ in model.values())


def flattened_all(arrays: Sequence[Arrays]) -> np.ndarray:
    """Return the entries of many sites' arrays as a new float64 array [sites, entries].

    Each row is as `flattened` returns it.
    """
    first = arrays[0]
    found = np.empty((len(arrays), sum(value.size for value in first.values())))
    start = 0
    for name in sorted(first):
        end = start + first[name].size
        np.stack([own[name].ravel() for own in arrays], out=found[:, start:end], casting="same_kind")
        start = end
    return found


def flattened(arrays: Arrays) -> np.ndarray:
    """Return all entries as a new float64 array [entries].

    They stand in the order of the arrays' names, each array in C order.
    """
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)], dtype=np.float64)


def unflattened(entries: np.ndarray, model: Shapes) -> Arrays:
    """Return the arrays whose `flattened` entries these are, in the model's types.

    Parameters
    ----------
    entries : float array [entries]
    model : mapping of name to (shape, dtype)
    """
    # One conversion for all arrays of one type, as most models have.
    types = {dtype for _, dtype in model.values()}
    entries = entries.astype(types.pop(), copy=False) if len(types) == 1 else entries
    found = {}
    start = 0
    for name in sorted(model):
        shape, dtype = model[name]
        end = start + math.prod(shape)
        found[name] = entries[start:end].reshape(shape).astype(dtype, copy=False)
        start = end
    return {name: found[name] for name in model}
