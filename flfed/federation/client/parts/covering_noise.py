"""Noise that covers everything that a site releases.

Uncharged figures are not requested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from flfed.federation.client.parts.step import SitePart, TrainingStep
from flfed.federation.client.released.noised_answer import trained_units
from flfed.study.study import Study


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
