"""What counts for the runs that a lost ledger may have had: the privacy budget as used up."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

from flfed.callbacks import now_utc, stamp
from flfed.deployment.site_state.ledger_loss import Restarted, restart
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger
from flfed.records.site_state import SiteState
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site


def restart_ledger(folder: SiteFolder, load_site: Callable[[], Site], *, by: str, why: str) -> Restarted:
    """Begin a new ledger for a site; where lines may be missing, its budget counts as used up.

    The site is loaded only then. Other parameters and errors are those of `ledger_loss.restart`.
    """
    when = now_utc()

    def charge(ledger: Ledger) -> None:
        site = load_site()
        _use_up(folder, site.policy, when, by, why)

    restarted = restart(folder, by=by, why=why, now=when, charge=charge)
    if folder.state.exists():
        with SiteState(folder.state).transaction() as step:
            step.tables.execute("DELETE FROM ledger_end")
    return restarted


def _use_up(folder: SiteFolder, policy: Policy, when: datetime, by: str, why: str) -> None:
    """Count the budget as spent up to now; where none is enforced, no number bounds what was spent."""
    spent = policy.epsilon if policy.enforces_budget and policy.epsilon is not None else math.inf
    with SiteState(folder.state).transaction() as step:
        step.tables.execute("INSERT INTO restarts VALUES (?, ?, ?, ?)", [stamp(when), by, why, spent])
