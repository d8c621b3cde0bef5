"""Messages by which the coordinator countersigns a site's ledger.

It signs the ledger's head. Each class says what its message reveals.

Two exchanges: the site says what its ledger's head is, the coordinator signs it and sends the signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flfed.refusals import Refusal
from flfed.updates.messages import kinds
from flfed.updates.messages.fields import MalformedMessage, PlainMessage

SEAL = kinds.SEAL
SEALED = kinds.SEALED
RunName = Annotated[str, r"[A-Za-z0-9][A-Za-z0-9-]{0,99}"]
Hash = Annotated[str, r"[0-9a-f]{64}"]
HashOrNone = Annotated[str, r"([0-9a-f]{64})?"]
Signature = Annotated[str, r"[0-9a-f]{128}"]


class _Counts:
    """Message that counts lines of a ledger."""

    def __post_init__(self) -> None:
        """Refuse a negative count."""
        if any(isinstance(value, int) and value < 0 for value in vars(self).values()):
            raise MalformedMessage(Refusal("lines-negative", message=type(self).__name__))


@dataclass(frozen=True, kw_only=True)
class SealRequest(_Counts, PlainMessage):
    """Request for the head of a site's ledger.

    Attributes
    ----------
    run : str
        Its name.
    n_known : int
        Lines of the site's ledger when the coordinator last signed its head; 0 where it never did.

    Reveals: nothing about rows; it goes to the site.
    """

    run: RunName
    n_known: int


@dataclass(frozen=True, kw_only=True)
class SealReply(_Counts, PlainMessage):
    """The head of a site's ledger.

    Attributes
    ----------
    n : int
        Lines of the ledger.
    head : str
        Hash of the last of them; zeros where there is none.
    at_known : str
        Hash of the line that the coordinator signed last; empty where the ledger no longer has it.

    Reveals: nothing about rows. How many messages the site has answered or refused in all, under
    every study, so that a reader sees by how many it grew since the run before. The hashes tell
    nothing to who does not know the lines; who can guess a whole line, with its time and the hash of
    what left, and knows the one before it, can see that the guess is right.
    """

    n: int
    head: Hash
    at_known: HashOrNone = ""


@dataclass(frozen=True, kw_only=True)
class SealedRequest(_Counts, PlainMessage):
    """Signature of the coordinator over a ledger's head.

    It is over the coordinator's name, the run, and the head of the site's ledger.

    Attributes
    ----------
    run : str
        Its name.
    n : int
        Lines of the ledger.
    head : str
        Hash of the last of them.
    signature : str
        Ed25519, as hex.

    Reveals: nothing about rows; it goes to the site.
    """

    run: RunName
    n: int
    head: Hash
    signature: Signature


@dataclass(frozen=True, kw_only=True)
class SealedReply(PlainMessage):
    """Confirmation that the receipt is kept.

    Reveals: nothing about rows; that the site holds the receipt on its disk.
    """
