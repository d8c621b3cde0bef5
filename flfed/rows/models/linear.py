"""One linear layer: linear, logistic or multinomial regression, by the task's loss."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor


class Linear:
    """Outputs `x @ weight + bias`.

    Parameters
    ----------
    start : {"zeros", "uniform"}
        First arrays of a run. "uniform" draws from ±1/sqrt(inputs), as `torch.nn.Linear` does;
        with few rounds the start decides, as in published tables.

    Source: Cox 1958, "The regression analysis of binary sequences", for the logistic case.
    """

    tasks: tuple[str, ...] = ("regression",)
    linear = True
    penalised: tuple[str, ...] = ("weight",)
    intercept = "bias"

    def __init__(self, *, start: Literal["zeros", "uniform"] = "zeros") -> None:
        self.start = start

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the arrays that the run starts from; float64 `weight [inputs, outputs]`, `bias [outputs]`."""
        shapes = {"weight": (inputs, outputs), "bias": (outputs,)}
        if self.start == "zeros":
            return {name: np.zeros(shape) for name, shape in shapes.items()}
        bound = 1 / np.sqrt(max(inputs, 1))
        return {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}

    def outputs(self, arrays: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return [..., rows, outputs] from x [..., rows, inputs]; arrays may have leading dimensions."""
        return x @ arrays["weight"] + arrays["bias"].unsqueeze(-2)
