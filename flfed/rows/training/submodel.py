"""Sub-models of layered networks, for sites that train a part of the hidden units.

The part is the first units of each hidden layer, the same in every round. What a site trains is cut out of the model
that it was sent, and its update is put back into zeros of the model's shapes. For the units that it does not train the
site counts as having changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from flfed.rows.training.functional import layers_of
from flfed.rows.training.requests import FitRequest
from flfed.summaries.summary import Arrays
from flfed.words import usage_error


#   weight-0 [inputs, 16]   bias-0 [16]   weight-1 [16, 1]   bias-1 [1]
#        ┌────┬────┐        ┌────┬────┐      ┌────┐
#        │ x  │ 0  │        │ x  │ 0  │      │ x  │           x: cut out, trained, put back
#        │    │    │        └────┴────┘      ├────┤           0: not sent through a product; its update is zero
#        └────┴────┘                         │ 0  │           an output's intercept is of every sub-model
#                                            └────┘
def submodel(model: object, arrays: Arrays, width: float) -> Arrays:
    """Return the first part of a model's hidden units.

    Parameters
    ----------
    model : a listed model of layers
    arrays : mapping of name to array
        Of the whole model.
    width : float in (0, 1]
        Share of the units of each hidden layer, rounded down to at least one unit.

    Notes
    -----
    Of one hidden layer half the units are half the parameters and multiplications, of several less.

    Source: Diao, Ding and Tarokh 2021, "HeteroFL: Computation and communication efficient federated learning for
    heterogeneous clients", for the sub-models; there a unit is averaged over the sites that had it.
    """
    narrow = dict(arrays)
    before = slice(None)
    layers = layers_of(model)
    for number, (weight, bias) in enumerate(layers):
        after = slice(None)
        if number < len(layers) - 1:
            # A share such as 0.3 of 10 is a little below 3 in binary.
            after = slice(max(1, math.floor(width * len(arrays[bias]) + 1e-9)))
        narrow[weight] = arrays[weight][before, after]
        narrow[bias] = arrays[bias][after]
        before = after
    return narrow


def nested_start(model: object, arrays: Arrays, widths: Iterable[float]) -> Arrays:
    """Return the arrays of a run's start in which each sub-model computes what the whole does.

    Weights that lead from the units that a width leaves out to those that it has begin at zero. With all other weights
    as drawn, what nobody trains then adds nothing to the model, in place of noise for ever.

    Parameters
    ----------
    model : a listed model
    arrays : dict of name to array
        As drawn.
    widths : iterable of float
        Of the sites of the run; where all are 1 the arrays are returned as they are.
    """
    layers = layers_of(model)
    start = dict(arrays)
    for width in sorted({width for width in widths if width < 1}):
        part = submodel(model, arrays, width)
        for weight, _ in layers[1:]:
            inputs, outputs = part[weight].shape
            start[weight] = start[weight].copy()
            start[weight][inputs:, :outputs] = 0
    return start


def narrowed(request: FitRequest, width: float) -> FitRequest:
    """Return the request to train the sub-model of a width.

    The request itself where all units are trained.

    Raises
    ------
    UsageError
        If the model's layers are not known.
    """
    if width >= 1:
        return request
    if not layers_of(request.model):
        raise usage_error("study.strategies.units")
    arrays = submodel(request.model, request.arrays, width)
    if not request.correction:
        return replace(request, arrays=arrays)
    zeros = {name: np.zeros_like(value) for name, value in request.arrays.items()}
    return replace(request, arrays=arrays, correction=submodel(request.model, {**zeros, **request.correction}, width))


def widened(delta: Arrays, like: Arrays) -> Arrays:
    """Return a sub-model's update in the shapes of the whole model.

    It is exactly zero wherever the sub-model has no entry.
    """
    update = {}
    for name, part in delta.items():
        whole = part
        if part.shape != like[name].shape:
            whole = np.zeros(like[name].shape, part.dtype)
            whole[tuple(slice(length) for length in part.shape)] = part
        update[name] = whole
    return update
