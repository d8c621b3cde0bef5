"""Arrays of a stack of sites in training, with their passes and the optimiser's steps.

Parameters are [sites, ...], and products are batched. A layer's weights and intercepts are one tensor [sites, inputs +
1, outputs], the intercepts last. Inputs carry a column of ones, so that one product adds the intercepts, and one gives
the gradient of both. Without autograd, whose bookkeeping costs more than the products of small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flfed.rows.training.batches import Batches, BufferPool
from flfed.rows.training.fit import soft_threshold
from flfed.rows.training.functional import as_expected, expected, row_losses
from flfed.rows.training.requests import FitRequest, Fitted
from flfed.study.plan import BETAS, EPS, Plan
from flfed.summaries.summary import Arrays


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
        self._first = requests[0]
        self._arrays = [request.arrays for request in requests]
        weights = self._stacked(self._arrays, dtype)
        self._plain = _is_plain(self._first)
        self._moving = [OptimiserState.of(w, self._first.plan, plain=self._plain) for w in weights]
        self._start = [w.clone() for w in weights] if self._first.terms or self._first.frozen else weights
        self._corrections = self._constants(requests, dtype)
        self._lr = torch.tensor([request.lr for request in requests], dtype=dtype)[:, None, None]
        self._l2 = torch.tensor([request.plan.l2 for request in requests], dtype=dtype)[:, None, None]
        self._losses = torch.zeros(len(requests), dtype=torch.float64)
        self._done = 0
        self._room = room

    def _stacked(self, arrays: Sequence[Arrays], dtype: torch.dtype) -> list[Tensor]:
        """Stack each layer of all sites, [sites, inputs + 1, outputs], the intercepts last."""
        layers = []
        for weight, bias in self._first.model.layers:
            inputs, outputs = arrays[0][weight].shape
            layer = torch.empty((len(arrays), inputs + 1, outputs), dtype=dtype)
            layer.numpy()[:, :inputs] = self._stack_array(weight, arrays)
            layer.numpy()[:, inputs] = self._stack_array(bias, arrays)
            layers.append(layer)
        return layers

    def _constants(self, requests: list[FitRequest], dtype: torch.dtype) -> list[Tensor]:
        """Stack the constant gradients of each layer, if there are some.

        What a site names none for has zeros.
        """
        if not self._first.correction:
            return []
        zeros = {name: np.zeros_like(value) for name, value in self._arrays[0].items()}
        return self._stacked([{**zeros, **request.correction} for request in requests], dtype)

    def _stack_array(self, name: str, arrays: Sequence[Arrays]) -> np.ndarray:
        """Stack an array of all sites as it came.

        It is [sites, ...], or without that dimension where it is one for all.
        """
        site_arrays = [own[name] for own in arrays]
        if all(array is site_arrays[0] for array in site_arrays):
            return site_arrays[0]
        return np.stack(site_arrays)

    def train(self, batches: Batches) -> None:
        """Train the first sites for a block's steps."""
        task = self._first.task
        (steps, sites, rows, _) = batches.x.shape
        moving = [tensors.first(sites) for tensors in self._moving]
        passes = Passes([tensors.w for tensors in moving], [tensors.g for tensors in moving], rows, self._room)
        outputs = batches.x.new_empty((steps, sites, rows, moving[-1].w.shape[-1]))
        # Where the gradient is the step, its scale by the learning rate goes into the residual.
        step = -self._lr[:sites] if self._plain else 1
        scale = batches.share.unsqueeze(-1) * step
        target = as_expected(task, batches.y, outputs.shape[-1], outputs.dtype) * -scale
        residual = torch.empty_like(outputs[0])
        absent: Sequence[Tensor | None] = batches.absent or [None] * steps
        parts = (part.unbind(0) for part in (batches.x, outputs, target, scale))
        # Residual: what outputs expect less what the target is, times the row's share.
        for x, out, less, factor, empty in zip(*parts, absent):
            passes.forward(x, out, empty)
            torch.addcmul(less, expected(task, out, residual), factor, out=residual)
            if empty is not None:
                residual.view(sites * rows, -1).index_fill_(0, empty, 0)
            passes.backward(x, residual)
            self._done += 1
            self._move(moving, sites)
        losses = batches.share * row_losses(task, outputs, batches.y)
        if batches.absent is not None:
            # A row that is none may have an infinite loss, which no share of 0 takes away.
            losses[batches.share == 0] = 0
        self._losses[:sites] += losses.sum(dim=(0, 2)).to(torch.float64)

    def _move(self, moving: list[OptimiserState], sites: int) -> None:
        """Update the arrays from the gradients, as `fit` does."""
        plan = self._first.plan
        lr = self._lr[:sites]
        weights = [tensors.w for tensors in moving]
        if not self._plain:
            gradients = [tensors.g for tensors in moving]
            self._add_penalties(weights, gradients, sites)
            if plan.clip:
                _clip_in_place(gradients, plan.clip)
            for tensors in moving:
                tensors.step(lr, self._done, plan)
            for name in self._first.frozen:
                self._named(weights)[name].copy_(self._anchors(sites)[name])
        if plan.l1:
            for w in self._penalised(weights):
                w.copy_(soft_threshold(w, _like(lr * plan.l1, w)))

    def _add_penalties(self, weights: list[Tensor], gradients: list[Tensor], sites: int) -> None:
        if self._first.plan.l2:
            for w, g in zip(self._penalised(weights), self._penalised(gradients)):
                g.addcmul_(w, _like(self._l2[:sites], w))
        if self._first.terms:
            anchors = self._anchors(sites)
            for name, w in self._named(weights).items():
                g = self._named(gradients)[name]
                for term in self._first.terms:
                    g += term(w, anchors[name])
        for g, constant in zip(gradients, self._corrections):
            g += constant[:sites]
        for name in self._first.frozen:
            self._named(gradients)[name].zero_()

    def _anchors(self, sites: int) -> dict[str, Tensor]:
        """Return the first sites' arrays as they were before the first step, by name."""
        return self._named([start[:sites] for start in self._start])

    def _penalised(self, tensors: list[Tensor]) -> list[Tensor]:
        named = self._named(tensors)
        return [named[name] for name in self._first.model.penalised if name not in self._first.frozen]

    def _named(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """Return views by the model's names.

        Weights are [sites, inputs, outputs], intercepts [sites, outputs].
        """
        views = {}
        for (weight, bias), tensor in zip(self._first.model.layers, tensors):
            views[weight] = tensor[:, :-1]
            views[bias] = tensor[:, -1]
        return views

    def results(self, steps: list[int]) -> list[Fitted]:
        """Return each site's fit.

        `steps` says how many steps each site took.
        """
        named = {}
        for name, view in self._named([tensors.w for tensors in self._moving]).items():
            trained = view.numpy()
            if self._first.delta:
                trained -= self._stack_array(name, self._arrays)
            named[name] = list(trained)
        losses = self._losses.tolist()
        # In the order that each site's arrays came in.
        results = []
        for site, n in enumerate(steps):
            arrays = {name: named[name][site] for name in self._arrays[site]}
            results.append(Fitted(arrays=arrays, steps=n, loss=losses[site] / n))
        return results


def _like(factor: Tensor, w: Tensor) -> Tensor:
    """Shape a number for each site like an array.

    It then meets [sites, ...].
    """
    return factor.reshape(-1, *[1] * (w.dim() - 1))


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """Optimiser state of one tensor, for stacked sites.

    It holds the tensor itself, its gradient and its memory.

    Attributes
    ----------
    w, g : tensor [sites, any, any]
        The same tensor where gradients are added to the weights at once.
    memory : tuple of tensor, same shape
        The velocity of SGD with momentum, the two moments of Adam; zeros before the first step.
    """

    w: Tensor
    g: Tensor
    memory: tuple[Tensor, ...]

    @classmethod
    def of(cls, w: Tensor, plan: Plan, *, plain: bool) -> OptimiserState:
        """Return the state before the first step.

        Gradients that are `plain` are added to the weights at once.
        """
        g = w if plain else torch.empty_like(w)
        memories = int(plan.momentum > 0) if plan.optimiser == "sgd" else 2
        return cls(w, g, tuple(torch.zeros_like(w) for _ in range(memories)))

    def first(self, sites: int) -> OptimiserState:
        """Return the first sites, as views."""
        w = self.w[:sites]
        g = w if self.g is self.w else self.g[:sites]
        return OptimiserState(w, g, tuple(part[:sites] for part in self.memory))

    def step(self, lr: Tensor, step: int, plan: Plan) -> None:
        """Take the plan's step, counted from 1, in place: the same as `optimised` takes, `lr` [sites, 1, 1]."""
        g = self.g
        if plan.optimiser == "sgd":
            for velocity in self.memory:
                g = torch.add(g, velocity, alpha=plan.momentum, out=velocity)
            self.w.addcmul_(g, lr, value=-1)
            return
        first, second = BETAS
        m, v = self.memory
        m.mul_(first).add_(g, alpha=1 - first)
        v.mul_(second).addcmul_(g, g, value=1 - second)
        if plan.optimiser == "adamw":
            self.w.mul_(1 - lr * plan.weight_decay)
        # The gradient is used up by now: its memory serves for the root.
        root = torch.div(v, 1 - second**step, out=g).sqrt_().add_(EPS)
        self.w.addcmul_(torch.div(m, root, out=root), lr / (1 - first**step), value=-1)


def _clip_in_place(gradients: Sequence[Tensor], bound: float) -> None:
    """Scale gradients in place, site by site.

    They are [sites, any, any]; each site's joint L2 norm is then at most `bound`.
    """
    squares = torch.stack([g.square().sum(dim=(1, 2)) for g in gradients])
    factor = bound / squares.sum(dim=0).sqrt().clamp(min=bound)
    for g in gradients:
        g.mul_(factor[:, None, None])


class Passes:
    """Forward and backward pass of stacked layers.

    It is of the first `sites` of a stack, `rows` rows each.

    Parameters
    ----------
    weights : list of tensor [sites, inputs + 1, outputs]
    gradients : list of tensor, same shapes
        Where the gradients go. The weights themselves: they are added to, for a residual that
        is scaled by minus the learning rate is the whole step. `backward_by_row` clips and adds
        rows in their dtype, which may be another than the weights'.
    rows : int
    room : BufferPool

    Source: Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors".
    """

    def __init__(self, weights: list[Tensor], gradients: list[Tensor], rows: int, room: BufferPool) -> None:
        self._layers = [_Layer(w, g) for w, g in zip(weights, gradients)]
        for number, layer in enumerate(self._layers[:-1]):
            layer.take_room(number, rows, room)

    def forward(self, x: Tensor, out: Tensor, absent: Tensor | None) -> None:
        """Compute the outputs for a batch.

        `x` is [sites, rows, inputs + 1]; they are written to `out` [sites, rows, outputs].

        `absent` are the places [of sites × rows] that hold no row. There a site whose weights are infinite would make 0
        * inf of them, so activations are set to 0, not multiplied by it.
        """
        for layer in self._layers[:-1]:
            layer.product(x, layer.room)
            torch.clamp_min(layer.room, 0, out=layer.active)
            # These places are zeroed here, before the next layer multiplies them.
            if absent is not None:
                layer.by_row.index_fill_(0, absent, 0)
            x = layer.hidden
        self._layers[-1].product(x, out)

    def backward(self, x: Tensor, residual: Tensor) -> None:
        """Compute the gradients of all layers.

        They follow from the loss's derivative by the outputs, [sites, rows, outputs].
        """
        for layer, before in zip(self._layers[:0:-1], self._layers[-2::-1]):
            layer.through(before, residual)  # through the weights as they are before the step
            layer.collect(before.hidden, residual)
            residual = before.room
        self._layers[0].collect(x, residual)

    def backward_by_row(self, x: Tensor, residual: Tensor, clip: Tensor) -> Tensor:
        """Sum the clipped gradients of rows.

        Each has norm `clip` at most. Returns which rows' gradients are finite, [sites, rows].

        `clip` is float64 [sites, 1]. Rows whose gradient is not finite add nothing. The inputs' last
        column is one, so that |a|^2 |d|^2 counts weights and intercepts.

        Source: Goodfellow 2015, "Efficient per-example gradient computations".
        """
        parts = [(self._layers[-1], residual)]
        for layer, before in zip(self._layers[:0:-1], self._layers[-2::-1]):
            layer.through(before, parts[0][1])
            parts.insert(0, (before, before.room))
        # A row's gradient is an outer product in each layer: its norm is the product of two norms.
        inputs = [x, *(layer.hidden for layer in self._layers[:-1])]
        square = x.new_zeros((), dtype=torch.float64)
        for a, (_, d) in zip(inputs, parts):
            square = square + (_norms(a) * _norms(d)).square_()
        finite = square.isfinite()
        if not finite.all():  # put away before products, where 0 times NaN is NaN
            square = torch.where(finite, square, 0)
            inputs = [torch.where(finite[..., None], a, 0) for a in inputs]
            for _, d in parts:
                d[~finite] = 0
        # Sums are in a type of their own, which may be wider than that of the weights.
        dtype = self._layers[0].summed
        scale = (clip / square.sqrt_().clamp_min_(clip)).to(dtype).unsqueeze(-1)
        for a, (layer, d) in zip(inputs, parts):
            layer.collect(a.to(dtype), d.to(dtype).mul_(scale))
        return finite


def _norms(part: Tensor) -> Tensor:
    """Return each row's norm, float64 [sites, rows].

    In float64 no float32 number's square is lost.
    """
    norms: Tensor = torch.linalg.vector_norm(part, dim=-1, dtype=torch.float64)
    return norms


# The one call that does this; a comparison and a product are three times as slow.
_through_relu = torch.ops.aten.threshold_backward.grad_input


class _Layer:
    """One layer of a stack.

    It has views of its weights, memory for its outputs, and its three products.

    With a single output a product has one column, which is slow; transposed it has one row.
    """

    room: Tensor
    hidden: Tensor
    active: Tensor
    by_row: Tensor

    def __init__(self, w: Tensor, g: Tensor) -> None:
        self._single = w.shape[-1] == 1
        self._adding = g is w
        self.summed = g.dtype
        self._w = w
        self._w_row = w.transpose(1, 2)
        self._back = self._w_row[:, :, :-1]
        self._g = g.transpose(1, 2) if self._single else g

    def take_room(self, number: int, rows: int, room: BufferPool) -> None:
        """Allocate the outputs of a hidden layer.

        They are those before and after ReLU, with the column of ones that follows them.
        """
        sites, _, outputs = self._w.shape
        self.room = room.of(("before", number), self._w.dtype, sites, rows, outputs)
        # Every last of so many numbers is the one that new memory holds: nobody writes there.
        self.hidden = room.of(("after", number, outputs), self._w.dtype, sites, rows, outputs + 1, ones=True)
        self.active = self.hidden[:, :, :-1]
        self.by_row = self.hidden.view(sites * rows, outputs + 1)[:, :-1]

    def product(self, x: Tensor, out: Tensor) -> None:
        """Write `x @ w` to `out`."""
        if self._single:
            torch.bmm(self._w_row, x.transpose(1, 2), out=out.transpose(1, 2))
        else:
            torch.bmm(x, self._w, out=out)

    def through(self, before: _Layer, residual: Tensor) -> None:
        """Pass the derivative on to the layer before.

        It is the loss's derivative by that layer's outputs, ahead of its ReLU, in that layer's memory.
        """
        if self._single:
            torch.mul(residual, self._back, out=before.room)
        else:
            torch.bmm(residual, self._back, out=before.room)
        _through_relu(before.room, before.active, 0, grad_input=before.room)

    def collect(self, x: Tensor, residual: Tensor) -> None:
        """Write the gradient `x' @ residual`.

        Where gradients go straight to the weights it is added to these.
        """
        a, b = (residual.transpose(1, 2), x) if self._single else (x.transpose(1, 2), residual)
        if self._adding:
            self._g.baddbmm_(a, b)
        else:
            torch.bmm(a, b, out=self._g)


def _is_plain(request: FitRequest) -> bool:
    """Return whether a step is linear in the gradient, and in nothing else: products add it to the weights."""
    plan = request.plan
    by_hand = request.terms or request.correction or request.private or request.frozen
    added = plan.momentum or plan.l2 or plan.clip or by_hand
    return plan.optimiser == "sgd" and not added
