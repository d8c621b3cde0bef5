"""Shared model as an ONNX file, from the encoder's inputs to probabilities or predictions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.rows.features.encode import input_names
from flfed.rows.training.functional import layers_of

OPSET = 17
INPUT, OUTPUT = "inputs", "outputs"


def write_onnx(model: SharedModel, path: Path) -> None:
    """Write a model's network as ONNX, in float64.

    Its input `inputs` [rows, inputs] are the encoder's; their names are in the file's metadata. Its output `outputs`
    are probabilities [rows, classes] in the schema's order, or predictions [rows, 1] in the target's unit.

    Raises
    ------
    UsageError
        If the extra is not installed, or the model is not made of layers.

    Source: the ONNX operators MatMul, Add, Relu, Sigmoid and Softmax, opset 17.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UsageError("writing ONNX needs an extra: pip install 'flfed[onnx]'")
    import onnx

    layers = layers_of(model.study.model.build("model"))
    if not layers:
        raise UsageError(f"model {model.study.model.name!r} is not made of layers: it cannot be written as ONNX")
    graph = _Graph()
    last = INPUT
    for number, (weight, bias) in enumerate(layers):
        last = graph.add("Relu", last) if number else last
        last = graph.add("MatMul", last, graph.constant(weight, model.arrays[weight]))
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
    """Add what makes probabilities or predictions of a model's outputs."""
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
        """Add an operator and return the name of what it gives."""
        import onnx

        out = out or f"{operator.lower()}-{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an array and return its name."""
        import onnx

        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float64), name))
        return name
