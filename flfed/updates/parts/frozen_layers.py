"""Layers of a model that are not trained."""

from __future__ import annotations

from flfed.updates.parts.part import Exclusion, Part, StudyFacts


class FrozenLayers(Part):
    """The first layers of a model, which stay as they came."""

    title = "frozen layers"
    exclusions = (
        Exclusion(
            other="a model without further layers",
            applies=lambda facts: facts.study.frozen >= facts.layers,
            sentence="[model] {model}: frozen={frozen} leaves no layer to train; it has {layers}",
        ),
        Exclusion(
            other="[privacy]: record-dp",
            applies=lambda facts: facts.study.privacy.name == "record-dp",
            sentence="[model]: frozen does not go with record-dp, whose noise falls on every layer: leave one out",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study freezes any."""
        return facts.study.frozen > 0
