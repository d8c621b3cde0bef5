"""The codec of a study, which packs the update on its way."""

from __future__ import annotations

from flfed.updates.codec import codec_of
from flfed.updates.messages.kinds import TRAIN
from flfed.updates.parts.part import Border, Foreign, Part, Place, Release, Releases, StudyFacts, Text, Wanted
from flfed.updates.sections import Sections, packed_arrays


class PackedArrays(Part):
    """The codec's own check of its settings."""

    title = "[codec]"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether updates are packed."""
        return facts.packs

    def check(self, facts: StudyFacts) -> None:
        """Refuse settings that the codec does not take; raises UsageError."""
        codec_of(facts.study)

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Pack an update."""
        codec = codec_of(border.study)
        if wanted.kind != TRAIN or codec is None:
            return sections
        return {**sections, "arrays": packed_arrays(border.model, codec)}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add how an update is packed."""
        codec = codec_of(border.study)
        if codec is None:
            return without
        feedback = Text("codec-feedback") if codec.feedback else ""
        facts = {"name": border.study.codec.name, "reveals": Foreign(type(codec)), "feedback": feedback}
        return (*without, Release(Place.WITH_UPDATE, Text("codec", facts)))
