"""Per-row gradients of any model.

They are for outputs that are not those of known layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flfed.rows.training.losses import row_losses
from flfed.rows.training.optimisers import Tensors

HELD_BYTES = 64 * 2**20
"""Of single rows' gradients held at a time."""


def clipped_by_row(
    model: Any,
    task: str,
    w: Tensors,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    *,
    clip: float,
    held_bytes: int = HELD_BYTES,
) -> tuple[Tensor, Tensors]:
    """Return the losses and the sum of clipped gradients.

    Losses are [rows], 0 where a row's gradient is not finite; the sum is float64.

    Parameters
    ----------
    model : a listed model
    task : str
    w : dict of name to tensor
    x : tensor [rows, inputs]
        May have no rows: then the sum is 0.
    y, weight : tensor [rows]
        A row's gradient is clipped after it was multiplied by its weight.
    clip : float, > 0
    held_bytes : int
        Of single rows' gradients at a time; at least one row's.

    Notes
    -----
    By `torch.func`: outputs are computed for one row without any other in reach, so a model whose
    outputs mix rows cannot break the bound either. One that no such transform can follow
    (numbers taken out of tensors, a choice by their value) ends with torch's error. Several times
    as slow as the closed form of layers. Norms are in float64, in which no float32 number's square
    is lost.

    Guarantee: adding or removing a row moves the sum by at most `clip` in L2, but for rounding of float64, in which
    rows are clipped and added whatever the model's precision.
    """

    def loss(w: Tensors, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return (weight * row_losses(task, model.outputs(w, x[None]), y[None])).squeeze(0)

    by_row = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(None, 0, 0, 0))
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in w.items()}
    # Only so many rows at a time as their gradients fit into memory.
    size = max(1, held_bytes // (8 * sum(value.numel() for value in w.values())))
    losses = [x.new_empty(0)]
    for start in range(0, len(x), size):  # none, where no row was sampled
        part = slice(start, start + size)
        g, found = by_row(w, x[part], y[part], weight[part])
        norms = [torch.linalg.vector_norm(value.flatten(1), dim=1, dtype=torch.float64) for value in g.values()]
        norm = torch.stack(norms).square().sum(0).sqrt()
        # A gradient that is not finite has no norm to be clipped by: its row adds nothing.
        taken = norm.isfinite()
        scale = (clip / norm.clamp_min(clip))[taken]
        for name, value in g.items():
            total[name] += torch.tensordot(scale, value[taken].to(torch.float64), dims=1)
        losses.append(torch.where(taken, found, 0.0))
    return torch.cat(losses), total
