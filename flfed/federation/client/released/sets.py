"""Sets of rows whose sums left a site.

The files are of one dataset's rows, and of the same persons by their source. The site's keyed hashes show which people
of a run's test rows were in no test rows before. They also show in which runs some people's rows took part.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flfed.federation.client.account import SPENT
from flfed.federation.client.released.accounts import KEY, rows_key
from flfed.files import folder_locked, read_private, write_whole
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.records.ledger_line import Line
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import RowSet, SourceSet
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.rows.snapshots.withholding import Chosen
from flfed.words import usage_error

RELEASED = "released"
"""The kind of a ledger's line for a set of rows whose sums leave."""
_ID = re.compile(r"[0-9a-f]{64}")


class RowSets:
    """Released sets of one site and dataset.

    Parameters
    ----------
    folder : SiteFolder
    dataset : str
    ledger : Ledger, optional
        Default: the site's own.

    Notes
    -----
    A set counts once its file exists, also where a crash kept its line from the ledger, or where the ledger was
    restarted. A line without the set's file, and a missing key beside sets, are errors: rows that cannot be compared
    are not released.
    """

    def __init__(self, folder: SiteFolder, dataset: str, ledger: Ledger | None = None) -> None:
        self._site = folder
        self.dataset = dataset
        self.ledger = ledger or ledger_of(folder)
        self.folder: Path = folder.gate / "released" / dataset
        self.key_file: Path = folder.gate / KEY

    def key(self, *, make: bool = False) -> bytes:
        """Return the site's key of row hashes, or a new one where there is none (`rows_key`).

        Raises
        ------
        UsageError
            If it cannot be read, others may read it, or it is gone although there are sets.
        """
        return rows_key(self._site.gate, make=make)

    def all(self, lines: Sequence[Line], key: bytes) -> dict[str, RowSet]:
        """Return every released set by its id.

        Parameters
        ----------
        lines : sequence of Line
            Those of the ledger, of this dataset and kind.
        key : bytes

        Raises
        ------
        UsageError
            If one cannot be read or was changed, or its file is gone although the ledger names it.
        """
        named = {str(line.facts.get("rows-sha256")) for line in lines}
        if not named and not self.folder.is_dir():
            return {}
        with folder_locked(self.folder, writing=False):
            there = {path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name)}
            # A set that the ledger names without its file is read too, and fails there.
            return {id: self._read(id, key) for id in sorted(named | there)}

    def _read(self, id: str, key: bytes) -> RowSet:
        try:
            return RowSet.from_bytes(self.dataset, read_private(self.folder / id, rows=True), key, id=id)
        except OSError as error:
            raise usage_error("gate.rows.set", id=id[:12], why=error.strerror) from None

    def write(self, rows: RowSet, source: SourceSet | None = None) -> None:
        """Write a set, and its persons in the source.

        Existing files are left as they are.
        """
        with folder_locked(self.folder, writing=True):
            # The source's persons go first: a set without them could not be compared with other names.
            if source is not None and not (beside := self.folder / f"{rows.id}.{source.id}").exists():
                write_whole(beside, source.to_bytes())
            if not (self.folder / rows.id).exists():
                write_whole(self.folder / rows.id, rows.to_bytes())

    def sources(self, key: bytes) -> dict[str, list[SourceSet]]:
        """Return the source persons of each released set.

        They are by the set's id, and several where the source drifts beside it.

        Raises
        ------
        UsageError
            If one cannot be read, or was changed.
        """
        sets_by_id: dict[str, list[SourceSet]] = defaultdict(list)
        if not self.folder.is_dir():
            return sets_by_id
        with folder_locked(self.folder, writing=False):
            for path in sorted(self.folder.iterdir()):
                id, _, own = path.name.partition(".")
                if not (_ID.fullmatch(id) and _ID.fullmatch(own)):
                    continue
                try:
                    sets_by_id[id].append(SourceSet.from_bytes(read_private(path, rows=True), key, id=own))
                except OSError as error:
                    raise usage_error("gate.rows.persons", id=own[:12], why=error.strerror) from None
        return sets_by_id

    def others(self, lines: Iterable[Line]) -> list[RowSets]:
        """Return the sets released under other names.

        They are named by lines of the ledger, and by files.
        """
        names = {str(line.facts.get("dataset")) for line in lines}
        # A set may have been written by a process that crashed before its line.
        if self.folder.parent.is_dir():
            names |= {path.name for path in self.folder.parent.iterdir() if path.is_dir()}
        return [RowSets(self._site, name, self.ledger) for name in sorted(names - {self.dataset})]

    def lines(self, lines: Iterable[Line]) -> list[Line]:
        """Return the ledger's lines on the dataset's released sets.

        The newest is first.
        """
        of = (RELEASED, self.dataset)
        return [line for line in lines if (line.kind, line.facts.get("dataset")) == of]

    def released(self) -> tuple[list[tuple[Chosen, RowSet]], bytes]:
        """Return each released set, and the key.

        Each set comes with its selection. Both are empty where nothing was released.

        Raises
        ------
        FlfedError
            If ledger, key or a set cannot be read.
        """
        with self.ledger.reading() as ledger:
            lines = [] if ledger is None else self.lines(ledger.backwards())
        # Nothing was ever released here.
        if not lines and not self.folder.is_dir():
            return [], b""
        key = self.key()
        return list(_chosen(lines, self.all(lines, key))), key


def _chosen(lines: Sequence[Line], sets: Mapping[str, RowSet]) -> Iterator[tuple[Chosen, RowSet]]:
    for line in lines:
        try:
            yield Chosen.of_facts(line.facts["chosen"]), sets[line.facts["rows-sha256"]]
        except (KeyError, TypeError, ValueError):
            raise usage_error("gate.rows.selection", n=line.n) from None


Digests = Mapping[bytes, np.ndarray]
"""Hashes of people, by their basis: their rows, their identifiers, and their source's columns."""
_ROWS = b"rows"
_IDENTIFIERS = b"identifiers"


class NewPeople:
    """People of a set of rows who are new.

    They are in none of the sets added so far.

    Parameters
    ----------
    row_sets : RowSets
        Sets of the dataset.
    set_id : str
        The set's id.

    Raises
    ------
    FlfedError
        If a set or the key cannot be read, or the set is missing.

    Notes
    -----
    By rows, by identifiers and by source, different people may be new. The fewest count.
    """

    def __init__(self, row_sets: RowSets, set_id: str) -> None:
        key = row_sets.key()
        sets = row_sets.all((), key)
        sources = row_sets.sources(key)
        self._sets = {id: _digests(rows, sources.get(id, ())) for id, rows in sets.items()}
        if set_id not in self._sets:
            raise usage_error("gate.rows.absent", id=set_id[:12])
        self._all = self._sets[set_id]
        self._new = dict(self._all)

    def are_half_without(self, ids: Iterable[str]) -> bool:
        """Add sets, and return whether half of the people are new.

        At least half of them are in none of the sets then. With sets that cannot be compared with this one, nobody
        counts as new.
        """
        earlier_sets = [self._sets.get(id, {}) for id in ids]
        # People of two sets can be compared where both have identifiers, or neither has.
        alike = all(one and (_IDENTIFIERS in one) == (_IDENTIFIERS in self._all) for one in earlier_sets)
        if not earlier_sets or not alike:
            return False
        for one in earlier_sets:
            for name in self._new.keys() & one.keys():
                self._new[name] = np.setdiff1d(self._new[name], one[name], assume_unique=True)
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


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """One run, or repeat of it, with rows of the people.

    Attributes
    ----------
    run, study, dataset : str
    repeat : int
    parts : dict of str to int
        Parts of the rows, "fitted" or "training", "validation" and "holdout", with the number of these people in each.
    """

    run: str
    repeat: int
    study: str
    dataset: str
    parts: dict[str, int]

    def as_object(self) -> dict[str, Any]:
        """Return the run as an object of JSON."""
        return dict(vars(self))


def lineage(site: Site, people: Excluded) -> list[Lineage]:
    """Return the runs with rows of these people, the oldest first.

    Where the schema names a group, people are identified by it, also where their rows have changed since. Else they are
    identified by their rows as they are in the table now.

    Raises
    ------
    UsageError
        If the site keeps no record of rows, the list does not fit its table, or the record cannot be read.
    """
    if site.policy.is_open:
        raise usage_error("gate.rows.open", site=site.name)
    return [entry for dataset in site.datasets for entry in _of_dataset(site.serving(dataset), people)]


def unlisted(site: Site) -> dict[str, str]:
    """Return the runs without a list of their rows.

    They spent privacy, and come with their studies. They are those under covering noise: everyone with rows in the
    table then took part.
    """
    lines = list(ledger_of(SiteFolder(site.name)).lines())
    listed = {line.text("run") for line in lines if line.kind == RELEASED}
    spent = {line.text("run"): line.text("study") for line in lines if line.kind == SPENT}
    return {run: study for run, study in spent.items() if run not in listed}


def _of_dataset(site: Site, people: Excluded) -> Iterator[Lineage]:
    row_sets = RowSets(SiteFolder(site.name), site.dataset)
    lines = row_sets.lines(row_sets.ledger.lines())
    if not lines:
        return
    key = row_sets.key()
    table, _, schema = people.only(site).inspect()
    wanted = RowSet.of(table, schema, key)
    released = row_sets.all(lines, key)
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        facts = line.facts
        count = _in_both(wanted, released[str(facts["rows-sha256"])])
        if count:
            place = (str(facts["run"]), int(facts["repeat"]))
            of = runs.setdefault(place, {"study": str(facts["study"]), "parts": {}})
            of["parts"][str(facts["chosen"]["part"])] = count
    for (run, repeat), of in runs.items():
        yield Lineage(run=run, repeat=repeat, dataset=site.dataset, **of)


def _in_both(wanted: RowSet, released: RowSet) -> int:
    """Return how many of the wanted people are in a released set."""
    by_name = len(wanted.people) and len(released.people)
    mine, others = (wanted.people, released.people) if by_name else (wanted.digests, released.digests)
    return len(np.intersect1d(mine, others, assume_unique=True))
