"""Linear fits beside scores that rows have already.

A score's coefficient stays 1; what is added to it is drawn to nothing by normal priors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, softmax

from flfed.rows.features.encode import Encoded
from flfed.rows.training.functional import loss_of_rows
from flfed.rows.training.tuning.linear import LinearPredictor, Search, search_of

STEPS = 100
NEAR = 1e-7
"""Largest change of a coefficient in a step that is the last: what it leaves is about the square of it."""


def fit_beside(
    rows: Encoded,
    offset: np.ndarray,
    task: str,
    precision: float,
    intercept: float,
    start: LinearPredictor | None = None,
) -> LinearPredictor:
    """Fit weights and intercepts beside a score, under normal priors.

    Parameters
    ----------
    rows : Encoded
        Their class weights are not looked at.
    offset : array [rows, outputs]
    task : {"binary", "multi-class", "regression"}
    precision, intercept : float, > 0
        Inverse variances of the priors of a weight, and of an intercept.
    start : LinearPredictor, optional
        Where to begin; else at nothing.

    Notes
    -----
    The minimum of `sum loss(offset + x @ w + b) + precision / 2 |w|² + intercept / 2 |b|²`, by Newton's method, of
    which a regression takes one step. In others a step that changes some row's outputs by r is cut to `log(1 + r) / r`
    of it, so that it cannot end higher than it began (`newton` has the source).
    """
    x = np.column_stack([rows.x, np.ones(len(rows))])
    outputs = offset.shape[1]
    wanted = np.eye(outputs)[rows.y] if task == "multi-class" else rows.y[:, None]
    prior = np.append(np.full(rows.x.shape[1], precision), intercept)
    found = np.zeros((len(prior), outputs)) if start is None else np.vstack([start.weight, start.bias])
    for _ in range(STEPS):
        score, hessian = curvature(x, offset + x @ found, task)
        slope = x.T @ (score - wanted) + prior[:, None] * found
        step = np.linalg.solve(hessian + np.diag(np.repeat(prior, outputs)), slope.ravel()).reshape(found.shape)
        way = 0.0 if task == "regression" else float(np.abs(x @ step).max(initial=0.0)) * min(2, outputs)
        shortened = np.log1p(way) / way if way else 1.0
        found = found - step * shortened
        if np.abs(step).max() < NEAR:
            break
    return LinearPredictor(found[:-1], found[-1])


def curvature(x: np.ndarray, outputs: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what outputs expect of the target, and the Hessian of the summed loss.

    They are [rows, outputs] and [inputs * outputs, inputs * outputs], by coefficients [inputs, outputs] in order.
    """
    if task == "regression":
        return outputs, x.T @ x
    if task == "binary":
        p = expit(outputs)
        return p, (x * (p * (1 - p))).T @ x
    p = softmax(outputs, axis=1)
    (inputs, count) = (x.shape[1], outputs.shape[1])
    hessian = np.empty((inputs, count, inputs, count))
    # Between two outputs the curvature of a softmax is p_i (1 if i = j, else 0) - p_i p_j.
    for i in range(count):
        for j in range(i + 1):
            hessian[:, i, :, j] = hessian[:, j, :, i] = (x * (p[:, i] * ((i == j) - p[:, j]))[:, None]).T @ x
    return p, hessian.reshape(inputs * count, -1)


def tuned_beside(
    rows: Encoded, offset: np.ndarray, task: str, classes: int, rng: np.random.Generator,
    precisions: Callable[[int], np.ndarray], intercept: float,
) -> tuple[LinearPredictor, bool]:  # fmt: skip
    """Fit beside a score, with the weights' prior of least loss over folds.

    Returns the fit, and whether a fold could be tested; where none could, the narrowest prior is taken.

    Parameters
    ----------
    rows, offset, task, intercept
        As in `fit_beside`.
    classes : int
        Of the schema.
    rng : Generator
        Draws the folds, which are those of `search_of`: stratified, and no group on both sides.
    precisions : function of a number of rows
        Candidates, [candidates], from wide priors to narrow.
    """
    search = search_of(rows, task, classes, rng)
    folds = search.folds if isinstance(search, Search) else ()
    candidates = precisions(len(rows))
    losses = np.zeros(len(candidates))
    for fold in folds:
        train = rows.take(fold.train)
        test = rows.take(fold.test)
        fit = None
        # From narrow to wide, each fit beginning at the last.
        for place, precision in reversed(list(enumerate(precisions(len(train))))):
            fit = fit_beside(train, offset[fold.train], task, float(precision), intercept, fit)
            losses[place] += len(test) * loss_of_rows(task, offset[fold.test] + fit(test.x), test.y)
    # Of priors that are as good the narrowest: nearer to the score itself.
    best = len(losses) - 1 - int(np.argmin(losses[::-1]))
    return fit_beside(rows, offset, task, float(candidates[best]), intercept), bool(len(folds))
