"""Sites: rows, mapping, holdout and policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flfed import registry
from flfed.errors import UsageError
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.holdout import AnyHoldout, Holdout, HoldoutByTime, PublishedSplit, Sides, SortedRows, side_keys
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import ColumnMapping, Field, Finding, check_codes
from flfed.rows.data.policy import Policy
from flfed.rows.data.sampling import BATCH, Sampled, drawn, read_sample
from flfed.rows.data.schema import Schema
from flfed.rows.data.sources import Csv, Parquet, Part, Source
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.study.study import Study

BLOCK = 2**16
"""Rows that are taken from a cached table at a time."""
NO_IDENTIFIERS = "has no value in any row (a site with columns alone needs identifiers)"


@dataclass(frozen=True)
class Mapped:
    """Mapping and source of one more dataset at a site.

    Parameters
    ----------
    mapping : mapping of schema column to own column, Field or None
        As a site's own. Example: `mapping={"age": "AGE"}`.
    source : Csv, Parquet, Sql or Frame, optional
        Source of that dataset's table; default: the site's own. Example: `source=Csv("follow-up.csv")`.
    holdout : Holdout or HoldoutByTime, optional
        Default: the site's own, so that a row is on one side in both datasets if it reads the same.
        Example: `holdout=Holdout(share=0.2, salt="a secret of ours")`.
    partial : bool
        As a site's own. Example: `partial=True`.

    Examples
    --------
    >>> from flfed import Csv, Mapped
    >>> loans = Mapped({"amount": "AMOUNT", "grade": None}, source=Csv("loans.csv"))
    >>> loans.source.path
    'loans.csv'
    """

    mapping: ColumnMapping = field(default_factory=dict)
    source: Source | None = None
    holdout: Holdout | HoldoutByTime | None = None
    partial: bool = False


@dataclass(frozen=True)
class Site:
    """One institution and its table, at the end of its package `sites/<institution>/__init__.py`.

    Parameters
    ----------
    name : str
        `[a-z0-9-]`, unique; the folder's name with hyphens for underscores. Example: `name="my-hospital"`.
    dataset : str
        The dataset whose schema the mapping fills. Example: `dataset="heart-disease"`.
    source : Csv, Parquet, Excel, Sql or Frame
        Source of the rows. Example: `source=Csv("patients.csv", separator=";")`.
    mapping : mapping of schema column to own column, Field, or None where the site does not have it
        A schema column that is not named is read under its own name.
        Example: `mapping={"age": "AGE", "sex": Field("SEX", values={"M": "male", "F": "female"}), "ca": None}`.
    holdout : Holdout or HoldoutByTime
        Rows that are never trained on. Example: `holdout=Holdout(share=0.3, salt="a secret of ours")`.
    title : str
        The institution's name for people. Example: `title="My Hospital"`.
    also : mapping of dataset to Mapped
        Other datasets that the same institution serves, each with a mapping of its own; see
        `serving`. Example: `also={"heart-flamby": Mapped({"age": "AGE"})}`.
    partial : bool
        Whether the site has fewer than half of the schema's features on purpose. Without it `flfed site check` fails,
        since an unfinished mapping looks the same. Example: `partial=True`.
    holds : {"rows", "columns"}
        Whether the site has whole rows, or only some columns of people whose outcome another institution has. With
        "columns" it has no outcome, and answers studies with the strategy "vertical" alone. Example: `holds="columns"`.
    policy : Policy, optional
        Default: `policy.toml` in the site's folder, else the strictest. Example: `policy=Policy(cell_minimum=5)`.
    folder : Path, optional
        Folder from which the site was loaded, if any. Example: `folder=Path("sites/my_hospital")`.

    Notes
    -----
    Creating one opens no connection and reads no file; `read` does.

    Examples
    --------
    >>> from flfed import Csv, Holdout, Site
    >>> site = Site(
    ...     name="ward-7",
    ...     dataset="heart-disease",
    ...     source=Csv("ward.csv"),
    ...     mapping={"age": "AGE", "chol": None},
    ...     holdout=Holdout(share=0.3, salt="of ward 7"),
    ... )
    >>> site.name, site.mapping["age"]
    ('ward-7', 'AGE')
    """

    name: str
    dataset: str
    source: Source
    mapping: ColumnMapping = field(default_factory=dict)
    holdout: AnyHoldout = field(default_factory=Holdout)
    title: str = ""
    policy: Policy = field(default_factory=Policy)
    folder: Path | None = None
    also: Mapping[str, Mapped] = field(default_factory=dict)
    partial: bool = False
    holds: Literal["rows", "columns"] = "rows"

    def __post_init__(self) -> None:
        """Refuse a name that could not be a key."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise usage_error("rows.site.name", name=self.name)
        if not isinstance(self.source, Source):
            raise usage_error("rows.site.source", site=self.name, source=self.source)
        if self.holds not in ("rows", "columns"):
            raise usage_error("rows.site.holds", site=self.name, holds=self.holds)
        if not isinstance(self.holdout, AnyHoldout):
            raise usage_error("rows.site.holdout", site=self.name, holdout=self.holdout)
        self._check_columns()
        check_codes(f"site {self.name!r}", self.source.missing)
        for name, other in self.also.items():
            if not isinstance(other, Mapped):
                raise usage_error("rows.site.also", site=self.name, dataset=name)
            if name == self.dataset:
                raise usage_error("rows.site.itself", site=self.name, dataset=name)
            # Each further dataset is tried here, so that its errors are raised at import.
            self.serving(name)

    def _check_columns(self) -> None:
        for key, value in self.mapping.items():
            if not isinstance(value, (str, Field, type(None))):
                raise usage_error("rows.site.mapping", site=self.name, column=key)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that the site serves, its own first."""
        return (self.dataset, *self.also)

    @property
    def has_outcome(self) -> bool:
        """Whether the site's rows have the schema's outcome."""
        return self.holds == "rows"

    def holds_nothing_out(self) -> bool:
        """Return whether all rows of open data are trained on, on purpose."""
        return self.policy.is_open and isinstance(self.holdout, Holdout) and not self.holdout.share

    def serving(self, dataset: str) -> Site:
        """Return the site with a dataset's mapping, source and holdout.

        Raises
        ------
        UsageError
            If it does not serve it.
        """
        if dataset == self.dataset:
            return self
        if dataset not in self.also:
            served = " and ".join(repr(name) for name in self.datasets)
            raise usage_error("rows.site.dataset", site=self.name, served=served, dataset=dataset)
        other = self.also[dataset]
        changes = {name: value for name, value in vars(other).items() if value is not None}
        return replace(self, dataset=dataset, also={}, **changes)

    def inspect(self) -> tuple[pd.DataFrame, list[Finding], Schema]:
        """Return the mapped table in source order, every rule that it breaks, and the schema."""
        return self.examine()[1:]

    def examine(self, batch: int = BATCH) -> tuple[pd.DataFrame, pd.DataFrame, list[Finding], Schema]:
        """Return the source's table as it is mapped, and after it the values of `inspect`.

        A sample is read `batch` rows at a time.
        """
        schema = datasets.load(self.dataset).schema
        # Parts were mapped before they were cut.
        if isinstance(self.source, Part):
            return self.source.table, self.source.table, [], schema
        sampled = self.sampled(batch)
        raw = self.prepared_table(compact=True) if sampled is None else sampled.rows
        table, findings = map_table(raw, schema, self.mapping, self.source.missing, outcome=self.has_outcome)
        if sampled is not None and sampled.findings:
            findings = sampled.findings
        if not self.has_outcome and (not schema.group or table[schema.group].isna().all()):
            findings.append(Finding(schema.group or schema.target, NO_IDENTIFIERS, np.arange(0)))
        if not len(table):
            findings.append(Finding(schema.target, "has no rows: the table is empty", np.arange(0)))
        return raw, table, findings, schema

    def source_table(self, *, compact: bool = False) -> pd.DataFrame:
        """Read the source's own table, before its `prepare`.

        With `compact`, texts may be in Arrow's columns, which need less memory than objects.
        """
        folders = datasets.load(self.dataset).folders(self.folder)
        # A class of one's own reads as it says.
        if compact and isinstance(self.source, Csv | Parquet) and type(self.source) in (Csv, Parquet):
            return self.source.read_compact(folders)
        return self.source.read(folders)

    def sampled(self, batch: int = BATCH) -> Sampled | None:
        """Read the source's sample; None where all of its rows are used."""
        if self.source.sample == 1:
            if self.source.keep is not None:
                raise UsageError(f"site {self.name!r}: keep needs a sample below 1: without one, all rows are used")
            return None
        dataset = datasets.load(self.dataset)
        return read_sample(
            self.source, dataset.folders(self.folder), dataset.schema, self.mapping, self.holdout,
            outcome=self.has_outcome, batch=batch,
        )  # fmt: skip

    def with_draws(self, rows: SortedRows) -> SortedRows:
        """Return rows with which of them are in the plain sample, where others are there for their outcome."""
        return rows if self.source.keep is None else replace(rows, drawn=drawn(rows.keys, self.source, self.holdout))

    def prepared_table(self, *, compact: bool = False) -> pd.DataFrame:
        """Read the table that is mapped: the source's own, as its `prepare` changes it."""
        return self.source.prepared(self.source_table(compact=compact))

    def read(
        self, repeat: int = 0, *, complete: Sequence[str] = (), published: PublishedSplit | None = None
    ) -> SiteTable:
        """Read, map, check, sort and split the table.

        Parameters
        ----------
        repeat : int, >= 0
            From 1 on another holdout is drawn, where the policy allows `resplit`; else it is the
            site's own.
        complete : sequence of str
            A row with a gap in one of these columns is left out, before anything else.
        published : PublishedSplit, optional
            Splits the rows instead of the site's own holdout; `repeat` is then its draw.

        Raises
        ------
        TableError
            For the first rule the table breaks: column, rule and count.
        UsageError
            If the source cannot be read, or the policy forbids the study's split or choice of rows.
        """
        refused = self.policy.refusal(complete=bool(complete), published=published is not None)
        if refused:
            raise UsageError(f"site {self.name!r}: {refused}")
        rows = self.sorted_rows(complete)
        # Only a policy with `resplit` lets a repeat hold out other rows.
        if published is None:
            return self._split(rows, repeat if self.policy.resplit else 0)
        return split_rows(rows, published.split(rows.source.reset_index(drop=True), rows.schema, repeat))

    def read_whole(self, complete: Sequence[str] = ()) -> SiteTable:
        """Read, map, check and sort the table, all of whose rows are test rows: for a model that nobody trains here.

        Raises as `read` does.
        """
        refused = self.policy.refusal(complete=bool(complete), published=False)
        if refused:
            raise UsageError(f"site {self.name!r}: {refused}")
        rows = self.sorted_rows(complete)
        everyone = np.ones(len(rows.source), dtype=bool)
        return split_rows(rows, (~everyone, everyone))

    def read_columns(self) -> SiteTable:
        """Read, map, check and sort the table of a site without an outcome, none of whose rows are held out here.

        Raises as `read` does.
        """
        rows = self.sorted_rows()
        everyone = np.ones(len(rows.source), dtype=bool)
        return split_rows(rows, (everyone, ~everyone))

    def _split(self, rows: SortedRows, repeat: int) -> SiteTable:
        """Return the rows split by the site's own holdout."""
        return split_rows(rows, rows.sides(self.holdout, repeat))

    def sorted_rows(self, complete: Sequence[str] = ()) -> SortedRows:
        """Read, map, check and sort the rows that lack none of `complete`; raises as `read` does."""
        table, findings, schema = self.inspect()
        if findings:
            raise findings[0].error()
        return self.with_draws(SortedRows.of(table, schema, complete, outcome=self.has_outcome))


def study_table(study: Study, site: Site, repeat: int = 0) -> SiteTable:
    """Read a site's table as a study asks.

    The study says which rows and split by whom. `repeat` is as for `SiteSession`.
    """
    complete: Sequence[str] = ()
    if study.encode.rows == "complete":
        complete = datasets.load(study.dataset.name).schema.features(study.dataset.features)
    if not site.has_outcome:
        return site.read_columns()
    if not study.train:
        return site.read_whole(complete)
    if not study.split.fixed:
        return site.read(repeat, complete=complete)
    published = registry.load("split", study.split.fixed)()
    drawn = repeat if study.split.redraw else 0
    return site.read(drawn, complete=complete, published=published)


def holdout_of(study: Study, site: Site) -> AnyHoldout:
    """Return a study's holdout at a site: one at random where the study has a published split."""
    return Holdout() if study.split.fixed else site.holdout


def redraws(study: Study, site: Site) -> bool:
    """Return whether repeats hold out other rows."""
    if study.split.fixed:
        return study.split.redraw
    # By time the holdout is the same in every repeat.
    return site.policy.resplit and isinstance(site.holdout, Holdout)


def dataset_refusal(study: Study, site: Site) -> Refusal | None:
    """Return the refusal of a study whose dataset the site does not serve, or None."""
    if study.dataset.name in site.datasets:
        return None
    mapped = " and ".join(repr(name) for name in site.datasets)
    return Refusal("other-dataset", mapped=mapped, asked=study.dataset.name)


def study_refusal(study: Study, site: Site) -> Refusal | None:
    """Return the refusal of a study by the site's policy, or because no site can run it; else None.

    No row is read.
    """
    policy = site.policy
    refused = start_refusal(study) or _vertical_refusal(study, site)
    refused = refused or policy.refusal(complete=study.encode.rows == "complete", published=bool(study.split.fixed))
    refused = refused or policy.share_refusal(study) or _trees_refusal(study, policy) or _keep_refusal(study, site)
    if study.is_statistic and study.analysis is None:
        refused = refused or policy.statistic_refusal(summed=study.aggregation.is_required)
    return refused or _width_refusal(study, policy.width)


def _vertical_refusal(study: Study, site: Site) -> Refusal | None:
    """Return the refusal of a study over rows or columns that a site does not have, or does not align; else None."""
    if not study.is_vertical:
        return None if site.has_outcome else Refusal("columns-only")
    if site.has_outcome:
        return site.policy.parties_refusal(study, {*(study.dataset.sites or ())} - {site.name})
    return None if site.policy.allows("row-aligned") else Refusal("row-aligned")


def _keep_refusal(study: Study, site: Site) -> Refusal | None:
    """Return the refusal of a study that cannot count rows of one outcome less than others, or None."""
    if site.source.keep is None:
        return None
    if study.is_statistic:
        return Refusal("keep-statistic")
    return Refusal("keep-trees") if study.grows_trees else None


def _trees_refusal(study: Study, policy: Policy) -> Refusal | None:
    """Return the refusal of a study's trees by a policy, or None."""
    if not study.grows_trees:
        return None
    least = int(study.strategy.settings.get("min-rows", 0))
    return policy.trees_refusal(summed=study.aggregation.is_required, least=least)


def start_refusal(study: Study) -> Refusal | None:
    """Return the refusal of a study that cannot begin with the model of an earlier run, or None."""
    return Refusal("start-per-site") if study.warm_start and study.encode.scaler == "per-site" else None


def _width_refusal(study: Study, width: float) -> Refusal | None:
    """Return the refusal of a study whose model the site cannot train in part, or None.

    A model without hidden units is trained whole.
    """
    if width == 1:
        return None
    from flfed.rows.training.functional import layers_of  # it needs torch, and few sites ask for a part

    model = study.model.build("model")
    if model.linear or getattr(model, "plain", False):
        return None
    if not layers_of(model):
        return Refusal("no-hidden-layers", model=study.model.name)
    if not getattr(registry.load("strategy", study.strategy.name), "parts", True):
        return Refusal("whole-updates", strategy=study.strategy.name)
    return None


@dataclass(frozen=True, eq=False)
class SiteTable:
    """A site's mapped rows, split; opening the holdout needs a purpose.

    Attributes
    ----------
    training_rows : int
        Number of training rows.
    schema : Schema
    opened : list of str
        Purposes for which the holdout was opened, in order.
    left_out : int
        Rows that the study leaves out because a feature is missing.
    joined : array [holdout rows], optional
        Predictions of a model whose columns stand at several parties.
    further : DataFrame, optional
        Rows of training beside a plain sample, there for their outcome: models are fitted on them, and nothing else.
    """

    _take: Callable[[slice], Any]
    training_rows: int
    schema: Schema
    _holdout: pd.DataFrame
    opened: list[str] = field(default_factory=list)
    left_out: int = 0
    joined: np.ndarray | None = None
    further: pd.DataFrame | None = None
    _keys: np.ndarray | None = None
    _is_cached: bool = False

    @cached_property
    def training(self) -> pd.DataFrame:
        """The training rows."""
        training: pd.DataFrame = self._take(slice(None))
        return training

    def blocks_to_fit(self) -> Iterator[pd.DataFrame]:
        """Yield the training rows: all at once where they are here, few or of groups, else `BLOCK` at a time.

        Those that are there for their outcome come last.
        """
        if "training" in vars(self) or self.training_rows <= BLOCK or self.schema.group:
            yield self.training
        else:
            for start in range(0, self.training_rows, BLOCK):
                yield self._take(slice(start, start + BLOCK))
        if self.further is not None:
            yield self.further

    def release_training(self) -> pd.DataFrame | None:
        """Drop training rows of a cached table, which are taken again; return them if they were here."""
        released: pd.DataFrame | None = vars(self).pop("training", None) if self._is_cached else None
        return released

    def with_training(self, training: pd.DataFrame, **changes: Any) -> SiteTable:
        """Return the table with other training rows, and other changes by field."""
        take = partial(getitem, training)
        changes = {"further": None, **changes}
        return replace(self, _take=take, training_rows=len(training), _keys=None, _is_cached=False, **changes)

    def training_keys(self) -> np.ndarray:
        """Return the training rows' `side_keys`, computed unless they came with these rows."""
        return side_keys(self.training, self.schema) if self._keys is None else self._keys

    @property
    def holdout_rows(self) -> int:
        """Number of holdout rows; counting opens nothing."""
        return len(self._holdout)

    def holdout(self, purpose: str) -> pd.DataFrame:
        """Return the holdout, and note the purpose.

        Parameters
        ----------
        purpose : str
            Such as "compare".
        """
        self.opened.append(purpose)
        return self._holdout


def split_rows(rows: SortedRows, sides: Sides, *, cached: bool = False) -> SiteTable:
    """Return the sorted rows of two sides: masks of training and holdout in the source's order.

    Those of `cached` rows that are trained on are taken when they are asked for.
    """
    train, test = sides
    further = None
    if rows.drawn is not None:
        further = rows.at(rows.places(train & ~rows.drawn))
        train, test = train & rows.drawn, test & rows.drawn
    places = rows.places(train)
    take = partial(rows.at, places) if cached else partial(getitem, rows.at(places))
    holdout = rows.at(rows.places(test))
    keys = rows.keys.take(places, axis=0)
    return SiteTable(
        take, len(places), rows.schema, holdout, left_out=rows.left_out, further=further, _keys=keys, _is_cached=cached
    )


@dataclass(frozen=True, kw_only=True)
class CachedSite(Site):
    """A site whose table is read, mapped, checked and sorted only once, and split for each run.

    It serves one series of repeats or one sweep. Before the next one, the institution's data may change.

    Attributes
    ----------
    opened : dict of tuple of str to SortedRows
        Rows before the split, by the columns that must be complete. A site copied from this
        one by `replace` reads for itself.
    splits_once : bool
        Whether its runs have one split, which is kept, and shared by all processes that are forked.
    """

    opened: dict[tuple[str, ...], SortedRows] = field(default_factory=dict, init=False, repr=False, compare=False)
    splits_once: bool = False
    _tables: list[tuple[SortedRows, int, SiteTable]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, site: Site, *, splits_once: bool = False) -> Site:
        """Return the same site, reading its table once; a subclass is returned unchanged."""
        return site if type(site) is not Site else cls(**vars(site), splits_once=splits_once)

    def _split(self, rows: SortedRows, repeat: int) -> SiteTable:
        """Return the split rows, of which nobody has opened the holdout."""
        if not self.splits_once:
            return split_rows(rows, rows.sides(self.holdout, repeat), cached=True)
        tables = [table for own, number, table in self._tables if own is rows and number == repeat]
        table = tables[0] if tables else super()._split(rows, repeat)
        if not tables:
            self._tables.append((rows, repeat, table))
        return replace(table, opened=[])

    def sorted_rows(self, complete: Sequence[str] = ()) -> SortedRows:
        """Return sorted rows, cached by `complete`."""
        key = tuple(complete)
        if key not in self.opened:
            self.opened[key] = super().sorted_rows(complete)
        return self.opened[key]
