"""Shared model for other tools: an ONNX file, or a scikit-learn pipeline."""

from __future__ import annotations

import logging
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
from flfed.rows.model_files import SCALE
from flfed.rows.proposals.tables import columns_by_name
from flfed.rows.training.functional import layers_of
from flfed.words import usage_error

OPSET = 17
INPUT = "inputs"
OUTPUT = "outputs"
COMPARED_ROWS = 256
CLOSE = 1e-6
"""Largest difference of a score that a file may have; of numbers above 1, relative to them."""


def write_onnx(model: SharedModel, path: Path) -> None:
    """Write a model's network as ONNX, once its scores are those of the model.

    Its input `inputs` [rows, inputs] has the encoder's inputs; their names are in the file's metadata. Its output
    `outputs` has probabilities [rows, classes] in the schema's order, or predictions [rows, 1] in the target's unit.
    It computes in float64, or in float32 where onnxruntime lacks an operator of a module in float64.

    Raises
    ------
    UsageError
        If the extra is not installed, the model has trees, torch cannot export it, or a score differs by more than
        `CLOSE`. Nothing is written then.

    Source: the ONNX operators MatMul, Add, Relu, Sigmoid, Softmax and DequantizeLinear, opset 17; `torch.onnx` for
    models without named layers.
    """
    require_extra("onnxruntime", "writing ONNX", "onnx")
    import onnx

    if model.layout.plain:
        raise usage_error("export.errors.layers", model=model.study.model.title)
    network = model.study.model.build("model")
    layers = layers_of(network)
    if layers:
        made = _layered(model, layers)
        gap = _largest_gap(model, made, np.float64)
    else:
        made, gap = _exported(model, network)
    if not gap <= CLOSE:
        raise usage_error("export.errors.scores", gap=gap, most=CLOSE)
    names = {"inputs": "\n".join(input_names(model.layout)), "classes": "\n".join(model.schema.classes)}
    onnx.helper.set_model_props(made, {"run": model.run, **names})
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _layered(model: SharedModel, layers: Sequence[tuple[str, str]]) -> Any:
    """Return the graph of a model that is nothing but its layers, with int8 weights where it has them."""
    import onnx

    graph = _Graph()
    last = INPUT
    for number, (weight, bias) in enumerate(layers):
        last = graph.add("Relu", last) if number else last
        last = graph.add("MatMul", last, graph.weight(weight, model))
        last = graph.add("Add", last, graph.constant(bias, model.arrays[bias]))
    _finish(graph, model, last)
    inputs = len(input_names(model.layout))
    width = len(model.schema.classes) or 1
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "flfed",
            [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.DOUBLE, ["rows", inputs])],
            [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.DOUBLE, ["rows", width])],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="flfed",
    )


def _exported(model: SharedModel, network: Any) -> tuple[Any, float]:
    """Return a graph by torch's exporter, and the largest gap of its scores."""
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as LacksOperator

    for dtype in (np.float64, np.float32):
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
        self._scale = float(model.encoder.scale[-1])
        self._center = float(model.encoder.center[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self._network.outputs({name: getattr(self, place) for name, place in self._places.items()}, x)
        if self._task == "multi-class":
            return torch.softmax(outputs, -1)
        if self._task == "binary":
            positive = torch.sigmoid(outputs)
            return torch.cat([1 - positive, positive], -1)
        number = outputs * self._scale + self._center
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


def _finish(graph: _Graph, model: SharedModel, last: str) -> None:
    """Add the nodes that turn a model's outputs into probabilities or predictions."""
    if model.schema.task == "multi-class":
        graph.add("Softmax", last, out=OUTPUT, axis=-1)
    elif model.schema.task == "binary":
        positive = graph.add("Sigmoid", last)
        negative = graph.add("Sub", graph.constant("one", np.ones(1)), positive)
        graph.add("Concat", negative, positive, out=OUTPUT, axis=-1)
    else:
        scaled = graph.add("Mul", last, graph.constant("scale", model.encoder.scale[-1:]))
        center = graph.constant("center", model.encoder.center[-1:])
        if model.layout.target.transform == "log1p":
            logged = graph.add("Exp", graph.add("Add", scaled, center))
            graph.add("Sub", logged, graph.constant("one", np.ones(1)), out=OUTPUT)
        else:
            graph.add("Add", scaled, center, out=OUTPUT)


class _Graph:
    """Nodes and constants of a graph, in order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add an operator and return the name of its output."""
        import onnx

        out = out or f"{operator.lower()}-{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def constant(self, name: str, value: np.ndarray, dtype: type = np.float64) -> str:
        """Add an array and return its name."""
        import onnx

        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def weight(self, name: str, model: SharedModel) -> str:
        """Add a weight, as int8 with scales where it is quantised, and return the name of its value."""
        import onnx

        stored = {} if model.quantised is None else model.quantised.stored
        if name + SCALE not in stored:
            return self.constant(name, model.arrays[name])
        whole = self.constant(name, stored[name], np.int8)
        scale = self.constant(name + SCALE, stored[name + SCALE], np.float32)
        return self.add("Cast", self.add("DequantizeLinear", whole, scale, axis=1), to=onnx.TensorProto.DOUBLE)


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
