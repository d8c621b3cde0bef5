"""Secure sums at the server: whether a run has them, and the keys of its sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.serverapp import Grid

from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.fan_out import ask, deadline_of, log_bytes, nodes_of
from flfed.refusals import Refusal
from flfed.study.study import Study
from flfed.summaries.summary import Layout, Summary
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.aggregation.secure_sum import SecureSums, SumStore, Unsummed
from flfed.updates.checkpoints.sum_file import SumFile
from flfed.updates.codec import entries_of, unflattened
from flfed.updates.masking.ring import ring_of_counts
from flfed.updates.masking.rules import LEAST, lifted_sites
from flfed.updates.masking.statement import read
from flfed.updates.messages.in_memory import Crossing
from flfed.updates.messages.secure_sum import KEYS, KeysReply, KeysRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest

Reply = TypeVar("Reply", bound=Crossing)

REHEARSED = (
    "secure aggregation was rehearsed: updates were rounded and summed as under masks, but one process held all of "
    "them, and there were neither masks nor lists"
)


def sums_of(
    grid: Grid,
    study: Study,
    participants: Mapping[str, Participant],
    recorder: Recorder,
    *,
    deployed: bool,
    run: str,
    repeat: int,
) -> SecureSums | None:
    """Return a run's secure sums once its sites have each other's keys, None where it has none.

    Parameters
    ----------
    grid : Grid
    study : Study
    participants : mapping of site to Participant
        Who enrolled at the start.
    recorder : Recorder
    deployed : bool
        Whether sites are institutions, of which each decided by its approval.
    run : str
    repeat : int

    Raises
    ------
    UsageError, FlfedError
        If there are too few sites for sums, some approved plain updates, or a site does not take the keys.
    """
    if study.secure_aggregation == "off":
        return None
    sites = tuple(sorted(participants))
    signed = {site: one.statement for site, one in participants.items() if one.statement}
    if not deployed:
        if study.secure_aggregation == "auto":
            return None
    elif not signed and study.secure_aggregation == "auto":
        return None
    elif plain := sorted(set(sites) - set(signed)):
        raise UsageError(
            f"{', '.join(plain)} did not approve sums under keys for this study, the other sites did: its updates may "
            "not cross beside sums; let the site approve again with the keys of the others (flfed site approve --with)"
        )
    if len(sites) < LEAST:
        raise UsageError(f"[privacy]: secure aggregation needs {LEAST} sites, and {len(sites)} take part")
    most_rows = max(one.rows_high for one in participants.values())
    request = KeysRequest(
        cohort=",".join(sites), most_rows=most_rows, statements=tuple(signed[site] for site in sites if site in signed)
    )
    answers = ask(grid, KEYS, request, nodes_of(participants), KeysReply.from_record, timeout=deadline_of(study))
    log_bytes(recorder, KEYS, answers)
    recorder.events("fault", answers.faults)
    if answers.faults:
        whys = "; ".join(f"{site}: {why}" for site, why in answers.faults.items())
        raise FlfedError(recorder.shared_as.text(f"the sites of the run do not all have each other's keys ({whys})"))
    told = {(reply.sha256, reply.least) for reply in answers.replies.values()}
    if len(told) != 1:
        raise FlfedError("the sites of the run do not have the same keys of each other; begin it anew")
    if not deployed:
        recorder.note(REHEARSED)
    _, least = told.pop()
    here: dict[str, Any] = {"study_sha256": study.sha256(), "run": run, "repeat": repeat}
    stated = {site: read(packed, **here) for site, packed in signed.items()}
    read_all = {site: one[0] for site, one in stated.items() if not isinstance(one, Refusal)}
    lifted = lifted_sites({site: one.lifted for site, one in read_all.items()})
    reserved = [site for site, one in read_all.items() if one.share_metrics == "aggregate-only"]
    return SecureSums(
        cohort=sites,
        least=least,
        lifted=dict.fromkeys(sites, lifted),
        largest_entry=study.largest_entry,
        most_rows=most_rows,
        in_sums_only=frozenset(reserved),
        masked=deployed,
        store=SumFile(run) if deployed else SumStore(),
    )


@dataclass(frozen=True, eq=False)
class SummaryExchange:
    """The exchange of the sums over training rows, as far as their sum asks further questions.

    Attributes
    ----------
    grid : Grid
    participants : mapping of site to Participant
    recorder : Recorder
    timeout : float, seconds
    """

    grid: Grid
    participants: Mapping[str, Participant]
    recorder: Recorder
    timeout: float
    kind: str = SUMMARISE
    number: int = 0

    def ask(self, kind: str, requests: Mapping[str, Crossing], read: type[Reply]) -> dict[str, Reply]:
        """Ask some sites, and return the replies that came and can be read."""
        nodes = {site: node for site, node in nodes_of(self.participants).items() if site in requests}
        answers = ask(self.grid, kind, requests, nodes, read.from_record, timeout=self.timeout)
        log_bytes(self.recorder, kind, answers)
        self.recorder.events("fault", answers.faults)
        return answers.replies


def summed_summary(sums: SecureSums, exchange: SummaryExchange, layout: Layout) -> Summary:
    """Return the sums over the training rows of all sites of a list, of which no site's cross by themselves.

    Raises
    ------
    FlfedError
        If there is no such sum.
    """
    requests = dict.fromkeys(exchange.participants, SummariseRequest())
    replies = exchange.ask(SUMMARISE, requests, SummariseReply)
    shapes = {name: (shape, np.dtype(np.float64)) for name, shape in layout.shapes().items()}
    entries, cohort = entries_of(shapes), len(sums.cohort)
    vectors = {
        site: reply.masked
        for site, reply in replies.items()
        if reply.masked is not None
        and (reply.masked.vector.shape, reply.masked.sums.shape, len(reply.masked.shares))
        == ((0,), (1 + entries,), cohort)
    }
    try:
        totals = sums.totals(exchange, vectors)
    except Unsummed as error:
        why = exchange.recorder.shared_as.text(str(error.why))
        raise FlfedError(f"there is no sum over the training rows of the sites ({why})") from None
    values = unflattened(ring_of_counts(cohort, sums.most_rows).decode(totals.sums), shapes)
    return Summary(**values)
