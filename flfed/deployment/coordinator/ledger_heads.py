"""Where the sites' ledgers ended at their last enrolment, so that one that was set back or begun anew shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flfed.callbacks import now_utc, stamp
from flfed.errors import RunStopped, UsageError
from flfed.files import locked, read_private, write_whole
from flfed.paths import CoordinatorFolder
from flfed.records.ledger_line import START
from flfed.updates.messages.enrol import EnrolReply
from flfed.words import flfed_error

Heads = dict[str, dict[str, Any]]
"""By site: number `n` and hash `head` of its ledger's last known line, and what people acknowledged."""


@dataclass
class LedgerHeads:
    """Ledgers' last lines, as this coordinator knows them.

    A site that lies can report the hash of a line that it no longer has. Then its ledger and the heads here disagree,
    and whoever compares them sees it.
    """

    folder: CoordinatorFolder
    _asked: dict[str, tuple[int, str]] = field(default_factory=dict)

    def lines(self) -> dict[str, int]:
        """Return the number of each site's last known line, whose hash an enrolment asks for."""
        self._asked = {site: (head["n"], head["head"]) for site, head in self._read().items()}
        return {site: n for site, (n, _) in self._asked.items()}

    def check(self, replies: Iterable[EnrolReply]) -> None:
        """Compare the ledgers of sites with their last known lines, and keep their new ends.

        Raises
        ------
        RunStopped
            If a ledger does not continue: it was set back to a backup, cut, rewritten or begun anew.
        """
        with locked(self.folder.root, "heads.lock"):
            heads = self._read()
            broken = []
            for reply in replies:
                n, head = self._asked.get(reply.site, (0, START))
                if n and (reply.ledger_lines < n or reply.known_hash != head):
                    broken.append(_describe_break(reply.site, n))
                elif reply.ledger_lines >= heads.get(reply.site, {}).get("n", 0):
                    end = {"n": reply.ledger_lines, "head": reply.ledger_head}
                    heads[reply.site] = {**heads.get(reply.site, {}), **end}
            self._write(heads)
        if broken:
            raise RunStopped(f"no round was begun: {'; '.join(broken)}")

    def acknowledge(self, site: str, *, by: str, why: str) -> int:
        """Record that a person knows why a site's ledger does not continue, and return its last known line.

        The next run takes the ledger that the site has then.
        """
        if not why.strip():
            raise UsageError("--why needs the reason, which is recorded: --why 'restored from the backup of Monday'")
        with locked(self.folder.root, "heads.lock"):
            heads = self._read()
            known = heads.get(site, {})
            if not known.get("n"):
                raise UsageError(f"no line of {site}'s ledger is known here: the next run takes the one that it has")
            entry = {"at": stamp(now_utc()), "by": by, "why": why, "n": known["n"], "head": known["head"]}
            heads[site] = {"n": 0, "head": START, "acknowledged": [*known.get("acknowledged", ()), entry]}
            self._write(heads)
        return int(known["n"])

    def _read(self) -> Heads:
        if not self.folder.heads.exists():
            return {}
        try:
            heads: Heads = json.loads(read_private(self.folder.heads))
            return {site: {**head, "n": int(head["n"]), "head": str(head["head"])} for site, head in heads.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise flfed_error("coordinator.files.damaged", file=self.folder.heads) from None

    def _write(self, heads: Heads) -> None:
        write_whole(self.folder.heads, json.dumps(heads, indent=1, sort_keys=True).encode())


def _describe_break(site: str, n: int) -> str:
    return (
        f"the ledger of {site} does not continue line {n:,}, which it had at an earlier run: it was set back to a "
        f"backup, cut or begun anew. Ask {site} for the reason; then: flfed coordinator acknowledge {site} --why TEXT"
    )
