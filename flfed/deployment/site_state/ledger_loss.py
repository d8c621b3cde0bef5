"""Detection of a lost or truncated ledger.

A ledger that restarts at zero would let the whole budget be spent again.
"""

from __future__ import annotations

import logging

from flfed.federation.client.released_sets import RELEASED
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import Ledger
from flfed.records.ledger.line import RECEIPT, RESTARTED, START, Line, read_line
from flfed.signatures import HASH

LOG = logging.getLogger("flfed.site")
"""The kind of a line of rows whose sums left."""
LOST = "its ledger is lost or was cut, so nothing leaves the site; at the site: put it back, or flfed site ledger "
AHEAD = "later than its clock, so nothing leaves the site; at the site: set the clock right, or flfed site ledger "


def loss(folder: SiteFolder, ledger: Ledger) -> str:
    """Return the evidence of a lost or truncated ledger.

    An empty text where there is none.

    What a ledger leaves beside itself tells: the coordinator's receipts of its heads, the sets of rows
    whose sums left, and their key. A site that never had any of them has lost nothing.

    Raises
    ------
    LedgerError
        If the ledger, as far as it is read, is not as it was written.
    """
    # Three traces, the strongest first: a signed head, rows whose sums left, and the key that names them.
    n, head = _newest_receipt(folder)
    if ledger.hash_at(n) != head:
        return f"a receipt has line {n}, and the ledger has no such line"
    kept = any(HASH.fullmatch(path.name) for path in (folder.gate / "released").glob("*/*"))
    if kept and not any(line.kind in (RELEASED, RESTARTED) for line in ledger.lines()):
        return "rows are kept whose sums left, and the ledger has no line of any"
    if (folder.gate / "rows.key").exists() and not ledger.path.exists():
        return "there is a key of released rows, and no ledger"
    return ""


def _newest_receipt(folder: SiteFolder) -> tuple[int, str]:
    """Return the newest receipt's line and head.

    Without a receipt they are those before the first line.

    Nothing here is held to its signature: one that nobody signed can only keep the site from answering.
    """
    newest = (0, START)
    for raw in Ledger(folder.receipts).raws():
        line = read_line(raw.removesuffix(b"\n"))
        # The highest line counts, not the last in the file: receipts may come late.
        n = line.facts.get("line") if line is not None and line.kind == RECEIPT else None
        if line is not None and isinstance(n, int) and n > newest[0]:
            newest = (n, str(line.facts.get("head")))
    return newest


class Continuity:
    """Watcher of a ledger's continuity.

    It tells whether the ledger goes on from where it was seen last, and if not, whether it was lost.

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
        """Return why the ledger can take no line.

        An empty text where it can. The sentence is what the site answers; the ledger can have no line of that either.

        So it is of a ledger that was lost or cut, and of one whose last line is later than the clock.

        Raises
        ------
        LedgerError
            If the ledger, as far as it is read, is not as it was written.
        """
        # The traces are read once, and again only where the line seen last is not there any more.
        last = self._ledger.last()
        if self._seen is None or self._ledger.hash_at(self._seen[0]) != self._seen[1]:
            lost = loss(self._folder, self._ledger)
            if lost:
                LOG.error("the ledger is lost or was cut: %s", lost)
                self._seen = None
                return f"{LOST}{self._folder.site} --restart WHY"
        # Where the clock is behind the last line, no further line would be in order of time.
        if last is not None and self._ledger.is_ahead(last):
            LOG.error(
                "nothing is answered: line %d of the ledger is of %s, and the clock is behind it", last.n, last.at
            )
            return ahead(last, self._folder.site)
        self._seen = (last.n, last.hash) if last is not None else (0, START)
        return ""


def ahead(last: Line, site: str) -> str:
    """Return the refusal of a ledger ahead of the clock."""
    return f"line {last.n} of its ledger is of {last.at[:24]}, {AHEAD}{site} --restart WHY"
