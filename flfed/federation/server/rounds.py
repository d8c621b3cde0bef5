"""Rounds of a run: the strategy, its inputs and the first model; each checkpoint is written before its round."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flfed.callbacks import RoundCallback, RunObserver
from flfed.federation.recording.pooled_figures import overall_figures
from flfed.federation.recording.source_model import start_arrays
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.row_sums import SiteSums
from flfed.federation.server.run_setting import RunSetting
from flfed.seeds import noise_key
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import Observer, Participants, RoundRecord, RunContext, ignore
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import OF_SITE, Checkpoint
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record
from flfed.words import render


def conduct_rounds(
    run: RunSetting,
    parts: Sequence[ServerPart],
    writer: CheckpointWriter,
    participants: Participants,
    common: Checkpoint,
    after: Checkpoint | None,
) -> tuple[FedAvg, Arrays]:
    """Run and record the rounds, and return the strategy and the final arrays.

    Parameters
    ----------
    run : RunSetting
    parts : sequence of ServerPart
    writer : CheckpointWriter
    participants : mapping of site to Participant
    common : Checkpoint
        Shared by all checkpoints of the run.
    after : Checkpoint or None
        The checkpoint from which the run continues.
    """
    strategy: FedAvg = run.study.strategy.build("strategy")
    observer = partial(writer.observe, strategy=strategy, common=common)
    _assign(run, parts, strategy, participants, common.encoder, observer)
    if after is None:
        first = first_arrays(run, parts, common.encoder, participants)
    else:
        first = after.arrays
        _restore(run, parts, strategy, after)
    with run.privacy.during(participants):
        if after is None:
            writer.begin(first, strategy, common)
        return strategy, _train(run, strategy, first)


def rehearse_rounds(
    run: RunSetting, parts: Sequence[ServerPart], participants: Participants, encoder: Encoder
) -> tuple[FedAvg, Arrays]:
    """Run the rounds once more with another encoder, without a record."""
    strategy: FedAvg = run.study.strategy.build("strategy")
    _assign(run, parts, strategy, participants, encoder, None)
    return strategy, _train(run, strategy, first_arrays(run, parts, encoder, participants))


def site_sums(run: RunSetting, parts: Sequence[ServerPart]) -> SiteSums:
    """Return the sums over the sites' rows, as the server receives them."""
    sums = SiteSums(run)
    for part in parts:
        sums = part.row_sums(sums)
    return sums


def first_arrays(run: RunSetting, parts: Sequence[ServerPart], encoder: Encoder, participants: Participants) -> Arrays:
    """Return the arrays of a run's first round.

    Raises FlfedError where there are none.
    """
    for part in parts:
        arrays = part.first_arrays(participants, site_sums(run, parts))
        if arrays is not None:
            return arrays
    widths = [one.width for one in participants.values()]
    return start_arrays(run.study, run.schema, encoder, run.repeat, widths, series=run.recorder.series)


def _assign(
    run: RunSetting,
    parts: Sequence[ServerPart],
    strategy: FedAvg,
    participants: Participants,
    encoder: Encoder,
    observer: Observer | None,
) -> None:
    """Set the strategy's facts of the run.

    Without an observer the rounds are a rehearsal.
    """
    context = RunContext(
        participants=participants,
        encoder=encoder,
        plan=run.study.plan,
        rounds=run.study.rounds,
        seed=run.study.seed + run.repeat,
        observer=observer or ignore,
        mechanism=run.privacy.mechanism,
        chance=run.privacy.chance,
        study=noise_key(run.study.text),
    )
    for part in parts:
        context = part.context(context, is_recorded=observer is not None)
    strategy.clock = run.clock
    strategy.assign(context)


def _restore(run: RunSetting, parts: Sequence[ServerPart], strategy: FedAvg, after: Checkpoint) -> None:
    """Restore strategy, parts and sites as at a checkpoint, and note losses."""
    of_parts: set[str] = set()
    for part in parts:
        part.restore(after.facts, after.state)
        of_parts.update(part.state_names)
    of_strategy = {}
    of_sites = {}
    for name, arrays in after.state.items():
        if name.startswith(OF_SITE):
            of_sites[name.removeprefix(OF_SITE)] = arrays
        elif name not in of_parts:
            of_strategy[name] = arrays
    strategy.restore(after.round, of_strategy, after.facts["strategy"])
    # In one process the state is in the checkpoint; institutions have it on their own disks.
    restore = getattr(run.grid, "restore_states", None)
    if restore is not None:
        restore(after.round, of_sites)
    elif not getattr(run.grid, "sites_keep_state", False):
        lost = [sentence for part in parts if (sentence := part.lost_at_sites())]
        for sentence in lost[:1]:
            run.recorder.note(sentence)


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
    parts : sequence of ServerPart
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
    parts: Sequence[ServerPart]
    observer: RunObserver
    callback: RoundCallback | None
    began: float
    last: Checkpoint | None
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

    def observe(self, record: RoundRecord, strategy: FedAvg, common: Checkpoint) -> bool:
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
        facts: dict[str, Any] = {}
        state: dict[str, Arrays] = {}
        for part in self.parts:
            if of_last_model := part.facts_of_last_model():
                facts |= of_last_model
                state |= part.state()
        if not facts:
            return
        self.last = replace(self.last, facts={**self.last.facts, **facts}, state={**self.last.state, **state})
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

    def begin(self, arrays: Arrays, strategy: FedAvg, common: Checkpoint) -> None:
        """Write a checkpoint before the first round.

        It has the first model `arrays`, and is written where a part needs it.
        """
        if self.run.each_round and any(part.binds_encoder for part in self.parts):
            self._write(0, arrays, strategy, common)

    def _write(self, round: int, arrays: Arrays, strategy: FedAvg, common: Checkpoint) -> None:
        """Write the checkpoint of a round."""
        state, of_strategy = strategy.state()
        state = dict(state)
        # Where sites live in this process, their own state is on its disk, too.
        site_states = getattr(self.run.grid, "site_states", None)
        if site_states is not None:
            for site, own in site_states(round).items():
                state[f"{OF_SITE}{site}"] = own
        facts: dict[str, Any] = {
            "strategy": of_strategy,
            "seconds": self.seconds(),
            "privacy": self.run.privacy.facts(),
        }
        for part in self.parts:
            state |= part.state()
            facts |= part.facts()
        self.last = replace(common, round=round, arrays=arrays, state=state, facts=facts)
        checkpoints.write(self.run.name, self.last)
        if self.run.privacy.mechanism is not None:
            self.run.privacy.write()
        # Sites draw the system's noise once for a round: a resumed run that repeated an earlier one would be refused.
        each_round = self.run.each_round or self.run.privacy.draws_anew
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
