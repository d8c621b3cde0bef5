"""Models of affine layers with ReLU between, and which fits of them train as one stack."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from flfed.rows.training.requests import FitRequest, Term


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `x @ weight + bias`, [..., rows, outputs].

    Parameters
    ----------
    x : tensor [..., rows, inputs]
    weight : tensor [..., inputs, outputs]
    bias : tensor [..., outputs]

    Notes
    -----
    One call where nothing is stacked: a step of a small model costs its calls, not its products.
    """
    if x.dim() == weight.dim() == 2:
        return torch.addmm(bias, x, weight)
    return x @ weight + bias.unsqueeze(-2)


class _Layers(Protocol):
    layers: tuple[tuple[str, str], ...]


def layered_outputs(model: _Layers, arrays: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the outputs of a model's layers.

    [..., rows, outputs] from x [..., rows, inputs]; arrays may have leading dimensions.

    A model that is nothing but its `layers`, (weight, intercepts) by name in order with ReLU
    between, says `outputs = layered_outputs` in its class: then it can be computed for many sites
    at once, with gradients written out.
    """
    for number, (weight, bias) in enumerate(model.layers):
        x = affine(x if number == 0 else x.relu(), arrays[weight], arrays[bias])
    return x


def layers_of(model: Any) -> tuple[tuple[str, str], ...]:
    """Return a model's layers.

    There are none where its class has other outputs, which may be something else.
    """
    return tuple(model.layers) if getattr(type(model), "outputs", None) is layered_outputs else ()


def program_of(request: FitRequest, known: dict[Hashable, Hashable] | None = None) -> Hashable | None:
    """Return the program that a request trains by.

    Requests of one program can train as one stack. It is None for a request that cannot be stacked.

    `known` holds what was found for the same arrays and plan; those must still live.
    """
    rows, layers = request.rows, layers_of(request.model)
    if not layers or not len(rows.y) == len(rows.x) == len(rows.weight) > 0:
        return None
    if request.private is not None and not (request.chance and request.plan.steps):
        return None  # refused alone
    # Arrays and plan are mostly shared by all sites, so that they are looked at once.
    own = (layers, request.model.penalised, request.task, tuple([_term_key(term) for term in request.terms]))
    known, key = {} if known is None else known, (own, rows.x.shape[1:], id(request.arrays), id(request.plan))
    if key not in known:
        known[key] = _shared(request)
    return None if known[key] is None else (own, known[key], request.delta, request.private)


def _shared(request: FitRequest) -> Hashable | None:
    """Return the program's part of arrays and plan.

    It is None for arrays that do not fit to layers and rows.
    """
    model = request.model
    plan = request.plan
    arrays = request.arrays
    names = {name for layer in model.layers for name in layer}
    if names != arrays.keys() or not names.issuperset(model.penalised):
        return None
    shapes = tuple([(arrays[weight].shape, arrays[bias].shape) for weight, bias in model.layers])
    if not _fitting(shapes, request.rows.x.shape, request.task):
        return None
    rule = (plan.optimiser, plan.momentum, tuple(plan.betas), plan.eps, plan.weight_decay, plan.clip, plan.l1)
    return (shapes, rule, plan.l2 > 0, (plan.batch, plan.epochs, plan.steps, plan.precision))


def _fitting(shapes: tuple[Any, ...], x: tuple[int, ...], task: str) -> bool:
    """Tell whether layers fit to each other.

    They must follow one another from the inputs to the outputs of a task.
    """
    width = x[-1] if len(x) == 2 else -1
    for weight, bias in shapes:
        if len(weight) != 2 or weight[0] != width or bias != weight[1:] or not weight[1]:
            return False
        width = weight[1]
    return width == 1 if task in ("binary", "regression") else task == "multi-class"


def _term_key(term: Term) -> Hashable:
    """Return a key by which terms are alike.

    Each site makes its own `partial` of the same function.
    """
    if isinstance(term, partial):
        key = (term.func, term.args, tuple(sorted(term.keywords.items())))
        return key if all(isinstance(value, Hashable) for value in (*term.args, *term.keywords.values())) else term
    return term
