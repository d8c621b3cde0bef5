"""Codec at the server, which unpacks updates and records the saved bytes."""

from __future__ import annotations

from dataclasses import replace

from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.seeds import generator
from flfed.updates.aggregation.rounds import RunContext
from flfed.updates.codec import Codec as ArrayCodec
from flfed.updates.codec import codec_of
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.words import render


class Codec(ServerPart):
    """Packing of a study's updates in transit."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether updates are packed."""
        return codec_of(run.study) is not None

    def note(self) -> None:
        """Record the codec, and the bytes that it saves of an update's message."""
        codec, arrays = self._codec(), self.run.first_arrays()
        # A packed array's size does not depend on its values.
        packed = codec.encode(arrays, generator(0, site="", purpose="codec-bytes"))
        saved = count_array_bytes(arrays) - count_array_bytes(packed)
        self.run.recorder.summary("codec", {"name": self.run.study.codec.name, "saved": saved})

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Add the codec to the strategy's facts."""
        return replace(context, codec=self._codec())

    def lost_at_sites(self) -> str:
        """Return the loss of error feedback, where the codec has any."""
        return render("run.notes.feedback") if self._codec().feedback else ""

    def _codec(self) -> ArrayCodec:
        return codec_of(self.run.study) or ArrayCodec()
