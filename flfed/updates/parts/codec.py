"""The codec of a study, which packs the update and the model on their way."""

from __future__ import annotations

from flfed.updates.codec import Codec, codec_of, download_of
from flfed.updates.messages.kinds import TRAIN
from flfed.updates.parts.part import Border, Foreign, Part, Place, Release, Releases, StudyFacts, Text, Wanted
from flfed.updates.sections import Sections, packed_arrays


class PackedArrays(Part):
    """The codec's own check of its settings."""

    title = "[codec]"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether arrays are packed."""
        return facts.packs

    def check(self, facts: StudyFacts) -> None:
        """Refuse settings that the codec does not take; raises UsageError."""
        codec_of(facts.study)

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Pack the model that a site trains from.

        The one that is scored and compared at the end is whole.
        """
        return _packed(border, kind, download_of(border.study), sections)

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Pack an update."""
        return _packed(border, wanted.kind, codec_of(border.study), sections)

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add how an update is packed."""
        codec = codec_of(border.study)
        if codec is None:
            return without
        feedback = Text("codec-feedback") if codec.feedback else ""
        facts = {"name": border.study.codec.name, "reveals": Foreign(type(codec)), "feedback": feedback}
        return (*without, Release(Place.WITH_UPDATE, Text("codec", facts)))


def _packed(border: Border, kind: str, codec: Codec | None, sections: Sections) -> Sections:
    """Return the sections of training with packed arrays."""
    if kind != TRAIN or codec is None:
        return sections
    return {**sections, "arrays": packed_arrays(border.model, codec)}
