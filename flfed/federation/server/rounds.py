"""Rounds of a run: the strategy, its inputs and the first model; each checkpoint is written before its round."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flfed.callbacks import RoundCallback, RunObserver
from flfed.federation.recording.pooled_figures import overall_figures
from flfed.federation.recording.source_model import start_arrays
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.secure_sums import rehearse_keys
from flfed.federation.server.site_arrays import note_lost_arrays
from flfed.federation.server.trees import begin_forest
from flfed.rows.training.functional import outputs_of
from flfed.seeds import noise_key
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import Observer, Participants, RoundRecord, RunContext, ignore
from flfed.updates.aggregation.summer import BEFORE, TOTAL, Summer
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.codec import codec_of
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record
from flfed.words import render


def conduct_rounds(
    run: RunSetting,
    writer: CheckpointWriter,
    participants: Participants,
    common: checkpoints.Checkpoint,
    after: checkpoints.Checkpoint | None,
) -> tuple[FedAvg, Arrays]:
    """Run and record the rounds, and return the strategy and the final arrays.

    Parameters
    ----------
    run : RunSetting
    writer : CheckpointWriter
    participants : mapping of site to Participant
    common : Checkpoint
        Shared by all checkpoints of the run.
    after : Checkpoint or None
        The checkpoint from which the run continues.
    """
    strategy: FedAvg = run.study.strategy.build("strategy")
    observer = partial(writer.observe, strategy=strategy, common=common)
    _assign(run, strategy, participants, common.encoder, run.sums, observer)
    if after is None:
        first = first_arrays(run, common.encoder, participants)
    else:
        first = after.arrays
        _restore(run, strategy, after)
    with run.privacy.during(participants):
        if after is None:
            writer.begin(first, strategy, common)
        return strategy, _train(run, strategy, first)


def rehearse_rounds(run: RunSetting, participants: Participants, encoder: Encoder) -> tuple[FedAvg, Arrays]:
    """Run the rounds once more with another encoder, without a record."""
    strategy: FedAvg = run.study.strategy.build("strategy")
    _assign(run, strategy, participants, encoder, rehearse_keys(run, participants))
    return strategy, _train(run, strategy, first_arrays(run, encoder, participants))


def first_arrays(run: RunSetting, encoder: Encoder, participants: Participants) -> Arrays:
    """Return the arrays of a run's first round: cut points and no tree, an earlier model, or drawn numbers.

    Raises FlfedError where there are none.
    """
    if run.layout.plain:
        return begin_forest(run, participants)
    widths = [one.width for one in participants.values()]
    return start_arrays(run.study, run.schema, encoder, run.repeat, widths, series=run.recorder.series)


def _assign(
    run: RunSetting,
    strategy: FedAvg,
    participants: Participants,
    encoder: Encoder,
    sums: Summer | None,
    observer: Observer = ignore,
) -> None:
    """Set the strategy's facts of the run."""
    study = run.study
    outputs = outputs_of(run.schema.task, len(run.schema.classes)) if study.adjusts_intercept() else 0
    strategy.clock = run.clock
    strategy.assign(
        RunContext(
            participants=participants,
            encoder=encoder,
            plan=study.plan,
            rounds=study.rounds,
            seed=study.seed + run.repeat,
            observer=observer,
            mechanism=run.privacy.mechanism,
            chance=run.privacy.chance,
            study=noise_key(study.text),
            codec=codec_of(study),
            outputs=outputs,
            sums=sums,
            scored=not study.covers_model,
        )
    )


def _restore(run: RunSetting, strategy: FedAvg, after: checkpoints.Checkpoint) -> None:
    """Restore strategy, sums and sites as at a checkpoint, and note losses."""
    if run.sums is not None:
        run.sums.restore(after.facts, after.state)
    of_strategy = {}
    of_sites = {}
    for name, arrays in after.state.items():
        if name.startswith(checkpoints.OF_SITE):
            of_sites[name.removeprefix(checkpoints.OF_SITE)] = arrays
        elif name not in (BEFORE, TOTAL):
            of_strategy[name] = arrays
    strategy.restore(after.round, of_strategy, after.facts["strategy"])
    # In one process the state is in the checkpoint; institutions have it on their own disks.
    restore = getattr(run.grid, "restore_states", None)
    if restore is not None:
        restore(after.round, of_sites)
    elif not getattr(run.grid, "sites_keep_state", False):
        note_lost_arrays(run)


def _train(run: RunSetting, strategy: FedAvg, first: Arrays) -> Arrays:
    return to_arrays(strategy.start(run.grid, to_record(first), run.study.most_rounds).arrays)


# A round that is due:  1. its checkpoint on the disk, whole or not at all
#                       2. the round in the store, committed
#                       3. the call of the observer
#
# In this order, so that a run that is killed at any point continues from a round that both have. Rounds between two
# checkpoints are in the store only, and are computed again: with the same seeds, to the same bits.
@dataclass(eq=False, repr=False)
class CheckpointWriter:
    """Writer of a run's rounds and of the checkpoints among them.

    The first round, the last, the last good one before a stop, and one in every `checkpoints.seconds_apart` is a
    checkpoint. Each round is one where sites draw noise that cannot be drawn again.

    Attributes
    ----------
    run : RunSetting
    observer : callable (stage, round)
    callback : callable (figures) or None
        Receives the figures of each round.
    began : float
        When the run began, on its clock.
    last : Checkpoint or None
        The newest.
    scores : mapping of site to Scores
        Of the last round.
    ended : str
        Why no more rounds follow, where the callback ended the run.
    """

    run: RunSetting
    observer: RunObserver
    callback: RoundCallback | None
    began: float
    last: checkpoints.Checkpoint | None
    scores: Mapping[str, Scores] = field(default_factory=dict)
    ended: str = ""
    _pending: RoundRecord | None = None
    _due_at: float = 0.0

    @property
    def last_round(self) -> int:
        """The last round of the study."""
        return self.run.study.most_rounds

    def seconds(self) -> float:
        """Return the seconds that the run has taken."""
        return self.run.clock() - self.began

    def observe(self, record: RoundRecord, strategy: FedAvg, common: checkpoints.Checkpoint) -> bool:
        """Write a round, after its checkpoint where one is due.

        `common` is shared by all checkpoints of the run. Return whether the run ends after this round.
        """
        self.scores = record.scores
        trained = record.summed and len(record.losses) >= strategy.needed(len(record.sampled_sites))
        protected = self.run.privacy.mechanism is not None  # without a mechanism there is nothing to count
        # A round that failed may be the last one, so the good one before it is written first: a resume begins there.
        if not trained and self._pending is not None:
            self._write(self._pending.round, self._pending.arrays, strategy, common)
        if protected:
            self.run.privacy.count_round(record, trained=trained)
        due = trained and (time.monotonic() >= self._due_at or record.round == self.last_round)
        self._pending = record if trained and not due else None
        if due:
            self._write(record.round, record.arrays, strategy, common)
        self._keep_evaluated(record)
        self.run.recorder.round(record, trained=trained, durable=due or not trained)
        if protected:
            self.run.privacy.goes_on(record, trained=trained)
        self.observer("round" if trained else "evaluation", record.round)
        return trained and self._ends_run(record)

    def _ends_run(self, record: RoundRecord) -> bool:
        """Pass a round's figures to the callback, and return whether it ends the run."""
        if self.callback is None or not self.callback(self._figures(record)):
            return False
        if record.round < self.last_round:
            self.ended = render("run.stops.callback", round=record.round, rounds=self.last_round)
        return True

    def _keep_evaluated(self, record: RoundRecord) -> None:
        """Store the facts of the last evaluation about the last model."""
        if record.fit or self.last is None:
            return
        sums = self.run.sums
        # After the comparison the sites open no sum of these losses again.
        if sums is None or sums.check.evaluated is None:
            return
        facts, state = {**self.last.facts, **sums.facts()}, {**self.last.state, **sums.state()}
        self.last = replace(self.last, facts=facts, state=state)
        checkpoints.write(self.run.name, self.last)

    def _figures(self, record: RoundRecord) -> dict[str, Any]:
        """Return the figures of a round, under their recorded names."""
        return {
            "run": self.run.name,
            "round": record.round,
            "rounds": self.last_round,
            "scored-model": record.model_round,
            "all": {line.metric: line.value for line in overall_figures(record)},
            "sites": {site: dict(scores.metrics) for site, scores in record.scores.items()},
        }

    def begin(self, arrays: Arrays, strategy: FedAvg, common: checkpoints.Checkpoint) -> None:
        """Write a checkpoint before the first round.

        It has the first model `arrays`, and is written where masks are bound to its encoder: a second fit might give
        another.
        """
        if self.run.each_round and self.run.sums is not None:
            self._write(0, arrays, strategy, common)

    def _write(self, round: int, arrays: Arrays, strategy: FedAvg, common: checkpoints.Checkpoint) -> None:
        """Write the checkpoint of a round."""
        state, of_strategy = strategy.state()
        state = dict(state)
        # Where sites live in this process, their own state is on its disk, too.
        site_states = getattr(self.run.grid, "site_states", None)
        if site_states is not None:
            for site, own in site_states(round).items():
                state[f"{checkpoints.OF_SITE}{site}"] = own
        facts: dict[str, Any] = {
            "strategy": of_strategy,
            "seconds": self.seconds(),
            "privacy": self.run.privacy.facts(),
        }
        if self.run.sums is not None:
            state |= self.run.sums.state()
            facts |= self.run.sums.facts()
        self.last = replace(common, round=round, arrays=arrays, state=state, facts=facts)
        checkpoints.write(self.run.name, self.last)
        if self.run.privacy.mechanism is not None:
            self.run.privacy.write()
        # Sites draw the system's noise once for a round: a resumed run that repeated an earlier one would be refused.
        each_round = self.run.each_round or self.run.privacy.each_round
        self._due_at = time.monotonic() + (0.0 if each_round else checkpoints.seconds_apart())
        self.observer("checkpoint", round)

    def once(self, name: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Return facts as the sites may have received them.

        A site compares in one way in a run, and after a crash another set of sites may reply.
        """
        last = self.last
        if last is None:
            return facts
        # Written before they are sent: after a crash the sites receive the same again.
        if name not in last.facts and self.run.each_round:
            self.last = replace(last, facts={**last.facts, name: facts})
            checkpoints.write(self.run.name, self.last)
        return dict(last.facts.get(name, facts))
