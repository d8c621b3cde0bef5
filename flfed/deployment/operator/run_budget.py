"""What a run of a study would spend of a site's budget, for the person who decides about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from flfed.deployment.gate.run_limits import RunLimits
from flfed.deployment.operator.budget import ROWS_OF_PERSONS, Account, Accounts, same_in_words, unprotected_in_words
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.comparisons import ANEW, TELLS, compared_models
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.privacy_budget import shown
from flfed.federation.client.protection import LocalProtection, charge_of, excludes_encoder, run_charges
from flfed.federation.client.released.accounts import BOTH, Side, holdout_hash, names_now
from flfed.federation.client.released.model_answers import LATER_EPSILON
from flfed.federation.client.statistic import answered
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.records.reports.privacy import ENCODER_CONDITION
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.study.request_hash import asks_sha256
from flfed.study.study import Study, is_covered
from flfed.updates.accounting import Release
from flfed.updates.messages.kinds import COMPARE, STATISTIC, asks

ANSWERED = (
    "Budget: this site has answered this very text already, over these rows. The same numbers are sent again, and "
    "nothing more is charged."
)
REUSED_CELLS = (
    " The counts for the encoder were drawn before, for this very text and these rows: they are sent again as they "
    "were, and cost nothing."
)


def study_in_words(folder: SiteFolder, site: Site, study: Study) -> list[str]:
    """Return what a run of a study would spend of the privacy of a site's rows; nothing where it spends none."""
    charge = charge_of(study)
    ledger = ledger_of(folder)
    if charge is None:
        return []
    serving = site.serving(study.dataset.name)
    dataset = study.dataset.name
    free = _answered(folder, serving, study, ledger)
    if STATISTIC in free:
        return [ANSWERED]
    charges = [charged for name, charged in run_charges(study, serving).items() if name not in free]
    if not is_covered(study):
        charges = []
    sentence = run_in_words(
        site,
        ledger,
        dataset,
        charge.release,
        study.rounds,
        unit=charge.unit,
        excludes_encoder=excludes_encoder(study),
        whole=charges,
        rule=holdout_hash(serving, snapshot.read_facts(serving, folder.frozen)),
    )
    if free:
        sentence += REUSED_CELLS
    return [sentence]


def runs_in_words(folder: SiteFolder, site: Site, study: Study) -> list[str]:
    """Return how many runs are left of all studies that ask the same, and which of them are approved here."""
    most = site.policy.runs
    asks = asks_sha256(study.text)
    ledger = ledger_of(folder)
    with ledger.reading() as ledger_file:
        had = 0 if ledger_file is None else len(RunLimits(most).runs(ledger_file, study.sha256(), asks))
    decided = [one for one in approvals(folder) if one.decision == "approved" and one.study_sha256 != study.sha256()]
    same = [f"{one.study} ({one.study_sha256[:12]})" for one in decided if _asks(one.text) == asks]
    words = f"{max(most - had, 0)} of {most} runs left"
    lost = " A ledger was lost: of runs that it had, those count that came over." if ledger.loss_before() else ""
    if same:
        together = f"Together they have {words}.{lost}"
        predicate = "ask the same of these rows, and are" if len(same) > 1 else "asks the same of these rows, and is"
        return [f"Runs: {', '.join(same)} {predicate} approved. {together}"]
    return [f"Runs: {words}.{lost} Another text that asks the same has no more of its own."]


def check_counted(site: Site, study: Study) -> None:
    """Raise where a site counts no comparisons of a study, so that a person can add none."""
    if site.policy.disclosure == "open":
        raise UsageError(f"--compared adds nothing: the policy of {site.name} is 'open', which counts no comparisons")
    if not asks(study, COMPARE):
        raise UsageError(f"--compared adds nothing: study {study.name!r} compares no models")


def comparisons_in_words(folder: SiteFolder, site: Site, study: Study, added: int = 0) -> list[str]:
    """Return how many comparisons are left of a study's dataset, and what they may tell; nothing where none is counted.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
    study : Study
    added : int
        How many this approval adds.
    """
    if site.policy.disclosure == "open" or not asks(study, COMPARE):
        return []
    dataset = study.dataset.name
    limit = compared_models(folder, site, dataset)
    anew = "" if limit.left else f" {ANEW}"
    adds = f" This approval adds {added} (--compared)." if added else ""
    if site.policy.later_figures == "noised":
        adds += f" Figures of further models leave with noise, each model for epsilon {LATER_EPSILON:g} of the budget."
    return [
        f"Comparisons: figures over test rows of {dataset!r} may leave for {limit.left} more models, of {limit.most}; "
        f"all coordinators, studies and runs count together.{anew}{adds} {TELLS}"
    ]


def _asks(text: str) -> str:
    try:
        return asks_sha256(text)
    except FlfedError:  # a text that this version cannot read is not answered either
        return ""


def _answered(folder: SiteFolder, serving: Site, study: Study, ledger: Ledger) -> tuple[str, ...]:
    """Return the names of what the site has answered already over the rows that are frozen now."""
    if not is_covered(study) or snapshot.read_facts(serving, folder.frozen) is None:
        return ()
    frozen = snapshot.load(serving, folder.frozen).with_withheld()
    protection = LocalProtection(ledger_of=lambda _: ledger)(frozen, study, 0, "")
    return answered(SiteSession(frozen, study, protection=protection))


def run_in_words(
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
) -> str:
    """Return what a run would consume of the budget.

    It is told beside what is consumed already, for the person who decides about it.

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
        then += f" ({ROWS_OF_PERSONS})"
    elif excludes_encoder and not account.excludes_encoder:
        then += ENCODER_CONDITION
    sentence = _spent_in_words(account, dataset, account.spent(dataset, policy.delta))
    if policy.epsilon is None:
        return (
            f"{sentence} of the privacy of {dataset!r} at delta {policy.delta:g}; a run of this study would make it "
            f"{then}. The policy sets no budget (epsilon), so none is refused."
        )
    sentence += f" of {policy.epsilon:g} for {dataset!r} at delta {policy.delta:g}"
    if after <= policy.epsilon:
        # Rounded down, so that what is shown as left is never more than there is.
        left = math.floor((policy.epsilon - after) * 1000) / 1000
        if then.endswith(ENCODER_CONDITION):
            then += ","
        return f"{sentence}; a run would make it {then} and leave {left:g}."
    if policy.disclosure == "open":
        return f"{sentence}; a run would make it {then}, which 'open' counts and does not refuse."
    if whole or math.isinf(after):
        return f"{sentence}; a run would make it {then}, so this site refuses it."
    # The site would stop the run when the budget is used up, not before it begins.
    fit = account.rounds_left(dataset, release, policy.epsilon, policy.delta, rounds)
    about = f" after about {fit} of its {rounds} rounds" if fit else ""
    return f"{sentence}; a whole run would make it {then}, so this site stops it{about}."


def _spent_in_words(account: Account, dataset: str, spent: float) -> str:
    """Return what all studies have spent of a dataset's privacy, as the beginning of a sentence."""
    unprotected = unprotected_in_words(len(account.unprotected))
    sentence = f"Budget: {same_in_words(dataset, account.datasets)}{unprotected}"
    by = "By" if sentence.endswith(". ") else "by"
    studies = "protected studies" if unprotected else "studies"
    sentence += f"{by} this site's ledger all {studies} together have spent epsilon {shown(spent)}"
    if account.excludes_encoder and not math.isinf(spent):
        sentence += f"{ENCODER_CONDITION},"
    return sentence
