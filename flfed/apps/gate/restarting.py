"""A ledger that was lost or is beyond repair begins anew, on record: its first line says so, by whom, and why."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flfed.apps.gate.folder import SiteFolder
from flfed.apps.gate.receipts import ledger_of, read_receipts
from flfed.apps.private_files import locked, now_utc
from flfed.errors import UsageError
from flfed.records.ledger import Ledger
from flfed.records.ledger_check import Inspection, Receipt
from flfed.records.ledger_lines import RESTARTED, Line


@dataclass(frozen=True)
class Restarted:
    """A ledger that was begun anew: its first line, and the files that were set aside, which stay."""

    line: Line
    aside: tuple[Path, ...]


def restart(folder: SiteFolder, *, by: str, why: str, now: datetime | None = None) -> Restarted:
    """Begin a site's ledger anew; what is left of the one before, and its receipts, are set aside and kept.

    Parameters
    ----------
    folder : SiteFolder
    by, why : str
        Who does it and for what reason; both stand in the first line, with the last receipt of the
        ledger before, and the hash of what is left of it.
    now : datetime, optional

    Raises
    ------
    UsageError
        If the ledger agrees with the coordinator's receipts, or only its last line is torn.

    Notes
    -----
    The coordinator goes on saying that the ledger was cut until somebody there, who was told why, takes
    note of it too (`flfed coordinator ledger SITE --restart WHY`): a site cannot forget by itself.
    """
    ledger, when = ledger_of(folder), now or now_utc()
    with locked(folder.gate):
        receipts = read_receipts(folder).all() if folder.receipts.exists() else []
        _check_needed(folder, ledger, receipts)
        facts = {"by": by, "why": why, **_lost(folder.ledger, receipts)}
        stem = f"{when:%Y%m%dT%H%M%SZ}"
        aside = [
            (path, path.with_name(f"{path.stem}-before-{stem}.jsonl"))
            for path in (folder.receipts, folder.ledger)
            if path.exists()
        ]
        if any(to.exists() for _, to in aside):
            raise UsageError(f"site {folder.site!r}: its ledger was begun anew this very second; look, and wait")
        coming = folder.ledger.with_name("ledger-coming.jsonl")
        coming.unlink(missing_ok=True)
        line = Ledger(coming).append(kind=RESTARTED, **facts)
        for path, to in aside:
            os.link(path, to)
        # The ledger first: of a crash in between, receipts are left that do not fit, and this is done again.
        os.replace(coming, folder.ledger)
        folder.receipts.unlink(missing_ok=True)
    return Restarted(line, tuple(to for _, to in aside))


def _check_needed(folder: SiteFolder, ledger: Ledger, receipts: list[Receipt]) -> None:
    if ledger.is_torn():
        raise UsageError(f"a crash cut its last line off, no more: flfed site ledger {folder.site} --repair WHY")
    inspection = Inspection(tuple(receipts))
    deque(inspection.look(ledger.raws()), maxlen=0)
    if receipts and not inspection.problems:
        raise UsageError(f"the ledger of {folder.site} is as the coordinator signed it: there is nothing to restart")


def _lost(ledger: Path, receipts: list[Receipt]) -> dict[str, object]:
    """Return what is known of the ledger before: what is left of it, and what was signed last."""
    left = ledger.read_bytes() if ledger.exists() else b""
    last = max(receipts, key=lambda receipt: receipt.n, default=None)
    signed = {} if last is None else {"signed-run": last.run, "signed-line": last.n, "signed-head": last.head}
    return {"left-bytes": len(left), "left-sha256": hashlib.sha256(left).hexdigest(), **signed}
