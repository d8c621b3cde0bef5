"""What a run of a study would spend of a site's budget, for the person who decides about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flfed.deployment.gate.run_limits import RunLimits
from flfed.deployment.operator.budget import Account, Accounts, describe_shared
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.comparisons import Compared, compared_models
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.privacy_budget import epsilon_forgotten, shown
from flfed.federation.client.protection import LocalProtection, charge_of, excludes_encoder, run_charges
from flfed.federation.client.released.accounts import BOTH, Side, holdout_hash, names_now
from flfed.federation.client.statistic import answered
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.records.site_state import SiteState
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.study.request_hash import asks_sha256
from flfed.study.study import Study
from flfed.updates.accounting import Release
from flfed.updates.messages.kinds import COMPARE, STATISTIC, asks
from flfed.words import render


def describe_study_budget(folder: SiteFolder, site: Site, study: Study) -> list[str]:
    """Return what a run of a study would spend of the privacy of a site's rows; nothing where it spends none."""
    charge = charge_of(study)
    if charge is None:
        return []
    ledger = ledger_of(folder)
    serving = site.serving(study.dataset.name)
    free = _answered(folder, serving, study, ledger)
    if STATISTIC in free:
        return [render("budget.run.answered")]
    charges = [charged for name, charged in run_charges(study, serving).items() if name not in free]
    if not study.is_covered:
        charges = []
    sentences = describe_run_budget(
        site,
        ledger,
        study.dataset.name,
        charge.release,
        study.rounds,
        unit=charge.unit,
        excludes_encoder=excludes_encoder(study),
        whole=charges,
        rule=holdout_hash(serving, snapshot.read_facts(serving, folder.frozen)),
    )
    if free:
        sentences.append(render("budget.run.reused"))
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
        Whether an earlier ledger was lost, and this one begun anew.
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
        had = len(RunLimits(most, site.policy.alignments).runs(ledger_file, study.sha256(), request_hash))
    same = []
    for one in approvals(folder):
        is_other = one.decision == "approved" and one.study_sha256 != study.sha256()
        if is_other and _request_hash(one.text) == request_hash:
            same.append(f"{one.study} ({one.study_sha256[:12]})")
    return RunsLeft(max(most - had, 0), most, tuple(same), SiteState(folder.state).restarted() is not None)


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


def _answered(folder: SiteFolder, serving: Site, study: Study, ledger: Ledger) -> tuple[str, ...]:
    """Return the names of the answers that the site has given already over the rows of its snapshot."""
    if not study.is_covered or snapshot.read_facts(serving, folder.frozen) is None:
        return ()
    frozen = snapshot.load(serving, folder.frozen).with_withheld()
    protection = LocalProtection(ledger_of=lambda _: ledger)(frozen, study, 0, "")
    return answered(SiteSession(frozen, study, protection=protection))


def describe_run_budget(
    site: Site,
    ledger: Ledger,
    dataset: str,
    release: Release,
    rounds: int,
    *,
    unit: str = "person",
    excludes_encoder: bool = False,
    whole: Sequence[tuple[Side, Release]] = (),
    rule: str = "",
) -> list[str]:
    """Return what a run would spend of the budget, beside what is spent already, a sentence each.

    Parameters
    ----------
    site : Site
    ledger : Ledger
        Not made where there is none.
    dataset : str
    release : Release
        Of one round.
    rounds : int
    unit : {"person", "row"}
        Whom the study protects.
    excludes_encoder : bool
        Whether the study's ε leaves out what a row moves in its encoder.
    whole : sequence of (side, Release)
        All that a run releases, where the site answers it only if all of it fits; its rounds otherwise.
    rule : str
        Hash of the site's holdout.
    """
    policy = site.policy
    account = Accounts.of(ledger.lines()).account(dataset, names_now(site, ledger, dataset, look=True))
    # A whole run is counted: all its rounds as one release of that many steps.
    charges = whole or [(BOTH, replace(release, steps=release.steps * rounds))]
    forgotten = epsilon_forgotten(ledger)
    after = account.after(dataset, unit, charges, rule).spent(dataset, policy.delta) + forgotten
    then = shown(after)
    if math.isinf(after):
        then += f" ({render('budget.account.rows-of-persons')})"
    elif excludes_encoder and not account.excludes_encoder:
        then = render("budget.run.given-encoder", epsilon=then)
    if policy.epsilon is None:
        run = render("budget.run.without-budget", then=then)
    elif after <= policy.epsilon:
        # Rounded down, so that the rest is never shown as more than there is.
        left = math.floor((policy.epsilon - after) * 1000) / 1000
        run = render("budget.run.fits", then=then, left=left)
    elif policy.is_open:
        run = render("budget.run.open", then=then)
    elif whole or math.isinf(after):
        run = render("budget.run.refused", then=then)
    else:
        # The site would stop the run when the budget is used up, not before it begins.
        budget = max(policy.epsilon - forgotten, 0.0)
        fit = account.rounds_left(dataset, release, budget, policy.delta, rounds)
        run = render("budget.run.stopped", then=then)
        if fit:
            run = render("budget.run.stopped-after", then=then, fit=fit, rounds=rounds)
    return [
        _describe_spent(account, dataset, policy, forgotten),
        run,
        *describe_shared(dataset, account.datasets, len(account.unprotected)),
    ]


def _describe_spent(account: Account, dataset: str, policy: Policy, forgotten: float) -> str:
    """Return what all studies have spent of a dataset's privacy."""
    spent = account.spent(dataset, policy.delta) + forgotten
    epsilon = shown(spent)
    if account.excludes_encoder and not math.isinf(spent):
        epsilon = render("budget.run.given-encoder", epsilon=epsilon)
    studies = render("budget.run.all-studies")
    if account.unprotected:
        studies = render("budget.run.protected-studies")
    facts = {"studies": studies, "spent": epsilon, "dataset": dataset, "delta": policy.delta}
    if policy.epsilon is None:
        return render("budget.run.spent-without-budget", **facts)
    return render("budget.run.spent", budget=policy.epsilon, **facts)
