"""Means and covariances of columns over the rows of all sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.statistics.statistic import REAL, WHOLE, Shapes, Sums, added, column_of
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema


class Covariance:
    """Means and covariance matrix, the same as of all rows in one table.

    Parameters
    ----------
    columns : sequence of str
        Numbers of the schema. A row that lacks one of them is left out, and counted. Example: `columns = ["a", "b"]`.

    Reveals: the number of rows, the sum of each column, and of the product of each two, exactly. Of one row these are
    its values; of few, much of them.

    Notes
    -----
    Values are taken from the middle of the schema's range, which all sites know, before they are multiplied, so that a
    large mean costs no digits. Divisor n − 1. Each row must have all columns: sites that have some columns each have no
    products of two of them.
    """

    label = "means and covariances over all rows"

    def __init__(self, *, columns: Sequence[str]) -> None:
        self.names = tuple(columns)

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return the columns.

        Raises UsageError where they are not different numbers of the schema.
        """
        names = tuple(column_of(name, schema, where="columns", kinds=("number",)) for name in self.names)
        if len(set(names)) < len(names) or len(names) < 2:
            raise usage_error("study.statistic.columns")
        return names

    def shapes(self, schema: Schema) -> Shapes:
        """Return rows, sums [columns] and products [columns, columns], and the rows that are left out."""
        count = len(self.names)
        whole = ((1,), WHOLE)
        return {"rows": whole, "missing": whole, "sum": ((count,), REAL), "product": ((count, count), REAL)}

    def largest(self, schema: Schema) -> Sums:
        """Return half of each range, and products of these."""
        ranges = [schema.columns[name].range or (0.0, 1.0) for name in self.names]
        half = np.array([(high - low) / 2 for low, high in ranges])
        return {"sum": half, "product": np.outer(half, half)}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return a site's rows, sums and products."""
        values = table[list(self.names)].to_numpy(dtype=float)
        deviations = values[~np.isnan(values).any(axis=1)] - self._middle(schema)
        whole = {"rows": len(deviations), "missing": len(values) - len(deviations)}
        counts = {name: np.array([count], dtype=np.uint64) for name, count in whole.items()}
        return {**counts, "sum": deviations.sum(axis=0), "product": deviations.T @ deviations}

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return columns, rows, means [columns], deviations and the covariance matrix [columns, columns]."""
        sums = added(sites)
        rows = int(sums["rows"][0])
        figures = {"columns": list(self.names), "rows": rows, "rows-left-out": int(sums["missing"][0])}
        if rows < 2:
            return figures | {"mean": None, "sd": None, "covariance": None}
        mean = sums["sum"] / rows
        covariance = (sums["product"] - rows * np.outer(mean, mean)) / (rows - 1)
        deviations = np.sqrt(np.maximum(np.diag(covariance), 0.0)).tolist()
        sd = {name: {"value": deviation} for name, deviation in zip(self.names, deviations)}
        return figures | {
            "mean": (mean + self._middle(schema)).tolist(),
            "sd": sd,
            "covariance": covariance.tolist(),
        }

    def _middle(self, schema: Schema) -> np.ndarray:
        ranges = [schema.columns[name].range or (0.0, 0.0) for name in self.names]
        return np.array([(low + high) / 2 for low, high in ranges])
