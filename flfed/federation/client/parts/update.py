"""An update on its way out: nothing uncharged beside it where noise covers everything, and its codec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from flfed.federation.client.parts.step import SitePart, TrainingStep, Work
from flfed.federation.client.released.noised_answer import trained_units
from flfed.federation.client.site_run import model_shapes_of
from flfed.rows.training.requests import PackRequest
from flfed.study.study import Study
from flfed.updates.arrays import Shapes
from flfed.updates.codec import Codec as ArrayCodec
from flfed.updates.codec import codec_of

FAR = 1 << 96
"""Draws between a fit's and those for rounding its update: no fit takes so many."""


@dataclass(frozen=True, eq=False)
class Codec(SitePart):
    """Packing of a study's updates in transit; `shapes` are the model's."""

    codec: ArrayCodec
    shapes: Shapes

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where updates cross unpacked."""
        codec = codec_of(study)
        return None if codec is None else cls(codec, model_shapes_of(study.text))

    def after(self, step: TrainingStep) -> Work:
        """Pack the update.

        The rest of the earlier one is added, and the new rest is stored.
        """
        codec = self.codec
        if not step.request.fit:
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


@dataclass(frozen=True)
class CoveringNoise(SitePart):
    """The privacy budget of a study that charges every release."""

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where only updates are charged, or nothing."""
        return cls() if study.covers_model else None

    def before(self, step: TrainingStep) -> None:
        """Request no score, and divide by the noised number of rows.

        Raises NotSpent.
        """
        session = step.session
        if session.protection is not None:
            session.protection = replace(session.protection, units=trained_units(session))
        step.request = replace(step.request, score=False)
