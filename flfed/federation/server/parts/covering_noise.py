"""Noise that covers all that leaves a site: encoder and figures are made of noised counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flfed.federation.server.parts.server_part import Beginning, FinalModel, ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.sums.noised_counts import noised_encoder, scored_under_noise
from flfed.study.coverage import covers_model
from flfed.updates.aggregation.rounds import Participant, RunContext


class CoveringNoise(ServerPart):
    """A privacy budget to which every release is charged."""

    @classmethod
    def is_asked(cls, run: RunSetting) -> bool:
        """Tell whether all that leaves is charged."""
        return covers_model(run.study)

    def begin(self, participants: Mapping[str, Participant]) -> Beginning:
        """Return the sites that sent noised counts of their rows, and the encoder of these; raises FlfedError."""
        taking_part, encoder = noised_encoder(self.run, participants)
        return Beginning(participants=taking_part, encoder=encoder)

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Ask for no exact score of a round's model."""
        return replace(context, scored=False)

    def compare(self, model: FinalModel) -> bool:
        """Score the model by noised counts, in place of a comparison."""
        scored_under_noise(self.run, model.participants, model.outcome)
        return True
