"""Predictions by an exported model, and what each column added to those of trees.

They are for a table in the schema's columns, or for a site's own rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flfed.errors import TableError, UsageError, count_in_words
from flfed.export.model_folder import SharedModel
from flfed.records.store.tables import finite
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.findings.oddities import MAP_TO_NONE, oddities
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import MAP_IT, NO_COLUMN, Field, Finding, with_text_names
from flfed.rows.data.sources import Csv, Parquet
from flfed.rows.evaluation.intervals import compare
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.features.encode import codes, encode
from flfed.seeds import generator
from flfed.spreadsheet import csv_text
from flfed.trees.cut_points import contributions_of

MEAN = "mean of all rows"
"""Header of what a prediction is without knowing any column."""
ON_TABLE = (
    "These figures are of this table only, with 95 % intervals: they flatter the model if it was trained on some of "
    "these rows, and say nothing about rows that were chosen in another way."
)
ON_SITE = (
    "These figures are of all rows of this site, with 95 % intervals: if the site took part they flatter the model, "
    "which was trained on most of them; the holdout's are in the run's report."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Predictions for the rows of one table.

    They are in the order of the rows.

    Attributes
    ----------
    headers : tuple of str
        One name per column of `values`: "probability", "probability CLASS", or "prediction".
    values : float64 array [rows, columns]
        P(last class) of a binary target, P(each class), or predictions in the target's unit. NaN
        where the study trained on complete rows only and this one has a gap.
    of : str
        What a value is about: the last class, the classes, or the target with its unit.
    figures : dict of metric to {"value", "low", "high", "method"}
        On the rows whose outcome the table has; empty where it has none.
    known : int
        How many rows have an outcome and a prediction.
    notes : tuple of str
        The `clipped` ones first.
    clipped : tuple of str
        Of each column with values outside a range that nobody has confirmed, with how many.
    inputs : float64 array [rows, inputs]
        The rows as the model takes them.
    """

    headers: tuple[str, ...]
    values: np.ndarray
    of: str
    figures: Mapping[str, Mapping[str, Any]]
    known: int
    notes: tuple[str, ...]
    clipped: tuple[str, ...] = ()
    inputs: np.ndarray

    def rows(self) -> list[dict[str, float | int | None]]:
        """Return one object per row.

        It has the row's number from 1, and its values by name.
        """
        rows = []
        for number, row in enumerate(self.values.tolist(), start=1):
            rows.append({"row": number, **dict(zip(self.headers, map(finite, row), strict=True))})
        return rows

    def as_csv(self) -> str:
        """Return the rows as CSV.

        First is "row", then the values with all their digits.
        """
        return _as_csv(self.headers, self.values)


def _as_csv(headers: Sequence[str], values: np.ndarray) -> str:
    """Return the values of all rows as CSV, the row's number first; NaN is an empty cell."""
    cells = values.astype(object)
    cells[np.isnan(values)] = None
    return csv_text(["row", *headers], ([number, *row] for number, row in enumerate(cells, start=1)))


def predict_table(model: SharedModel, path: Path) -> Predictions:
    """Return predictions for a CSV or Parquet file.

    It is in the schema's columns.

    Raises
    ------
    TableError
        For the first rule the table breaks: column, rule and count.
    UsageError
        If the file is not there or cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"table {path}: there is no such file")
    kind = Parquet if path.suffix.lower() in (".parquet", ".pq") else Csv
    raw = kind(str(path.resolve())).read(())
    # A file with semicolons reads as one wide column, and would fail less clearly.
    if raw.shape[1] == 1 < len(model.layout.features):
        raise UsageError(f"table {path}: has one column only; its columns must be separated by commas")
    return predict_frame(model, raw)


def predict_frame(
    model: SharedModel, table: pd.DataFrame, mapping: Mapping[str, str | Field | None] | None = None
) -> Predictions:
    """Return predictions for a data frame.

    A column that the model does not read may be absent.

    Parameters
    ----------
    model : SharedModel
    table : DataFrame
    mapping : mapping of schema column to own column, Field or None, optional
        How its columns are read; default: under the schema's names.

    Raises
    ------
    TableError
        For the first rule the table breaks: column, rule and count.
    """
    table = with_text_names(table)
    unread = set(model.schema.features()) - {column.name for column in model.layout.features}
    absent: dict[str, str | Field | None] = dict.fromkeys(unread - set(table.columns))
    return _predict(model, table, absent | dict(mapping or {}), (), ON_TABLE)


def predict_site(model: SharedModel, name: str) -> Predictions:
    """Return predictions for all rows of a site.

    They are read and mapped as the site does.

    Raises
    ------
    UsageError
        If the site has another dataset, or another schema of it.
    TableError
        For the first rule the site's table breaks.
    """
    dataset = datasets.load(model.schema.name)
    site = sites.load(name).serving(dataset.name)
    if dataset.schema.sha256() != model.schema.sha256():
        raise UsageError(f"dataset {dataset.name!r} has another schema here than the model was trained with")
    raw = site.source.read(dataset.folders(site.folder))
    return _predict(model, raw, site.mapping, site.source.missing, ON_SITE)


def _predict(
    model: SharedModel,
    raw: pd.DataFrame,
    mapping: Mapping[str, str | Field | None],
    missing: tuple[str, ...],
    about: str,
) -> Predictions:
    table, clipped = mapped_rows(model, raw, mapping, missing)
    x = encode(table, model.layout, model.encoder).x
    values = model.predictions(x).astype(float).reshape(len(table), -1)
    usable = np.ones(len(table), dtype=bool)
    # The study never saw a row with a gap, so that a value there would mean nothing.
    if model.study.encode.rows == "complete":
        usable = table[[column.name for column in model.layout.features]].notna().all(axis=1).to_numpy(dtype=bool)
        values[~usable] = np.nan
    notes = [*clipped, *_notes(model, raw, table, mapping)]
    if model.quantised is not None:
        notes.append(model.quantised.in_words(model.schema.columns[model.schema.target].unit))
    if not usable.all():
        few = count_in_words(int((~usable).sum()))
        notes.append(f"{few} rows have a gap and get no prediction: the study trained on complete rows only")
    # Figures need rows that have both an outcome and a prediction.
    comparable_rows = usable & table[model.schema.target].notna().to_numpy()
    figures = {}
    if comparable_rows.any():
        figures = _figures(model, table[comparable_rows], values[comparable_rows])
        notes.append(about)
        if not comparable_rows.all():
            notes.append(
                f"The figures are of {comparable_rows.sum()} of {len(table)} rows: the others have no outcome."
            )
    headers, of = _headers(model)
    return Predictions(
        headers=headers, values=values, of=of, figures=figures, known=int(comparable_rows.sum()),
        notes=tuple(notes), clipped=tuple(clipped), inputs=x,
    )  # fmt: skip


def mapped_rows(
    model: SharedModel,
    raw: pd.DataFrame,
    mapping: Mapping[str, str | Field | None] | None = None,
    missing: tuple[str, ...] = (),
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table in the schema's columns, as a model's encoder takes it.

    With it comes a sentence for each column with values outside a range that nobody has confirmed.

    Raises
    ------
    TableError
        For the first rule the table breaks: column, rule and count.
    UsageError
        If it has no rows, or no encoder fits it.
    """
    # There is no encoder that would fit a table which no site scaled.
    if model.study.encode.scaler == "per-site":
        raise UsageError(
            "the model was trained with encode.scaler='per-site', every site by its own means: there is no encoder "
            "for another table; train it with scaler='global'"
        )
    # The outcome may be missing: predicting is for rows without one.
    table, findings = map_table(raw, _unbounded(model), mapping or {}, missing, outcome=False)
    if findings:
        raise _first_error(findings[0], model.schema.name)
    if not len(table):
        raise UsageError("the table has no rows: there is nothing to predict")
    return _within_ranges(model, table)


def inputs_of(
    model: SharedModel, raw: pd.DataFrame, mapping: Mapping[str, str | Field | None] | None = None
) -> np.ndarray:
    """Return a table as the encoder's inputs, float64 [rows, inputs]. Raises as `mapped_rows` does."""
    return encode(mapped_rows(model, with_text_names(raw), mapping)[0], model.layout, model.encoder).x


def _unbounded(model: SharedModel) -> Any:
    """Return a model's schema without the ranges that nobody has confirmed."""
    schema = model.schema
    columns = dict(schema.columns)
    for name in schema.unconfirmed:
        if columns[name].kind == "number":
            columns[name] = columns[name].model_copy(update={"range": (-math.inf, math.inf)})
    return schema.model_copy(update={"columns": columns})


def _within_ranges(model: SharedModel, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with values at the ends of unconfirmed ranges where they lie outside.

    With it come a sentence for each such column, with its count.
    """
    notes = []
    columns = {}
    read = {feature.name: model.schema.columns[feature.name] for feature in model.layout.features}
    for name, column in read.items():
        if name not in model.schema.unconfirmed or column.kind != "number" or column.range is None:
            continue
        low, high = column.range
        columns[name] = table[name].clip(low, high)
        outside = int((columns[name] != table[name]).sum() - table[name].isna().sum())
        if outside:
            few = count_in_words(outside)
            notes.append(
                f"column {name!r}: {few} rows lie outside {low:g} to {high:g}, a range that nobody has confirmed, and "
                "are scored at its end"
            )
    return table.assign(**columns), notes


ADD_IT = " (add it; leave its cells empty where they are not known)"
ADVICE = {
    MAP_IT: ADD_IT,
    " (set thousands)": ": write numbers without marks between thousands, and decimals with another number of digits",
    " (set censored)": "",
    " (name them in missing)": ": leave them empty",
}
"""What is to be done about a table without a mapping, instead of what its mapping could say."""


def _first_error(finding: Finding, dataset: str) -> UsageError | TableError:
    """Return the error of a table to predict.

    What may be meant is told as well, for the table is the reader's own.
    """
    error = finding.error()
    rule = error.rule
    # Advice for a mapping makes no sense where there is none.
    for mapped, plain in ADVICE.items():
        rule = rule.replace(mapped, plain)
    if rule == NO_COLUMN:
        return UsageError(f"the table has none of the columns of dataset {dataset!r}: {finding.hint}")
    if finding.hint:
        rule = f"{rule.removesuffix(ADD_IT)}; {finding.hint}"
    return TableError(error.column, rule, error.bad)


def _notes(
    model: SharedModel, raw: pd.DataFrame, table: pd.DataFrame, mapping: Mapping[str, str | Field | None]
) -> list[str]:
    """Return oddities of the table and its columns.

    Only columns that the model reads count.
    """
    named = {column.name: f"column {column.name!r}" for column in model.layout.features} | {"table": "the table"}
    notes = [note for note in oddities(raw, table, model.schema, mapping) if note.column in named]
    # Nothing is mapped here.
    return [f"{named[note.column]}: {note.text.removesuffix(MAP_TO_NONE)}" for note in notes]


def _headers(model: SharedModel) -> tuple[tuple[str, ...], str]:
    """Return the prediction columns and their meaning."""
    schema = model.schema
    if schema.task == "regression":
        unit = schema.columns[schema.target].unit
        of_unit = f" ({unit})" if unit else ""
        return ("prediction",), f"{schema.target}{of_unit}"
    if schema.task == "binary":
        return ("probability",), f"{schema.target}={schema.classes[-1]}"
    return tuple(f"probability {name}" for name in schema.classes), schema.target


def _figures(model: SharedModel, table: pd.DataFrame, values: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return each metric with its interval.

    Its method goes with it, or why the metric is not there.
    """
    task = model.schema.task
    cells = table[model.schema.target]
    y = cells.to_numpy(dtype=float) if task == "regression" else codes(cells, model.layout.target)
    group = table[model.schema.group] if model.schema.group else None
    # Rows of one person go together into a resample, or the interval would be too short.
    groups = pd.factorize(group)[0] if group is not None and group.notna().all() and not group.is_unique else None
    score = values if task == "multi-class" else values[:, 0]
    interval_by_metric, _ = compare(
        metrics_of(task, model.study.compare.alert_budget),
        y,
        {"": score},
        (),
        generator(model.study.seed, site="", purpose="bootstrap"),
        draws=model.study.compare.resamples,
        groups=groups,
    )
    figures = {}
    for name, arms in interval_by_metric.items():
        ends = {end: finite(getattr(arms[""], end)) for end in ("value", "low", "high")}
        figures[name] = {**ends, "method": arms[""].method}
    return figures


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
        return _as_csv(self.headers, self.values)


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
    schema = model.schema
    scale = 1.0
    base = 0.0
    unit = "log-odds" if schema.task == "binary" else "score"
    if schema.task == "regression":
        scale = float(model.encoder.scale[-1])
        base = float(model.encoder.center[-1])
        column = schema.columns[schema.target]
        unit = f"logarithm of {schema.target}" if column.transform == "log1p" else column.unit or schema.target
    values = scale * contributions_of(model.arrays, x)
    values[:, :, -1] += base
    columns = [*(column.name for column in model.layout.features), MEAN]
    classes = [f" ({name})" for name in schema.classes] if values.shape[1] > 1 else [""]
    headers = tuple(name + of for of, name in product(classes, columns))
    return Explanations(headers=headers, values=values.reshape(len(x), -1), unit=unit)
