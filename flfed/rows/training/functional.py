"""Outputs of layered models, and losses of each task.

They are functions of arrays alone, as those of `torch.nn.functional` are. Those that compute import torch: who only
describes a study need not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `x @ weight + bias`, [..., rows, outputs].

    Parameters
    ----------
    x : tensor [..., rows, inputs]
    weight : tensor [..., inputs, outputs]
    bias : tensor [..., outputs]

    Notes
    -----
    One call where nothing is stacked: a step of a small model costs its calls, not its products.
    """
    if x.dim() == weight.dim() == 2:
        return bias.addmm(x, weight)
    return x @ weight + bias.unsqueeze(-2)


def layered_outputs(model: Any, arrays: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the outputs of a model's layers.

    [..., rows, outputs] from x [..., rows, inputs]; arrays may have leading dimensions.

    A model that is nothing but its `layers`, (weight, intercepts) by name in order with ReLU between, says `outputs =
    layered_outputs` in its class. Then it can be computed for many sites at once, with gradients written out.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from flfed import layered_outputs
    >>> model = SimpleNamespace(layers=[("weight", "bias")])
    >>> arrays = {"weight": torch.tensor([[2.0], [1.0]]), "bias": torch.tensor([0.5])}
    >>> layered_outputs(model, arrays, torch.tensor([[1.0, 3.0]]))
    tensor([[5.5000]])
    """
    for number, (weight, bias) in enumerate(model.layers):
        if number:
            x = x.relu()
        x = affine(x, arrays[weight], arrays[bias])
    return x


def layers_of(model: Any) -> tuple[tuple[str, str], ...]:
    """Return a model's layers.

    There are none where its class has other outputs, which may be something else.
    """
    return tuple(model.layers) if getattr(type(model), "outputs", None) is layered_outputs else ()


def outputs_of(task: str, classes: int) -> int:
    """Return the number of outputs for a task."""
    return classes if task == "multi-class" else 1


def target_dtype(task: str, dtype: torch.dtype) -> torch.dtype:
    """Return the type of a target: whole numbers for classes, else that of the inputs."""
    import torch

    return torch.int64 if task == "multi-class" else dtype


def row_losses(task: str, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the loss of each row, [..., rows].

    Parameters
    ----------
    task : {"binary", "multi-class", "regression"}
    outputs : tensor [..., rows, outputs]
        Log-odds, logits, or predictions.
    y : tensor [..., rows]
        Class codes, or the encoded target.

    Notes
    -----
    Negative log-likelihood in nats; half the squared error for a regression, whose minimiser with
    penalty `l2` is scikit-learn's ridge with `alpha = l2 * rows`.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss

    if task == "regression":
        return 0.5 * (outputs.squeeze(-1) - y).square()
    if task == "binary":
        return binary_cross_entropy_with_logits(outputs.squeeze(-1), y.to(outputs.dtype), reduction="none")
    likely = outputs.log_softmax(-1).flatten(0, -2)
    return nll_loss(likely, y.flatten().long(), reduction="none").reshape(y.shape)


def batch_loss(task: str, outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the loss of one batch, a scalar.

    It is `sum(weight * loss) / rows`; without weights each row counts 1.

    Parameters as in `row_losses`, and `weight`, tensor [rows].
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    if weight is not None:
        return (weight * row_losses(task, outputs, y)).sum() / len(y)
    if task == "binary":  # the mean within the one call: same bits, fewer calls to differentiate
        return binary_cross_entropy_with_logits(outputs.squeeze(-1), y.to(outputs.dtype))
    return row_losses(task, outputs, y).mean()


def expected(task: str, outputs: Tensor, out: Tensor) -> Tensor:
    """Return the expectation of the target from outputs.

    It is [..., rows, outputs], and is written to `out` where it is not `outputs` itself.

    The derivative of `row_losses` by the outputs is this minus `as_expected(y)`, for every task.
    """
    import torch

    if task == "regression":
        return outputs
    if task == "binary":
        return torch.sigmoid(outputs, out=out)
    return torch.softmax(outputs, -1, out=out)


def as_expected(task: str, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """Return targets as certain expectations.

    Targets [..., rows] become [..., rows, outputs]; a class code becomes its indicator.
    """
    if task != "multi-class":
        return y.unsqueeze(-1)
    return y.new_zeros((*y.shape, outputs), dtype=dtype).scatter_(-1, y.unsqueeze(-1), 1)


def loss_of_rows(task: str, outputs: np.ndarray, y: np.ndarray) -> float:
    """Return the mean loss over rows.

    Class weights and penalties are not in it.
    """
    import torch

    losses = row_losses(task, torch.from_numpy(np.ascontiguousarray(outputs)), torch.from_numpy(y))
    return float(losses.mean())


def probabilities(task: str, outputs: np.ndarray) -> np.ndarray:
    """Convert outputs to probabilities or predictions.

    P(last class) [rows], P(each class) [rows, classes], or predictions [rows].
    """
    if task == "regression":
        return outputs[..., 0]
    import torch

    logits = torch.from_numpy(np.ascontiguousarray(outputs, dtype=float))
    if task == "binary":
        return torch.sigmoid(logits[..., 0]).numpy()
    return torch.softmax(logits, -1).numpy()
