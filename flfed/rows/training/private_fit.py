"""Steps of which each row, or each person, can be told only within a promise: sampled, clipped alone, and with noise.

For layers of `x @ weight + bias` with ReLU between them the norm of one row's gradient needs no
gradient of that row: of a layer with inputs a and derivative d by its outputs it is
`(|a|^2 + 1) |d|^2`, so that one weighted product clips all rows.

Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1; Goodfellow 2015,
"Efficient per-example gradient computations".
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from flfed.errors import UsageError
from flfed.plan import PrivateSteps
from flfed.rows.encode import Encoded
from flfed.rows.training.layered import layers_of
from flfed.rows.training.losses import as_expected, expected, row_losses
from flfed.rows.training.optimisers import State, Tensors, soft_threshold, step_of
from flfed.rows.training.private import Chance
from flfed.rows.training.requests import FitRequest, Fitted


def private_fit(request: FitRequest) -> Fitted:
    """Return the arrays after `plan.steps` protected steps; the caller's arrays are unchanged."""
    plan, rows, private, chance = request.plan, request.rows, request.private, request.chance
    if private is None or chance is None or not plan.steps:
        raise UsageError("protected training needs plan.steps, and where its draws come from")
    if not layers_of(request.model):
        raise UsageError("protected training needs a model of layers (logistic, linear, mlp)")
    dtype = getattr(torch, plan.precision)
    w = {name: torch.tensor(value, dtype=dtype) for name, value in request.arrays.items()}
    anchor, state, take, losses = dict(w), State(), step_of(plan), 0.0
    x, weight = torch.tensor(rows.x, dtype=dtype), torch.tensor(rows.weight, dtype=dtype)
    y = torch.tensor(rows.y, dtype=torch.int64 if request.task == "multi-class" else dtype)
    expected_rows = private.sampling * units(rows, private)
    for step in range(1, plan.steps + 1):
        chosen = torch.from_numpy(sampled(rows, private, chance))
        loss, g = clipped_sum(request, w, x[chosen], y[chosen], weight[chosen], private.clip)
        deviation = private.noise * private.clip
        for name, value in g.items():
            drawn = torch.from_numpy(chance.normal(value.numel())).reshape(value.shape).to(dtype)
            g[name] = (value + deviation * drawn) / expected_rows
        for name in request.model.penalised if plan.l2 else ():
            g[name] = g[name] + plan.l2 * w[name]
        for term in request.terms:
            g = {name: g[name] + term(w[name], anchor[name]) for name in g}
        w, state = take(w, g, state, request.lr, step)
        for name in request.model.penalised if plan.l1 else ():
            w[name] = soft_threshold(w[name], request.lr * plan.l1)
        losses += loss
    if request.delta:
        w = {name: value - anchor[name] for name, value in w.items()}
    return Fitted(arrays={n: v.numpy() for n, v in w.items()}, steps=plan.steps, loss=losses / plan.steps)


def units(rows: Encoded, private: PrivateSteps) -> int:
    """Return how many rows, or persons, can be sampled."""
    if private.unit == "row" or rows.group is None:
        return len(rows)
    return len(np.unique(rows.group))


def sampled(rows: Encoded, private: PrivateSteps, chance: Chance) -> np.ndarray:
    """Return the rows of one step, int64: each with its own draw, or of each person drawn one of the rows."""
    if private.unit == "row" or rows.group is None:
        return np.flatnonzero(chance.uniform(len(rows)) < private.sampling)
    order = np.argsort(rows.group, kind="stable")
    _, first, counts = np.unique(rows.group[order], return_index=True, return_counts=True)
    taken = chance.uniform(len(first)) < private.sampling
    places = first + np.floor(chance.uniform(len(first)) * counts).astype(np.int64)
    return np.asarray(order[places[taken]])


def clipped_sum(
    request: FitRequest, w: Tensors, x: Tensor, y: Tensor, weight: Tensor, clip: float
) -> tuple[float, Tensors]:
    """Return the mean loss of some rows, and the sum of their gradients, each of norm `clip` at most.

    Parameters
    ----------
    request : FitRequest
        Of whose model and task.
    w : dict of name to tensor
    x : tensor [rows, inputs]
    y, weight : tensor [rows]
    clip : float

    Guarantee: adding or removing a row moves the sum by at most `clip` in L2.
    """
    layers, inputs = layers_of(request.model), [x]
    for name, bias in layers[:-1]:
        inputs.append(torch.addmm(w[bias], inputs[-1], w[name]).relu())
    outputs = torch.addmm(w[layers[-1][1]], inputs[-1], w[layers[-1][0]])
    if not len(x):
        return 0.0, {name: torch.zeros_like(value) for name, value in w.items()}
    target = as_expected(request.task, y, outputs.shape[-1], outputs.dtype)
    d = (expected(request.task, outputs, torch.empty_like(outputs)) - target) * weight[:, None]
    by_layer = [d]
    for (name, _), a in zip(layers[:0:-1], inputs[:0:-1], strict=True):
        d = (d @ w[name].T) * (a > 0)
        by_layer.insert(0, d)
    squares = [(a.square().sum(1) + 1) * d.square().sum(1) for a, d in zip(inputs, by_layer, strict=True)]
    norm = torch.stack(squares).sum(0).sqrt()
    # Where a gradient is not finite nothing of it is taken: NaN would pass any clip.
    scale = torch.where(norm.isfinite(), clip / norm.clamp_min(clip), 0.0)[:, None]
    g = {}
    for (name, bias), a, d in zip(layers, inputs, by_layer, strict=True):
        d = torch.where(scale > 0, d * scale, 0.0)
        g[name], g[bias] = a.T @ d, d.sum(0)
    loss = float((weight * row_losses(request.task, outputs, y)).mean())
    return loss if math.isfinite(loss) else 0.0, {name: g[name] for name in w}
