"""Sets of persons as their source has them.

They are kept by hashes that are keyed without the dataset's name.

A set of rows (`differencing`) tells a person by what the mapped rows say, under one dataset's schema. Beside it stands
this second set of the same persons: of the source's whole row, or of the identifier where the schema names a group.
So sets that were released under two names of one table can be held against each other.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from flfed.errors import UsageError
from flfed.rows.data.origin import BYTES, SourceRows
from flfed.rows.snapshots.differencing import DIGEST, keyed

HEAD = 32
"""Bytes before the persons' hashes: of what tells one from another."""


@dataclass(frozen=True, eq=False)
class SourceSet:
    """A set of persons by keyed hashes.

    It is the same whatever the dataset. It tells a set's size, and of nobody without the key.

    Attributes
    ----------
    columns : bytes
        Keyed hash of what tells a person: sets are compared where it is the same.
    digests : array of 16 bytes each, sorted [persons]
    id : str
        Keyed hash of both, as hex.
    """

    columns: bytes
    digests: np.ndarray
    id: str

    @classmethod
    def of(cls, rows: SourceRows, chosen: Sequence[int], key: bytes, *, grouped: bool) -> Self:
        """Return the set of the persons of some rows.

        Parameters
        ----------
        rows : SourceRows
        chosen : sequence of int
            Positions of the rows.
        key : bytes
        grouped : bool
            Whether rows of one hash are one person's; else each row is a person.
        """
        every = rows.one_by_one()
        seen = defaultdict[bytes, int](int)
        texts = set()
        # Equal rows of different people are numbered, so that each stays a person of its own.
        for at in chosen:
            number = 0 if grouped else seen[every[at]]
            texts.add(number.to_bytes(8) + every[at])
            seen[every[at]] += 1
        found = sorted(keyed(key, "person of a source", text)[:BYTES] for text in texts)
        return cls._made(keyed(key, "columns of a source", rows.origin.columns), b"".join(found), key)

    @classmethod
    def _made(cls, columns: bytes, digests: bytes, key: bytes) -> Self:
        return cls(columns, np.frombuffer(digests, DIGEST), keyed(key, "set of a source", columns + digests).hex())

    @classmethod
    def from_bytes(cls, content: bytes, key: bytes, *, id: str) -> Self:
        """Return the set that was stored under an id.

        Raises
        ------
        UsageError
            If it is not the one that was written, or of another key.
        """
        # A length that does not fit is checked as empty content, so that damage never parses.
        whole = len(content) >= HEAD and (len(content) - HEAD) % BYTES == 0
        rest = content[HEAD:] if whole else b""
        found = cls._made(content[:HEAD], rest, key)
        if not whole or not hmac.compare_digest(found.id, id):
            raise UsageError(f"the set of released persons {id[:12]} is damaged, or of another key")
        return found

    def to_bytes(self) -> bytes:
        """Return what is written down of it."""
        return self.columns + self.digests.tobytes()

    def meets(self, other: SourceSet) -> bool:
        """Tell whether somebody is in both."""
        return len(np.intersect1d(self.digests, other.digests, assume_unique=True)) > 0
