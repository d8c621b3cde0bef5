"""Snapshots of a site's rows for its gate.

Rows are frozen again only after a person has seen the changes.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flfed.deployment.site_state.approval import approvals
from flfed.errors import UsageError, count_in_words
from flfed.federation.client.released.sets import RowSets
from flfed.paths import SiteFolder
from flfed.rows.data.holdout import row_texts
from flfed.rows.data.origin import is_changed
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import group_texts
from flfed.rows.snapshots.opt_outs import ANY, Excluded, Exclusion
from flfed.rows.snapshots.snapshot import Frozen, Prepared, load, read_facts
from flfed.rows.snapshots.withholding import resting
from flfed.words import usage_error

DRIFTED = 0.5
"""Where this share of the frozen rows changed at once, the table has drifted, and not its people."""


@dataclass(frozen=True)
class Difference:
    """Counts of changed rows since the snapshot.

    A changed row counts as removed and as added.
    """

    added: int
    removed: int
    unchanged: int


@dataclass(frozen=True, eq=False)
class Refresh:
    """Changes by a new snapshot; nothing is written yet.

    Attributes
    ----------
    folder : SiteFolder
    prepared : Prepared
        The present rows.
    before : Frozen or None
        The present snapshot; None where none can be served.
    unusable : str
        Why the present snapshot cannot be served, or an empty text.
    difference : Difference
        Of the rows; where no snapshot can be served, every row counts as added.
    voids : tuple of str
        Names of the studies whose approval would become void.
    drifted : bool
        Whether nearly all people are others, and about as many. Then nobody can know who joined or left, and sums that
        left before cannot be compared with new ones. People are identified by the schema's group, else by all values
        of their rows.
    """

    folder: SiteFolder
    prepared: Prepared
    before: Frozen | None
    unusable: str
    difference: Difference
    voids: tuple[str, ...]
    drifted: bool

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        if self.before is None or self.before.sha256 != self.prepared.sha256():
            return True
        # The same rows are written again, too, where the opt-outs changed, or what an approval says of their making.
        before, now = self.before.excluded, self.prepared.excluded
        return before != now or _list_of(before) != _list_of(now) or not self.prepared.is_made_as(self.before)

    def write(self) -> Frozen:
        """Write the present rows.

        The earlier snapshot remains until this one is complete.
        """
        return self.prepared.write(self.folder.frozen)


def excluded_of(folder: SiteFolder, dataset: str) -> Excluded | None:
    """Return the opt-outs of a dataset.

    None where there is no list.

    `excluded-DATASET.csv` beside `excluded.csv` counts in its place, for a dataset whose table names
    people in another column.
    """
    own = folder.excluded.with_name(f"{folder.excluded.stem}-{dataset}.csv")
    path = own if _is_there(own) else folder.excluded
    return Excluded.read(path) if _is_there(path) else None


def unread_lists(folder: SiteFolder, site: Site) -> list[Path]:
    """Return lists of people who opted out that nothing reads: in another folder, or under another name."""
    read = {folder.excluded.name, *(f"{folder.excluded.stem}-{dataset}.csv" for dataset in site.datasets)}
    places = {folder.gate, folder.root, folder.network, folder.root.parent.parent, Path()}
    if site.folder is not None:
        places |= {site.folder, site.folder.parent}
    lists = [path for place in places if os.access(place, os.R_OK) for path in place.glob("[eE]xcluded*.[ctx]*")]
    return sorted({path.absolute() for path in lists if path.parent != folder.gate or path.name not in read})


def list_changed(folder: SiteFolder, frozen: Frozen) -> bool:
    """Return whether the opt-outs changed since the snapshot.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    now = excluded_of(folder, frozen.dataset)
    sha256 = now.sha256() if now else ""
    return sha256 != _list_of(frozen.excluded)


def describe_frozen(folder: SiteFolder, site: Site) -> list[dict[str, Any]]:
    """Return the facts of a dataset's snapshot for JSON, if it has one, and whether the table's file changed since.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
        As it serves the dataset.

    Raises
    ------
    FlfedError
        If the snapshot cannot be read, or the list of those who opted out.
    """
    facts = read_facts(site, folder.frozen)
    if facts is None:
        return []
    list_changed(folder, facts)  # it raises where the list cannot be read
    persons = facts.resting.persons if facts.resting else 0
    rows = facts.rows if facts.sample == 1 else f"{facts.rows}, a sample of {facts.sample:g}"
    shown = {"dataset": site.dataset, "rows": rows, "at": facts.at, "sha256": facts.sha256}
    shown |= {"withheld": count_in_words(persons), "changed": is_changed(site, facts.origin)}
    return [{**shown, "excluded": excluded_facts(facts)}]


def excluded_facts(frozen: Frozen) -> dict[str, Any] | None:
    """Return the counts of people who opted out, of those with rows, and of their rows, for JSON."""
    gone = frozen.excluded
    return {"listed": gone.listed, "matched": gone.found, "rows": count_in_words(gone.rows)} if gone else None


def _list_of(excluded: Exclusion | None) -> str:
    return "" if excluded is None else excluded.sha256


def _is_there(path: Path) -> bool:
    # A link to nowhere exists too: reading it then fails, where else nobody would be excluded.
    return path.exists() or path.is_symlink()


def freeze_first(folder: SiteFolder, site: Site, *, allow_unmatched: bool = False) -> Frozen:
    """Freeze a site's rows for the first time.

    Rows of people who opted out are left out.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
        As it serves the dataset: `site.serving(dataset)`.
    allow_unmatched : bool
        Whether fewer than half of the list of opt-outs may be in the table.

    Raises
    ------
    UsageError
        If they are frozen already: approvals are for these rows, so only `refresh` replaces them, and shows the
        changes first.
    """
    before = read_facts(site, folder.frozen)
    # A second freeze would void approvals silently; `refresh` shows first what it voids.
    if before is not None:
        raise usage_error("gate.files.frozen", site=site.name, dataset=site.dataset, at=before.at)
    folder.make()
    return _prepared(folder, site, None, allow_unmatched).write(folder.frozen)


def refresh(folder: SiteFolder, site: Site, *, allow_unmatched: bool = False) -> Refresh:
    """Compare a site's table with its snapshot.

    The table is read again; nothing is written. Return the changes by a new snapshot.

    Raises
    ------
    UsageError
        If there is no snapshot yet, or as `freeze`.
    """
    before = None
    frozen = Counter[str]()
    people = set[str]()
    unusable = ""
    # A snapshot that cannot be served is replaced as a whole: every row then counts as added.
    try:
        served = load(site, folder.frozen)
        table, _, schema = served.inspect()
        before = served.snapshot
        frozen = Counter(row_texts(table))
        people = set(group_texts(table, schema) or ())
    except UsageError as error:
        if not (folder.frozen / site.dataset).is_dir():
            raise
        unusable = str(error)
    prepared = _prepared(folder, site, before, allow_unmatched)
    # Rows are compared as a multiset of texts, since a table has no key that identifies them.
    rows = Counter(row_texts(prepared.table))
    unchanged = (rows & frozen).total()
    difference = Difference(rows.total() - unchanged, frozen.total() - unchanged, unchanged)
    drifted = _drifted(prepared, difference, people)
    return Refresh(folder, prepared, before, unusable, difference, _voided(folder, prepared), drifted)


def _drifted(prepared: Prepared, rows: Difference, people: set[str]) -> bool:
    """Return whether nearly all people were replaced.

    About as many must be there as before. Without a group in the schema, rows are counted in place of people.
    """
    came = rows.added
    went = rows.removed
    before = rows.removed + rows.unchanged
    names = group_texts(prepared.table, prepared.schema)
    # Where the schema names a group, people are compared, since one person may have many rows.
    if names is not None:
        now = set(names)
        came = len(now - people)
        went = len(people - now)
        before = len(people)
    return before > 0 and min(came, went) >= DRIFTED * before


def _prepared(folder: SiteFolder, site: Site, before: Frozen | None, allow_unmatched: bool) -> Prepared:
    """Return a site's present rows, without opt-outs and withheld rows.

    What a person allowed for the same list holds while as many of it are in the table, and no more in another spelling.

    Withheld rows are left out beside the opt-outs, so that released sums never differ by few people.

    Under `open` no row is withheld: everything is exact there, the departures too.
    """
    excluded = excluded_of(folder, site.dataset)
    last = before and before.excluded
    if excluded is not None and allow_unmatched:
        excluded = replace(excluded, allowed=ANY)
    elif excluded is not None and last and last.allowed and last.sha256 == excluded.sha256():
        excluded = replace(excluded, allowed=last)
    present_rows = Prepared.of(site, excluded)
    if site.policy.is_open:
        return present_rows
    # New sums can be compared only with sets whose sums left: without any, nothing is withheld.
    released, key = RowSets(folder, site.dataset).released()
    if released:
        return present_rows.without(resting(site, present_rows.table, released, key, site.policy.cell_minimum))
    return present_rows


def _voided(folder: SiteFolder, prepared: Prepared) -> tuple[str, ...]:
    """Return the studies whose approvals would become void.

    They are approved for other rows or other columns than the prepared ones.
    """
    site = prepared.site
    rows = prepared.sha256()
    schema = prepared.schema.sha256()
    standing = [one for one in approvals(folder) if (one.dataset, one.decision) == (site.dataset, "approved")]
    return tuple(sorted({one.study for one in standing if (one.rows_sha256, one.schema_sha256) != (rows, schema)}))
