"""Protected training of many sites as one stack.

Samples of unequal sizes are padded, and every site has its own draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from flfed.errors import UsageError
from flfed.rows.training.functional import as_expected, expected, row_losses
from flfed.rows.training.private.fit import fit_by_row
from flfed.rows.training.private.rounding import PublicGrid
from flfed.rows.training.private.sampling import drawn_steps, known_units
from flfed.rows.training.requests import FitRequest, Fitted, program_of
from flfed.rows.training.stacked.batches import BLOCK_BYTES, BufferPool, Packed, pack
from flfed.rows.training.stacked.stack import Passes, Stack


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
    Sums that are rounded otherwise in their last bit may be put on the next number of the site's `PublicGrid`: with
    noise a site in a stack is within 1e-8 of the site alone, without it within 1e-10 as plain training is.
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
        if request.private is None or request.chance is None:
            raise UsageError("protected training needs to know where its draws come from")
        sampling = request.private.sampling
        drawn.append(drawn_steps(request.rows, request.private, request.chance, steps, numbers, request.units))
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
    noise = np.empty((steps, sites, len(drawn[0][0][1])), dtype=np.float64)
    for place, (site, start) in enumerate(zip(drawn, starts, strict=True)):
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
            if request.private is not None:
                known = known_units(request.rows, request.private, request.units)
                divisors.append(request.private.sampling * known.units)
                grids.append(PublicGrid.of(request.private, known.most, self.numbers))
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
        for x, out, sure, factor, noise in zip(*parts, strict=True):
            passes.forward(x, out, None)  # what comes out where no row is has weight 0, or is not finite
            torch.sub(expected(task, out, residual), sure, out=residual).mul_(factor)
            finite.append(passes.backward_by_row(x, residual, self._clip))
            for moving, total, added in zip(self._moving, self._sums, noise.split(self._sizes, dim=1), strict=True):
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
        found = torch.where(torch.stack(finite), losses, 0).sum(2) / samples.rows.clamp_min(1)
        self._losses += found.sum(0).to(torch.float64)


def private_fit(request: FitRequest) -> Fitted:
    """Train one site under record-level differential privacy.

    Returns the arrays after `plan.steps` protected steps. The caller's arrays are unchanged.

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
        return fit_private_stack([request], packed, BufferPool())[0]
