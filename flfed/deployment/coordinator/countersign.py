"""Countersigning of the sites' ledger heads.

A ledger that is cut or rewritten shows by it.

Before a run's first round each head is held to the one that was signed last; after it, those that follow are signed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flfed.deployment.coordinator.certificates import signing_key
from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.paths import CoordinatorFolder
from flfed.records.ledger import CUT, Ledger, Receipt
from flfed.records.ledger_line import RESTARTED, START, Line
from flfed.refusals import Refusal
from flfed.signatures import sign_as_coordinator
from flfed.updates.messages.kinds import SEAL, SEALED

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from flfed.deployment.flower.grid import DeployedGrid
    from flfed.federation.recording.recorder import Recorder
    from flfed.federation.server.run_setting import Answers
    from flfed.updates.messages.enrol import SealReply

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
        What this coordinator signed.
    faults : dict of site to reason
        Whose ledger is not signed, or who has no receipt.
    crossed : tuple of (kind, Answers)
        What was asked and answered, with its bytes.
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


def sign_head(
    folder: CoordinatorFolder, site: str, run: str, n: int, head: str, *, base_line: int, base_hash: str
) -> str:
    """Sign the head of a site's ledger.

    Return the signature once it is on this disk that it was given.

    Parameters
    ----------
    folder : CoordinatorFolder
    site, run : str
    n : int
    head : str
        What the site says its ledger's head is.
    base_line : int
        The line that it was asked for.
    base_hash : str
        What the site says is the hash of that line.

    Raises
    ------
    UnfollowedHead
        If the site's ledger no longer has, as it was, the line that was signed last.

    Notes
    -----
    That the head really follows from that line only the ledger itself shows: a site that lies says the
    old hash. But then its ledger and the receipts here, held side by side, do not agree.
    """
    receipt = Receipt(site=site, run=run, n=n, head=head)
    key = signing_key(folder)
    _repair(folder)
    # Under the lock, so that two runs cannot sign two heads after the same line.
    with _receipts(folder).lock() as locked_ledger:
        last = _last_of(locked_ledger.backwards(), [site])[site]
        if why := _why_not(last, receipt, base_line, base_hash):
            raise UnfollowedHead(why)
        signature = sign_as_coordinator(receipt.facts(), key)
        # A head that was signed already is signed again without a second line.
        if receipt != last:
            locked_ledger.append(kind=SIGNED, site=site, run=run, line=n, head=head, signature=signature)
    return signature


def _why_not(last: Receipt, new: Receipt, base_line: int, base_hash: str) -> str:
    """Return why a head does not follow the signed one.

    An empty text where it follows.
    """
    ask = f"ask the site what happened, there: flfed site ledger {new.site} --verify"
    ask += f"; where it was lost: flfed coordinator ledger {new.site} --help"
    signed = f"{last.n} lines were signed at run {last.run}"
    # Another run signed meanwhile, so that the site was asked about an older line: no fault of the site's.
    if base_line != last.n:
        return f"{new.site}'s ledger was signed at run {last.run} meanwhile; the next run signs these lines too"
    # Fewer lines mean that it was cut; another hash at a signed line, that it was rewritten.
    if new.n < last.n:
        return f"{new.site}'s ledger was cut: it has {new.n} lines, and {signed}; {ask}"
    if base_hash != last.head or (new.n == last.n and new.head != last.head):
        line = f"line {last.n} is not the one that was signed at run {last.run}"
        return f"{new.site}'s ledger was written anew: {line}; {ask}"
    return ""


def unfollowed(
    grid: Grid, folder: CoordinatorFolder, run: str, nodes: Mapping[str, int], *, timeout: float
) -> tuple[dict[str, str], Answers[SealReply]]:
    """Return the sites whose ledgers do not continue.

    Each comes with its reason, beside what was answered.

    Nothing is signed. Parameters and errors as of `seal_all`. A site that does not answer is among the faults of
    the answers: of its ledger nothing is known.
    """
    last_by_site, heads = _heads(grid, folder, run, nodes, timeout)
    whys = {}
    for site, reply in heads.replies.items():
        new = Receipt(site=site, run=run, n=reply.n, head=reply.head)
        whys[site] = _why_not(last_by_site[site], new, last_by_site[site].n, reply.at_known)
    return {site: why for site, why in whys.items() if why}, heads


def _heads(
    grid: Grid, folder: CoordinatorFolder, run: str, nodes: Mapping[str, int], timeout: float
) -> tuple[dict[str, Receipt], Answers[SealReply]]:
    """Return each site's last signed receipt and present head.

    The head is what the site itself says.
    """
    # Who asks a site has Flower at hand; who only looks at what is signed needs none.
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
        line_hash = reply.at_known
        try:
            signature = sign_head(
                folder, site, run, reply.n, reply.head, base_line=last_by_site[site].n, base_hash=line_hash
            )
        except UnfollowedHead as error:
            faults[site] = str(error)
            continue
        signed[site] = Receipt(site=site, run=run, n=reply.n, head=reply.head)
        receipts[site] = SealedRequest(run=run, n=reply.n, head=reply.head, signature=signature)
    # Receipts go out after all are on this disk: none may be at a site that is not known here.
    confirmations: Answers[SealedReply] = Answers({}, {}, {})
    if receipts:
        receivers = {site: nodes[site] for site in receipts}
        confirmations = ask(grid, SEALED, receipts, receivers, SealedReply.from_record, timeout=timeout)
    faults |= {site: Refusal("ledger-without-receipt", why=reason) for site, reason in confirmations.faults.items()}
    return Sealed(signed=signed, faults=dict(sorted(faults.items())), crossed=((SEAL, heads), (SEALED, confirmations)))


def note_restart(folder: CoordinatorFolder, site: str, *, by: str, why: str) -> Receipt:
    """Record that a site began another ledger.

    Return the last receipt of the lost one.

    It is on record here, among the receipts, for good; the next run signs what the site has then.

    Raises
    ------
    UsageError
        If nothing of this site's ledger was signed so far, or nothing since the last time.
    """
    _repair(folder)
    with _receipts(folder).lock() as locked_ledger:
        last = _last_of(locked_ledger.backwards(), [site])[site]
        # Without a signed line there is nothing that a new ledger could contradict.
        if last.n == 0:
            raise UsageError(f"no line of {site}'s ledger is signed: it may begin as it likes")
        facts = {"line": last.n, "head": last.head, "by": by, "why": why}
        locked_ledger.append(kind=RESTARTED, site=site, run=last.run, **facts)
    return last


def _receipts(folder: CoordinatorFolder) -> Ledger:
    return Ledger(folder.receipts, see=SEE, ordered=False)


def _repair(folder: CoordinatorFolder) -> None:
    """Set aside an incomplete receipt after a crash.

    It was never sent, so nobody has it.
    """
    with _receipts(folder).lock() as locked_ledger:
        locked_ledger.repair(by="flfed", why=CUT)


def _last_of(lines: Iterable[Line], sites: Collection[str]) -> dict[str, Receipt]:
    """Return each site's last receipt.

    `lines` go from the last to the first.
    """
    receipts: dict[str, Receipt] = {}
    for line in lines:
        site = str(line.facts.get("site"))
        if line.kind in (SIGNED, RESTARTED) and site in sites and site not in receipts:
            # What was signed of a ledger that was lost binds the next one to nothing.
            receipts[site] = Receipt(site=site, run=str(line.facts["run"]), n=0, head=START)
            if line.kind == SIGNED:
                receipts[site] = replace(receipts[site], n=int(line.facts["line"]), head=str(line.facts["head"]))
            if len(receipts) == len(sites):
                break
    return {site: receipts.get(site, Receipt(site=site, run="", n=0, head=START)) for site in sites}


SECONDS = 30.0
"""For each of the two exchanges: a site answers at once, or its node is away."""
AT_ONCE = 10.0
"""Where a person who interrupted the run waits."""


@contextmanager
def sealed_afterwards(grid: DeployedGrid, recorder: Recorder) -> Iterator[None]:
    """Countersign the sites' ledgers after the block.

    A run that failed, or was interrupted, is sealed too: what left the sites has left.
    """
    try:
        yield
    except BaseException as error:
        # A person who interrupted the run waits, so the sites get less time to answer.
        seconds = SECONDS if isinstance(error, FlfedError) else AT_ONCE
        with suppress(FlfedError):  # the first error is what counts
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
        recorder.note(f"the ledgers of the sites are not signed: {error}")
        return
    for kind, answers in outcome.crossed:
        recorder.crossed(kind, answers.to_node, answers.to_server)
    recorder.events("fault", outcome.faults)


NOT_COUNTERSIGNED = "its ledger is not held to what was signed of it"


@dataclass(frozen=True)
class SignedHeads:
    """Guard against runs on outdated or exchanged ledgers.

    A run stops where a ledger is older than what was signed of it, or is another one.

    Parameters
    ----------
    grid : Grid
    recorder : Recorder

    Notes
    -----
    A site's own receipts can be put back together with its ledger, from one backup; the coordinator's cannot. What
    the site had spent and released since would be forgotten, and might be asked for again.
    """

    grid: Grid
    recorder: Recorder

    def check(self, nodes: Mapping[str, int]) -> None:
        """Ask the participating sites for their ledgers' heads.

        Raises
        ------
        RunStopped
            If a ledger does not go on from what was signed, which names site and line; or if what was signed cannot
            be read here.
        """
        recorder = self.recorder
        run = recorder.writer.run
        try:
            whys, heads = unfollowed(self.grid, CoordinatorFolder.default(), run, nodes, timeout=SECONDS)
        except FlfedError as error:
            why = f"no round was begun: the ledgers of the sites cannot be held to what was signed of them: {error}"
            raise RunStopped(why) from None
        # The exchange is recorded in any case: its bytes left the sites.
        recorder.crossed(SEAL, heads.to_node, heads.to_server)
        recorder.events("fault", {site: f"{NOT_COUNTERSIGNED}: {why}" for site, why in heads.faults.items()})
        if whys:
            # The record may name sites by pseudonyms only; the person at the terminal sees the names.
            stopped = RunStopped(f"no round was begun: {'; '.join(whys.values())}")
            stopped.recorded = recorder.shared_as.text(str(stopped))
            raise stopped
