"""A lost ledger at a site: what the gate answers then, and the restart by a person.

A ledger or a state that begins at nothing would let the whole privacy budget be spent again. So after a restart the
budget counts as spent, approvals are void, and what was released before is unknown: `site approve` asks for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import datetime
from pathlib import Path

from flfed.callbacks import now_utc, stamp
from flfed.deployment.site_state.approval import approvals, withdraw
from flfed.errors import FlfedError, UsageError
from flfed.files import locked
from flfed.paths import ANSWERING, SiteFolder, sync_folder
from flfed.records.ledger import LedgerAhead, LedgerLost, ledger_of
from flfed.records.ledger_line import RESTARTED, START, new_line
from flfed.records.site_state import Restart, SiteState
from flfed.refusals import NO_LEDGER, Refusal


def ledger_refusal(error: FlfedError, site: str) -> Refusal:
    """Return the site's answer where its ledger takes no line."""
    if isinstance(error, LedgerLost):
        return Refusal("ledger-lost", site=site)
    if isinstance(error, LedgerAhead):
        return Refusal("ledger-ahead", line=error.line.n, at=error.line.at[:24], site=site)
    return NO_LEDGER


def blocking_refusal(folder: SiteFolder) -> Refusal | None:
    """Return why a site answers nothing by its ledger, None where it answers; nothing is written."""
    try:
        SiteState(folder.state).check(ledger_of(folder))
    except (LedgerLost, LedgerAhead) as error:
        return ledger_refusal(error, folder.site)
    return None


def restart(
    folder: SiteFolder, *, by: str, why: str, epsilon: float | None, now: datetime | None = None
) -> tuple[Path, ...]:
    """Begin a new ledger and a new state, void all approvals, and return the old files, which are set aside.

    Parameters
    ----------
    folder : SiteFolder
    by, why : str
        The person and the reason.
    epsilon : float or None
        The privacy budget of the site's policy, which counts as spent.
    now : datetime, optional
    """
    folder.make()
    at = now or now_utc()
    begun = folder.state.with_name("state-coming.db")
    # No message is answered meanwhile, and who waits for the ledger's lock opens the new one.
    with locked(folder.gate, ANSWERING), ledger_of(folder).locked_file():
        left = folder.ledger.read_bytes()
        facts = {"by": by, "why": why, "left-bytes": len(left), "left-sha256": hashlib.sha256(left).hexdigest()}
        line = new_line(1, START, stamp(at), RESTARTED, facts)
        begun.unlink(missing_ok=True)
        SiteState(begun).begin_anew(Restart(stamp(at), by, why, epsilon), line)
        for study in {one.study_sha256 for one in approvals(folder) if one.decision == "approved"}:
            withdraw(folder, study, by=by)
        # The state of runs holds keys whose masks would be used a second time.
        shutil.rmtree(folder.states, ignore_errors=True)
        aside = _set_aside(folder, f"{at:%Y%m%dT%H%M%SZ}")
        os.replace(begun, folder.state)
        sync_folder(folder.gate)
    with ledger_of(folder).lock():
        pass  # the first line comes to the ledger
    return aside


def _set_aside(folder: SiteFolder, time: str) -> tuple[Path, ...]:
    """Give the ledger and the state names with the time; raises UsageError where these exist."""
    # A journal that a crash left beside the state is the old one's.
    files: tuple[Path, ...] = (folder.ledger, folder.state.with_name(f"{folder.state.name}-journal"), folder.state)
    files = tuple(path for path in files if path.exists() and path.stat().st_size)
    targets = {path: path.with_name(f"{path.stem}-before-{time}{path.suffix}") for path in files}
    if any(target.exists() for target in targets.values()):
        raise UsageError(f"site {folder.site!r}: its ledger was restarted this same second; check it, and wait")
    for path, target in targets.items():
        os.link(path, target)
        # Without its ledger the old state takes no line; without either, a site would begin at nothing.
        if path != folder.state:
            path.unlink()
    return tuple(targets.values())
