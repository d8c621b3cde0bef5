"""Codec at a site.

The incoming model is unpacked, the outbound update is packed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np

from flfed.federation.client.parts.step import SitePart, TrainingStep, Work
from flfed.federation.client.site_run import model_shapes_of
from flfed.rows.training.requests import PackRequest
from flfed.study.study import Study
from flfed.updates.arrays import Arrays, Shapes
from flfed.updates.codec import Codec as ArrayCodec
from flfed.updates.codec import codec_of, download_of
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import immutable
from flfed.updates.messages.train import Same

FAR = 1 << 96
"""Draws between a fit's and those for rounding its update: no fit takes so many."""


@dataclass(frozen=True, eq=False)
class Codec(SitePart):
    """Packing of a study's arrays in transit.

    Attributes
    ----------
    upload, download : Codec or None
        Codecs of the outbound update, and of the incoming model.
    shapes : mapping of name to (shape, dtype)
        The model's.
    """

    upload: ArrayCodec | None
    download: ArrayCodec | None
    shapes: Shapes

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where arrays cross unpacked."""
        upload = codec_of(study)
        download = download_of(study)
        if upload is None and download is None:
            return None
        return cls(upload, download, model_shapes_of(study.text))

    def before(self, step: TrainingStep) -> None:
        """Unpack the model; one that is only scored comes unpacked.

        Raises
        ------
        MalformedMessage
            If its arrays do not fit the study's codec.
        """
        if step.request.fit and self.download is not None:
            step.model = _unpacked(self, Same(step.model))

    def after(self, step: TrainingStep) -> Work:
        """Pack the update.

        The rest of the earlier one is added, and the new rest is stored.
        """
        codec = self.upload
        if not step.request.fit or codec is None:
            return
        whole = step.delta
        # Random rounding follows from seed, site and round, so that every engine rounds the same.
        session = step.session
        stream: Any = session.draws.of(session.site.name, step.request.round).bit_generator
        rng = np.random.Generator(stream.advance(FAR))  # NumPy's types lack `advance`
        if codec.feedback and step.previous_state.keys() >= whole.keys():
            whole = {name: value + step.previous_state[name] for name, value in whole.items()}
        step.delta = yield PackRequest(codec.encode_all, whole, rng=rng)
        # An unreadable update will be refused in transit, and leaves no rest for the next.
        if codec.feedback and codec.defect(step.delta, self.shapes) is None:
            sent = codec.decode(step.delta, self.shapes)
            step.state |= {name: value - sent[name] for name, value in whole.items()}


@lru_cache(maxsize=8)
def _unpacked(part: Codec, packed: Same) -> Arrays:
    """Return a model's arrays.

    All sites of a process that received the same share one copy.
    """
    codec = part.download
    if codec is None:
        return packed.arrays
    if defect := codec.defect(packed.arrays, part.shapes):
        raise MalformedMessage(defect)
    return immutable(codec.decode(packed.arrays, part.shapes))
