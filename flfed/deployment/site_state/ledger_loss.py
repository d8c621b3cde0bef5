"""Detection of a lost or truncated ledger: receipts, and a restart.

The coordinator signs the ledger's head as a receipt; the handlers for its requests are here, too. A ledger that
restarts at zero would let the whole budget be spent again. So a restart is on record: the new ledger's first line has
the person and the reason. Readable lines about releases and spent privacy are carried over.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flfed.callbacks import now_utc
from flfed.deployment.site_state.trusted_files import read_terms
from flfed.errors import FlfedError
from flfed.federation.client.released.accounts import SPENT
from flfed.federation.client.released.sets import RELEASED
from flfed.files import locked
from flfed.paths import SiteFolder
from flfed.records import ledger_line
from flfed.records.ledger import CUT, Inspection, Ledger, Receipt, ledger_of
from flfed.records.ledger_line import Line, read_line
from flfed.refusals import Refusal
from flfed.signatures import HASH, coordinator_signed
from flfed.updates.messages.kinds import COMPARE, SEAL, SEALED
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flwr.app import Message

    from flfed.updates.messages.enrol import SealedReply, SealReply


class RefusedReceipt(FlfedError):
    """A receipt that the site refuses.

    The site's log has the reason.
    """


@dataclass(frozen=True)
class Receipts:
    """Signed receipts of a ledger's earlier heads.

    Attributes
    ----------
    signed : list of Receipt
        By the coordinator's key.
    earlier : list of Receipt
        By another key, such as that of a coordinator that the site joined before.
    problems : list of str
        Changed or unsigned parts of the file.
    """

    signed: list[Receipt] = field(default_factory=list)
    earlier: list[Receipt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def all(self) -> list[Receipt]:
        """Return both kinds of receipts.

        A complete ledger agrees with either.
        """
        return [*self.earlier, *self.signed]


def _receipts_of(folder: SiteFolder) -> Ledger:
    return Ledger(folder.receipts, ordered=False)


def coordinator_key(folder: SiteFolder) -> str:
    """Return the coordinator's public signing key, as hex.

    It is the one that the site's kit named.

    Raises
    ------
    UsageError
        If the site's terms are absent or damaged.
    """
    key = read_terms(folder).get("signing-key")
    if not isinstance(key, str) or not HASH.fullmatch(key):
        raise usage_error("gate.files.signer", file=folder.terms)
    return key


def keep_receipt(folder: SiteFolder, receipt: Receipt, signature: str) -> None:
    """Add a receipt to those of the site, once.

    A receipt of a line that the ledger lacks is kept too: it shows that the ledger comes from a backup, and from then
    on nothing leaves. The loss that the first line of a restarted ledger records is known already.

    Raises
    ------
    RefusedReceipt
        If it bears no signature of the coordinator, or the ledger has no such line.
    """
    key = coordinator_key(folder)
    if receipt.site != folder.site or not coordinator_signed(receipt.facts(), signature, key):
        raise RefusedReceipt(render("gate.ledger.unsigned", site=folder.site))
    is_missing = ledger_of(folder).hash_at(receipt.n) != receipt.head
    if is_missing and receipt.n == 0:
        raise RefusedReceipt(render("gate.ledger.foreign", site=folder.site))
    if is_missing and _was_restarted_since(folder, receipt):
        return
    _add_receipt(folder, receipt, signature, key)
    if is_missing:
        raise RefusedReceipt(render("gate.ledger.short", n=receipt.n))


def _was_restarted_since(folder: SiteFolder, receipt: Receipt) -> bool:
    """Return whether a restart recorded this receipt, or set the ledger with its line aside."""
    aside = [Ledger(path) for path in folder.gate.glob(f"{folder.ledger.stem}-before-*.jsonl")]
    for ledger in (ledger_of(folder), *aside):
        first = ledger.first()
        if first is not None and first.kind == ledger_line.RESTARTED:
            recorded = (first.facts.get("signed-line"), first.facts.get("signed-head"))
            if recorded == (receipt.n, receipt.head):
                return True
    return any(_has_line(ledger, receipt) for ledger in aside)


def _has_line(ledger: Ledger, receipt: Receipt) -> bool:
    """Return whether a ledger that was set aside has the line of a receipt; a damaged one counts as without."""
    try:
        return ledger.hash_at(receipt.n) == receipt.head
    except FlfedError:
        return False


def _add_receipt(folder: SiteFolder, receipt: Receipt, signature: str, key: str) -> None:
    with _receipts_of(folder).lock() as locked_ledger:
        # A receipt cut off by a crash harms nothing: the next one covers the same lines.
        repaired = locked_ledger.repair(by="flfed", why=CUT)
    with _receipts_of(folder).lock() as locked_ledger:
        # The same receipt may come again after a lost reply; it is written once.
        last = next(locked_ledger.backwards(), None)
        facts = {"run": receipt.run, "line": receipt.n, "head": receipt.head}
        if repaired is None and last is not None and facts.items() <= last.facts.items():
            return
        locked_ledger.append(kind=ledger_line.RECEIPT, site=receipt.site, **facts, signature=signature, signing_key=key)


def read_receipts(folder: SiteFolder, path: Path | None = None) -> Receipts:
    """Return a site's receipts and their problems.

    There are none where there is no file.

    Parameters
    ----------
    folder : SiteFolder
    path : Path, optional
        Another file of receipts for this site; by default its own.
    """
    receipts = Receipts()
    inspection = Inspection(ordered=False)
    ledger = Ledger(path or folder.receipts, ordered=False)
    present = ""
    for line in inspection.look(ledger.raws()):
        # A changed line is among the inspection's problems already.
        if line.kind != ledger_line.RECEIPT or not line.whole:
            continue
        present = present or coordinator_key(folder)
        names = ("run", "head", "signature", "signing-key")
        run, head, signature, key = (str(line.facts.get(name)) for name in names)
        n = line.facts.get("line")
        if type(n) is not int:
            n = -1
        receipt = Receipt(site=folder.site, run=run, n=n, head=head)
        # First its own key must verify it, then it is asked whose key that is.
        if not coordinator_signed(receipt.facts(), signature, key):
            receipts.problems.append(render("gate.ledger.receipt", n=line.n, run=run))
        elif key == present:
            receipts.signed.append(receipt)
        else:
            receipts.earlier.append(receipt)
    receipts.problems.extend(f"receipts: {problem}" for problem in (*inspection.problems, *ledger.open_to_others()))
    return receipts


def seal(message: Message, site: str) -> SealReply:
    """Return the head of the site's ledger."""
    # Flower is loaded only where a message is answered, and not where receipts are read.
    from flfed.updates.messages.enrol import SealReply, SealRequest

    request = SealRequest.from_record(message.content)
    ledger = ledger_of(SiteFolder(site))
    n, head = ledger.head()
    # The head at the coordinator's last line shows it that nothing before was rewritten.
    return SealReply(n=n, head=head, at_known=ledger.hash_at(request.n_known))


def sealed(message: Message, site: str) -> SealedReply:
    """Store the coordinator's receipt."""
    from flfed.updates.checkpoints.site_state import ANSWERED, StateFiles, open_reply_cache
    from flfed.updates.messages.enrol import SealedReply, SealedRequest

    request = SealedRequest.from_record(message.content)
    receipt = Receipt(site=site, run=request.run, n=request.n, head=request.head)
    keep_receipt(SiteFolder(site), receipt, request.signature)
    # A run that stopped is sealed, too, and may be resumed: it is over where its comparison left in a sum.
    cache = open_reply_cache(site, request.run)
    if cache is not None and any(name.startswith(f"{ANSWERED}{COMPARE}") for name in StateFiles(cache).names()):
        cache.forget()
    return SealedReply()


SEALERS: dict[str, Callable[[Message, str], SealReply | SealedReply]] = {SEAL: seal, SEALED: sealed}
"""Handlers of requests for a site's ledger, by kind of message; no row is read."""


LOG = logging.getLogger("flfed.site")


def loss(folder: SiteFolder, ledger: Ledger) -> str:
    """Return the evidence of a lost or truncated ledger.

    The text is empty where there is none.

    The evidence is beside the ledger: the coordinator's receipts of its heads, the sets of rows whose sums left, and
    their key. A site that never had any of them has lost nothing.

    Raises
    ------
    LedgerError
        If the part of the ledger that is read was changed.
    """
    # Three traces, the strongest first: a signed head, rows whose sums left, and the key that names them.
    for n, head in _decisive_receipts(folder):
        if ledger.hash_at(n) != head:
            return render("gate.ledger.short", n=n)
    has_row_sets = any(HASH.fullmatch(path.name) for path in (folder.gate / "released").glob("*/*"))
    if has_row_sets and not any(line.kind in (RELEASED, ledger_line.RESTARTED) for line in ledger.lines()):
        return render("gate.ledger.lineless")
    # Behind its lock: another process may have the key since a moment, and its first line only now.
    if (folder.gate / "rows.key").exists() and ledger.last() is None:
        return render("gate.ledger.absent")
    return ""


def _decisive_receipts(folder: SiteFolder) -> list[tuple[int, str]]:
    """Return line and head of the last receipt and of that with the highest line; none where there is none.

    Receipts may come late, so the last one may have a lower line. Signatures are not checked here: an unsigned receipt
    can only keep the site from answering.
    """
    highest = last = (0, ledger_line.START)
    for raw in Ledger(folder.receipts).raws():
        line = read_line(raw.removesuffix(b"\n"))
        n = line.facts.get("line") if line is not None and line.kind == ledger_line.RECEIPT else None
        if line is not None and isinstance(n, int) and n > 0:
            last = (n, str(line.facts.get("head")))
            highest = max(highest, last, key=lambda receipt: receipt[0])
    return [highest, last]


@dataclass
class Continuity:
    """Watcher of a ledger's continuity.

    It shows whether the ledger continues its last seen line, and if not, whether it was lost.

    Parameters
    ----------
    folder : SiteFolder
    ledger : Ledger

    Notes
    -----
    The traces beside the ledger are read once a process, and again where the last line seen is gone, or another receipt
    came. Else only later lines are read.
    """

    folder: SiteFolder
    ledger: Ledger
    _seen: tuple[int, str] | None = None
    _receipts: int = 0

    def refusal(self) -> Refusal | None:
        """Return why the ledger can take no line, or None.

        The sentence is the site's answer, which the ledger cannot record either. The ledger was lost or cut, or its
        last line is later than the clock.

        Raises
        ------
        LedgerError
            If the part of the ledger that is read was changed.
        """
        last = self.ledger.last()
        receipts = self._receipt_bytes()
        if self._seen is None or receipts != self._receipts or self.ledger.hash_at(self._seen[0]) != self._seen[1]:
            lost = loss(self.folder, self.ledger)
            if lost:
                LOG.error(render("gate.log.lost", why=lost))
                self._seen = None
                return lost_refusal(self.folder)
        # Where the clock is behind the last line, no further line would be in order of time.
        if last is not None and self.ledger.is_ahead(last):
            LOG.error(render("gate.log.ahead", **vars(last)))
            return ahead(last, self.folder.site)
        self._seen = (last.n, last.hash) if last is not None else (0, ledger_line.START)
        self._receipts = receipts
        return None

    def _receipt_bytes(self) -> int:
        """Return the size of the file of receipts, which only grows; 0 where there is none."""
        try:
            return self.folder.receipts.stat().st_size
        except FileNotFoundError:
            return 0


def lost_refusal(folder: SiteFolder) -> Refusal:
    """Return the refusal of a lost ledger."""
    return Refusal("ledger-lost", site=folder.site)


def ahead(last: Line, site: str) -> Refusal:
    """Return the refusal of a ledger ahead of the clock."""
    return Refusal("ledger-ahead", line=last.n, at=last.at[:24], site=site)


@dataclass(frozen=True)
class Restarted:
    """Result of a restarted ledger.

    It has the first line, the files that were set aside, how many lines were carried over, and the runs that get no
    further answer.
    """

    line: Line
    aside: tuple[Path, ...]
    carried: int
    ended: tuple[str, ...]


Charge = Callable[[Ledger], None]
"""Charges a new ledger for the runs that the lost one may have had."""


def restart(
    folder: SiteFolder, *, by: str, why: str, now: datetime | None = None, charge: Charge = lambda ledger: None
) -> Restarted:
    """Begin a new ledger for a site.

    The rest of the earlier one, and its receipts, are set aside.

    Intact lines of runs follow the new first line, each with its earlier number and time (`carried-from`,
    `carried-at`): answered questions, cohorts, spent privacy, released rows. Where lines may be missing, each
    study needs a new approval, and masked sums need all pinned sites.

    Parameters
    ----------
    folder : SiteFolder
    by, why : str
        The person and the reason. The first line has both, with the last receipt of the earlier ledger, and the hash
        of its rest.
    now : datetime, optional
    charge : callable (Ledger)
        Called with the new ledger before it takes the old one's place, where lines may be missing.

    Raises
    ------
    UsageError
        If every line is intact, none is known to be lost and none later than the clock, or only its last line is
        torn.

    Notes
    -----
    The coordinator reports that the ledger was cut until a person there learns the reason and records the restart, too
    (`flfed coordinator ledger SITE --restart WHY`). No site can forget alone.
    """
    when = now or now_utc()
    ledger = ledger_of(folder, clock=lambda: when)
    # The gate's folder is locked too, so that no second restart comes in between.
    with locked(folder.gate):
        receipts = read_receipts(folder).all() if folder.receipts.exists() else []
        absent = not folder.ledger.exists()
        ahead = _check_needed(folder, ledger, receipts)
        stem = f"{when:%Y%m%dT%H%M%SZ}"
        # Under the ledger's own lock: a waiting process opens the new one, and no line is added to the old one.
        with ledger.lock():
            facts = {"by": by, "why": why, **_lost(folder.ledger, receipts), **ahead}
            aside = [
                (path, path.with_name(f"{path.stem}-before-{stem}.jsonl"))
                for path in (folder.receipts, folder.ledger)
                if path.exists() and not (absent and path == folder.ledger)
            ]
            if any(to.exists() for _, to in aside):
                raise usage_error("gate.ledger.twice", site=folder.site)
            coming = folder.ledger.with_name("ledger-coming.jsonl")
            # The new ledger is complete under another name before it takes the old one's place.
            coming.unlink(missing_ok=True)
            begun = Ledger(coming, clock=lambda: when)
            line = begun.append(kind=ledger_line.RESTARTED, **facts)
            carried = _carry(folder, begun)
            ended: tuple[str, ...] = ()
            if line.follows_loss:
                charge(begun)
                ended = end_runs(folder, begun, by=by)
            # Linked and not moved: until the last step the old ledger is in its place.
            for path, to in aside:
                os.link(path, to)
            # The ledger first: after a crash in between, the receipts do not fit, and the restart is repeated.
            os.replace(coming, folder.ledger)
            folder.receipts.unlink(missing_ok=True)
            if line.follows_loss:
                remove_states(folder)
    return Restarted(line, tuple(to for _, to in aside), carried, ended)


def end_runs(folder: SiteFolder, ledger: Ledger, *, by: str) -> tuple[str, ...]:
    """Record each run whose state is here, and return their names: they get no further answer.

    The state is of the backup. A run that went on from it would use the masks of its secure sums twice.
    """
    runs = sorted(path.name for path in folder.states.iterdir()) if folder.states.is_dir() else []
    for run in runs:
        ledger.append(kind=ledger_line.ENDED, run=run, by=by)
    return tuple(runs)


def remove_states(folder: SiteFolder) -> None:
    """Remove the state of all runs."""
    shutil.rmtree(folder.states, ignore_errors=True)


def _carry(folder: SiteFolder, begun: Ledger) -> int:
    """Carry over the readable lines of runs, and return how many they are."""
    many = 0
    with folder.ledger.open("rb") as raws:  # as it stands: its lock is held
        for line in Inspection().look(raws):
            if line.whole and _comes_over(folder, line):
                was = {ledger_line.CARRIED: line.n, ledger_line.CARRIED_AT: line.at}
                begun.append(kind=line.kind, **{**was, **line.facts})  # of one carried before: where it was first
                many += 1
    return many


def _comes_over(folder: SiteFolder, line: Line) -> bool:
    """Return whether a line is carried over to a new ledger.

    It records a release of a run, spent privacy, or added comparisons. A line about rows whose set is gone is left out:
    no rows could be compared with it, and nothing would leave again.
    """
    if line.kind == RELEASED:
        rows_sha256 = str(line.facts.get("rows-sha256"))
        return bool(HASH.fullmatch(rows_sha256)) and any((folder.gate / RELEASED).glob(f"*/{rows_sha256}"))
    of_run = line.kind in (SPENT, ledger_line.ADDED) or bool(line.facts.get("run"))
    return of_run and line.kind not in (ledger_line.REFUSED, ledger_line.ERROR, ledger_line.WITHHELD)


def _check_needed(folder: SiteFolder, ledger: Ledger, receipts: list[Receipt]) -> dict[str, object]:
    """Return the line later than the clock, if any.

    With it comes whether every line is there.

    Raises `UsageError` where there is no reason for a restart.
    """
    # A torn last line can be repaired, which loses nothing else.
    if ledger.is_torn():
        raise usage_error("gate.ledger.torn", site=folder.site)
    inspection = Inspection(tuple(receipts))
    deque(inspection.look(ledger.raws()), maxlen=0)
    if inspection.last is None or inspection.problems or loss(folder, ledger):
        return {}
    if ledger.is_ahead(inspection.last):
        complete = {} if ledger.loss_before() else {ledger_line.COMPLETE: True}
        return {"ahead-line": inspection.last.n, "ahead-at": inspection.last.at, **complete}
    state = "signed" if receipts else "whole"
    raise usage_error(f"gate.restart.{state}", site=folder.site)


def _lost(ledger: Path, receipts: list[Receipt]) -> dict[str, object]:
    """Return the facts of the lost ledger for its successor.

    They are the hash and the size of its rest, and its last signed head.
    """
    left = ledger.read_bytes() if ledger.exists() else b""
    last = max(receipts, key=lambda receipt: receipt.n, default=None)
    signed = {} if last is None else {"signed-run": last.run, "signed-line": last.n, "signed-head": last.head}
    return {"left-bytes": len(left), "left-sha256": hashlib.sha256(left).hexdigest(), **signed}
