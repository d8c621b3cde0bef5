"""Receipts of a site's ledger by the coordinator.

Here are also the handlers that answer where a site is asked for its ledger's head.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flfed.deployment.site_state.trusted_files import read_terms
from flfed.errors import FlfedError, UsageError
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import CUT, Ledger, ledger_of
from flfed.records.ledger.line import RECEIPT
from flfed.records.ledger.verify import Inspection, Receipt
from flfed.signatures import HASH, coordinator_signed

if TYPE_CHECKING:
    from flwr.app import Message

    from flfed.updates.messages.countersign import SealedReply, SealReply


class RefusedReceipt(FlfedError):
    """A receipt that the site does not keep.

    The site's log says why.
    """


@dataclass(frozen=True)
class Receipts:
    """Signed receipts of a ledger's earlier heads.

    Attributes
    ----------
    signed : list of Receipt
        By the coordinator's key, or by one that it had before: a renewal named each.
    earlier : list of Receipt
        By a key that no renewal named: nobody knows whose.
    problems : list of str
        What in the file is not as it was written, or bears no signature.
    """

    signed: list[Receipt] = field(default_factory=list)
    earlier: list[Receipt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def all(self) -> list[Receipt]:
        """Return both kinds of receipts.

        A ledger that is whole agrees with either.
        """
        return [*self.earlier, *self.signed]


def _receipts_of(folder: SiteFolder) -> Ledger:
    return Ledger(folder.receipts, ordered=False)


def coordinator_key(folder: SiteFolder) -> str:
    """Return the coordinator's public signing key, as hex.

    It is the one that the site's kit or its last renewal named.

    Raises
    ------
    UsageError
        If the site's terms are absent or damaged.
    """
    return _keys(folder)[0]


def _keys(folder: SiteFolder) -> list[str]:
    """Return the coordinator's present and earlier keys.

    Its signed renewals tell them.
    """
    terms = read_terms(folder)
    earlier = terms.get("earlier-signing-keys", [])
    found = [terms.get("signing-key"), *(earlier if isinstance(earlier, list) else [None])]
    # One value that is no key makes the file unusable: what it says of keys must be whole.
    if not all(isinstance(key, str) and HASH.fullmatch(key) for key in found):
        raise UsageError(f"{folder.terms}: names no signing key; at the site: flfed site join KIT")
    return [str(key) for key in found]


def keep_receipt(folder: SiteFolder, receipt: Receipt, signature: str) -> None:
    """Add a receipt to those of the site, once.

    Raises
    ------
    RefusedReceipt
        If it bears no signature of the coordinator, or is of another ledger than the site's.
    """
    # A receipt is checked twice: that the coordinator signed it, and that it is of this very ledger.
    key = coordinator_key(folder)
    if receipt.site != folder.site or not coordinator_signed(receipt.facts(), signature, key):
        raise RefusedReceipt(f"a receipt for {folder.site} bears no signature of the coordinator; it is not kept")
    if ledger_of(folder).hash_at(receipt.n) != receipt.head:
        raise RefusedReceipt(f"a receipt for {folder.site} is of another ledger than its own; it is not kept")
    with _receipts_of(folder).held() as held:
        # What a crash left of a receipt harms nothing: the next one covers the same lines.
        repaired = held.repair(by="flfed", why=CUT)
    with _receipts_of(folder).held() as held:
        # The same receipt may come again after a lost reply; it is written once.
        last = next(held.backwards(), None)
        facts = {"run": receipt.run, "line": receipt.n, "head": receipt.head}
        if repaired is None and last is not None and facts.items() <= last.facts.items():
            return
        held.append(kind=RECEIPT, site=receipt.site, **facts, signature=signature, signing_key=key)


def read_receipts(folder: SiteFolder) -> Receipts:
    """Return a site's receipts and their problems.

    There are none where there is no file.
    """
    found, inspection = Receipts(), Inspection()
    ledger = _receipts_of(folder)
    keys: list[str] = []
    for line in inspection.look(ledger.raws()):
        # A line that is not as it was written is among the inspection's problems already.
        if line.kind != RECEIPT or not line.whole:
            continue
        keys = keys or _keys(folder)
        names = ("run", "head", "signature", "signing-key")
        run, head, signature, key = (str(line.facts.get(name)) for name in names)
        n = line.facts.get("line")
        receipt = Receipt(site=folder.site, run=run, n=n if type(n) is int else -1, head=head)
        # Valid by its own key first, then by whether a renewal vouches for that key.
        if not coordinator_signed(receipt.facts(), signature, key):
            found.problems.append(f"receipt {line.n} (run {run}) bears no signature that fits it")
        elif key in keys:
            found.signed.append(receipt)
        else:
            found.earlier.append(receipt)
    found.problems.extend(f"receipts: {problem}" for problem in (*inspection.problems, *ledger.open_to_others()))
    return found


def seal(message: Message, open_session: Callable[[], Any], site: str) -> Generator[Any, Any, SealReply]:
    """Answer with the head of the site's ledger.

    It is a handler of the client app; no row is read.
    """
    # Flower is loaded where a message is answered, and not where receipts are read.
    from flfed.updates.messages.countersign import SealReply, SealRequest

    request = SealRequest.from_record(message.content)
    ledger = ledger_of(SiteFolder(site))
    n, head = ledger.head()
    # The head at the line that the coordinator knows lets it see that nothing before was rewritten.
    return SealReply(n=n, head=head, at_known=ledger.hash_at(request.n_known))
    yield  # a handler is a generator, also one that asks for nothing


def sealed(message: Message, open_session: Callable[[], Any], site: str) -> Generator[Any, Any, SealedReply]:
    """Keep the coordinator's receipt.

    It is a handler of the client app; no row is read.
    """
    from flfed.federation.client.site_run import forget_compared
    from flfed.updates.messages.countersign import SealedReply, SealedRequest

    request = SealedRequest.from_record(message.content)
    receipt = Receipt(site=site, run=request.run, n=request.n, head=request.head)
    keep_receipt(SiteFolder(site), receipt, request.signature)
    forget_compared(site, request.run)
    return SealedReply()
    yield
