"""Model of a study: its inputs, the shapes of its arrays, and the arrays that a run begins with."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from flfed import registry
from flfed.rows.baselines import Trainable, first_arrays
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import input_names
from flfed.rows.features.summarise import layout_of
from flfed.rows.training.functional import layers_of, outputs_of
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Layout, arrays_sha256
from flfed.words import usage_error

MOST_PARAMETERS = 2**24
"""Of a model: as many numbers of four bytes as a message of 64 MiB holds."""


def study_schema(study: Study) -> Schema:
    """Return the schema of a study's dataset."""
    return datasets.load(study.dataset.name).schema


def study_layout(study: Study, schema: Schema) -> Layout:
    """Return the layout of a study's summaries and inputs."""
    features = schema.features(study.dataset.features)
    model = registry.load("model", study.model.name)
    layout = layout_of(schema, features, missing_indicator=study.encode.missing_indicator)
    return replace(layout, plain=getattr(model, "plain", False))


def study_trainable(study: Study, schema: Schema, model: Any, *, seed: int, site: str = "") -> Trainable:
    """Return training settings for one site, or for all."""
    classes = len(schema.classes)
    return Trainable(
        model=model, task=schema.task, classes=classes, plan=study.plan, rounds=study.rounds, seed=seed, site=site
    )


def frozen_arrays(study: Study, model: object) -> tuple[str, ...]:
    """Return the names of the arrays that a study's rounds leave as they are."""
    return tuple(chain.from_iterable(layers_of(model)[: study.frozen_layers]))


def model_shapes(study: Study, schema: Schema) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of each array of a study's model.

    No array is made of a model that says its shapes, as all of flfed's do.

    Raises
    ------
    UsageError
        If it has more than `MOST_PARAMETERS`: names the keys that make it so large.
    """
    model = study.model.build("model")
    layout = study_layout(study, schema)
    outputs = outputs_of(schema.task, len(schema.classes))
    inputs = len(input_names(layout))
    precision = np.dtype(study.plan.precision)
    if layout.plain:
        precision = np.dtype(np.float64)
        shapes = model.forest_shapes(layout, outputs, study.rounds)
    elif hasattr(model, "shapes"):
        shapes = model.shapes(inputs, outputs)
    else:
        made = first_arrays(study_trainable(study, schema, model, seed=study.seed), inputs)
        shapes = {name: value.shape for name, value in made.items()}
    count = sum(math.prod(shape) for shape in shapes.values())
    if count > MOST_PARAMETERS:
        keys = [*study.model.settings]
        if layout.plain:
            keys.append("rounds")
        many = {"model": study.model.title, "count": count, "most": MOST_PARAMETERS}
        if keys:
            raise usage_error("study.strategies.settings", keys=" or ".join(keys), **many)
        raise usage_error("study.strategies.features", **many)
    return {name: (shape, precision) for name, shape in shapes.items()}


def first_sha256(study: Study, schema: Schema, repeat: int = 0) -> str:
    """Return what tells a run's first model from others: the hash of the approved start, or of the drawn arrays.

    Drawn arrays are the same ones in each precision.
    """
    drawn = first_model(study, schema, repeat)
    return study.start_sha256 or arrays_sha256({name: value.astype(np.float32) for name, value in drawn.items()})


def first_model(study: Study, schema: Schema, repeat: int = 0) -> Arrays:
    """Return the arrays that a study's run begins with, in the plan's precision.

    Raises as `model_shapes` does, before anything is made.
    """
    model_shapes(study, schema)
    model = study.model.build("model")
    seed = study.seed + repeat
    layout = study_layout(study, schema)
    if layout.plain:
        return dict(model.first_forest(layout, outputs_of(schema.task, len(schema.classes)), study.rounds))
    return first_arrays(study_trainable(study, schema, model, seed=seed), len(input_names(layout)))
