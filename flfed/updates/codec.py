"""Interface of the codecs in `updates/codecs/`.

A codec packs an update's arrays into fewer bytes and reads them back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flfed.refusals import Refusal
from flfed.study.study import Study
from flfed.updates.arrays import Arrays, Shapes, arrays_defect, entries_of, flattened, unflattened

__all__ = ["Codec", "Shapes", "codec_of", "entries_of", "flattened", "unflattened"]
# Codecs of other packages import the functions on arrays from here.


class Codec:
    """Codec that changes nothing.

    Each listed one says what it does instead.

    Notes
    -----
    The packed arrays' names, shapes and types follow from the model alone, so that a reader knows them before a message
    comes. Where the entries of all arrays are packed into one, they stand in the order of the arrays' names, each array
    in C order.

    Examples
    --------
    >>> import numpy as np
    >>> from flfed import Codec
    >>> packed = Codec().encode({"w": np.ones(2)}, np.random.default_rng(1))
    >>> packed["w"]
    array([1., 1.])
    """

    feedback = False
    """Whether the omitted part is added to the site's next update. It is kept at the site, and never sent."""

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
            All draws come from it alone: the same state gives the same bytes.
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
            Without a `defect`; then decoded values are finite.
        model : mapping of name to (shape, dtype)
        """
        return dict(packed)

    def defect(self, packed: Arrays, model: Shapes) -> Refusal | None:
        """Return why packed arrays cannot be read, else None.

        They have other names, shapes or types than `shapes`, or values that are not finite.
        """
        return arrays_defect(packed, self.shapes(model))


def codec_of(study: Study) -> Codec | None:
    """Return the codec of a study's updates, None where it has none.

    Raises
    ------
    UsageError
        For settings that it does not have.
    """
    if study.codec.name == "none":
        return None
    codec: Codec = study.codec.build("codec")
    return codec
