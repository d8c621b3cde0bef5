"""A multi-layer perceptron with ReLU between its layers."""

from __future__ import annotations

import numpy as np

from flfed.rows.training.functional import layered_outputs
from flfed.summaries.summary import Arrays
from flfed.words import usage_error


class Mlp:
    """Small neural network: fully connected layers with ReLU between them.

    Parameters
    ----------
    hidden : tuple of int
        Width of each hidden layer. Example: `hidden = [16, 8]`.

    Source: Rumelhart, Hinton and Williams 1986; first arrays as `torch.nn.Linear` draws them
    (He et al. 2015 with a = sqrt(5)), from the study's seed.
    """

    tasks: tuple[str, ...] = ("binary", "multi-class", "regression")
    linear = False
    outputs = layered_outputs

    def __init__(self, *, hidden: tuple[int, ...] = (32,)) -> None:
        if not hidden or any(width < 1 for width in hidden):
            raise usage_error("study.strategies.hidden", hidden=list(hidden))
        self.hidden = hidden
        self.penalised = tuple(f"weight-{layer}" for layer in range(len(hidden) + 1))
        self.layers = tuple((f"weight-{layer}", f"bias-{layer}") for layer in range(len(hidden) + 1))
        self.intercept = f"bias-{len(hidden)}"

    def shapes(self, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of each layer's arrays: `weight-i` (in, out) and `bias-i` (out)."""
        widths = (inputs, *self.hidden, outputs)
        shapes: dict[str, tuple[int, ...]] = {}
        for (weight, bias), before, after in zip(self.layers, widths[:-1], widths[1:]):
            shapes[weight] = (before, after)
            shapes[bias] = (after,)
        return shapes

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> Arrays:
        """Return the first arrays of each layer, float64, of the shapes that `shapes` says."""
        shapes = self.shapes(inputs, outputs)
        arrays = {}
        for names in self.layers:
            # The bound of `torch.nn.Linear`: 1 over the root of the number of inputs.
            bound = 1 / np.sqrt(max(shapes[names[0]][0], 1))
            for name in names:
                arrays[name] = rng.uniform(-bound, bound, shapes[name])
        return arrays
