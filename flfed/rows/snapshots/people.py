"""People of a snapshot by keyed hashes: whether two snapshots differ by so few that sums over both reveal them.

Two sums over sets of rows that differ by one person are this person's values (Huth et al. 2022 showed it for
DataSHIELD). So an institution keeps the people of each snapshot that a run has used, and uses another snapshot only
where it is close to none of these, on no side of the holdout.

Guarantee: of any two snapshots that were used, with a minimum of k, neither the training rows nor the test rows, nor
all rows, are of people of whom 1 to k - 1 are in one snapshot and not in the other. One person exchanged for another is
1 on either side. People are told by the group's identifier, or without a group by the row of the source; within a
dataset by the values of their rows as well, each alone.

Not covered: differences of three and more snapshots put together; without a group, a source whose every row changes
while people come or go, and a dataset of the same table that names a group; prior knowledge about the k people of a
difference.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from flfed.rows.data.holdout import SortedRows
from flfed.rows.data.origin import BYTES, as_bytes
from flfed.rows.data.row_keys import row_keys, text_keys
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site

if TYPE_CHECKING:
    import pandas as pd

DIGEST = np.dtype(f"S{BYTES}")
SIDES = ("training", "test", "further", "neither")
"""Whose rows are trained on, tested on, trained on beside a plain sample, or neither, by the site's own holdout."""
WHOLE = "whole"
PERSON, VALUES = "person", "values"
"""Kinds of a person's hash: of the group's identifier or the source's row, and of the values of the mapped rows."""


@dataclass(frozen=True, eq=False)
class People:
    """People by side and kind.

    Attributes
    ----------
    keys : mapping of (side, kind) to array of 16 bytes each [people]
        Without `PERSON` where code of the site's package stands between its source and its rows.
    numbers : mapping of side to int array [people], or None
        Whose keys these are, by the numbers of `whose_rows`; stored people have none.
    """

    keys: Mapping[tuple[str, str], np.ndarray]
    numbers: Mapping[str, np.ndarray] | None = None

    def of(self, side: str, kind: str) -> np.ndarray:
        """Return the sorted keys of a side, or of all of them; none where they are unknown."""
        parts = [keys for (own, of), keys in self.keys.items() if of == kind and side in (own, WHOLE)]
        return np.unique(np.concatenate([np.empty(0, DIGEST), *parts]))


@dataclass(frozen=True, eq=False)
class Used:
    """People of a snapshot that a run has used."""

    dataset: str
    people: People


def sides_of(site: Site, table: pd.DataFrame, schema: Schema, complete: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the positions of each side's rows in a mapped table; a row that lacks one of `complete` is on none."""
    needed = [schema.target, *complete] if site.has_outcome else list(complete)
    rows = np.flatnonzero(table[needed].notna().all(axis=1).to_numpy(dtype=bool))
    if not site.has_outcome:
        return {"training": rows}
    sorted_rows = site.with_draws(SortedRows.of(table, schema, complete))
    training, test = sorted_rows.sides(site.holdout, 0)
    plain = np.ones(len(rows), bool) if sorted_rows.drawn is None else sorted_rows.drawn
    masks = (training & plain, test & plain, training & ~plain, ~training & ~(test & plain))
    return {side: rows[mask] for side, mask in zip(SIDES, masks, strict=True)}


def whose_rows(table: pd.DataFrame, schema: Schema) -> np.ndarray:
    """Return the number of each row's person, by the schema's group; without one each row is a person."""
    if not schema.group:
        return np.arange(len(table))
    return table.groupby(schema.group, sort=False, dropna=False).ngroup().to_numpy()


def people_of(
    table: pd.DataFrame, schema: Schema, sides: Mapping[str, np.ndarray], key: bytes, source: np.ndarray | None
) -> People:
    """Return the people of a mapped table.

    Parameters
    ----------
    table : DataFrame
    schema : Schema
    sides : mapping of side to int array
        Positions of its rows.
    key : bytes
        The site's own: without it nobody finds out whether a person is among these.
    source : array of 16 bytes each [rows], or None
        Hashes of the source's rows; None where they are unknown.
    """
    person = whose_rows(table, schema)
    # No sum is over an id, and a database that numbers its rows anew gives the same values.
    values = row_keys(table[[name for name, column in schema.columns.items() if column.kind != "id"]])
    names = None if source is None else source.view(values.dtype).reshape(-1, 2)
    if schema.group:
        names = text_keys(table[schema.group].to_numpy())
    keys, numbers = {}, {}
    for side, rows in sides.items():
        numbers[side], first = np.unique(person[rows], return_index=True)
        keys[side, VALUES] = _keyed(key, VALUES, _person_texts(values[rows], person[rows]))
        if names is not None:
            keys[side, PERSON] = _keyed(key, PERSON, _person_texts(names[rows[first]], numbers[side]))
    return People(keys, numbers)


def keyed(key: bytes, purpose: str, text: str | bytes) -> bytes:
    """Return the HMAC-SHA256 of a text for one purpose: 32 bytes that reveal nothing without the key."""
    return hmac.digest(key, purpose.encode() + b"\x00" + as_bytes(text), "sha256")


def _keyed(key: bytes, purpose: str, texts: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keyed(key, purpose, text)[:BYTES] for text in texts), DIGEST)


def _person_texts(keys: np.ndarray, person: np.ndarray) -> Iterator[bytes]:
    """Yield each person's sorted row keys, by the person's number, and how many people before have the same ones.

    So two people with equal rows remain two.
    """
    order = np.lexsort((keys[:, 1], keys[:, 0], person))
    content = keys[order].tobytes()
    starts = np.flatnonzero(np.diff(person[order], prepend=-1)).tolist()
    seen = Counter[bytes]()
    for start, end in pairwise([*starts, len(order)]):
        text = content[BYTES * start : BYTES * end]
        yield text + seen[text].to_bytes(8)
        seen[text] += 1


@dataclass(frozen=True)
class Difference:
    """How many people of a side are in the one set alone, and in the other alone; both have somebody in common."""

    side: str
    kind: str
    came: int
    left: int

    def lacks(self, least: int) -> int:
        """Return how many more people must come or leave until both are 0 or at least `least`."""
        return max(least - many if many else 0 for many in (self.came, self.left))


def differences(now: People, dataset: str, used: Iterable[Used]) -> Iterator[tuple[Used, Difference]]:
    """Yield how the people of a dataset differ from each of those used before, by side and kind.

    Of two sets without a common person no difference is a person's.
    """
    sets = {(side, kind): now.of(side, kind) for kind in (PERSON, VALUES) for side in (*SIDES, WHOLE)}
    for before in used:
        for (side, kind), mine in sets.items():
            if kind == VALUES and before.dataset != dataset:
                continue
            theirs = before.people.of(side, kind)
            common = int(is_among(mine, theirs).sum())
            if common:
                yield before, Difference(side, kind, len(mine) - common, len(theirs) - common)


def is_among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which keys are among others, which are sorted; bool [keys]."""
    if not len(known):
        return np.zeros(len(keys), bool)
    places = np.searchsorted(known, keys)
    return np.asarray(known[np.minimum(places, len(known) - 1)] == keys)


def lacking(now: People, dataset: str, used: Iterable[Used], least: int) -> dict[str, int]:
    """Return how many people are missing until a set is close to none that was used, by side; empty where it is not."""
    missing: dict[str, int] = {}
    for _, difference in differences(now, dataset, used):
        if (lacks := difference.lacks(least)) > 0:
            missing[difference.side] = max(missing.get(difference.side, 0), lacks)
    return missing


def choose_withheld(
    table: pd.DataFrame,
    schema: Schema,
    sides: Mapping[str, np.ndarray],
    key: bytes,
    source: np.ndarray | None,
    used: Sequence[Used],
    least: int,
) -> np.ndarray | None:
    """Return which rows are withheld [rows] so that the others are close to no set that was used.

    Whoever is new waits, and beside one who left others of the same side are withheld, until `least` are gone: those
    of the smallest keys, so that they are the same each time. None where too few are left to choose from. The other
    parameters are those of `people_of`.
    """
    person = whose_rows(table, schema)
    out = np.empty(0, person.dtype)
    while True:
        rows = {side: at[~np.isin(person[at], out)] for side, at in sides.items()}
        now = people_of(table, schema, rows, key, source)
        pairs = differences(now, schema.name, used)
        close = next(((before, one) for before, one in pairs if one.lacks(least) > 0), None)
        if close is None:
            return np.isin(person, out)
        more = _further(now, *close, least)
        if not len(more):
            return None
        out = np.union1d(out, more)


def _further(now: People, before: Used, difference: Difference, least: int) -> np.ndarray:
    """Return the numbers of people to withhold next; none where there are too few."""
    numbers = now.numbers or {}
    sides = [side for side in numbers if difference.side in (side, WHOLE)]
    known = before.people.of(difference.side, difference.kind)
    common = np.concatenate([is_among(now.keys[side, difference.kind], known) for side in sides])
    persons = np.concatenate([numbers[side] for side in sides])
    if 0 < difference.came < least:
        return np.asarray(persons[~common])
    by = PERSON if (sides[0], PERSON) in now.keys else VALUES
    order = np.argsort(np.concatenate([now.keys[side, by] for side in sides]), kind="stable")
    chosen = persons[order][common[order]]
    needed = least - difference.left
    return np.asarray(chosen[:needed] if len(chosen) >= needed else chosen[:0])
