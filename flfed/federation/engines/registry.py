"""Which engines there are, and a grid of the one that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from flfed.errors import UsageError, nearest
from flfed.federation.client.client import ClientSide
from flfed.federation.engines.cohort import CohortGrid
from flfed.federation.engines.inprocess import Clock, InProcessGrid
from flfed.federation.engines.pooled_reference import HeldTables
from flfed.federation.server.preflight import Elsewhere
from flfed.folders import CoordinatorFolder
from flfed.rows.data.site import Site
from flfed.rows.training.one_by_one import answer_alone
from flfed.rows.training.requests import Answer
from flfed.rows.training.stacked.answer import answering
from flfed.rows.training.stacked.layers import layers_of
from flfed.study.study import Study

Told = Callable[[str], None]

ENGINES = ("inprocess", "ray", "deployment")


def check_engine(engine: str) -> None:
    """Refuse an engine that there is not, or that something is missing for.

    Raises
    ------
    UsageError
        What is wrong, and what there is.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not known{nearest(engine, ENGINES)} Known: {', '.join(ENGINES)}")
    if engine == "ray":
        from flfed.federation.engines.ray import require

        require()


def path_of(engine: str, study: Study, *, stacked: bool) -> str:
    """Return how an engine computes for a study's sites: "stacked" or "one-by-one".

    Parameters
    ----------
    engine : {"inprocess", "ray", "deployment"}
    study : Study
    stacked : bool
        Whether stacking is wanted. Every plan can be; a model that is not of affine layers cannot.
    """
    able = stacked and engine == "inprocess" and _of_layers(study.model.build("model"))
    return "stacked" if able else "one-by-one"


def answer_of(path: str) -> Answer | None:
    """Return what answers the requests of a run on a path: of all its sites together, or None for one by one."""
    return answering() if path == "stacked" else None


def _of_layers(model: Any) -> bool:
    """Tell whether a model's `layers` name all of its arrays, and those it penalises."""
    named = {name for layer in layers_of(model) for name in layer}
    arrays = model.first_arrays(1, 1, np.random.default_rng(0)) if named else {}
    return bool(named) and named == set(arrays) and named.issuperset(model.penalised)


@contextmanager
def started(
    engine: str,
    sites: Sequence[Site | Elsewhere],
    run_config: Mapping[str, bool | float | int | str],
    answer: Answer | None = None,
    clock: Clock = time.monotonic,
    told: Told = lambda sentence: None,
) -> Iterator[tuple[Grid, HeldTables | None]]:
    """Give the grid of an engine, and its tables where it holds every one; end the engine.

    Parameters
    ----------
    engine : {"inprocess", "ray", "deployment"}
    sites : sequence of Site, or of Elsewhere in a deployment
    run_config : mapping of str to scalar
        What every node's context carries: the study, the repeat.
    answer : callable, optional
        Of the in-process engine: answers what all sites ask together; None for one by one.
    clock : callable
        Of the in-process engine: the run's own seconds, which deadlines are in.
    told : callable
        Of a deployment: told in a sentence who is waited for, and who is missing.

    Raises
    ------
    FlfedError
        If the engine cannot be started, or ends in the middle of the run.
    """
    if engine == "deployment":
        from flfed.deployment.engine import deployed

        with deployed(CoordinatorFolder.default(), [site.name for site in sites], run_config, told=told) as grid:
            yield grid, None
        return
    here = [site for site in sites if isinstance(site, Site)]
    if engine == "ray":
        from flfed.federation.engines.ray import simulated

        with simulated(here, run_config) as grid:
            yield grid, None
        return
    by_name = {site.name: site for site in here}
    side = ClientSide(lambda name, _: by_name[name])
    tables = HeldTables(side, (str(run_config["study"]), int(run_config["repeat"])), answer or answer_alone)
    yield grid_of(side, list(by_name), run_config, answer, clock), tables


def grid_of(
    side: ClientSide,
    sites: Sequence[str],
    run_config: Mapping[str, bool | float | int | str],
    answer: Answer | None,
    clock: Clock = time.monotonic,
) -> InProcessGrid:
    """Return the in-process grid: its sites compute together by `answer`, or one by one without."""
    if answer is None:
        return InProcessGrid(side.app(), sites, run_config, clock=clock)
    return CohortGrid(side, sites, run_config, answer, clock=clock)
