"""Encoding of mapped rows as the model's inputs.

The encoder is shared by all sites.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flfed.rows.features.columns import ColumnArrays, coded
from flfed.summaries.summary import ColumnLayout, Encoder, Layout

# number    age      ──►  (x - center) / scale, 0 where missing  │ 1 where missing  (if any site lacks one)
# category  colour   ──►  one column a value that a site has     │ 1 where missing
# target    outcome  ──►  class codes, or a number divided by its unit
#
# center, scale and the values come from the merged sums of all sites (or from the schema), so that column j means the
# same at every site; which columns there are is the layout, known before any row is read.

LATEST = 0.25
"""Share of a site's training rows, the latest, by which models are chosen under a holdout by time."""


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
    elapsed : float array [rows] or None
        Share of the site's training rows that are of earlier blocks of time, in [0, 1); None where the site holds out
        rows at random.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    group: np.ndarray | None = None
    elapsed: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    def take(self, rows: np.ndarray) -> Encoded:
        """Return the rows of a mask or of indices."""
        group = None if self.group is None else self.group[rows]
        elapsed = None if self.elapsed is None else self.elapsed[rows]
        return Encoded(self.x[rows], self.y[rows], self.weight[rows], group, elapsed)

    def latest(self) -> np.ndarray | None:
        """Return a mask of the latest quarter of the rows, in whole blocks, by which models are chosen.

        It is the last block where no block begins in that quarter, no row of a single block, and None of rows without
        order.
        """
        if self.elapsed is None:
            return None
        return np.asarray((self.elapsed > 0) & (self.elapsed >= min(1 - LATEST, float(self.elapsed.max(initial=0)))))


def input_names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the inputs.

    They read `age`, `cp=asymptomatic`, `chol missing`.

    A category's first value is the reference and has no input.
    """
    if layout.plain:
        return tuple(column.name for column in layout.features)
    names: list[str] = []
    for column in layout.features:
        if column.kind == "category":
            names += [f"{column.name}={value}" for value in column.cells[1:-1]]
        else:
            names.append(column.name)
        if layout.missing_indicator:
            names.append(f"{column.name} missing")
    return tuple(names)


def input_slices(layout: Layout) -> dict[str, slice]:
    """Return each column's inputs, its being missing among them."""
    found = {}
    start = 0
    for column in layout.features:
        width = len(column.cells) - 2 if column.kind == "category" and not layout.plain else 1
        end = start + width + int(layout.missing_indicator and not layout.plain)
        found[column.name] = slice(start, end)
        start = end
    return found


def encode(table: pd.DataFrame | ColumnArrays, layout: Layout, encoder: Encoder, *, weighted: bool = False) -> Encoded:
    """Return mapped rows as the model's inputs and targets.

    Parameters
    ----------
    table : DataFrame or ColumnArrays
        Mapped rows.
    layout : Layout
    encoder : Encoder
    weighted : bool
        Whether rows count by the encoder's class weights.
    """
    rows = coded(table, layout)
    x = plain_inputs(rows, layout) if layout.plain else _scaled_inputs(rows, layout, encoder)
    if layout.task == "regression":
        values = rows.scaled(layout.target)
        return Encoded(x, (values - encoder.center[-1]) / encoder.scale[-1], np.ones(rows.rows))
    y = rows.codes[layout.target.name].astype(np.int64)
    weight = encoder.class_weight[y] if weighted else np.ones(rows.rows)
    return Encoded(x, y, weight)


def _scaled_inputs(rows: ColumnArrays, layout: Layout, encoder: Encoder) -> np.ndarray:
    slices = layout.slices()
    start = 0
    # The matrix is filled in place: parts that are joined later would hold it twice.
    x = np.empty((rows.rows, len(input_names(layout))))
    for number, column in enumerate(layout.features):
        for inputs in _inputs(rows, column, encoder, number, slices[column.name], layout.missing_indicator):
            x[:, start : start + inputs.shape[1]] = inputs
            start += inputs.shape[1]
    return x


def plain_inputs(rows: ColumnArrays, layout: Layout) -> np.ndarray:
    """Return the columns as they are, float64 [rows, columns]: numbers, places of values, NaN where missing."""
    x = np.empty((rows.rows, len(layout.features)))
    for number, column in enumerate(layout.features):
        codes = rows.codes[column.name]
        missing = len(column.cells) - 1
        x[:, number] = (
            rows.values[column.name] if column.kind == "number" else np.where(codes == missing, np.nan, codes)
        )
    return x


def scaled_of(x: np.ndarray, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Return a layout's inputs, scaled: as they are, unless the layout's are plain."""
    return scaled_inputs(x, layout, encoder) if layout.plain else x


def scaled_inputs(x: np.ndarray, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Return plain inputs as those that other models take, [rows, inputs]."""
    codes = {}
    values = {}
    for column, given in zip(layout.features, x.T, strict=True):
        missing = len(column.cells) - 1
        plain = 0 if column.kind == "number" else given
        codes[column.name] = np.where(np.isnan(given), missing, plain).astype(int)
        values[column.name] = given
    return _scaled_inputs(ColumnArrays(len(x), codes, values), replace(layout, plain=False), encoder)


def _inputs(
    rows: ColumnArrays, column: ColumnLayout, encoder: Encoder, number: int, place: slice, missing_indicator: bool
) -> Iterator[np.ndarray]:
    """Yield one column's inputs.

    They are [rows, 1] or [rows, values - 1]; then, if asked for, whether the column is missing, [rows, 1].
    """
    chosen = rows.codes[column.name]
    missing = len(column.cells) - 1
    shares = encoder.frequency[place]
    spread = encoder.spread[place]
    if column.kind == "number":
        # A missing number becomes 0, the centre, so that it moves no output by itself.
        values = (rows.scaled(column) - encoder.center[number]) / encoder.scale[number]
        yield np.where(np.isnan(values), 0.0, values)[:, None]
    else:
        # Each value's inputs are made once and looked up by code.
        of_cell = (np.eye(missing + 1, missing) - shares[:-1]) / spread[:-1]
        of_cell[missing] = 0.0
        yield of_cell[:, 1:].take(chosen, axis=0)
    if missing_indicator:
        yield ((chosen == missing) - shares[-1])[:, None] / spread[-1]


def decode_target(values: np.ndarray, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Convert encoded regression targets to their own unit.

    The array may be of any shape.
    """
    scaled_back = values * encoder.scale[-1] + encoder.center[-1]
    if layout.target.transform == "log1p":
        scaled_back = np.expm1(scaled_back)
    return np.asarray(scaled_back)
