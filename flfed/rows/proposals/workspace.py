"""A dataset of one's own: its schema, its sites and their files.

Packages that it is written over keep what decides their holdouts, so that no row changes sides: where another salt
makes test rows of those that a site trained on, its two sets may differ by few people, and it refuses.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from flfed.errors import FlfedError, UsageError, count_in_words
from flfed.rows.data import datasets, site_discovery
from flfed.rows.data.findings.oddities import foreign_rows
from flfed.rows.data.holdout import AnyHoldout, Holdout, HoldoutByTime
from flfed.rows.data.mapping import map_table, plain_text, read_column
from flfed.rows.data.parsing.fields import Field, plain_name, with_text_names
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema, Task, read_schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame, Parquet, Source
from flfed.rows.proposals import texts
from flfed.rows.proposals.cells import READINGS
from flfed.rows.proposals.matching import Match, mapping_of, propose_mapping
from flfed.rows.proposals.own_tables import (
    OwnTable,
    cut_by,
    names_of_sites,
    read_named,
    refuse_lines_above,
    refuse_one_site,
    slug,
    with_classes,
)
from flfed.rows.proposals.tables import (
    TableProposal,
    Wishes,
    check_alike,
    column_named,
    propose_schema,
    refuse_names,
    together,
)
from flfed.rows.proposals.targets import RareClasses, find_rare_classes
from flfed.study.study import Study
from flfed.study.template import MODELS, StudyTemplate

SMALL_SITE = 150
DRAWS = 20
"""Rows up to which a salt may hold out too few of them, and how many salts are tried then."""
HOLDOUT_SHARE = Holdout.share


@dataclass(frozen=True)
class Workspace:
    """A proposed dataset with its sites.

    Attributes
    ----------
    proposal : TableProposal
    sites : tuple of Site
    title : str
    left_out : int
        Rows of too small a site to train or to judge at.
    of_no_class : int
        Rows that are left out, for their outcome is none of the classes.
    notes : tuple of str
        Rows that belong to no table, such as sums, by their number.
    """

    proposal: TableProposal
    sites: tuple[Site, ...]
    title: str = ""
    left_out: int = 0
    of_no_class: int = 0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.proposal.schema.name

    def named(self, name: str) -> Workspace:
        """Return the same dataset under another name."""
        proposal = replace(self.proposal, schema=self.proposal.schema.model_copy(update={"name": name}))
        return replace(self, proposal=proposal, sites=tuple(replace(site, dataset=name) for site in self.sites))

    def study(self, **choices: Any) -> StudyTemplate:
        """Return a first study of the dataset; `choices` as for `StudyTemplate`."""
        columns = self.proposal.columns.values()
        rows = int(self.proposal.rows * (1 - HOLDOUT_SHARE) / len(self.sites))
        task = self.proposal.schema.task
        facts = {"gaps": any(column.gaps for column in columns), "rows": rows, "task": task}
        model = MODELS[task]
        return StudyTemplate(**{"name": f"{self.name}-first", "dataset": self.name, "model": model} | facts | choices)

    def labels(self) -> tuple[Any, ...]:
        """Return the target's own values for the classes, of each the first that a data frame has.

        They are texts where a value is no plain one, or where two classes would be equal.
        """
        schema = self.proposal.schema
        column = schema.columns[schema.target]
        found: dict[str, Any] = {}
        for site in self.sites:
            table = site.source.table if isinstance(site.source, Frame) else pd.DataFrame()
            own = self.proposal.mapping(list(table.columns)).get(schema.target, schema.target)
            field = Field(own) if isinstance(own, str) else own
            if field is None:
                continue
            cells = table[field.column]
            # Of each class the first cell that is read as it.
            read = pd.Series(read_column(cells, schema.target, column, field)[0])
            for name in set(schema.classes) - set(found):
                values = cells[(read == name).to_numpy(dtype=bool)].tolist()
                if values:
                    found[name] = values[0]
        labels = tuple(found.get(name, name) for name in schema.classes)
        plain = all(isinstance(label, (bool, int, float, str)) for label in labels)
        return labels if plain and len(set(labels)) == len(labels) else schema.classes

    def files(self) -> dict[str, str]:
        """Return the text of each file, by its path in the folder."""
        dataset = f"datasets/{self.name}"
        files = {
            f"{dataset}/schema.toml": texts.schema_text(self.proposal, self.title),
            f"{dataset}/source.toml": texts.source_text(self.proposal.rows, len(self.sites)),
        }
        for site in self.sites:
            files.update(texts.site_files(site))
        return files

    def write(
        self, folder: Path, more: Mapping[str, str | bytes], *, replace: bool = False, hint: str = ""
    ) -> list[Path]:
        """Write all files, and `more` of them; as `write_new` does."""
        return texts.write_new(folder, {**self.files(), **more}, replace=replace, hint=hint)

    def save(self, folder: Path, study: Study, *, institutions: bool = False) -> list[Path]:
        """Write the tables of data frames, with dataset, sites and study, to go on with commands.

        Parameters
        ----------
        folder : Path
        study : Study
        institutions : bool
            Whether policies hold small counts back, and each holdout has a secret salt.

        Raises
        ------
        UsageError
            If a file is there already, or a table cannot be stored: nothing is written.
        """
        sites = []
        more = dict[str, str | bytes]()
        for site in self.sites:
            path = f"tables/{site.name}.parquet"
            more[path] = _stored(site)
            saved = replace(site, source=Parquet(str((folder / path).resolve())))
            if institutions:
                saved = _guarded(saved)
            sites.append(saved)
        return replace(self, sites=tuple(sites)).write(folder, more | {f"{study.name}.toml": study.text})


def _guarded(site: Site) -> Site:
    """Return a site whose policy and holdout are an institution's."""
    policy = Policy(disclosure="institution")
    holdout = site.holdout
    salted = replace(holdout, salt=secrets.token_hex(8)) if isinstance(holdout, Holdout) else holdout
    return replace(site, policy=policy, holdout=salted)


def _stored(site: Site) -> bytes:
    """Return a site's table as Parquet, with texts where cells are of several kinds."""
    source = site.source
    if not isinstance(source, Frame):
        raise UsageError(f"site {site.name!r}: its table is no data frame")
    table = source.table
    mixed = [name for name in table.columns if table[name].dtype.kind == "O"]
    try:
        stored: bytes = table.assign(**{str(name): plain_text(table[name]) for name in mixed}).to_parquet(index=False)
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's own errors are of these
        raise UsageError(
            f"site {site.name!r}: its table cannot be stored as Parquet ({type(error).__name__}): make its columns "
            "plain numbers, texts, flags or dates"
        ) from None
    return stored


def new_workspace(
    tables: Sequence[OwnTable],
    target: str,
    *,
    name: str,
    by: str = "",
    group: str = "",
    time: str = "",
    holdout: float = HOLDOUT_SHARE,
    task: Task | None = None,
    open_data: bool = False,
    salted: bool = True,
    title: str = "",
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> Workspace:
    """Return a dataset for tables that had none, with a site for each.

    Parameters
    ----------
    tables : sequence of OwnTable
    target : str
        The column to predict.
    name : str
        Of the dataset; made to a name of a-z, 0-9 and hyphens.
    by : str
        Column whose values are sites: each table is cut by it.
    group, time, task
        As for `propose_schema`.
    holdout : float in [0, 1)
        Share of rows that are held out; 0 of open data alone.
    open_data : bool
        Whether policies let exact figures leave.
    salted : bool
        Whether holdouts get a secret salt each; else the site's name stands in its place.
    title : str
    keep, drop, missing : sequence of str
        As for `Wishes.of`.

    Raises
    ------
    UsageError
        If a column is not there, or no site has enough rows.
    """
    notes = _notes(tables, list(filter(None, (target, by, group, time))))
    tables = [_with_plain_names(own) for own in tables]
    wishes = Wishes.of(_columns(tables), keep, drop, missing)
    tables = _with_codes(tables, wishes)
    _refuse_lacking(tables, target, "target")
    _refuse_lacking(tables, group, "group")
    _refuse_lacking(tables, time, "time")
    tables, rare = _without_rare_classes(tables, target, task, wishes)
    parts, left_out = _parts(tables, by, target, rare)
    name = slug(name)
    whole = {str(place): part.table for place, part in enumerate(tables)}
    if task != "regression":
        check_alike({part.title: part.table for part in tables}, target)
    unread = [by] if by else []
    proposal = propose_schema(
        whole, target, name=name, group=group, time=time, task=task, leave_out=unread, wishes=wishes
    )
    if rare:
        proposal = proposal.with_doubt(rare.words(proposal.schema.target))
    names = names_of_sites(parts)
    if len(parts) < 2:
        raise UsageError("a study needs at least two sites: give two tables, or the column that names them (by)")
    cut_at = _cut_date(parts, proposal, time, holdout)
    policy = _policy(open_data=open_data, resplit=open_data and not time)
    sites = _sites(dict(zip(names, parts, strict=True)), proposal, policy, cut_at, holdout, salted=salted)
    rare_rows = int(rare.rows.sum()) if rare else 0
    return Workspace(proposal, tuple(sites), title, left_out, rare_rows, tuple(notes))


def _sites(
    parts: Mapping[str, OwnTable],
    proposal: TableProposal,
    policy: Policy,
    cut_at: HoldoutByTime | None,
    share: float,
    *,
    salted: bool,
) -> Iterator[Site]:
    """Yield a site for each table, by its name; `share` of the rows is held out unless they are cut at a date."""
    for name, part in parts.items():
        mapping = _with_own_marks(proposal, part.table)
        split: AnyHoldout
        if cut_at:
            split = cut_at
        elif salted:
            split = _salted(share, part, proposal, mapping, policy)
        else:
            split = Holdout(share, salt=name)
        yield Site(
            name=name,
            title=part.title,
            dataset=proposal.schema.name,
            source=part.source,
            mapping=mapping,
            holdout=split,
            policy=policy,
        )


def _columns(tables: Sequence[OwnTable]) -> dict[str, pd.Series]:
    """Return the columns of all tables together."""
    return together({str(place): own.table for place, own in enumerate(tables)})


def _notes(tables: Sequence[OwnTable], words: Sequence[str]) -> list[str]:
    """Return which rows of the tables belong to none; refuses one whose first line has none of some names."""
    notes: list[str] = []
    for own in tables:
        refuse_lines_above(own.table, own.source, own.title, words)
        notes += [f"{own.title}: {words}" for words in foreign_rows(own.table)]
    return notes


def _parts(tables: Sequence[OwnTable], by: str, target: str, rare: RareClasses | None) -> tuple[list[OwnTable], int]:
    """Return the tables of the sites, cut by a column where one is named, and how many rows have no site."""
    parts, left_out = cut_by(tables, by) if by else (list(tables), 0)
    if by:
        refuse_one_site(tables, by, parts)
    if rare:
        parts = [with_classes(part, target, rare.classes) for part in parts]
    return parts, left_out


def _policy(*, open_data: bool, resplit: bool) -> Policy:
    disclosure: Literal["institution", "open"] = "open" if open_data else "institution"
    return Policy(disclosure=disclosure, resplit=resplit)


def _with_codes(tables: Sequence[OwnTable], wishes: Wishes) -> list[OwnTable]:
    """Return tables whose sources know a person's codes for "not known"."""
    wishes.refuse_absent_codes([own.table for own in tables])
    if not wishes.codes:
        return list(tables)
    found = []
    for own in tables:
        table = wishes.without_codes(own.table)
        known = Frame(table) if isinstance(own.source, Frame) else replace(own.source, missing=wishes.codes)
        found.append(replace(own, table=table, source=known))
    return found


def _without_rare_classes(
    tables: Sequence[OwnTable], target: str, task: Task | None, wishes: Wishes
) -> tuple[list[OwnTable], RareClasses | None]:
    """Return tables without the few rows that have none of the target's classes, and what these are."""
    columns = _columns(tables)
    named = column_named(target, "target", columns)
    found = find_rare_classes(columns, named, task, wishes.codes_by_column.get(named, ()))
    if found is None:
        return list(tables), None
    ends = list(accumulate(len(own.table) for own in tables))
    kept = []
    for own, end in zip(tables, ends, strict=True):
        left = ~found.rows[end - len(own.table) : end]
        kept.append(_with_table(own, own.table[left].reset_index(drop=True)))
    return kept, found


def _with_table(own: OwnTable, table: pd.DataFrame) -> OwnTable:
    source = Frame(table) if isinstance(own.source, Frame) else own.source
    return replace(own, table=table, source=source)


def _salted(
    share: float,
    part: OwnTable,
    proposal: TableProposal,
    mapping: Mapping[str, str | Field | None],
    policy: Policy,
) -> Holdout:
    """Return a holdout with a secret salt that leaves a small site enough rows on both sides."""
    found = Holdout(share, salt=secrets.token_hex(8))
    if len(part.table) > SMALL_SITE:
        return found  # by chance it has enough
    schema = proposal.schema
    least = policy.least_rows()
    missing = () if isinstance(part.source, Frame) else part.source.missing
    rows = map_table(part.table, schema, mapping, missing)[0]
    for _ in range(DRAWS):
        training, held = found.split(rows, schema)
        if min(training.sum(), held.sum()) >= least:
            break
        found = Holdout(share, salt=secrets.token_hex(8))
    return found


def _with_plain_names(own: OwnTable) -> OwnTable:
    """Return a table whose column names are texts that can be told apart."""
    table = with_text_names(own.table)
    refuse_names(table, own.title)
    return _with_table(own, table)


def _refuse_lacking(tables: Sequence[OwnTable], word: str, option: str) -> None:
    """Refuse a table without a column that every site needs."""
    lacking = [own.title for own in tables if plain_name(word) not in map(plain_name, own.table.columns)]
    # A column of no table is refused later, with the nearest name.
    if word and 0 < len(lacking) < len(tables):
        raise UsageError(f"{option}: site {lacking[0]!r} has no column {word!r}: add it, or leave the site out")


def _with_own_marks(proposal: TableProposal, table: pd.DataFrame) -> dict[str, str | Field | None]:
    """Return how one table is read; its marks of decimals and thousands may be others than another table's."""
    found = proposal.mapping(list(table.columns))
    for name, field in found.items():
        column = proposal.schema.columns[name]
        if not isinstance(field, Field) or not column.is_number():
            continue
        readings = [
            replace(field, decimal=one.decimal, thousands=one.thousands, censored=one.censored) for one in READINGS
        ]
        # What was taken for thousands, or for decimals, is read so wherever it can be.
        if field.thousands in (".", ",", ""):
            readings.insert(1, field)
        found[name] = _likeliest(readings, table[field.column], name, column)
    return found


def _likeliest(readings: Sequence[Field], cells: pd.Series, name: str, column: Column) -> Field:
    """Return the first reading by which no cell breaks a rule, or else the one by which the fewest do."""
    whole = (one for one in readings if not _unread(cells, name, column, one))
    return next(whole, None) or min(readings, key=lambda one: _unread(cells, name, column, one))


def _unread(cells: pd.Series, name: str, column: Column, field: Field) -> int:
    """Return how many cells break a rule where they are read so."""
    return sum(len(finding.rows) for finding in read_column(cells, name, column, field)[1])


def _cut_date(parts: Sequence[OwnTable], proposal: TableProposal, time: str, share: float) -> HoldoutByTime | None:
    """Return the holdout by time, at the date that leaves a share of the rows, the last ones, for it."""
    if not time or not share:
        return None
    schema = proposal.schema
    name = column_named(time, "time", schema.columns)
    dates = []
    for part in parts:
        given = proposal.mapping(list(part.table.columns)).get(name, name)
        field = Field(given) if isinstance(given, str) else given
        if field is not None:
            dates.append(pd.Series(read_column(part.table[field.column], name, Column(kind="date"), field)[0]))
    every = pd.DatetimeIndex(pd.concat(dates).dropna()).sort_values()
    cut = every[int(len(every) * (1 - share))].normalize()
    if not every[0] < cut < every[-1]:
        raise UsageError(f"time: the dates of column {time!r} are too few to hold out the last of them")
    before = cut - pd.Timedelta(days=1)
    return HoldoutByTime(name, train_until=before.date().isoformat(), test_from=cut.date().isoformat())


def summary_of(workspace: Workspace) -> str:
    """Return what was found, in one sentence."""
    kinds = [workspace.proposal.schema.columns[name].kind for name in workspace.proposal.schema.features()]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    rows = count_in_words(workspace.proposal.rows - workspace.left_out)
    return f"{len(workspace.sites)} sites, {rows} rows, {len(kinds)} features ({counted})"


@dataclass(frozen=True)
class SiteProposal:
    """A site with a mapping to an existing schema.

    Attributes
    ----------
    site : Site
    matches : list of Match
        What each column is read from.
    unread : tuple of str
        Columns of the table that nothing is read from.
    """

    site: Site
    matches: list[Match]
    unread: tuple[str, ...] = ()

    @property
    def unnamed(self) -> list[str]:
        """Columns with codes that a person has to name."""
        return [match.column for match in self.matches if match.has_unnamed_codes]

    @property
    def target(self) -> Match:
        """What is read as the column to predict."""
        target = datasets.load(self.site.dataset).schema.target
        return next(match for match in self.matches if match.column == target)

    def write(self, folder: Path) -> list[Path]:
        """Write the package into `sites/` of a folder; nothing is replaced.

        Raises
        ------
        UsageError
            If one of its files is there already.
        """
        return texts.write_new(folder, dict(texts.site_files(self.site, self._comments())))

    def _comments(self) -> dict[str, str]:
        """Return what stands behind columns that a person has to complete."""
        columns = datasets.load(self.site.dataset).schema.columns
        said = {name: f"each is one of: {', '.join(columns[name].values)}" for name in self.unnamed}
        if self.target.own is None:
            said[self.target.column] = "name the column here: no site takes part without what is predicted"
        return said


def propose_site(name: str, dataset: str, source: Source, *, title: str = "", open_data: bool = False) -> SiteProposal:
    """Return a site whose table is mapped to a dataset's schema.

    Parameters
    ----------
    name : str
    dataset : str
    source : Csv, Parquet, Excel or Sql
    title : str
    open_data : bool
        Whether its policy lets exact figures leave.

    Raises
    ------
    UsageError
        If the dataset is not known, or the table cannot be read.
    """
    schema = datasets.load(dataset).schema
    table = read_named(source)
    refuse_lines_above(table, source, name, list(schema.columns), named=False)
    matches = propose_mapping(table, schema)
    used = {match.own for match in matches}
    unread = tuple(str(name) for name in table.columns if str(name) not in used)
    policy = _policy(open_data=open_data, resplit=open_data)
    holdout = Holdout(HOLDOUT_SHARE, salt=secrets.token_hex(8))
    mapping = mapping_of(matches)
    site = Site(name=name, title=title, dataset=dataset, source=source, mapping=mapping, holdout=holdout, policy=policy)
    return SiteProposal(site, matches, unread)


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
