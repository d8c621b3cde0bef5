"""Coefficients of a linear or logistic model, as CSV, made into a model folder that no run of flfed trained."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from flfed.errors import UsageError, nearest
from flfed.export.model_folder import SharedModel
from flfed.parsers import decode_text, foreign_parser
from flfed.rows.data.schema import Column, Schema
from flfed.rows.features.summarise import column_layout, layout_of
from flfed.rows.model_files import read_content
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout
from flfed.words import render, usage_error

LARGEST_TABLE = 1_000_000
"""Bytes of a file of coefficients."""
INTERCEPT = "intercept"
TABLE = {"name", "value", "unit"}

Term = tuple[str, int]
"""A column, and the code of a value of it; 0 of a number."""
Coefficient = tuple[float, str]
"""A value, and its unit."""


def read_coefficients(path: Path, schema: Schema) -> SharedModel:
    """Return the linear model of a CSV file: log-odds of the last class, or the target in its unit.

    Parameters
    ----------
    path : Path
        CSV with the columns `name`, `value` and `unit`; others are ignored. Names are `intercept`, a number or a flag,
        and `column=value`; a value without a row adds 0. The unit is the schema's, and `log1p(UNIT)` where the schema
        takes the logarithm of a column. It is empty for all others.
    schema : Schema
        Columns without a row are no columns of the model, and may be missing.

    Raises
    ------
    UsageError
        If the file cannot be read, a row breaks a rule, or the target has more than two classes.
    """
    if schema.task == "multi-class":
        raise usage_error("models.brought.classes", path=path)
    coefficients = _parse_table(path)
    if INTERCEPT not in coefficients:
        raise usage_error("models.brought.intercept", path=path)
    _check_intercept(path, schema, coefficients[INTERCEPT][1])
    constant, _ = coefficients.pop(INTERCEPT)
    by_term = _terms_of(path, schema, coefficients)
    features = schema.features([column for column, _ in by_term])
    layout = layout_of(schema, features)
    weights = []
    for column in layout.features:
        if column.kind == "number":
            weights.append(by_term[column.name, 0])
            continue
        values = [by_term.get((column.name, code), 0.0) for code in range(len(column.cells) - 1)]
        # The first value has no input: its share of the score is part of the intercept.
        constant += values[0]
        weights += [value - values[0] for value in values[1:]]
    name = "linear" if schema.task == "regression" else "logistic"
    tables = {"model": {"name": name}, "strategy": {"name": "fedavg"}, "encode": {"scaler": "none", "rows": "complete"}}
    arrays = {"weight": np.array(weights)[:, None], "bias": np.array([constant])}
    return brought_model(path, schema, features, tables, arrays, identity_encoder(layout))


def _check_intercept(path: Path, schema: Schema, unit: str) -> None:
    """Refuse an intercept of another unit; the outcome's may be left out, unless it is that of a logarithm."""
    expected = ""
    if schema.task == "regression":
        expected = _expected_unit(schema.columns[schema.target])
    if unit != expected and (unit or expected.startswith("log1p")):
        raise _unit_error(path, INTERCEPT, unit, expected)


def _parse_table(path: Path) -> dict[str, Coefficient]:
    """Return value and unit by name; raises UsageError."""
    refusal = render("models.brought.csv", path=path)
    text = decode_text(read_content(path, LARGEST_TABLE), refusal).removeprefix("\ufeff")
    with foreign_parser(refusal, csv.Error):
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        rows = list(reader)
    names = reader.fieldnames or ()
    if len(set(names)) < len(names) or not set(names) >= TABLE:
        raise usage_error("models.brought.header", path=path)
    coefficients = {}
    for row in rows:
        name = row["name"]
        if name in coefficients:
            raise usage_error("models.brought.twice", path=path, name=name[:80])
        coefficients[name] = (_parse_number(path, name, row["value"]), row["unit"].strip())
    return coefficients


def _parse_number(path: Path, name: str, text: str) -> float:
    refusal = render("models.brought.number", path=path, name=name[:80])
    with foreign_parser(refusal):
        value = float(text)
    if not math.isfinite(value):
        raise usage_error("models.brought.number", path=path, name=name[:80])
    return value


def schema_terms(schema: Schema) -> dict[str, Term]:
    """Return the column, and the code of its value, that each name stands for.

    A number or a flag has its own name, and a flag's value 1 as well; a value of a category has `column=value`.
    """
    terms = {}
    for name, column in schema.columns.items():
        if column.kind == "number":
            terms[name] = (name, 0)
        elif column.kind in ("flag", "category"):
            for code, value in enumerate(column_layout(name, column).cells[:-1]):
                terms[f"{name}={value}"] = (name, code)
            if column.kind == "flag":
                terms[name] = (name, 1)
    return terms


def _terms_of(path: Path, schema: Schema, coefficients: Mapping[str, Coefficient]) -> dict[Term, float]:
    """Return the value of each term, whose units are the schema's; raises UsageError."""
    terms = schema_terms(schema)
    by_term = {}
    for name, (value, unit) in coefficients.items():
        if name not in terms:
            raise usage_error("models.brought.name", path=path, name=name[:80], hint=nearest(name, list(terms)))
        term = terms[name]
        expected = _expected_unit(schema.columns[term[0]])
        if unit != expected:
            raise _unit_error(path, name, unit, expected)
        if term in by_term:
            raise usage_error("models.brought.twice", path=path, name=name[:80])
        by_term[term] = value
    return by_term


def _expected_unit(column: Column) -> str:
    return f"log1p({column.unit})" if column.transform == "log1p" else column.unit


def _unit_error(path: Path, name: str, unit: str, expected: str) -> UsageError:
    return usage_error("models.brought.unit", path=path, name=name, unit=unit[:80], expected=expected)


def identity_encoder(layout: Layout) -> Encoder:
    """Return the encoder whose inputs are the columns: numbers after their transform, indicators 0 or 1."""
    shapes = layout.encoder_shapes()
    zero = {name: np.zeros(shapes[name]) for name in ("center", "frequency")}
    one = {name: np.ones(shapes[name]) for name in ("scale", "spread", "class_weight")}
    return Encoder(**zero, **one)


def brought_model(
    path: Path,
    schema: Schema,
    features: Sequence[str],
    tables: Mapping[str, Mapping[str, Any]],
    arrays: Arrays,
    encoder: Encoder,
) -> SharedModel:
    """Return a model that can be written as a folder.

    Parameters
    ----------
    path : Path
        The file that it was read from, whose name stands for a run's id.
    schema : Schema
    features : sequence of str
        Columns that it reads, in the schema's order.
    tables : dict of name to table
        Tables of the folder's study: its model, strategy and encoding.
    arrays : dict of name to array
    encoder : Encoder
    """
    study = {
        "format": 1,
        "name": "brought-model",
        "purpose": render("models.brought.purpose"),
        "legal-basis": render("models.brought.basis"),
        "dataset": {"name": schema.name, "features": list(features)},
        **tables,
    }
    return SharedModel(
        run=path.name,
        study=Study.parse(tomli_w.dumps(study)),
        schema=schema,
        arrays=arrays,
        encoder=encoder,
        figures={"global": {}, "sites-mean": {}, "sites": {}},
    )
