"""Outputs and figures of many sites at once.

There is one product where the model is the same, and one sort for all areas under the ROC curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flfed.rows.evaluation.delong import alike, areas
from flfed.rows.evaluation.scoring import Measured, histograms_of_odds
from flfed.rows.training.functional import layers_of, row_losses
from flfed.rows.training.requests import MeasureRequest, ScoreRequest
from flfed.summaries.score_bins import BINS
from flfed.summaries.summary import Arrays

BLOCK = 2048
"""Rows of one product: what a hidden layer makes of them stays in the processor's cache."""
STACKED = 256
"""Rows up to which a model's own product costs its calls more than its arithmetic, so that models are stacked."""
CELLS = 4096
"""Rows of several models in one stack, with those that fill them up to the longest."""
EVEN = 16
"""Rows and hidden units are filled up to a multiple of this.

Products compute the rest in another order of summation. Then two equal rows of a table would not tie, and which of them
wins would depend on the rows beside them.
"""

_OutputRequest = tuple[Any, Arrays, np.ndarray, str]
"""Model, arrays, inputs and precision of outputs that are asked for."""


@dataclass(frozen=True, eq=False)
class _Unit:
    """Inputs that go through the same arrays.

    They are of one request, or of all sites of a round.
    """

    model: Any
    arrays: Arrays
    precision: str
    places: list[int]
    xs: list[np.ndarray]

    @property
    def rows(self) -> int:
        """Rows of all its inputs."""
        return sum(map(len, self.xs))

    @property
    def program(self) -> tuple[Any, ...]:
        """The layers, shapes and precision of a unit.

        Units that share these may be stacked.
        """
        shapes = tuple(value.shape for value in self.arrays.values())
        return layers_of(self.model), tuple(self.arrays), shapes, self.precision, self.xs[0].shape[1]


def score_stacked(requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
    """Compute the outputs of each request, in order.

    They are float64 [rows, outputs].

    Notes
    -----
    Requests whose arrays are the very same objects are one product over all their rows. Others of
    one program (a model that names its `layers`, equal shapes) are stacked where they are small.
    """
    return _outputs([(request.model, request.arrays, request.x, "float64") for request in requests])


def measure_stacked(requests: Sequence[MeasureRequest]) -> list[Measured]:
    """Compute the figures of each request, in order.

    The outputs are computed in the plan's precision.
    """
    outputs = _outputs([(r.model, r.arrays, r.rows.x, r.precision) for r in requests])
    measured: dict[int, Measured] = {}
    for places in _measured_together(requests):
        batch = [requests[place] for place in places]
        measured |= dict(zip(places, _measured(batch, [outputs[place] for place in places])))
    for place, request in enumerate(requests):
        if place not in measured:
            # Requests without rows still get a histogram, of zeros.
            counts = np.zeros((2, BINS)) if request.histogram else None
            measured[place] = Measured(outputs=outputs[place], loss=np.nan, histogram=counts)
    return [measured[place] for place in range(len(requests))]


def _measured(requests: Sequence[MeasureRequest], outputs: list[np.ndarray]) -> Iterator[Measured]:
    """Yield the figures of several sites of one task, each with at least one row, as far as they are asked for."""
    # Each site's rows lie side by side: one reduction gives every mean.
    sizes = np.array([len(request.rows) for request in requests])
    y = np.concatenate([request.rows.y for request in requests])
    joint_outputs = np.concatenate(outputs)
    losses = row_losses(requests[0].task, torch.from_numpy(joint_outputs), torch.from_numpy(y)).numpy()
    means = np.add.reduceat(losses, np.cumsum(sizes) - sizes) / sizes
    if any(request.area for request in requests):
        of_areas = areas(y, joint_outputs[:, 0], sizes).T.tolist()
    if any(request.histogram for request in requests):
        counts = histograms_of_odds(y, joint_outputs[:, 0], sizes)
    for place, request in enumerate(requests):
        figure = Measured(outputs=outputs[place], loss=float(means[place]))
        if request.area:
            figure = replace(figure, area=of_areas[place][0], variance=of_areas[place][1])
        if request.histogram:
            figure = replace(figure, histogram=counts[place])
        yield figure


def _measured_together(requests: Sequence[MeasureRequest]) -> Iterator[list[int]]:
    """Yield the places of a few requests of one task, whose rows stay in the processor's cache."""
    # Losses differ by task, so that each task is measured by itself.
    for task in sorted({request.task for request in requests}):
        some = np.array([place for place, request in enumerate(requests) if request.task == task])
        sizes = np.array([len(requests[place].rows.y) for place in some.tolist()])
        for part in alike(sizes):
            yield some[part].tolist()


def _outputs(requests: Sequence[_OutputRequest]) -> list[np.ndarray]:
    """Compute the outputs of many models, in order.

    Each one is asked for as (model, arrays, x, precision).
    """
    replies: list[np.ndarray] = [np.empty(0)] * len(requests)
    units = _units(requests)
    # Small models with known layers are stacked; all others are computed one by one.
    small = [unit for unit in units if _is_small(unit)]
    stacks = list(_stacks(small)) if len(small) > 1 else [small]
    alone = [[unit] for unit in units if not _is_small(unit)]
    for stack in filter(None, stacks + alone):
        computed = [_product(stack[0])] if len(stack) == 1 else _stacked(stack)
        for unit, outputs in zip(stack, computed):
            # A unit's outputs are cut into those of the requests that it was made of.
            ends = list(accumulate((len(x) for x in unit.xs), initial=0))
            for place, (start, end) in zip(unit.places, pairwise(ends)):
                replies[place] = outputs[start:end]
    return replies


def _units(requests: Sequence[_OutputRequest]) -> list[_Unit]:
    """Group requests by model and arrays.

    Arrays are compared by identity, which costs no look at the numbers.
    """
    units: dict[tuple[Any, ...], _Unit] = {}
    for place, (model, arrays, x, precision) in enumerate(requests):
        key = (layers_of(model) or id(model), precision, *arrays, *map(id, arrays.values()))
        unit = units.get(key)
        if unit is None:
            unit = units[key] = _Unit(model, arrays, precision, [], [])
        unit.places.append(place)
        unit.xs.append(x)
    return list(units.values())


def _is_small(unit: _Unit) -> bool:
    return bool(layers_of(unit.model)) and unit.rows <= STACKED


def _product(unit: _Unit) -> np.ndarray:
    """Compute the outputs of one unit, block by block."""
    arrays = {name: torch.from_numpy(np.array(value, dtype=unit.precision)) for name, value in unit.arrays.items()}
    layers, width = _even([(arrays[weight], arrays[bias]) for weight, bias in layers_of(unit.model)])
    if not layers:  # what the model makes of rows that are filled up is not known
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.array(x, dtype=unit.precision)) for x in unit.xs]
            parts = [np.array(unit.model.outputs(arrays, x).numpy(), dtype=float, order="C") for x in tensors]
    else:
        parts = []
        for block, rows in _blocks(unit.xs, unit.precision):
            with torch.inference_mode():
                y = _through(layers, torch.from_numpy(block))[:rows, :width]
            parts.append(np.array(y.numpy(), dtype=float, order="C"))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _blocks(xs: Sequence[np.ndarray], precision: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield inputs as blocks [rows, inputs].

    With each block comes the number of its rows that are real; there is at least one block.

    A block of one input's rows lies there. Others lie where the one before did: rows that are not real are zeros, or
    left from it.
    """
    block = np.zeros((min(BLOCK, _up(sum(map(len, xs)))), xs[0].shape[1]), dtype=precision)
    filled = 0
    yielded = False
    for x in xs:
        start = 0
        as_it_is = x.dtype == block.dtype and x.flags.carray
        while start < len(x):
            if as_it_is and not filled and len(x) - start >= len(block):
                yield x[start : start + len(block)], len(block)
                start += len(block)
                yielded = True
                continue
            taken = min(len(x) - start, len(block) - filled)
            block[filled : filled + taken] = x[start : start + taken]
            start = start + taken
            filled = filled + taken
            if filled == len(block):
                yield block, filled
                filled = 0
                yielded = True
    # The last block is cut to a multiple of `EVEN`; one is yielded even where there are no rows.
    if filled or not yielded:
        yield block[: _up(filled)], filled


def _up(count: int) -> int:
    """Return the next multiple of `EVEN`, at least one."""
    return max(1, -(-count // EVEN)) * EVEN


def _even(layers: Sequence[tuple[Tensor, ...]]) -> tuple[list[tuple[Tensor, ...]], int]:
    """Fill layers up with units that give 0.

    Layers are (weight [..., in, out], bias [..., out]). The number of real outputs is returned with them.

    A single output is computed alike for all rows as it is.
    """
    wide_layers: list[tuple[Tensor, ...]] = []
    before = 0
    width = 0
    for weight, bias in layers:
        width = bias.shape[-1]
        after = 0 if width == 1 else _up(width) - width
        if before or after:
            # The next layer's weights get a zero line for each unit that was added before.
            weight = functional.pad(weight, (0, after, 0, before))
            bias = functional.pad(bias, (0, after))
        wide_layers.append((weight, bias))
        before = after
    return wide_layers, width


def _through(layers: Sequence[tuple[Tensor, ...]], x: Tensor) -> Tensor:
    """Pass inputs through layers with ReLU between.

    The inputs are x [rows, inputs], or a stack [models, rows, inputs].
    """
    for number, (weight, bias) in enumerate(layers):
        x = torch.addmm(bias, x, weight) if x.dim() == 2 else torch.baddbmm(bias.unsqueeze(-2), x, weight)
        if number < len(layers) - 1:
            x.relu_()
    return x


def _stacks(units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
    """Yield units to compute as one stack.

    They are of one program and of like sizes.
    """
    stack: list[_Unit] = []
    programs: dict[tuple[Any, ...], list[_Unit]] = {}
    for unit in units:
        programs.setdefault(unit.program, []).append(unit)
    for same in programs.values():
        # From few rows to many: a stack is filled up to its longest unit, which should be little.
        for unit in sorted(same, key=lambda unit: unit.rows):
            if stack and (len(stack) + 1) * _up(unit.rows) > CELLS:
                yield stack
                stack = []
            stack.append(unit)
        yield stack
        stack = []


def _stacked(stack: Sequence[_Unit]) -> list[np.ndarray]:
    """Compute the outputs of several units at once.

    The units are of one program, the longest last.
    """
    first = stack[0]
    table = np.zeros((len(stack), _up(stack[-1].rows), first.xs[0].shape[1]), dtype=first.precision)
    for room, unit in zip(table, stack):
        np.concatenate(unit.xs, out=room[: unit.rows], casting="same_kind")
    arrays = {}
    for name in first.arrays:
        of_all = np.stack([unit.arrays[name] for unit in stack])
        arrays[name] = torch.from_numpy(of_all.astype(first.precision, copy=False))
    layers, width = _even([(arrays[weight], arrays[bias]) for weight, bias in layers_of(first.model)])
    with torch.inference_mode():
        outputs = _through(layers, torch.from_numpy(table))[..., :width].numpy()
    return [np.array(output[: unit.rows], dtype=float) for output, unit in zip(outputs, stack)]
