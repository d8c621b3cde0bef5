"""A model that somebody brings along, checked, and as a folder of flfed's own export."""

from __future__ import annotations

from pathlib import Path

from flfed.export.brought.coefficients import read_coefficients
from flfed.export.brought.trees import read_trees
from flfed.export.model_folder import SharedModel
from flfed.rows.data.schema import Schema
from flfed.words import usage_error

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
        _check_folder(path, schema)
        return path
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise usage_error("models.brought.kind", path=path)
    reader(path, schema).write(folder)
    # The folder is read as any other, so that no reader's gap gets further.
    SharedModel.read(folder)
    return folder


def _check_folder(folder: Path, schema: Schema) -> None:
    """Refuse a folder that is whole but of another schema, or whose inputs no other table has."""
    model = SharedModel.read(folder)
    if model.schema.sha256() != schema.sha256():
        raise usage_error("export.errors.schema", dataset=schema.name)
    if model.study.encode.scaler == "per-site":
        raise usage_error("export.errors.scaler")
