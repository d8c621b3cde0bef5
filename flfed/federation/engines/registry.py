"""Registry of the engines.

It also says how each computes for a study's sites.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

import numpy as np

from flfed.errors import UsageError, nearest
from flfed.federation.engines.engine import Engine
from flfed.rows.training.functional import layers_of
from flfed.rows.training.requests import Compute
from flfed.rows.training.stacked.answer import stacked_compute
from flfed.study.study import Study

ENGINES = {
    "inprocess": "flfed.federation.engines.inprocess:InProcess",
    "ray": "flfed.federation.engines.ray:Ray",
    "deployment": "flfed.deployment.engine:Deployment",
}
"""Name to module and class: loaded when it is asked for, as each brings libraries of its own."""


def engine_of(name: str) -> Engine:
    """Return the engine of a name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known{nearest(name, tuple(ENGINES))} Known: {', '.join(ENGINES)}")
    module, _, kind = ENGINES[name].partition(":")
    return cast(Engine, getattr(importlib.import_module(module), kind)())


def path_of(engine: Engine, study: Study, *, stacked: bool) -> str:
    """Return how an engine computes for a study.

    It is "stacked" or "one-by-one".

    Parameters
    ----------
    engine : Engine
    study : Study
    stacked : bool
        Whether stacking is wanted. Every plan can be; a model that is not of affine layers cannot.
    """
    # A model without named layers is still computed, one site after the other.
    able = stacked and engine.stacks and _of_layers(study.model.build("model"))
    return "stacked" if able else "one-by-one"


def answer_of(path: str) -> Compute | None:
    """Return the function that answers a run's requests.

    It answers those of all sites together, or is None for one by one.
    """
    return stacked_compute() if path == "stacked" else None


def _of_layers(model: Any) -> bool:
    """Tell whether layers describe the whole model.

    Its `layers` must name all of its arrays, and those it penalises.
    """
    # An array that no layer names would be missing from the stack.
    named = {name for layer in layers_of(model) for name in layer}
    arrays = model.first_arrays(1, 1, np.random.default_rng(0)) if named else {}
    return bool(named) and named == set(arrays) and named.issuperset(model.penalised)
