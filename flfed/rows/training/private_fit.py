"""Protected steps by per-row gradients (DP-SGD).

Each row, or each person, is hidden within a guarantee: it is sampled, clipped alone, and noise is added.

The rows of any model are differentiated one by one (`clipped_by_row`). Models of known layers are done in closed form,
as a stack of one site or of many (`PrivateStack`). Samples of unequal sizes are padded, and every site has its own
draws.

Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flfed.rows.training.batches import BLOCK_BYTES, BufferPool, Packed, pack
from flfed.rows.training.fit import Descent, Tensors
from flfed.rows.training.functional import as_expected, expected, layers_of, row_losses, target_dtype
from flfed.rows.training.private_noise import PublicGrid, count_units, drawn_steps
from flfed.rows.training.requests import FitRequest, Fitted, program_of
from flfed.rows.training.stack import Passes, Stack

GRADIENT_BYTES = 64 * 2**20
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
    gradient_bytes: int = GRADIENT_BYTES,
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
    gradient_bytes : int
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
    size = max(1, gradient_bytes // (8 * sum(value.numel() for value in w.values())))
    losses = [x.new_empty(0)]
    for start in range(0, len(x), size):  # none, where no row was sampled
        part = slice(start, start + size)
        g, part_losses = by_row(w, x[part], y[part], weight[part])
        norms = [torch.linalg.vector_norm(value.flatten(1), dim=1, dtype=torch.float64) for value in g.values()]
        norm = torch.stack(norms).square().sum(0).sqrt()
        # A gradient that is not finite has no norm to be clipped by: its row adds nothing.
        taken = norm.isfinite()
        scale = (clip / norm.clamp_min(clip))[taken]
        for name, value in g.items():
            total[name] += torch.tensordot(scale, value[taken].to(torch.float64), dims=1)
        losses.append(torch.where(taken, part_losses, 0.0))
    return torch.cat(losses), total


def fit_by_row(request: FitRequest) -> Fitted:
    """Train any model under record-level differential privacy.

    Returns what `private_fit` returns; each row's gradient is computed by itself.
    """
    rows = request.rows
    private, chance = request.protected()
    now = Descent(request)
    # Where the number of rows is known under noise alone, steps of noise are taken without any, too.
    steps = request.plan.steps if len(rows) or request.units else 0
    x = torch.tensor(rows.x, dtype=now.dtype)
    weight = torch.tensor(rows.weight, dtype=now.dtype)
    y = torch.tensor(rows.y, dtype=target_dtype(request.task, now.dtype))
    # Noise is drawn in one order of the arrays, whether a site trains alone or in a stack.
    names = in_order(request, now.w)
    unit_counts = count_units(rows, private, request.units)
    sizes = [now.w[name].numel() for name in names]
    grid = PublicGrid.of(private, unit_counts.most, sum(sizes))
    divisor = private.sampling * unit_counts.units
    for chosen, noise in drawn_steps(rows, private, chance, steps, sum(sizes), request.units):
        # Some steps sample no row at all: they are of noise alone, and must not be left out.
        part = torch.from_numpy(chosen)
        batch = (tensor.index_select(0, part) for tensor in (x, y, weight))
        batch_losses, g = clipped_by_row(request.model, request.task, now.w, *batch, clip=grid.clip)
        parts = dict(zip(names, torch.split(torch.from_numpy(noise), sizes)))
        # The sum is put on the grid before the noise is added, so that no last bit reveals a row.
        g = {n: ((grid.rounded(g[n]) + parts[n].view_as(g[n])) / divisor).to(now.dtype) for n in names}
        # From here on only the noisy sum is used, which costs no further privacy.
        now.step(float(batch_losses.sum()) / max(1, len(chosen)), g, {})
    return now.result()


def in_order(request: FitRequest, w: Tensors) -> list[str]:
    """Return the arrays' names in the order of noise.

    Known layers follow one another; else the order is that of `w`.
    """
    names = list(chain.from_iterable(layers_of(request.model)))
    return names if set(names) == set(w) else list(w)


def fit_private_stack(
    requests: list[FitRequest], packed: Packed, room: BufferPool, *, block_bytes: int = BLOCK_BYTES
) -> list[Fitted]:
    """Train one protected stack and return each fit.

    Each is as `private_fit` returns it but for rounding.

    Parameters
    ----------
    requests : list of FitRequest
        Of one program, each with its own chance and at least one row.
    packed : Packed
        Their rows, in the order of the requests.
    room : BufferPool
    block_bytes : int
        Of the rows and of the noise gathered at a time; at least one step's.

    Guarantee: that of `private_fit`, for each site by itself: no draw is shared between sites.

    Notes
    -----
    Sums that are rounded otherwise in their last bit may be put on the next number of the site's `PublicGrid`. With
    noise a site in a stack is within 1e-8 of the site alone; without it, within 1e-10 as plain training is.
    """
    stack = PrivateStack(requests, packed.x.dtype, room)
    for samples in blocks(requests, packed, stack.numbers, block_bytes):
        stack.take(samples)
    return stack.results([requests[0].plan.steps] * len(requests))


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples and noise of some steps.

    Each site's sampled rows are followed by places that hold no row.

    Attributes
    ----------
    x : tensor [steps, sites, rows, inputs + 1]
    y, weight : tensor [steps, sites, rows]
        The weight is 0 where there is no row.
    rows : tensor [steps, sites]
        How many were sampled; may be 0.
    noise : float64 tensor [steps, sites, numbers]
        For all arrays of a site, layer by layer.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    rows: Tensor
    noise: Tensor


def blocks(requests: Sequence[FitRequest], packed: Packed, numbers: int, block_bytes: int) -> Iterator[Samples]:
    """Yield the samples of all steps in order.

    There are as many steps at a time as fit into a block.

    Parameters
    ----------
    requests : sequence of FitRequest
    packed : Packed
        Their rows.
    numbers : int
        Of one site's arrays.
    block_bytes : int
    """
    steps = requests[0].plan.steps
    most = max(len(request.rows) for request in requests)
    drawn = []
    sampling = 1.0
    for request in requests:
        private, chance = request.protected()
        sampling = private.sampling
        drawn.append(drawn_steps(request.rows, private, chance, steps, numbers, request.units))
    starts = np.cumsum([0, *(len(request.rows) for request in requests[:-1])])
    # A step's memory is that of the expected samples, or of its noise where that is more.
    numbers_of_step = len(requests) * max(math.ceil(sampling * most) * packed.x.shape[1], 2 * numbers)
    at_a_time = max(1, block_bytes // (numbers_of_step * packed.x.element_size()))
    for start in range(0, steps, at_a_time):
        part = [list(islice(each, min(at_a_time, steps - start))) for each in drawn]
        yield gathered(packed, part, starts)


def gathered(packed: Packed, drawn: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], starts: np.ndarray) -> Samples:
    """Return the samples of some steps.

    Parameters
    ----------
    packed : Packed
    drawn : sequence, of each site, of sequences, of each step, of (chosen, noise)
    starts : int64 array [sites]
        Where a site's rows begin in `packed`.
    """
    sites = len(drawn)
    steps = len(drawn[0])
    dtype = packed.x.dtype
    rows = np.zeros((steps, sites), dtype=np.int64)
    for place, site in enumerate(drawn):
        rows[:, place] = [len(chosen) for chosen, _ in site]
    # Places that hold no row are the last row of `packed`, which is of zeros.
    index = np.full((steps, sites, max(1, rows.max())), len(packed.x) - 1)
    noise = np.empty((steps, sites, len(drawn[0][0][1])), dtype=float)
    for place, (site, start) in enumerate(zip(drawn, starts)):
        for step, (chosen, added) in enumerate(site):
            np.add(chosen, start, out=index[step, place, : len(chosen)])
            noise[step, place] = added
    flat = torch.from_numpy(index.reshape(-1))
    x = packed.x.index_select(0, flat).view(*index.shape, -1)
    y, weight = (part.index_select(0, flat).view(index.shape) for part in (packed.y, packed.weight))
    return Samples(x, y, weight, torch.from_numpy(rows).to(dtype), torch.from_numpy(noise))


class PrivateStack(Stack):
    """Stacked arrays under record-level differential privacy.

    They are the arrays of a stack of sites while they train.

    Parameters
    ----------
    requests : list of FitRequest
    dtype : torch.dtype
    room : BufferPool
    """

    def __init__(self, requests: list[FitRequest], dtype: torch.dtype, room: BufferPool) -> None:
        super().__init__(requests, dtype, room)
        self._sizes = [tensors.w[0].numel() for tensors in self._moving]
        self.numbers = sum(self._sizes)
        # Each site has its own divisor and grid, by the number of its rows or persons.
        divisors = []
        grids = []
        for request in requests:
            private, _ = request.protected()
            unit_counts = count_units(request.rows, private, request.units)
            divisors.append(private.sampling * unit_counts.units)
            grids.append(PublicGrid.of(private, unit_counts.most, self.numbers))
        self._noisy = all(grid.step for grid in grids)  # one program: at all of these sites, or at none
        exact = torch.float64 if self._noisy else dtype  # where gradients are float32, sums that get noise are not
        steps = [grid.step for grid in grids]
        self._divisor = torch.tensor(divisors, dtype=exact)[:, None, None]
        self._step = torch.tensor(steps, dtype=exact)[:, None, None]
        self._clip = torch.tensor([grid.clip for grid in grids], dtype=torch.float64)[:, None]
        self._sums = [
            each.g if each.g.dtype is exact else torch.empty_like(each.g, dtype=exact) for each in self._moving
        ]

    def take(self, samples: Samples) -> None:
        """Take some protected steps.

        Where a site has no row in a step, that step is of noise alone.
        """
        task = self._first.task
        (steps, sites, rows, _) = samples.x.shape
        weights = [tensors.w for tensors in self._moving]
        passes = Passes(weights, self._sums, rows, self._room)
        outputs = samples.x.new_empty((steps, sites, rows, weights[-1].shape[-1]))
        weight = samples.weight.unsqueeze(-1)
        target = as_expected(task, samples.y, outputs.shape[-1], outputs.dtype)
        residual = torch.empty_like(outputs[0])
        finite = []
        parts = (part.unbind(0) for part in (samples.x, outputs, target, weight, samples.noise))
        for x, out, sure, factor, noise in zip(*parts):
            passes.forward(x, out, None)  # what comes out where no row is has weight 0, or is not finite
            torch.sub(expected(task, out, residual), sure, out=residual).mul_(factor)
            finite.append(passes.backward_by_row(x, residual, self._clip))
            for moving, total, added in zip(self._moving, self._sums, noise.split(self._sizes, dim=1)):
                # Sums are put on the grid before the noise, which lies on it already.
                if self._noisy:
                    total.div_(self._step).round_().mul_(self._step).add_(added.view_as(total))
                total.div_(self._divisor)
                if total is not moving.g:
                    moving.g.copy_(total)
            self._done += 1
            self._move(self._moving, sites)
        # The loss is over the rows that were sampled; those without a finite gradient count 0.
        losses = samples.weight * row_losses(task, outputs, samples.y)
        mean_losses = torch.where(torch.stack(finite), losses, 0).sum(2) / samples.rows.clamp_min(1)
        self._losses += mean_losses.sum(0).to(torch.float64)


def private_fit(request: FitRequest) -> Fitted:
    """Train one site under record-level differential privacy.

    Returns the arrays after `plan.steps` protected steps. The caller's arrays are unchanged.

    A site without rows takes no step, as in `fit`.

    Guarantee: each step is the Poisson-sampled Gaussian mechanism on a sum of gradients. Adding or removing a row, or a
    person with all rows, moves the sum by at most `private.clip` in L2. Its noise has deviation `private.noise *
    private.clip`. Both are float64 numbers of one public grid, whose addition is exact: no last bit distinguishes them
    (see `PublicGrid`, also for what rounding adds). A row whose gradient is not finite adds nothing. Work on the sum
    afterwards (division, penalties, terms, optimiser) reads no row. The divisor is the expected number of rows
    (persons) of a step; how many there are is taken as known. The loss is of the rows themselves, without noise.
    """
    if program_of(request) is None:
        return fit_by_row(request)
    with torch.inference_mode():
        packed = pack([request.rows], request.task, getattr(torch, request.plan.precision))
        return fit_private_stack([request], packed, BufferPool())[0]
