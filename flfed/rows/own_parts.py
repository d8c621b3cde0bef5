"""A site's part of a study's model: hidden units, arrays or a whole model of its own, or an intercept.

The intercept is added to the shared model's outputs at that site, and drawn to nothing by a prior.

A site that trains a part of the hidden units has the first ones of each layer, the same in every round. What it trains
is cut out of the model that it was sent, and its update is put back into zeros of the model's shapes. For the units
that it does not train the site counts as having changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from flfed.rows.features.encode import Encoded
from flfed.rows.training.functional import layers_of, loss_of_rows
from flfed.rows.training.requests import FitRequest, Term
from flfed.rows.training.tuned_linear import curvature, fit_beside
from flfed.summaries.summary import Arrays
from flfed.words import usage_error


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnArrays:
    """What a site has of its own of a study's model.

    It is in no message.

    Attributes
    ----------
    names : collection of str
        Arrays of the model that are the site's own, also before it has values of them.
    part : dict of name to array
        Its values of them, with which it trains and predicts, whatever comes under the names.
    model : dict of name to array, or None
        A model of its own, trained beside the shared one; it is the site's personalised model then.
    """

    names: Collection[str] = ()
    part: Arrays = field(default_factory=dict)
    model: Arrays | None = None

    def at_site(self, arrays: Arrays) -> Arrays:
        """Return a shared model as it is at the site: with the site's own part in place of what came."""
        return {**arrays, **self.part} if self.part else arrays

    def parted(self, start: Arrays, delta: Arrays, beside: Arrays) -> tuple[Arrays, Arrays]:
        """Return an update in which the own part is zero, and the own part after the round.

        Parameters
        ----------
        start, delta : dict of name to array
            Where training began, and what it changed.
        beside : dict of name to array
            What it changed of the site's own model; empty without one.
        """
        own = {name: start[name] + delta[name] for name in self.names}
        own |= {name: value + beside[name] for name, value in (self.model or {}).items()}
        return delta | {name: np.zeros_like(delta[name]) for name in self.names}, own


@dataclass(frozen=True, kw_only=True, eq=False)
class AddedGradients:
    """Gradients that a strategy adds in each step of a fit.

    Attributes
    ----------
    terms : tuple of Term
    correction : dict of name to array
        A constant one; empty where there is none.
    """

    terms: tuple[Term, ...] = ()
    correction: Arrays = field(default_factory=dict)


NOTHING_ADDED = AddedGradients()


INTERCEPT_SD = 2.0
"""Prior deviation of a site's own intercept, in log-odds (or target deviations), where none was estimated
over sites: keeps it finite where a site has one class."""
UNLIKE = 20
"""One site in so many is not as the others are."""
FLAT_SD = 1000.0
NO_SD = 1e-6
"""Deviations of a prior that says nothing, and yet keeps the curvature above 0; and of one that leaves nothing."""


def own_intercept(outputs: np.ndarray, y: np.ndarray, task: str, sd: float | None = None) -> np.ndarray:
    """Fit a site's own intercept on its training rows.

    It is added to the model's outputs there; [outputs].

    Parameters
    ----------
    outputs : array [rows, outputs]
        Of the global model.
    y : array [rows]
    task : str
    sd : float, >= 0, optional
        Prior deviation as it was estimated over sites, 0 where they do not differ; `INTERCEPT_SD` unless given.

    Notes
    -----
    The posterior mode with a normal prior of mean 0; the loss is convex. For a
    regression the residuals' variance is taken as 1 (targets are encoded to unit deviation), or as
    `residual_variance` where a deviation is given.
    """
    shift = np.zeros(outputs.shape[1])
    if not len(y) or (sd is not None and sd < NO_SD):
        return shift
    prior_sd = INTERCEPT_SD if sd is None else sd
    precision = prior_sd**-2.0
    if task == "regression" and sd is not None:
        precision *= residual_variance(y - outputs[:, 0])
    return fit_beside(Encoded(np.zeros((len(y), 0)), y, np.ones(len(y))), outputs, task, 1.0, precision).bias


def own_offset(outputs: np.ndarray, y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Fit a site's intercept without a prior.

    Returns what fits its training rows best and the standard error of it, both [outputs].

    Parameters
    ----------
    outputs : array [rows, outputs]
        Of the global model.
    y : array [rows]
    task : str

    Returns
    -------
    None where the rows have not every class, or too few to know: then nothing finite fits best.

    Notes
    -----
    By maximum likelihood. Several outputs differ by their differences only, so that their mean is
    taken off. For a regression the mean residual, of `residual_variance`.
    """
    outputs = outputs.astype(float)  # what crosses is of one type, whatever the plan's precision
    if task == "regression":
        left = y.astype(float) - outputs[:, 0]
        if len(left) < 2:
            return None
        return np.array([left.mean()]), np.array([np.sqrt(residual_variance(left) / len(left))])
    classes = max(2, outputs.shape[1])
    # Without a row of each class the likelihood has no finite maximum.
    if np.bincount(y, minlength=classes).min() == 0:
        return None
    value = own_intercept(outputs, y, task, FLAT_SD)
    spread = np.linalg.inv(_curvature(outputs + value, task) + FLAT_SD**-2.0 * np.eye(len(value)))
    # The softmax does not change with a constant on all outputs: only their differences are known.
    if task != "binary":
        centred = np.eye(classes) - 1 / classes
        value = centred @ value
        spread = centred @ spread @ centred
    return value, np.sqrt(np.diag(spread))


def site_deviation(outputs: np.ndarray, y: np.ndarray, task: str, sd: float) -> float:
    """Return the prior deviation that adjusts one site.

    It is that of all sites, unless the site's rows contradict it.

    One site in `UNLIKE` is taken to be unlike the others, of deviation `INTERCEPT_SD`: a site's rows are evidence
    for either. So one that all others are near to, or whose rows of one class gave no offset, is not held to them.

    Parameters
    ----------
    outputs, y, task
        As `own_intercept` takes them.
    sd : float, >= 0
        Estimated over sites.
    """
    if sd >= INTERCEPT_SD or not len(y):
        return sd
    # The wide prior wins only where the rows outweigh the odds against an unlike site.
    gain = _evidence(outputs, y, task, INTERCEPT_SD) - _evidence(outputs, y, task, sd)
    return INTERCEPT_SD if gain > np.log(UNLIKE - 1) else sd


def _evidence(outputs: np.ndarray, y: np.ndarray, task: str, sd: float) -> float:
    """Return the log-evidence of a site's rows.

    It is their log-probability under a prior deviation, by Laplace's method about the mode.
    """
    shift = own_intercept(outputs, y, task, sd)
    moved = outputs + shift
    precision = max(sd, NO_SD) ** -2.0
    loss = loss_of_rows(task, moved, y)
    bend = _curvature(moved, task)
    if task == "regression":
        variance = residual_variance(y - outputs[:, 0])
        loss = loss / variance
        bend = bend / variance
    spread = np.linalg.slogdet(np.eye(len(shift)) + bend / precision)[1]
    return float(-loss * len(y) - precision * np.square(shift).sum() / 2 - spread / 2)


def residual_variance(left: np.ndarray) -> float:
    """Return the variance of residuals, shrunk to 1.

    It is about their mean, and drawn to 1 as by one row more. There is at least one residual; [rows].

    Examples
    --------
    >>> residual_variance(np.array([0.3])), residual_variance(np.array([0.0, 2.0]))
    (1.0, 1.5)
    """
    return float((np.square(left - left.mean()).sum() + 1) / len(left))


def _curvature(outputs: np.ndarray, task: str) -> np.ndarray:
    """Return the Hessian of the summed loss, with respect to the shift."""
    return curvature(np.ones((len(outputs), 1)), outputs, task)[1]


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
