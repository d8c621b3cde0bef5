"""Stacked tuning of many sites' linear models.

All folds and penalties are solved as stacks of Newton steps.

The folds of a search share its rows: a fold is a row of weights that is 0 where it is not trained
on, and what depends on the rows alone is made once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch
from scipy.special import logsumexp

from flfed.rows.training.requests import TuneRequest
from flfed.rows.training.tuning.linear import (
    FOLDS,
    LEAST,
    MANY,
    PENALTIES,
    LinearPredictor,
    Search,
    chosen,
    search_alone,
    search_of,
)
from flfed.rows.training.tuning.newton import BLOCK, Products, Stack, factor_of, newton

PROBLEMS = (FOLDS + 1) * len(PENALTIES)
"""Fits of one search."""
TOGETHER = 2**17
"""Numbers of one array at most where searches share a stack (1 MB; 8 of Hessians): more leave the cache."""


def tune_together(requests: Sequence[TuneRequest]) -> list[LinearPredictor]:
    """Tune the model of each request, in order.

    They are those of `tuned_linear`, within 1e-6 of a log-odds.
    """
    asked = [search_of(r.rows, r.task, r.classes, r.rng) for r in requests]
    searches = [one for one in asked if isinstance(one, Search)]
    found = iter(search_together(searches))
    models = []
    for one in asked:
        model = one.finished(next(found)) if isinstance(one, Search) else one
        models.append(model)
    return models


def search_together(searches: Sequence[Search]) -> list[LinearPredictor]:
    """Fit each search at its best penalty.

    Where a stack does not serve, it is scikit-learn's fit.

    That is with too many unknowns, where a fold lacks one of several classes, and for rows so
    unlike in size that a Hessian is no longer positive in float64.
    """
    found: dict[int, LinearPredictor] = {}
    for places in _alike(searches):
        some = [searches[place] for place in places]
        paths = _paths(some)
        if paths is None and len(some) > 1:
            # One that cannot be solved does not cost the others their stack.
            parts = [_paths([search]) for search in some]
        else:
            parts = [[path] for path in paths or ()]
        for place, part in zip(places, parts, strict=False):
            if part is not None:
                found[place] = _best(searches[place], part[0])
    # What no stack could solve is left to closed forms or to scikit-learn.
    for place, search in enumerate(searches):
        if place not in found:
            found[place] = _ridge(search) if search.task == "regression" else search_alone(search)
    return [found[place] for place in range(len(searches))]


def _alike(searches: Sequence[Search]) -> Iterator[list[int]]:
    """Yield the places of searches for one stack.

    They have as many unknowns, and about as many rows.
    """
    order = sorted((_unknowns(search), len(search.rows), place) for place, search in enumerate(searches))
    for unknowns, some in groupby(order, lambda one: one[0]):
        if not 0 < unknowns[0] * unknowns[1] <= MANY:
            continue
        places: list[int] = []
        for _, rows, place in some:
            one = max(rows * unknowns[0] ** 2, (unknowns[0] * unknowns[1]) ** 2 // 8)
            if places and (len(places) + 1) * PROBLEMS * one > TOGETHER:
                yield places
                places = []
            places.append(place)
        yield places


def _unknowns(search: Search) -> tuple[int, int]:
    """Return a fit's outputs and inputs.

    The inputs are with the intercept. There are 0 outputs where a stack does not serve.
    """
    y = search.rows.y
    inputs = search.rows.x.shape[1] + 1
    if search.task == "binary":
        return 1, inputs
    classes = 0 if search.task == "regression" else len(np.unique(y))
    complete = all(len(np.unique(y[fold.train])) == classes for fold in search.folds)
    if not complete:
        classes = 0
    return classes, inputs


def _best(search: Search, path: np.ndarray) -> LinearPredictor:
    """Return the best penalty's fit on all rows.

    `path` is [folds + 1, penalties, outputs, inputs + 1].
    """
    losses = np.zeros(len(PENALTIES))
    for fold, w in zip(search.folds, path, strict=False):
        x = search.rows.x[fold.test]
        y = search.rows.y[fold.test]
        losses += _held_out(x @ w[..., :-1].swapaxes(-1, -2) + w[:, None, :, -1], y)
    best = path[-1, chosen(losses)]
    return LinearPredictor(best[:, :-1].T, best[:, -1])


def _held_out(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the summed log loss of each penalty.

    [penalties], of outputs [penalties, rows, outputs].
    """
    if outputs.shape[-1] == 1:
        losses = np.logaddexp(0, np.where(y == 1, -1, 1) * outputs[..., 0])
    else:
        losses = logsumexp(outputs, axis=-1) - outputs[:, np.arange(len(y)), y]
    return np.asarray(np.minimum(losses, -np.log(LEAST)).sum(axis=-1))


def _paths(searches: Sequence[Search]) -> list[np.ndarray] | None:
    """Return the coefficients of each search.

    They are [folds + 1, penalties, outputs, inputs + 1], the last of all rows.

    None if they could not be found. Few penalties at a time where one search has many rows.
    """
    tables = tuple(Products(np.column_stack([search.rows.x, np.ones(len(search.rows))])) for search in searches)
    outputs, inputs = _unknowns(searches[0])
    one = max(outputs**2 * max(len(table.x) for table in tables), (outputs * inputs) ** 2)
    parts = []
    step = max(1, 2 * BLOCK // one // (len(searches) * (FOLDS + 1)))
    for start in range(0, len(PENALTIES), step):
        part = _path(searches, tables, PENALTIES[start : start + step])
        if part is None:
            return None
        parts.append(part)
    return [np.concatenate(found, axis=1) for found in zip(*parts, strict=True)]


def _training_rows(search: Search) -> list[np.ndarray]:
    return [fold.train for fold in search.folds]


def _path(searches: Sequence[Search], tables: tuple[Products, ...], penalties: np.ndarray) -> list[np.ndarray] | None:
    """Return some penalties' part of `_paths`.

    The fits on all rows come first: a fold's begin there, with the same Hessians, which nearly are its own.
    """
    count = len(penalties)
    many = [len(search.folds) for search in searches]
    whole = _stacked(searches, tables, [[slice(None)] for _ in searches], penalties)
    solved = newton(whole)
    factor = None if solved is None else factor_of(replace(whole, w=solved, z=whole.outputs(solved)))
    if solved is None or factor is None:
        return None
    # Each search's penalties, again for each of its folds.
    again = np.concatenate([np.tile(np.arange(count) + count * r, folds) for r, folds in enumerate(many)])
    own = _stacked(searches, tables, [_training_rows(search) for search in searches], penalties)
    start = solved[again]
    # The ridge grows with the rows: its ratio is a fold's share of the Hessian, and a factor takes the root.
    share = torch.from_numpy(np.sqrt(own.ridge / whole.ridge[again]))[:, None, None]
    parts = newton(replace(own, w=start, z=own.outputs(start)), factor[torch.from_numpy(again)] * share)
    if parts is None:
        return None
    ends = np.cumsum(many)
    found = zip(np.split(parts, count * ends[:-1]), np.split(solved, len(searches)), strict=True)
    return [np.concatenate(both).reshape(-1, count, *solved.shape[1:]) for both in found]


def _stacked(
    searches: Sequence[Search],
    tables: tuple[Products, ...],
    trains: Sequence[Sequence[np.ndarray | slice]],
    penalties: np.ndarray,
) -> Stack:
    """Stack the problems, with coefficients of 0.

    There is one of each search, of each of its sets of training rows, of each penalty.
    """
    outputs, inputs = _unknowns(searches[0])
    longest = max(len(search.rows) for search in searches)
    sets = sum(map(len, trains))
    wanted = np.zeros((sets, outputs, longest))
    weight = np.zeros((sets, longest))
    sizes: list[int] = []
    own: list[int] = []
    for number, (search, some) in enumerate(zip(searches, trains, strict=True)):
        y = search.rows.y
        rows = len(search.rows)
        for train in some:
            place = len(own)
            wanted[place, :, :rows] = y if outputs == 1 else np.eye(outputs)[:, y]
            weight[place, :rows][train] = search.rows.weight[train]
            sizes.append(len(y[train]))
            own.append(number)
    count = len(penalties)
    return Stack(
        tables,
        np.repeat(np.array(own, dtype=np.intp), count),
        np.repeat(wanted, count, axis=0),
        np.repeat(weight, count, axis=0),
        np.outer(sizes, penalties).ravel(),
        np.zeros((sets * count, outputs, inputs)),
        np.zeros((sets * count, outputs, longest)),
    )


def _ridge(search: Search) -> LinearPredictor:
    """Fit ridge regression at the best penalty.

    One decomposition serves all penalties of a fold.
    """
    rows = search.rows
    losses = np.zeros(len(PENALTIES))
    for fold in search.folds:
        weight, bias = _ridges(rows.x[fold.train], rows.y[fold.train])
        off = weight @ rows.x[fold.test].T + bias[:, None] - rows.y[fold.test]
        losses += np.square(off).sum(axis=1)
    weight, bias = _ridges(rows.x, rows.y)
    best = chosen(losses)
    return LinearPredictor(weight[best][:, None], bias[best : best + 1])


def _ridges(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights and intercepts of ridge regressions.

    Weights are [penalties, inputs] and intercepts [penalties]; they minimise the ridge loss.

    With centred `x = u s v'`: weight `v (s u'y) / (s^2 + l2 * rows)`. The rows are rotated to a triangle
    first (QR), which is no larger than the inputs.
    """
    center = x.mean(axis=0)
    mean = y.mean()
    triangle = np.asarray(np.linalg.qr(np.column_stack([x - center, y - mean]), mode="r"))
    u, s, v = np.linalg.svd(triangle[:, :-1], full_matrices=False)
    weight = (s * (u.T @ triangle[:, -1]) / (s**2 + len(x) * PENALTIES[:, None])) @ v
    return weight, mean - weight @ center
