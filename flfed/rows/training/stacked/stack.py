"""Arrays of a stack of sites in training.

Parameters are [sites, ...], and products are batched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flfed.rows.training.losses import as_expected, expected, row_losses
from flfed.rows.training.optimisers import OptimiserState, clip_in_place, soft_threshold, step_in_place
from flfed.rows.training.requests import FitRequest, Fitted
from flfed.rows.training.stacked.backward import BufferPool, Passes
from flfed.rows.training.stacked.batches import Batches


# A layer of all sites is one tensor, the intercepts its last row; a step of all sites is one batched product.
#
#          Packed.x [rows + 1, inputs + 1]          w [sites, inputs + 1, outputs]
#          ┌─ site a ─┐                             ┌ a ┐┌ b ┐┌ c ┐
#          ├─ site b ─┤   gathered: which rows      │   ││   ││   │
#          ├─ site c ─┤   each site takes in ──►    ├───┤├───┤├───┤
#          └─ zeros  ─┘   which step                └ 1 ┘└ 1 ┘└ 1 ┘   intercepts
#
#   batches.x [steps, sites, rows, inputs + 1]  ──►  outputs [sites, rows, outputs]  ──►  gradients like w
#
# A site with fewer rows or steps than the others takes the row of zeros, of weight 0. Those with most steps come
# first, so that the sites still at work are always the first ones of each tensor.
class Stack:
    """Arrays of a stack of sites in training.

    Parameters
    ----------
    requests : list of FitRequest
        Of one program, those with most steps first.
    dtype : torch.dtype
    room : BufferPool
    """

    def __init__(self, requests: list[FitRequest], dtype: torch.dtype, room: BufferPool) -> None:
        self._first, self._arrays = requests[0], [request.arrays for request in requests]
        plan, layers = self._first.plan, self._first.model.layers
        weights = [self._stacked(weight, bias, dtype) for weight, bias in layers]
        # Where a step is linear in the gradient, and in nothing else, products add it to the weights.
        added = plan.momentum or plan.l2 or plan.clip or self._first.terms or self._first.private
        self._plain = plan.optimiser == "sgd" and not added
        self._moving = [OptimiserState.of(w, w if self._plain else torch.empty_like(w), plan) for w in weights]
        self._anchors = [w.clone() for w in weights] if self._first.terms else weights
        self._lr, self._l2 = (
            torch.tensor(values, dtype=dtype)[:, None, None]
            for values in ([r.lr for r in requests], [r.plan.l2 for r in requests])
        )
        self._losses, self._done = torch.zeros(len(requests), dtype=torch.float64), 0
        self._room = room

    def _stacked(self, weight: str, bias: str, dtype: torch.dtype) -> Tensor:
        """Stack one layer of all sites.

        It is [sites, inputs + 1, outputs], the intercepts last.
        """
        inputs, outputs = self._arrays[0][weight].shape
        found = torch.empty((len(self._arrays), inputs + 1, outputs), dtype=dtype)
        for name, place in ((weight, slice(inputs)), (bias, inputs)):
            found.numpy()[:, place] = self._given(name)
        return found

    def _given(self, name: str) -> np.ndarray:
        """Stack an array of all sites as it came.

        It is [sites, ...], or without that dimension where it is one for all.
        """
        given = [arrays[name] for arrays in self._arrays]
        return given[0] if all(array is given[0] for array in given) else np.stack(given)

    def train(self, batches: Batches) -> None:
        """Train the first sites for a block's steps."""
        task, (steps, sites, rows, _) = self._first.task, batches.x.shape
        moving = [tensors.first(sites) for tensors in self._moving]
        passes = Passes([tensors.w for tensors in moving], [tensors.g for tensors in moving], rows, self._room)
        outputs = batches.x.new_empty((steps, sites, rows, moving[-1].w.shape[-1]))
        # Where the gradient is the step, its scale by the learning rate goes into the residual.
        scale = batches.share.unsqueeze(-1) * (-self._lr[:sites] if self._plain else 1)
        target = as_expected(task, batches.y, outputs.shape[-1], outputs.dtype) * -scale
        residual = torch.empty_like(outputs[0])
        absent: Sequence[Tensor | None] = batches.absent or [None] * steps
        parts = (part.unbind(0) for part in (batches.x, outputs, target, scale))
        # Residual: what outputs expect less what the target is, times the row's share.
        for x, out, less, factor, empty in zip(*parts, absent, strict=True):
            passes.forward(x, out, empty)
            torch.addcmul(less, expected(task, out, residual), factor, out=residual)
            if empty is not None:
                residual.view(sites * rows, -1).index_fill_(0, empty, 0)
            passes.backward(x, residual)
            self._done += 1
            self._move(moving, sites)
        self._losses[:sites] += _losses(task, outputs, batches)

    def _move(self, moving: list[OptimiserState], sites: int) -> None:
        """Update the arrays from the gradients, as `fit` does."""
        plan, lr = self._first.plan, self._lr[:sites]
        if not self._plain:
            self._add_penalties([tensors.w for tensors in moving], [tensors.g for tensors in moving], sites)
            if plan.clip:
                clip_in_place([tensors.g for tensors in moving], plan.clip)
            step_in_place(moving, lr, self._done, plan)
        if plan.l1:
            for w in self._penalised([tensors.w for tensors in moving]):
                w.copy_(soft_threshold(w, _like(lr * plan.l1, w)))

    def _add_penalties(self, weights: list[Tensor], gradients: list[Tensor], sites: int) -> None:
        if self._first.plan.l2:
            for w, g in zip(self._penalised(weights), self._penalised(gradients), strict=True):
                g.addcmul_(w, _like(self._l2[:sites], w))
        if self._first.terms:
            anchors = self._named([anchor[:sites] for anchor in self._anchors])
            for name, w in self._named(weights).items():
                g = self._named(gradients)[name]
                for term in self._first.terms:
                    g += term(w, anchors[name])

    def _penalised(self, tensors: list[Tensor]) -> list[Tensor]:
        named = self._named(tensors)
        return [named[name] for name in self._first.model.penalised]

    def _named(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """Return views by the model's names.

        Weights are [sites, inputs, outputs], intercepts [sites, outputs].
        """
        views = {}
        for (weight, bias), tensor in zip(self._first.model.layers, tensors, strict=True):
            views[weight], views[bias] = tensor[:, :-1], tensor[:, -1]
        return views

    def results(self, steps: list[int]) -> list[Fitted]:
        """Return each site's fit.

        `steps` says how many steps each site took.
        """
        named = {}
        for name, view in self._named([tensors.w for tensors in self._moving]).items():
            trained = view.numpy()
            if self._first.delta:
                trained -= self._given(name)
            named[name] = list(trained)
        losses = self._losses.tolist()
        # In the order that each site's arrays came in.
        return [
            Fitted(arrays={name: named[name][site] for name in self._arrays[site]}, steps=n, loss=losses[site] / n)
            for site, n in enumerate(steps)
        ]


def _like(factor: Tensor, w: Tensor) -> Tensor:
    """Shape a number for each site like an array.

    It then meets [sites, ...].
    """
    return factor.reshape(-1, *[1] * (w.dim() - 1))


def _losses(task: str, outputs: Tensor, batches: Batches) -> Tensor:
    """Sum the losses of each site's batches.

    The sums are float64 [sites].
    """
    found = batches.share * row_losses(task, outputs, batches.y)
    if batches.absent is not None:
        # A row that is none may have an infinite loss, which no share of 0 takes away.
        found.masked_fill_(batches.share == 0, 0)
    return found.sum(dim=(0, 2)).to(torch.float64)
