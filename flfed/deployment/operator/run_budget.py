"""What a run of a study would spend of a site's budget, for the person who decides about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from flfed.deployment.operator.budget import Account, Accounts, describe_shared
from flfed.federation.client.privacy_budget import shown
from flfed.federation.client.protection import LocalProtection, charge_of, excludes_encoder, run_charges
from flfed.federation.client.released.accounts import BOTH, Side, holdout_hash, names_now
from flfed.federation.client.statistic import answered
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from flfed.updates.accounting import Release
from flfed.updates.messages.kinds import STATISTIC
from flfed.words import render


def describe_study_budget(folder: SiteFolder, site: Site, study: Study) -> list[str]:
    """Return what a run of a study would spend of the privacy of a site's rows; nothing where it spends none."""
    charge = charge_of(study)
    if charge is None or not site.has_outcome:
        return []
    ledger = ledger_of(folder)
    serving = site.serving(study.dataset.name)
    free = _answered(folder, serving, study, ledger)
    if STATISTIC in free:
        return [render("budget.run.answered")]
    charges = [charged for name, charged in run_charges(study, serving).items() if name not in free]
    if not (study.is_covered or study.is_vertical):
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
    after = account.after(dataset, unit, charges, rule).spent(dataset, policy.delta)
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
        fit = account.rounds_left(dataset, release, policy.epsilon, policy.delta, rounds)
        run = render("budget.run.stopped", then=then)
        if fit:
            run = render("budget.run.stopped-after", then=then, fit=fit, rounds=rounds)
    return [
        _describe_spent(account, dataset, policy),
        run,
        *describe_shared(dataset, account.datasets, len(account.unprotected)),
    ]


def _describe_spent(account: Account, dataset: str, policy: Policy) -> str:
    """Return what all studies have spent of a dataset's privacy."""
    spent = account.spent(dataset, policy.delta)
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
