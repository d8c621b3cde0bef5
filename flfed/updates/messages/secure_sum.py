"""Messages of secure sums: the keys of a run, and the masked numbers that ride on the reply to a request.

Each class says what its message reveals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import CIPHERTEXT, Arrays
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import array_record, kebab_record

KEYS = kinds.KEYS
OPEN = kinds.OPEN
SECTION = "masked"
"""Section of a site's masked numbers."""
SIGNED = "signed"
ENCRYPTED = "encrypted"
SHARED = "shared-key"
Hash = Annotated[str, r"[0-9a-f]{64}"]
NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
Names = Annotated[str, rf"{NAME}(,{NAME})*"]
"""Names of sites in order, with commas between."""


def _all_bytes(value: object) -> tuple[bytes, ...]:
    """Return a list of byte strings, or raise MalformedMessage."""
    if not isinstance(value, list) or not all(type(one) is bytes for one in value):
        raise MalformedMessage(Refusal("keys-unfit"))
    return tuple(value)


@dataclass(frozen=True, kw_only=True)
class SharedKey:
    """A run's shared keys on their way from the site that made them: of tags, and of homomorphic encryption.

    Attributes
    ----------
    sealed : bytes
        The key of homomorphic encryption, sealed under the key of tags; else empty.
    keys : tuple of bytes, 60
        The key of tags, sealed to each other site in name order, or to the one that the message goes to.

    Reveals: nothing about rows, and nothing to a reader other than these sites. Whoever has the key of tags has sites
    take any sum, and under homomorphic encryption reads each site's update.
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
    signed : tuple of bytes
        The key of each of them, as its gate signed it; none where a run rehearses in one process.
    most_rows : int
        Upper end of the widest band of rows that a site declared.
    shared : SharedKey or None
        For sites other than the one that made the key.

    Reveals: nothing about rows; it goes to the sites. Each learns who else takes part.
    """

    cohort: Names
    most_rows: int
    signed: tuple[bytes, ...] = ()
    shared: SharedKey | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        if self.signed:
            records[SIGNED] = kebab_record(keys=list(self.signed))
        if self.shared is not None:
            self.shared.into(records)
        return fields.message_record(records, most_rows=self.most_rows, cohort=self.cohort)

    @classmethod
    def from_record(cls, record: RecordDict) -> KeysRequest:
        """Read the message's content."""
        request = fields.made(cls, fields.config_of(record))
        signed = fields.section(record, SIGNED).get("keys") if SIGNED in record else []
        return replace(request, signed=_all_bytes(signed), shared=SharedKey.out_of(record))


@dataclass(frozen=True, kw_only=True)
class KeysReply:
    """Confirmation that a site has the keys of the others.

    Attributes
    ----------
    sha256 : str
        Hash of the message with the keys that it accepted.
    shared : SharedKey or None
        Of the site that made the run's shared key, the first by name.

    Reveals: nothing about rows.
    """

    sha256: Hash
    shared: SharedKey | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        if self.shared is not None:
            self.shared.into(records)
        return fields.message_record(records, sha256=self.sha256)

    @classmethod
    def from_record(cls, record: RecordDict) -> KeysReply:
        """Read the message's content."""
        reply = fields.made(cls, fields.config_of(record))
        return replace(reply, shared=SharedKey.out_of(record))


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """A site's numbers under its masks.

    Attributes
    ----------
    vector : uint32 array [1 + parameters], or [0]
        One, and the weighted update, in the ring of 32 bits; nothing where sums over rows or figures are masked, or the
        update is a ciphertext.
    sums : uint64 array [2], or [1 + numbers]
        One, and the weight, in the ring of 64 bits; or one, and the sums over rows or figures, or those of trees. At
        institutions four numbers follow in a round: a weight and a weighted loss of training, and of scores. Last come
        the two numbers of a tag, by which sites recognise the total.

    Reveals: nothing about rows by itself: without the masks of every other site of the run, the numbers are random.
    With the messages of all of them it becomes part of one sum. A loss in it has three digits. In a rehearsal there are
    no masks, since one process holds all sites.
    """

    vector: np.ndarray
    sums: np.ndarray

    def arrays(self) -> Arrays:
        """Return both parts by name."""
        return {"vector": self.vector, "sums": self.sums}

    def into(self, records: dict[str, Any], section: str = SECTION) -> None:
        """Add them to the records of a message."""
        records[section] = array_record(self.arrays())

    @classmethod
    def out_of(cls, record: RecordDict, section: str = SECTION) -> Masked | None:
        """Read a message's masked numbers, or their total over all sites; None where it has none."""
        if section not in record:
            return None
        arrays = fields.ndarrays(record, section)
        if set(arrays) != {"vector", "sums"}:
            raise MalformedMessage(Refusal("masked-unfit", section=section, fields="vector, sums"))
        return cls(**arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenRequest:
    """The sum of a round as ciphertexts, for the one site that opens it.

    Attributes
    ----------
    round : int
        Of the sum.
    encrypted : mapping of one name to uint8 array [bytes]
        The sum of all sites' updates, each times its weight.
    total : Masked
        Of weights and losses.

    Reveals: nothing about rows; it goes to a site that has the key.
    """

    round: int
    encrypted: Arrays
    total: Masked

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {ENCRYPTED: array_record(self.encrypted)}
        self.total.into(records, kinds.TOTAL)
        return fields.message_record(records, round=self.round)

    @classmethod
    def from_record(cls, record: RecordDict) -> OpenRequest:
        """Read the message's content."""
        encrypted = fields.ndarrays(record, ENCRYPTED)
        return fields.made(cls, {**fields.config_of(record), "encrypted": encrypted, "total": _total_of(record)})

    def sha256(self) -> str:
        """Return the hash of what is asked."""
        return arrays_sha256({**self.total.arrays(), **self.encrypted})


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenReply:
    """The sum of a round, opened and rounded.

    Attributes
    ----------
    total : Masked
        Counts, updates, weights and losses as a sum under masks has them, with a tag: no masks are on it.

    Reveals: the mean update of all sites, to whole multiples of 2^-20, and their weight and losses: no more than a sum
    under masks.
    """

    total: Masked

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        self.total.into(records, kinds.TOTAL)
        return fields.message_record(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> OpenReply:
        """Read the message's content."""
        return fields.made(cls, {**fields.config_of(record), "total": _total_of(record)})


def _total_of(record: RecordDict) -> Masked:
    """Read a message's total, or raise MalformedMessage."""
    total = Masked.out_of(record, kinds.TOTAL)
    if total is None:
        raise MalformedMessage(Refusal("section-missing", section=kinds.TOTAL))
    return total


def read_encrypted(record: RecordDict) -> np.ndarray | None:
    """Read the ciphertexts of a message, None where it has none."""
    if ENCRYPTED not in record:
        return None
    arrays = fields.ndarrays(record, ENCRYPTED)
    if set(arrays) != {CIPHERTEXT}:
        raise MalformedMessage(Refusal("masked-unfit", section=ENCRYPTED, fields=CIPHERTEXT))
    return arrays[CIPHERTEXT]
