"""One layer's matrix product with its intercepts: the inner call of every model here."""

from __future__ import annotations

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
