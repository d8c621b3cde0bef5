"""Shared model for other tools: an ONNX file, or a scikit-learn pipeline."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline

from flfed.errors import require_extra
from flfed.export.model_folder import SharedModel
from flfed.export.predict import inputs_of
from flfed.rows.data.parsing.fields import Field
from flfed.rows.features.encode import input_names
from flfed.rows.proposals.tables import columns_by_name
from flfed.words import usage_error

INPUT = "inputs"
OUTPUT = "outputs"
COMPARED_ROWS = 256
CLOSE = 1e-6
"""Largest difference of a score that a file may have; of numbers above 1, relative to them."""
CLOSE_INT8 = 0.05
"""The same where weights and inputs of each layer are rounded to eight bits."""


def write_onnx(model: SharedModel, path: Path, *, int8: bool = False) -> None:
    """Write a model's network as ONNX, once its scores are those of the model.

    Its input `inputs` [rows, inputs] has the encoder's inputs; their names are in the file's metadata. Its output
    `outputs` has probabilities [rows, classes] in the schema's order, or predictions [rows, 1] in the target's unit.
    It computes in float64, or in float32 where onnxruntime lacks an operator of a module in float64. With `int8`,
    weights are whole numbers of eight bits, and the rest is float32.

    Raises
    ------
    UsageError
        If the extra is not installed, the model has trees, torch cannot export it, or a score differs by more than
        `CLOSE`, or `CLOSE_INT8`. Nothing is written then.
    """
    require_extra("onnxruntime", "writing ONNX", "onnx")
    import onnx

    if model.layout.plain:
        raise usage_error("export.errors.layers", model=model.study.model.title)
    made, gap = _exported(model, (np.float32,) if int8 else (np.float64, np.float32))
    if int8:
        made = _with_int8(made)
        gap = _largest_gap(model, made, np.float32)
    most = CLOSE_INT8 if int8 else CLOSE
    if not gap <= most:
        raise usage_error("export.errors.scores", gap=gap, most=most)
    names = {"inputs": "\n".join(input_names(model.layout)), "classes": "\n".join(model.schema.classes)}
    onnx.helper.set_model_props(made, {"run": model.run, **names})
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _with_int8(made: Any) -> Any:
    """Return a graph with each matrix of weights as int8, and a scale for each of its outputs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet(logging.getLogger()):
        whole, small = Path(folder, "whole.onnx"), Path(folder, "small.onnx")
        whole.write_bytes(made.SerializeToString())
        quantize_dynamic(whole, small, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(small)


def _exported(model: SharedModel, dtypes: Sequence[type]) -> tuple[Any, float]:
    """Return a graph by torch's exporter in the first type that onnxruntime has, and the largest gap of its scores."""
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as LacksOperator

    network = model.study.model.build("model")
    for dtype in dtypes:
        scores = _Scores(model, network, getattr(torch, np.dtype(dtype).name)).eval()
        example = torch.zeros(2, len(input_names(model.layout)), dtype=scores.dtype)
        try:
            with warnings.catch_warnings(), _quiet(logging.getLogger("torch.onnx")):
                warnings.simplefilter("ignore")
                program: Any = torch.onnx.export(
                    scores, (example,), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT],
                    dynamic_shapes=({0: torch.export.Dim("rows")},),
                )  # fmt: skip
            return program.model_proto, _largest_gap(model, program.model_proto, dtype)
        except torch.onnx.errors.OnnxExporterError as error:
            raise usage_error("export.errors.exporter", reason=str(error).strip().splitlines()[0]) from None
        except LacksOperator as error:
            missing = str(error)
    raise usage_error("export.errors.exporter", reason=missing)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Show only errors of a logger, while the block runs."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Scores(torch.nn.Module):
    """Probabilities or predictions of a model, from the encoder's inputs."""

    def __init__(self, model: SharedModel, network: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self._network = network
        self._places = {name: f"array{place}" for place, name in enumerate(model.arrays)}
        for name, place in self._places.items():
            self.register_buffer(place, torch.tensor(model.arrays[name], dtype=dtype))
        self._task = model.schema.task
        self._logarithmic = model.layout.target.transform == "log1p"
        # Buffers, since the exporter writes numbers of Python as float32.
        self.register_buffer("scale", torch.tensor(model.encoder.scale[-1], dtype=dtype))
        self.register_buffer("center", torch.tensor(model.encoder.center[-1], dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self._network.outputs({name: getattr(self, place) for name, place in self._places.items()}, x)
        if self._task == "multi-class":
            return torch.softmax(outputs, -1)
        if self._task == "binary":
            positive = torch.sigmoid(outputs)
            return torch.cat([1 - positive, positive], -1)
        number = outputs * self.scale + self.center
        return torch.exp(number) - 1 if self._logarithmic else number


def _largest_gap(model: SharedModel, made: Any, dtype: type) -> float:
    """Return the largest difference between a graph's scores and the model's, on drawn inputs.

    Of numbers above 1 it is relative to them.
    """
    import onnxruntime

    x = np.random.default_rng(0).normal(size=(COMPARED_ROWS, len(input_names(model.layout))))
    expected = model.predictions(x)
    if model.schema.task == "binary":
        expected = np.column_stack([1 - expected, expected])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    scores = session.run(None, {INPUT: x.astype(dtype)})[0]
    expected = expected.reshape(scores.shape)
    return float((np.abs(scores - expected) / np.maximum(1, np.abs(expected))).max())


class Encoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # - scikit-learn has no types
    """Transformer from a table in the schema's columns to a model's inputs.

    Parameters
    ----------
    shared : SharedModel
    fields : mapping of schema column to Field or None, optional
        Readers of a table's columns; default: the schema's names and units.
    """

    def __init__(self, shared: SharedModel, fields: Mapping[str, Field | None] | None = None) -> None:
        self.shared = shared
        self.fields = fields

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Return itself: the run has fitted the encoder."""
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return the inputs, float64 [rows, inputs]."""
        mapping = None if self.fields is None else columns_by_name(self.fields, list(X.columns))
        return inputs_of(self.shared, X, mapping)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the inputs."""
        return np.array(input_names(self.shared.layout), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: the run has fitted the encoder."""
        return True


def to_sklearn(
    model: SharedModel, fields: Mapping[str, Field | None] | None = None, labels: np.ndarray | None = None
) -> Pipeline:
    """Return a linear model as a fitted pipeline of encoder and scikit-learn estimator.

    Parameters
    ----------
    model : SharedModel
    fields : mapping of schema column to Field or None, optional
        Readers of a table's columns; default: the schema's names and units.
    labels : array [classes], optional
        Labels that `predict` returns for the classes; default: the schema's.

    Raises
    ------
    UsageError
        If the model is not linear, or its target is logarithmic.
    """
    made = model.study.model.build("model")
    if not made.linear:
        raise usage_error("export.errors.linear", model=model.study.model.title)
    weight, bias = (model.arrays[name].astype(float) for name in made.layers[0])
    if model.schema.task == "regression":
        if model.layout.target.transform == "log1p":
            raise usage_error("export.errors.logarithmic")
        scale = model.encoder.scale[-1]
        center = model.encoder.center[-1]
        estimator: Any = LinearRegression()
        estimator.coef_ = weight[:, 0] * scale
        estimator.intercept_ = float(bias[0] * scale + center)
    else:
        estimator = LogisticRegression()
        estimator.coef_ = weight.T
        estimator.intercept_ = bias
        estimator.classes_ = np.array(model.schema.classes, dtype=object) if labels is None else labels
    estimator.n_features_in_ = len(weight)
    return Pipeline([("encode", Encoder(model, fields)), ("predict", estimator)])
