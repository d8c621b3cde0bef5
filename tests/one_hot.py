"""Inputs as a good analyst makes them by pandas: an indicator for every value of a category, and for gaps."""

import numpy as np
import pandas as pd

from flfed.rows.session import SiteSession


def all_values(session: SiteSession, table: pd.DataFrame) -> np.ndarray:
    """Return a table's columns made by pandas: each value and each gap has an indicator of 0 or 2."""
    training = session.table.training
    inputs = []
    for column in session.layout.features:
        cells = table[column.name]
        if column.kind == "category":
            shares = training[column.name].value_counts(normalize=True)
            for value in column.cells[:-1]:
                inputs.append(2 * (cells == value).astype(float).where(cells.notna(), shares.get(value, 0.0)))
        else:
            scale = np.log1p if column.transform == "log1p" else np.asarray
            present = scale(training[column.name].dropna().astype(float))
            if not len(present):
                present = np.zeros(1)  # an empty column has one value
            mean = np.mean(present)
            deviation = np.std(present) or 1.0
            if column.kind == "flag":
                deviation = 0.5
            inputs.append(np.nan_to_num((scale(cells.astype(float)) - mean) / deviation))
        inputs.append(2 * cells.isna().astype(float))
    return np.column_stack(inputs)
