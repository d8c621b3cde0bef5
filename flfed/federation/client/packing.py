"""Packing of arrays at a site: the model that comes, and the update that leaves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from flfed.seeds import Draws
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
    draws : Draws
        What is rounded at random follows from seed, site and round: every engine rounds the same.
    """

    codec: Codec | None
    download: Codec | None
    shapes: Shapes
    draws: Draws

    def model(self, arrays: Arrays) -> Arrays:
        """Return the model's arrays, as all sites read them.

        Raises
        ------
        MalformedMessage
            If they are not packed as the study's codec packs.
        """
        return arrays if self.download is None else _model(self, Same(arrays))

    def update(self, delta: Arrays, site: str, round: int, state: RunState | None) -> Arrays:
        """Return an update as it leaves.

        Under error feedback what was left out of the update before is added, and what is left out now is kept.
        """
        codec = self.codec
        if codec is None:
            return delta
        left = state.before(round) if codec.feedback and state is not None else {}
        whole = {name: value + left[name] for name, value in delta.items()} if left else delta
        packed = codec.encode(whole, self.draws.of(site, round))
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
