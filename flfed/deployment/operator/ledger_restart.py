"""Restart of a lost or damaged ledger.

It is on record: the new ledger's first line says by whom, and why.

What can still be read of spent privacy and of released rows is carried over: it was spent all the same.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flfed.callbacks import now_utc
from flfed.deployment.site_state.ledger_loss import loss
from flfed.deployment.site_state.receipts import read_receipts
from flfed.errors import UsageError
from flfed.federation.client.privacy_budget import LINE as SPENT
from flfed.federation.client.released_sets import RELEASED
from flfed.files import locked
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import Ledger, ledger_of
from flfed.records.ledger.line import CARRIED, RESTARTED, Line
from flfed.records.ledger.verify import Inspection, Receipt
from flfed.signatures import HASH


@dataclass(frozen=True)
class Restarted:
    """Result of a restarted ledger.

    It has the first line, the files that were set aside, and how many lines were carried over.
    """

    line: Line
    aside: tuple[Path, ...]
    carried: int = 0


def restart(folder: SiteFolder, *, by: str, why: str, now: datetime | None = None) -> Restarted:
    """Begin a site's ledger anew.

    What is left of the one before, and its receipts, are set aside and kept.

    Lines of kinds `spent` and `released` that are as they were written come after the new first line,
    each with the number and the time that it had (`carried-from`, `carried-at`).

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
        If every line is as it was written, none is known to be lost and none later than the clock, or only its
        last line is torn.

    Notes
    -----
    The coordinator goes on saying that the ledger was cut until somebody there, who was told why, takes
    note of it too (`flfed coordinator ledger SITE --restart WHY`): a site cannot forget by itself.
    """
    when = now or now_utc()
    ledger = ledger_of(folder, clock=lambda: when)
    # The gate's folder is locked too, so that no second restart comes in between.
    with locked(folder.gate):
        receipts = read_receipts(folder).all() if folder.receipts.exists() else []
        absent = not folder.ledger.exists()
        ahead = _check_needed(folder, ledger, receipts)
        stem = f"{when:%Y%m%dT%H%M%SZ}"
        # Under the ledger's own lock: who waits for it finds the new one, and nothing is added to what is set aside.
        with ledger.held():
            facts = {"by": by, "why": why, **_lost(folder.ledger, receipts), **ahead}
            aside = [
                (path, path.with_name(f"{path.stem}-before-{stem}.jsonl"))
                for path in (folder.receipts, folder.ledger)
                if path.exists() and not (absent and path == folder.ledger)
            ]
            if any(to.exists() for _, to in aside):
                raise UsageError(f"site {folder.site!r}: its ledger was begun anew this very second; look, and wait")
            coming = folder.ledger.with_name("ledger-coming.jsonl")
            # The new ledger is complete under another name before it takes the old one's place.
            coming.unlink(missing_ok=True)
            begun = Ledger(coming, clock=lambda: when)
            line = begun.append(kind=RESTARTED, **facts)
            carried = _carry(folder, begun)
            # Linked and not moved: until the last step the old ledger is where it was.
            for path, to in aside:
                os.link(path, to)
            # The ledger first: of a crash in between, receipts are left that do not fit, and this is done again.
            os.replace(coming, folder.ledger)
            folder.receipts.unlink(missing_ok=True)
    return Restarted(line, tuple(to for _, to in aside), carried)


def _carry(folder: SiteFolder, begun: Ledger) -> int:
    """Carry spent privacy and released rows over.

    What can still be read of them is written into the new ledger. Return how many lines that are.

    A line on rows whose set is gone stays behind: nothing could be held to it, and nothing would leave again.
    """
    many = 0
    with folder.ledger.open("rb") as raws:  # as it stands: its lock is held
        for line in Inspection().look(raws):
            gone = line.kind == RELEASED and not any((folder.gate / RELEASED).glob(f"*/{_id(line)}"))
            if line.whole and line.kind in (SPENT, RELEASED) and not gone:
                was = {CARRIED: line.n, "carried-at": line.at}
                begun.append(kind=line.kind, **{**was, **line.facts})  # of one carried before: where it was first
                many += 1
    return many


def _id(line: Line) -> str:
    """Return the name of a set's file.

    It is "none" where the line has none.
    """
    found = str(line.facts.get("rows-sha256"))
    return found if HASH.fullmatch(found) else "none"


def _check_needed(folder: SiteFolder, ledger: Ledger, receipts: list[Receipt]) -> dict[str, object]:
    """Return the line later than the clock, if any.

    Raises `UsageError` where there is no reason for a restart.
    """
    # A torn last line can be repaired, which loses nothing else.
    if ledger.is_torn():
        raise UsageError(f"a crash cut its last line off, no more: flfed site ledger {folder.site} --repair WHY")
    inspection = Inspection(tuple(receipts))
    deque(inspection.look(ledger.raws()), maxlen=0)
    if inspection.last is None or inspection.problems or loss(folder, ledger):
        return {}
    if ledger.is_ahead(inspection.last):
        return {"ahead-line": inspection.last.n, "ahead-at": inspection.last.at}
    signed = "as the coordinator signed it" if receipts else "as it was written"
    raise UsageError(f"the ledger of {folder.site} is {signed}: there is nothing to restart")


def _lost(ledger: Path, receipts: list[Receipt]) -> dict[str, object]:
    """Return the known facts of the lost ledger.

    They are the hash and the size of what is left of it, and what was signed last.
    """
    left = ledger.read_bytes() if ledger.exists() else b""
    last = max(receipts, key=lambda receipt: receipt.n, default=None)
    signed = {} if last is None else {"signed-run": last.run, "signed-line": last.n, "signed-head": last.head}
    return {"left-bytes": len(left), "left-sha256": hashlib.sha256(left).hexdigest(), **signed}
