"""Status of a site.

It says whether the site has joined or is paused, which approvals still hold, which rows are frozen, and what left last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from flfed.deployment.flower.transport import describe_clock
from flfed.deployment.gate.study_policy import StudyAdmission
from flfed.deployment.operator.join import joined
from flfed.deployment.operator.outbound_proxy import read_proxy
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.freeze import describe_frozen
from flfed.deployment.site_state.ledger_restart import blocking_refusal
from flfed.deployment.site_state.runs import read_runs
from flfed.deployment.site_state.trusted_files import gate_work, open_folder, own_fingerprint, read_terms
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.data.site import Site


def status_of(folder: SiteFolder, site: Site, *, last: int = 5) -> dict[str, Any]:
    """Return the status of a site, for JSON.

    No row is read, and no connection is opened.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
    last : int
        Lines of the ledger to show, the latest first.

    Returns
    -------
    status : dict with site, joined, proxy, paused, gate, clock, gate-key, policy, snapshots, \
runs, studies, last, problems
        `joined` says with whom, or is an empty text; `proxy` is the outbound proxy's URL without its password, or an
        empty text; `gate` is what the gate has not done, such as to answer a request, and for how many seconds;
        `clock` says that this machine's is off, or is an empty text; `gate-key` is the fingerprint of its gate, empty
        where it has no key; each of `studies` has the `reason` for which it would not be answered now, or an empty
        text. What cannot be read is among `problems`.
    """
    # What cannot be read becomes a problem beside the rest: a status must always be shown.
    lost = ""
    with suppress(FlfedError):  # told where its lines are read
        lost = blocking_refusal(folder) or ""
    writable = open_folder(folder)
    blocked = writable or lost
    problems = [writable]
    policy = site.policy
    facts: dict[str, Any] = {
        "site": site.name,
        "joined": _joined(folder),
        "proxy": "",
        "paused": approval.is_paused(folder),
        "gate": dict(zip(("undone", "seconds"), gate_work(folder), strict=True)),
        "clock": "",
        "gate-key": "",
        "policy": policy.model_dump(mode="json", by_alias=True) | {"least-cohort": policy.least_cohort()},
        "snapshots": [],
        "runs": [],
        "studies": [],
        "last": [],
    }
    problems.append(lost)
    with _noted(problems):
        if (proxy := read_proxy(folder)) is not None:
            facts["proxy"] = proxy.url
    with suppress(OSError, ValueError):
        facts["clock"] = describe_clock(float(folder.clock.read_text()))
    with _noted(problems):
        facts["gate-key"] = own_fingerprint(folder)
    for dataset in site.datasets:
        with _noted(problems):
            facts["snapshots"] += describe_frozen(folder, site.serving(dataset))
    with _noted(problems):
        if not lost:
            for runs in (read_runs(folder, policy, dataset) for dataset in site.datasets):
                facts["runs"].append({"dataset": runs.dataset, "remaining": runs.left, "most": runs.most})
    with _noted(problems):
        # What the gate asks is asked, so that the status cannot differ from what it does.
        admission = StudyAdmission(folder, site)
        for one in approval.approvals(folder):
            facts["studies"].append({**one.facts(), "reason": admission.standing(one) or blocked})
    problems += ledger_of(folder).open_to_others()
    with _noted(problems):
        facts["last"] = _lines(folder, last)
    return {**facts, "problems": list(dict.fromkeys(filter(None, problems)))}


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Turn an error into a problem beside the rest."""
    try:
        yield
    except FlfedError as error:
        problems.append(str(error))


def _joined(folder: SiteFolder) -> str:
    """Return with whom the site has joined.

    An empty text where it has not, or the rest cannot be read.
    """
    # `join.toml` is the network user's alone; the terms are for both.
    for read in (joined, read_terms):
        with suppress(FlfedError):
            kit = read(folder)
            where = f" at {kit['address']}" if "address" in kit else ""
            return f"joined {kit.get('coordinator', 'a coordinator')}{where}"
    return ""


def _lines(folder: SiteFolder, last: int) -> list[dict[str, Any]]:
    """Return the ledger's last lines, the latest first."""
    entries = []
    # Read from its end, so that a long ledger costs no more.
    with ledger_of(folder).reading() as ledger_file:
        for line in islice(ledger_file.backwards(), last):
            facts = {key: line.facts.get(key, "") for key in ("study", "run", "round", "bytes", "reason")}
            entries.append({"n": line.n, "at": line.at, "kind": line.kind, **facts})
    return entries
