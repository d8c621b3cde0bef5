"""Names of rows in a ledger's lines, and the site's key of their hashes.

A line of kind `released` names, beside the dataset, the rows: `rows` is the keyed hash of the table's content,
`sources` are those of its places. Datasets that have one of these in common, now or ever, are of the same rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.files import read_private, write_whole
from flfed.records.ledger_line import Line
from flfed.rows.data.origin import Origin, SourceRows, is_plain, rows_here
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import keyed
from flfed.rows.snapshots.snapshot import FrozenSite
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

KEY_BYTES = 32
KEY = "rows.key"
RELEASED_FOLDER = "released"


def rows_key(gate: Path, *, make: bool = False) -> bytes:
    """Return a site's key of row hashes, which never leaves the site.

    Parameters
    ----------
    gate : Path
        The folder of the site's ledger.
    make : bool
        Whether to return a new one where there is none: only while no line and no file depends on one.

    Raises
    ------
    UsageError
        If it cannot be read, others may read it, or it is gone although there are sets.
    """
    path = gate / KEY
    try:
        key = read_private(path, rows=True)
    except FileNotFoundError:
        # A new key would not match the old hashes, so that all would seem unreleased.
        if not make or any((gate / RELEASED_FOLDER).glob("*/*")):
            raise usage_error("gate.rows.key", file=path) from None
        key = secrets.token_bytes(KEY_BYTES)
    except OSError as error:
        raise usage_error("gate.rows.unread", file=path, why=error.strerror) from None
    if len(key) != KEY_BYTES:
        raise usage_error("gate.rows.damaged", file=path)
    return key


def keep_rows_key(gate: Path, key: bytes) -> bytes:
    """Write a site's key of row hashes where there is none, and return it.

    The first line that depends on it follows under the same lock of the ledger: a key without one shows a lost ledger.
    """
    if not (gate / KEY).exists():
        write_whole(gate / KEY, key)
    return key


def rows_of(site: Site) -> tuple[pd.DataFrame, SourceRows | None]:
    """Return a site's mapped table and its source rows.

    The source rows are the same rows as the source has them, and None where the source is unknown.
    """
    import pandas as pd

    if isinstance(site, FrozenSite):
        return site.inspect()[0], site.source_rows
    return rows_here(site) if is_plain(site) else (pd.DataFrame(), None)


def identifying_origin(origin: Origin | None) -> Origin | None:
    """Return an origin that identifies its rows.

    It is None for a query of unknown tables.
    """
    return origin if origin is not None and origin.content else None


def named(origin: Origin, key: bytes) -> dict[str, Any]:
    """Return the row names for a ledger's line."""
    # The places are sorted, so that equal rows give equal lines.
    sources = sorted(keyed(key, "source", place).hex() for place in origin.places)
    return {"rows": keyed(key, "rows", origin.content).hex(), "sources": sources}


def names_in(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the row names of a ledger's line.

    There are none where the source of the rows is unknown.
    """
    rows = facts.get("rows")
    sources = facts.get("sources")
    if not isinstance(rows, str) or not rows:
        return frozenset()
    return frozenset({rows, *(map(str, sources) if isinstance(sources, list) else ())})


@dataclass
class RowAccounts:
    """Groups of datasets of the same rows, by the lines of a ledger.

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
            self.join(line.text("dataset"), names)

    def join(self, dataset: str, names: Iterable[str]) -> None:
        """Link a dataset to the names of its rows."""
        rows = set(names)
        # One common dataset or row name joins groups, and third ones with them.
        met = self._met(dataset, rows)
        self.groups = [group for group in self.groups if group not in met]
        self.groups.append(({dataset}.union(*(group[0] for group in met)), rows.union(*(group[1] for group in met))))

    def _met(self, dataset: str, rows: set[str]) -> list[tuple[set[str], set[str]]]:
        return [group for group in self.groups if dataset in group[0] or not rows.isdisjoint(group[1])]

    def datasets(self, dataset: str, names: Iterable[str] = ()) -> frozenset[str]:
        """Return the datasets on one account.

        `dataset` is among them, and its rows have these names now.
        """
        return frozenset({dataset}.union(*(group[0] for group in self._met(dataset, set(names)))))
