"""Codec at a site: the model that comes is unpacked, the update that leaves is packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flfed.federation.client.packing import Packing, packed_update, packing_of
from flfed.federation.client.parts.step import SitePart, TrainingStep, Work
from flfed.study.study import Study


@dataclass(frozen=True, eq=False)
class Codec(SitePart):
    """How a study's arrays are packed on their way.

    Attributes
    ----------
    packing : Packing
    """

    packing: Packing

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where arrays cross as they are."""
        packing = packing_of(study.text)
        return None if packing is None else cls(packing)

    def before(self, step: TrainingStep) -> None:
        """Unpack the model; one that is only scored comes as it is."""
        if step.request.fit:
            step.model = self.packing.model(step.model)

    def after(self, step: TrainingStep) -> Work:
        """Pack the update; what was left out of the one before is added, and what is left out now is kept."""
        if not step.request.fit:
            return
        kept = step.kept if self.packing.feedback else {}
        delta, left = yield from packed_update(self.packing, step.delta, step.session, step.request.round, kept)
        step.delta = delta
        step.state |= left
