"""Whether a site's ledger was lost or cut: an account that begins at zero by itself would let all be spent again."""

from __future__ import annotations

import logging
import re

from flfed.apps.gate.folder import SiteFolder
from flfed.records.ledger import Ledger
from flfed.records.ledger_lines import RESTARTED, START, read_line

LOG = logging.getLogger("flfed.site")
RECEIPT, RELEASED = "receipt", "released"
"""Kinds of lines: of the coordinator's signature in the site's receipts, and of rows whose sums left in its ledger."""
LOST = "its ledger is lost or was cut, so nothing leaves the site; at the site: put it back, or flfed site ledger "
_ID = re.compile(r"[0-9a-f]{64}")


def loss(folder: SiteFolder, ledger: Ledger) -> str:
    """Return by what a ledger is known to be lost or cut, or an empty text.

    What a ledger leaves beside itself tells: the coordinator's receipts of its heads, the sets of rows
    whose sums left, and their key. A site that never had any of them has lost nothing.

    Raises
    ------
    LedgerError
        If the ledger, as far as it is read, is not as it was written.
    """
    n, head = _newest_receipt(folder)
    if ledger.hash_at(n) != head:
        return f"a receipt has line {n}, and the ledger has no such line"
    kept = any(_ID.fullmatch(path.name) for path in (folder.gate / "released").glob("*/*"))
    if kept and not any(line.kind in (RELEASED, RESTARTED) for line in ledger.lines()):
        return "rows are kept whose sums left, and the ledger has no line of any"
    if (folder.gate / "rows.key").exists() and not ledger.path.exists():
        return "there is a key of released rows, and no ledger"
    return ""


def _newest_receipt(folder: SiteFolder) -> tuple[int, str]:
    """Return the line and the head of the newest receipt; of none, those before the first line.

    Nothing here is held to its signature: one that nobody signed can only keep the site from answering.
    """
    newest = (0, START)
    for raw in Ledger(folder.receipts).raws():
        line = read_line(raw.removesuffix(b"\n"))
        n = line.facts.get("line") if line is not None and line.kind == RECEIPT else None
        if line is not None and isinstance(n, int) and n > newest[0]:
            newest = (n, str(line.facts.get("head")))
    return newest


class Continuity:
    """Tells whether a ledger goes on from where it was seen last, and where it does not, whether it was lost.

    Parameters
    ----------
    folder : SiteFolder
    ledger : Ledger

    Notes
    -----
    What is beside the ledger is looked at once a process, and again where the last line seen is gone;
    else only lines that came since are read.
    """

    def __init__(self, folder: SiteFolder, ledger: Ledger) -> None:
        self._folder, self._ledger = folder, ledger
        self._seen: tuple[int, str] | None = None

    def refusal(self) -> str:
        """Return what the site says while its ledger is lost, which no line can tell; else an empty text.

        Raises
        ------
        LedgerError
            If the ledger, as far as it is read, is not as it was written.
        """
        now = self._ledger.head()
        if self._seen is None or self._ledger.hash_at(self._seen[0]) != self._seen[1]:
            lost = loss(self._folder, self._ledger)
            if lost:
                LOG.error("the ledger is lost or was cut: %s", lost)
                self._seen = None
                return f"{LOST}{self._folder.site} --restart WHY"
        self._seen = now
        return ""
