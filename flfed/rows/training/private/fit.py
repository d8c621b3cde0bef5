"""Protected steps by per-row gradients (DP-SGD).

Each row, or each person, can be told only within a guarantee: it is sampled, clipped alone, and noise is added.

Models of known layers are done as a stack of one site, in closed form (`stacked.private_fit`); the rows
of others are differentiated one by one (`clipped_by_row`).

Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from flfed.errors import UsageError
from flfed.rows.training.fit import fitted, tensors_of, with_terms
from flfed.rows.training.functional import layers_of, row_losses, target_dtype
from flfed.rows.training.optimisers import State, Tensors, clip_by_norm, soft_threshold, step_of
from flfed.rows.training.private.rounding import PublicGrid
from flfed.rows.training.private.sampling import drawn_steps, known_units
from flfed.rows.training.requests import FitRequest, Fitted

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


def fit_by_row(request: FitRequest) -> Fitted:
    """Train any model under record-level differential privacy.

    Returns what `private_fit` returns; each row's gradient is computed by itself.
    """
    plan = request.plan
    rows = request.rows
    private = request.private
    chance = request.chance
    if private is None or chance is None or not plan.steps:
        raise UsageError("protected training needs plan.steps, and where its draws come from")
    dtype = getattr(torch, plan.precision)
    w = tensors_of(request.arrays, dtype)
    anchor = dict(w)
    correction = tensors_of(request.correction, dtype)
    state = State()
    take = step_of(plan)
    losses = 0.0
    # Where the number of rows is told under noise alone, steps of noise are taken without any, too.
    steps = plan.steps if len(rows) or request.units else 0
    x = torch.tensor(rows.x, dtype=dtype)
    weight = torch.tensor(rows.weight, dtype=dtype)
    y = torch.tensor(rows.y, dtype=target_dtype(request.task, dtype))
    # Noise is drawn in one order of the arrays, whether a site trains alone or in a stack.
    names = in_order(request, w)
    known = known_units(rows, private, request.units)
    sizes = [w[name].numel() for name in names]
    grid = PublicGrid.of(private, known.most, sum(sizes))
    divisor = private.sampling * known.units
    for step, (chosen, noise) in enumerate(drawn_steps(rows, private, chance, steps, sum(sizes), request.units), 1):
        # Some steps sample no row at all: they are of noise alone, and must not be left out.
        part = torch.from_numpy(chosen)
        batch = (tensor.index_select(0, part) for tensor in (x, y, weight))
        found, g = clipped_by_row(request.model, request.task, w, *batch, clip=grid.clip)
        parts = dict(zip(names, torch.split(torch.from_numpy(noise), sizes), strict=True))
        # The sum is put on the grid before the noise is added, so that no last bit tells of a row.
        g = {n: ((grid.rounded(g[n]) + parts[n].view_as(g[n])) / divisor).to(dtype) for n in names}
        # From here on only the noisy sum is used, which costs no further privacy.
        g = with_terms(request, g, w, anchor, correction)
        g = clip_by_norm(g, plan.clip) if plan.clip else g
        w, state = take(w, g, state, request.lr, step)
        if plan.l1:
            for name in request.model.penalised:
                w[name] = soft_threshold(w[name], request.lr * plan.l1)
        losses += float(found.sum()) / max(1, len(chosen))
    return fitted(request, w, anchor, steps, losses)


def in_order(request: FitRequest, w: Tensors) -> list[str]:
    """Return the arrays' names in the order of noise.

    Known layers follow one another; else the order is that of `w`.
    """
    names = list(chain.from_iterable(layers_of(request.model)))
    return names if set(names) == set(w) else list(w)
