"""Steps of which each row, or each person, can be told only within a promise: sampled, clipped alone, and with noise.

Models of known layers are done as a stack of one site, in closed form (`private_stacked`); the rows
of others are differentiated one by one (`private_rows`).

Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1.
"""

from __future__ import annotations

import torch

from flfed.errors import UsageError
from flfed.rows.training.optimisers import State, Tensors, clip_by_norm, soft_threshold, step_of
from flfed.rows.training.private.per_row_gradients import clipped_by_row
from flfed.rows.training.private.rounding import PublicGrid
from flfed.rows.training.private.sampling import drawn_steps, units
from flfed.rows.training.requests import FitRequest, Fitted
from flfed.rows.training.stacked.backward import Room
from flfed.rows.training.stacked.batches import pack
from flfed.rows.training.stacked.grouping import program_of
from flfed.rows.training.stacked.layers import layers_of
from flfed.rows.training.stacked.private_fit import fit_private_stack


def private_fit(request: FitRequest) -> Fitted:
    """Return the arrays after `plan.steps` protected steps; the caller's arrays are unchanged.

    A site without rows takes no step, as in `fit`.

    Guarantee: each step is the Poisson-sampled Gaussian mechanism on a sum of gradients: adding or
    removing a row, or a person with all rows, moves the sum by at most `private.clip` in L2, and its
    noise has deviation `private.noise * private.clip`. Both are float64 numbers of one public grid,
    whose addition is exact: no last bit tells them apart (see `PublicGrid`, also for what rounding adds).
    A row whose gradient is not finite adds nothing. What is done with the sum afterwards (division,
    penalties, terms, optimiser) reads no row. The divisor is the expected number of rows (persons) of
    a step; how many there are is taken as known. The loss is of the rows themselves, without noise.
    """
    if program_of(request) is None:
        return fit_by_row(request)
    with torch.inference_mode():
        packed = pack([request.rows], request.task, getattr(torch, request.plan.precision))
        return fit_private_stack([request], packed, Room())[0]


def fit_by_row(request: FitRequest) -> Fitted:
    """Return what `private_fit` returns, of any model: each row's gradient is computed by itself."""
    plan, rows, private, chance = request.plan, request.rows, request.private, request.chance
    if private is None or chance is None or not plan.steps:
        raise UsageError("protected training needs plan.steps, and where its draws come from")
    dtype = getattr(torch, plan.precision)
    w = {name: torch.tensor(value, dtype=dtype) for name, value in request.arrays.items()}
    anchor, state, take, losses, steps = dict(w), State(), step_of(plan), 0.0, plan.steps if len(rows) else 0
    x, weight = torch.tensor(rows.x, dtype=dtype), torch.tensor(rows.weight, dtype=dtype)
    y = torch.tensor(rows.y, dtype=torch.int64 if request.task == "multi-class" else dtype)
    names, count = in_order(request, w), units(rows, private)
    sizes = [w[name].numel() for name in names]
    grid, divisor = PublicGrid.of(private, count, sum(sizes)), private.sampling * count
    for step, (chosen, noise) in enumerate(drawn_steps(rows, private, chance, steps, sum(sizes)), 1):
        part = torch.from_numpy(chosen)
        batch = (tensor.index_select(0, part) for tensor in (x, y, weight))
        found, g = clipped_by_row(request.model, request.task, w, *batch, clip=grid.clip)
        parts = dict(zip(names, torch.split(torch.from_numpy(noise), sizes), strict=True))
        g = {n: ((grid.rounded(g[n]) + parts[n].view_as(g[n])) / divisor).to(dtype) for n in names}
        for name in request.model.penalised if plan.l2 else ():
            g[name] = g[name] + plan.l2 * w[name]
        for term in request.terms:
            g = {name: g[name] + term(w[name], anchor[name]) for name in g}
        g = clip_by_norm(g, plan.clip) if plan.clip else g
        w, state = take(w, g, state, request.lr, step)
        for name in request.model.penalised if plan.l1 else ():
            w[name] = soft_threshold(w[name], request.lr * plan.l1)
        losses += float(found.sum()) / max(1, len(chosen))
    if request.delta:
        w = {name: value - anchor[name] for name, value in w.items()}
    return Fitted(arrays={n: v.numpy() for n, v in w.items()}, steps=steps, loss=losses / max(steps, 1))


def in_order(request: FitRequest, w: Tensors) -> list[str]:
    """Return the arrays' names in the order that noise is drawn for them: of layers one after the other."""
    names = [name for layer in layers_of(request.model) for name in layer]
    return names if set(names) == set(w) else list(w)
