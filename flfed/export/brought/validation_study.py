"""A model that somebody brings along, as a folder of flfed's own export, and the study that validates it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from flfed.export.brought.coefficients import read_coefficients
from flfed.export.brought.trees import read_trees
from flfed.export.model_folder import SharedModel
from flfed.federation.server.preflight import check
from flfed.rows.data import datasets, site_discovery
from flfed.rows.data.schema import Schema
from flfed.rows.model_files import read_model_files
from flfed.rows.warm_start import read_source
from flfed.study.study import Study
from flfed.words import render, usage_error

READERS = {".csv": read_coefficients, ".json": read_trees}
"""Readers by the ending of a file's name."""


def bring_model(path: Path, schema: Schema, folder: Path) -> Path:
    """Return the folder of a model that somebody brings along.

    Nothing in its files is executed. A folder of `flfed run export` is checked and stays where it is; a file is checked
    and written as such a folder.

    Parameters
    ----------
    path : Path
        A folder of `flfed run export`, coefficients as CSV (`read_coefficients`) or XGBoost's JSON (`read_trees`).
    schema : Schema
        Of the dataset whose rows the model is for.
    folder : Path
        Where a file's model is written; new or empty.

    Raises
    ------
    UsageError
        If it is none of these, breaks a rule of its format, or does not fit the schema.
    FlfedError
        If the folder cannot be written.
    """
    if path.is_dir():
        model = SharedModel.read(path)
        if model.schema.sha256() != schema.sha256():
            raise usage_error("export.errors.schema", dataset=schema.name)
        # No other table has the inputs of such a model.
        if model.study.encode.scaler == "per-site":
            raise usage_error("export.errors.scaler")
        return path
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise usage_error("models.brought.kind", path=path)
    reader(path, schema).write(folder)
    # The folder is read as any other, so that no reader's gap gets further.
    SharedModel.read(folder)
    return folder


@dataclass(frozen=True)
class ValidationStudy:
    """A study that trains nothing.

    Attributes
    ----------
    text : str
    folder : Path
        Of the model.
    start_sha256 : str
        SHA-256 of arrays, encoder and layout, which sites approve.
    """

    text: str
    folder: Path
    start_sha256: str


def make_validation(model: Path, dataset: str, folder: Path, *, name: str, purpose: str = "") -> ValidationStudy:
    """Return a study that validates a model, after checking that it can.

    Parameters
    ----------
    model : Path
        As `bring_model` reads it.
    dataset : str
    folder : Path
        Where a model is written that is no folder yet.
    name, purpose : str
        Of the study.

    Raises
    ------
    UsageError
        If the model cannot be read, or does not fit the dataset.
    """
    schema = datasets.load(dataset).schema
    folder = bring_model(model, schema, folder).resolve()
    source = read_source(folder, str(model))
    start_sha256 = source.sha256()
    facts = {"name": name, "dataset": dataset, "purpose": purpose, "task": schema.task}
    is_cut = not site_discovery.of_dataset(dataset)
    text = validation_text(read_model_files(folder).study, folder, start_sha256, **facts, is_cut=is_cut)
    study = Study.parse(text)
    check(study)
    source.check(study, schema, str(model))
    return ValidationStudy(text, folder, start_sha256)


def validation_text(
    of_model: Study, folder: Path, start_sha256: str, *, name: str, dataset: str, purpose: str, task: str, is_cut: bool
) -> str:
    """Return the text of a study without rounds.

    Parameters
    ----------
    of_model : Study
        As the folder of the model has it: inputs and size of the model follow from it.
    folder : Path
        Of the model.
    start_sha256 : str
        SHA-256 of arrays, encoder and layout, which sites approve.
    name, dataset, purpose : str
        Of the new study.
    task : {"binary", "multi-class", "regression"}
        Calibration is of two classes.
    is_cut : bool
        Whether the dataset has no sites of its own, so that one process cuts its table into some.
    """
    of_dataset: dict[str, Any] = {"name": dataset}
    if of_model.dataset.features is not None:
        of_dataset["features"] = list(of_model.dataset.features)
    if is_cut:
        of_dataset["partition"] = {"by": "iid", "sites": 3}
    encode: dict[str, Any] = {}
    if of_model.encode.missing_indicator:
        encode["missing-indicator"] = True
    if of_model.encode.rows == "complete":
        encode["rows"] = "complete"
    grown = of_model.model.name == "boosted-trees"
    strategy: dict[str, Any] = {"name": "fedavg"}
    if grown:
        strategy = {"name": of_model.strategy.name, "rounds": of_model.rounds}
    tables = {
        "format": 1,
        "name": name,
        "purpose": purpose or render("study.template.validation"),
        "legal-basis": render("study.template.basis"),
        "dataset": of_dataset,
        "encode": encode,
        "model": {
            "name": of_model.model.name,
            **of_model.model.settings,
            "warm-start": str(folder),
            "start-sha256": start_sha256,
            "train": False,
        },
        "plan": {"precision": of_model.plan.precision} if not grown else {},
        "strategy": strategy,
        "compare": {"calibration": True} if task == "binary" else {},
    }
    written = {key: value for key, value in tables.items() if value}
    return f"# {render('study.template.scored')}\n{tomli_w.dumps(written)}"
