"""Writing of a run's rounds, each checkpoint before its round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flfed.federation.recording.pooled_figures import overall_figures
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import render

RunObserver = Callable[[str, int], None]
"""Receives a stage of a round and its number: "checkpoint", "round", "evaluation"."""


RoundCallback = Callable[[Mapping[str, Any]], object]
"""Receives the figures of each round; the run ends after it where the return value is true."""


OF_SITE = "site:"
"""Prefix of a site's name in a checkpoint's states, for the site's own arrays."""


def no_observer(stage: str, round: int) -> None:
    """Ignore the stage."""


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
        """Return whether a round needs a checkpoint."""
        return time.monotonic() >= self._due_at or record.round == self.last_round

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
        for part in self.parts:
            facts |= part.facts_of_last_model()
        if not facts:
            return
        self.last = replace(self.last, facts={**self.last.facts, **facts})
        checkpoints.write(self.run.name, self.last)

    def _figures(self, record: RoundRecord) -> dict[str, Any]:
        """Return the figures of a round, under their recorded names."""
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
