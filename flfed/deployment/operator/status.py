"""Status of a site.

It says whether the site has joined or is paused, which approvals still hold, which rows are frozen, and what left last.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Any

from flfed.callbacks import today_utc
from flfed.deployment.bundle import bundle_sha256
from flfed.deployment.gate.study_policy import StudyAdmission
from flfed.deployment.operator.join import joined
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.approval import Approval
from flfed.deployment.site_state.comparisons import comparisons_left
from flfed.deployment.site_state.freeze import list_changed
from flfed.deployment.site_state.ledger_loss import ahead, loss
from flfed.deployment.site_state.trusted_files import open_folder, own_fingerprint, read_terms
from flfed.errors import FlfedError, count_in_words
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import Line
from flfed.refusals import Refusal
from flfed.registry import kebab_keys
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot


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
    status : dict with site, joined, paused, gate-key, policy, frozen, comparisons, studies, last, problems
        `joined` says with whom, or is an empty text; `gate-key` is the fingerprint of its gate, empty where it has
        no key; each of `studies` has the `reason` for which it
        would not be answered now, or an empty text. What cannot be read is among `problems`.
    """
    # What cannot be read becomes a problem beside the rest: a status must always be shown.
    lost = _lost(folder)
    blocked = open_folder(folder) or lost
    problems = [blocked] if blocked else []
    found: dict[str, Any] = {"site": site.name, "joined": _joined(folder), "paused": approval.is_paused(folder)}
    found["gate-key"] = _gate_key(folder, problems)
    policy = site.policy
    found["policy"] = policy.model_dump(mode="json", by_alias=True) | {"least-cohort": policy.least_cohort()}
    found["frozen"] = _frozen(folder, site, problems)
    found["comparisons"] = [] if lost else _comparisons(folder, site, problems)
    found["studies"] = _studies(folder, site, blocked, problems)
    found["last"] = _lines(folder, last, problems)
    return {**found, "problems": list(dict.fromkeys(problems))}


def facts_of(decided: Approval) -> dict[str, Any]:
    """Return a decision for JSON, without the study's text."""
    facts = kebab_keys(asdict(decided))
    facts.pop("text")
    for key, value in facts.items():
        if isinstance(value, tuple):
            facts[key] = list(value)
    return facts


def _joined(folder: SiteFolder) -> str:
    """Return with whom the site has joined.

    The user with the data sees only what the shared terms say of it.
    """
    try:
        kit = joined(folder)
    except FlfedError:
        # `join.toml` is the network user's alone; the terms are for both.
        try:
            kit = read_terms(folder)
        except FlfedError:
            return ""
    where = f" at {kit['address']}" if "address" in kit else ""
    return f"joined {kit.get('coordinator', 'a coordinator')}{where}"


def _gate_key(folder: SiteFolder, problems: list[str]) -> str:
    try:
        return own_fingerprint(folder)
    except FlfedError as error:
        problems.append(str(error))
        return ""


def _frozen(folder: SiteFolder, site: Site, problems: list[str]) -> list[dict[str, Any]]:
    found = []
    for dataset in site.datasets:
        try:
            facts = snapshot.known(site.serving(dataset), folder.frozen)
            if facts is not None:
                list_changed(folder, facts)  # it raises where the list of those who opted out cannot be read
        except FlfedError as error:
            problems.append(str(error))
            continue
        if facts is not None:
            resting = facts.resting.persons if facts.resting else 0
            shown = {"dataset": dataset, "rows": facts.rows, "at": facts.at, "sha256": facts.sha256}
            found.append({**shown, "resting": count_in_words(resting)})
    return found


def _comparisons(folder: SiteFolder, site: Site, problems: list[str]) -> list[dict[str, Any]]:
    try:
        return comparisons_left(folder, site)
    except FlfedError as error:
        problems.append(str(error))
        return []


def _lost(folder: SiteFolder) -> str:
    """Return what the site says of a ledger that is lost or cut; an empty text where it is not, or cannot be read."""
    try:
        return Refusal("ledger-lost", site=folder.site) if loss(folder, ledger_of(folder)) else ""
    except FlfedError:
        return ""  # told where its lines are read


def _studies(folder: SiteFolder, site: Site, blocked: str, problems: list[str]) -> list[dict[str, Any]]:
    """Return the decisions, and what the gate would answer.

    `reason` says why it would not answer now; where it answers nothing at all, that is `blocked`.
    """
    try:
        decided = approval.approvals(folder)
    except FlfedError as error:
        problems.append(str(error))
        return []
    # What the gate asks is asked, so that the status cannot differ from what it does.
    admission = StudyAdmission(folder, site, today=today_utc, expected_bundle=bundle_sha256())
    return [{**facts_of(one), "reason": admission.standing(one) or blocked} for one in decided]


def _lines(folder: SiteFolder, last: int, problems: list[str]) -> list[dict[str, Any]]:
    """Return the ledger's last lines, the latest first.

    The ledger is neither made nor opened to write.
    """
    ledger = ledger_of(folder)
    problems.extend(ledger.open_to_others())
    try:
        if (newest := ledger.last()) is not None and ledger.is_ahead(newest):
            problems.append(ahead(newest, folder.site))
        # Read from its end, so that a long ledger costs no more.
        with ledger.reading() as found:
            return [] if found is None else [_shown(line) for line in islice(found.backwards(), last)]
    except FlfedError as error:
        problems.append(str(error))
        return []


def _shown(line: Line) -> dict[str, Any]:
    keys = ("study", "run", "round", "bytes", "reason")
    return {"n": line.n, "at": line.at, "kind": line.kind, **{key: line.facts.get(key, "") for key in keys}}
