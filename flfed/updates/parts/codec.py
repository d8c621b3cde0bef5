"""The codec of a study, which packs the update and the model on their way."""

from __future__ import annotations

from flfed.updates.codec import codec_of
from flfed.updates.parts.part import Part, StudyFacts


class PackedArrays(Part):
    """The codec's own check of its settings."""

    title = "[codec]"

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether arrays are packed."""
        return facts.study.codec.name != "none" or facts.study.download != "none"

    def check(self, facts: StudyFacts) -> None:
        """Refuse settings that the codec does not take; raises UsageError."""
        codec_of(facts.study)
