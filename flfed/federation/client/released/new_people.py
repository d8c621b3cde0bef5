"""People of a run's test rows who were in no test rows before, by the keyed hashes that a site keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from flfed.errors import UsageError
from flfed.federation.client.released.sets import RowSets
from flfed.rows.snapshots.differencing import RowSet
from flfed.rows.snapshots.persons import SourceSet

Digests = Mapping[bytes, np.ndarray]
"""Hashes of people, by what they are of: their rows, their identifiers, and what their source says of them."""
_ROWS, _IDENTIFIERS = b"rows", b"identifiers"


class NewPeople:
    """People of one set of rows who are in none of the sets that are taken in.

    Parameters
    ----------
    kept : RowSets
        Sets of the dataset.
    asked : str
        The set's id.

    Raises
    ------
    FlfedError
        If a set or the key cannot be read, or the set is not there.

    Notes
    -----
    By rows, by identifiers and by what the source says different people may be new. The fewest count.
    """

    def __init__(self, kept: RowSets, asked: str) -> None:
        key = kept.key()
        sets, sources = kept.all((), key), kept.sources(key)
        self._sets = {id: _digests(rows, sources.get(id, ())) for id, rows in sets.items()}
        if asked not in self._sets:
            raise UsageError(f"the set of released rows {asked[:12]} is not there")
        self._all = self._sets[asked]
        self._new = dict(self._all)

    def are_half_without(self, ids: Iterable[str]) -> bool:
        """Take sets in, and tell whether at least half of the people are in none so far.

        Of sets that cannot be held to this one nobody is known to be new.
        """
        known = [self._sets.get(id) for id in ids]
        if not known or not all(one is not None and _are_alike(one, self._all) for one in known):
            return False
        for one in known:
            for name in self._new.keys() & (one or {}).keys():
                self._new[name] = np.setdiff1d(self._new[name], (one or {})[name], assume_unique=True)
        return all(0 < len(self._all[name]) <= 2 * len(new) for name, new in self._new.items())


def _digests(rows: RowSet, sources: Iterable[SourceSet]) -> Digests:
    """Return the hashes of a set's people."""
    parts = defaultdict[bytes, list[np.ndarray]](list)
    parts[_ROWS].append(rows.digests)
    if len(rows.people):
        parts[_IDENTIFIERS].append(rows.people)
    for source in sources:
        parts[source.columns].append(source.digests)
    return {name: np.unique(np.concatenate(arrays)) for name, arrays in parts.items()}


def _are_alike(one: Digests, other: Digests) -> bool:
    """Tell whether people of two sets can be told by the same: both have identifiers, or neither has."""
    return (_IDENTIFIERS in one) == (_IDENTIFIERS in other)
