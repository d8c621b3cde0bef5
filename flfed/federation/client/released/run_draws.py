"""Noise that each run has drawn at a site, by the site's ledger: a round once, an answer for one request."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from flfed.records.ledger.line import CARRIED, Line, Run, run_of
from flfed.refusals import Refusal
from flfed.summaries.noised_scores import SCORES

SPENT = "spent"
"""The kind of a ledger's line for what a round, or an answer, spends."""
UPDATE, COMPARISON, COUNTS = "train", "compare", "scores"
"""The kinds of lines for an update, a comparison, and noised counts that left."""
EDGES = "edges-sha256"
"""Key of a line for counts by class: the hash of their bins."""
ANSWER, REQUEST = "answer", "request-sha256"
"""Keys of a spent line: the name of a noised answer, and the hash of what the coordinator chose for it."""


@dataclass
class RunDraws:
    """Noise that one repeat of a run has drawn at a site.

    Attributes
    ----------
    charged : Counter of int
        How often each round was charged, by its number from 1.
    sent : set of int
        Rounds whose update left.
    ended : bool
        Whether the comparison, or the last noised scores, left or were charged.
    requests : dict of str to str
        Hash of the request that each noised answer was charged for, by the answer's name.
    """

    charged: Counter[int] = field(default_factory=Counter)
    sent: set[int] = field(default_factory=set)
    ended: bool = False
    requests: dict[str, str] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count one line more of this run."""
        facts = line.facts
        # Counts by class may have been charged in another run of the same text, and sent again in this one.
        scored = line.kind == COUNTS and EDGES in facts
        charged_scores = line.kind == SPENT and facts.get(ANSWER) == SCORES
        if line.kind == COMPARISON or scored or charged_scores:
            self.ended = True
        round = facts.get("round")
        # An answer is no round: its lines have the number 0.
        if type(round) is int and round > 0:
            if line.kind == SPENT:
                self.charged[round] += 1
            # Of a ledger that was lost a charge may have come over alone: its update may have left.
            if line.kind == UPDATE or CARRIED in facts:
                self.sent.add(round)
        if line.kind == SPENT and ANSWER in facts:
            self.requests.setdefault(str(facts[ANSWER]), str(facts.get(REQUEST, "")))

    def round_refusal(self, round: int) -> Refusal | None:
        """Return why a round may not be drawn, None where it may.

        Once more is allowed after a crash between a round's charge and its reply: its one charge is the newest of the
        run, and no update of it left.
        """
        if self.ended:
            return Refusal("training-ended")
        if not self.charged[round]:
            return None
        newest = round == max(self.charged)
        crashed = self.charged[round] == 1 and newest and round not in self.sent
        return None if crashed else Refusal("round-drawn", round=round)

    def answer_refusal(self, answer: str, request: str) -> Refusal | None:
        """Return why an answer may not be drawn for a request, None where it may."""
        drawn_for = self.requests.get(answer, request)
        return None if drawn_for == request else Refusal("answer-drawn")


class LedgerDraws:
    """Noise that all runs of a ledger have drawn, by its lines."""

    def __init__(self) -> None:
        self._runs: dict[Run, RunDraws] = defaultdict(RunDraws)

    def add(self, line: Line) -> None:
        """Count one line more."""
        if line.kind in (SPENT, UPDATE, COMPARISON, COUNTS):
            self._runs[run_of(line.facts)].add(line)

    def of(self, run: Run) -> RunDraws:
        """Return what one repeat of a run has drawn."""
        return self._runs[run]
