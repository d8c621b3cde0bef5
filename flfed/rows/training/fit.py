"""Training on one site's rows, and its optimisers.

SGD, Adam and AdamW are pure steps on named tensors, equal to `torch.optim` (tested within 1e-10), whose first use
imports the compiler for a second. The same steps in place, for many sites at once, are in `stack.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flfed.rows.features.encode import Encoded
from flfed.rows.training.functional import batch_loss, target_dtype
from flfed.rows.training.inference import score_stacked
from flfed.rows.training.requests import FitRequest, Fitted, ScoreRequest
from flfed.study.plan import BETAS, EPS, Plan
from flfed.summaries.summary import Arrays


def score(request: ScoreRequest) -> np.ndarray:
    """Return outputs float64 [rows, outputs]."""
    return score_stacked([request])[0]


def fit(request: FitRequest) -> Fitted:
    """Train as the plan says and return the result.

    The caller's arrays are unchanged.
    """
    now = Descent(request)
    model = request.model
    # A module in training drops units, and moves buffers that have no gradient.
    if hasattr(model, "in_training"):
        model = model.in_training(request.rng)
    for batch in drawn(request.rows, request.task, request.plan, request.rng, now.dtype):
        loss, g = gradient(model, request.task, now.w, *batch)
        now.step(loss, g, getattr(model, "moved", {}))
    return now.result()


class Descent:
    """One request's arrays in training, moved by the gradient of each step.

    Attributes
    ----------
    w : dict of name to tensor
        The arrays as they are now.
    dtype : torch.dtype
        Of the plan.
    """

    def __init__(self, request: FitRequest) -> None:
        self.dtype = getattr(torch, request.plan.precision)
        self.w = tensors_of(request.arrays, self.dtype)
        self._request = request
        self._anchor = dict(self.w)
        self._correction = tensors_of(request.correction, self.dtype)
        self._memory: dict[str, tuple[Tensor, ...]] = {}
        self._losses = 0.0
        self._steps = 0

    def step(self, loss: float, g: Tensors, moved: Tensors) -> None:
        """Take a step of a batch's loss and gradient; `moved` are arrays that the batch itself has moved.

        The order follows the stacked path: penalties, then the strategy's terms, then clipping.
        """
        request = self._request
        plan = request.plan
        g = self._with_terms(g)
        for name in (*request.frozen, *moved):
            g[name] = torch.zeros_like(g[name])
        if plan.clip:
            g = clip_by_norm(g, plan.clip)
        self._steps += 1
        for name, w in self.w.items():
            memory = self._memory.get(name, ())
            self.w[name], self._memory[name] = optimised(w, g[name], memory, plan, request.lr, self._steps)
        self.w.update(moved)
        # A decay of the weights is no gradient.
        self.w.update({name: self._anchor[name] for name in request.frozen})
        # An L1 penalty is a proximal step after the optimiser's, so that weights become exactly 0.
        if plan.l1:
            for name in set(request.model.penalised) - set(request.frozen):
                self.w[name] = soft_threshold(self.w[name], request.lr * plan.l1)
        self._losses += loss

    def result(self) -> Fitted:
        """Return what training made of the arrays, and its mean loss over the steps."""
        w = self.w
        # Strategies average what training changed, not the trained arrays themselves.
        if self._request.delta:
            w = {name: value - self._anchor[name] for name, value in w.items()}
        arrays = {name: value.numpy() for name, value in w.items()}
        return Fitted(arrays=arrays, steps=self._steps, loss=self._losses / max(self._steps, 1))

    def _with_terms(self, g: Tensors) -> Tensors:
        """Return a gradient with the plan's penalty, the strategy's terms and its correction, in this order."""
        g = dict(g)
        if self._request.plan.l2:
            for name in self._request.model.penalised:
                g[name] = g[name] + self._request.plan.l2 * self.w[name]
        for term in self._request.terms:
            g = {name: g[name] + term(self.w[name], self._anchor[name]) for name in g}
        for name, constant in self._correction.items():
            g[name] = g[name] + constant
        return g


def tensors_of(arrays: Arrays, dtype: torch.dtype) -> Tensors:
    """Return arrays as tensors of a type."""
    return {name: torch.tensor(value, dtype=dtype) for name, value in arrays.items()}


def gradient(
    model: Any, task: str, w: Tensors, x: Tensor, y: Tensor, weight: Tensor | None = None
) -> tuple[float, Tensors]:
    """Return the batch's loss and its gradient by name.

    The loss is `sum(weight * loss) / rows`.

    The divisor is the number of rows, not the sum of weights. So the sum over sites, weighted by rows, is the pooled
    gradient also with class weights. No weight means that each row counts 1.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in w.items()}
    loss = batch_loss(task, model.outputs(leaves, x), y, weight)
    # An array that the outputs do not use, as a buffer, has a gradient of zeros.
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return loss.item(), dict(zip(leaves, gradients, strict=True))


def drawn(
    rows: Encoded, task: str, plan: Plan, rng: np.random.Generator, dtype: torch.dtype
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the batch of each step.

    It is made of inputs, targets and weights; there are no weights where all are 1.

    Rows are put in order once an epoch and batches are slices of it: indexing for each step costs
    a tenth of a small fit.
    """
    tensors = [torch.tensor(rows.x, dtype=dtype), torch.tensor(rows.y, dtype=target_dtype(task, dtype))]
    # Weights of 1 are left out: the loss without them takes fewer calls.
    if (rows.weight != 1).any():
        tensors.append(torch.tensor(rows.weight, dtype=dtype))
    for order, size in epochs(len(rows), plan, rng):
        parts = tensors
        if not len(order) == size == len(rows):
            parts = [part.index_select(0, order) for part in tensors]
        yield from zip(*(torch.split(part, size) for part in parts))


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


Tensors = dict[str, Tensor]


def optimised(
    w: Tensor, g: Tensor, memory: tuple[Tensor, ...], plan: Plan, lr: float, step: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return an array after a step of the plan's optimiser, counted from 1, and its memory.

    Adam is Kingma and Ba 2015, algorithm 1; its decay Loshchilov and Hutter 2019, algorithm 2.
    """
    if plan.optimiser == "sgd":
        if plan.momentum:
            if memory:
                g = plan.momentum * memory[0] + g
            memory = (g,)
        return torch.sub(w, g, alpha=lr), memory
    first, second = BETAS
    m, v = memory or (torch.zeros_like(w), torch.zeros_like(w))
    m = first * m + (1 - first) * g
    v = second * v + (1 - second) * g.square()
    # Both moments start at zero: the divisors take that bias away in the first steps.
    unit = (m / (1 - first**step)) / ((v / (1 - second**step)).sqrt() + EPS)
    if plan.optimiser == "adamw":
        w = w * (1 - lr * plan.weight_decay)
    return w - lr * unit, (m, v)


def soft_threshold(w: Tensor, amount: float | Tensor) -> Tensor:
    """Shrink weights towards 0 by `amount`.

    `sign(w) * max(|w| - amount, 0)`, the proximal step of an L1 penalty.

    Source: Parikh and Boyd 2014, "Proximal algorithms", section 6.5.2.
    """
    return w.sign() * (w.abs() - amount).clamp(min=0)


def clip_by_norm(g: Tensors, bound: float) -> Tensors:
    """Scale gradients to a joint norm of `bound`.

    The L2 norm over all of one site's gradients is then at most `bound`.
    """
    norm = torch.stack([value.square().sum() for value in g.values()]).sum().sqrt()
    factor = (bound / norm.clamp(min=bound)).item()
    return {name: value * factor for name, value in g.items()}
