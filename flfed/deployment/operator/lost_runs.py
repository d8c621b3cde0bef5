"""Charges for the runs that a lost ledger may have had.

A ledger that comes from a backup has forgotten what the site released since. So after a restart a privacy budget counts
as used up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flfed.callbacks import now_utc
from flfed.deployment.site_state.approval import Approval, approvals
from flfed.deployment.site_state.ledger_loss import Restarted, restart
from flfed.errors import FlfedError
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.protection import RoundCharge, charge_of, run_charges
from flfed.federation.client.released.accounts import keep_rows_key, origin_of, rows_key
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger
from flfed.rows.data.origin import Origin
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.snapshot import FrozenSite
from flfed.study.study import Study


def restart_ledger(folder: SiteFolder, load_site: Callable[[], Site], *, by: str, why: str) -> Restarted:
    """Begin a new ledger for a site, charged for the runs that the lost one may have had.

    The site is loaded only where lines may be missing. Other parameters and errors are those of `ledger_loss.restart`.
    """
    when = now_utc()

    def charge(ledger: Ledger) -> None:
        LostRuns(folder, load_site(), f"lost-{when:%Y%m%d-%H%M%S}").charge(ledger)

    return restart(folder, by=by, why=why, now=when, charge=charge)


SMALL_NOISE = 20.0
"""Noise multiplier of a step of the charge that uses a budget up: one step costs an ε of 0.16 at δ = 1e-5."""


class LostRuns:
    """Runs that a lost ledger may have had.

    A budget counts as used up: studies may have been approved, and run, since the ledger that is left. Where no budget
    limits the runs, each standing approval is charged for all that its study may have.

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
            if approval.decision != "refused" or any(before.startswith("approved") for before in approval.earlier):
                self._charge_study(ledger, approval)
        policy = self._site.policy
        if policy.enforces_budget:
            # The least that exceeds the budget of a dataset's rows, in steps of small cost.
            for dataset in self._site.datasets:
                origin = self._origin(self._served(dataset))
                charge = PrivacyAccount(ledger, dataset, policy, origin=origin).least_refused(SMALL_NOISE)
                # This charge is for the past, which no budget refuses.
                account = PrivacyAccount(ledger, dataset, policy.model_copy(update={"epsilon": None}), origin=origin)
                facts: dict[str, Any] = {"study": "", "study_sha256": "", "run": self._next_run()}
                facts |= {"repeat": 0, "round": 0, "rows_sha256": "", "unit": "person", "delta": policy.delta}
                account.reserve(charge, **facts, given_encoder=False)

    def _charge_study(self, ledger: Ledger, approval: Approval) -> None:
        try:
            study = Study.parse(approval.text)
        except FlfedError:  # a text that this version cannot read was not answered either
            return
        site = self._served(study.dataset.name)
        charge = charge_of(study)
        if charge is not None and not site.policy.enforces_budget:
            account = PrivacyAccount(ledger, study.dataset.name, site.policy, origin=self._origin(site))
            charges = run_charges(study, site)  # the accountant takes a second
            for _ in range(site.policy.runs):
                run = RoundCharge(account, charge, study, self._next_run(), site, approval.rows_sha256)
                for name, (side, release) in charges.items():
                    run.answer([release], answer=f"lost-{name}", request="", side=side)

    def _served(self, dataset: str) -> Site:
        """Return the site with its frozen rows, or without rows where they cannot be served."""
        if dataset not in self._site.datasets:
            return self._site
        serving = self._site.serving(dataset)
        try:
            return snapshot.load(serving, self._folder.frozen)
        except FlfedError:
            return serving

    def _origin(self, site: Site) -> Origin | None:
        """Return the origin of the rows; None where no line can name them, so that it counts on every account."""
        try:
            gate = self._folder.gate
            keep_rows_key(gate, rows_key(gate, make=True))
        except FlfedError:
            return None
        return origin_of(site) if isinstance(site, FrozenSite) else None

    def _next_run(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"
