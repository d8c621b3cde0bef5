"""Snapshots of a site's rows for its gate.

Rows are frozen again only after a person has seen the changes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.used_people import fit_to_used
from flfed.errors import UsageError, count_in_words
from flfed.paths import SiteFolder
from flfed.rows.data.holdout import row_texts
from flfed.rows.data.origin import is_changed
from flfed.rows.data.site import Site
from flfed.rows.snapshots.opt_outs import ANY, Excluded, Exclusion
from flfed.rows.snapshots.snapshot import Frozen, Prepared, load, read_facts
from flfed.words import counted, usage_error

SIDE_WORDS = {
    "training": "the training rows",
    "test": "the test rows",
    "further": "the rows that are kept for their outcome",
    "neither": "the rows of neither side",
    "whole": "all rows",
}


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
    missing : dict of str to int
        How many people must still come or leave on a side until the rows may be served, since those of a snapshot that
        was used are so close to them; empty where none are.
    """

    folder: SiteFolder
    prepared: Prepared
    before: Frozen | None
    unusable: str
    difference: Difference
    voids: tuple[str, ...]
    missing: dict[str, int]

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        if self.missing:
            return False
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
        changes first. If they are close to rows of another dataset that were used.
    """
    before = read_facts(site, folder.frozen)
    # A second freeze would void approvals silently; `refresh` shows first what it voids.
    if before is not None:
        raise usage_error("gate.files.frozen", site=site.name, dataset=site.dataset, at=before.at)
    folder.make()
    prepared, missing = _prepared(folder, site, None, allow_unmatched)
    if missing:
        lacks = missing_in_words(missing)
        raise usage_error("gate.files.close", site=site.name, dataset=site.dataset, missing=lacks)
    return prepared.write(folder.frozen)


def missing_in_words(missing: Mapping[str, int]) -> str:
    """Return how many people are missing on which side, for the site's own eyes."""
    return ", ".join(f"{counted(many, 'person')} in {SIDE_WORDS[side]}" for side, many in missing.items())


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
    unusable = ""
    # A snapshot that cannot be served is replaced as a whole: every row then counts as added.
    try:
        served = load(site, folder.frozen)
        before = served.snapshot
        frozen = Counter(row_texts(served.inspect()[0]))
    except UsageError as error:
        if not (folder.frozen / site.dataset).is_dir():
            raise
        unusable = str(error)
    prepared, missing = _prepared(folder, site, before, allow_unmatched)
    # Rows are compared as a multiset of texts, since a table has no key that identifies them.
    rows = Counter(row_texts(prepared.table))
    unchanged = (rows & frozen).total()
    difference = Difference(rows.total() - unchanged, frozen.total() - unchanged, unchanged)
    return Refresh(folder, prepared, before, unusable, difference, _voided(folder, prepared), missing)


def _prepared(
    folder: SiteFolder, site: Site, before: Frozen | None, allow_unmatched: bool
) -> tuple[Prepared, dict[str, int]]:
    """Return a site's present rows, without opt-outs and withheld rows, and how many people they lack on each side.

    What a person allowed for the same list holds while as many of it are in the table, and no more in another spelling.

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
        return present_rows, {}
    # The rows of before are not served again where the list has changed, or is gone.
    return fit_to_used(folder, present_rows, withholds=excluded is not None or last is not None)


def _voided(folder: SiteFolder, prepared: Prepared) -> tuple[str, ...]:
    """Return the studies whose approvals would become void.

    They are approved for other rows or other columns than the prepared ones.
    """
    site = prepared.site
    rows = prepared.sha256()
    schema = prepared.schema.sha256()
    standing = [one for one in approvals(folder) if (one.dataset, one.decision) == (site.dataset, "approved")]
    return tuple(sorted({one.study for one in standing if (one.rows_sha256, one.schema_sha256) != (rows, schema)}))
