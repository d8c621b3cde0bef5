"""Files of a site's released sets.

They are of one dataset's rows, and of the same persons as their source has them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from flfed.errors import UsageError
from flfed.federation.client.released.row_accounts import KEY, rows_key
from flfed.files import folder_locked, read_private, write_whole
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import HeldLedger, Ledger, ledger_of
from flfed.records.ledger.line import Line
from flfed.rows.snapshots.differencing import RowSet
from flfed.rows.snapshots.persons import SourceSet
from flfed.rows.snapshots.withholding import Chosen

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
    A set counts once its file is there, also where a crash kept its line from the ledger, or where the
    ledger was begun anew. One that the ledger names without its file, and a key that is gone while there
    are sets, are errors: what cannot be compared is not released.
    """

    def __init__(self, folder: SiteFolder, dataset: str, ledger: Ledger | None = None) -> None:
        self._site, self.dataset = folder, dataset
        self.ledger = ledger or ledger_of(folder)
        self.folder: Path = folder.gate / "released" / dataset
        self.key_file: Path = folder.gate / KEY

    def key(self, *, make: bool = False) -> bytes:
        """Return the site's key of row hashes.

        It never leaves the site and is made once.

        Raises
        ------
        UsageError
            If it cannot be read, others may read it, or it is gone while there are sets.
        """
        return rows_key(self._site.gate, make=make)

    def all(self, lines: Sequence[Line], key: bytes) -> dict[str, RowSet]:
        """Return every released set by its id.

        Parameters
        ----------
        lines : sequence of Line
            The ledger's of this dataset and kind.
        key : bytes

        Raises
        ------
        UsageError
            If one cannot be read, is not as it was written, or is named in the ledger and gone.
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
            raise UsageError(f"the set of released rows {id[:12]} cannot be read ({error.strerror})") from None

    def write(self, rows: RowSet, source: SourceSet | None = None) -> None:
        """Write a set, and its persons in the source.

        What is there stays as it is.
        """
        with folder_locked(self.folder, writing=True):
            # The source's persons go first: a set without them could not be held to other names.
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
            If one cannot be read, or is not as it was written.
        """
        found: dict[str, list[SourceSet]] = defaultdict(list)
        if not self.folder.is_dir():
            return found
        with folder_locked(self.folder, writing=False):
            for path in sorted(self.folder.iterdir()):
                id, _, own = path.name.partition(".")
                if not (_ID.fullmatch(id) and _ID.fullmatch(own)):
                    continue
                try:
                    found[id].append(SourceSet.from_bytes(read_private(path, rows=True), key, id=own))
                except OSError as error:
                    raise UsageError(f"released persons {own[:12]} cannot be read ({error.strerror})") from None
        return found

    def others(self, lines: Iterable[Line]) -> list[RowSets]:
        """Return the sets released under other names.

        They are of lines of the ledger, and of files.
        """
        names = {str(line.facts.get("dataset")) for line in lines}
        # A set may have been written by a process that crashed before its line.
        if self.folder.parent.is_dir():
            names |= {path.name for path in self.folder.parent.iterdir() if path.is_dir()}
        return [RowSets(self._site, name, self.ledger) for name in sorted(names - {self.dataset})]

    def lines(self, held: HeldLedger) -> list[Line]:
        """Return the ledger's lines on the dataset's released sets.

        The newest is first.
        """
        return [line for line in held.backwards() if (line.kind, line.facts.get("dataset")) == (RELEASED, self.dataset)]

    def released(self) -> tuple[list[tuple[Chosen, RowSet]], bytes]:
        """Return each released set, and the key.

        With each set is how it was chosen. Both are empty where nothing was released.

        Raises
        ------
        FlfedError
            If ledger, key or a set cannot be read.
        """
        # Nothing was ever released here, and no key is made for looking.
        if not self.ledger.path.exists() and not self.folder.is_dir():
            return [], b""
        with self.ledger.held() as held:
            lines = self.lines(held)
        if not lines and not self.folder.is_dir():
            return [], b""
        key = self.key()
        sets = self.all(lines, key)
        return list(_chosen(lines, sets)), key


def _chosen(lines: Sequence[Line], sets: Mapping[str, RowSet]) -> Iterator[tuple[Chosen, RowSet]]:
    for line in lines:
        try:
            yield Chosen.of_facts(line.facts["chosen"]), sets[line.facts["rows-sha256"]]
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"line {line.n} of the ledger does not say how rows were chosen") from None
