"""Folder of an exported model: arrays, encoder, schema and study, their hashes, and an optional signature.

The coordinator signs `model.json`, which has the hash of each file. Hashes show damage; anyone who can write to the
folder can write new hashes. A signature cannot be forged, only removed. Weights may be quantised to integers of eight
bits, with a scale for each output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import tomli_w
from safetensors.numpy import save

import flfed
from flfed.export.xgboost_file import xgboost_files
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import ColumnArrays, decode_target, encode, input_names
from flfed.rows.model_files import (
    ENCODER,
    FORMAT,
    FORMAT_INT8,
    INDEX,
    MODEL,
    MONITOR,
    SCALE,
    SCHEMA,
    STUDY,
    parts_apart,
    read_model_files,
    seal,
)
from flfed.rows.study_model import study_layout
from flfed.rows.training.fit import score
from flfed.rows.training.functional import probabilities
from flfed.rows.training.requests import ScoreRequest
from flfed.seeds import generator
from flfed.signatures import HASH, Signer, coordinator_signed, fingerprint_of, model_facts
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout, arrays_sha256, schema_encoder
from flfed.words import flfed_error, render, usage_error

PARTS = {"coordinator", "signing-key", "signature"}
LARGEST = 127
"""Largest absolute value of a quantised weight: -128 is not used."""
DRAWN_ROWS = 10_000


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
    quantised : Quantised, optional
        The weights as int8, if `arrays` are made of them.
    rounded_of : str
        SHA-256 of the arrays before rounding to float32; "" if they are as trained.
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
    quantised: Quantised | None = None
    rounded_of: str = ""
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

    def to_float32(self) -> Self:
        """Return the model with its weights in float32.

        Raises
        ------
        UsageError
            If a weight is beyond float32, or the model is trees: a rounded cut point sends rows to another leaf.
        """
        if all(value.dtype == np.float32 for value in self.arrays.values()):
            return self
        if self.layout.plain:
            raise usage_error("export.errors.trees", model=self.study.model.title)
        with np.errstate(over="ignore"):
            rounded = {name: value.astype(np.float32) for name, value in self.arrays.items()}
        if not all(np.isfinite(value).all() for value in rounded.values()):
            raise usage_error("export.errors.infinite", dtype="float32")
        return replace(self, arrays=rounded, rounded_of=arrays_sha256(self.arrays))

    def to_int8(self) -> Self:
        """Return the model with its weights as int8, and the change of its predictions.

        The change is measured on drawn rows (`drawn_rows`): an exporter has no rows of a site.

        Raises
        ------
        UsageError
            If a weight is not finite, or the model is trees, which have none.
        """
        if self.layout.plain:
            raise usage_error("export.errors.weights", model=self.study.model.title)
        stored = quantise(self.arrays)
        layout = self.layout
        by = self.encoder
        # Under scaler "none" the encoder has no deviations; those of the schema are close enough.
        if self.study.encode.scaler == "none":
            by = replace(by, scale=schema_encoder(layout).scale)
        rows = drawn_rows(layout, by, DRAWN_ROWS, generator(self.study.seed, site="", purpose="quantised"))
        x = encode(rows, layout, self.encoder).x
        after = replace(self, arrays=dequantise(stored))
        moved = np.abs(after.predictions(x) - self.predictions(x))
        means = {"mean": float(moved.mean()), "largest": float(moved.max())}
        return replace(after, quantised=Quantised(stored=stored, of=arrays_sha256(self.arrays), **means))

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
        arrays = self.arrays if self.quantised is None else self.quantised.stored
        files = {
            MODEL: _safetensors(arrays),
            ENCODER: _safetensors(self.encoder.arrays()),
            SCHEMA: tomli_w.dumps(meaning).encode(),
            STUDY: self.study.text.encode(),
        }
        if self.monitor is not None:
            files[MONITOR] = self.monitor
        if self.layout.plain:
            files |= xgboost_files(self.arrays, self.layout, self.encoder)
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
        form = FORMAT
        more: dict[str, Any] = {}
        if self.quantised is not None:
            form = FORMAT_INT8
            more["quantised"] = self.quantised.as_object()
        if self.rounded_of:
            more["rounded"] = {"dtype": "float32", "of-arrays-sha256": self.rounded_of}
        if layout.plain:  # the inputs of the XGBoost file
            more["columns"] = []
            for column in layout.features:
                kind = {"unit": column.unit} if column.kind == "number" else {"values": list(column.cells[:-1])}
                more["columns"].append({"name": column.name, **kind})
        return {
            "format": form,
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
        arrays = files.arrays
        quantised = None
        if facts.quantised is not None:
            quantised = Quantised(stored=arrays, **facts.quantised.model_dump())
            arrays = dequantise(arrays)
        made = cls(
            run=facts.run,
            study=files.study,
            schema=files.schema,
            arrays=arrays,
            encoder=files.encoder,
            figures=facts.figures,
            signature=_signature(folder, files.index),
            quantised=quantised,
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """Quantised weights of a model, and the change of its predictions.

    Attributes
    ----------
    stored : dict of name to array
        Each matrix as int8, with its scales (float32 [outputs]) under its name with ".scale"; other arrays unchanged.
    of : str
        SHA-256 of the arrays that were quantised.
    mean, largest : float
        Absolute change of a prediction over `DRAWN_ROWS` rows: of a probability, or in the target's unit.
    """

    stored: Arrays
    of: str
    mean: float
    largest: float

    def as_object(self) -> dict[str, Any]:
        """Return the entry of `model.json`."""
        moved = {"rows": DRAWN_ROWS, "mean": self.mean, "largest": self.largest}
        return {"dtype": "int8", "of-arrays-sha256": self.of, **moved, "about": render("export.notes.entry")}

    def in_words(self, unit: str = "") -> str:
        """Return the change of predictions, and the rows on which it was measured."""
        of = f" {unit}" if unit else ""
        return render("export.notes.int8", rows=DRAWN_ROWS, mean=self.mean, largest=self.largest, unit=of)


def quantise(arrays: Arrays) -> Arrays:
    """Return arrays with each matrix as int8 and a scale for each output.

    A weight is rounded to the nearest multiple of its output's scale, which is the largest absolute weight / 127.

    Raises
    ------
    UsageError
        If a weight is not finite.

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", symmetric, per output, weights only.

    Examples
    --------
    >>> found = quantise({"w": np.array([[1.0, 0.0], [-0.5, 0.0]]), "b": np.array([0.25, 0.0])})
    >>> found["w"].tolist(), found["b"].tolist()
    ([[127, 0], [-64, 0]], [0.25, 0.0])
    """
    stored = {}
    for name, value in arrays.items():
        if value.ndim < 2 or value.dtype.kind != "f":
            stored[name] = value
            continue
        if not np.isfinite(value).all():
            raise usage_error("export.errors.infinite", dtype="int8")
        most = np.abs(value).max(axis=tuple(range(value.ndim - 1)), initial=0.0)
        scale = (most / LARGEST).astype(np.float32)
        # An output whose weights are all 0 has scale 0.
        whole = np.rint(np.divide(value, scale, out=np.zeros_like(value, dtype=float), where=scale > 0))
        stored[name] = np.clip(whole, -LARGEST, LARGEST).astype(np.int8)
        stored[name + SCALE] = scale
    return stored


def dequantise(stored: Mapping[str, np.ndarray]) -> Arrays:
    """Return arrays from those of `quantise`; quantised ones become float32."""
    arrays = {}
    for name, value in stored.items():
        if not name.endswith(SCALE):
            scale = stored.get(name + SCALE)
            arrays[name] = value if scale is None else value.astype(np.float32) * scale
    return arrays


def drawn_rows(layout: Layout, encoder: Encoder, rows: int, rng: np.random.Generator) -> ColumnArrays:
    """Return drawn rows, column by column; no site has them.

    A number is normal about the encoder's centre and within the schema's range. Values and missing cells have the
    encoder's shares.

    Parameters
    ----------
    layout : Layout
    encoder : Encoder
        Its scales are the standard deviations of numbers, after their transform.
    rows : int
    rng : Generator
    """
    codes = {}
    values = {}
    for number, (column, place) in enumerate(zip(layout.columns, layout.slices().values(), strict=True)):
        *shares, gaps = encoder.frequency[place]
        empty = np.zeros(rows, bool) if column is layout.target else rng.random(rows) < gaps
        chosen = np.zeros(rows, int)
        if column.kind == "number":
            drawn = rng.normal(encoder.center[number], encoder.scale[number], rows)
            drawn = np.clip(drawn, column.edges[0], column.edges[-1])
            drawn = np.expm1(drawn) if column.transform == "log1p" else drawn
            values[column.name] = np.where(empty, np.nan, drawn)
        else:
            chosen = rng.choice(len(shares), rows, p=np.array(shares) / sum(shares))
        codes[column.name] = np.where(empty, len(shares), chosen)
    return ColumnArrays(rows, codes, values)
