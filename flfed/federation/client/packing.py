"""Packing of arrays at a site: the model that comes, and the update that leaves."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from flfed.rows.training.requests import PackRequest
from flfed.updates.codec import Codec, Shapes
from flfed.updates.messages.fields import Arrays, MalformedMessage
from flfed.updates.messages.in_memory import immutable
from flfed.updates.messages.train import Same


@dataclass(frozen=True, eq=False)
class Packing:
    """How a study's arrays are packed on their way.

    Attributes
    ----------
    codec, download : Codec or None
        What packs the update that leaves, and the model that comes.
    shapes : mapping of name to (shape, dtype)
        The model's.
    """

    codec: Codec | None
    download: Codec | None
    shapes: Shapes

    def model(self, arrays: Arrays) -> Arrays:
        """Return the model's arrays, as all sites read them.

        Raises
        ------
        MalformedMessage
            If they are not packed as the study's codec packs.
        """
        return arrays if self.download is None else _model(self, Same(arrays))

    @property
    def feedback(self) -> bool:
        """Whether what is left out of an update is kept for the next."""
        return self.codec is not None and self.codec.feedback

    def update(
        self, delta: Arrays, rng: np.random.Generator, state: Arrays
    ) -> Generator[PackRequest, Arrays, tuple[Arrays, Arrays]]:
        """Pack an update for its way.

        Yields the request and returns what came of it, and what was left out. Under error feedback what was left out
        of the update before is added.

        Parameters
        ----------
        delta : dict of name to array
        rng : Generator
            What is rounded at random follows from seed, site and round, so that every engine rounds the same.
        state : dict of name to array
            What the site kept in its last round.
        """
        codec = self.codec
        if codec is None:
            return delta, {}
        known = self.feedback and state.keys() >= delta.keys()
        whole = {name: value + state[name] for name, value in delta.items()} if known else delta
        packed = yield PackRequest(codec.encode_all, whole, rng)
        # An update that cannot be read is refused on its way, and leaves nothing to be added to the next.
        if not self.feedback or codec.defect(packed, self.shapes) is not None:
            return packed, {}
        sent = codec.decode(packed, self.shapes)
        return packed, {name: value - sent[name] for name, value in whole.items()}


@lru_cache(maxsize=8)
def _model(packing: Packing, packed: Same) -> Arrays:
    """Return a model's arrays, one for all sites of a process that were sent the very same."""
    codec = packing.download
    if codec is None:
        return packed.arrays
    if defect := codec.defect(packed.arrays, packing.shapes):
        raise MalformedMessage(defect)
    return immutable(codec.decode(packed.arrays, packing.shapes))
