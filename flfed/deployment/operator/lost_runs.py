"""Charges for the runs that a lost ledger may have had.

A ledger that comes from a backup has forgotten what the site released since. So a restart counts, for each approval
that stands, all runs that are left: their ε is spent, and their rows are released.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flfed.callbacks import now_utc
from flfed.deployment.gate.run_limits import RunLimits
from flfed.deployment.site_state.approval import Approval, approvals
from flfed.deployment.site_state.ledger_loss import Restarted, restart
from flfed.errors import FlfedError
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.protection import Charge, RoundCharge, charge_of, checks_history, run_charges
from flfed.federation.client.released.accounts import holdout_hash, origin_of, rows_key
from flfed.federation.client.released.rows import Releases
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger
from flfed.rows.data.origin import Origin
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.snapshot import FrozenSite
from flfed.study.request_hash import asks_sha256
from flfed.study.study import Study


def restart_ledger(
    folder: SiteFolder, load_site: Callable[[], Site], *, by: str, why: str, now: datetime | None = None
) -> Restarted:
    """Begin a new ledger for a site, charged for the runs that the lost one may have had.

    The site is loaded only where lines may be missing. Other parameters and errors are those of `ledger_loss.restart`.
    """
    when = now or now_utc()

    def charge(ledger: Ledger) -> None:
        LostRuns(folder, load_site(), f"lost-{when:%Y%m%d-%H%M%S}").charge(ledger)

    return restart(folder, by=by, why=why, now=when, charge=charge)


class LostRuns:
    """Runs that a lost ledger may have had, by the site's approvals.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
    name : str
        Beginning of their names.
    """

    def __init__(self, folder: SiteFolder, site: Site, name: str) -> None:
        self._folder = folder
        self._site = site
        self._name = name
        self._count = 0

    def charge(self, ledger: Ledger) -> None:
        """Charge a new ledger for all of them.

        Raises
        ------
        FlfedError
            If a charge cannot be written.
        """
        for approval in approvals(self._folder):
            if approval.decision == "approved":
                self._charge_study(ledger, approval)

    def _charge_study(self, ledger: Ledger, approval: Approval) -> None:
        try:
            study = Study.parse(approval.text)
        except FlfedError:  # a text that this version cannot read was not answered either
            return
        site = self._served(study)
        charge = charge_of(study)
        if charge is not None:
            self._spend(ledger, approval, study, site, charge)
        if isinstance(site, FrozenSite) and checks_history(study, site):
            # What the rules refuse now, they refused then: the releases since are of these same rows.
            Releases(lambda _: ledger).refusal(SiteSession(site, study), self._next_run(), leaves=True)

    def _served(self, study: Study) -> Site:
        """Return the site with its frozen rows, or without rows where they cannot be served."""
        if study.dataset.name not in self._site.datasets:
            return self._site
        serving = self._site.serving(study.dataset.name)
        try:
            return snapshot.load(serving, self._folder.frozen)
        except FlfedError:
            return serving

    def _origin(self, site: Site) -> Origin | None:
        """Return the origin of the rows; None where no line can name them, so that it counts on every account."""
        try:
            rows_key(self._folder.gate, make=True)
        except FlfedError:
            return None
        return origin_of(site) if isinstance(site, FrozenSite) else None

    def _spend(self, ledger: Ledger, approval: Approval, study: Study, site: Site, charge: Charge) -> None:
        """Charge all runs that are left, or as many as exceed the budget: beyond it the site released nothing."""
        policy = site.policy
        with ledger.lock() as locked_ledger:
            had = RunLimits(policy.runs).runs(locked_ledger, study.sha256(), asks_sha256(study.text))
        dataset, origin, charges = study.dataset.name, self._origin(site), run_charges(study, site)
        budget = PrivacyAccount(ledger, dataset, policy, origin=origin)
        # These charges are for the past, which no budget refuses.
        account = PrivacyAccount(ledger, dataset, policy.model_copy(update={"epsilon": None}), origin=origin)
        for _ in range(len(had), policy.runs):
            over = budget.refusal(list(charges.values()), "", rule=holdout_hash(site), whole=True)
            run = RoundCharge(account, charge, study, self._next_run(), site, approval.rows_sha256)
            for name, (side, release) in charges.items():
                run.answer([release], answer=f"lost-{name}", request="", side=side)
            if over:
                break

    def _next_run(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"
