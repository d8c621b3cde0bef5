"""Mapped rows to the model's inputs, with the encoder that all sites share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.rows.summarise import codes, scaled
from flfed.summary import ColumnLayout, Encoder, Layout


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows ready for a model.

    Attributes
    ----------
    x : float64 array [rows, inputs]
    y : array [rows]
        Class codes (int64), or the encoded target of a regression (float64).
    weight : float64 array [rows]
        What each row counts in the training loss; ones without class weights.
    group : int array [rows] or None
        Code of each row's patient or customer; None where each row is its own.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    group: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    def take(self, rows: np.ndarray) -> Encoded:
        """Return the rows of a mask or of indices."""
        group = None if self.group is None else self.group[rows]
        return Encoded(self.x[rows], self.y[rows], self.weight[rows], group)


def input_names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the inputs: `age`, `cp=asymptomatic`, `chol missing`.

    A category's first value is the reference and has no input.
    """
    names: list[str] = []
    for column in layout.features:
        if column.kind == "category":
            names += [f"{column.name}={value}" for value in column.cells[1:-1]]
        else:
            names.append(column.name)
        if layout.missing_indicator:
            names.append(f"{column.name} missing")
    return tuple(names)


def encode(table: pd.DataFrame, layout: Layout, encoder: Encoder, *, weighted: bool = False) -> Encoded:
    """Return mapped rows as the model's inputs and targets.

    Parameters
    ----------
    table : DataFrame
        Mapped rows.
    layout : Layout
    encoder : Encoder
    weighted : bool
        Whether rows count by the encoder's class weights.
    """
    slices = layout.slices()
    parts = [
        _inputs(table[column.name], column, encoder, number, slices[column.name], layout.missing_indicator)
        for number, column in enumerate(layout.features)
    ]
    x = np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0))
    if layout.task == "regression":
        values = scaled(table[layout.target.name], layout.target)
        return Encoded(x, (values - encoder.center[-1]) / encoder.scale[-1], np.ones(len(table)))
    y = codes(table[layout.target.name], layout.target).astype(np.int64)
    return Encoded(x, y, encoder.class_weight[y] if weighted else np.ones(len(table)))


def _inputs(
    cells: pd.Series, column: ColumnLayout, encoder: Encoder, number: int, place: slice, missing_indicator: bool
) -> np.ndarray:
    """Return one column's inputs, [rows, 1] or [rows, values - 1], and whether it is missing if asked for."""
    chosen, missing = codes(cells, column), len(column.cells) - 1
    shares, spread = encoder.frequency[place], encoder.spread[place]
    if column.kind == "number":
        values = (scaled(cells, column) - encoder.center[number]) / encoder.scale[number]
        inputs = np.nan_to_num(values, nan=0.0)[:, None]
    else:
        indicators = (np.eye(missing + 1, missing) - shares[:-1]) / spread[:-1]
        indicators[missing] = 0.0
        inputs = indicators[chosen][:, 1:]
    if not missing_indicator:
        return np.asarray(inputs)
    gap = ((chosen == missing) - shares[-1]) / spread[-1]
    return np.column_stack([inputs, gap])


def decode_target(values: np.ndarray, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Return encoded targets of a regression in the target's own unit; any shape."""
    scaled_back = values * encoder.scale[-1] + encoder.center[-1]
    return np.asarray(np.expm1(scaled_back) if layout.target.transform == "log1p" else scaled_back)
