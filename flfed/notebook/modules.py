"""A PyTorch module as a model of flfed, in this process."""

from __future__ import annotations

import copy
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from flfed import registry
from flfed.errors import UsageError

_NUMBERS = count(1)


def name_of_model(model: str | type | torch.nn.Module) -> str:
    """Return the name by which a study names a model, which is listed in this process.

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
        raise UsageError("model must be a name, a model's class, or a torch.nn.Module")
    if issubclass(model, torch.nn.Module):
        raise UsageError(f"model: give an object of {model.__name__}, such as {model.__name__}(), so that it can begin")
    return registry.lend("model", model)


def model_of(module: torch.nn.Module) -> type:
    """Return the class of a model whose first arrays are a module's.

    Raises
    ------
    UsageError
        If it has buffers, as BatchNorm has, which averages would spoil; if it draws at random; or has no parameters.
    """
    found = copy.deepcopy(module).double().eval()
    buffers = [name for name, _ in found.named_buffers()]
    if buffers:
        raise UsageError(
            f"model: the module has buffers ({', '.join(buffers)}), as BatchNorm has: use LayerNorm, or none"
        )
    drawing = [type(part).__name__ for part in found.modules() if "Dropout" in type(part).__name__]
    if drawing:
        raise UsageError(
            f"model: the module draws at random ({', '.join(drawing)}): leave it out; l2 in the plan regularises"
        )
    arrays = {name: value.detach().numpy().copy() for name, value in found.named_parameters()}
    if not arrays:
        raise UsageError("model: the module has no parameters to train")
    biases = [name for name, value in arrays.items() if value.ndim == 1]
    body = {
        "__doc__": "A module that a program gave.",
        "module": found,
        "arrays": arrays,
        "penalised": tuple(name for name, value in arrays.items() if value.ndim > 1),
        "intercept": biases[-1] if biases else next(iter(arrays)),
    }
    return type(f"Module{next(_NUMBERS)}", (ModuleModel,), body)


class ModuleModel:
    """Model whose outputs are a module's; see `model_of`."""

    tasks: tuple[str, ...] = ("binary", "multi-class", "regression")
    linear = False
    module: torch.nn.Module
    arrays: dict[str, np.ndarray]
    penalised: tuple[str, ...]
    intercept: str

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the module's own arrays, float64.

        Raises
        ------
        UsageError
            If it does not take as many inputs, or give as many outputs.
        """
        try:
            given = tuple(self.module(torch.zeros(2, inputs, dtype=torch.float64)).shape)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"model: the module does not take [rows, {inputs}] ({words})") from None
        if given not in ((2, outputs), (2,)) or (given == (2,) and outputs != 1):
            raise UsageError(f"model: the module gives {list(given)} for 2 rows, not {[2, outputs]}")
        return {name: value.copy() for name, value in self.arrays.items()}

    def outputs(self, arrays: dict[str, Tensor], x: Tensor) -> Any:
        """Return outputs [rows, outputs] of rows x [rows, inputs]."""
        found = functional_call(self.module, arrays, (x,))
        return found.unsqueeze(-1) if found.dim() == 1 else found
