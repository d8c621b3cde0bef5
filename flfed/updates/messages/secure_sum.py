"""Messages of secure sums: keys once a run, then for each sum a masked vector, a list, and what opens the sum.

The masked vector rides on the reply to the question itself (`TrainReply`). Each class says what its message reveals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.updates.arrays import CIPHERTEXT
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import MalformedMessage, PlainMessage
from flfed.updates.messages.in_memory import array_record, config_record, kebab_record

KEYS = kinds.KEYS
LIST = kinds.LIST
UNMASK = kinds.UNMASK
SECTION = "masked"
SIGNED = "signed"
OPENED = "masked-opened"
ENCRYPTED = "encrypted"
SHARED = "shared-key"
Sites = frozenset[str]
Hash = Annotated[str, r"[0-9a-f]{64}"]
NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
Names = Annotated[str, rf"{NAME}(,{NAME})*"]
"""Names of sites in order, with commas between."""


def joined(names: Sites) -> str:
    """Return names as a message has them."""
    return ",".join(sorted(names))


def parted(text: str) -> Sites:
    """Return the names that a message has."""
    return frozenset(text.split(","))


def _all_bytes(value: object) -> tuple[bytes, ...]:
    """Return a list of byte strings, or raise MalformedMessage."""
    if not isinstance(value, list) or not all(type(one) is bytes for one in value):
        raise MalformedMessage(Refusal("statements-unfit"))
    return tuple(value)


@dataclass(frozen=True, kw_only=True)
class SharedKey:
    """A run's key of homomorphic encryption on its way from the site that made it.

    Attributes
    ----------
    sealed : bytes
        The key, sealed under a key of its own.
    keys : tuple of bytes, 48
        That key, sealed to each other site in name order, or to the one that the message goes to.

    Reveals: nothing about rows, and nothing to a reader other than these sites. Whoever has the key reads each site's
    update.
    """

    sealed: bytes
    keys: tuple[bytes, ...]

    def into(self, records: dict[str, Any]) -> None:
        """Add it to the records of a message."""
        records[SHARED] = kebab_record(sealed=self.sealed, keys=list(self.keys))

    @classmethod
    def out_of(cls, record: RecordDict) -> SharedKey | None:
        """Read a message's sealed key, None where it has none."""
        if SHARED not in record:
            return None
        section = fields.section(record, SHARED)
        sealed, *keys = _all_bytes([section.get("sealed"), *_all_bytes(section.get("keys"))])
        return cls(sealed=sealed, keys=tuple(keys))


@dataclass(frozen=True, kw_only=True)
class KeysRequest:
    """The keys of all sites of a run, and what their vectors are scaled by.

    Attributes
    ----------
    cohort : str
        Names of the sites that enrolled, in order.
    statements : tuple of bytes
        Of each of them, as its gate signed it; none where a run rehearses in one process.
    most_rows : int
        Upper end of the widest band of rows that a site declared.
    shared : SharedKey or None
        Under homomorphic encryption, for sites other than the one that made the key.

    Reveals: nothing about rows; it goes to the sites. Each learns who else takes part, and how each shares its figures.
    """

    cohort: Names
    most_rows: int
    statements: tuple[bytes, ...] = ()
    shared: SharedKey | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        if self.statements:
            records[SIGNED] = kebab_record(statements=list(self.statements))
        if self.shared is not None:
            self.shared.into(records)
        return fields.message_record(records, most_rows=self.most_rows, cohort=self.cohort)

    @classmethod
    def from_record(cls, record: RecordDict) -> KeysRequest:
        """Read the message's content."""
        request = fields.made(cls, fields.config_of(record))
        signed = fields.section(record, SIGNED).get("statements") if SIGNED in record else []
        return replace(request, statements=_all_bytes(signed), shared=SharedKey.out_of(record))


@dataclass(frozen=True, kw_only=True)
class KeysReply:
    """Confirmation that a site has the keys of the others.

    Attributes
    ----------
    sha256 : str
        Hash of the statements that it accepted.
    least : int
        Sites that a sum needs, by the number of those that its approval pins.
    shared : SharedKey or None
        Of the site that made the run's key of homomorphic encryption.

    Reveals: nothing about rows.
    """

    sha256: Hash
    least: int
    shared: SharedKey | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        if self.shared is not None:
            self.shared.into(records)
        return fields.message_record(records, sha256=self.sha256, least=self.least)

    @classmethod
    def from_record(cls, record: RecordDict) -> KeysReply:
        """Read the message's content."""
        reply = fields.made(cls, fields.config_of(record))
        return replace(reply, shared=SharedKey.out_of(record))


@dataclass(frozen=True, kw_only=True)
class ListRequest(PlainMessage):
    """Request to confirm the list of a sum to its other sites.

    Attributes
    ----------
    kind : str
        Of the question whose answers are summed.
    round : int
        Of the question; where trees grow, the exchange's number in the run.
    listed : str
        Names of the sites that are summed.

    Reveals: nothing about rows; it goes to the site.
    """

    kind: str
    round: int
    listed: Names


@dataclass(frozen=True, kw_only=True, eq=False)
class ListReply:
    """A site's confirmation of a list to each of its sites.

    Attributes
    ----------
    codes : uint8 array [sites, 32]
        A message authentication code for each site of the list, in name order.

    Reveals: nothing about rows. The site takes part in this sum, and in no other sum of the same request.
    """

    codes: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return fields.message_record({"confirmed": array_record({"codes": self.codes})})

    @classmethod
    def from_record(cls, record: RecordDict) -> ListReply:
        """Read the message's content."""
        return cls(**_bytes(record, "confirmed", "codes"))


@dataclass(frozen=True, kw_only=True, eq=False)
class UnmaskRequest:
    """Request to open a sum: for the sites of the list, and for those of the run that are missing in it.

    Attributes
    ----------
    kind : str
        Of the question whose answers are summed.
    round : int
        Of the question; where trees grow, the exchange's number in the run.
    listed : str
        Names of the sites that are summed.
    shares : uint8 array [sites, bytes]
        Each listed site's share of its self-mask that is sealed to this site, in name order.
    codes : uint8 array [sites, 32]
        Each listed site's confirmation to this site, in name order; zeros where there is none.

    Reveals: nothing about rows; it goes to the site, which alone can open the shares.
    """

    kind: str
    round: int
    listed: Names
    shares: np.ndarray
    codes: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        sealed = array_record({"shares": self.shares, "codes": self.codes})
        return fields.message_record({"sealed": sealed}, kind=self.kind, round=self.round, listed=self.listed)

    @classmethod
    def from_record(cls, record: RecordDict) -> UnmaskRequest:
        """Read the message's content."""
        plain = ListRequest.from_record(record)
        return cls(**fields.fields_of(plain), **_bytes(record, "sealed", "shares", "codes"))


@dataclass(frozen=True, kw_only=True, eq=False)
class UnmaskReply:
    """What a site opens of a sum.

    Attributes
    ----------
    shares : uint8 array [sites, 32]
        Of the self-mask of each listed site, in name order.
    seeds : uint8 array [missing sites, 32]
        Seed of the mask that the site shares with each missing site in this sum, in name order.

    Reveals: with those of enough other sites, the sum over the sites of the list, and nothing of one of them alone. The
    sum is a function of the rows of all of them. A site among them that works for the coordinator can take its own part
    off. A seed is of one sum, and opens nothing of a site that is missing.
    """

    shares: np.ndarray
    seeds: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return fields.message_record({"unmasked": array_record({"shares": self.shares, "seeds": self.seeds})})

    @classmethod
    def from_record(cls, record: RecordDict) -> UnmaskReply:
        """Read the message's content."""
        return cls(**_bytes(record, "unmasked", "shares", "seeds"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """A site's vectors under its masks, and the shares of its self-mask.

    Attributes
    ----------
    vector : uint32 array [1 + parameters], or [0]
        One, and the weighted update, in the ring of 32 bits; nothing where sums over rows or figures are masked.
    sums : uint64 array [2], or [1 + numbers]
        One, and the weight, in the ring of 64 bits; or one, and the sums over rows or figures, or those of trees. At
        institutions four numbers follow in a round: a weight and a weighted loss of training, and of scores.
    shares : uint8 array [sites, bytes]
        Share of the self-mask sealed to each site of the run, in name order; none where a run rehearses in one
        process, and the vectors have no masks then.
    opened : tuple of frozenset of str
        Lists that the site has confirmed or opened for this question before.

    Reveals: nothing about rows by itself: without the seeds of all their masks, the vectors are random numbers. With
    what a threshold of the sites opens (`UnmaskReply`), the message becomes part of one sum. A loss in it has three
    digits. It weighs nothing where too many sites of the run send their own: the sum of the rest would reveal one
    site's. In a rehearsal there are no masks and no losses, since one process holds all sites. The lists show with
    which sites the site was summed before.
    """

    vector: np.ndarray
    sums: np.ndarray
    shares: np.ndarray
    opened: tuple[Sites, ...] = ()

    def into(self, records: dict[str, Any]) -> None:
        """Add them to the records of a message."""
        records[SECTION] = array_record({"vector": self.vector, "sums": self.sums, "shares": self.shares})
        if self.opened:
            records[OPENED] = config_record({"lists": [joined(listed) for listed in self.opened]})

    @classmethod
    def out_of(cls, record: RecordDict) -> Masked | None:
        """Read a message's masked vectors, None where it has none."""
        if SECTION not in record:
            return None
        arrays = fields.ndarrays(record, SECTION)
        lists = fields.section(record, OPENED).get("lists") if OPENED in record else []
        if set(arrays) != {"vector", "sums", "shares"} or not isinstance(lists, list):
            raise MalformedMessage(Refusal("masked-unfit", section=SECTION, fields="vector, sums, shares"))
        return cls(**arrays, opened=tuple(parted(text) for text in lists if isinstance(text, str)))


def read_encrypted(record: RecordDict) -> np.ndarray | None:
    """Read the ciphertexts of a message, None where it has none."""
    if ENCRYPTED not in record:
        return None
    arrays = fields.ndarrays(record, ENCRYPTED)
    if set(arrays) != {CIPHERTEXT}:
        raise MalformedMessage(Refusal("masked-unfit", section=ENCRYPTED, fields=CIPHERTEXT))
    return arrays[CIPHERTEXT]


def _bytes(record: RecordDict, section: str, *names: str) -> dict[str, Any]:
    """Return a section's arrays of bytes of these names, each of two dimensions."""
    fields.config_of(record)
    arrays = fields.ndarrays(record, section)
    if set(arrays) != set(names) or any(array.dtype != np.uint8 or array.ndim != 2 for array in arrays.values()):
        raise MalformedMessage(Refusal("masked-unfit", section=section, fields=", ".join(names)))
    return arrays
