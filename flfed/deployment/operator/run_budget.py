"""What a run of a study would spend of a site's budget, for the person who decides about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flfed.deployment.gate.run_limits import RunLimits
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.comparisons import Compared, compared_models
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.account import shown, spent_at
from flfed.federation.client.protection import charge_of
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.data.site import Site
from flfed.study.request_hash import asks_sha256
from flfed.study.study import Study
from flfed.updates.messages.kinds import COMPARE, asks
from flfed.words import counted, render


def describe_study_budget(folder: SiteFolder, site: Site, study: Study, runs: int = 1) -> list[str]:
    """Return what so many runs of a study would spend of a site's privacy budget, and how many fit; nothing of none."""
    charge = charge_of(study)
    if charge is None:
        return []
    policy = site.policy
    spent = spent_at(folder)
    after = spent.epsilon(policy.delta, charge.releases, runs)
    facts = {"spent": shown(spent.epsilon(policy.delta)), "delta": policy.delta, "then": shown(after)}
    facts |= {"whole": f"{runs} runs", "makes": "make"} if runs > 1 else {"whole": "A run", "makes": "makes"}
    if charge.given_encoder and math.isfinite(after):
        facts["then"] = render("budget.run.given-encoder", epsilon=facts["then"])
    left = spent.runs_left(policy, charge.releases)
    if policy.epsilon is None or left is None:
        return [render("budget.run.without-budget", **facts)]
    fit = render("budget.run.none-fits") if not left else render("budget.run.fit", left=counted(left, "such run"))
    sentences = [render("budget.run.spent", budget=policy.epsilon, **facts), fit]
    if not policy.enforces_budget:
        sentences.append(render("budget.account.not-enforced"))
    return sentences


@dataclass(frozen=True)
class RunsLeft:
    """Runs that are left of all studies with one request.

    Attributes
    ----------
    left, most : int
    same : tuple of str
        Other studies with that request that are approved here, with the start of their hash.
    had_loss : bool
        Whether an earlier ledger was lost.
    """

    left: int
    most: int
    same: tuple[str, ...]
    had_loss: bool

    def paragraph(self) -> str:
        """Return the paragraph on runs."""
        lost = render("budget.run.lost") if self.had_loss else ""
        counts = {"left": self.left, "most": self.most, "lost": lost}
        if self.same:
            return render("budget.run.runs-together", studies=", ".join(self.same), **counts)
        return render("budget.run.runs", **counts)


def runs_left(folder: SiteFolder, site: Site, study: Study) -> RunsLeft:
    """Return how many runs are left of all studies with the same request, and which of them are approved here."""
    most = site.policy.runs
    request_hash = asks_sha256(study.text)
    ledger = ledger_of(folder)
    with ledger.reading() as ledger_file:
        had = (
            0
            if ledger_file is None
            else len(RunLimits(most, site.policy.alignments).runs(ledger_file, study.sha256(), request_hash))
        )
    same = []
    for one in approvals(folder):
        is_other = one.decision == "approved" and one.study_sha256 != study.sha256()
        if is_other and _request_hash(one.text) == request_hash:
            same.append(f"{one.study} ({one.study_sha256[:12]})")
    return RunsLeft(max(most - had, 0), most, tuple(same), bool(ledger.loss_before()))


def check_counted(site: Site, study: Study) -> None:
    """Raise where a site counts no comparisons of a study, so that a person can add none."""
    if site.policy.is_open:
        raise UsageError(f"--compared adds nothing: the policy of {site.name} is 'open', which counts no comparisons")
    if not asks(study, COMPARE):
        raise UsageError(f"--compared adds nothing: study {study.name!r} compares no models")


def counted_comparisons(folder: SiteFolder, site: Site, study: Study) -> Compared | None:
    """Return the models of a study's dataset whose figures were released; None where the site counts none."""
    if site.policy.is_open or not site.has_outcome or not asks(study, COMPARE):
        return None
    return compared_models(folder, site.policy, study.dataset.name)


def describe_comparisons(limit: Compared | None, site: Site, dataset: str, added: int = 0) -> list[str]:
    """Return how many comparisons of a dataset are left, and what they may reveal; nothing where none is counted.

    Parameters
    ----------
    limit : Compared or None
        Of `counted_comparisons`.
    site : Site
    dataset : str
    added : int
        How many this approval adds.
    """
    if limit is None:
        return []
    adds = render("budget.run.added", added=added) if added else ""
    anew = ""
    if not limit.left:
        anew = f" {render('budget.comparisons.anew')}"
    facts = {"dataset": dataset, "left": limit.left, "most": limit.most, "added": adds}
    return [render("budget.run.comparisons", anew=anew, reveals=render("budget.comparisons.reveals"), **facts)]


def _request_hash(text: str) -> str:
    try:
        return asks_sha256(text)
    except FlfedError:  # a text that this version cannot read is not answered either
        return ""
