"""Codec at the server: updates are unpacked, the model is packed, and what that saves is recorded."""

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

FORGOTTEN = (
    "the run was resumed on an engine that keeps no site's error feedback: what sites had left out of their updates "
    "until then is lost, and the arrays are not those of a run without a break"
)


class Codec(ServerPart):
    """How a study's arrays are packed on their way."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Tell whether arrays are packed."""
        return codec_of(run.study) is not None or download_of(run.study) is not None

    def note(self) -> None:
        """Record the codecs, and the bytes that each takes off a message of training."""
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
        """Give the strategy what packs and unpacks."""
        return replace(context, codec=codec_of(self.run.study), download=download_of(self.run.study))

    def lost_at_sites(self) -> str:
        """Return that error feedback is lost, where the codec has any."""
        codec = codec_of(self.run.study)
        if codec is not None and codec.feedback:
            return FORGOTTEN
        return ""


def bytes_saved(codec: ArrayCodec | None, arrays: Arrays) -> int:
    """Return how many bytes shorter the section of these arrays is once it is packed.

    They are counted on both sections: a packed array's size does not depend on its values.
    """
    if codec is None:
        return 0
    packed = codec.encode(arrays, generator(0, site="", purpose="codec-bytes"))
    return count_array_bytes(arrays) - count_array_bytes(packed)
