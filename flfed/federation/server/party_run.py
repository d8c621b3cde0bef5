"""A run over different columns of the same people, from enrolment to record; `flfed.vertical` has its exchanges."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.comparison import record_replies
from flfed.federation.server.server import FederatedRun
from flfed.records.statistics.own_models import PARTIES
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.aggregation.rounds import Participants, RoundRecord
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.vertical import RUN
from flfed.vertical.coordinator import Parcels

UNFIT_TABLES = ("identifier-missing", "identifier-twice", "overlap-small", "overlap-columns")
"""Codes of refusals that people mend in a table."""


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

    def ask(kind: str, requests: Mapping[str, Any], reply: type[Any]) -> Mapping[str, Any]:
        answers = run.ask(kind, requests, {site: participants[site] for site in requests}, reply.from_record)
        for site, why in answers.faults.items():
            raise (UsageError if why.code in UNFIT_TABLES else FlfedError)(f"{site}: {why}")
        return answers.replies

    rounds = run.study.rounds
    outcome = Outcome(
        status="completed", arrays={}, encoder=run.schema_encoder(), rounds=rounds, best_round=rounds,
        sites=tuple(participants),
    )  # fmt: skip
    with run.privacy.during(participants):
        parcels = Parcels(ask, participants)
        described = {}
        for party in parcels.parties:
            described[party.site] = {"label": party.label, "columns": party.columns, "people": party.identifiers}
        run.recorder.summary(PARTIES, described)
        parcels.align()
        run.privacy.answered([parcels.label], rounds)
        seconds = []
        for round in range(1, rounds + 2):
            began = run.writer.seconds()
            run.recorder.progress("rounds", round - 1, rounds + 1)
            run.recorder.after(min(round, rounds))
            parcels.train(round, last=round > rounds)
            seconds.append(run.writer.seconds() - began)
        run.recorder.progress("rounds", rounds + 1, rounds + 1)
        # All rounds at the end: a run that is interrupted asks everything once more.
        for round in range(1, rounds + 1):
            # No figure crosses in a round.
            record = RoundRecord(
                round=round, model_round=round - 1, arrays={}, scores={}, losses={}, refused={}, flagged={},
                sampled_sites=tuple(participants), bytes_to_site={}, bytes_to_server={}, seconds=seconds[round - 1],
            )  # fmt: skip
            run.recorder.round(record, trained=True)
        _write_parts(run, outcome)
        _compare(run, {parcels.label: participants[parcels.label]}, outcome)
    return replace(outcome, seconds=run.writer.seconds())


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
