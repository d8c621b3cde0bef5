"""Models of affine layers with ReLU between.

These are the ones whose sites an engine can stack.
"""

from __future__ import annotations

from typing import Any, Protocol

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
        return torch.addmm(bias, x, weight)
    return x @ weight + bias.unsqueeze(-2)


class _Layers(Protocol):
    layers: tuple[tuple[str, str], ...]


def layered_outputs(model: _Layers, arrays: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the outputs of a model's layers.

    [..., rows, outputs] from x [..., rows, inputs]; arrays may have leading dimensions.

    A model that is nothing but its `layers`, (weight, intercepts) by name in order with ReLU
    between, says `outputs = layered_outputs` in its class: then it can be computed for many sites
    at once, with gradients written out.
    """
    for number, (weight, bias) in enumerate(model.layers):
        x = affine(x if number == 0 else x.relu(), arrays[weight], arrays[bias])
    return x


def layers_of(model: Any) -> tuple[tuple[str, str], ...]:
    """Return a model's layers.

    There are none where its class has other outputs, which may be something else.
    """
    return tuple(model.layers) if getattr(type(model), "outputs", None) is layered_outputs else ()
