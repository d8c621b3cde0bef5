"""What each column added to the predictions of trees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.spreadsheet import csv_text
from flfed.trees.cut_points import codes_in, widths_of
from flfed.trees.explain import contributions
from flfed.trees.forest import forest_of

MEAN = "mean of all rows"
"""Header of what a prediction is without knowing any column."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanations:
    """What each column added to the score of each row, in the order of the rows.

    Attributes
    ----------
    headers : tuple of str
        The columns, then `MEAN`; of several classes each with its class.
    values : float64 array [rows, headers]
        In the unit of the score: log-odds of the last class, a score of each class, or the number that is predicted
        (its logarithm under the transform log1p). Of one class, or number, they add up to the row's score. NaN where a
        row gets no prediction.
    unit : str
    """

    headers: tuple[str, ...]
    values: np.ndarray
    unit: str

    def as_csv(self) -> str:
        """Return the rows as CSV, the row's number first."""
        cells = self.values.astype(object)
        cells[np.isnan(self.values)] = None
        return csv_text(["row", *self.headers], ([number, *row] for number, row in enumerate(cells, start=1)))


def explained(model: SharedModel, x: np.ndarray) -> Explanations:
    """Return what each column added to predictions.

    Parameters
    ----------
    model : SharedModel
    x : float64 array [rows, columns]
        As the encoder makes them; NaN where a value is missing.

    Raises
    ------
    UsageError
        If the model is no trees.

    Notes
    -----
    Source: Lundberg et al. 2020, "From local explanations to global understanding with explainable AI for trees".
    """
    if not model.layout.plain:
        raise UsageError(
            f"--explain is of boosted trees, and this model is {model.study.model.name!r}: of a regression the "
            "coefficients say it, in the run's report"
        )
    task = model.schema.task
    schema = model.schema
    scale = 1.0
    base = 0.0
    unit = "log-odds" if task == "binary" else "score"
    if task == "regression":
        scale = float(model.encoder.scale[-1])
        base = float(model.encoder.center[-1])
        column = schema.columns[schema.target]
        unit = f"logarithm of {schema.target}" if column.transform == "log1p" else column.unit or schema.target
    missing = widths_of(model.arrays) - 1
    forest = forest_of(model.arrays)
    outputs = model.arrays["value"].shape[1]
    values = scale * contributions(forest, codes_in(x, model.arrays), missing, outputs=outputs)
    values[:, :, -1] += base
    columns = [*(column.name for column in model.layout.features), MEAN]
    classes = [f" ({name})" for name in schema.classes] if values.shape[1] > 1 else [""]
    headers = tuple(name + of for of, name in product(classes, columns))
    return Explanations(headers=headers, values=values.reshape(len(x), -1), unit=unit)
