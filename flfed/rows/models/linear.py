"""One linear layer.

Linear, logistic or multinomial regression, by the task's loss.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from flfed.rows.training.functional import layered_outputs
from flfed.seeds import seed_of
from flfed.summaries.summary import Arrays


class Linear:
    """Linear regression: `x @ weight + bias`, for a number.

    Parameters
    ----------
    start : {"zeros", "uniform", "torch"}
        First arrays of a run. "uniform" draws from ±1/sqrt(inputs), as `torch.nn.Linear` does;
        "torch" are the very numbers of `torch.manual_seed(seed); torch.nn.Linear(inputs, outputs)`
        with the run's seed. With few rounds the start decides, as in published tables.

    Source: Cox 1958, "The regression analysis of binary sequences", for the logistic case.
    """

    tasks: tuple[str, ...] = ("regression",)
    linear = True
    penalised: tuple[str, ...] = ("weight",)
    intercept = "bias"
    layers: tuple[tuple[str, str], ...] = (("weight", "bias"),)
    outputs = layered_outputs

    def __init__(self, *, start: Literal["zeros", "uniform", "torch"] = "zeros") -> None:
        self.start = start

    def shapes(self, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array: `weight` (inputs, outputs) and `bias` (outputs)."""
        return {"weight": (inputs, outputs), "bias": (outputs,)}

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> Arrays:
        """Return the arrays that the run starts from.

        They are float64, of the shapes that `shapes` says.
        """
        shapes = self.shapes(inputs, outputs)
        if self.start == "zeros":
            return {name: np.zeros(shape) for name, shape in shapes.items()}
        if self.start == "torch":
            return _as_torch_starts(inputs, outputs, seed_of(rng))
        bound = 1 / np.sqrt(max(inputs, 1))
        return {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}


def _as_torch_starts(inputs: int, outputs: int, seed: int) -> Arrays:
    """Return the first arrays of a fresh `torch.nn.Linear`.

    They are those after `torch.manual_seed(seed)`; torch's own state is left alone.
    """
    import torch

    # A generator of its own: the global one belongs to the caller.
    rng = torch.Generator().manual_seed(seed)
    weight = torch.empty(outputs, inputs)
    bias = torch.empty(outputs)
    # torch keeps weights as [outputs, inputs] and draws them before the bias.
    bound = 1 / math.sqrt(max(inputs, 1))
    torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=rng)
    torch.nn.init.uniform_(bias, -bound, bound, generator=rng)
    return {"weight": weight.numpy().T.astype(float), "bias": bias.numpy().astype(float)}
