"""Forward and backward passes for a stack of sites.

Outputs and gradients of affine layers with ReLU between them are written out.

A layer's weights and intercepts are one tensor [sites, inputs + 1, outputs], the intercepts last:
inputs carry a column of ones, so that one product adds the intercepts, and one gives the gradient
of both. Without autograd, whose bookkeeping costs more than the products of small layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class BufferPool:
    """Memory that is reused by stacks.

    One stack after the other writes to it: fresh memory costs more than small products.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], Tensor] = {}

    def of(self, use: tuple[object, ...], dtype: torch.dtype, *shape: int, ones: bool = False) -> Tensor:
        """Return a tensor of a shape.

        It holds what was in it before; at first it holds anything, or ones.
        """
        size, key = math.prod(shape), (*use, dtype)
        if key not in self._held or self._held[key].numel() < size:
            self._held[key] = (torch.ones if ones else torch.empty)(size, dtype=dtype)
        return self._held[key][:size].view(shape)


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
        self._layers = [_Layer(w, g) for w, g in zip(weights, gradients, strict=True)]
        for number, layer in enumerate(self._layers[:-1]):
            layer.take_room(number, rows, room)

    def forward(self, x: Tensor, out: Tensor, absent: Tensor | None) -> None:
        """Compute the outputs for a batch.

        `x` is [sites, rows, inputs + 1]; they are written to `out` [sites, rows, outputs].

        `absent` are the places [of sites × rows] that hold no row: there a site whose weights are
        infinite would make 0 * inf of them, so activations are set to 0, not multiplied by it.
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
        for layer, before in zip(self._layers[:0:-1], self._layers[-2::-1], strict=True):
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
        for layer, before in zip(self._layers[:0:-1], self._layers[-2::-1], strict=True):
            layer.through(before, parts[0][1])
            parts.insert(0, (before, before.room))
        # A row's gradient is an outer product in each layer: its norm is the product of two norms.
        inputs = [x, *(layer.hidden for layer in self._layers[:-1])]
        square = x.new_zeros((), dtype=torch.float64)
        for a, (_, d) in zip(inputs, parts, strict=True):
            square = square + (_norms(a) * _norms(d)).square_()
        finite = square.isfinite()
        if not finite.all():  # put away before products, where 0 times NaN is NaN
            square = torch.where(finite, square, 0)
            inputs = [torch.where(finite[..., None], a, 0) for a in inputs]
            for _, d in parts:
                d.masked_fill_(~finite[..., None], 0)
        # Sums are in a type of their own, which may be wider than that of the weights.
        dtype = self._layers[0].summed
        scale = (clip / square.sqrt_().clamp_min_(clip)).to(dtype).unsqueeze(-1)
        for a, (layer, d) in zip(inputs, parts, strict=True):
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
        self._w, self._w_row = w, w.transpose(1, 2)
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

    def back(self, residual: Tensor, out: Tensor) -> None:
        """Write the derivative by the layer's inputs.

        It is the loss's derivative, written to `out`.
        """
        if self._single:
            torch.mul(residual, self._back, out=out)
        else:
            torch.bmm(residual, self._back, out=out)

    def through(self, before: _Layer, residual: Tensor) -> None:
        """Pass the derivative on to the layer before.

        It is the loss's derivative by that layer's outputs, ahead of its ReLU, in that layer's memory.
        """
        self.back(residual, before.room)
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
