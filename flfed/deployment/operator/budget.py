"""Privacy account of a site, for people: what each run spent, what is left, and what was charged to no budget."""

from __future__ import annotations

import math
from typing import Any

from flfed.federation.client.account import Spent, shown
from flfed.records.ledger import Ledger
from flfed.records.ledger_line import Total, bytes_of
from flfed.rows.data.site import Site
from flfed.updates.accounting import epsilon
from flfed.updates.messages.kinds import TRAIN
from flfed.words import counted, render


def budget_as_json(site: Site, spent: Spent, ledger: Ledger) -> dict[str, Any]:
    """Return a site's privacy account as JSON, with what left without noise by the ledger."""
    policy = site.policy
    whole = spent.epsilon(policy.delta)
    runs = []
    for charge in spent.charges:
        of_run = epsilon(charge.releases, policy.delta)
        texts = {"study": charge.study, "study-sha256": charge.study_sha256, "run": charge.run, "repeat": charge.repeat}
        of_whom = {"dataset": charge.dataset, "unit": charge.unit, "excludes-encoder": charge.given_encoder}
        releases = [vars(release) for release in charge.releases]
        runs.append({**texts, **of_whom, "at": charge.at, "releases": releases, "epsilon": _finite(of_run)})
    return {
        "site": site.name,
        "enforced": policy.enforces_budget,
        "budget": policy.epsilon,
        "delta": policy.delta,
        "spent": _finite(whole),
        "remaining": None if policy.epsilon is None else max(0.0, policy.epsilon - whole),
        "restarted": spent.restarted or None,
        "spent-before-restart": _finite(spent.before),
        "runs": runs,
        **_without_noise(ledger),
    }


def _without_noise(ledger: Ledger) -> dict[str, Any]:
    """Return what left without a charge: updates, each once, and bytes by kind of message."""
    updates = set[tuple[str, ...]]()
    kinds: dict[str, Total] = {}
    for line in ledger.lines():
        charged = line.facts.get("charged-bytes", 0)
        if line.kind == TRAIN and not charged:
            updates.add(tuple(line.text(key) for key in ("run", "round", "sha256")))
        if bytes_of(line) > charged:
            total = kinds.setdefault(line.kind, Total())
            total.lines += 1
            total.bytes += bytes_of(line) - charged
    uncharged = [{"kind": kind, "lines": of.lines, "bytes": of.bytes} for kind, of in sorted(kinds.items())]
    return {"unprotected-updates": len(updates), "uncharged": uncharged}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def shown_or(beyond: str, value: float | None) -> str:
    """Return an ε for people, or other words where no number bounds it."""
    return beyond if value is None else shown(value)


def describe_account(account: dict[str, Any]) -> str:
    """Return the sentences about a site's account.

    Examples
    --------
    >>> account = {"site": "bern", "budget": 3.0, "spent": 1.2, "delta": 1e-5, "enforced": True, "runs": [{}]}
    >>> describe_account(account | {"unprotected-updates": 0})
    'bern: epsilon 1.2 of 3 is spent at delta 1e-05, by 1 run.'
    >>> print(describe_account(account | {"budget": None, "runs": [], "unprotected-updates": 2}))
    bern: epsilon 1.2 is spent at delta 1e-05. The policy sets no budget. 2 updates left without noise, so no epsilon \
bounds what all of them reveal.
    """
    runs = len(account["runs"])
    by = render("budget.account.by-runs", runs=counted(runs, "run")) if runs else ""
    facts = {"site": account["site"], "spent": shown_or(render("budget.account.unbounded"), account["spent"])}
    key = "spent-without-budget" if account["budget"] is None else "spent"
    sentences = [render(f"budget.account.{key}", budget=account["budget"], delta=account["delta"], runs=by, **facts)]
    if updates := account["unprotected-updates"]:
        sentences.append(render("budget.account.unprotected", updates=counted(updates, "update")))
    if account["budget"] is not None and not account["enforced"]:
        sentences.append(render("budget.account.not-enforced"))
    return " ".join(sentences)
