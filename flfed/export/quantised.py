"""Quantised weights of an exported model: whole numbers of eight bits, with a scale for each output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.errors import UsageError
from flfed.rows.features.columns import ColumnArrays
from flfed.rows.model_files import SCALE
from flfed.summaries.summary import Encoder, Layout
from flfed.updates.messages.fields import Arrays

LARGEST = 127
"""Of an int8 that has its opposite too: -128 is not used."""
DRAWN_ROWS = 10_000
ABOUT = (
    "The weights are whole numbers of eight bits with a scale for each output. `mean` and `largest` are how far a "
    "prediction moved by that (a probability, or in the target's unit) on rows that were drawn column by column from "
    "the encoder's means, deviations and shares: no site's rows. The figures are of the model before."
)


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
