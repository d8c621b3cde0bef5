"""Predictions of an exported model for a table with the schema's columns, or for a site's own rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from flfed.errors import TableError, UsageError, count_in_words
from flfed.export.model_folder import SharedModel
from flfed.export.predictions import Predictions, figure_of
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.findings.oddities import oddities
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import MAP_IT, NO_COLUMN, ColumnMapping, Finding, with_text_names
from flfed.rows.evaluation.calibration import Calibration, calibrate
from flfed.rows.evaluation.intervals import compare
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.features.encode import codes, encode
from flfed.rows.proposals.own_tables import read_file
from flfed.seeds import generator
from flfed.words import render, usage_error

Rows = tuple[pd.DataFrame, ColumnMapping, tuple[str, ...]]
"""A table as its source gives it, how its columns are read, and the source's codes for "not known"."""


def predict_table(model: SharedModel, path: Path) -> Predictions:
    """Return predictions for a CSV, Parquet or Excel file with the schema's columns.

    Raises
    ------
    TableError
        For the first rule the table breaks: column, rule and count.
    UsageError
        If the file is not there or cannot be read.
    """
    return _predict(model, *read_table(model, path), "table")


def read_table(model: SharedModel, path: Path) -> Rows:
    """Read a file with the schema's columns, in any form that `read_file` knows.

    A column that the model does not read may be absent.

    Raises
    ------
    UsageError
        If the file is not there or cannot be read.
    """
    return _read_frame(model, read_file(path))


def _read_frame(model: SharedModel, table: pd.DataFrame) -> Rows:
    unread = set(model.schema.features()) - {column.name for column in model.layout.features}
    return with_text_names(table), dict.fromkeys(unread), ()


def predict_frame(model: SharedModel, table: pd.DataFrame, mapping: ColumnMapping | None = None) -> Predictions:
    """Return predictions for a data frame; a column that the model does not read may be absent.

    Parameters
    ----------
    model : SharedModel
    table : DataFrame
    mapping : mapping of schema column to own column, Field or None, optional
        Readers of its columns; default: the schema's names.

    Raises
    ------
    TableError
        For the first rule the table breaks: column, rule and count.
    """
    table, absent, missing = _read_frame(model, table)
    return _predict(model, table, {**absent, **(mapping or {})}, missing, "table")


def predict_site(model: SharedModel, name: str) -> Predictions:
    """Return predictions for all rows of a site, with its own mapping.

    Raises
    ------
    UsageError
        If the site has another dataset, or another schema of it.
    TableError
        For the first rule the site's table breaks.
    """
    return _predict(model, *read_site(model, name), "site")


def read_site(model: SharedModel, name: str) -> Rows:
    """Read all rows of a site.

    Raises
    ------
    UsageError
        If the site has another dataset, or another schema of it.
    """
    dataset = datasets.load(model.schema.name)
    site = sites.load(name).serving(dataset.name)
    if dataset.schema.sha256() != model.schema.sha256():
        raise usage_error("export.errors.schema", dataset=dataset.name)
    return site.prepared_table(), site.mapping, site.source.missing


def _predict(
    model: SharedModel,
    raw: pd.DataFrame,
    mapping: ColumnMapping,
    missing: tuple[str, ...],
    scope: Literal["table", "site"],
) -> Predictions:
    if model.study.is_vertical:
        raise usage_error("export.party.part")
    table, clipped = mapped_rows(model, raw, mapping, missing)
    x = encode(table, model.layout, model.encoder).x
    values = model.predictions(x).astype(float).reshape(len(table), -1)
    usable = np.ones(len(table), dtype=bool)
    # The study trained on no row with a gap: a value there would mean nothing.
    if model.study.encode.rows == "complete":
        usable = table[[column.name for column in model.layout.features]].notna().all(axis=1).to_numpy(dtype=bool)
        values[~usable] = np.nan
    notes = [*clipped, *_notes(model, raw, table, mapping)]
    if not usable.all():
        notes.append(render("export.predict.gaps", rows=count_in_words(int((~usable).sum()))))
    # Figures need rows that have both an outcome and a prediction.
    comparable_rows = usable & table[model.schema.target].notna().to_numpy()
    figures: dict[str, dict[str, Any]] = {}
    calibration = None
    if comparable_rows.any():
        compared = table[comparable_rows]
        figures, calibration = _measure(model, compared, values[comparable_rows], person_codes(model, compared))
        notes.append(render(f"export.figures.{scope}"))
        if not comparable_rows.all():
            notes.append(render("export.predict.known", known=comparable_rows.sum(), rows=len(table)))
    headers, of = _headers(model)
    return Predictions(
        headers=headers, values=values, of=of, figures=figures, calibration=calibration,
        known=int(comparable_rows.sum()), notes=tuple(notes), clipped=tuple(clipped), inputs=x, table=table,
    )  # fmt: skip


def mapped_rows(
    model: SharedModel, raw: pd.DataFrame, mapping: ColumnMapping | None = None, missing: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table in the schema's columns, for a model's encoder.

    With it comes a sentence for each column with values outside an unconfirmed range.

    Raises
    ------
    TableError
        For the first rule the table breaks: column, rule and count.
    UsageError
        If it has no rows, or no encoder fits it.
    """
    # No encoder fits a table that no site has scaled.
    if model.study.encode.scaler == "per-site":
        raise usage_error("export.errors.scaler")
    # The outcome may be missing: predictions are for rows without one.
    table, findings = map_table(raw, _unbounded(model), mapping or {}, missing, outcome=False)
    if findings:
        raise _first_error(findings[0], model.schema.name)
    if not len(table):
        raise UsageError("the table has no rows to predict")
    return _within_ranges(model, table)


def inputs_of(model: SharedModel, raw: pd.DataFrame, mapping: ColumnMapping | None = None) -> np.ndarray:
    """Return a table as the encoder's inputs, float64 [rows, inputs]. Raises as `mapped_rows` does."""
    return encode(mapped_rows(model, with_text_names(raw), mapping)[0], model.layout, model.encoder).x


def _unbounded(model: SharedModel) -> Any:
    """Return a model's schema without unconfirmed ranges."""
    schema = model.schema
    columns = dict(schema.columns)
    for name in schema.unconfirmed:
        if columns[name].kind == "number":
            columns[name] = columns[name].model_copy(update={"range": (-math.inf, math.inf)})
    return schema.model_copy(update={"columns": columns})


def _within_ranges(model: SharedModel, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with values moved to the ends of unconfirmed ranges where they lie outside.

    With it comes a sentence with the count for each such column.
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
            rows = count_in_words(outside)
            notes.append(render("export.predict.clipped", column=name, rows=rows, low=low, high=high))
    return table.assign(**columns), notes


ADD_IT = " (add it; leave unknown cells empty)"
ADVICE = {
    MAP_IT: ADD_IT,
    " (set thousands)": ": write numbers without marks between thousands, and not with three decimals",
    " (set censored)": "",
    " (name them in missing)": ": leave them empty",
}
"""Advice for a table without a mapping, in place of advice for a mapping."""


def _first_error(finding: Finding, dataset: str) -> UsageError | TableError:
    """Return the error of a table to predict, with a likely column, since the table is the reader's own."""
    error = finding.error()
    rule = error.rule
    # A table to predict has no mapping, so that advice for a mapping is replaced.
    for mapped, plain in ADVICE.items():
        rule = rule.replace(mapped, plain)
    if rule == NO_COLUMN:
        return usage_error("export.errors.columns", dataset=dataset, hint=finding.hint)
    if finding.hint:
        rule = f"{rule.removesuffix(ADD_IT)}; {finding.hint}"
    return TableError(error.column, rule, error.bad)


def _notes(model: SharedModel, raw: pd.DataFrame, table: pd.DataFrame, mapping: ColumnMapping) -> list[str]:
    """Return oddities of the table, and of its columns that the model reads."""
    named = {column.name: f"column {column.name!r}" for column in model.layout.features} | {"table": "the table"}
    notes = [note for note in oddities(raw, table, model.schema, mapping) if note.column in named]
    return [f"{named[note.column]}: {note.text}" for note in notes]


def _headers(model: SharedModel) -> tuple[tuple[str, ...], str]:
    """Return the headers of predictions, and their target."""
    schema = model.schema
    if schema.task == "regression":
        unit = schema.columns[schema.target].unit
        of_unit = f" ({unit})" if unit else ""
        return ("prediction",), f"{schema.target}{of_unit}"
    if schema.task == "binary":
        return ("probability",), f"{schema.target}={schema.classes[-1]}"
    return tuple(f"probability {name}" for name in schema.classes), schema.target


def person_codes(model: SharedModel, table: pd.DataFrame) -> np.ndarray | None:
    """Return the code of each row's person, or None where each row is its own."""
    if not model.schema.group:
        return None
    group = table[model.schema.group]
    if group.isna().any() or group.is_unique:
        return None
    return pd.factorize(group)[0]


def _measure(
    model: SharedModel, table: pd.DataFrame, values: np.ndarray, groups: np.ndarray | None
) -> tuple[dict[str, dict[str, Any]], Calibration | None]:
    """Return each metric with interval and method, or why it is undefined, and the calibration of probabilities.

    Rows of one person go together, or the intervals would be too short.
    """
    task = model.schema.task
    cells = table[model.schema.target]
    y = cells.to_numpy(dtype=float) if task == "regression" else codes(cells, model.layout.target)
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
    figures = {name: figure_of(arms[""]) for name, arms in interval_by_metric.items()}
    calibration = calibrate(y, score, groups) if task == "binary" else None
    return figures, calibration
