"""Writing of a run's rounds, each checkpoint before its round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flfed.federation.recording.pooled_figures import overall_figures
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.study.kinds import most_rounds
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg

RunObserver = Callable[[str, int], None]
"""Told a stage of a round and its number: "checkpoint", "round", "evaluation"."""


RoundCallback = Callable[[Mapping[str, Any]], object]
"""Told the figures of each round; the run ends after it where what it returns is true."""


OF_SITE = "site:"
"""Before a site's name, in a checkpoint's states: the site's own arrays."""


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
    run : RunSetting
    parts : sequence of ServerPart
    observer : callable (stage, round)
    callback : callable (figures) or None
        Told the figures of each round.
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
        trained = record.summed and len(record.losses) >= strategy.needed(len(record.sampled_sites))
        protected = self.run.privacy.mechanism is not None  # without one there is nothing to count
        # A round that failed may be the last one, so the good one before it is written first: a resume begins there.
        if not trained and self._pending is not None:
            self._write(self._pending.round, self._pending.arrays, strategy, common)
        if protected:
            self.run.privacy.count_round(record, trained=trained)
        due = trained and self._is_due(record)
        self._pending = record if trained and not due else None
        if due:
            self._write(record.round, record.arrays, strategy, common)
        self._keep_evaluated(record)
        self.run.recorder.round(record, trained=trained, durable=due or not trained)
        if protected:
            self.run.privacy.goes_on(record, trained=trained)
        self.observer("round" if trained else "evaluation", record.round)
        return trained and self._ends_run(record)

    def _is_due(self, record: RoundRecord) -> bool:
        """Tell whether a round is to be a checkpoint."""
        return time.monotonic() >= self._due_at or record.round == self.last_round

    def _ends_run(self, record: RoundRecord) -> bool:
        """Tell the callback a round's figures, and return whether it ends the run."""
        if self.callback is None or not self.callback(self._figures(record)):
            return False
        if record.round < self.last_round:
            self.ended = f"its callback ended it after round {record.round} of {self.last_round}"
        return True

    def _keep_evaluated(self, record: RoundRecord) -> None:
        """Keep what the last evaluation tells of the last model."""
        if record.fit or self.last is None:
            return
        facts: dict[str, Any] = {}
        for part in self.parts:
            facts |= part.facts_of_last_model()
        if not facts:
            return
        self.last = replace(self.last, facts={**self.last.facts, **facts})
        checkpoints.write(self.run.name, self.last)

    def _figures(self, record: RoundRecord) -> dict[str, Any]:
        """Return the figures of a round, under the names that are recorded."""
        shared_as = self.run.recorder.shared_as
        return {
            "run": self.run.name,
            "round": record.round,
            "rounds": self.last_round,
            "scored-model": record.model_round,
            "all": {line.metric: line.value for line in overall_figures(record, shared_as)},
            "sites": {site: dict(scores.metrics) for site, scores in shared_as.own(record.scores).items()},
        }

    def begin(self, arrays: Arrays, strategy: FedAvg, common: Checkpoint) -> None:
        """Write a checkpoint from before the first round, `arrays` being the first model, where a part needs it."""
        if self.run.each_round and any(part.binds_encoder for part in self.parts):
            self._write(0, arrays, strategy, common)

    def _write(self, round: int, arrays: Arrays, strategy: FedAvg, common: Checkpoint) -> None:
        """Write the checkpoint of a round."""
        state, of_strategy = strategy.state()
        state = dict(state)
        # Where sites live and die with this process, what they keep for themselves is on its disk too.
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
        # Sites draw the system's noise once for a round: a resume that asked for an earlier one would be refused.
        each_round = self.run.each_round or self.run.privacy.draws_anew
        self._due_at = time.monotonic() + (0.0 if each_round else checkpoints.seconds_apart())
        self.observer("checkpoint", round)

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
            checkpoints.write(self.run.name, self.last)
        checkpoint_facts: dict[str, Any] = last.facts.get(name, facts)
        return checkpoint_facts
