"""Differencing check against released rows.

The site stores the sets of rows whose sums left. A study over rows too close to one of them is refused.

Beside the site's ledger are a key, and for each set a file of keyed hashes. The ledger has a line of kind `released`
for each set and run, on the disk before the first sum leaves. Nothing of the rows themselves is stored, and without the
key nobody can find out whether a person is among them.

One table may be served under the names of several datasets. So beside each set is another one of the same persons by
their source. A study is compared with releases under the other names, too.
"""

from __future__ import annotations

import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any
from weakref import WeakKeyDictionary

from flfed.errors import FlfedError
from flfed.federation.client.released.accounts import (
    RowAccounts,
    identifying_origin,
    keep_rows_key,
    named,
    names_in,
    rows_of,
)
from flfed.federation.client.released.sets import RELEASED, RowSets
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, LockedLedger
from flfed.records.ledger_line import Line, Run, run_of
from flfed.refusals import Refusal
from flfed.rows.data.origin import Origin
from flfed.rows.data.row_keys import find_rows, row_keys
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.snapshots.differencing import RowSet, SourceSet, apart_by_few, too_close
from flfed.rows.snapshots.withholding import TESTED, Chosen
from flfed.words import render

LOG = logging.getLogger("flfed.site")
ONCE = "once"
"""Key of a line for a set of rows of which figures leave that no other run may have of them."""


@dataclass(frozen=True, eq=False)
class Part:
    """Part of a study's rows, as a set.

    Where the source is known, it is also a set of the source's persons.
    """

    chosen: Chosen
    rows: RowSet
    source: SourceSet | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """Sets of rows that a study has sums over.

    They are of one site, each once, with the origin of the rows and the key of their hashes.
    """

    all: list[Part]
    origin: Origin | None
    key: bytes


def parts_of(session: SiteSession, key: bytes) -> Parts:
    """Return the row sets that a study sums over.

    They are of one site, with the origin of the rows.
    """
    study = session.study
    site = session.site
    schema = session.schema
    complete: tuple[str, ...] = ()
    if study.encode.rows == "complete":
        complete = tuple(schema.features(study.dataset.features))
    parts = []
    whole, source = rows_of(site)
    keys = row_keys(whole)
    for part, table in session.parts().items():
        apart = part in ("fitted", "validation")
        share = study.plan.validation if apart else 0.0
        seed = session.seed if apart else 0
        persons = None
        if source is not None and (places := find_rows(row_keys(table), keys)) is not None:
            persons = SourceSet.of(source, places.tolist(), key, grouped=bool(schema.group))
        parts.append(Part(Chosen(part, complete, share, seed), RowSet.of(table, schema, key), persons))
    return Parts(parts, None if source is None else identifying_origin(source.origin), key)


class Releases:
    """Differencing guard of a site's releases.

    It refuses studies over rows too close to released ones, and records the next releases.

    Parameters
    ----------
    ledger_of : callable (site) → Ledger
        Where a site records its releases.

    Notes
    -----
    One for a client side, which uses it only for sites whose figures are withheld. A session is checked once a run, at
    whichever message comes first. Enrolment writes no line, since no sum leaves with it.
    """

    def __init__(self, ledger_of: Callable[[Site], Ledger]) -> None:
        self._ledger_of = ledger_of
        self._here = f"here-{secrets.token_hex(8)}"
        self._done: WeakKeyDictionary[SiteSession, set[tuple[str, bool]]] = WeakKeyDictionary()
        self._parts: WeakKeyDictionary[SiteSession, Parts] = WeakKeyDictionary()

    def refusal(self, session: SiteSession, run: str, *, leaves: bool) -> Refusal | None:
        """Return why no sum may leave, or None.

        Where sums may leave, the ledger has them afterwards.

        Parameters
        ----------
        session : SiteSession
            The site's session of the study.
        run : str
            The run's name; without one, this process stands for a run.
        leaves : bool
            Whether sums leave with the reply: then the line is on the disk when this returns.
        """
        run = run or self._here
        done = self._done.setdefault(session, set())
        if (run, leaves) in done:
            return None
        try:
            refusal = self._decided(session, run, leaves)
        except FlfedError as error:
            LOG.error("%s", error)
            return Refusal("releases-unreadable")
        if not refusal:
            done.add((run, leaves))
        return refusal

    def leaves_once(self, session: SiteSession, run: str, *, claim: bool) -> bool:
        """Return whether feature importances and figures of groups of the holdout may leave.

        They may where no other run's had any of these rows in them; with `claim`, the ledger has it afterwards. Figures
        of other groups, or by another model, may differ by a single row.
        """
        row_sets = self._sets(session)
        try:
            parts = self._hashed(session, row_sets.key())
            with row_sets.ledger.lock() as locked_ledger:
                facts = _facts(session, run or self._here, parts)
                return _claim(row_sets, locked_ledger, parts, facts, claim=claim)
        except FlfedError as error:
            LOG.error("%s", error)
            return False

    def record(self, session: SiteSession, run: str) -> None:
        """Record a session's rows as released with all figures, whatever the rules say: for runs that may have been.

        Raises
        ------
        FlfedError
            If ledger, key or a set cannot be read or written.
        """
        row_sets = self._sets(session)
        parts = parts_of(session, self._key(row_sets))
        facts = _facts(session, run, parts)
        with row_sets.ledger.lock() as locked_ledger:
            _record(row_sets, locked_ledger, parts, (), facts)
        holdout = next(part for part in parts.all if part.chosen.part in TESTED)
        chosen = holdout.chosen.facts()
        row_sets.ledger.append(kind=RELEASED, **facts, rows_sha256=holdout.rows.id, chosen=chosen, **{ONCE: True})

    def _key(self, row_sets: RowSets) -> bytes:
        """Return the key of row hashes, a new one only where no line and no set can depend on another one."""
        with row_sets.ledger.lock() as locked_ledger:
            named_before = any(line.kind == RELEASED or names_in(line.facts) for line in locked_ledger.backwards())
            return row_sets.key(make=not named_before)

    def _hashed(self, session: SiteSession, key: bytes) -> Parts:
        """Return the session's sets of rows by a key."""
        if session not in self._parts or self._parts[session].key != key:
            self._parts[session] = parts_of(session, key)
        return self._parts[session]

    def _sets(self, session: SiteSession) -> RowSets:
        site = session.site
        return RowSets(SiteFolder(site.name), session.study.dataset.name, self._ledger_of(site))

    def _decided(self, session: SiteSession, run: str, leaves: bool) -> Refusal | None:
        SiteFolder(session.site.name).make()
        row_sets = self._sets(session)
        parts = self._hashed(session, self._key(row_sets))  # slow, so it runs without the ledger's lock
        with row_sets.ledger.lock() as locked_ledger:
            accounts, released = _released(locked_ledger)
            lines = row_sets.lines(released)
            if row_sets.key_file.exists():
                parts = self._hashed(session, row_sets.key())  # another process may have made the key meanwhile
            facts = _facts(session, run, parts)
            before = row_sets.all(lines, parts.key)
            # Checked and written under one lock, so that no other process releases in between.
            refusal = _refusal(parts.all, before, lines, facts, session.site)
            same = accounts.datasets(row_sets.dataset, names_in(facts))
            refusal = refusal or _refusal_of_names(parts, row_sets, released, same, facts, session.site)
            if leaves and not refusal:
                _record(row_sets, locked_ledger, parts, lines, facts)
        return refusal


def _facts(session: SiteSession, run: str, parts: Parts) -> dict[str, Any]:
    """Return the facts of each line of a run's releases."""
    study = session.study
    facts: dict[str, Any] = {"study": study.name, "study-sha256": study.sha256(), "dataset": study.dataset.name}
    facts |= {"run": run, "repeat": session.repeat}
    if parts.origin is not None:
        facts |= named(parts.origin, parts.key)
    return facts


def _released(locked_ledger: LockedLedger) -> tuple[RowAccounts, list[Line]]:
    """Return a ledger's accounts and its lines about released sets.

    The newest line comes first.
    """
    accounts = RowAccounts()
    released = []
    for line in locked_ledger.backwards():
        accounts.add(line)
        if line.kind == RELEASED:
            released.append(line)
    return accounts, released


def _claim(
    row_sets: RowSets, locked_ledger: LockedLedger, parts: Parts, facts: Mapping[str, Any], *, claim: bool
) -> bool:
    """Return whether figures may leave that leave once, and record it with `claim`.

    The ledger is locked meanwhile, so that no other run claims the same rows.
    """
    accounts, released = _released(locked_ledger)
    counted = [line for line in released if line.facts.get(ONCE)]
    if any(run_of(line.facts) == run_of(facts) for line in counted):
        return True  # a repeated request: the same figures
    same = accounts.datasets(row_sets.dataset, names_in(facts))
    counted = [line for line in counted if line.facts.get("dataset") in {*same, row_sets.dataset}]
    # Rows under another dataset's name cannot be compared with these one by one.
    if any(line.facts.get("dataset") != row_sets.dataset for line in counted):
        return False
    before = row_sets.all(counted, parts.key)
    holdout = next(part for part in parts.all if part.chosen.part in TESTED)
    if any(before[str(line.facts["rows-sha256"])].shares(holdout.rows) for line in counted):
        return False
    if claim:
        chosen = holdout.chosen.facts()
        locked_ledger.append(kind=RELEASED, **facts, rows_sha256=holdout.rows.id, chosen=chosen, **{ONCE: True})
    return True


def _refusal(
    parts: Sequence[Part], before: Mapping[str, RowSet], lines: Sequence[Line], facts: Mapping[str, Any], site: Site
) -> Refusal | None:
    """Return the rule that refuses the parts, or None."""
    released = dict(before)
    for part in parts:
        # By study and repeat too: one name for all of them would be one release for ever.
        refused = _too_many(_runs_over(part, lines), facts, site)
        if refused is not None:
            return refused
        if len(part.rows) < site.policy.cell_minimum:
            return Refusal("too-few-people", least=site.policy.cell_minimum, parts=part.chosen.part)
        if too_close(part.rows, list(released.values()), site.policy.cell_minimum):
            return Refusal("too-close", least=site.policy.cell_minimum)
        released[part.rows.id] = part.rows
    return None


def _runs_over(part: Part, lines: Sequence[Line]) -> set[Run]:
    """Return the runs in which a part's rows were released."""
    return {run_of(line.facts) for line in lines if line.facts.get("rows-sha256") == part.rows.id}


def _too_many(runs: set[Run], facts: Mapping[str, Any], site: Site) -> Refusal | None:
    """Return why one more run is too many, or None.

    It is over rows that were in these runs.
    """
    had = len(runs - {run_of(facts)})
    return Refusal("too-many-queries", most=site.policy.queries, had=had) if had >= site.policy.queries else None


def _refusal_of_names(
    parts: Parts,
    row_sets: RowSets,
    released: Sequence[Line],
    same: Collection[str],
    facts: Mapping[str, Any],
    site: Site,
) -> Refusal | None:
    """Return why other names forbid a release, or None.

    The sums would leave beside those under other datasets' names, of which some are of the same rows.
    """
    sources = [part.source for part in parts.all if part.source is not None]
    others: list[SourceSet] = []
    runs = defaultdict[str, set[Run]](set)
    for other in row_sets.others(released):
        lines = other.lines(released)
        persons = other.sources(parts.key)
        # A set has no persons where they are unknown.
        sets = {id: persons.get(id, []) for id in other.all(lines, parts.key)}
        source_sets = [*chain.from_iterable(sets.values())]
        alike = _of_same_columns(source_sets, sources)
        # Sets of an unknown source have no persons; those of the same rows may be identified by other columns.
        untold = not all(sets.values()) or (other.dataset in same and len(alike) < len(source_sets))
        if sets and (untold or len(sources) < len(parts.all)):
            LOG.error(render("gate.rows.incomparable", dataset=row_sets.dataset, other=other.dataset))
            return Refusal("other-people-untold", dataset=other.dataset)
        others += alike
        for line in lines:
            for one in sets.get(str(line.facts.get("rows-sha256")), ()):
                runs[one.id].add(run_of(line.facts))
    if not others:
        return None
    for part in parts.all:
        elsewhere = set[Run]() if part.source is None else runs[part.source.id]
        refused = _too_many(elsewhere | _runs_over(part, released), facts, site)
        if refused is not None:
            return refused
    own = _of_same_columns(chain.from_iterable(row_sets.sources(parts.key).values()), sources)
    return Refusal("too-close", least=site.policy.cell_minimum) if _closes_in(sources, others, own, site) else None


def _of_same_columns(source_sets: Iterable[SourceSet], sources: Sequence[SourceSet]) -> list[SourceSet]:
    """Return the sets of the same columns as a study's.

    They can be compared person by person.
    """
    return [one for one in source_sets if sources and one.columns == sources[0].columns]


def _closes_in(sources: Sequence[SourceSet], others: Sequence[SourceSet], own: list[SourceSet], site: Site) -> bool:
    """Return whether persons are too close to released ones.

    Those released under this name and under others count together.
    """
    if not any(one.meets(other) for one, other in product((*own, *sources), others)):
        return False
    for one in sources:
        if one.id not in {before.id for before in own}:
            earlier_digests = [before.digests for before in (*others, *own)]
            if apart_by_few([one.digests, *earlier_digests], site.policy.cell_minimum):
                return True
            own.append(one)
    return False


def _record(
    row_sets: RowSets, locked_ledger: LockedLedger, parts: Parts, lines: Sequence[Line], facts: Mapping[str, Any]
) -> None:
    """Record each part that this run newly releases, first the key, then its file, then its line."""
    keep_rows_key(row_sets.key_file.parent, parts.key)
    there = [(run_of(line.facts), line.facts.get("rows-sha256"), line.facts.get("chosen")) for line in lines]
    for part in parts.all:
        chosen = part.chosen.facts()
        if (run_of(facts), part.rows.id, chosen) not in there:
            row_sets.write(part.rows, part.source)
            line = locked_ledger.append(kind=RELEASED, **facts, rows_sha256=part.rows.id, chosen=chosen)
            locked_ledger = replace(locked_ledger, size=locked_ledger.size + len(line.raw) + 1)
