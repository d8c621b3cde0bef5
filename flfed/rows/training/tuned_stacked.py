"""Stacked tuning of many sites' linear models.

All folds and penalties are solved as stacks of Newton steps: logistic regressions with ridge penalties, binary or of
several classes, over a few tables.

The folds of a search share its rows. A fold is a row of weights that is 0 where it is not trained on, and what depends
on the rows alone is made once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import torch

from flfed.rows.training.requests import TuneRequest
from flfed.rows.training.tuned_linear import (
    FOLDS,
    MANY,
    PENALTIES,
    LinearPredictor,
    Search,
    chosen,
    fit_from,
    log_losses,
    search_alone,
    search_of,
)

PROBLEMS = (FOLDS + 1) * len(PENALTIES)
"""Fits of one search."""
TOGETHER = 2**17
"""Numbers of one array at most where searches share a stack (1 MB; 8 of Hessians): more leave the cache."""
BLOCK = 2**20
"""Numbers of one array held at once (8 MB)."""
LARGEST_CACHE = 2**22
"""Numbers of the products of all rows that are kept for one request (32 MB)."""
STEPS = 3
"""Steps with one Hessian: the second and third cost a fifth of the first and gain nearly as much."""
TURNS = 60
"""Hessians of a stack; real rows need 4 to 9."""
NEAR = 1e-9
"""Log-odds of the expected distance from the solution at which a problem is solved."""
STILL = 1e-6
"""Log-odds at which steps that no longer shrink are rounding."""
FAR = 0.3
"""Log-odds above which a step's length is searched for: below, the curvature changes by a third at most."""


def tune_together(requests: Sequence[TuneRequest]) -> list[LinearPredictor]:
    """Tune the model of each request, in order.

    They are those of `search_alone`, within 1e-6 of a log-odds.
    """
    entries = []
    for request in requests:
        entry = search_of(request.rows, request.task, request.classes, request.rng)
        if isinstance(entry, Search):
            entry = entry.in_basis(request.basis)
        entries.append(entry)
    predictors = iter(search_together([one for one in entries if isinstance(one, Search)]))
    models = []
    for one, request in zip(entries, requests, strict=True):
        model = one.finished(next(predictors)) if isinstance(one, Search) else one
        models.append(model.before(request.basis))
    return models


def search_together(searches: Sequence[Search]) -> list[LinearPredictor]:
    """Fit each search at its best penalty.

    Where a stack does not serve, it is scikit-learn's fit.

    That is with too many unknowns, where a fold lacks one of several classes, and for rows so
    unlike in size that a Hessian is no longer positive in float64.
    """
    predictors: dict[int, LinearPredictor] = {}
    for places in _alike(searches):
        paths = _path_of_each([searches[place] for place in places])
        for place, path in zip(places, paths):
            if path is not None:
                predictors[place] = _best(searches[place], path)
    models = []
    for place, search in enumerate(searches):
        if place in predictors:
            models.append(predictors[place])
        elif search.task == "regression":
            models.append(_ridge(search))
        else:
            models.append(search_alone(search))
    return models


def _path_of_each(searches: Sequence[Search]) -> Sequence[np.ndarray | None]:
    """Return the coefficients of each search, as `_paths` does.

    None for one that no stack can solve.
    """
    try:
        return _paths(searches)
    except np.linalg.LinAlgError:
        if len(searches) == 1:
            return [None]
    # One that cannot be solved does not cost the others their stack.
    paths: list[np.ndarray | None] = []
    for search in searches:
        paths += _path_of_each([search])
    return paths


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
    if not all(len(np.unique(y[fold.train])) == classes for fold in search.folds):
        classes = 0
    return classes, inputs


def _best(search: Search, path: np.ndarray) -> LinearPredictor:
    """Return the best penalty's fit on all rows.

    `path` is [folds + 1, penalties, outputs, inputs + 1].
    """
    losses = np.zeros(len(PENALTIES))
    for fold, w in zip(search.folds, path):
        test = search.rows.take(fold.test)
        outputs = test.x @ w[..., :-1].swapaxes(-1, -2) + w[:, None, :, -1]
        losses += (test.counts * log_losses(outputs, test.y)).sum(axis=-1)
    place = chosen(losses)
    best = path[-1, place]
    fitted = LinearPredictor(best[:, :-1].T, best[:, -1])
    return fitted if len(search.rows) == len(search.all_rows) else fit_from(search, float(PENALTIES[place]), fitted)


def _paths(searches: Sequence[Search]) -> list[np.ndarray]:
    """Return the coefficients of each search.

    They are [folds + 1, penalties, outputs, inputs + 1], the last of all rows.

    Raises LinAlgError if they could not be found. Few penalties at a time where one search has many rows.
    """
    tables = tuple(Products(np.column_stack([search.rows.x, np.ones(len(search.rows))])) for search in searches)
    outputs, inputs = _unknowns(searches[0])
    one = max(outputs**2 * max(len(table.x) for table in tables), (outputs * inputs) ** 2)
    parts = []
    step = max(1, 2 * BLOCK // one // (len(searches) * (FOLDS + 1)))
    for start in range(0, len(PENALTIES), step):
        parts.append(_path(searches, tables, PENALTIES[start : start + step]))
    return [np.concatenate(pieces, axis=1) for pieces in zip(*parts)]


def _path(searches: Sequence[Search], tables: tuple[Products, ...], penalties: np.ndarray) -> list[np.ndarray]:
    """Return some penalties' part of `_paths`.

    The fits on all rows come first: a fold's begin there, with the same Hessians, which nearly are its own.
    """
    count = len(penalties)
    many = [len(search.folds) for search in searches]
    whole = _stacked(searches, tables, [[slice(None)] for _ in searches], penalties)
    solved = newton(whole)
    factor = factor_of(replace(whole, w=solved, z=whole.outputs(solved)))
    # Each search's penalties, again for each of its folds.
    again = np.concatenate([np.tile(np.arange(count) + count * r, folds) for r, folds in enumerate(many)])
    trains = []
    for search in searches:
        trains.append([fold.train for fold in search.folds])
    own = _stacked(searches, tables, trains, penalties)
    start = solved[again]
    # The ridge grows with the rows: its ratio is a fold's share of the Hessian, and a factor takes the root.
    share = torch.from_numpy(np.sqrt(own.ridge / whole.ridge[again]))[:, None, None]
    parts = newton(replace(own, w=start, z=own.outputs(start)), factor[torch.from_numpy(again)] * share)
    pairs = zip(np.split(parts, count * np.cumsum(many)[:-1]), np.split(solved, len(searches)))
    return [np.concatenate(both).reshape(-1, count, *solved.shape[1:]) for both in pairs]


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
    for number, (search, some) in enumerate(zip(searches, trains)):
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
    weight, bias = _ridges(search.all_rows.times(search.basis).x, search.all_rows.y)
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


@dataclass(frozen=True, eq=False)
class Products:
    """Products of each row's inputs, two at a time.

    Every Hessian is a weighted sum of them.

    Attributes
    ----------
    x : array [rows, inputs + 1], the last column ones
    """

    x: np.ndarray

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(self.x.shape[1])

    @cached_property
    def _place(self) -> np.ndarray:
        """The place of each product of two inputs.

        It is an array [inputs + 1, inputs + 1].
        """
        place = np.zeros((self.x.shape[1],) * 2, dtype=np.intp)
        (left, right) = self._pairs
        place[left, right] = place[right, left] = np.arange(len(left))
        return place

    @cached_property
    def _all(self) -> np.ndarray | None:
        """The products of all rows.

        [pairs, rows]; None if they are too many to be kept.
        """
        if len(self._pairs[0]) * len(self.x) <= LARGEST_CACHE:
            return self._of(self.x)
        return None

    def _of(self, x: np.ndarray) -> np.ndarray:
        columns = np.ascontiguousarray(x.T)
        products = np.empty((len(self._pairs[0]), len(x)))
        # Each pair is computed once, for the products are symmetric.
        start = 0
        for number, column in enumerate(columns, 1):
            np.multiply(column, columns[:number], out=products[start : start + number])
            start += number
        return products

    def summed(self, weight: np.ndarray) -> np.ndarray:
        """Return weighted sums of outer products.

        `sum over rows of weight * outer(x, x)`, [many, inputs + 1, inputs + 1], of weight [many, rows].
        """
        if self._all is not None:
            return np.take(weight @ self._all.T, self._place, axis=1)
        total = np.zeros((len(weight), len(self._pairs[0])))
        step = max(1, BLOCK // 2 // len(self._pairs[0]))
        for start in range(0, len(self.x), step):
            rows = slice(start, start + step)
            total += weight[:, rows] @ self._of(self.x[rows]).T
        return np.take(total, self._place, axis=1)


@dataclass(frozen=True, eq=False)
class Stack:
    """A stack of problems under way.

    Each is to minimise `sum(weight * log loss) + ridge / 2 * |coefficients|^2`, with intercepts free.

    Attributes
    ----------
    tables : tuple of Products
    own : int array [problems], ascending
        Which of the tables a problem is about.
    wanted : array [problems, outputs, rows]
        1 at a row's class. One output is a binary task's log-odds; of several, softmax.
    weight : array [problems, rows]
        0 for rows that are not trained on, and beyond the table's last.
    ridge : array [problems]
    w : array [problems, outputs, inputs + 1]
        The last of the inputs is the intercept.
    z : array [problems, outputs, rows]
        `outputs(w)`.
    """

    tables: tuple[Products, ...]
    own: np.ndarray
    wanted: np.ndarray
    weight: np.ndarray
    ridge: np.ndarray
    w: np.ndarray
    z: np.ndarray

    def take(self, some: np.ndarray) -> Stack:
        """Return the problems of a mask or of indices."""
        arrays = (self.own, self.wanted, self.weight, self.ridge, self.w, self.z)
        return Stack(self.tables, *(array[some] for array in arrays))

    def moved(self, length: np.ndarray, step: np.ndarray, along: np.ndarray) -> Stack:
        """Return the problems a part of a step further.

        The part is `length` [problems]; the step changes `z` by `along`.
        """
        t = length[:, None, None]
        return replace(self, w=self.w + t * step, z=self.z + t * along)

    def penalty(self, step: np.ndarray) -> np.ndarray:
        """Return the penalty's Hessian times a step.

        It is 0 for the intercepts.
        """
        product = np.asarray(self.ridge[:, None, None] * step)
        product[..., -1] = 0
        return product

    def each(self, times: int) -> Iterator[tuple[Products, slice]]:
        """Yield each table and its problems' places.

        The places are of an array with `times` lines a problem.
        """
        bounds = times * np.searchsorted(self.own, np.arange(len(self.tables) + 1))
        for table, start, end in zip(self.tables, bounds, bounds[1:]):
            if start < end:
                yield table, slice(start, end)

    def outputs(self, w: np.ndarray) -> np.ndarray:
        """Return `w @ x.T`, the outputs of the problems.

        [problems, outputs, rows], 0 beyond a table's last row.
        """
        outputs = np.zeros((w.shape[0] * w.shape[1], self.weight.shape[1]))
        flat = w.reshape(-1, w.shape[-1])
        for table, some in self.each(w.shape[1]):
            outputs[some, : len(table.x)] = flat[some] @ table.x.T
        return outputs.reshape(*w.shape[:2], outputs.shape[1])

    def inputs(self, z: np.ndarray) -> np.ndarray:
        """Return `z @ x`, summed over rows.

        [problems, outputs, inputs + 1], of z [problems, outputs, rows].
        """
        flat = z.reshape(-1, z.shape[-1])
        sums = [flat[some, : len(table.x)] @ table.x for table, some in self.each(z.shape[1])]
        return np.concatenate(sums).reshape(*z.shape[:2], -1)

    def products(self, weight: np.ndarray) -> np.ndarray:
        """Return weighted sums of outer products, by problem.

        They are `sum over rows of weight * outer(x, x)` [many, inputs + 1, inputs + 1].

        The weight is [many, rows], as many lines for each problem.
        """
        times = len(weight) // len(self.own)
        sums = [table.summed(weight[some, : len(table.x)]) for table, some in self.each(times)]
        return np.concatenate(sums) if len(sums) > 1 else sums[0]


def newton(now: Stack, factor: torch.Tensor | None = None) -> np.ndarray:
    """Solve a stack of problems.

    Returns the coefficients [problems, outputs, inputs + 1]; raises LinAlgError if they cannot be found.

    Parameters
    ----------
    now : Stack
        Where to start.
    factor : tensor [problems, unknowns, unknowns], optional
        Cholesky factors of about the Hessians, for the first steps.

    Notes
    -----
    Newton's method, each Hessian used for `STEPS` steps, the length of long steps searched for. A solved
    problem leaves: one whose last step, which gained so much on the one before, leaves less than `NEAR` to go,
    or whose steps are small and gain nothing: rounding, where inputs are large and penalties weak.
    """
    coefficients = np.empty_like(now.w)
    live = np.arange(len(now.w))
    turns = 0
    while len(live):
        turns += 1
        if turns > TURNS:
            raise np.linalg.LinAlgError
        if factor is None:
            factor = factor_of(now)
        size = np.zeros(len(live))
        for _ in range(STEPS):
            slope = now.inputs(now.weight[:, None] * (_likely(now.z) - now.wanted)) + now.penalty(now.w)
            flat = torch.from_numpy(slope.reshape(len(slope), -1, 1))
            step = -torch.cholesky_solve(flat, factor).numpy().reshape(slope.shape)
            along = now.outputs(step)
            before = size
            size = _size(along)
            now = now.moved(_length(now, step, along, size), step, along)
        # Steps shrink by a constant factor with one Hessian: by the last two the rest is known.
        left = (np.square(size) > NEAR * before) & ((size > STILL) | (2 * size < before))
        factor = None
        if not left.all():
            coefficients[live[~left]] = now.w[~left]
            now = now.take(left)
            live = live[left]
    return coefficients


def _size(along: np.ndarray) -> np.ndarray:
    """Return the largest change of log-odds.

    It is that of any row [problems] along steps [problems, outputs, rows].

    Of several outputs, the range: by it alone all curvatures are bounded on the way.
    """
    one = along.shape[1] == 1
    reach = np.abs(along[:, 0]) if one else along.max(axis=1) - along.min(axis=1)
    return np.asarray(reach.max(axis=1))


def _likely(z: np.ndarray) -> np.ndarray:
    """Return the probability of each output [problems, outputs, rows]."""
    if z.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(np.minimum(-z, 700))))
    # The largest is taken off first, so that no exponential overflows.
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return np.asarray(p)


def factor_of(now: Stack) -> torch.Tensor:
    """Return the Cholesky factors of the Hessians.

    They are [problems, unknowns, unknowns]; raises LinAlgError if one Hessian is not positive definite.
    """
    p = _likely(now.z)
    (count, outputs, inputs) = now.w.shape
    # Between outputs the curvature of a softmax is p_i (1 if i = j, else 0) - p_i p_j.
    curvature = -now.weight[:, None, None] * p[:, :, None] * p[:, None]
    each = np.arange(outputs)
    curvature[:, each, each] += now.weight[:, None] * p
    hessian = now.products(curvature.reshape(-1, p.shape[-1])).reshape(count, outputs, outputs, inputs, inputs)
    inner = np.arange(inputs - 1)
    hessian[:, each[:, None], each[:, None], inner, inner] += now.ridge[:, None, None]
    if outputs > 1:
        # A constant added to all intercepts changes no probability. With a penalty on their sum, which
        # starts at 0, it stays there, and the Hessian can be inverted.
        hessian[..., -1, -1] += p.shape[-1]
    hessian = hessian.swapaxes(2, 3).reshape(count, outputs * inputs, outputs * inputs)
    factor: torch.Tensor
    factor, wrong = torch.linalg.cholesky_ex(torch.from_numpy(hessian))
    if wrong.any() or not np.isfinite(hessian).all():
        raise np.linalg.LinAlgError
    return factor


def _length(now: Stack, step: np.ndarray, along: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return how far to go along each step.

    It is [problems]: all of the step, or where that is long about to the least loss.

    Notes
    -----
    Over a way of r log-odds the curvature changes by a factor of at most `exp(r)`, so that a Newton step of r,
    cut to `log(1 + r) / r` of it where r > 1, cannot end higher than it began. Three such steps of one
    unknown cost little beside a Hessian.

    Source: Bach 2010, "Self-concordant analysis for logistic regression", section 2; Sun and Tran-Dinh 2019,
    "Generalized self-concordant functions", theorem 3 (the cut).
    """
    length = np.ones(len(size))
    far = size > FAR
    if not far.any():
        return length
    now = now.take(far)
    step = step[far]
    along = along[far]
    size = size[far]
    weighted = now.weight[:, None] * along
    pull = now.penalty(step)
    start = (pull * now.w).sum(axis=(1, 2))
    bend = (pull * step).sum(axis=(1, 2))
    t = np.zeros(len(size))
    for _ in range(3):
        # Slope and curvature along the step itself, each a single number for a problem.
        p = _likely(now.z + t[:, None, None] * along)
        slope = (weighted * (p - now.wanted)).sum(axis=(1, 2)) + start + t * bend
        mean = (p * along).sum(axis=1, keepdims=True)
        change = -slope / ((weighted * p * (along - mean)).sum(axis=(1, 2)) + bend)
        way = np.abs(change) * size
        t += np.where(way > 1, np.sign(change) * np.log1p(way) / size, change)
    length[far] = t
    return length
