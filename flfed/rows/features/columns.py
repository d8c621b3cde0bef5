"""Columns of a table as arrays.

They are read out of pandas once, for several sums and inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.summaries.summary import ColumnLayout, Layout


def codes(cells: pd.Series, layout: ColumnLayout) -> np.ndarray:
    """Return the code of each row's cell.

    It is the index into `layout.cells`; int [rows].
    """
    missing = len(layout.cells) - 1
    if layout.kind == "number":
        # The highest bin includes its upper edge; what lies outside of the range goes into the nearest bin.
        values = _scaled(cells.to_numpy(dtype=float), layout)
        found = np.clip(np.searchsorted(layout.edges, values, side="right") - 1, 0, missing - 1)
        return np.where(np.isnan(values), missing, found)
    if layout.kind == "flag":
        values = cells.to_numpy() if cells.dtype == float else cells.to_numpy(dtype=float, na_value=np.nan)
        return np.where(np.isnan(values), missing, values).astype(int)
    # A dictionary: in small tables an index of pandas costs five times as much.
    place = {value: code for code, value in enumerate(layout.cells[:-1])}
    return np.array([place.get(cell, missing) for cell in cells.tolist()], dtype=int)


def _scaled(values: np.ndarray, column: ColumnLayout) -> np.ndarray:
    return np.log1p(values) if column.transform == "log1p" else values


@dataclass(frozen=True, eq=False)
class ColumnArrays:
    """Columns of a table as arrays.

    Cells are by code in a layout, numbers as they are.

    Attributes
    ----------
    rows : int
    codes : dict of column to uint8 or wider array [rows]
        Index of each row's cell in the column's `cells`; the last is "missing".
    values : dict of column to float64 array [rows]
        Of number columns, before the transform; NaN where missing.
    """

    rows: int
    codes: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]

    def take(self, rows: np.ndarray) -> ColumnArrays:
        """Return the rows of a mask or of indices."""
        codes = {name: of[rows] for name, of in self.codes.items()}
        values = {name: of[rows] for name, of in self.values.items()}
        return ColumnArrays(len(np.arange(self.rows)[rows]), codes, values)

    def scaled(self, column: ColumnLayout) -> np.ndarray:
        """Return a number column after its transform.

        It is float64 [rows], NaN where missing.
        """
        return _scaled(self.values[column.name], column)


def coded(table: pd.DataFrame | ColumnArrays, layout: Layout) -> ColumnArrays:
    """Extract a layout's columns from a table.

    `ColumnArrays` are returned as they are.
    """
    if isinstance(table, ColumnArrays):
        return table
    # pandas keeps a Series of each column that is asked for, as much memory as the rows: with a copy, it goes.
    table = table.copy(deep=False)
    # Small codes: they may be kept beside the table of each of many sites.
    found = {c.name: codes(table[c.name], c).astype(np.min_scalar_type(len(c.cells))) for c in layout.columns}
    values = {c.name: table[c.name].to_numpy(dtype=float) for c in layout.columns if c.kind == "number"}
    return ColumnArrays(len(table), found, values)


def joined(parts: Sequence[ColumnArrays]) -> ColumnArrays:
    """Return the rows of all parts as one."""
    codes = {}
    for name in parts[0].codes:
        codes[name] = np.concatenate([part.codes[name] for part in parts])
    values = {}
    for name in parts[0].values:
        values[name] = np.concatenate([part.values[name] for part in parts])
    return ColumnArrays(sum(part.rows for part in parts), codes, values)
