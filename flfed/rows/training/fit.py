"""Training, scoring and measuring on one site's rows.

Each is done once, on the encoded rows that a request brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flfed.rows.evaluation.scoring import Measured
from flfed.rows.features.encode import Encoded
from flfed.rows.training.functional import batch_loss, target_dtype
from flfed.rows.training.inference import measure_stacked, score_stacked
from flfed.rows.training.optimisers import State, Tensors, clip_by_norm, soft_threshold, step_of
from flfed.rows.training.requests import FitRequest, Fitted, MeasureRequest, ScoreRequest
from flfed.study.plan import Plan


def score(request: ScoreRequest) -> np.ndarray:
    """Return outputs float64 [rows, outputs]."""
    return score_stacked([request])[0]


def measure(request: MeasureRequest) -> Measured:
    """Return the figures of the request's rows.

    They are the outputs, their loss and, if asked for, the area under the ROC curve.
    """
    return measure_stacked([request])[0]


def fit(request: FitRequest) -> Fitted:
    """Train as the plan says and return the result.

    The caller's arrays are unchanged.
    """
    plan = request.plan
    rows = request.rows
    dtype = getattr(torch, plan.precision)
    w = tensors_of(request.arrays, dtype)
    anchor = dict(w)
    correction = tensors_of(request.correction, dtype)
    state: State = {}
    take = step_of(plan)
    losses = 0.0
    steps = 0
    for x, y, weight in drawn(rows, request.task, plan, request.rng, dtype):
        loss, g = gradient(request.model, request.task, w, x, y, weight)
        # The order follows the stacked path: penalties, then the strategy's terms, then clipping.
        g = with_terms(request, g, w, anchor, correction)
        for name in request.frozen:
            g[name] = torch.zeros_like(g[name])
        g = clip_by_norm(g, plan.clip) if plan.clip else g
        steps += 1
        w, state = take(w, g, state, request.lr, steps)
        # A decay of the weights is no gradient.
        w.update({name: anchor[name] for name in request.frozen})
        # An L1 penalty is a proximal step after the optimiser's, so that weights become exactly 0.
        if plan.l1:
            for name in set(request.model.penalised) - set(request.frozen):
                w[name] = soft_threshold(w[name], request.lr * plan.l1)
        losses += loss
    return fitted(request, w, anchor, steps, losses)


def tensors_of(arrays: Mapping[str, np.ndarray], dtype: torch.dtype) -> Tensors:
    """Return arrays as tensors of a type."""
    return {name: torch.tensor(value, dtype=dtype) for name, value in arrays.items()}


def fitted(request: FitRequest, w: Tensors, anchor: Tensors, steps: int, losses: float) -> Fitted:
    """Return the result of training that went from `anchor` to `w`; `losses` are added over the steps."""
    # Strategies average what training changed, not the trained arrays themselves.
    if request.delta:
        w = {name: value - anchor[name] for name, value in w.items()}
    return Fitted(arrays={name: value.numpy() for name, value in w.items()}, steps=steps, loss=losses / max(steps, 1))


def with_terms(request: FitRequest, g: Tensors, w: Tensors, anchor: Tensors, correction: Tensors) -> Tensors:
    """Return a gradient with the plan's penalty, the strategy's terms and its correction, in this order."""
    g = dict(g)
    if request.plan.l2:
        for name in request.model.penalised:
            g[name] = g[name] + request.plan.l2 * w[name]
    for term in request.terms:
        g = {name: g[name] + term(w[name], anchor[name]) for name in g}
    for name, constant in correction.items():
        g[name] = g[name] + constant
    return g


def gradient(
    model: Any, task: str, w: Tensors, x: Tensor, y: Tensor, weight: Tensor | None = None
) -> tuple[float, Tensors]:
    """Return the batch's loss and its gradient by name.

    The loss is `sum(weight * loss) / rows`.

    The divisor is the number of rows, not the sum of weights: so the sum over sites, weighted by
    rows, is the pooled gradient also with class weights. No weight means that each row counts 1.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in w.items()}
    loss = batch_loss(task, model.outputs(leaves, x), y, weight)
    found = torch.autograd.grad(loss, list(leaves.values()))
    return loss.item(), dict(zip(leaves, found, strict=True))


def drawn(
    rows: Encoded, task: str, plan: Plan, rng: np.random.Generator, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield the batch of each step.

    It is made of inputs, targets and weights; there are no weights where all are 1.

    Rows are put in order once an epoch and batches are slices of it: indexing for each step costs
    a tenth of a small fit.
    """
    x = torch.tensor(rows.x, dtype=dtype)
    y = torch.tensor(rows.y, dtype=target_dtype(task, dtype))
    # Weights of 1 are left out: the loss without them takes fewer calls.
    weight = None if (rows.weight == 1).all() else torch.tensor(rows.weight, dtype=dtype)
    tensors = [x, y]
    if weight is not None:
        tensors.append(weight)
    for order, size in epochs(len(rows), plan, rng):
        whole = len(order) == size == len(rows)
        parts = tensors if whole else [part.index_select(0, order) for part in tensors]
        for batch in zip(*(torch.split(part, size) for part in parts), strict=True):
            yield batch if weight is not None else (*batch, None)


def epochs(rows: int, plan: Plan, rng: np.random.Generator) -> Iterator[tuple[Tensor, int]]:
    """Yield the row indices of each epoch.

    There are as many as its steps use; with them comes the number of rows of a step. With one batch of all rows
    their order stays as it is, and nothing is drawn.
    """
    size = plan.batch_size(rows)
    left = plan.steps_a_round(rows)
    while left > 0:
        order = rng.permutation(rows) if size < rows else np.arange(rows)
        yield torch.from_numpy(order[: left * size]), size
        left -= -(-rows // size)
