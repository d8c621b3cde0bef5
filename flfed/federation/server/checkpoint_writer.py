"""Writing of a run's rounds, each checkpoint before its round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flfed.federation.recording.pooled_figures import overall_figures
from flfed.study.exchanges import most_rounds
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.aggregation.secure_sum import SecureSums
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flfed.federation.server.server import FederatedRun

RunObserver = Callable[[str, int], None]
"""Told a stage of a round and its number: "checkpoint", "round", "evaluation"."""


RoundCallback = Callable[[Mapping[str, Any]], object]
"""Told the figures of each round; the run ends after it where what it returns is true."""


OF_SITE = "site:"
"""Before a site's name, in a checkpoint's states: the site's own arrays."""
BEFORE = "sums-before"
"""What a checkpoint has of secure sums: the last model whose loss was right, and facts."""


def restored(checkpoint: Checkpoint, strategy: FedAvg, sums: SecureSums | None) -> dict[str, Arrays]:
    """Give strategy and sums what they had at a checkpoint; returns each site's own arrays, where they went with it."""
    state = checkpoint.state
    if sums is not None and (facts := checkpoint.facts.get(BEFORE)):
        sums.restore(facts, state.get(BEFORE, {}))
    of_strategy = {name: own for name, own in state.items() if not name.startswith((OF_SITE, BEFORE))}
    strategy.restore(checkpoint.round, of_strategy, checkpoint.facts["strategy"])
    return {name.removeprefix(OF_SITE): own for name, own in state.items() if name.startswith(OF_SITE)}


def no_observer(stage: str, round: int) -> None:
    """Ignore the stage."""


# A round that is due:  1. its checkpoint on the disk, whole or not at all
#                       2. the round in the store, committed
#                       3. the observer is told
#
# In this order, so that a run which is killed at any point goes on from a round that both have. Rounds between two
# checkpoints are in the store only, and are computed again: with the same seeds, to the same bits.
@dataclass(eq=False, repr=False)
class CheckpointWriter:
    """Writer of a run's rounds and of the checkpoints among them.

    The first round, the last, the last good one before a stop, and one in every `checkpoints.seconds_apart` is a
    checkpoint; each round is where sites draw noise that nobody can draw again.

    Attributes
    ----------
    run : FederatedRun
    began : float
        When the run began, on its clock.
    last : Checkpoint or None
        The newest.
    scores : mapping of site to Scores
        Of the last round.
    ended : str
        Why no more rounds follow, where the callback ended the run.
    """

    run: FederatedRun
    began: float
    last: Checkpoint | None
    scores: Mapping[str, Scores] = field(default_factory=dict)
    ended: str = ""
    _pending: RoundRecord | None = None
    _due_at: float = 0.0

    @property
    def last_round(self) -> int:
        """The last round that there may be."""
        return most_rounds(self.run.study)

    def seconds(self) -> float:
        """Return the seconds that the run has taken."""
        return self.run.clock() - self.began

    def observe(self, record: RoundRecord, strategy: FedAvg, common: Checkpoint) -> bool:
        """Write a round, after its checkpoint where one is due.

        `common` is what all checkpoints of the run share. Returns whether the run is to end after this round.
        """
        self.scores = record.scores
        trained = record.summed and len(record.losses) >= strategy.needed(len(record.asked))
        protected = self.run.privacy.mechanism is not None  # without one there is nothing to count
        # A round that failed may be the last one, so the good one before it is written first: a resume begins there.
        if not trained and self._pending is not None:
            self._write(self._pending.round, self._pending.arrays, strategy, common)
        if protected:
            self.run.privacy.asked(record, trained=trained)
        due = trained and (time.monotonic() >= self._due_at or record.round == self.last_round)
        self._pending = record if trained and not due else None
        if due:
            self._write(record.round, record.arrays, strategy, common)
        self._keep_evaluated(record)
        self.run.recorder.round(record, trained=trained, durable=due or not trained)
        if protected:
            self.run.privacy.goes_on(record, trained=trained)
        self.run.observer("round" if trained else "evaluation", record.round)
        ends = trained and self.run.callback is not None and bool(self.run.callback(self._figures(record)))
        if ends and record.round < self.last_round:
            self.ended = f"its callback ended it after round {record.round} of {self.last_round}"
        return ends

    def _keep_evaluated(self, record: RoundRecord) -> None:
        """Keep the losses of the last model: after the comparison the sites open no sum of them again."""
        sums, last = self.run.sums, self.last
        if record.fit or last is None or sums is None or sums.check.evaluated is None:
            return
        self.last = replace(last, facts={**last.facts, BEFORE: sums.facts()})
        checkpoints.write(self.run.recorder.writer.run, self.last)

    def _figures(self, record: RoundRecord) -> dict[str, Any]:
        """Return the figures of a round, under the names that are recorded."""
        shared_as = self.run.recorder.shared_as
        return {
            "run": self.run.recorder.writer.run,
            "round": record.round,
            "rounds": self.last_round,
            "scored-model": record.model_round,
            "all": {line.metric: line.value for line in overall_figures(record, shared_as)},
            "sites": {site: dict(scores.metrics) for site, scores in shared_as.own(record.scores).items()},
        }

    def begin(self, arrays: Arrays, strategy: FedAvg, common: Checkpoint) -> None:
        """Write a checkpoint from before the first round of a run with secure sums, `arrays` being the first model.

        Masks of the first round are bound to its encoder: one that is made anew after a crash might be another.
        """
        if self.run.sums is not None and self.run.each_round:
            self._write(0, arrays, strategy, common)

    def _write(self, round: int, arrays: Arrays, strategy: FedAvg, common: Checkpoint) -> None:
        """Write the checkpoint of a round."""
        state, facts = strategy.state()
        # Where sites live and die with this process, what they keep for themselves is on its disk too.
        if (site_states := getattr(self.run.grid, "site_states", None)) is not None:
            state = {**state, **{f"{OF_SITE}{site}": own for site, own in site_states(round).items()}}
        facts = {"strategy": facts, "seconds": self.seconds(), "privacy": self.run.privacy.facts()}
        if (sums := self.run.sums) is not None:
            state, facts = {**state, BEFORE: sums.check.before}, {**facts, BEFORE: sums.facts()}
        self.last = replace(common, round=round, arrays=arrays, state=state, facts=facts)
        checkpoints.write(self.run.recorder.writer.run, self.last)
        if self.run.privacy.mechanism is not None:
            self.run.privacy.write()
        # Sites draw the system's noise once for a round: a resume that asked for an earlier one would be refused.
        each_round = self.run.each_round or self.run.privacy.draws_anew
        self._due_at = time.monotonic() + (0.0 if each_round else checkpoints.seconds_apart())
        self.run.observer("checkpoint", round)

    def once(self, name: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Return facts as the sites may have heard them.

        A site compares in one way in a run, and after a crash another set of sites may answer.
        """
        last = self.last
        if last is None:
            return facts
        # Written before it is sent: after a crash the sites hear the same again.
        if name not in last.facts and self.run.each_round:
            self.last = replace(last, facts={**last.facts, name: facts})
            checkpoints.write(self.run.recorder.writer.run, self.last)
        found: dict[str, Any] = last.facts.get(name, facts)
        return found
