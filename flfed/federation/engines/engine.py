"""Base class of the engines, their registry, and the sites of a run.

An engine runs a study's sites in this process, in Flower's simulation, or at institutions.

Each difference between engines is an attribute or method of the engine; no other code compares their names.
"""

from __future__ import annotations

import importlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, cast

import numpy as np
from flwr.serverapp import Grid

from flfed.callbacks import Clock, Progress
from flfed.errors import unknown
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites_listing
from flfed.rows.data.partition import cut
from flfed.rows.data.site import Site
from flfed.rows.training.functional import layers_of
from flfed.rows.training.requests import Compute
from flfed.rows.warm_start import Source
from flfed.signatures import Signer
from flfed.study.study import Study
from flfed.words import usage_error

RunConfig = Mapping[str, bool | float | int | str]
"""Content of every node's context: the study, the repeat, the run."""
StartedGrid = tuple[Grid, PooledReference | None]
"""Grid of a run, and the figures over all rows where the engine has every table."""


ENGINES = {
    "inprocess": "flfed.federation.engines.inprocess:InProcess",
    "ray": "flfed.federation.engines.ray:Ray",
    "deployment": "flfed.deployment.engine:Deployment",
}
"""Name to module and class: loaded on request, as each brings its own libraries."""


@dataclass(frozen=True)
class RemoteSite:
    """Site with its table at its institution.

    A coordinator has its name alone.
    """

    name: str


SiteSelection = Sequence[str | Site] | None
"""Sites that a caller names; None for those of the study, or else all of its dataset."""
RunSites = Sequence[Site | RemoteSite]


@dataclass(frozen=True)
class RunResources:
    """Resources of one repeat.

    They are the function that answers its requests (None: one by one), its progress and its clock. The earlier run's
    model that it begins from is among them.
    `jobs` is the number of processes for own and pooled models, and for shadow models.
    """

    answer: Compute | None
    progress: Progress
    clock: Clock = time.monotonic
    source: Source | None = None
    jobs: int = 1
    _shown: list[str] = field(default_factory=list)

    def show_activity(self, sentence: str) -> None:
        """Show a sentence as the current activity.

        It replaces the earlier one. An empty sentence shows none.
        """
        # One stage at a time: the earlier one is closed first.
        while self._shown:
            self.progress(self._shown.pop(), 1, 1)
        if sentence:
            self._shown.append(sentence)
            self.progress(sentence, 0, 1)


class Engine(ABC):
    """Base class of the engines.

    Attributes
    ----------
    name : str
        As in `study run --engine` and the run store.
    stacks : bool
        Whether it can compute for many sites at once.
    remote : bool
        Whether sites are institutions: they approve the study's text, keep a ledger of each run, and a checkpoint
        is written each round.
    keeps_replies : bool
        Whether a site stores a reply that may have to be sent again.
    audited_by : str
        Name of the engine that audits a run of this one.
    """

    name: ClassVar[str]
    stacks: ClassVar[bool] = False
    remote: ClassVar[bool] = False
    keeps_replies: ClassVar[bool] = True
    audited_by: ClassVar[str]

    def require(self) -> None:  # noqa: B027 - most engines need nothing
        """Refuse to continue where a package is missing.

        Raises
        ------
        UsageError
            With its name and the command that installs it.
        """

    def sites(self, study: Study, selection: SiteSelection = None) -> Sequence[Site] | Sequence[RemoteSite]:
        """Return the requested sites.

        See `find_sites`.
        """
        return find_sites(study, selection)

    @abstractmethod
    def started(
        self, sites: RunSites, run_config: RunConfig, resources: RunResources
    ) -> AbstractContextManager[StartedGrid]:
        """Yield a grid, and the tables where all are on this machine.

        The engine ends with the block.

        Parameters
        ----------
        sites : sequence of Site, or of RemoteSite
        run_config : mapping of str to scalar
        resources : RunResources
            Of the in-process engine: the function that answers the requests of all sites, and the clock of deadlines.
            Of a deployment: receives sentences about sites that are awaited or missing.

        Raises
        ------
        FlfedError
            If the engine cannot be started, or ends in the middle of the run.
        """

    def signer(self) -> Signer | None:
        """Return the signer of models, or None.

        It signs models of runs on this engine.
        """
        return None


def find_sites(study: Study, selection: SiteSelection = None) -> list[Site]:
    """Return the sites that take part, as `list_sites`; their tables are here.

    Raises
    ------
    UsageError
        Also if their dataset's files are not fetched yet.
    """
    sites = list_sites(study, selection)
    if absent := absent_files(study.dataset.name, sites):
        raise usage_error("run.sites.files", dataset=study.dataset.name, files=", ".join(absent))
    return sites


def absent_files(dataset: str, sites: Sequence[Site]) -> list[str]:
    """Return a dataset's public files that are not fetched yet; an institution's own table needs none."""
    read = {getattr(site.source, "path", "") for site in sites}
    return [file.name for file in datasets.load(dataset).absent() if file.name in read]


def list_sites(study: Study, selection: SiteSelection = None) -> list[Site]:
    """Return the sites that take part, whether or not their tables are here.

    They are those of the `selection`, those the study names, or all of its dataset. Only where the study cuts its
    dataset itself the table is read.

    Raises
    ------
    UsageError
        If there are none, or the study cuts its own sites and others are passed.
    """
    # Research sites are cut from one public table, so an institution cannot be among them.
    if study.dataset.partition is not None:
        if selection is not None:
            raise usage_error("run.sites.partition")
        return cut(datasets.load(study.dataset.name), study.dataset.partition)
    wanted = study.dataset.sites if selection is None else selection
    sites = sites_listing.of_dataset(study.dataset.name) if wanted is None else sites_listing.chosen(wanted)
    # All sites must have the dataset: one without it could only refuse.
    for site in sites:
        if study.dataset.name not in site.datasets:
            served = " and ".join(repr(name) for name in site.datasets)
            facts = {"site": site.name, "served": served, "dataset": study.dataset.name}
            raise usage_error("run.sites.dataset", **facts)
    if not sites:
        example = "{ by = 'iid', sites = 3 }"
        raise usage_error("run.sites.absent", dataset=study.dataset.name, example=example)
    return [site.serving(study.dataset.name) for site in sites]


@contextmanager
def silence_flower() -> Iterator[None]:
    """Silence Flower's log.

    The messages that a person needs come from flfed.
    """
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def engine_of(name: str) -> Engine:
    """Return the engine of a name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in ENGINES:
        raise unknown("engine", name, tuple(ENGINES))
    module, _, kind = ENGINES[name].partition(":")
    return cast(Engine, getattr(importlib.import_module(module), kind)())


def path_of(engine: Engine, study: Study, *, stacked: bool) -> str:
    """Return how an engine computes for a study, "stacked" or "one-by-one".

    Parameters
    ----------
    engine : Engine
    study : Study
    stacked : bool
        Whether to stack where possible. Every plan can be stacked; a model that is not of affine layers cannot.
    """
    # A model without named layers is still computed, one site after the other.
    able = stacked and engine.stacks and _of_layers(study.model.build("model"))
    return "stacked" if able else "one-by-one"


def answer_of(path: str, progress: Progress, jobs: int = 1) -> Compute | None:
    """Return the function that answers a run's requests.

    It answers those of all sites together, or is None for one by one.
    """
    from flfed.rows.training.answer import stacked_compute  # it needs torch, and a check of a study does without

    return stacked_compute(jobs, progress) if path == "stacked" else None


def _of_layers(model: Any) -> bool:
    """Return whether layers describe the whole model.

    Its `layers` must name all of its arrays, and those it penalises.
    """
    # An array that no layer names would be missing from the stack.
    named = set(chain.from_iterable(layers_of(model)))
    arrays = model.first_arrays(1, 1, np.random.default_rng(0)) if named else {}
    return bool(named) and named == set(arrays) and named.issuperset(model.penalised)
