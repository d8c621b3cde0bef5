"""Own intercepts of sites: how far they differ is estimated over the sites, and each adjusts its own by it."""

from __future__ import annotations

from dataclasses import replace

from flfed.federation.server.parts.server_part import FinalModel, ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.site_offsets import SITE_OFFSETS, SiteOffsets, site_offsets
from flfed.rows.training.functional import outputs_of
from flfed.updates.aggregation.rounds import RunContext
from flfed.updates.messages.compare import CompareRequest


class OwnIntercepts(ServerPart):
    """Intercepts by which sites adjust the shared model."""

    @classmethod
    def is_asked(cls, run: RunSetting) -> bool:
        """Tell whether sites adjust the model."""
        return run.study.adjusts_intercept()

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Have sites asked for their own after the last round."""
        return replace(context, outputs=outputs_of(self.run.schema.task, len(self.run.schema.classes)))

    def compare_request(self, model: FinalModel, request: CompareRequest) -> CompareRequest:
        """Send the sites how far their intercepts differ, and record it."""
        estimate = site_offsets(model.strategy.offsets)
        found = SiteOffsets(**model.once(SITE_OFFSETS, estimate.facts()))
        self.run.recorder.writer.summary(SITE_OFFSETS, found.facts(), durable=False)
        return replace(request, offset_deviation=found.sent())
