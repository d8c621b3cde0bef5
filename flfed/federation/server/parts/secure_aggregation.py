"""Secure aggregation at the server: the cohort keeps its keys, and sums stand in place of what sites send."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from flfed.federation.recording.pooled_figures import together
from flfed.federation.server.parts.server_part import FinalModel, ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.sums.row_sums import SiteSums
from flfed.federation.server.sums.secure_sums import check_enrolled, exchange_keys, rehearse_keys
from flfed.federation.server.sums.summed_answers import SecureSiteSums, summed_figures
from flfed.refusals import Refusal
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.aggregation.secure_sum import SecureSums
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.checkpoints.sum_file import kept_cohort
from flfed.updates.codec import is_encrypted
from flfed.updates.masking.figure_sums import FigureLayout
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.fields import Arrays

BEFORE = "sums-before"
"""What a checkpoint has of secure sums: the last model whose loss was right, and facts."""
ENCRYPTED = "the server has the run's models as ciphertexts only"


@dataclass(eq=False, repr=False)
class SecureAggregation(ServerPart):
    """Secure sums of a run.

    Attributes
    ----------
    sums : SecureSums or None
        Once the sites have each other's keys; None where they approved none, so that updates cross as they are.
    """

    state_names: ClassVar[tuple[str, ...]] = (BEFORE,)
    sums: SecureSums | None = field(default=None, init=False)

    @classmethod
    def is_asked(cls, run: RunSetting) -> bool:
        """Tell whether updates may be summed."""
        return run.study.aggregation.sums_updates

    def cohort(self) -> Mapping[str, Participant]:
        """Return the sites that have each other's keys already, as this run gave them."""
        return kept_cohort(self.run.name)

    def check_enrolled(self, sites: Collection[str], refused: Mapping[str, Refusal]) -> None:
        """Refuse a run that has too few sites for sums; raises UsageError."""
        check_enrolled(self.run.study, sites, refused)

    def enrolled(self, participants: Mapping[str, Participant], back: Collection[str]) -> None:
        """Give the sites each other's keys.

        Raises
        ------
        UsageError, FlfedError
            As `exchange_keys` does.
        """
        self.sums = exchange_keys(self.run, participants, back)

    @property
    def keeps_cohort(self) -> bool:
        """Whether masks are made for the whole cohort, so that who is away is missing until it is back."""
        return self.sums is not None

    def row_sums(self, sums: SiteSums) -> SiteSums:
        """Return how sums over rows cross under masks."""
        return sums if self.sums is None else SecureSiteSums(self.run, self.sums)

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Give the strategy what adds updates up; raises FlfedError where a site takes no part in a rehearsal."""
        if is_recorded:
            return replace(context, sums=self.sums)
        return replace(context, sums=rehearse_keys(self.run, context.participants))

    @property
    def binds_encoder(self) -> bool:
        """Whether masks of the first round are bound to its encoder: one made anew might be another."""
        return self.sums is not None

    def state(self) -> Mapping[str, Arrays]:
        """Return the last model whose loss was right."""
        return {} if self.sums is None else {BEFORE: self.sums.check.before}

    def facts(self) -> Mapping[str, Any]:
        """Return what is known of the sums of the rounds."""
        return {} if self.sums is None else {BEFORE: self.sums.facts()}

    def facts_of_last_model(self) -> Mapping[str, Any]:
        """Return the losses of the last model: after the comparison the sites open no sum of them again."""
        if self.sums is None or self.sums.check.evaluated is None:
            return {}
        return self.facts()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up what a checkpoint knows of the sums."""
        facts = checkpoint.facts.get(BEFORE)
        if self.sums is not None and facts:
            self.sums.restore(facts, checkpoint.state.get(BEFORE, {}))

    def received(self, model: FinalModel, replies: Mapping[str, CompareReply]) -> Mapping[str, CompareReply]:
        """Add up the figures of sites that share them in sums only, and return the replies of the others."""
        if self.sums is None:
            return replies
        reserved = sorted(self.sums.in_sums_only & replies.keys())
        if not reserved:
            return replies
        self.run.recorder.note(Refusal("figures-kept", sites=", ".join(reserved[:3])))
        self._record_summed(self.sums, model, replies)
        return {site: reply for site, reply in replies.items() if site not in reserved}

    def _record_summed(self, sums: SecureSums, model: FinalModel, replies: Mapping[str, CompareReply]) -> None:
        """Record the figures of all these sites together, from which no site's own follow."""
        run = self.run
        layout = FigureLayout.of(run.layout.task, run.study.compare.points, model.outcome.encoder)
        found = summed_figures(run, sums, model.participants, replies, layout)
        if isinstance(found, Refusal):
            run.recorder.note(Refusal("figures-unsummed", why=found))
        elif found is not None:
            run.recorder.note(Refusal("figures-summed", sites=found.sites))
            run.recorder.writer.summary("sums-only", together(found), durable=False)

    @property
    def shares_sums_only(self) -> bool:
        """Whether a site of the run stated that it shares figures in sums only."""
        return self.sums is not None and bool(self.sums.in_sums_only)

    def unreadable(self, arrays: Arrays) -> str:
        """Return that the model is encrypted, where it is."""
        return ENCRYPTED if is_encrypted(arrays) else ""
