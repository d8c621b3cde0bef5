"""Packages that a dataset is written over: what decides their holdouts is kept, so that no row changes sides.

Where another salt makes test rows of those that a site trained on, its two sets may differ by few people: it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flfed.errors import FlfedError
from flfed.rows.data import site_discovery
from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.mapping import map_table
from flfed.rows.data.schema import Schema, read_schema
from flfed.rows.data.site import Site
from flfed.rows.holdout_by_order import AnyHoldout

if TYPE_CHECKING:
    import numpy as np

    from flfed.rows.proposals.workspace import Workspace


@dataclass(frozen=True)
class Kept:
    """Sites whose holdout is that of a package of before.

    Attributes
    ----------
    sites : tuple of str
    moved : tuple of str
        Those of them in which rows change sides all the same, for other columns are read.
    """

    sites: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield what is said of them."""
        if self.sites:
            stays = "" if self.moved else ", so that no row that was trained on is a test row now"
            yield f"At {_many(len(self.sites))} the salt, or the date, of the holdout stays as before{stays}."
        if self.moved:
            yield (
                f"In {_many(len(self.moved))} rows change sides all the same, for these follow from the group, or else "
                "from the columns that are read: a small site that took part in a run may refuse the next one."
            )


def _many(sites: int) -> str:
    return "1 site" if sites == 1 else f"{sites} sites"


def with_earlier_holdouts(made: Workspace, to: Path, folders: Sequence[Path]) -> tuple[Workspace, Kept]:
    """Return a dataset whose sites keep the holdouts of packages that are there.

    They do where the rule of the split is the same.

    Parameters
    ----------
    made : Workspace
    to : Path
        Where it is to be written.
    folders : sequence of Path
        Others whose packages count where they read the same file.
    """
    sites = list[Site]()
    kept = list[str]()
    moved = list[str]()
    for site in made.sites:
        before = _earlier(site, to, folders)
        if before is None or not _is_same_rule(site.holdout, before.holdout):
            sites.append(site)
            continue
        sites.append(replace(site, holdout=before.holdout))
        kept.append(site.name)
        if not _same_sides(sites[-1], made.proposal.schema, before):
            moved.append(site.name)
    return replace(made, sites=tuple(sites)), Kept(tuple(kept), tuple(moved))


def _earlier(site: Site, to: Path, folders: Sequence[Path]) -> Site | None:
    """Return the site whose package is there under a site's name, None where there is none."""
    for folder in (to, *folders):
        package = folder / "sites" / site.name.replace("-", "_")
        if not (package / "__init__.py").is_file():
            continue
        try:
            found = site_discovery.of_folder(package)
        except FlfedError:
            continue  # nor is it of use to any run
        if folder == to or _path_of(found) == _path_of(site):
            return found
    return None


def _path_of(site: Site) -> str:
    return str(getattr(site.source, "path", ""))


def left_behind(made: Workspace, to: Path) -> list[str]:
    """Return the sites of the same dataset in a folder that are none of those that are made."""
    names = {site.name for site in made.sites}
    found = []
    for path in sorted(to.glob("sites/*/__init__.py")):
        try:
            site = site_discovery.of_folder(path.parent)
        except FlfedError:
            continue
        if site.name not in names and made.name in site.datasets:
            found.append(site.name)
    return found


def _is_same_rule(new: AnyHoldout, old: AnyHoldout) -> bool:
    """Tell whether two holdouts differ in their salt, or in the date of the cut, alone."""
    if isinstance(new, Holdout) and isinstance(old, Holdout):
        return new.share == old.share and bool(old.salt)
    if isinstance(new, HoldoutByTime) and isinstance(old, HoldoutByTime):
        return new.column == old.column
    return False


def _same_sides(site: Site, schema: Schema, before: Site) -> bool:
    """Tell whether every row is on the side on which it was; where its rows are others nobody can tell."""
    folder = before.folder
    if folder is None:
        return True
    try:
        old = read_schema(folder.parents[1] / "datasets" / before.dataset / "schema.toml")
        was_held = _held(before, old)
    except FlfedError:
        return True
    held = _held(site, schema)
    return len(held) != len(was_held) or bool((held == was_held).all())


def _held(site: Site, schema: Schema) -> np.ndarray:
    """Return which rows of a site are held out, in the order of the source."""
    source = site.source_knowing(schema)
    folders = (site.folder,) if site.folder else ()
    raw = source.read(folders)
    table = map_table(raw, schema, site.mapping, source.missing)[0]
    return site.holdout.split(table, schema)[1]
