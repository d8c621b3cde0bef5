"""Packing of arrays at a site: the model that comes, the update that leaves, and what follows from the study's text."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from flfed import registry
from flfed.rows.data import datasets
from flfed.rows.session import SiteSession
from flfed.rows.study_model import model_shapes
from flfed.rows.training.requests import ComputeRequest, PackRequest
from flfed.study.study import Study
from flfed.updates.codec import Codec, Shapes, codec_of, download_of
from flfed.updates.extra import ExtraShapes, extra_shapes
from flfed.updates.messages.fields import Arrays, MalformedMessage
from flfed.updates.messages.in_memory import immutable
from flfed.updates.messages.train import Same
from flfed.updates.strategies.fedavg import FedAvg

FAR = 1 << 96
"""Draws between a fit's and those by which its update is rounded: no fit takes so many."""


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


@lru_cache(maxsize=8)
def study_of(text: str) -> Study:
    """Return a parsed study.

    It is parsed once for all sites of one process that it asks.
    """
    return Study.parse(text)


@lru_cache(maxsize=64)
def packing_of(text: str) -> Packing | None:
    """Return how a study's arrays are packed, None where they are not."""
    study = study_of(text)
    codec, download = codec_of(study), download_of(study)
    return None if codec is None and download is None else Packing(codec, download, model_shapes_of(text))


@lru_cache(maxsize=64)
def model_shapes_of(text: str) -> Shapes:
    """Return shape and type of each array of a study's model."""
    study = study_of(text)
    return model_shapes(study, datasets.load(study.dataset.name).schema)


@lru_cache(maxsize=64)
def extra_shapes_of(text: str) -> ExtraShapes:
    """Return the arrays that a study's strategy has beside the model."""
    return extra_shapes(study_of(text), model_shapes_of(text))


@cache
def strategy_class(name: str) -> type[FedAvg]:
    """Return the class of a strategy, whose client half stands in the same file as the server's."""
    found: type[FedAvg] = registry.load("strategy", name)
    return found


def packed_update(
    packing: Packing, delta: Arrays, session: SiteSession, round: int, state: Arrays
) -> Generator[ComputeRequest, Any, tuple[Arrays, Arrays]]:
    """Pack an update for its way; what was left out of it comes second."""
    stream: Any = session.draws.of(session.site.name, round).bit_generator  # NumPy's types know of no `advance`
    return (yield from packing.update(delta, np.random.Generator(stream.advance(FAR)), state))
