"""Files of an exported model's folder, read without believing any of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from flfed.errors import UsageError
from flfed.files import read_up_to
from flfed.parsers import LONGEST, decode_text, parse_json, parse_tensors
from flfed.rows.data.schema import Schema, read_schema
from flfed.rows.study_model import MOST_PARAMETERS, model_shapes, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout
from flfed.trees.cut_points import codes_in
from flfed.trees.forest import NoTrees, forest_of
from flfed.words import render, usage_error

FORMAT = 1
MODEL = "model.safetensors"
ENCODER = "encoder.safetensors"
SCHEMA = "schema.toml"
STUDY = "study.toml"
INDEX = "model.json"
MONITOR = "monitor.json"
"""Groups of training rows, for `flfed monitor`; a model may lack them."""
TREES = "xgboost.json"
"""Trees in XGBoost's format."""
READ = (MODEL, ENCODER, SCHEMA, STUDY)
LARGEST_INDEX = 20_000_000
"""Bytes of `model.json`, which has figures of every site."""
LARGEST_FILE = 8 * MOST_PARAMETERS + LONGEST
"""Bytes of a file that is read: the largest model's numbers, and a header."""
LARGEST_TREES = 4 * LARGEST_FILE
"""Bytes of XGBoost's file, which spells out the same numbers; only its hash is looked at."""


class Facts(BaseModel):
    """Facts of `model.json` that reading needs."""

    model_config = ConfigDict(strict=True)

    format: int
    run: str
    files: dict[str, str]
    hashes: dict[str, str]
    figures: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFiles:
    """Content of a model folder, whose files are those that were exported.

    Attributes
    ----------
    index : dict
        All that `model.json` says but its own hash.
    facts : Facts
        What reading needs of it.
    study : Study
    schema : Schema
    arrays : dict of name to array
    encoder : Encoder
    monitor : bytes or None
        Content of `monitor.json`, if the folder has it.
    """

    index: Mapping[str, Any]
    facts: Facts
    study: Study
    schema: Schema
    arrays: Arrays
    encoder: Encoder
    monitor: bytes | None


def read_model_files(folder: Path) -> ModelFiles:
    """Read a model folder, and check hashes, shapes and types.

    Raises
    ------
    UsageError
        If it is no model folder, is of another version, or a file is missing or is not the one that was written, or
        they are not of one model.
    """
    index = _read_index(folder)
    facts = _read_facts(folder, index)
    content = _verified_files(folder, facts.files)
    study = Study.parse(decode_text(content[STUDY], f"{folder / STUDY}: cannot be read"))
    schema = read_schema(folder / SCHEMA)
    stored = parse_tensors(content[MODEL], f"{folder / MODEL}:")
    encoder = parse_tensors(content[ENCODER], f"{folder / ENCODER}:")
    if study.dataset.name != schema.name or not _stored_fits(stored, study, schema):
        raise parts_apart(folder)
    layout = study_layout(study, schema)
    if not _encoder_fits(encoder, layout) or (layout.plain and not _are_trees(stored)):
        raise parts_apart(folder)
    return ModelFiles(
        index=index,
        facts=facts,
        study=study,
        schema=schema,
        arrays=stored,
        encoder=Encoder(**encoder),
        monitor=content.get(MONITOR),
    )


def parts_apart(folder: Path) -> UsageError:
    """Return the error of files that are whole, each of another model."""
    return usage_error("models.files.parts", folder=folder)


def seal(index: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content of `model.json`."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _read_index(folder: Path) -> dict[str, Any]:
    """Return the verified content of `model.json`."""
    path = folder / INDEX
    if not os.path.isfile(path):
        raise usage_error("models.files.folder", folder=folder, index=INDEX)
    index = parse_json(read_content(path, LARGEST_INDEX), render("models.files.json", path=path), longest=LARGEST_INDEX)
    # An older flfed must not guess at a newer format.
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise usage_error("models.files.format", path=path, format=FORMAT)
    # The hash is of all but itself.
    if index.pop("sha256", "") != seal(index):
        raise usage_error("models.files.index", path=path)
    return index


def _read_facts(folder: Path, index: Mapping[str, Any]) -> Facts:
    """Return the facts of `model.json`, each there and of its type."""
    try:
        return Facts.model_validate(index)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise usage_error("models.files.fact", path=folder / INDEX, place=place[:80]) from None


def _verified_files(folder: Path, files: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of the files that are read, all of which have the hashes that `model.json` names.

    Raises
    ------
    UsageError
        If one is missing, not the one that was exported, or larger than any model's.
    """
    # Only files of ours are read: a name from the index could lead out of the folder.
    if not set(READ) <= set(files) <= {*READ, TREES, MONITOR}:
        raise usage_error("models.files.names", path=folder / INDEX)
    bytes_by_name = {}
    for name, sha256 in files.items():
        path = folder / name
        if not os.path.isfile(path):
            raise usage_error("models.files.missing", folder=folder, name=name)
        largest = LARGEST_TREES if name == TREES else LARGEST_FILE
        content = read_content(path, largest)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise usage_error("models.files.differs", path=path)
        if name != TREES:
            bytes_by_name[name] = content
    return bytes_by_name


def read_content(path: Path, most: int) -> bytes:
    """Return what a file holds, of a size that a model's may have.

    Raises
    ------
    UsageError
        If it cannot be opened, or has more than `most` bytes.
    """
    try:
        content = read_up_to(path, most)
    except OSError as error:
        raise usage_error("models.files.opened", path=path, error=error.strerror) from None
    if content is None:
        raise usage_error("models.files.large", path=path, most=most)
    return content


def _stored_fits(stored: Arrays, study: Study, schema: Schema) -> bool:
    """Return whether arrays are those of the study's model on the schema's inputs, by shapes and types."""
    wanted = {name: (shape, "f") for name, (shape, _) in model_shapes(study, schema).items()}
    return {name: (value.shape, value.dtype.kind) for name, value in stored.items()} == wanted


def _encoder_fits(arrays: Arrays, layout: Layout) -> bool:
    """Return whether arrays are those of an encoder of the layout, by shapes, types and signs."""
    shapes = {name: value.shape for name, value in arrays.items()}
    if shapes != layout.encoder_shapes() or any(value.dtype != np.float64 for value in arrays.values()):
        return False
    finite = all(np.isfinite(value).all() for value in arrays.values())
    return bool(finite and (arrays["scale"] > 0).all() and (arrays["spread"] > 0).all())


def _are_trees(arrays: Arrays) -> bool:
    """Return whether arrays of a forest's shapes are trees, down which every row finds a leaf."""
    try:
        forest_of(arrays)
        codes_in(np.zeros((0, len(arrays["cuts"]))), arrays)
    except NoTrees:
        return False
    return True
