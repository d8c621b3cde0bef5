"""Secure sums at the server: whether a run has them, and the keys of its sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp import Grid

from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.fan_out import ask, deadline_of, log_bytes, nodes_of
from flfed.refusals import Refusal
from flfed.study.study import Study
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.aggregation.secure_sum import SecureSums, SumStore
from flfed.updates.checkpoints.sum_file import SumFile
from flfed.updates.masking.rules import LEAST, lifted_sites
from flfed.updates.masking.statement import read
from flfed.updates.messages.secure_sum import KEYS, KeysReply, KeysRequest

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
    lifted = lifted_sites({site: one[0].lifted for site, one in stated.items() if not isinstance(one, Refusal)})
    return SecureSums(
        cohort=sites,
        least=least,
        lifted=dict.fromkeys(sites, lifted),
        largest_entry=study.largest_entry,
        masked=deployed,
        store=SumFile(run) if deployed else SumStore(),
    )
