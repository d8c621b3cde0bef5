"""Contributions of columns to the predictions of trees, and of linear and logistic models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from flfed.export.model_folder import SharedModel
from flfed.export.predict import Predictions, rows_csv
from flfed.rows.features.encode import input_slices
from flfed.rows.training.functional import layers_of
from flfed.trees.cut_points import contributions_of
from flfed.words import usage_error

MEAN = "mean of all rows"
"""Header of the score of trees without any column."""
CENTRE = "all columns at their centre"
"""Header of the score of a linear or logistic model where every encoded value is 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanations:
    """Contribution of each column to the score of each row, in the order of the rows.

    Attributes
    ----------
    headers : tuple of str
        The columns, then `MEAN` or `CENTRE`; with several classes, once for each class.
    values : float64 array [rows, headers]
        In the unit of the score: log-odds of the last class, a score of each class, or the predicted number (its
        logarithm under the transform log1p). Those of one class, or of a number, add up to the row's score. NaN for a
        row without a prediction.
    unit : str
    """

    headers: tuple[str, ...]
    values: np.ndarray
    unit: str

    def as_csv(self) -> str:
        """Return the rows as CSV, the row's number first."""
        return rows_csv(self.headers, self.values)


def explain_predictions(model: SharedModel, predictions: Predictions) -> Explanations:
    """Return the contribution of each column to predictions.

    Of trees they are Shapley values. Of a linear or logistic model they are weight × encoded value, added up over the
    inputs of a column: the indicators of its values, and that of a missing value.

    Parameters
    ----------
    model : SharedModel
    predictions : Predictions
        Of this model.

    Raises
    ------
    UsageError
        If the model has neither trees nor one linear layer.

    Notes
    -----
    Source of the Shapley values: Lundberg et al. 2020, "From local explanations to global understanding with
    explainable AI for trees".
    """
    schema = model.schema
    x = predictions.inputs
    if model.layout.plain:
        base_header = MEAN
        contributions = contributions_of(model.arrays, x)
    else:
        base_header = CENTRE
        contributions = _linear_contributions(model, x)
    scale = 1.0
    base = 0.0
    unit = "log-odds" if schema.task == "binary" else "score"
    if schema.task == "regression":
        scale = float(model.encoder.scale[-1])
        base = float(model.encoder.center[-1])
        column = schema.columns[schema.target]
        unit = f"logarithm of {schema.target}" if column.transform == "log1p" else column.unit or schema.target
    values = scale * contributions
    values[:, :, -1] += base
    values[np.isnan(predictions.values).any(axis=1)] = np.nan
    columns = [*(column.name for column in model.layout.features), base_header]
    classes = [f" ({name})" for name in schema.classes] if values.shape[1] > 1 else [""]
    headers = tuple(name + of for of, name in product(classes, columns))
    return Explanations(headers=headers, values=values.reshape(len(x), -1), unit=unit)


def _linear_contributions(model: SharedModel, x: np.ndarray) -> np.ndarray:
    """Return the contributions of columns in one linear layer, then its bias, [rows, outputs, columns + 1]."""
    network = model.study.model.build("model")
    layers = layers_of(network)
    if not network.linear or len(layers) != 1:
        raise usage_error("export.errors.explain", model=model.study.model.title)
    weight, bias = (model.arrays[name].astype(float) for name in layers[0])
    slices = input_slices(model.layout)
    values = np.empty((len(x), weight.shape[1], len(slices) + 1))
    for number, place in enumerate(slices.values()):
        values[:, :, number] = x[:, place] @ weight[place]
    values[:, :, -1] = bias
    return values
