"""Countersigning of the sites' ledger heads.

It shows a ledger that was cut or rewritten.

Before a run's first round each head must continue the last signed one. After the run the new heads are signed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flfed.deployment.coordinator.certificates import signing_key
from flfed.errors import FlfedError, RunStopped
from flfed.paths import CoordinatorFolder
from flfed.records.ledger import CUT, Ledger, Receipt
from flfed.records.ledger_line import RESTARTED, START, Line
from flfed.refusals import Refusal
from flfed.signatures import sign_as_coordinator
from flfed.updates.messages.kinds import SEAL, SEALED
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from flfed.deployment.flower.grid import DeployedGrid
    from flfed.federation.recording.recorder import Recorder
    from flfed.federation.server.run_setting import Answers
    from flfed.updates.messages.enrol import SealedReply, SealReply

SIGNED = "signed"
SEE = "a backup of it"


class UnfollowedHead(FlfedError):
    """A ledger that does not continue its signed head."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Result of countersigning the ledgers of a run.

    Attributes
    ----------
    signed : dict of site to Receipt
        Receipts that this coordinator signed.
    faults : dict of site to reason
        Sites whose ledger is not signed, or that have no receipt.
    crossed : tuple of (kind, Answers)
        The two exchanges, with their bytes.
    """

    signed: Mapping[str, Receipt]
    faults: Mapping[str, str]
    crossed: tuple[tuple[str, Answers[Any]], ...]


def last_signed(folder: CoordinatorFolder, sites: Collection[str]) -> dict[str, Receipt]:
    """Return each site's last signed receipt.

    A site that never had one gets a receipt of no lines.
    """
    with _receipts(folder).lock() as locked_ledger:
        return _last_of(locked_ledger.backwards(), sites)


def sign_head(folder: CoordinatorFolder, receipt: Receipt, *, base_line: int, base_hash: str) -> str:
    """Sign the head of a site's ledger.

    Return the signature once the receipt is on this disk.

    Parameters
    ----------
    folder : CoordinatorFolder
    receipt : Receipt
        The head that the site reports of its ledger.
    base_line : int
        The line whose hash was requested.
    base_hash : str
        The hash of that line, as the site reports it.

    Raises
    ------
    UnfollowedHead
        If the site's ledger no longer has the last signed line as it was.

    Notes
    -----
    Only the ledger itself shows that the head really follows from that line: a dishonest site can report the old
    hash. But then its ledger and the receipts here, compared with each other, disagree.
    """
    key = signing_key(folder)
    _repair(folder)
    # Under the lock, so that two runs cannot sign two heads after the same line.
    with _receipts(folder).lock() as locked_ledger:
        last = _last_of(locked_ledger.backwards(), [receipt.site])[receipt.site]
        if why := _why_not(last, receipt, base_line, base_hash):
            raise UnfollowedHead(why)
        signature = sign_as_coordinator(receipt.facts(), key)
        # A head that was signed before is signed again without a second line.
        if receipt != last:
            facts = {"site": receipt.site, "run": receipt.run, "line": receipt.n, "head": receipt.head}
            locked_ledger.append(kind=SIGNED, **facts, signature=signature)
    return signature


def _why_not(last: Receipt, new: Receipt, base_line: int, base_hash: str) -> str:
    """Return why a head does not follow the signed one.

    The text is empty where it follows.
    """
    facts = {"site": new.site, "run": last.run, "n": last.n}
    # Another run signed meanwhile, so that the request named an older line: no fault of the site's.
    if base_line != last.n:
        return render("coordinator.ledger.meanwhile", **facts)
    # Fewer lines mean that it was cut; another hash at a signed line, that it was rewritten.
    if new.n < last.n:
        return render("coordinator.ledger.cut", lines=new.n, **facts)
    if base_hash != last.head or (new.n == last.n and new.head != last.head):
        return render("coordinator.ledger.rewritten", **facts)
    return ""


def unfollowed(
    grid: Grid, folder: CoordinatorFolder, run: str, nodes: Mapping[str, int], *, timeout: float
) -> tuple[dict[str, str], Answers[SealReply]]:
    """Return the sites whose ledgers do not continue.

    Each comes with its reason. The replies are returned too.

    Nothing is signed. Parameters and errors are as of `seal_all`. A site without a reply is among the faults of the
    replies: the state of its ledger is unknown.
    """
    last_by_site, heads = _heads(grid, folder, run, nodes, timeout)
    whys = {}
    for site, reply in heads.replies.items():
        new = Receipt(site=site, run=run, n=reply.n, head=reply.head)
        whys[site] = _why_not(last_by_site[site], new, last_by_site[site].n, reply.at_known)
    return {site: why for site, why in whys.items() if why}, heads


def show_lost(
    grid: Grid, folder: CoordinatorFolder, nodes: Mapping[str, int], cut: Collection[str], *, timeout: float
) -> Answers[SealedReply]:
    """Send sites the last receipt of a ledger that they may have lost; return their replies.

    A ledger that comes from a backup looks whole at its site. With this receipt the site sends nothing until a person
    there restores or restarts the ledger.

    Parameters
    ----------
    grid : Grid
    folder : CoordinatorFolder
    nodes : mapping of site to node id
    cut : collection of str
        Sites whose ledger does not continue its signed head. A site whose restart was noted here gets the receipt too:
        it may not know of the loss.
    timeout : float, seconds
    """
    from flfed.federation.server.run_setting import Answers, ask
    from flfed.updates.messages.enrol import SealedReply, SealedRequest

    key = signing_key(folder)
    with _receipts(folder).lock() as locked_ledger:
        lines = list(locked_ledger.backwards())
    last = _last_of(lines, nodes)
    requests = {}
    for site, receipt in _last_of(lines, nodes, of_lost=True).items():
        if receipt.n and (site in cut or last[site].n == 0):
            signature = sign_as_coordinator(receipt.facts(), key)
            requests[site] = SealedRequest(run=receipt.run, n=receipt.n, head=receipt.head, signature=signature)
    if not requests:
        return Answers({}, {}, {})
    receivers = {site: nodes[site] for site in requests}
    return ask(grid, SEALED, requests, receivers, SealedReply.from_record, timeout=timeout)


def _heads(
    grid: Grid, folder: CoordinatorFolder, run: str, nodes: Mapping[str, int], timeout: float
) -> tuple[dict[str, Receipt], Answers[SealReply]]:
    """Return each site's last signed receipt and present head.

    The head is the one that the site reports.
    """
    # Only a command that requests heads loads Flower; one that lists receipts does not.
    from flfed.federation.server.run_setting import ask
    from flfed.updates.messages.enrol import SealReply, SealRequest

    _repair(folder)
    last_by_site = last_signed(folder, nodes)
    questions = {site: SealRequest(run=run, n_known=last_by_site[site].n) for site in nodes}
    return last_by_site, ask(grid, SEAL, questions, nodes, SealReply.from_record, timeout=timeout)


def seal_all(grid: Grid, folder: CoordinatorFolder, run: str, nodes: Mapping[str, int], *, timeout: float) -> Sealed:
    """Countersign the ledgers of a run's sites.

    Ask for their heads, sign those that follow, and send the receipts.

    Parameters
    ----------
    grid : Grid
    folder : CoordinatorFolder
    run : str
    nodes : mapping of site to node id
    timeout : float, seconds
        For each of the two exchanges.

    Raises
    ------
    FlfedError
        If this coordinator's own receipts or its key cannot be read or written.
    """
    from flfed.federation.server.run_setting import Answers, ask
    from flfed.updates.messages.enrol import SealedReply, SealedRequest

    last_by_site, heads = _heads(grid, folder, run, nodes, timeout)
    signed: dict[str, Receipt] = {}
    receipts: dict[str, SealedRequest] = {}
    faults: dict[str, str] = {site: Refusal("ledger-unsigned", why=reason) for site, reason in heads.faults.items()}
    # One site's fault does not keep the others from their signatures.
    for site, reply in heads.replies.items():
        base = last_by_site[site].n
        receipt = Receipt(site=site, run=run, n=reply.n, head=reply.head)
        try:
            signature = sign_head(folder, receipt, base_line=base, base_hash=reply.at_known)
        except UnfollowedHead as error:
            faults[site] = str(error)
            continue
        signed[site] = receipt
        receipts[site] = SealedRequest(run=run, n=reply.n, head=reply.head, signature=signature)
    # Receipts go out after all are on this disk: no site may have one that is missing here.
    confirmations: Answers[SealedReply] = Answers({}, {}, {})
    if receipts:
        receivers = {site: nodes[site] for site in receipts}
        confirmations = ask(grid, SEALED, receipts, receivers, SealedReply.from_record, timeout=timeout)
    faults |= {site: Refusal("ledger-without-receipt", why=reason) for site, reason in confirmations.faults.items()}
    return Sealed(signed=signed, faults=dict(sorted(faults.items())), crossed=((SEAL, heads), (SEALED, confirmations)))


def note_restart(folder: CoordinatorFolder, site: str, *, by: str, why: str) -> Receipt:
    """Record that a site began another ledger.

    Return the last receipt of the lost one.

    The receipts here record it for good; the next run signs the ledger that the site has then.

    Raises
    ------
    UsageError
        If no line of this site's ledger was signed so far, or none since the last time.
    """
    _repair(folder)
    with _receipts(folder).lock() as locked_ledger:
        last = _last_of(locked_ledger.backwards(), [site])[site]
        # Without a signed line there is nothing that a new ledger could contradict.
        if last.n == 0:
            raise usage_error("coordinator.ledger.free", site=site)
        facts = {"line": last.n, "head": last.head, "by": by, "why": why}
        locked_ledger.append(kind=RESTARTED, site=site, run=last.run, **facts)
    return last


def _receipts(folder: CoordinatorFolder) -> Ledger:
    return Ledger(folder.receipts, see=SEE, ordered=False)


def _repair(folder: CoordinatorFolder) -> None:
    """Set aside an incomplete receipt after a crash.

    The receipt was never sent, so no site has it.
    """
    with _receipts(folder).lock() as locked_ledger:
        locked_ledger.repair(by="flfed", why=CUT)


def _last_of(lines: Iterable[Line], sites: Collection[str], *, of_lost: bool = False) -> dict[str, Receipt]:
    """Return each site's last receipt, with `of_lost` also that of a ledger whose loss was noted.

    `lines` go from the last to the first.
    """
    receipts: dict[str, Receipt] = {}
    for line in lines:
        site = str(line.facts.get("site"))
        if line.kind in (SIGNED, RESTARTED) and site in sites and site not in receipts:
            # Signed lines of a lost ledger do not bind the next one.
            receipts[site] = Receipt(site=site, run=str(line.facts["run"]), n=0, head=START)
            if line.kind == SIGNED or of_lost:
                receipts[site] = replace(receipts[site], n=int(line.facts["line"]), head=str(line.facts["head"]))
            if len(receipts) == len(sites):
                break
    return {site: receipts.get(site, Receipt(site=site, run="", n=0, head=START)) for site in sites}


SECONDS = 30.0
"""For each of the two exchanges: a site replies at once, or its node is away."""
AT_ONCE = 10.0
"""Where a person who interrupted the run waits."""


@contextmanager
def sealed_afterwards(grid: DeployedGrid, recorder: Recorder) -> Iterator[None]:
    """Countersign the sites' ledgers after the block.

    A run that failed, or was interrupted, is sealed too: its releases have left the sites.
    """
    try:
        yield
    except BaseException as error:
        # A person who interrupted the run waits, so the sites get less time to answer.
        seconds = SECONDS if isinstance(error, FlfedError) else AT_ONCE
        with suppress(FlfedError):  # the first error is the one that counts
            _seal(grid, recorder, seconds)
        raise
    _seal(grid, recorder)


def _seal(grid: DeployedGrid, recorder: Recorder, seconds: float = SECONDS) -> None:
    """Countersign, and record the messages and faults.

    A run does not fail by a ledger that could not be signed.
    """
    taking_part = {site: node for site, node in grid.nodes.items() if site in recorder.taking_part}
    try:
        outcome = seal_all(grid, CoordinatorFolder.default(), recorder.writer.run, taking_part, timeout=seconds)
    except FlfedError as error:
        recorder.note(render("run.notes.unsigned", why=error))
        return
    for kind, answers in outcome.crossed:
        recorder.crossed(kind, answers.to_node, answers.to_server)
    recorder.events("fault", outcome.faults)


def check_heads(grid: Grid, recorder: Recorder, nodes: Mapping[str, int]) -> None:
    """Check that a run uses no outdated or exchanged ledger of a participating site.

    Raises
    ------
    RunStopped
        If a ledger does not continue its last signed head, with the site and the line; or if the receipts here
        cannot be read.

    Notes
    -----
    A backup of a site restores its receipts together with its ledger; it cannot restore the coordinator's. After such
    a restore the site would forget what it had spent and released since, and could be asked for it again.
    """
    run = recorder.writer.run
    folder = CoordinatorFolder.default()
    try:
        whys, heads = unfollowed(grid, folder, run, nodes, timeout=SECONDS)
        shown = show_lost(grid, folder, nodes, whys, timeout=SECONDS)
    except FlfedError as error:
        raise RunStopped(render("run.stops.heads", why=error)) from None
    # The exchange is recorded in any case: its bytes left the sites.
    recorder.crossed(SEAL, heads.to_node, heads.to_server)
    recorder.crossed(SEALED, shown.to_node, shown.to_server)
    for site, why in shown.faults.items():
        if site in heads.replies:
            whys.setdefault(site, render("coordinator.ledger.unaware", site=site, why=why))
    recorder.events("fault", {site: render("run.faults.unchecked", why=why) for site, why in heads.faults.items()})
    if whys:
        raise RunStopped(render("run.stops.ledgers", why="; ".join(whys.values())))
