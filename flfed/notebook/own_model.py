"""Model of a program, as a module or a class, in its own process."""

from __future__ import annotations

import copy
import hashlib
import inspect
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from flfed import registry
from flfed.errors import UsageError
from flfed.words import render

PROBABILITIES = ("Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid")
"""Layers whose outputs are neither log-odds nor logits."""
ROWS = 64
"""Rows on which a module is tried twice: outputs differ if it draws at random."""


def name_of_model(model: str | type | torch.nn.Module) -> str:
    """Return the name of a model for a study, and list the model in this process.

    Raises
    ------
    UsageError
        If a module cannot be averaged, or a class is no model.
    """
    if isinstance(model, str):
        return model
    if isinstance(model, torch.nn.Module):
        return registry.lend("model", model_of(model))
    if not isinstance(model, type):
        raise UsageError(render("notebook.module.kind"))
    if issubclass(model, torch.nn.Module):
        raise UsageError(render("notebook.module.instance", name=model.__name__))
    return registry.lend("model", model)


def model_of(module: torch.nn.Module) -> type:
    """Return the class of a model with a module's arrays as its first arrays.

    Raises
    ------
    UsageError
        If it has buffers (BatchNorm), which averaging would spoil, if it draws at random, or has no parameters.
    """
    network = copy.deepcopy(module).double().eval()
    _refuse_module(network)
    arrays = {name: value.detach().numpy().copy() for name, value in network.named_parameters()}
    if not arrays:
        raise UsageError(render("notebook.module.empty"))
    biases = [name for name, value in arrays.items() if value.ndim == 1]
    intercept = biases[-1] if biases else next(iter(arrays))
    body = {
        "__doc__": "Module of a program.",
        "module": network,
        "arrays": arrays,
        "penalised": tuple(name for name, value in arrays.items() if value.ndim > 1),
        "intercept": intercept,
    }
    # A run is stored under this name, which no other module may have when the run is loaded later.
    return type(f"Module{structure_sha256(network)[:12]}", (ModuleModel,), body)


def _refuse_module(network: torch.nn.Module) -> None:
    """Refuse a module that sites cannot train."""
    if buffers := [name for name, _ in network.named_buffers()]:
        raise UsageError(render("notebook.module.buffers", names=", ".join(buffers)))
    parts = [type(part).__name__ for part in network.modules()]
    if drawing := [part for part in parts if "Dropout" in part]:
        raise UsageError(render("notebook.module.dropout", layers=", ".join(drawing)))
    if parts[-1] in PROBABILITIES:
        raise UsageError(render("notebook.module.probabilities", layer=parts[-1]))
    if frozen := [name for name, value in network.named_parameters() if not value.requires_grad]:
        raise UsageError(render("notebook.module.frozen", names=", ".join(frozen)))


def structure_sha256(module: torch.nn.Module) -> str:
    """Return the hash of a module's structure: layers, shapes and the code of its own classes."""
    parts = [repr(module), *(f"{name} {tuple(value.shape)}" for name, value in module.named_parameters())]
    kinds = dict.fromkeys(type(part) for part in module.modules())
    parts += [_code_of(kind) for kind in kinds if not kind.__module__.startswith("torch.")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _code_of(kind: type) -> str:
    """Return the source of a class, or its bytecode where it was typed in."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        codes = [value.__code__ for value in vars(kind).values() if inspect.isfunction(value)]
        return "\n".join(f"{code.co_name} {code.co_code.hex()} {code.co_names} {_plain(code)}" for code in codes)


def _plain(code: CodeType) -> list[object]:
    """Return the constants of a function whose text has no address."""
    return [value for value in code.co_consts if isinstance(value, (str, int, float, bool, type(None)))]


class ModuleModel:
    """Model with the outputs of a module; see `model_of`."""

    tasks: tuple[str, ...] = ("binary", "multi-class", "regression")
    linear = False
    rows_apart = False  # in a module, the output of a row may depend on other rows
    module: torch.nn.Module
    arrays: dict[str, np.ndarray]
    penalised: tuple[str, ...]
    intercept: str

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the module's own arrays, float64.

        Raises
        ------
        UsageError
            If its numbers of inputs or outputs differ.
        """
        rows = torch.linspace(-1, 1, ROWS * inputs, dtype=torch.float64).reshape(ROWS, inputs)
        try:
            predictions = self.module(rows[:2])
            whole = self.module(rows)
            again = self.module(rows)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(render("notebook.module.inputs", inputs=inputs, reason=words)) from None
        if not isinstance(predictions, Tensor):
            kind = type(predictions).__name__
            raise UsageError(render("notebook.module.tensor", kind=kind, outputs=outputs))
        if not torch.equal(whole, again):
            raise UsageError(render("notebook.module.random"))
        shape = tuple(predictions.shape)
        if shape not in ((2, outputs), (2,)) or (shape == (2,) and outputs != 1):
            raise UsageError(render("notebook.module.shape", shape=list(shape), expected=[2, outputs]))
        return {name: value.copy() for name, value in self.arrays.items()}

    def outputs(self, arrays: dict[str, Tensor], x: Tensor) -> Any:
        """Return outputs [rows, outputs] of rows x [rows, inputs]."""
        predictions = functional_call(self.module, arrays, (x,))
        return predictions.unsqueeze(-1) if predictions.dim() == 1 else predictions
