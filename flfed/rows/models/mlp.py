"""A multi-layer perceptron with ReLU between its layers."""

from __future__ import annotations

import numpy as np

from flfed.errors import UsageError
from flfed.rows.training.functional import layered_outputs


class Mlp:
    """Fully connected layers with ReLU between them.

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
            raise UsageError(f"[model] mlp: hidden={list(hidden)} must be widths of at least 1")
        self.hidden = hidden
        self.penalised = tuple(f"weight-{layer}" for layer in range(len(hidden) + 1))
        self.layers = tuple((f"weight-{layer}", f"bias-{layer}") for layer in range(len(hidden) + 1))
        self.intercept = f"bias-{len(hidden)}"

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the first arrays of each layer.

        They are `weight-i [in, out]` and `bias-i [out]`, float64.
        """
        widths = (inputs, *self.hidden, outputs)
        arrays = {}
        for layer, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            # The bound of `torch.nn.Linear`: 1 over the root of the number of inputs.
            bound = 1 / np.sqrt(max(before, 1))
            arrays[f"weight-{layer}"] = rng.uniform(-bound, bound, (before, after))
            arrays[f"bias-{layer}"] = rng.uniform(-bound, bound, (after,))
        return arrays
