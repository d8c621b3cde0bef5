"""Model of a program, as a module, a function that makes one, or a class, in its own process.

Parameters are trained. Buffers of floating point (the running means and variances of BatchNorm) are arrays of the model
too: training moves them as torch does, and the strategy averages them as it averages weights.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import tomllib
from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.lazy import LazyModuleMixin

from flfed import registry
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import input_names
from flfed.rows.study_model import study_layout
from flfed.rows.training.functional import outputs_of
from flfed.seeds import seed_of
from flfed.study.study import Study
from flfed.study.template import MODELS
from flfed.updates.checkpoints import checkpoint
from flfed.words import usage_error

PROBABILITIES = ("Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid")
"""Layers whose outputs are neither log-odds nor logits."""
ROWS = 64
"""Rows on which a module is tried twice: outputs differ if it draws at random."""

Builder = Callable[[int, int], torch.nn.Module]
"""Function of the numbers of inputs and outputs that returns a module."""


def name_of_model(model: str | type | torch.nn.Module | Builder, sizes: Callable[[], tuple[int, int]]) -> str:
    """Return the name of a model for a study, and list the model in this process.

    Parameters
    ----------
    model : str, class, torch.nn.Module or function of (inputs, outputs)
    sizes : callable
        Returns the numbers of inputs and outputs; called for a module or a function only.

    Raises
    ------
    UsageError
        If a module cannot be trained, a function returns none, or a class is no model.
    """
    if isinstance(model, str):
        return model
    if isinstance(model, type):
        if issubclass(model, torch.nn.Module):
            raise usage_error("notebook.module.instance", name=model.__name__)
        return registry.lend("model", model)
    if not callable(model):
        raise usage_error("notebook.module.kind")
    return registry.lend("model", model_of(model, *sizes()))


def model_sizes(study: Study, schema: Schema) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a study's model."""
    return len(input_names(study_layout(study, schema))), outputs_of(schema.task, len(schema.classes))


def recorded_sizes(run: str, text: str) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a finished run's model; `text` is its study.

    Raises
    ------
    FlfedError
        If its model is not on this machine.
    """
    schema = Schema.model_validate(checkpoint.final(run).facts["schema"])
    tables = tomllib.loads(text)
    # The run's own model is not listed yet.
    tables["model"] = {"name": MODELS[schema.task]}
    return model_sizes(Study.parse(tomli_w.dumps(tables)), schema)


def model_of(model: torch.nn.Module | Builder, inputs: int, outputs: int) -> type:
    """Return the class of a model with a module's arrays as its first arrays.

    A function is called again for the first arrays of each run, under the run's seed.

    Raises
    ------
    UsageError
        If a function takes other arguments or returns no module, the module has no parameters or some that are not
        trained, takes no inputs of this number, or ends with probabilities.
    """
    build = None if isinstance(model, torch.nn.Module) else staticmethod(model)
    network = _network(model, inputs, outputs, seed=0)
    _refuse_module(network)
    state = _arrays_of(network)
    trained = {name: value for name, value in state.items() if name in dict(network.named_parameters())}
    biases = [name for name, value in trained.items() if value.ndim == 1]
    intercept = biases[-1] if biases else next(iter(trained))
    structure = structure_sha256(network)
    body = {
        "__doc__": "Module of a program.",
        "module": network,
        "training": copy.deepcopy(network).train(),
        "build": build,
        "structure": structure,
        "arrays": state,
        "buffers": tuple(name for name in state if name not in trained),
        "penalised": tuple(name for name, value in trained.items() if value.ndim > 1),
        "intercept": intercept,
    }
    # A run is stored under this name, which no other module may have when the run is loaded later.
    return type(f"Module{structure[:12]}", (ModuleModel,), body)


def _network(model: torch.nn.Module | Builder, inputs: int, outputs: int, *, seed: int) -> torch.nn.Module:
    """Return a module in float64 for evaluation, its lazy layers with their shapes; torch's own seed is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not isinstance(model, torch.nn.Module):
            try:
                inspect.signature(model).bind(inputs, outputs)
            except TypeError:
                raise usage_error("notebook.module.arguments") from None
            model = model(inputs, outputs)
            if not isinstance(model, torch.nn.Module):
                raise usage_error("notebook.module.returned", kind=type(model).__name__)
        network = copy.deepcopy(model).double().eval()
        if any(isinstance(part, LazyModuleMixin) for part in network.modules()):
            _outputs(network, torch.zeros(2, inputs, dtype=torch.float64))
    return network


def _outputs(network: torch.nn.Module, rows: Tensor) -> Any:
    """Return what a module makes of rows [rows, inputs], or refuse a module that takes none."""
    try:
        with torch.no_grad():
            return network(rows)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise usage_error("notebook.module.inputs", inputs=rows.shape[1], reason=words) from None


def _arrays_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return copies of a module's parameters, then of its buffers of floating point."""
    arrays = {name: value.detach().numpy().copy() for name, value in network.named_parameters()}
    for name, value in network.named_buffers():
        if value.is_floating_point():
            arrays[name] = value.numpy().copy()
    return arrays


def _refuse_module(network: torch.nn.Module) -> None:
    """Refuse a module that sites cannot train."""
    if not list(network.parameters()):
        raise usage_error("notebook.module.empty")
    parts = list(network.modules())
    if any(getattr(part, "num_batches_tracked", None) is not None and part.momentum is None for part in parts):
        raise usage_error("notebook.module.momentum")
    last = type(parts[-1]).__name__
    if last in PROBABILITIES:
        raise usage_error("notebook.module.probabilities", layer=last)
    if frozen := [name for name, value in network.named_parameters() if not value.requires_grad]:
        raise usage_error("notebook.module.frozen", names=", ".join(frozen))


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
    training: torch.nn.Module
    build: Builder | None
    structure: str
    arrays: dict[str, np.ndarray]
    buffers: tuple[str, ...]
    penalised: tuple[str, ...]
    intercept: str

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the module's own arrays, float64; those of a function's new module under the run's seed.

        Raises
        ------
        UsageError
            If its numbers of inputs or outputs differ, or the function returned another module before.
        """
        rows = torch.linspace(-1, 1, ROWS * inputs, dtype=torch.float64).reshape(ROWS, inputs)
        predictions = _outputs(self.module, rows[:2])
        if not isinstance(predictions, Tensor):
            raise usage_error("notebook.module.tensor", kind=type(predictions).__name__, outputs=outputs)
        if not torch.equal(_outputs(self.module, rows), _outputs(self.module, rows)):
            raise usage_error("notebook.module.random")
        shape = tuple(predictions.shape)
        if shape not in ((2, outputs), (2,)) or (shape == (2,) and outputs != 1):
            raise usage_error("notebook.module.shape", shape=list(shape), expected=[2, outputs])
        if self.build is None:
            return {name: value.copy() for name, value in self.arrays.items()}
        network = _network(self.build, inputs, outputs, seed=seed_of(rng))
        if structure_sha256(network) != self.structure:
            raise usage_error("notebook.module.changed")
        return _arrays_of(network)

    def outputs(self, arrays: dict[str, Tensor], x: Tensor) -> Any:
        """Return outputs [rows, outputs] of rows x [rows, inputs], in evaluation: nothing is dropped or moved."""
        return _call(self.module, self._state(arrays), x)

    def in_training(self, rng: np.random.Generator) -> ModuleInTraining:
        """Return the model for the steps of one fit, whose draws follow from `rng`; `rng` itself is left alone."""
        return ModuleInTraining(self, int(copy.deepcopy(rng).integers(2**62)))

    def _state(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return arrays with copies of the buffers, which a step may write to."""
        state = dict(arrays)
        for name, value in self.module.named_buffers():
            buffer = arrays.get(name, value).detach().clone()
            # A server's step or noise can take an averaged variance below 0.
            state[name] = buffer.clamp(min=0) if name.endswith("running_var") else buffer
        return state


class ModuleInTraining:
    """Outputs of a module in training: layers drop units, and BatchNorm uses the batch and moves its buffers.

    Attributes
    ----------
    moved : dict of name to tensor
        The buffers after the last batch.
    """

    def __init__(self, model: ModuleModel, seed: int) -> None:
        self.moved: dict[str, Tensor] = {}
        self._model = model
        self._seed = seed

    def outputs(self, arrays: dict[str, Tensor], x: Tensor) -> Any:
        """Return outputs [rows, outputs] of a batch x [rows, inputs]."""
        model = self._model
        state = model._state(arrays)
        # One row has no variance: with buffers it is computed as in evaluation.
        network = model.module if len(x) == 1 and model.buffers else model.training
        self._seed += 1
        # As torch.random.fork_rng, which looks for other devices in every step and takes as long as the step.
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)
        try:
            outputs = _call(network, state, x)
        finally:
            torch.default_generator.set_state(before)
        self.moved = {name: state[name] for name in model.buffers}
        return outputs


def _call(network: torch.nn.Module, state: dict[str, Tensor], x: Tensor) -> Any:
    predictions = functional_call(network, state, (x,))
    return predictions.unsqueeze(-1) if predictions.dim() == 1 else predictions
