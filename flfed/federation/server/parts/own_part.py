"""Arrays that stay at the sites: a site's own part of the model, its own model, or what a strategy keeps there."""

from __future__ import annotations

from flfed.federation.client.packing import extra_shapes_of
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.updates.extra import own_facts

UNKEPT = (
    "the run was resumed on an engine that keeps no site's own arrays: what the strategy had kept at sites until then "
    "is lost, and the arrays are not those of a run without a break"
)


class OwnPart(ServerPart):
    """Arrays of a strategy that are at the sites only."""

    @classmethod
    def is_asked(cls, run: RunSetting) -> bool:
        """Tell whether sites keep arrays from round to round."""
        return extra_shapes_of(run.study.text).stay

    def note(self) -> None:
        """Record what of the model is each site's own."""
        facts = own_facts(extra_shapes_of(self.run.study.text))
        if facts:
            self.run.recorder.writer.summary("own-parts", facts, durable=False)

    def lost_at_sites(self) -> str:
        """Return that the sites' own arrays are lost."""
        return UNKEPT

    def has_whole_model(self) -> bool:
        """Tell whether each site predicts with the arrays at the server, and with none of its own."""
        return not extra_shapes_of(self.run.study.text).own_part
