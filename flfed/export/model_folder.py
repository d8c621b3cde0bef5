"""Folder of an exported model: arrays, encoder, schema and study, their hashes, and maybe a signature.

The coordinator signs what `model.json` says, and with it each file's hash. Hashes show damage; who can write the
folder can write new hashes. A signature cannot be made anew, only taken away. Weights may be quantised: whole numbers
of eight bits, with a scale for each output.
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
from flfed.errors import FlfedError, UsageError
from flfed.export.xgboost_file import xgboost_files
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import ColumnArrays, decode_target, encode, input_names
from flfed.rows.model_files import (
    ENCODER,
    FORMAT,
    FORMAT_INT8,
    INDEX,
    MODEL,
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
from flfed.signatures import (
    HASH,
    Signer,
    coordinator_signed,
    fingerprint_of,
    model_facts,
)
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, Layout, arrays_sha256, schema_encoder
from flfed.updates.arrays import Arrays

PARTS = {"coordinator", "signing-key", "signature"}
LARGEST = 127
"""Of an int8 that has its opposite too: -128 is not used."""
DRAWN_ROWS = 10_000
ABOUT = (
    "The weights are whole numbers of eight bits with a scale for each output. `mean` and `largest` are how far a "
    "prediction moved by that (a probability, or in the target's unit) on rows that were drawn column by column from "
    "the encoder's means, deviations and shares: no site's rows. The figures are of the model before."
)
NOT_SHOWN = (
    "The figures were measured on the holdout rows of the sites named here, with the shared model as it is. They say "
    "nothing about other institutions, other years, or rows that were chosen in another way, and a prediction is no "
    "diagnosis and no decision: check the model on rows of your own first."
)
NOT_EXPORTED = (
    "What adjusts the shared model to one site (its own intercept, or fine-tuning) is fitted at that site and "
    "is not in this folder: the predictions are those of the shared model."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedModel:
    """Shared model of a run.

    It has all that predicting needs.

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
        The comparison's figures and intervals, as in the run's report: "global" and "sites".
    signature : Signature, optional
        The coordinator's, where it was read from a folder that has one that holds.
    quantised : Quantised, optional
        The weights as int8, where `arrays` are made of them.
    rounded_of : str
        SHA-256 of the arrays that `arrays` were rounded from to float32; "" where they are as they were trained.
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

    @property
    def layout(self) -> Layout:
        """Position of each column among the inputs."""
        return study_layout(self.study, self.schema)

    def predictions(self, x: np.ndarray) -> np.ndarray:
        """Return the model's predictions for encoded inputs.

        Of a binary target the probability of the last class [rows], of more classes one each [rows, classes], of a
        regression the target in its unit [rows].

        Parameters
        ----------
        x : float64 array [rows, inputs]
        """
        outputs = score(ScoreRequest(model=self.study.model.build("model"), arrays=dict(self.arrays), x=x))
        if self.schema.task == "regression":
            return decode_target(outputs[:, 0], self.layout, self.encoder)
        return probabilities(self.schema.task, outputs)

    def to_float32(self) -> Self:
        """Return the model with its weights in float32, itself where they are so already.

        Raises
        ------
        UsageError
            If a weight is beyond float32, or the model is trees: a rounded cut point sends rows to another leaf.
        """
        if all(value.dtype == np.float32 for value in self.arrays.values()):
            return self
        if self.layout.plain:
            raise UsageError(
                f"model {self.study.model.name!r} has cut points that are not rounded to float32: leave --dtype out"
            )
        with np.errstate(over="ignore"):
            rounded = {name: value.astype(np.float32) for name, value in self.arrays.items()}
        if not all(np.isfinite(value).all() for value in rounded.values()):
            raise UsageError("the model has weights that are not finite in float32")
        return replace(self, arrays=rounded, rounded_of=arrays_sha256(self.arrays))

    def to_int8(self) -> Self:
        """Return the model with its weights as int8, and how far its predictions moved.

        That is measured on rows that no site has (`drawn_rows`): an exporter has none of a site's.

        Raises
        ------
        UsageError
            If a weight is not finite, or the model is trees, which have none.
        """
        if self.layout.plain:
            raise UsageError(
                f"model {self.study.model.name!r} has no weights that could be written as int8: leave --dtype out"
            )
        stored = quantise(self.arrays)
        layout = self.layout
        by = self.encoder
        # Under scaler "none" the encoder knows no deviations; the schema's are near enough to draw rows by.
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
            Who signs what `model.json` says.

        Raises
        ------
        FlfedError
            If the disk does not take them.
        """
        meaning = self.schema.model_dump(mode="json", by_alias=True, exclude_none=True)
        # All files are made in memory first, so that their hashes can go into the index.
        arrays = self.arrays if self.quantised is None else self.quantised.stored
        files = {
            MODEL: _safetensors(arrays),
            ENCODER: _safetensors(self.encoder.arrays()),
            SCHEMA: tomli_w.dumps(meaning).encode(),
            STUDY: self.study.text.encode(),
        }
        if self.layout.plain:
            files |= xgboost_files(self.arrays, self.layout, self.encoder)
        index = self._index()
        index["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        # The signature is made first, so that the seal covers it as well.
        if signer is not None:
            index["signed"] = signer.signature(seal(index))
        index["sha256"] = seal(index)
        files[INDEX] = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
        write_files(folder, files)

    def _index(self) -> dict[str, Any]:
        """Return the content of `model.json`.

        It is without the files' hashes.
        """
        layout = self.layout
        form = FORMAT
        more: dict[str, Any] = {}
        if self.quantised is not None:
            form = FORMAT_INT8
            more["quantised"] = self.quantised.as_object()
        if self.rounded_of:
            more["rounded"] = {"dtype": "float32", "of-arrays-sha256": self.rounded_of}
        if layout.plain:  # what an input of the XGBoost file is
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
            "not-shown": NOT_SHOWN,
            "not-exported": NOT_EXPORTED,
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
            If it is no model folder, is of another version, or a file is missing or is not the
            one that was written, or its signature does not hold.
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
        )
        # Each file may be whole and still belong to another model.
        if made._hashes() != facts.hashes:
            raise parts_apart(folder)
        return made


def _signature(folder: Path, index: Mapping[str, Any]) -> Signature | None:
    """Return the valid signature of `model.json` over all else that it says, None where it has none."""
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
    raise UsageError(
        f"{folder / INDEX}: its signature does not hold: somebody changed the model after it was signed; not used"
    )


def _safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder.

    The folder is made where it is absent.

    Raises
    ------
    FlfedError
        If the disk does not take them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise FlfedError(
            f"{folder}: cannot be written ({error.strerror}): choose another folder with --output"
        ) from None


@dataclass(frozen=True)
class Signature:
    """Valid signature of a model.

    It has the title that signed, and its public key (hex).
    """

    title: str
    key: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the signing key.

        Two people compare it by telephone.
        """
        return fingerprint_of(self.key)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """Quantised weights of a model, and how far its predictions moved.

    Attributes
    ----------
    stored : dict of name to array
        Each matrix as int8, with its scales (float32 [outputs]) under the name that ends with ".scale"; other arrays
        as they are.
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
        """Return what `model.json` says of the quantised weights."""
        moved = {"rows": DRAWN_ROWS, "mean": self.mean, "largest": self.largest}
        return {"dtype": "int8", "of-arrays-sha256": self.of, **moved, "about": ABOUT}

    def in_words(self, unit: str = "") -> str:
        """Return how far predictions moved, and on which rows."""
        of = f" {unit}" if unit else ""
        return (
            f"The weights are int8 (whole numbers of eight bits), a quarter of the bytes. On {DRAWN_ROWS:,} rows drawn "
            f"from the encoder's means and shares, no site's rows, a prediction moved by {self.mean:.2g}{of} on "
            f"average and by {self.largest:.2g}{of} at most. The figures are of the model before."
        )


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
    stored: Arrays = {}
    for name, value in arrays.items():
        if value.ndim < 2 or value.dtype.kind != "f":
            stored[name] = value
            continue
        if not np.isfinite(value).all():
            raise UsageError("the model has weights that are not finite: it cannot be written as int8")
        most = np.abs(value).max(axis=tuple(range(value.ndim - 1)), initial=0.0)
        scale = (most / LARGEST).astype(np.float32)
        # An output without any weight has scale 0, and all its weights are 0.
        whole = np.rint(np.divide(value, scale, out=np.zeros_like(value, dtype=float), where=scale > 0))
        stored[name] = np.clip(whole, -LARGEST, LARGEST).astype(np.int8)
        stored[name + SCALE] = scale
    return stored


def dequantise(stored: Mapping[str, np.ndarray]) -> Arrays:
    """Return the arrays of `quantise`, float32 where they were quantised."""
    arrays = {}
    for name, value in stored.items():
        if not name.endswith(SCALE):
            scale = stored.get(name + SCALE)
            arrays[name] = value if scale is None else value.astype(np.float32) * scale
    return arrays


def drawn_rows(layout: Layout, encoder: Encoder, rows: int, rng: np.random.Generator) -> ColumnArrays:
    """Return rows that no site has, drawn column by column.

    A number is normal about the encoder's centre and within the schema's range; a value, and a missing cell, comes by
    the encoder's share.

    Parameters
    ----------
    layout : Layout
    encoder : Encoder
        Its scales are the deviations of numbers, after their transform.
    rows : int
    rng : Generator
    """
    codes: dict[str, np.ndarray] = {}
    values: dict[str, np.ndarray] = {}
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
