"""Exact counts behind a model's encoder and scores, each person at most once, before noise is put on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flfed.rows.encoded_table import EncodedTable
from flfed.rows.statistics.private.gaussian import STEP, GaussianQuery, person_weights
from flfed.rows.statistics.statistic import Shapes
from flfed.summaries.private_scaling import CELLS, HISTOGRAMS, VALUES, counted_columns, number_cells, sensitivities

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema
    from flfed.summaries.summary import Layout


def weights_of(table: pd.DataFrame, schema: Schema, *, by_person: bool) -> np.ndarray:
    """Return the weight of each row, float64 [rows]: those of one person weigh one together, or each row one."""
    persons = persons_of(table, schema) if by_person else None
    return person_weights(persons, len(table))


def persons_of(table: pd.DataFrame, schema: Schema) -> np.ndarray | None:
    """Return the code of each row's person, int64 [rows]; None where the schema names no group."""
    import pandas as pd

    # Rows whose person is not known may all be one's.
    return pd.factorize(table[schema.group], use_na_sentinel=False)[0] if schema.group else None


def shapes_of_cells(layout: Layout) -> Shapes:
    """Return names, shapes and types of the counts of numbers by cell, and of all other columns by value."""
    numbers, others = counted_columns(layout)
    real = np.dtype(np.float64)
    return {
        HISTOGRAMS: ((len(numbers), CELLS + 1), real),
        VALUES: ((sum(len(column.cells) for column in others),), real),
    }


def training_cells(table: EncodedTable, *, by_person: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a site's training rows by cell of each number, and by value of each other column.

    Returns
    -------
    numbers : float64 array [number columns, CELLS + 1]
    values : float64 array [cells of all other columns]
    """
    numbers, others = counted_columns(table.layout)
    rows = table.coded(table.table.training)
    training = table.table.training
    weights = weights_of(training, table.schema, by_person=by_person)
    by_cell = [number_cells(column, rows.scaled(column), weights) for column in numbers]
    by_value = [np.bincount(rows.codes[c.name], weights, minlength=len(c.cells)) for c in others]
    found = np.stack(by_cell) if by_cell else np.zeros((0, CELLS + 1))
    values = np.concatenate(by_value) if by_value else np.zeros(0)
    return found, values


def cell_queries(layout: Layout, noises: tuple[float, float]) -> tuple[GaussianQuery, GaussianQuery]:
    """Return the mechanisms of both counts, by their noise multipliers."""
    first, second = (
        GaussianQuery(sensitivity=max(sensitivity, 1.0), noise=noise, step=STEP)
        for sensitivity, noise in zip(sensitivities(layout), noises, strict=True)
    )
    return first, second
