"""A linear model on some rows alone, fairly tuned: scikit-learn's fit, cross-validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import logsumexp

from flfed.rows.bootstrap import units_of
from flfed.rows.encode import Encoded

PENALTIES = np.logspace(-4, 1, 11)
"""Ridge penalties tried, in units of `plan.l2`: of a loss that is a mean over rows."""
FOLDS = 5


class Predictor(Protocol):
    """Something that turns inputs [rows, inputs] into outputs [rows, outputs]."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return outputs."""
        ...


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """Outputs `x @ weight + bias`."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return outputs [rows, outputs]."""
        return np.asarray(x @ self.weight + self.bias)


def tuned_linear(rows: Encoded, task: str, classes: int, rng: np.random.Generator) -> LinearPredictor:
    """Return scikit-learn's regularised fit, its ridge penalty chosen by cross-validated loss.

    Parameters
    ----------
    rows : Encoded
        Of one site for local-only, of all for pooled.
    task : str
    classes : int
        Of the schema; a class without rows gets the share that half a row would have.
    rng : Generator
        Draws the folds.

    Notes
    -----
    Where not two classes have two rows: the constant model, with half a row added to each class.
    Folds are stratified and at most as many as the rarest class has rows; a class of one row is in
    every fold's training rows. Where rows have groups, all of this counts groups, and no group is
    on both sides of a fold.
    """
    if task == "regression":
        return _tuned_ridge(rows, rng)
    counts = np.bincount(rows.y, minlength=classes)
    present, (free, units) = np.flatnonzero(counts), _testable(rows, classes)
    several = units[units > 0]
    if len(several) < 2:
        return _constant(counts, rows.x.shape[1], task)
    fitted = _cross_validated(rows, free, int(min(FOLDS, several.min())), rng)
    if task == "binary":
        return LinearPredictor(fitted.coef_.T, fitted.intercept_)
    weight, bias = np.zeros((rows.x.shape[1], classes)), np.zeros(classes)
    if len(present) == 2:
        weight[:, present[1]], bias[present[1]] = fitted.coef_[0], fitted.intercept_[0]
    else:
        weight[:, present], bias[present] = fitted.coef_.T, fitted.intercept_
    likely = rows.x @ weight[:, present] + bias[present]
    bias[counts == 0] = float(logsumexp(likely, axis=1).mean()) + np.log(0.5 / len(rows))
    return LinearPredictor(weight, bias)


def _testable(rows: Encoded, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows a fold may test on, and in how many units each class stands among them.

    A unit is a group, or a row without groups. One that is the last with some class is never
    tested on; leaving it out may make another the last, so this is repeated.
    """
    codes, _ = units_of(len(rows), rows.group)
    free = np.ones(len(rows), dtype=bool)
    while True:
        unit, seen = np.divmod(np.unique(codes[free] * classes + rows.y[free]), classes)
        units = np.bincount(seen, minlength=classes)
        last = unit[np.isin(seen, np.flatnonzero(units == 1))]
        if not len(last):
            return free, units
        free &= ~np.isin(codes, last)


def _cross_validated(rows: Encoded, free: np.ndarray, folds: int, rng: np.random.Generator) -> Any:
    """Return the fit on all rows at the penalty whose cross-validated log loss on `free` rows is least."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if rows.group is None else StratifiedGroupKFold
    split = kind(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    losses = np.zeros(len(PENALTIES))
    weights = rows.weight if np.ptp(rows.weight) else None
    single, others = np.flatnonzero(~free), np.flatnonzero(free)
    groups = None if rows.group is None else rows.group[others]
    for first, second in split.split(rows.x[others], rows.y[others], groups):
        train, test = np.concatenate([others[first], single]), others[second]
        # Groups may leave a class, or all classes but one, out of a fold's training rows.
        test = test[np.isin(rows.y[test], rows.y[train])]
        if not len(test) or not np.ptp(rows.y[train]):
            continue
        own = None if weights is None else weights[train]
        model = LogisticRegression(warm_start=True, max_iter=2000, tol=1e-6)
        # From strong to weak, each fit starting from the last.
        for place in range(len(PENALTIES) - 1, -1, -1):
            model.C = 1 / (PENALTIES[place] * len(train))
            model.fit(rows.x[train], rows.y[train], own)
            chosen = np.searchsorted(model.classes_, rows.y[test])
            likely = model.predict_proba(rows.x[test])[np.arange(len(test)), chosen]
            losses[place] -= np.log(np.maximum(likely, 1e-12)).sum()
    # Where no fold could be tested, the penalty that trusts the rows least.
    best = PENALTIES[int(np.argmin(losses)) if losses.any() else -1]
    return LogisticRegression(C=1 / (best * len(rows)), max_iter=5000, tol=1e-8).fit(rows.x, rows.y, weights)


def _tuned_ridge(rows: Encoded, rng: np.random.Generator) -> LinearPredictor:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, KFold

    _, units = units_of(len(rows), rows.group)
    if len(rows) < 2 * FOLDS or units < 2:
        mean = rows.y.mean() if len(rows) else 0.0
        return LinearPredictor(np.zeros((rows.x.shape[1], 1)), np.array([mean]))
    plain = KFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    split = list((plain if rows.group is None else GroupKFold(min(FOLDS, units))).split(rows.x, groups=rows.group))
    losses = [
        sum(
            float(np.square(Ridge(l2 * len(a)).fit(rows.x[a], rows.y[a]).predict(rows.x[b]) - rows.y[b]).sum())
            for a, b in split
        )
        for l2 in PENALTIES
    ]
    best = Ridge(PENALTIES[int(np.argmin(losses))] * len(rows)).fit(rows.x, rows.y)
    return LinearPredictor(best.coef_.reshape(-1, 1), np.atleast_1d(best.intercept_))


def _constant(counts: np.ndarray, inputs: int, task: str) -> LinearPredictor:
    shares = np.log((counts + 0.5) / (counts + 0.5).sum())
    bias = np.array([shares[1] - shares[0]]) if task == "binary" else shares
    return LinearPredictor(np.zeros((inputs, len(bias))), bias)
