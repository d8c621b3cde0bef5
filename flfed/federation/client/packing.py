"""Packing of arrays at a site: the model that comes, and the update that leaves."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from flfed.rows.training.requests import PackRequest
from flfed.updates.checkpoints.run_state import RunState
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

    def update(
        self, delta: Arrays, round: int, rng: np.random.Generator, state: RunState | None
    ) -> Generator[PackRequest, Arrays, Arrays]:
        """Pack an update for its way.

        Yields the request and returns what came of it. Under error feedback what was left out of the update before is
        added, and what is left out now is kept.

        Parameters
        ----------
        delta : dict of name to array
        round : int
        rng : Generator
            What is rounded at random follows from seed, site and round, so that every engine rounds the same.
        state : RunState or None
            Where what is left out is kept.
        """
        codec = self.codec
        if codec is None:
            return delta
        left = state.before(round) if codec.feedback and state is not None else {}
        whole = {name: value + left[name] for name, value in delta.items()} if left else delta
        packed = yield PackRequest(codec.encode_all, whole, rng)
        # An update that cannot be read is refused on its way, and leaves nothing to be added to the next.
        if codec.feedback and state is not None and codec.defect(packed, self.shapes) is None:
            sent = codec.decode(packed, self.shapes)
            state.keep(round, {name: value - sent[name] for name, value in whole.items()})
        return packed


@lru_cache(maxsize=8)
def _model(packing: Packing, packed: Same) -> Arrays:
    """Return a model's arrays, one for all sites of a process that were sent the very same."""
    codec = packing.download
    if codec is None:
        return packed.arrays
    if defect := codec.defect(packed.arrays, packing.shapes):
        raise MalformedMessage(defect)
    return immutable(codec.decode(packed.arrays, packing.shapes))
