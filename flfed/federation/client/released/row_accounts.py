"""Privacy accounts of datasets of the same rows.

Such datasets have one account, whatever they are called.

A ledger's lines of kinds `spent` and `released` name, beside the dataset, the rows: `rows` is the keyed hash of what
the table is, `sources` are those of where it stands. Datasets that have one of these in common, now or ever, are on
one account; so are those that share it with a third.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flfed.errors import UsageError
from flfed.files import read_private, write_whole
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import Ledger
from flfed.records.ledger.line import Line
from flfed.rows.data.origin import Origin, is_plain, rows_here
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import keyed
from flfed.rows.snapshots.snapshot import FrozenSite, known

KEY_BYTES = 32
KEY = "rows.key"
RELEASED_FOLDER = "released"


def rows_key(gate: Path, *, make: bool = False) -> bytes:
    """Return a site's key of row hashes.

    It never leaves the site and is made once.

    Parameters
    ----------
    gate : Path
        The folder of the site's ledger.
    make : bool
        Whether it may be made: only while no line and no file was written with one.

    Raises
    ------
    UsageError
        If it cannot be read, others may read it, or it is gone while there are sets.
    """
    path = gate / KEY
    try:
        found = read_private(path, rows=True)
    except FileNotFoundError:
        # A new key would not match the old hashes, so that all would seem unreleased.
        if not make or any((gate / RELEASED_FOLDER).glob("*/*")):
            raise UsageError(f"{path}: is gone, and with it what was released cannot be told") from None
        write_whole(path, secrets.token_bytes(KEY_BYTES))
        return read_private(path, rows=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if len(found) != KEY_BYTES:
        raise UsageError(f"{path}: is damaged")
    return found


def origin_of(site: Site) -> Origin | None:
    """Return the origin of a site's rows.

    It is None where nothing tells.
    """
    if isinstance(site, FrozenSite):
        return known_origin(site.snapshot.origin)
    rows = rows_here(site)[1] if is_plain(site) else None
    return None if rows is None else known_origin(rows.origin)


def known_origin(origin: Origin | None) -> Origin | None:
    """Return an origin that identifies its rows.

    It is None where the origin is of a query whose tables nothing tells.
    """
    return origin if origin is not None and origin.content else None


def named(origin: Origin, key: bytes) -> dict[str, Any]:
    """Return the row names for a ledger's line."""
    # The places are sorted, so that equal rows give equal lines.
    sources = sorted(keyed(key, "source", place).hex() for place in origin.places)
    return {"rows": keyed(key, "rows", origin.content).hex(), "sources": sources}


def names_in(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the row names of a ledger's line.

    There are none where an earlier version wrote it.
    """
    # A line of an earlier version names no rows.
    rows, sources = facts.get("rows"), facts.get("sources")
    if not isinstance(rows, str) or not rows:
        return frozenset()
    return frozenset({rows, *(map(str, sources) if isinstance(sources, list) else ())})


def names_now(site: Site, ledger: Ledger, dataset: str, *, look: bool = False) -> frozenset[str] | None:
    """Return the names of a dataset's present rows.

    Lines of the ledger name the rows that they are of. None where nobody knows the names of the present rows.

    Parameters
    ----------
    site : Site
    ledger : Ledger
    dataset : str
    look : bool
        Whether the table is read where it is not frozen yet; else the ledger alone tells.
    """
    gate = ledger.path.parent
    # Without a key no line has a name yet, so there is nothing to compare.
    if dataset not in site.datasets or not (gate / KEY).exists():
        return frozenset()
    served = site.serving(dataset)
    found = known(served, SiteFolder(site.name).frozen)
    if found is None and not look:
        return frozenset()
    origin = origin_of(served) if found is None else known_origin(found.origin)
    return None if origin is None else names_in(named(origin, rows_key(gate)))


@dataclass
class RowAccounts:
    """Groups of datasets of the same rows.

    They follow from the lines of a ledger.

    Attributes
    ----------
    groups : list of (datasets, names of rows)
        No two of them have anything in common.
    """

    groups: list[tuple[set[str], set[str]]] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Add one line of any kind."""
        names = names_in(line.facts)
        if names:
            self.join(str(line.facts.get("dataset", "")), names)

    def join(self, dataset: str, names: Iterable[str]) -> None:
        """Link a dataset to the names of its rows."""
        datasets, rows = {dataset}, set(names)
        # One common dataset or row name joins groups, and third ones with them.
        met = [group for group in self.groups if dataset in group[0] or not rows.isdisjoint(group[1])]
        self.groups = [group for group in self.groups if group not in met]
        self.groups.append((datasets.union(*(group[0] for group in met)), rows.union(*(group[1] for group in met))))

    def datasets(self, dataset: str, names: Iterable[str] = ()) -> frozenset[str]:
        """Return the datasets on one account.

        `dataset` is among them, and its rows have these names now.
        """
        rows, found = set(names), {dataset}
        for group in self.groups:
            if dataset in group[0] or not rows.isdisjoint(group[1]):
                found |= group[0]
        return frozenset(found)
