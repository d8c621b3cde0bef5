"""Protection against differencing of released row sets.

Sets of rows are stored as keyed hashes, and a set is refused if its sums, with earlier ones, would reveal people.

Two sums over sets of rows that differ by one person reveal that person's values (Huth et al. 2022 showed it
for DataSHIELD). So of every set with released sums, a site stores a keyed hash of each person's rows. It
refuses a set that is too close to these, whatever chose the rows: a filter, a date or a missing value.

Guarantee: of the sets that `too_close` let pass, for a minimum of k, (1) of two sets A and B neither
A without B nor B without A is of 1 to k - 1 persons; (2) no sum or difference of up to four sets, as
A - B - C or (A - B) - (C - D), is made of 1 to k - 1 persons' rows. Both hold for every sum over these
rows, also of other columns. The rule is stricter than a count of all persons who differ: one person
exchanged for another is refused, and so is one who leaves while k others come, since a count that is one
lower would reveal that person.

A person is identified by the values of the rows, and where the schema names a group also by the group's identifier:
both rules hold then, each alone. A column that drifts (an age as of today, a sum in floating point that a
database adds up in another order) changes everybody's rows, but not the people.

Not covered: combinations of five or more sets; rows that drift in a table without a group, and identifiers
that are created anew; sets under another dataset's schema, or, without a group, under a schema, unit or mapping
that was changed in between, which changes every row; prior knowledge about the k
persons in a difference; results other than sums (a trained model remembers rows: differential privacy protects these).

Beside a set of rows (`RowSet`), by the values of the mapped rows under one dataset's schema, a second set of
the same persons (`SourceSet`) is stored: of the source's whole row, or of the identifier where the schema names a
group, by hashes whose key does not depend on the dataset's name. So sets that were released under two names of one
table can be compared.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from flfed.rows.data.holdout import row_texts
from flfed.rows.data.origin import BYTES, SourceRows, as_bytes, one_by_one
from flfed.rows.data.schema import Schema
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd


DIGEST = np.dtype(f"S{BYTES}")
NOBODY = np.empty(0, DIGEST)
WITH_PEOPLE = b"people\x00\x01"
"""First bytes of a set's file that also has its people's identifiers; then the number of persons, eight bytes."""
OF_ROWS = "rows of"
OF_PEOPLE = "people of"
"""Purposes of a dataset's keyed hashes: values of rows, and identifiers."""
PROBES = 12
"""Random projections by which a combination of sets is tested before it is counted exactly."""
CELLS = 2**22
"""Numbers in memory at once while combinations are counted."""
SIGNS = ((-1, -1, -1), (-1, -1, 1), (-1, 1, 1))
"""Signs of three sets that are combined with a fourth, in all their assignments."""


@dataclass(frozen=True, eq=False)
class Persons:
    """The persons of some rows, with the values and positions of their rows.

    Attributes
    ----------
    texts : list of str
        One for each person: the person's rows, sorted, by all columns of the schema but ids. The number
        of equal ones before it comes first, so that no two are equal.
    rows : list of list of int
        Positions of each person's rows.
    """

    texts: list[str]
    rows: list[list[int]]

    @classmethod
    def of(cls, texts: Sequence[str], person: np.ndarray, chosen: np.ndarray) -> Persons:
        """Return the persons of the chosen rows.

        Parameters
        ----------
        texts : sequence of str [rows]
            As `value_texts` gives them.
        person : int array [rows]
            Number of each row's person.
        chosen : int array
            Positions of the rows.
        """
        # Rows are collected by person first, since a person may have several.
        whose: dict[int, list[int]] = defaultdict(list)
        for row, one in zip(chosen.tolist(), person[chosen].tolist(), strict=True):
            whose[one].append(row)
        seen: dict[str, int] = defaultdict(int)
        numbered_texts = []
        # Equal texts get a running number, so that two people with equal rows remain two.
        for rows in whose.values():
            person_text = texts[rows[0]]
            if len(rows) > 1:
                person_text = "\x1e".join(sorted(texts[row] for row in rows))
            numbered_texts.append(f"{seen[person_text]}\x1e{person_text}")
            seen[person_text] += 1
        return cls(numbered_texts, list(whose.values()))


def value_texts(table: pd.DataFrame, schema: Schema) -> list[str]:
    """Return each row's values without ids as one text [rows].

    No sum is over an id, and a database that renumbers its rows gives the same rows.
    """
    columns = [name for name, column in schema.columns.items() if column.kind != "id"]
    return row_texts(table[columns])


def whose_rows(table: pd.DataFrame, schema: Schema) -> np.ndarray:
    """Return the number of each row's owner, by the schema's group; without one each row is a person."""
    if not schema.group:
        return np.arange(len(table))
    return table.groupby(schema.group, sort=False, dropna=False).ngroup().to_numpy()


def group_texts(table: pd.DataFrame, schema: Schema) -> list[str] | None:
    """Return the text of each row's group identifier [rows]; None where a row is a person."""
    return row_texts(table[[schema.group]]) if schema.group else None


def keyed(key: bytes, purpose: str, text: str | bytes) -> bytes:
    """Return the HMAC-SHA256 of a text for one purpose: 32 bytes that reveal nothing without the key."""
    return hmac.digest(key, purpose.encode() + b"\x00" + as_bytes(text), "sha256")


@dataclass(frozen=True, eq=False)
class RowSet:
    """A set of persons' rows by keyed hashes.

    It reveals the set's size, and nothing about a row without the key.

    Attributes
    ----------
    dataset : str
    digests : array of 16 bytes each, sorted [persons]
        Of the values of each person's rows.
    id : str
        Keyed hash of all of them as hex: two sets have one id if they are of the same rows of the same people.
    people : array of 16 bytes each, sorted [persons], or empty
        Of the groups' identifiers, where the schema names a group.
    """

    dataset: str
    digests: np.ndarray
    id: str
    people: np.ndarray = field(default_factory=NOBODY.copy)

    @classmethod
    def of(cls, table: pd.DataFrame, schema: Schema, key: bytes) -> RowSet:
        """Return the set of a mapped table's rows, in any order."""
        persons = Persons.of(value_texts(table, schema), whose_rows(table, schema), np.arange(len(table)))
        people = list[bytes]()
        if names := group_texts(table, schema):
            people = [digest(key, schema.name, names[rows[0]], OF_PEOPLE) for rows in persons.rows]
        return cls.made(schema.name, [digest(key, schema.name, text) for text in persons.texts], key, people=people)

    @classmethod
    def made(cls, dataset: str, digests: Sequence[bytes], key: bytes, *, people: Sequence[bytes] = ()) -> RowSet:
        """Return the set of the digests of rows and of identifiers."""
        rows, names = (np.frombuffer(b"".join(sorted(set(some))), DIGEST) for some in (digests, people))
        return cls(dataset, rows, _set_id(key, dataset, _content(rows, names)), names)

    @classmethod
    def from_bytes(cls, dataset: str, content: bytes, key: bytes, *, id: str) -> RowSet:
        """Return the set that was stored under an id.

        Raises
        ------
        UsageError
            If it is not the one that was written, or of another key.
        """
        # The comparison takes the same time wherever the two differ.
        if not hmac.compare_digest(_set_id(key, dataset, content), id) or len(content) % BYTES:
            raise usage_error("rows.snapshot.rows", id=id[:12])
        # Sets without people's identifiers are digests alone, with no head before them.
        if not content.startswith(WITH_PEOPLE):
            return cls(dataset, np.frombuffer(content, DIGEST), id)
        persons = int.from_bytes(content[len(WITH_PEOPLE) : BYTES])
        both = np.frombuffer(content[BYTES:], DIGEST)
        return cls(dataset, both[:persons], id, both[persons:])

    def to_bytes(self) -> bytes:
        """Return the bytes of its file."""
        return _content(self.digests, self.people)

    def members(self) -> set[bytes]:
        """Return the single digests of rows."""
        return set(one_by_one(self.digests))

    def people_one_by_one(self) -> set[bytes]:
        """Return the single digests of identifiers; none where the schema names no group."""
        return set(one_by_one(self.people))

    def __len__(self) -> int:
        """Return the number of persons."""
        return len(self.digests)

    def common(self, other: RowSet) -> int:
        """Count the persons with equal rows in both sets."""
        return len(np.intersect1d(self.digests, other.digests, assume_unique=True))

    def shares(self, other: RowSet) -> bool:
        """Return whether a person is in both sets, by rows or identifier."""
        return bool(self.common(other) or len(np.intersect1d(self.people, other.people)))


def digest(key: bytes, dataset: str, text: str, of: str = OF_ROWS) -> bytes:
    """Return the keyed hash, 16 bytes, of one person's text in `Persons.texts`, or of a group's identifier."""
    return keyed(key, f"{of} {dataset}", text)[:BYTES]


def _content(digests: np.ndarray, people: np.ndarray) -> bytes:
    """Return the stored bytes of a set: its rows' digests; with people also their number and theirs."""
    if not len(people):
        return digests.tobytes()
    head = WITH_PEOPLE + len(digests).to_bytes(BYTES - len(WITH_PEOPLE))
    return head + digests.tobytes() + people.tobytes()


def _set_id(key: bytes, dataset: str, together: bytes) -> str:
    return keyed(key, f"set of {dataset}", together).hex()


def too_close(requested: RowSet, released: Sequence[RowSet], minimum: int) -> bool:
    """Return whether sums over a set, with released ones, would reveal fewer than `minimum` persons.

    Parameters
    ----------
    requested : RowSet
        Set whose sums are requested.
    released : sequence of RowSet
        Sets of the same dataset with released sums; the same set among them is allowed.
    minimum : int, >= 1
        k: the least number of persons in a released sum.

    Notes
    -----
    The module's docstring has the guarantee. A combination of four sets is made of few persons
    only if its projection on any signs of the persons is small: a few random signs rule out nearly all of
    the m^3 combinations, and each of the others is counted, so that the answer is exact.
    """
    others = [one for one in released if one.id != requested.id]
    if len(others) < len(released):
        return False  # checked at its first release, and later sets were checked against it
    if 0 < len(requested) < minimum:
        return True
    # Identifiers are compared only among sets that have them.
    identifiers = [one.people for one in others if len(one.people)] if len(requested.people) else []
    return apart_by_few([requested.digests, *(one.digests for one in others)], minimum) or apart_by_few(
        [requested.people, *identifiers], minimum
    )


def apart_by_few(sets: Sequence[np.ndarray], minimum: int) -> bool:
    """Return whether a first set, combined with the others, isolates fewer than `minimum` persons.

    Each set is of sorted digests.
    """
    if len(sets) < 2:
        return False
    inside = _inside(sets)
    # Both one-sided differences with each other set are counted in one product.
    mine = inside[:, 0]
    theirs = inside[:, 1:]
    both = mine @ theirs
    apart = np.concatenate([theirs.sum(axis=0) - both, mine.sum() - both])
    return bool(((apart > 0) & (apart < minimum)).any()) or _of_four(mine, theirs, minimum)


def _inside(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return an indicator matrix [persons, sets]: 1 where the person is in the set, else 0."""
    every = np.unique(np.concatenate(sets))
    indicator = np.zeros((len(every), len(sets)), dtype=np.float32)  # sums of ones are exact up to 16 million
    for at, one in enumerate(sets):
        indicator[np.searchsorted(every, one), at] = 1
    return indicator


def _of_four(mine: np.ndarray, others: np.ndarray, minimum: int) -> bool:
    """Return whether a set and up to three others combine to 1 to `minimum` - 1 persons.

    Each of the others may be added or subtracted.

    Parameters
    ----------
    mine : array [persons]
    others : array [persons, sets]
    minimum : int
    """
    # The last one is the empty set: with it, two or three sets are four.
    others = np.concatenate([others, np.zeros((len(mine), 1), dtype=np.float32)], axis=1)
    random = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), (PROBES, len(mine)))
    # A combination of few persons has a small random projection: most are ruled out by that alone.
    own = random @ mine
    shadows = random @ others
    sets = range(others.shape[1])
    most = 4 * (minimum - 1)  # a person counts up to four times
    at_once = max(1, CELLS // max(1, len(mine)))
    for first in sets:
        for a, b, c in SIGNS:
            may = np.ones((len(sets), len(sets)), dtype=bool)
            for me, shadow in zip(own, shadows, strict=True):
                may &= np.abs(me + a * shadow[first] + b * shadow[:, None] + c * shadow) <= most
            if a == b:
                may[:first] = False  # tested already with first and second exchanged
            if b == c:
                may = np.triu(may)
            candidates = np.argwhere(may)
            # The rest is counted exactly, in pieces that fit into memory.
            for start in range(0, len(candidates), at_once):
                second, third = candidates[start : start + at_once].T
                summed = (mine + a * others[:, first])[:, None] + b * others[:, second] + c * others[:, third]
                persons = np.count_nonzero(summed, axis=0)
                if ((persons > 0) & (persons < minimum)).any():
                    return True
    return False


HEAD = 32
"""Bytes of the hash of the identifying columns, before the persons' hashes."""


@dataclass(frozen=True, eq=False)
class SourceSet:
    """A set of persons by keyed hashes, the same for every dataset.

    It reveals the set's size, and nobody without the key.

    Attributes
    ----------
    columns : bytes
        Keyed hash of the identifying columns: sets are compared where it is the same.
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
        every = one_by_one(rows.digests)
        seen = defaultdict[bytes, int](int)
        texts = set()
        # Equal rows of different people are numbered, so that each counts as a person.
        for at in chosen:
            texts.add(seen[every[at]].to_bytes(8) + every[at])
            seen[every[at]] += not grouped
        digests = sorted(keyed(key, "person of a source", text)[:BYTES] for text in texts)
        return cls._made(keyed(key, "columns of a source", rows.origin.columns), b"".join(digests), key)

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
        source_set = cls._made(content[:HEAD], rest, key)
        if not whole or not hmac.compare_digest(source_set.id, id):
            raise usage_error("rows.snapshot.persons", id=id[:12])
        return source_set

    def to_bytes(self) -> bytes:
        """Return the bytes of its file."""
        return self.columns + self.digests.tobytes()

    def meets(self, other: SourceSet) -> bool:
        """Return whether a person is in both."""
        return len(np.intersect1d(self.digests, other.digests, assume_unique=True)) > 0
