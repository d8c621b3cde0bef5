"""A run over different columns of the same people: the coordinator passes sealed parcels from party to party."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.comparison import record_replies
from flfed.federation.server.server import FederatedRun
from flfed.records.statistics.own_models import PARTIES
from flfed.study.kinds import MOST_PARTIES
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.aggregation.rounds import Participants, RoundRecord
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.vertical import (
    ALIGN,
    ANNOUNCE,
    ANSWER,
    BLIND,
    MATCH,
    PARTIAL,
    PRODUCTS,
    RESIDUALS,
    RUN,
    SCORE,
    SUMS,
    AlignReply,
    AlignRequest,
    PartialReply,
    PartialRequest,
    Party,
)
from flfed.words import usage_error

UNFIT_TABLES = ("identifier-missing", "identifier-twice", "overlap-small", "overlap-columns")
"""Codes of refusals that people mend in a table."""
Sealed = Mapping[str, Mapping[str, np.ndarray]]
"""Sealed parcels by receiver, then by sender."""
Reply = TypeVar("Reply", AlignReply, PartialReply)


def conduct_vertical(run: FederatedRun) -> Outcome:
    """Align the parties' rows, train, compare at the label party, and return the outcome.

    A resumed run asks everything once more: parties send the replies that they have stored.

    Raises
    ------
    UsageError
        If not just one party has the outcome, or the parties are too many.
    FlfedError
        If a party gives no usable reply.
    """
    participants, _ = run.enrol_cohort()
    parcels = _Parcels(run, participants)
    with run.privacy.during(participants):
        label = parcels.align()
        columns = [site for site in participants if site != label]
        rounds = run.study.rounds
        # In the exchanges after the last round the scores of the holdout cross.
        took = []
        for round in range(1, rounds + 2):
            began = run.writer.seconds()
            run.recorder.progress("rounds", round - 1, rounds + 1)
            run.recorder.after(min(round, rounds))
            parcels.exchange(round, SCORE, columns)
            parcels.exchange(round, RESIDUALS, [label])
            if round <= rounds:
                parcels.exchange(round, PRODUCTS, columns)
                parcels.exchange(round, SUMS, [label])
            took.append(run.writer.seconds() - began)
        run.recorder.progress("rounds", rounds + 1, rounds + 1)
        # All rounds at the end: a run that is interrupted asks everything once more.
        for round in range(1, rounds + 1):
            # No figure crosses in a round.
            record = RoundRecord(
                round=round,
                model_round=round - 1,
                arrays={},
                scores={},
                losses={},
                refused={},
                flagged={},
                sampled_sites=tuple(participants),
                bytes_to_site={},
                bytes_to_server={},
                seconds=took[round - 1],
            )
            run.recorder.round(record, trained=True)
        outcome = Outcome(
            status="completed",
            arrays={},
            encoder=run.schema_encoder(),
            rounds=rounds,
            best_round=rounds,
            sites=tuple(participants),
        )
        _write_parts(run, outcome)
        _compare(run, {label: participants[label]}, outcome)
    return Outcome(**{**vars(outcome), "seconds": run.writer.seconds()})


class _Parcels:
    """Parcels on their way, and the requests that bring them."""

    def __init__(self, run: FederatedRun, participants: Participants) -> None:
        self.run = run
        self.participants = participants
        self.waiting: dict[str, dict[str, np.ndarray]] = {}

    def align(self) -> str:
        """Align the rows, and return the label party's name."""
        parties = self._announced()
        label = next(party.site for party in parties if party.label)
        columns = [site for site in self.participants if site != label]
        for exchange, sites in ((BLIND, [label]), (ANSWER, columns), (MATCH, [label])):
            requests = {}
            for site in sites:
                parcels = self.waiting.pop(site, {})
                requests[site] = AlignRequest(exchange=exchange, parties=tuple(parties), sealed=parcels)
            self._deliver(self._ask(ALIGN, requests, sites, AlignReply))
        return label

    def _announced(self) -> list[Party]:
        """Return all parties, and record what each has; raises UsageError unless just one has the outcome."""
        announced = self._ask(ALIGN, AlignRequest(exchange=ANNOUNCE), list(self.participants), AlignReply)
        parties: list[Party] = []
        for site, reply in announced.items():
            parties += [party for party in reply.parties if party.site == site]
        labels = [party.site for party in parties if party.label]
        if len(labels) != 1 or len(parties) != len(self.participants):
            raise usage_error("run.vertical.labels", labels=", ".join(labels) or "none")
        if len(parties) > MOST_PARTIES:
            raise usage_error("run.vertical.parties", parties=len(parties), most=MOST_PARTIES)
        described = {}
        for one in parties:
            described[one.site] = {"label": one.label, "columns": one.columns, "people": one.identifiers}
        self.run.recorder.summary(PARTIES, described)
        return parties

    def exchange(self, round: int, exchange: int, sites: list[str]) -> None:
        """Bring waiting parcels to parties, and take their replies."""
        requests = {
            site: PartialRequest(round=round, exchange=exchange, sealed=self.waiting.pop(site, {})) for site in sites
        }
        self._deliver(self._ask(PARTIAL, requests, sites, PartialReply))

    def _ask(self, kind: str, request: Any, sites: list[str], of: type[Reply]) -> dict[str, Reply]:
        """Return the replies of all these parties.

        Raises
        ------
        UsageError
            If a party's table cannot be joined.
        FlfedError
            If a party gives no usable reply.
        """
        receivers = {site: self.participants[site] for site in sites}
        answers = self.run.ask(kind, request, receivers, of.from_record)
        for site, why in answers.faults.items():
            raise (UsageError if why.code in UNFIT_TABLES else FlfedError)(f"{site}: {why}")
        return answers.replies

    def _deliver(self, replies: Mapping[str, Reply]) -> None:
        for sender, reply in replies.items():
            for receiver, parcel in reply.sealed.items():
                self.waiting.setdefault(receiver, {})[sender] = parcel


def _write_parts(run: FederatedRun, outcome: Outcome) -> None:
    """Write the parties' parts of the model, where one process has them; institutions keep their own."""
    site_parts = getattr(run.grid, "site_parts", None)
    if site_parts is None:
        return
    state = {f"{checkpoints.OF_SITE}{site}": arrays for site, arrays in site_parts().items()}
    facts = {"schema": run.schema.model_dump(mode="json", by_alias=True, exclude_none=True)}
    final = checkpoints.Checkpoint(
        round=outcome.best_round, arrays={}, encoder=outcome.encoder, facts=facts, state=state
    )
    checkpoints.write(run.name, final, final=True)


def _compare(run: FederatedRun, label: Participants, outcome: Outcome) -> None:
    """Record the comparison of the joined model with the label party's own."""
    run.recorder.summary("looked-at", {"sites": 1})
    run.recorder.progress("compare", 0, 1)
    # Each run has another model, which stands at the parties: its name stands for it.
    named = np.frombuffer(hashlib.sha256(run.name.encode()).digest(), np.uint8)
    request = CompareRequest(arrays={RUN: named}, encoder=outcome.encoder, sites=1)
    answers = run.ask_checked(
        COMPARE, request, label, CompareReply.from_record, lambda site, reply: comparison_defect(reply)
    )
    record_replies(run, answers)
    run.recorder.progress("compare", 1, 1)
