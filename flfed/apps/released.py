"""The sets of rows whose sums left a site, kept there; a study over rows too close to one of them is refused.

Beside the site's ledger are a key, and for each set a file of keyed hashes; the ledger has a line of kind
`released` for each set and run, on the disk before the first sum leaves. Of the rows themselves nothing
is kept, and without the key nobody can tell whether a person is among them.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from flfed.apps.gate.folder import SiteFolder
from flfed.apps.gate.receipts import ledger_of
from flfed.apps.gate.run_limits import run_of
from flfed.errors import FlfedError, UsageError
from flfed.records.ledger import HeldLedger, Ledger
from flfed.records.ledger_lines import Line
from flfed.rows.policy import Policy
from flfed.rows.private import locked, private_bytes, write_private_bytes
from flfed.rows.resting import Chosen
from flfed.rows.row_sets import RowSet, too_close
from flfed.rows.site import Site
from flfed.rows.workplace import Workplace

RELEASED = "released"
"""The kind of a ledger's line for a set of rows whose sums leave."""
KEY_BYTES = 32
UNREADABLE = "its record of the rows that it released cannot be read, so nothing leaves the site: see its log"
"""What a site says whose key, ledger or a set's file is damaged or gone."""
LOG = logging.getLogger("flfed.site")
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the rows of a study, as a set."""

    chosen: Chosen
    rows: RowSet


class RowSets:
    """The released sets of one site and dataset, as files.

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
        self.key_file: Path = folder.gate / "rows.key"

    def key(self, *, make: bool = False) -> bytes:
        """Return the site's key of row hashes, which never leaves it and is made once.

        Raises
        ------
        UsageError
            If it cannot be read, others may read it, or it is gone while there are sets.
        """
        try:
            found = private_bytes(self.key_file)
        except FileNotFoundError:
            if not make or any(self.folder.parent.glob("*/*")):
                raise UsageError(f"{self.key_file}: is gone, and with it what was released cannot be told") from None
            write_private_bytes(self.key_file, secrets.token_bytes(KEY_BYTES))
            return private_bytes(self.key_file)
        except OSError as error:
            raise UsageError(f"{self.key_file}: cannot be read ({error.strerror})") from None
        if len(found) != KEY_BYTES:
            raise UsageError(f"{self.key_file}: is damaged")
        return found

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
        with locked(self.folder, writing=False):
            there = {path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name)}
            return {id: self._read(id, key) for id in sorted(named | there)}

    def _read(self, id: str, key: bytes) -> RowSet:
        try:
            return RowSet.from_bytes(self.dataset, private_bytes(self.folder / id), key, id=id)
        except OSError as error:
            raise UsageError(f"the set of released rows {id[:12]} cannot be read ({error.strerror})") from None

    def write(self, rows: RowSet) -> None:
        """Write a set down; one that is there stays as it is."""
        with locked(self.folder, writing=True):
            if not (self.folder / rows.id).exists():
                write_private_bytes(self.folder / rows.id, rows.to_bytes())

    def lines(self, held: HeldLedger) -> list[Line]:
        """Return the ledger's lines on released sets of the dataset, newest first."""
        return [line for line in held.backwards() if (line.kind, line.facts.get("dataset")) == (RELEASED, self.dataset)]

    def released(self) -> tuple[list[tuple[Chosen, RowSet]], bytes]:
        """Return each released set with how it was chosen, and the key; nothing where nothing was released.

        Raises
        ------
        FlfedError
            If ledger, key or a set cannot be read.
        """
        if not self.ledger.path.exists() and not self.folder.is_dir():
            return [], b""
        with self.ledger.held() as held:
            lines = self.lines(held)
        if not lines and not self.folder.is_dir():
            return [], b""
        key = self.key()
        sets = self.all(lines, key)
        return list(_chosen(lines, sets)), key

    def intersecting(self, id: str) -> frozenset[str]:
        """Return the ids of all released sets with a person of the set `id`; an unknown set meets all of them.

        Raises
        ------
        FlfedError
            If ledger, key or a set cannot be read.
        """
        with self.ledger.held() as held:
            lines = self.lines(held)
        sets = self.all(lines, self.key()) if lines or self.folder.is_dir() else {}
        return frozenset(other for other, one in sets.items() if id not in sets or one.common(sets[id]))


def _chosen(lines: Sequence[Line], sets: Mapping[str, RowSet]) -> Iterator[tuple[Chosen, RowSet]]:
    for line in lines:
        try:
            yield Chosen.of_facts(line.facts["chosen"]), sets[line.facts["rows-sha256"]]
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"line {line.n} of the ledger does not say how rows were chosen") from None


def parts_of(workplace: Workplace, key: bytes) -> list[Part]:
    """Return the sets of rows that a study has sums over at a site, each once."""
    study = workplace.study
    complete: tuple[str, ...] = ()
    if study.encode.rows == "complete":
        complete = tuple(workplace.schema.features(study.dataset.features))
    found = []
    for part, table in workplace.parts().items():
        apart = part in ("fitted", "validation")
        share, seed = (study.plan.validation, workplace.seed) if apart else (0.0, 0)
        rows = RowSet.of(table, workplace.schema, key)
        found.append(Part(Chosen(part, complete, share, seed), rows))
    return found


class Releases:
    """Refuses studies over rows too close to released ones, and writes down what is released next.

    Notes
    -----
    One for a client side. A workplace is looked at once a run: whichever message comes first. Enrolment
    writes nothing, since no sum leaves with it.

    Parameters
    ----------
    ledger_of : callable (site) → Ledger
        Where a site writes down what it releases.
    """

    def __init__(self, ledger_of: Callable[[Site], Ledger]) -> None:
        self._ledger_of = ledger_of
        self._here = f"here-{secrets.token_hex(8)}"
        self._done: WeakKeyDictionary[Workplace, set[tuple[str, bool]]] = WeakKeyDictionary()
        self._parts: WeakKeyDictionary[Workplace, list[Part]] = WeakKeyDictionary()

    def refusal(self, workplace: Workplace, run: str, *, leaves: bool) -> str:
        """Return why no sum over a study's rows may leave, or an empty text; then the ledger has it.

        Parameters
        ----------
        workplace : Workplace
            The site at work on the study.
        run : str
            The run's name; where it has none, this process stands for one.
        leaves : bool
            Whether sums leave with the answer: then it is on the disk when this returns.
        """
        site, study, run = workplace.site, workplace.study, run or self._here
        if site.policy.disclosure == "open" or study.dataset.partition is not None:
            return ""
        done = self._done.setdefault(workplace, set())
        if (run, leaves) in done:
            return ""
        try:
            said = self._decided(workplace, run, leaves)
        except FlfedError as error:
            LOG.error("%s", error)
            return UNREADABLE
        if not said:
            done.add((run, leaves))
        return said

    def _decided(self, workplace: Workplace, run: str, leaves: bool) -> str:
        folder, study = SiteFolder(workplace.site.name), workplace.study
        folder.make()
        kept = RowSets(folder, study.dataset.name, self._ledger_of(workplace.site))
        with kept.ledger.held() as held:
            key = kept.key(make=not kept.lines(held))
        if workplace not in self._parts:
            self._parts[workplace] = parts_of(workplace, key)  # takes a while, so nobody waits for the ledger
        parts, policy = self._parts[workplace], workplace.site.policy
        with kept.ledger.held() as held:
            lines = kept.lines(held)
            facts: dict[str, Any] = {"study": study.name, "study-sha256": study.sha256(), "dataset": kept.dataset}
            facts |= {"run": run, "repeat": workplace.seed - study.seed}
            said = _refusal(parts, kept.all(lines, key), lines, facts, policy)
            if leaves and not said:
                _record(kept, held, parts, lines, facts)
        return said


def _refusal(
    parts: Sequence[Part],
    before: Mapping[str, RowSet],
    lines: Sequence[Line],
    facts: Mapping[str, Any],
    policy: Policy,
) -> str:
    """Return which rule keeps sums over the parts from leaving, or an empty text."""
    released = dict(before)
    for part in parts:
        # By study and repeat too: one name for all of them would be one release for ever.
        runs = {run_of(line.facts) for line in lines if line.facts.get("rows-sha256") == part.rows.id} - {run_of(facts)}
        if len(runs) >= policy.queries:
            return f"its policy lets {policy.queries} runs have sums over one set of rows, and {len(runs)} had them"
        if len(part.rows) < policy.cell_minimum:
            return f"it has fewer than {policy.cell_minimum} people in its {part.chosen.part} rows"
        if too_close(part.rows, list(released.values()), policy.cell_minimum):
            return (
                f"its rows differ by fewer than {policy.cell_minimum} people from rows whose sums left before: "
                "together such sums would give these people away"
            )
        released[part.rows.id] = part.rows
    return ""


def _record(
    kept: RowSets, held: HeldLedger, parts: Sequence[Part], lines: Sequence[Line], facts: Mapping[str, Any]
) -> None:
    """Write down each part that this run has not released yet: its file first, then its line."""
    there = [(run_of(line.facts), line.facts.get("rows-sha256"), line.facts.get("chosen")) for line in lines]
    for part in parts:
        chosen = part.chosen.facts()
        if (run_of(facts), part.rows.id, chosen) not in there:
            kept.write(part.rows)
            line = held.append(kind=RELEASED, **facts, rows_sha256=part.rows.id, chosen=chosen)
            held = replace(held, size=held.size + len(line.raw) + 1)
