"""Incremental reader of a site's ledger for the pages of its app.

The ledger is checked whole once, and later only its new lines.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from flfed.deployment.site_state.ledger_loss import ahead, loss, read_receipts
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger import Inspection, Ledger, LedgerError, LockedLedger, Receipt, ledger_of
from flfed.records.ledger_line import (
    REFUSED,
    REPAIRED,
    RESTARTED,
    START,
    Line,
    Total,
    bytes_of,
    round_of,
    study_of,
)
from flfed.refusals import read_of_site
from flfed.updates.messages.kinds import COMPARE

_COMPARED = COMPARE.rpartition(".")[2]
MOST_LINES = 200
"""Number of last lines of a study, or of a day, on the page."""
NEED_DECISION = {
    "not-approved", "study-changed", "approved-other-coordinator", "approved-other-key",
    "approved-before-loss", "sums-not-approved", "rows-changed", "schema-changed-after-approval",
}  # fmt: skip
"""Codes of refusals that a person of the site can end by a decision."""
BLOCK = 1 << 20
"""Bytes read at once for a hash."""


@dataclass(frozen=True)
class LineSeen:
    """One line of a ledger, for people."""

    n: int
    at: str
    kind: str
    study: str
    run: str
    round: int
    bytes: int
    reason: str


@dataclass
class Left:
    """Content of a ledger, and the result of its verification.

    Attributes
    ----------
    lines, bytes : int
    sums : dict of (day, study, kind) to Total
        Empty where lines were changed, as sums over a part would mislead.
    last : dict of (day, study) to deque of LineSeen
        The last ones of each; "" stands for any.
    since, until, head : str
    restarted : str
        When, by whom and why the ledger was restarted; "" where it never was.
    receipts, signed_lines, repairs : int
        Numbers of the coordinator's signatures, of signed lines, and of torn lines that were set aside.
    problems : list of str
    torn : bool
    lost : str
        The sign that the ledger was lost; "" where it was not.
    suppressed_runs : set of str
        Runs whose comparison left without figures, as its model was one too many.
    undecided : dict of str to list of LineSeen
        By a study's SHA-256 the refusals for want of a valid approval, since it last got a reply; the ledger has no
        name of a study that was never let in.
    ahead : str
        Sentence where the last line is later than the site's clock; "" where it is not.
    """

    lines: int = 0
    bytes: int = 0
    sums: dict[tuple[str, str, str], Total] = field(default_factory=dict)
    last: dict[tuple[str, str], deque[LineSeen]] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    head: str = ""
    restarted: str = ""
    receipts: int = 0
    signed_lines: int = 0
    repairs: int = 0
    problems: list[str] = field(default_factory=list)
    torn: bool = False
    lost: str = ""
    ahead: str = ""
    suppressed_runs: set[str] = field(default_factory=set)
    undecided: dict[str, list[LineSeen]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count one line more."""
        day = line.at[:10]
        study = study_of(line)
        if not self.lines:
            self.since = line.at
            if line.kind == RESTARTED:
                self.restarted = f"on {day} by {line.facts.get('by')}: {line.facts.get('why')}"
        self.lines += 1
        self.until = line.at
        self.head = line.hash
        self.bytes += bytes_of(line)
        self.sums.setdefault((day, study, line.kind), Total()).add(line)
        run, reason = (str(line.facts.get(key) or "") for key in ("run", "reason"))
        seen = LineSeen(line.n, line.at, line.kind, study, run, round_of(line), bytes_of(line), reason)
        self._note_decision(seen, str(line.facts.get("study-sha256") or ""))
        # Each line counts under any day, any study, both, and its own.
        for key in {("", ""), (day, ""), ("", study), (day, study)}:
            self.last.setdefault(key, deque(maxlen=MOST_LINES)).append(seen)

    def _note_decision(self, seen: LineSeen, sha256: str) -> None:
        if seen.kind != REFUSED:
            self.undecided.pop(sha256, None)
            return
        refusal = read_of_site(seen.reason)
        if refusal is not None and refusal.code in NEED_DECISION:
            self.undecided.setdefault(sha256, []).append(seen)

    def copy(self) -> Left:
        """Return a copy to add lines to, while others read this one."""
        sums = {key: replace(total) for key, total in self.sums.items()}
        last = {key: deque(seen, MOST_LINES) for key, seen in self.last.items()}
        undecided = {sha256: list(seen) for sha256, seen in self.undecided.items()}
        return replace(self, sums=sums, last=last, undecided=undecided, suppressed_runs=set(self.suppressed_runs))


@dataclass(frozen=True)
class Checked:
    """Verified, unchanged part of a ledger.

    Attributes
    ----------
    left : Left
        Content of its lines.
    size : int
        Bytes from the file's start.
    sha256 : str
        Of these bytes.
    agreed : frozenset of Receipt
        Those that the lines agree with.
    """

    left: Left
    size: int
    sha256: str
    agreed: frozenset[Receipt]


class LedgerReader:
    """Incremental reader of a site's ledger, which reads the whole at first, and then only new lines.

    Parameters
    ----------
    folder : SiteFolder

    Guarantee: its result equals that of reading the whole again. Before it continues it compares the checked bytes with
    their SHA-256, which finds a line that was changed since. It reads the whole where anything but whole lines in their
    order was added.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._one_reads = threading.Lock()
        self._checked: Checked | None = None
        self._mark: Any = None
        self._outbound = Left()

    def read(self, mark: object) -> Left:
        """Return the content of the ledger, an object that readers share and must not change.

        Parameters
        ----------
        mark : object, not None
            It differs whenever there may be new content; while it is the same, nothing is read.

        Raises
        ------
        FlfedError
            If the ledger, its receipts or the site's terms cannot be read.
        """
        # Of several pages that read at once, one reads for all.
        with self._one_reads:
            if mark != self._mark:
                self._outbound = self._read()
                self._mark = mark
            return self._outbound

    def _read(self) -> Left:
        ledger = ledger_of(self._folder)
        receipts = read_receipts(self._folder)
        signed = receipts.all()
        outbound = None
        if self._checked is not None:
            self._checked = gone_on(ledger, self._checked, signed)
            outbound = self._checked.left if self._checked else None
        if outbound is None:
            outbound, self._checked = checked_whole(ledger, signed)
        outbound = replace(
            outbound,
            problems=[*outbound.problems, *ledger.open_to_others(), *receipts.problems],
            receipts=len(receipts.signed),
            signed_lines=max((receipt.n for receipt in receipts.signed), default=0),
            torn=ledger.is_torn(),
        )
        # `problems` has the changes of a ledger that raises here.
        with suppress(FlfedError):
            last = ledger.last()
            if last is not None and ledger.is_ahead(last):
                outbound.ahead = ahead(last, self._folder.site)
        with suppress(FlfedError):
            outbound.lost = loss(self._folder, ledger)
        return outbound


def checked_whole(ledger: Ledger, receipts: Sequence[Receipt]) -> tuple[Left, Checked | None]:
    """Check each line and receipt of a whole ledger, as `--verify` does, and return its content.

    The second result is the checked part to continue from, None of a changed ledger.

    Parameters
    ----------
    ledger : Ledger
    receipts : sequence of Receipt
    """
    outbound = Left()
    inspection = Inspection(tuple(receipts))
    size = 0
    digest = hashlib.sha256()

    def noted() -> Iterator[bytes]:
        # Lines are hashed while they are checked, so that the hash covers the checked bytes.
        nonlocal size
        for raw in ledger.raws():
            size += len(raw)
            digest.update(raw)
            yield raw

    for line in inspection.look(noted()):
        outbound.add(line)
    outbound.problems = inspection.problems
    outbound.repairs = inspection.repairs
    if not outbound.problems:
        return outbound, Checked(outbound, size, digest.hexdigest(), frozenset(receipts))
    outbound.sums = {}
    outbound.last = {}
    return outbound, None


def gone_on(ledger: Ledger, checked: Checked, receipts: Sequence[Receipt]) -> Checked | None:
    """Extend a checked ledger by its new lines; None where the whole must be read.

    Parameters
    ----------
    ledger : Ledger
    checked : Checked
        Of the same ledger, earlier.
    receipts : sequence of Receipt
        The current ones.
    """
    try:
        with ledger.reading() as ledger_file:
            # A ledger never gets shorter, unless somebody cut it.
            if ledger_file is None or ledger_file.size < checked.size:
                return None
            digest = hashlib.sha256()
            _hash(ledger_file, checked.size, digest)
            if digest.hexdigest() != checked.sha256:
                return None
            came = list(takewhile(lambda line: line.n > checked.left.lines, ledger_file.backwards()))[::-1]
            size = ledger_file.size
        if not _follow(checked, came, size):
            return None
        if any(ledger.hash_at(receipt.n) != receipt.head for receipt in {*receipts} - checked.agreed):
            return None
    except LedgerError:
        return None
    left = checked.left.copy() if came else checked.left
    for line in came:
        left.add(line)
        digest.update(line.raw + b"\n")  # the checked bytes, as the file may change
    return Checked(left, size, digest.hexdigest(), checked.agreed.union(receipts))


def _follow(checked: Checked, came: Sequence[Line], size: int) -> bool:
    """Return whether only whole lines follow the checked part, in a ledger of this size."""
    new_bytes = sum(len(line.raw) + 1 for line in came)
    if new_bytes != size - checked.size or any(line.kind == REPAIRED for line in came):
        return False  # other bytes are among them, or were set aside
    # The full check handles lines of a clock that was set back.
    times = [checked.left.until, *(line.at for line in came)]
    if times != sorted(times):
        return False
    # The first new line must follow the last checked one, unless that changed meanwhile.
    return not came or came[0].before == (checked.left.head or START)


def _hash(locked_ledger: LockedLedger, size: int, digest: Any) -> None:
    """Add the first bytes of a ledger to a hash."""
    start = 0
    while start < size:
        block = os.pread(locked_ledger.file, min(BLOCK, size - start), start)
        if not block:
            return  # the file got shorter, so the hash differs
        digest.update(block)
        start += len(block)
