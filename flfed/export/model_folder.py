"""Folder of an exported model: arrays, encoder, schema and study, their hashes, and an optional signature.

The coordinator signs `model.json`, which has the hash of each file. Hashes show damage; anyone who can write to the
folder can write new hashes. A signature cannot be forged, only removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from safetensors.numpy import save

import flfed
from flfed.export.xgboost_file import xgboost_file
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import decode_target, input_names
from flfed.rows.model_files import (
    ENCODER,
    FORMAT,
    INDEX,
    MODEL,
    MONITOR,
    SCHEMA,
    STUDY,
    TREES,
    parts_apart,
    read_model_files,
    seal,
)
from flfed.rows.study_model import study_layout
from flfed.rows.training.fit import score
from flfed.rows.training.functional import probabilities
from flfed.rows.training.requests import ScoreRequest
from flfed.signatures import HASH, Signer, coordinator_signed, fingerprint_of, model_facts
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout, arrays_sha256
from flfed.words import flfed_error, render, usage_error

PARTS = {"coordinator", "signing-key", "signature"}


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedModel:
    """Shared model of a run, with all that a prediction needs.

    Attributes
    ----------
    run : str
        Id of the run that made it.
    study : Study
    schema : Schema
        Of the dataset, as it was when the model was trained.
    arrays : dict of name to array
    encoder : Encoder
    figures : dict
        Figures and intervals of the comparison, as in the run's report: "global" and "sites".
    signature : Signature, optional
        The coordinator's valid signature, if the folder has one.
    monitor : bytes, optional
        Groups of training rows as `export.monitor` writes them, if the run's record has them.
    """

    run: str
    study: Study
    schema: Schema
    arrays: Arrays
    encoder: Encoder
    figures: Mapping[str, Any]
    signature: Signature | None = None
    monitor: bytes | None = None

    @property
    def layout(self) -> Layout:
        """Position of each column among the inputs."""
        return study_layout(self.study, self.schema)

    def predictions(self, x: np.ndarray) -> np.ndarray:
        """Return the model's predictions for encoded inputs.

        Binary: the probability of the last class [rows]. Several classes: one each [rows, classes]. Regression: the
        target in its unit [rows].

        Parameters
        ----------
        x : float64 array [rows, inputs]
        """
        outputs = score(ScoreRequest(model=self.study.model.build("model"), arrays=dict(self.arrays), x=x))
        if self.schema.task == "regression":
            return decode_target(outputs[:, 0], self.layout, self.encoder)
        return probabilities(self.schema.task, outputs)

    def write(self, folder: Path, signer: Signer | None = None) -> None:
        """Write the files of the folder.

        `model.json`, which holds the others' hashes, is last.

        Parameters
        ----------
        folder : Path
        signer : Signer, optional
            Signer of `model.json`.

        Raises
        ------
        FlfedError
            If they cannot be written.
        """
        meaning = self.schema.model_dump(mode="json", by_alias=True, exclude_none=True)
        # All files are made in memory first, since the index has their hashes.
        files = {
            MODEL: _safetensors(self.arrays),
            ENCODER: _safetensors(self.encoder.arrays()),
            SCHEMA: tomli_w.dumps(meaning).encode(),
            STUDY: self.study.text.encode(),
        }
        if self.monitor is not None:
            files[MONITOR] = self.monitor
        if self.layout.plain:
            files[TREES] = xgboost_file(self.arrays, self.layout, self.encoder)
        index = self._index()
        index["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        # The signature is made first, so that the seal covers it, too.
        if signer is not None:
            index["signed"] = signer.signature(seal(index))
        index["sha256"] = seal(index)
        files[INDEX] = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
        write_files(folder, files)

    def _index(self) -> dict[str, Any]:
        """Return the content of `model.json` without the hashes of files."""
        layout = self.layout
        more: dict[str, Any] = {}
        if layout.plain:  # the inputs of the XGBoost file
            more["columns"] = []
            for column in layout.features:
                kind = {"unit": column.unit} if column.kind == "number" else {"values": list(column.cells[:-1])}
                more["columns"].append({"name": column.name, **kind})
        return {
            "format": FORMAT,
            "run": self.run,
            "study": self.study.name,
            "flfed": flfed.__version__,
            "dataset": self.schema.name,
            "task": self.schema.task,
            "target": self.schema.target,
            "classes": list(self.schema.classes),
            "unit": self.schema.columns[self.schema.target].unit,
            "model": {"name": self.study.model.name, **self.study.model.settings},
            "features": [column.name for column in layout.features],
            "inputs": list(input_names(layout)),
            "encode": {"missing-indicator": layout.missing_indicator, "rows": self.study.encode.rows},
            "hashes": self._hashes(),
            "figures": dict(self.figures),
            "not-shown": render("export.notes.limits"),
            "not-exported": render("export.notes.adjustments"),
            **more,
        }

    def _hashes(self) -> dict[str, str]:
        return {
            "arrays-sha256": arrays_sha256(self.arrays),
            "encoder-sha256": self.encoder.sha256(),
            "schema-sha256": self.schema.sha256(),
            "study-sha256": self.study.sha256(),
        }

    @classmethod
    def read(cls, folder: Path) -> SharedModel:
        """Read a model folder and check its hashes.

        Raises
        ------
        UsageError
            If it is no model folder or one of another version, a file is missing or changed, or the signature is
            invalid.
        """
        files = read_model_files(folder)
        facts = files.facts
        made = cls(
            run=facts.run,
            study=files.study,
            schema=files.schema,
            arrays=files.arrays,
            encoder=files.encoder,
            figures=facts.figures,
            signature=_signature(folder, files.index),
            monitor=files.monitor,
        )
        # Each file may be whole and still belong to another model.
        if made._hashes() != facts.hashes:
            raise parts_apart(folder)
        return made


def _signature(folder: Path, index: Mapping[str, Any]) -> Signature | None:
    """Return the valid signature of `model.json` over its other content, or None."""
    rest = dict(index)
    entry = rest.pop("signed", None)
    if entry is None:
        return None
    if isinstance(entry, Mapping) and entry.keys() == PARTS and all(isinstance(part, str) for part in entry.values()):
        title = entry["coordinator"]
        key = entry["signing-key"]
        # A title of control characters could pretend to be another text on a screen.
        whole = 1 <= len(title) <= 100 and title.isprintable() and HASH.fullmatch(key)
        if whole and coordinator_signed(model_facts(title, seal(rest)), entry["signature"], key):
            return Signature(title, key)
    raise usage_error("export.errors.signature", file=folder / INDEX)


def _safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if absent.

    Raises
    ------
    FlfedError
        If they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise flfed_error("export.errors.disk", folder=folder, reason=error.strerror) from None


@dataclass(frozen=True)
class Signature:
    """Valid signature of a model: title of the signer, and its public key (hex)."""

    title: str
    key: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the signing key, for comparison by telephone."""
        return fingerprint_of(self.key)
