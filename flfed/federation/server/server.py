"""Server side of one run, from enrolment to comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flfed.callbacks import RoundCallback, RunObserver, no_observer
from flfed.federation.recording.privacy_recorder import PrivacyRecord
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server import enrolment
from flfed.federation.server.comparison import Comparison
from flfed.federation.server.noised_evaluation import begin_noised, score_noised
from flfed.federation.server.rounds import CheckpointWriter, conduct_rounds
from flfed.federation.server.row_sums import row_sums
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.secure_sums import exchange_keys
from flfed.summaries.summary import Encoder, Summary, merge
from flfed.updates.aggregation.rounds import Participant, Participants, load_cohort
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    # a site's half, which a coordinator does not load
    from flfed.federation.engines.pooled_reference import PooledReference


@dataclass(kw_only=True, eq=False, repr=False)
class FederatedRun(RunSetting):
    """One federated run over a grid.

    Attributes
    ----------
    tables : PooledReference, optional
        Of an engine that has every site's table.
    checkpoint : Checkpoint, optional
        Of the round from which the run continues.
    observer : callable (stage, round), optional
        Receives "checkpoint" once a round's file is on the disk, "round" once it is in the store.
    callback : callable (figures), optional
        Receives the figures of each round; the run ends after it where the return value is true.
    """

    tables: PooledReference | None = None
    checkpoint: checkpoints.Checkpoint | None = None
    observer: RunObserver = no_observer
    callback: RoundCallback | None = None

    def __post_init__(self) -> None:
        """Make the state that the steps share, and restore a checkpoint's."""
        began = self.clock()
        if self.checkpoint is not None:
            self.resumed = True
            began -= self.checkpoint.facts["seconds"]
        self.privacy = PrivacyRecord(self.study, self.recorder, deployed=self.each_round)
        self.privacy.restore(self.checkpoint)
        self.writer = CheckpointWriter(
            run=self, observer=self.observer, callback=self.callback, began=began, last=self.checkpoint
        )

    # enrol ──► keys ──► summarise ──► encoder ──► rounds ──► last evaluation ──► compare ──► record
    #   │         │          │            │          │
    #   who       of secure  sums of      start      each one written by
    #   takes     sums       training     file       the checkpoint writer
    #   part                 rows
    def conduct(self) -> Outcome:
        """Run every step of the study and return the outcome.

        Raises FlfedError if too few sites take part.
        """
        if self.checkpoint is None:
            participants, common = self.begin()
        else:
            participants, common = self._resume(self.checkpoint)
        if self.tables is not None:
            self.tables.begin_models(sorted(participants))
        strategy, arrays = self.rounds(participants, common)
        outcome = Outcome(
            status="stopped" if strategy.stopped else "completed",
            reason=strategy.stopped or self.writer.ended,
            arrays=arrays,
            encoder=common.encoder,
            rounds=strategy.rounds_done,
            best_round=strategy.best_round,
            sites=tuple(participants),
        )
        self.write_model(outcome)
        if not strategy.stopped:
            self.compare(participants, outcome, common, strategy)
        return replace(outcome, seconds=self.writer.seconds())

    def write_model(self, outcome: Outcome) -> None:
        """Write the final model with its schema, so that it can be used without the dataset's folder."""
        facts = {"schema": self.schema.model_dump(mode="json", by_alias=True, exclude_none=True)}
        final = checkpoints.Checkpoint(
            round=outcome.best_round, arrays=outcome.arrays, encoder=outcome.encoder, facts=facts
        )
        checkpoints.write(self.name, final, final=True)

    def begin(self) -> tuple[dict[str, Participant], checkpoints.Checkpoint]:
        """Return the participants and the common checkpoint of a new run."""
        participants, back = self.enrol_cohort()
        if self.study.covers_model:
            participants = begin_noised(self, participants)
            return participants, self.write_start(participants, self.schema_encoder(), {})
        summaries: dict[str, Summary] = {}
        merged = row_sums(self).summary(participants)
        if merged is None:
            summaries = self.summarise(back)
            merged = merge(list(summaries.values()))
            participants = {site: participants[site] for site in summaries}
        self.privacy.counted({site: float(summary.rows[0]) for site, summary in summaries.items()})
        enrolment.record_beginnings(self, participants, merged)
        return participants, self.write_start(participants, enrolment.fitted_encoder(self, merged), summaries)

    def enrol_cohort(self) -> tuple[dict[str, Participant], dict[str, Participant]]:
        """Return the participants, and those of them that are present, with each other's keys where sums need them.

        A run with secure sums that ended before its first round has named its participants to the sites: none of them
        is dropped.
        """
        cohort: Participants = load_cohort(self.name) if self.study.aggregation.sums_updates else {}
        back, refused = enrolment.enrol(self, tuple(cohort), cohort)
        participants = dict(back)
        nodes: Mapping[str, int] = getattr(self.grid, "nodes", {})
        # An absent site of the cohort keeps the node of its enrolment, or has the node that is known by now.
        for site in sorted(cohort):
            one = cohort[site]
            if site in back:
                participants[site] = replace(one, node_id=back[site].node_id, version=back[site].version)
            else:
                participants[site] = replace(one, node_id=nodes.get(site, one.node_id))
        participants = dict(sorted(participants.items()))
        self.sums = exchange_keys(self, participants, back, refused)
        return participants, back

    def _resume(self, checkpoint: checkpoints.Checkpoint) -> tuple[dict[str, Participant], checkpoints.Checkpoint]:
        """Return the participants that came back, and the common checkpoint."""
        if self.study.aggregation.sums_updates and load_cohort(self.name):
            return self.enrol_cohort()[0], checkpoint
        before = checkpoint.participants
        # A site that was missing at an earlier resumption is not asked again.
        bands = {site: high for site, high in before.items() if site not in checkpoint.left}
        now, refused = enrolment.enrol(self, tuple(bands))
        participants = {site: replace(now[site], rows_high=bands[site]) for site in sorted(set(bands) & set(now))}
        gone = [f"{site}: did not come back" for site in sorted(set(bands) - set(now))]
        self.check_enough(len(participants), gone)
        if self.tables is not None:
            sessions = self.tables.sessions(list(participants))
            enrolment.check_rows(self, checkpoints.summaries_of(self.name, checkpoint.start), sessions)
        self.sums = exchange_keys(self, participants, participants, refused)
        return participants, replace(checkpoint, left=tuple(sorted(set(before) - set(participants))))

    def summarise(self, participants: Participants) -> dict[str, Summary]:
        """Return each site's sums over its training rows."""
        return enrolment.summarise(self, participants)

    def write_start(
        self, participants: Participants, encoder: Encoder, sums: Mapping[str, Summary]
    ) -> checkpoints.Checkpoint:
        """Write the start file and return the common checkpoint, without sums."""
        bands = {site: enrolled.rows_high for site, enrolled in participants.items()}
        return checkpoints.begin(self.name, encoder, sums, bands)

    def rounds(self, participants: Participants, common: checkpoints.Checkpoint) -> tuple[FedAvg, Arrays]:
        """Run the rounds, from the checkpoint where there is one; return the strategy and the final arrays."""
        return conduct_rounds(self, self.writer, participants, common, self.checkpoint)

    def compare(
        self, participants: Participants, outcome: Outcome, common: checkpoints.Checkpoint, strategy: FedAvg
    ) -> None:
        """Compare the models at every site; where ε covers the study, score the shared one by noised counts."""
        if self.study.covers_model:
            score_noised(self, participants, outcome.arrays, outcome.encoder)
            return
        comparison = Comparison(
            run=self,
            participants=participants,
            outcome=outcome,
            strategy=strategy,
            tables=self.tables,
            once=self.writer.once,
            scores=self.writer.scores,
        )
        comparison.conduct(common.start)
