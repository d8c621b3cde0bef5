"""Predictions for rows with their figures, and contributions of columns to those of trees and of linear models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from flfed.export.model_folder import SharedModel
from flfed.records.statistics.verdict import decimals_beside, interval, metric_name, number
from flfed.records.store.tables import finite
from flfed.rows.evaluation.calibration import LEAST_EVENTS, Calibration
from flfed.rows.evaluation.intervals import Estimate
from flfed.rows.features.encode import input_slices
from flfed.rows.training.functional import layers_of
from flfed.spreadsheet import csv_text
from flfed.trees.cut_points import contributions_of
from flfed.words import render, usage_error

MEAN = "mean of all rows"
"""Header of the score of trees without any column."""
CENTRE = "all columns at their centre"
"""Header of the score of a linear or logistic model where every encoded value is 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Predictions for the rows of one table, in their order.

    Attributes
    ----------
    headers : tuple of str
        One name per column of `values`: "probability", "probability CLASS", or "prediction".
    values : float64 array [rows, columns]
        P(last class) of a binary target, P(each class), or predictions in the target's unit. NaN
        for a row with a gap, if the study trained on complete rows only.
    of : str
        Target of a value: the last class, the classes, or the target with its unit.
    figures : dict of metric to {"value", "low", "high", "method"}
        On the rows with an outcome; empty if the table has none.
    calibration : Calibration or None
        On the same rows; None without an outcome, and unless the target has two classes.
    known : int
        Number of rows with an outcome and a prediction.
    notes : tuple of str
        The `clipped` ones first.
    clipped : tuple of str
        A sentence for each column with values outside an unconfirmed range.
    inputs : float64 array [rows, inputs]
        The rows as inputs of the model.
    table : DataFrame
        The rows in the schema's columns.
    """

    headers: tuple[str, ...]
    values: np.ndarray
    of: str
    figures: Mapping[str, Mapping[str, Any]]
    calibration: Calibration | None
    known: int
    notes: tuple[str, ...]
    clipped: tuple[str, ...]
    inputs: np.ndarray
    table: pd.DataFrame

    def rows(self) -> list[dict[str, float | int | None]]:
        """Return one object a row: its number from 1, and its values by name."""
        rows = []
        for place, row in enumerate(self.values.tolist(), start=1):
            rows.append({"row": place, **dict(zip(self.headers, map(finite, row), strict=True))})
        return rows

    def as_csv(self) -> str:
        """Return the rows as CSV: "row", then the values with all their digits."""
        return rows_csv(self.headers, self.values)

    def measured(self) -> dict[str, Any]:
        """Return the figures of rows with an outcome, as `--json` has them."""
        calibration = None
        if self.calibration is not None:
            calibration = {
                "slope": figure_of(self.calibration.slope),
                "intercept": figure_of(self.calibration.intercept),
                "few-events": self.calibration.few,
            }
        return {"metrics": self.figures or None, "calibration": calibration, "metric-rows": self.known}

    def describe_figures(self) -> list[str]:
        """Return a line for each metric; none where no outcome is known."""
        lines = []
        for name, figure in self.figures.items():
            text = f"not defined: {figure['method']}"
            if figure["value"] is not None:
                span = f"no interval: {figure['method']}"
                if figure["low"] is not None:
                    span = f"95 % CI {interval(figure['low'], figure['high'])}"
                text = f"{number(figure['value'])} ({span})"
            lines.append(f"  {metric_name(name)}: {text}")
        return lines

    def describe_calibration(self) -> list[str]:
        """Return the calibration in sentences; none where there is none."""
        if self.calibration is None:
            return []
        sentences = [
            _describe("slope", self.calibration.slope, 1.0, ("extreme", "narrow")),
            _describe("intercept", self.calibration.intercept, 0.0, ("high", "low")),
        ]
        if self.calibration.few:
            sentences.append(render("export.calibration.few", least=LEAST_EVENTS))
        return sentences


def _describe(name: str, estimate: Estimate, calibrated: float, words: tuple[str, str]) -> str:
    """Return an estimate of calibration in a sentence: too low, too high, or neither."""
    if not math.isfinite(estimate.value):
        return render("export.calibration.undefined", name=name, reason=estimate.method)
    below, above = words
    word = "fits"
    if estimate.high < calibrated:
        word = below
    elif estimate.low > calibrated:
        word = above
    signed = name == "intercept"
    decimals = decimals_beside((estimate.low, estimate.high), 3, [calibrated])
    span = interval(estimate.low, estimate.high, decimals, signed=signed)
    figure = f"{number(estimate.value, decimals, signed=signed)} (95 % CI {span})"
    return render(f"export.calibration.{name}-{word}", figure=figure)


def rows_csv(headers: Sequence[str], values: np.ndarray) -> str:
    """Return the values of all rows as CSV, with the row's number first; NaN is an empty cell."""
    cells = values.astype(object)
    cells[np.isnan(values)] = None
    return csv_text(["row", *headers], ([number, *row] for number, row in enumerate(cells, start=1)))


def figure_of(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON has it."""
    ends = {end: finite(getattr(estimate, end)) for end in ("value", "low", "high")}
    return {**ends, "method": estimate.method}


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
    for column, place in enumerate(slices.values()):
        values[:, :, column] = x[:, place] @ weight[place]
    values[:, :, -1] = bias
    return values
