"""Codec at the server.

It unpacks updates, packs the model, and records the saved bytes.
"""

from __future__ import annotations

from dataclasses import replace

from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.seeds import generator
from flfed.updates.aggregation.rounds import RunContext
from flfed.updates.arrays import Arrays
from flfed.updates.codec import Codec as ArrayCodec
from flfed.updates.codec import codec_of, download_of
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.words import render


class Codec(ServerPart):
    """Packing of a study's arrays in transit."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether arrays are packed."""
        return codec_of(run.study) is not None or download_of(run.study) is not None

    def note(self) -> None:
        """Record the codecs, and the bytes that each saves of a message of training."""
        study = self.run.study
        arrays = self.run.first_arrays()
        facts = {
            "update": study.codec.name,
            "download": study.download,
            "saved-to-site": bytes_saved(download_of(study), arrays),
            "saved-to-server": bytes_saved(codec_of(study), arrays),
        }
        self.run.recorder.summary("codec", facts)

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Add the codecs to the strategy's facts."""
        return replace(context, codec=codec_of(self.run.study), download=download_of(self.run.study))

    def lost_at_sites(self) -> str:
        """Return the loss of error feedback, where the codec has any."""
        codec = codec_of(self.run.study)
        return render("run.notes.feedback") if codec is not None and codec.feedback else ""


def bytes_saved(codec: ArrayCodec | None, arrays: Arrays) -> int:
    """Return how many bytes packing saves on the section of these arrays.

    Both sections are counted: a packed array's size does not depend on its values.
    """
    if codec is None:
        return 0
    packed = codec.encode(arrays, generator(0, site="", purpose="codec-bytes"))
    return count_array_bytes(arrays) - count_array_bytes(packed)
