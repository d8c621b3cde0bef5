"""A person's own dataset: its schema, its sites and their files.

Sites that replace earlier packages keep their holdouts, so that no row changes sides. With another salt a site would
test on rows that it trained on, and refuse runs whose sets of rows differ by few people.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flfed.errors import FlfedError, collected, count_in_words, raise_all
from flfed.rows.data import site_discovery
from flfed.rows.data.holdout import AnyHoldout, Holdout, HoldoutByTime
from flfed.rows.data.mapping import OUTSIDE, map_table, plain_text, read_column
from flfed.rows.data.parsing.fields import ColumnMapping, Field, own_name, plain_name, with_text_names
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema, Task, read_schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame, Parquet
from flfed.rows.proposals import texts
from flfed.rows.proposals.own_tables import (
    LEAST_OF_SITE,
    FrameReading,
    OwnTable,
    cut_by,
    foreign_notes,
    joined,
    names_of_sites,
    refuse_one_site,
    slug,
    with_classes,
)
from flfed.rows.proposals.tables import (
    TableProposal,
    Wishes,
    check_alike,
    column_named,
    notes_on_units,
    propose_schema,
    rare_classes,
    refuse_names,
    together,
)
from flfed.study.study import Study
from flfed.study.template import MODELS, StudyTemplate
from flfed.words import counted, render, usage_error

HOLDOUT_SHARE = Holdout.share
PARTY_BYTES = 200_000_000
"""Bytes a day that a run between parties may need."""
SMALL_SITE = 150
DRAWS = 20
"""Rows up to which a salt may hold out too few of them, and the number of salts that are tried then."""


@dataclass(frozen=True)
class Workspace:
    """A proposed dataset with its sites.

    Attributes
    ----------
    proposal : TableProposal
    sites : tuple of Site
    title : str
    left_out : int
        Rows of sites that are too small to train or evaluate.
    of_no_class : int
        Rows that are left out because their outcome is none of the classes.
    notes : tuple of str
        Rows without data, such as sums, by their number.
    """

    proposal: TableProposal
    sites: tuple[Site, ...]
    title: str
    left_out: int
    of_no_class: int
    notes: tuple[str, ...]

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
        if not all(site.has_outcome for site in self.sites):
            choices = {"sites": tuple(site.name for site in self.sites), "has_parties": True} | choices
        return StudyTemplate(**{"name": f"{self.name}-first", "dataset": self.name, "model": model} | facts | choices)

    def labels(self) -> tuple[Any, ...]:
        """Return the target's own values for the classes, each the first in a data frame.

        They are the schema's texts if a value is no plain one, or if two classes would be equal.
        """
        schema = self.proposal.schema
        column = schema.columns[schema.target]
        label_by_class: dict[str, Any] = {}
        for site in self.sites:
            table = site.source.table if isinstance(site.source, Frame) else pd.DataFrame()
            own = self.proposal.mapping(list(table.columns)).get(schema.target, schema.target)
            field = Field(own) if isinstance(own, str) else own
            if field is None:
                continue
            cells = table[field.column]
            read = pd.Series(read_column(cells, schema.target, column, field)[0])
            label_by_class = _first_cells(cells, read, schema.classes) | label_by_class
        labels = tuple(label_by_class.get(name, name) for name in schema.classes)
        plain = all(isinstance(label, (bool, int, float, str)) for label in labels)
        return labels if plain and len(set(labels)) == len(labels) else schema.classes

    def reading(self) -> FrameReading:
        """Return the reading of its data frames."""
        return FrameReading(self.proposal.fields(), self.labels())

    def files(self) -> dict[str, str]:
        """Return the text of each file, by its path in the folder."""
        dataset = f"datasets/{self.name}"
        files = {
            f"{dataset}/schema.toml": texts.schema_text(self.proposal, self.title),
            f"{dataset}/source.toml": texts.source_text(self.proposal.rows, len(self.sites)),
        }
        for site in self.sites:
            files |= texts.site_files(site, {})
        return files

    def write(
        self, folder: Path, more: Mapping[str, str | bytes], *, replace: bool = False, hint: str = ""
    ) -> list[Path]:
        """Write all files and `more`, as `write_new` does."""
        return texts.write_new(folder, {**self.files(), **more}, replace=replace, hint=hint)

    def save(self, folder: Path, study: Study, *, institutions: bool = False) -> list[Path]:
        """Write the tables of data frames, with dataset, sites and study, for use by commands.

        Parameters
        ----------
        folder : Path
        study : Study
        institutions : bool
            Whether policies suppress small counts, and each holdout has a secret salt.

        Raises
        ------
        UsageError
            If a file is there already, or a table cannot be stored: nothing is written.
        """
        sites = []
        more = {}
        for site in self.sites:
            path = f"tables/{site.name}.parquet"
            more[path] = _stored(site)
            saved = replace(site, source=Parquet(str((folder / path).resolve())))
            if institutions:
                saved = replace(saved, policy=Policy())
                if isinstance(site.holdout, Holdout):
                    saved = replace(saved, holdout=replace(site.holdout, salt=secrets.token_hex(8)))
            sites.append(saved)
        return replace(self, sites=tuple(sites)).write(folder, more | {f"{study.name}.toml": study.text})


def _stored(site: Site) -> bytes:
    """Return a site's table as Parquet, with texts where cells are of several kinds."""
    source = site.source
    if not isinstance(source, Frame):
        raise usage_error("proposals.workspace.frame", site=site.name)
    table = source.table
    mixed = [name for name in table.columns if table[name].dtype.kind == "O"]
    try:
        stored: bytes = table.assign(**{str(name): plain_text(table[name]) for name in mixed}).to_parquet(index=False)
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's own errors are of these
        raise usage_error("proposals.workspace.unstored", site=site.name, error=type(error).__name__) from None
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
    min_rows: int = LEAST_OF_SITE,
    parties: bool = False,
) -> Workspace:
    """Return a dataset for tables without one, with a site for each.

    Parameters
    ----------
    tables : sequence of OwnTable
    target : str
        The column to predict.
    name : str
        Of the dataset; converted to a name of a-z, 0-9 and hyphens.
    by : str
        Column whose values are sites: each table is cut by it.
    group, time, task
        As for `propose_schema`.
    holdout : float in [0, 1)
        Share of rows that are held out; 0 for open data only.
    open_data : bool
        Whether policies release exact figures.
    salted : bool
        Whether holdouts get a secret salt each; else the salt is the site's name.
    title : str
    keep, drop, missing : sequence of str
        As for `Wishes.of`.
    min_rows : int
        Least rows of a site that `by` cuts; the rows of smaller ones are one site.
    parties : bool
        Whether the tables have different columns of the same people, whom `group` names; one has the target.

    Raises
    ------
    UsageError
        If a column does not exist, or no site has enough rows.
    """
    notes: list[str] = []
    plain: list[OwnTable] = []
    faults: list[FlfedError] = []
    for own in tables:
        with collected(faults):
            notes += foreign_notes(own, list(filter(None, (target, by, group, time))))
            plain.append(_with_plain_names(own))
    raise_all(faults)
    tables = plain
    wishes = Wishes.of(together(_by_place(tables)), keep, drop, missing)
    tables = _with_codes(tables, wishes)
    _refuse_lacking(tables, "" if parties else target, group, time)
    if parties:
        _refuse_parties(tables, target, group, by)
    rare = None if parties else rare_classes(_by_place(tables), target, task, wishes)
    if rare:
        tables = _without_rows(tables, rare.rows)
    parts = tables
    left_out = 0
    if by:
        parts, left_out = cut_by(tables, by, min_rows)
        refuse_one_site(tables, by, parts, min_rows)
    rare_rows = 0
    if rare:
        rare_rows = int(rare.rows.sum())
        parts = [with_classes(part, target, rare.classes) for part in parts]
    name = slug(name)
    # What leaks and what identifies shows in the columns of all parties side by side.
    tables = [joined(tables, group)] if parties else tables
    if task != "regression":
        check_alike({part.title: part.table for part in tables}, target)
    proposal = propose_schema(
        _by_place(tables), target, name=name, group=group, time=time, task=task,
        leave_out=list(filter(None, [by])), wishes=wishes,
    )  # fmt: skip
    if rare:
        proposal = proposal.with_doubt(rare.words(proposal.schema.target))
    names = names_of_sites(parts)
    if len(parts) < 2:
        raise usage_error("proposals.workspace.single")
    cut_at = _cut_date(parts, proposal, time, holdout)
    policy = Policy(disclosure="open", resplit=not (time or parties)) if open_data else Policy()
    sites = tuple(_sites(dict(zip(names, parts, strict=True)), proposal, policy, cut_at, holdout, salted=salted))
    sites = _as_parties(sites, proposal.schema.target) if parties else sites
    made = Workspace(proposal, sites, title, left_out, rare_rows, (*notes, *_absent_columns(sites)))
    return _examine_numbers(made, parts)


def _examine_numbers(made: Workspace, parts: Sequence[OwnTable]) -> Workspace:
    """Return a dataset with notes on numbers outside of the drafted ranges, and on columns in one site's own unit.

    Such numbers are missing in a data frame. Those of a file stay, and the check of its site refuses them.
    """
    proposal = made.proposal
    schema = proposal.schema
    sites = list(made.sites)
    notes = list(made.notes)
    columns = {name: column for name, column in schema.columns.items() if column.is_number()}
    numbers = schema.model_copy(update={"columns": columns})
    read = []
    outcomes = 0
    for place, (site, part) in enumerate(zip(made.sites, parts, strict=True)):
        mapped, findings = map_table(part.table, numbers, site.mapping, outcome=False)
        read.append(mapped)
        for finding in [one for one in findings if one.rule.startswith(OUTSIDE)]:
            name = finding.column
            key = "frame" if isinstance(site.source, Frame) else "file"
            cells = count_in_words(len(finding.rows))
            notes.append(render(f"proposals.workspace.far-{key}", site=site.name, cells=cells, column=name))
            if isinstance(site.source, Frame):
                table = sites[place].source.read(())
                own = own_name(site.mapping.get(name, name))
                table[own] = table[own].mask(np.isin(np.arange(len(table)), finding.rows))
                sites[place] = replace(site, source=Frame(table))
                outcomes += len(finding.rows) * (name == schema.target)
    for name in columns:
        notes += notes_on_units(name, {site.name: own[name].to_numpy() for site, own in zip(sites, read, strict=True)})
    if outcomes:
        target = replace(proposal.target, unlabelled=proposal.target.unlabelled + outcomes)
        proposal = replace(proposal, target=target, schema=schema.model_copy(update={"unlabelled": "leave-out"}))
    return replace(made, proposal=proposal, sites=tuple(sites), notes=tuple(notes))


def _absent_columns(sites: Sequence[Site]) -> Iterator[str]:
    for site in sites:
        if absent := [name for name, reading in site.mapping.items() if reading is None]:
            yield render("proposals.workspace.absent", site=site.name, columns=", ".join(absent))


def _sites(
    parts: Mapping[str, OwnTable],
    proposal: TableProposal,
    policy: Policy,
    cut_at: HoldoutByTime | None,
    share: float,
    *,
    salted: bool,
) -> Iterator[Site]:
    """Yield a site for each table; `share` of its rows are the holdout, unless there is a date."""
    for name, part in parts.items():
        mapping = proposal.mapping_of(part.table)
        split: AnyHoldout = cut_at or Holdout(share, salt=name)
        if salted and not cut_at:
            split = _salted(share, part, proposal.schema, mapping, policy)
        yield Site(
            name=name, title=part.title, dataset=proposal.schema.name, source=part.source,
            mapping=mapping, holdout=split, policy=policy,
        )  # fmt: skip


def _by_place(tables: Sequence[OwnTable]) -> dict[str, pd.DataFrame]:
    """Return tables by their places, since titles may be equal."""
    return {str(place): own.table for place, own in enumerate(tables)}


def _with_codes(tables: Sequence[OwnTable], wishes: Wishes) -> list[OwnTable]:
    """Return tables whose sources have a person's codes for "not known"."""
    wishes.refuse_absent_codes([own.table for own in tables])
    if not wishes.codes:
        return list(tables)
    return [own.with_table(wishes.without_codes(own.table), missing=wishes.codes) for own in tables]


def _without_rows(tables: Sequence[OwnTable], dropped: np.ndarray) -> list[OwnTable]:
    """Return tables without some rows; `dropped` is of bool, over the rows of all tables."""
    ends = list(accumulate(len(own.table) for own in tables))
    remaining_tables = []
    for own, end in zip(tables, ends, strict=True):
        left = ~dropped[end - len(own.table) : end]
        remaining_tables.append(own.with_table(own.table[left].reset_index(drop=True)))
    return remaining_tables


def _salted(share: float, part: OwnTable, schema: Schema, mapping: ColumnMapping, policy: Policy) -> Holdout:
    """Return a holdout with a secret salt that leaves a small site enough rows on both sides."""
    holdout = Holdout(share, salt=secrets.token_hex(8))
    if len(part.table) > SMALL_SITE:
        return holdout  # such a site has enough with near certainty
    least = policy.least_rows()
    rows = map_table(part.table, schema, mapping, part.source.missing)[0]
    for _ in range(DRAWS):
        training, test = holdout.split(rows, schema)
        if min(training.sum(), test.sum()) >= least:
            break
        holdout = Holdout(share, salt=secrets.token_hex(8))
    return holdout


def _with_plain_names(own: OwnTable) -> OwnTable:
    """Return a table whose column names are distinct texts."""
    table = with_text_names(own.table)
    refuse_names(table, own.title)
    return own.with_table(table)


def _refuse_lacking(tables: Sequence[OwnTable], target: str, group: str, time: str) -> None:
    """Refuse tables without a column that every site needs."""
    faults: list[FlfedError] = []
    for option, word in {"target": target, "group": group, "time": time}.items():
        lacking = [repr(own.title) for own in tables if plain_name(word) not in map(plain_name, own.table.columns)]
        # A column of no table is refused later, with the nearest name.
        if word and 0 < len(lacking) < len(tables):
            facts = {"option": option, "sites": ", ".join(lacking), "column": word}
            faults.append(usage_error("proposals.workspace.lacking", **facts))
    raise_all(faults)


def _refuse_parties(tables: Sequence[OwnTable], target: str, group: str, by: str) -> None:
    """Refuse tables that are not of the same people, or of which several have the target, or none."""
    holders = sum(plain_name(target) in map(plain_name, own.table.columns) for own in tables)
    if by or not group or holders != 1:
        raise usage_error("proposals.workspace.parties", target=target, holders=holders)


def _as_parties(sites: Sequence[Site], target: str) -> tuple[Site, ...]:
    """Return sites with columns of the same people: one has the outcome, and decides which rows are held out."""
    made = []
    for site in sites:
        outputs = () if site.policy.is_open else ("row-aligned",)
        policy = site.policy.model_copy(update={"outputs": outputs, "daily_bytes": PARTY_BYTES})
        if site.mapping.get(target, "") is None:
            made.append(replace(site, policy=policy, holds="columns", holdout=Holdout()))
        else:
            made.append(replace(site, policy=policy, partial=True))
    return tuple(made)


def _cut_date(parts: Sequence[OwnTable], proposal: TableProposal, time: str, share: float) -> HoldoutByTime | None:
    """Return the holdout by time, at the date after which a `share` of the rows lies."""
    if not time or not share:
        return None
    name = column_named(time, "time", proposal.schema.columns)
    dates = []
    for part in parts:
        mapping_entry = proposal.mapping_of(part.table).get(name, name)
        field = Field(mapping_entry) if isinstance(mapping_entry, str) else mapping_entry
        if field is not None:
            dates.append(pd.Series(read_column(part.table[field.column], name, Column(kind="date"), field)[0]))
    every = pd.DatetimeIndex(pd.concat(dates).dropna()).sort_values()
    cut = every[int(len(every) * (1 - share))].normalize()
    if not every[0] < cut < every[-1]:
        raise usage_error("proposals.workspace.dates", column=time)
    before = cut - pd.Timedelta(days=1)
    return HoldoutByTime(name, train_until=before.date().isoformat(), test_from=cut.date().isoformat())


def summary_of(workspace: Workspace) -> str:
    """Return the numbers of sites, rows and features in one sentence."""
    schema = workspace.proposal.schema
    kinds = [schema.columns[name].kind for name in schema.features()]
    rows = count_in_words(workspace.proposal.rows - workspace.left_out)
    return render(
        "proposals.workspace.summary",
        sites=len(workspace.sites),
        rows=rows,
        features=len(kinds),
        kinds=", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)),
    )


@dataclass(frozen=True)
class EarlierHoldouts:
    """Sites whose holdout is that of an earlier package.

    Attributes
    ----------
    sites : tuple of str
    moved : tuple of str
        Those of them in which rows change sides nevertheless, because other columns are read.
    """

    sites: tuple[str, ...]
    moved: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield sentences on them."""
        sites = counted(len(self.sites), "site")
        if self.moved:
            yield render("proposals.workspace.holdout", sites=sites)
            yield render("proposals.workspace.moved", sites=counted(len(self.moved), "site"))
        elif self.sites:
            yield render("proposals.workspace.sides", sites=sites)


def with_earlier_holdouts(made: Workspace, to: Path, folders: Sequence[Path]) -> tuple[Workspace, EarlierHoldouts]:
    """Return a dataset whose sites keep the holdouts of existing packages with the same rule of the split.

    Parameters
    ----------
    made : Workspace
    to : Path
        Folder to write to.
    folders : sequence of Path
        Others whose packages count if they read the same file.
    """
    sites = []
    earlier_holdouts = []
    moved = []
    for site in made.sites:
        if there := _earlier(site, to, ()):
            site = replace(site, policy=there.policy)  # no policy is replaced
        before = there or _earlier(site, to, folders)
        if before is None or not _is_same_rule(site.holdout, before.holdout):
            sites.append(site)
            if before is not None:
                moved.append(site.name)
            continue
        sites.append(replace(site, holdout=before.holdout))
        earlier_holdouts.append(site.name)
        if not _same_sides(sites[-1], made.proposal.schema, before):
            moved.append(site.name)
    return replace(made, sites=tuple(sites)), EarlierHoldouts(tuple(earlier_holdouts), tuple(moved))


def _earlier(site: Site, to: Path, folders: Sequence[Path]) -> Site | None:
    """Return the site of an existing package under a site's name, or None."""
    for folder in (to, *folders):
        package = folder / "sites" / site.name.replace("-", "_")
        if not (package / "__init__.py").is_file():
            continue
        try:
            earlier = site_discovery.of_folder(package)
        except FlfedError:
            continue  # no run can use it either
        if folder == to or _path_of(earlier) == _path_of(site):
            return earlier
    return None


def _path_of(site: Site) -> str:
    return str(getattr(site.source, "path", ""))


def left_behind(made: Workspace, to: Path) -> list[str]:
    """Return the sites of the same dataset in a folder that are not among the new ones and lack a file."""
    names = {site.name for site in made.sites}
    read = {_path_of(site) for site in made.sites}
    orphans = []
    for path in sorted(to.glob("sites/*/__init__.py")):
        try:
            site = site_discovery.of_folder(path.parent)
        except FlfedError:
            continue
        is_orphan = _path_of(site) in read or not Path(_path_of(site)).is_file()
        if is_orphan and site.name not in names and made.name in site.datasets:
            orphans.append(site.name)
    return orphans


def _is_same_rule(new: AnyHoldout, old: AnyHoldout) -> bool:
    """Return whether two holdouts differ only in their salt, or in the date of the cut."""
    if isinstance(new, Holdout) and isinstance(old, Holdout):
        return new.share == old.share and bool(old.salt)
    if isinstance(new, HoldoutByTime) and isinstance(old, HoldoutByTime):
        return new.column == old.column
    return False


def _same_sides(site: Site, schema: Schema, before: Site) -> bool:
    """Return whether no row changed sides; True also if the rows cannot be compared."""
    folder = before.folder
    if folder is None:
        return True
    try:
        old = read_schema(folder.parents[1] / "datasets" / before.dataset / "schema.toml")
        test_before = _find_test_rows(before, old)
    except FlfedError:
        return True
    test = _find_test_rows(site, schema)
    return len(test) != len(test_before) or bool((test == test_before).all())


def _find_test_rows(site: Site, schema: Schema) -> np.ndarray:
    """Return a mask of a site's holdout rows, in the order of the source."""
    folders = (site.folder,) if site.folder else ()
    raw = site.source.prepared(site.source.read(folders))
    table = map_table(raw, schema, site.mapping, site.source.missing)[0]
    return site.holdout.split(table, schema)[1]


def _first_cells(cells: pd.Series, read: pd.Series, classes: Sequence[str]) -> dict[str, Any]:
    """Return the first cell of each class, by the class that each cell is read as."""
    first = {}
    for name in classes:
        values = cells[(read == name).to_numpy(dtype=bool)].tolist()
        if values:
            # A column of objects may hold NumPy's own numbers and flags.
            first[name] = values[0].item() if isinstance(values[0], np.generic) else values[0]
    return first
