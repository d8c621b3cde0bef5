"""Model folder of numbers that no run of flfed trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from flfed.export.model_folder import SharedModel
from flfed.rows.data.schema import Schema
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout
from flfed.words import render


def identity_encoder(layout: Layout) -> Encoder:
    """Return the encoder whose inputs are the columns: numbers after their transform, indicators 0 or 1."""
    shapes = layout.encoder_shapes()
    zero = {name: np.zeros(shapes[name]) for name in ("center", "frequency")}
    one = {name: np.ones(shapes[name]) for name in ("scale", "spread", "class_weight")}
    return Encoder(**zero, **one)


def brought_model(
    path: Path,
    schema: Schema,
    features: Sequence[str],
    tables: Mapping[str, Mapping[str, Any]],
    arrays: Arrays,
    encoder: Encoder,
) -> SharedModel:
    """Return a model that can be written as a folder.

    Parameters
    ----------
    path : Path
        The file that it was read from, whose name stands for a run's id.
    schema : Schema
    features : sequence of str
        Columns that it reads, in the schema's order.
    tables : dict of name to table
        Tables of the folder's study: its model, strategy and encoding.
    arrays : dict of name to array
    encoder : Encoder
    """
    study = {
        "format": 1,
        "name": "brought-model",
        "purpose": render("models.brought.purpose"),
        "legal-basis": render("models.brought.basis"),
        "dataset": {"name": schema.name, "features": list(features)},
        **tables,
    }
    return SharedModel(
        run=path.name,
        study=Study.parse(tomli_w.dumps(study)),
        schema=schema,
        arrays=arrays,
        encoder=encoder,
        figures={"global": {}, "sites-mean": {}, "sites": {}},
    )
