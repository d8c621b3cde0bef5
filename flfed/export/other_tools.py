"""Shared model for other tools: an ONNX file, or a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
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


def write_onnx(model: SharedModel, path: Path) -> None:
    """Write a model's network as ONNX; it computes in float64.

    Its input `inputs` [rows, inputs] has the encoder's inputs; their names are in the file's metadata. Its output
    `outputs` has probabilities [rows, classes] in the schema's order, or predictions [rows, 1] in the target's unit.

    Raises
    ------
    UsageError
        If the extra is not installed, or the model is not made of layers.

    Source: the ONNX operators MatMul, Add, Relu, Sigmoid, Softmax and DequantizeLinear, opset 17.
    """
    require_extra("onnx", "writing ONNX", "onnx")
    import onnx

    layers = layers_of(model.study.model.build("model"))
    if not layers:
        raise usage_error("export.errors.layers", model=model.study.model.name)
    graph = _Graph()
    last = INPUT
    for number, (weight, bias) in enumerate(layers):
        last = graph.add("Relu", last) if number else last
        last = graph.add("MatMul", last, graph.weight(weight, model))
        last = graph.add("Add", last, graph.constant(bias, model.arrays[bias]))
    _finish(graph, model, last)
    inputs = input_names(model.layout)
    width = len(model.schema.classes) or 1
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "flfed",
            [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.DOUBLE, ["rows", len(inputs)])],
            [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.DOUBLE, ["rows", width])],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="flfed",
    )
    onnx.helper.set_model_props(
        made, {"run": model.run, "inputs": "\n".join(inputs), "classes": "\n".join(model.schema.classes)}
    )
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


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
        if model.layout.target.transform == "log1p":
            logged = graph.add("Exp", graph.add("Add", scaled, graph.constant("center", model.encoder.center[-1:])))
            graph.add("Sub", logged, graph.constant("one", np.ones(1)), out=OUTPUT)
        else:
            graph.add("Add", scaled, graph.constant("center", model.encoder.center[-1:]), out=OUTPUT)


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
        raise usage_error("export.errors.linear", model=model.study.model.name)
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
