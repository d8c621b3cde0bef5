"""Forecasts without a model, of a regression whose rows are in the order of time.

They are the site's mean, its last training value, and columns that a study names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flfed.errors import UsageError, nearest
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import Encoded, input_names, input_slices
from flfed.rows.training.tuning.linear import LinearPredictor
from flfed.study.study import Study
from flfed.study.tables import NAIVE_FAMILIES, OwnFamily
from flfed.summaries.summary import Encoder, Layout

MEAN, LAST, COLUMN = NAIVE_FAMILIES
ORIGINS = 10
"""Blocks, twice as many at most, from which on a last value is tried."""


def naive_forecasts(
    rows: Encoded, columns: Sequence[LinearPredictor] = (), least: int = 0
) -> dict[OwnFamily, LinearPredictor]:
    """Return the forecasts that rows in the order of time allow, by family; none of other rows.

    Parameters
    ----------
    rows : Encoded
        Of a regression, to train on.
    columns : sequence of LinearPredictor
        `column_forecasts`, of which the one with the least squared error is taken.
    least : int
        Rows, of as many people, that the last value is the mean of at least: figures of a constant tell the constant.
        0 leaves it out, as of rows of several sites.
    """
    if rows.elapsed is None:
        return {}
    found = {MEAN: _constant(rows, float(rows.y.mean()))}
    last = _latest_rows(rows, least)
    if last.any():
        found[LAST] = _constant(rows, float(rows.y[last].mean()))
    if columns:
        found[COLUMN] = min(columns, key=lambda column: squared_error(column, rows))
    return found


def _latest_rows(rows: Encoded, least: int) -> np.ndarray:
    """Return a mask of the latest whole blocks with `least` rows of as many people; none where there are none."""
    elapsed = np.zeros(len(rows)) if rows.elapsed is None else rows.elapsed
    if not 0 < least <= len(rows):
        return np.zeros(len(rows), dtype=bool)
    mask = np.asarray(elapsed >= np.sort(elapsed)[-least])
    people = int(mask.sum()) if rows.group is None else len(np.unique(rows.group[mask]))
    return mask if people >= least else np.zeros(len(rows), dtype=bool)


def _constant(rows: Encoded, value: float) -> LinearPredictor:
    return LinearPredictor(np.zeros((rows.x.shape[1], 1)), np.array([value]))


def squared_error(forecast: LinearPredictor, rows: Encoded) -> float:
    """Return the summed squared error of a forecast."""
    return float(np.square(forecast(rows.x)[:, 0] - rows.y).sum())


def last_over_mean(rows: Encoded, least: int) -> float:
    """Return the squared error of the last value over that of the mean, of rows in the order of time.

    Both are made of the rows before a block and tried on all from that block on, for blocks of `Encoded.latest`: a
    single last value may be near the next ones by chance. Infinite where there is no last value; `least` as
    `naive_forecasts` takes it.
    """
    latest = rows.latest()
    elapsed = rows.elapsed
    errors = np.zeros(2)
    if latest is None or elapsed is None:
        return np.inf
    starts = np.unique(elapsed[latest])
    for start in starts[:: max(1, len(starts) // ORIGINS)]:
        found = naive_forecasts(rows.take(np.flatnonzero(elapsed < start)), least=least)
        after = rows.take(np.flatnonzero(elapsed >= start))
        if LAST in found:
            errors += [squared_error(found[LAST], after), squared_error(found[MEAN], after)]
    return float(errors[0] / errors[1]) if errors[1] else np.inf


def column_forecasts(names: Sequence[str], layout: Layout, encoder: Encoder) -> list[LinearPredictor]:
    """Return the forecasts that columns are, as functions of scaled inputs.

    Where a column has no value its mean stands in place of it.

    Parameters
    ----------
    names : sequence of str
        As `check_naive` lets them be.
    layout : Layout
    encoder : Encoder
        By which the inputs and the target are scaled.
    """
    scaled = replace(layout, plain=False)
    places = input_slices(scaled)
    inputs = len(input_names(scaled))
    numbers = {column.name: number for number, column in enumerate(layout.features)}
    found = []
    for name in names:
        if name not in numbers:
            continue  # the coordinator's own check refuses it before
        number = numbers[name]
        weight = np.zeros((inputs, 1))
        # Both are scaled about a centre: what is one deviation of the column is so many of the target.
        weight[places[name].start] = encoder.scale[number] / encoder.scale[-1]
        bias = (encoder.center[number] - encoder.center[-1]) / encoder.scale[-1]
        found.append(LinearPredictor(weight, np.array([bias])))
    return found


def check_naive(study: Study, schema: Schema) -> None:
    """Refuse columns that cannot be forecasts of the target.

    Raises
    ------
    UsageError
        For a column that is no feature of the study, or has another unit or transform than the target; and for a
        target that is no number.
    """
    names = study.compare.naive
    target = schema.columns[schema.target]
    if names and schema.task != "regression":
        raise UsageError(f"[compare]: naive is for a target that is a number; the dataset's task is {schema.task!r}")
    features = schema.features(study.dataset.features)
    for name in names:
        if name not in features:
            raise UsageError(
                f"[compare]: naive names {name!r}, which is no feature of the study{nearest(name, features)}"
            )
        column = schema.columns[name]
        if (column.kind, column.unit, column.transform) != ("number", target.unit, target.transform):
            raise UsageError(
                f"[compare]: naive names {name!r}, which must have the target's unit and transform to be a forecast of "
                f"{schema.target!r}"
            )
