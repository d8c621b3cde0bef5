"""Fits of many sites as one: parameters [sites, ...], batched products, masks for unequal rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flfed.rows.training.backward import Passes, Room
from flfed.rows.training.fit import fit, size_of, steps_of
from flfed.rows.training.layered import layers_of
from flfed.rows.training.losses import as_expected, expected, row_losses
from flfed.rows.training.optimisers import Moving, clip_in_place, soft_threshold, step_in_place
from flfed.rows.training.packed import BLOCK_BYTES, Batches, Course, Kept, gathered
from flfed.rows.training.requests import FitRequest, Fitted, Term

CHUNK = 64
"""Most sites of a stack: beyond it a step's calls are a small part of its time."""
CHUNK_BYTES = 64 * 2**20
"""Most memory of a stack's rows, and of its activations."""


def fit_together(
    requests: Sequence[FitRequest], kept: Kept | None = None, *, alone: Callable[[FitRequest], Any] = fit
) -> list[Any]:
    """Return the result of each fit, in order; requests of one program train as one stack.

    Parameters
    ----------
    requests : sequence of FitRequest
        They may differ in arrays, rows, learning rate, size of `l2` and random numbers. One whose
        model names no `layers`, or that does not fit to them, is done by itself.
    kept : Kept, optional
        Where packed rows stay from round to round.
    alone : callable
        Does one request by itself.

    Returns
    -------
    list of Fitted, or of what `alone` returns
        Each as `fit` returns it, but for rounding. Arrays are views of the stack's, which nobody
        writes to any more.
    """
    kept, results, room = Kept(0) if kept is None else kept, list[Any]([None] * len(requests)), Room()
    drawing = Counter(id(request.rng.bit_generator) for request in requests)
    programs: dict[Hashable, list[int]] = {}
    known: dict[Hashable, Hashable] = {}
    for place, request in enumerate(requests):
        # Requests that draw from one generator draw in their order.
        single = drawing[id(request.rng.bit_generator)] > 1
        programs.setdefault(None if single else program_of(request, known), []).append(place)
    with torch.inference_mode():
        for program, places in programs.items():
            for chunk in _chunks(requests, places) if program is not None else ():
                for place, fitted in zip(chunk, _fit_stack([requests[p] for p in chunk], kept, room), strict=True):
                    results[place] = fitted
    for place in programs.get(None, ()):
        results[place] = alone(requests[place])
    return results


def program_of(request: FitRequest, known: dict[Hashable, Hashable] | None = None) -> Hashable | None:
    """Return what requests must have in common to train as one stack, None for one that cannot be stacked.

    `known` holds what was found for the same arrays and plan; those must still live.
    """
    rows, layers = request.rows, layers_of(request.model)
    if request.private is not None or not layers or not len(rows.y) == len(rows.x) == len(rows.weight) > 0:
        return None
    own = (layers, request.model.penalised, request.task, tuple([_term_key(term) for term in request.terms]))
    known, key = {} if known is None else known, (own, rows.x.shape[1:], id(request.arrays), id(request.plan))
    if key not in known:
        known[key] = _shared(request)
    return None if known[key] is None else (own, known[key], request.delta)


def _shared(request: FitRequest) -> Hashable | None:
    """Return what of a program is in the arrays and the plan, None for arrays that do not fit to layers and rows."""
    model, plan, arrays = request.model, request.plan, request.arrays
    names = {name for layer in model.layers for name in layer}
    if names != arrays.keys() or not names.issuperset(model.penalised):
        return None
    shapes = tuple([(arrays[weight].shape, arrays[bias].shape) for weight, bias in model.layers])
    if not _fitting(shapes, request.rows.x.shape, request.task):
        return None
    rule = (plan.optimiser, plan.momentum, tuple(plan.betas), plan.eps, plan.weight_decay, plan.clip, plan.l1)
    return (shapes, rule, plan.l2 > 0, (plan.batch, plan.epochs, plan.steps, plan.precision))


def _fitting(shapes: tuple[Any, ...], x: tuple[int, ...], task: str) -> bool:
    """Tell whether layers follow one another from the inputs to the outputs of a task."""
    width = x[-1] if len(x) == 2 else -1
    for weight, bias in shapes:
        if len(weight) != 2 or weight[0] != width or bias != weight[1:] or not weight[1]:
            return False
        width = weight[1]
    return width == 1 if task in ("binary", "regression") else task == "multi-class"


def _term_key(term: Term) -> Hashable:
    """Return what makes terms alike: each site makes its own `partial` of the same function."""
    if isinstance(term, partial):
        key = (term.func, term.args, tuple(sorted(term.keywords.items())))
        return key if all(isinstance(value, Hashable) for value in (*term.args, *term.keywords.values())) else term
    return term


def _chunks(requests: Sequence[FitRequest], places: list[int]) -> Iterator[list[int]]:
    """Yield places of sites that train in one stack: those with most steps first, of similar batches.

    A stack ends where its memory would be too much, or where most of a batch would be no rows.
    """
    first = requests[places[0]]
    widths = [first.rows.x.shape[1] + 1, *(2 * first.arrays[bias].shape[0] + 1 for _, bias in first.model.layers)]
    most = CHUNK_BYTES // np.dtype(first.plan.precision).itemsize
    chunk: list[int] = []
    total, widest = 0, 0
    for _, rows, size, place in _by_steps(requests, places):
        total, widest = total + rows, max(widest, size)
        cells = max(total * widths[0], (len(chunk) + 1) * widest * sum(widths))
        if chunk and (len(chunk) == CHUNK or cells > most or 2 * size < widest):
            yield chunk
            chunk, total, widest = [], rows, size
        chunk.append(place)
    yield chunk


def _by_steps(requests: Sequence[FitRequest], places: list[int]) -> list[tuple[int, int, int, int]]:
    """Return steps, rows, rows of a batch and place of each site, those with most steps and then most rows first."""
    plan, found = requests[places[0]].plan, []
    for place in places:
        rows = len(requests[place].rows.y)
        found.append((steps_of(rows, plan), rows, size_of(rows, plan), place))
    return sorted(found, key=lambda site: (-site[0], -site[1]))


def _fit_stack(requests: list[FitRequest], kept: Kept, room: Room) -> list[Fitted]:
    """Return the result of each fit of one stack."""
    plan, task = requests[0].plan, requests[0].task
    rows = [request.rows for request in requests]
    sizes = [len(site.y) for site in rows]
    packed = kept.packed(rows, task, getattr(torch, plan.precision))
    course = Course(sizes, plan, [request.rng for request in requests])
    stack = Stack(requests, packed.x.dtype, room)
    for block in course.blocks(BLOCK_BYTES // (packed.x.shape[1] * packed.x.element_size())):
        stack.train(gathered(packed, block, room))
    return stack.results([steps_of(n, plan) for n in sizes])


class Stack:
    """The arrays of a stack of sites while they train.

    Parameters
    ----------
    requests : list of FitRequest
        Of one program, those with most steps first.
    dtype : torch.dtype
    room : Room
    """

    def __init__(self, requests: list[FitRequest], dtype: torch.dtype, room: Room) -> None:
        self._first, self._arrays = requests[0], [request.arrays for request in requests]
        plan, layers = self._first.plan, self._first.model.layers
        weights = [self._stacked(weight, bias, dtype) for weight, bias in layers]
        # Where a step is linear in the gradient, and in nothing else, products add it to the weights.
        self._plain = plan.optimiser == "sgd" and not (plan.momentum or plan.l2 or plan.clip or self._first.terms)
        self._moving = [Moving.of(w, w if self._plain else torch.empty_like(w), plan) for w in weights]
        self._anchors = [w.clone() for w in weights] if self._first.terms else weights
        self._lr, self._l2 = (
            torch.tensor(values, dtype=dtype)[:, None, None]
            for values in ([r.lr for r in requests], [r.plan.l2 for r in requests])
        )
        self._losses, self._done = torch.zeros(len(requests), dtype=torch.float64), 0
        self._room = room

    def _stacked(self, weight: str, bias: str, dtype: torch.dtype) -> Tensor:
        """Return one layer of all sites, [sites, inputs + 1, outputs], the intercepts last."""
        inputs, outputs = self._arrays[0][weight].shape
        found = torch.empty((len(self._arrays), inputs + 1, outputs), dtype=dtype)
        for name, place in ((weight, slice(inputs)), (bias, inputs)):
            found.numpy()[:, place] = self._given(name)
        return found

    def _given(self, name: str) -> np.ndarray:
        """Return an array of all sites as it came, [sites, ...], or without that dimension where it is one for all."""
        given = [arrays[name] for arrays in self._arrays]
        return given[0] if all(array is given[0] for array in given) else np.stack(given)

    def train(self, batches: Batches) -> None:
        """Take the steps of a block in which the first sites take part."""
        task, (steps, sites, rows, _) = self._first.task, batches.x.shape
        moving = [tensors.first(sites) for tensors in self._moving]
        passes = Passes([tensors.w for tensors in moving], [tensors.g for tensors in moving], rows, self._room)
        outputs = batches.x.new_empty((steps, sites, rows, moving[-1].w.shape[-1]))
        scale = batches.share.unsqueeze(-1) * (-self._lr[:sites] if self._plain else 1)
        target = as_expected(task, batches.y, outputs.shape[-1], outputs.dtype) * -scale
        residual = torch.empty_like(outputs[0])
        absent: Sequence[Tensor | None] = batches.absent or [None] * steps
        parts = (part.unbind(0) for part in (batches.x, outputs, target, scale))
        for x, out, less, factor, empty in zip(*parts, absent, strict=True):
            passes.forward(x, out, empty)
            torch.addcmul(less, expected(task, out, residual), factor, out=residual)
            if empty is not None:
                residual.view(sites * rows, -1).index_fill_(0, empty, 0)
            passes.backward(x, residual)
            self._done += 1
            self._move(moving, sites)
        self._losses[:sites] += _losses(task, outputs, batches)

    def _move(self, moving: list[Moving], sites: int) -> None:
        """Go from the gradients to the next arrays, as `fit` does."""
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
        """Return views by the model's names: weights [sites, inputs, outputs], intercepts [sites, outputs]."""
        views = {}
        for (weight, bias), tensor in zip(self._first.model.layers, tensors, strict=True):
            views[weight], views[bias] = tensor[:, :-1], tensor[:, -1]
        return views

    def results(self, steps: list[int]) -> list[Fitted]:
        """Return what came of each site, which took so many steps."""
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
    """Return a number for each site, shaped to meet [sites, ...]."""
    return factor.reshape(-1, *[1] * (w.dim() - 1))


def _losses(task: str, outputs: Tensor, batches: Batches) -> Tensor:
    """Return each site's sum of its batches' losses, float64 [sites]."""
    found = batches.share * row_losses(task, outputs, batches.y)
    if batches.absent is not None:
        found.masked_fill_(batches.share == 0, 0)
    return found.sum(dim=(0, 2)).to(torch.float64)
