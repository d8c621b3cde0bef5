"""What a site could do without the others: fairly tuned models on its own rows."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy.special import expit, logsumexp

from flfed.plan import Plan
from flfed.rows.bootstrap import units_of
from flfed.rows.encode import Encoded
from flfed.rows.training.fit import FitRequest, Fitted, ScoreRequest
from flfed.rows.training.losses import loss_of_rows, outputs_of
from flfed.seeds import generator

PENALTIES = np.logspace(-4, 1, 11)
"""Ridge penalties tried, in units of `plan.l2`: of a loss that is a mean over rows."""
FOLDS = 5
INTERCEPT_SD = 2.0
"""Prior deviation of a site's own intercept, in log-odds (or target deviations): keeps it finite
where a site has one class."""


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


def own_intercept(outputs: np.ndarray, y: np.ndarray, task: str) -> np.ndarray:
    """Return what to add to a model's outputs at one site, fitted on its training rows; [outputs].

    Parameters
    ----------
    outputs : array [rows, outputs]
        Of the global model.
    y : array [rows]
    task : str

    Notes
    -----
    The posterior mode with a normal prior of mean 0 and deviation `INTERCEPT_SD`, by Newton's
    method; the loss is convex. For a regression the residuals' variance is taken as 1 (targets
    are encoded to unit deviation).
    """
    shift = np.zeros(outputs.shape[1])
    if not len(y):
        return shift
    precision = 1 / INTERCEPT_SD**2
    if task == "regression":
        return np.array([(y - outputs[:, 0]).sum() / (len(y) + precision)])
    wanted = y[:, None] if task == "binary" else np.eye(outputs.shape[1])[y]
    for _ in range(50):
        p, curvature = _curvature(outputs + shift, task)
        slope = (p - wanted).sum(axis=0) + precision * shift
        step = np.linalg.solve(curvature + precision * np.eye(len(shift)), slope)
        # A step is at most a prior deviation long, so that Newton cannot overshoot on a flat loss.
        shift -= step / max(1.0, float(np.abs(step).max()) / INTERCEPT_SD)
        if np.abs(step).max() < 1e-10:
            break
    return shift


def _curvature(outputs: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and the Hessian of the summed loss with respect to the shift."""
    if task == "binary":
        p = expit(outputs)
        return p, np.array([[float((p * (1 - p)).sum())]])
    p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p, np.diag(p.sum(axis=0)) - p.T @ p


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainable:
    """What training a listed model on one site's rows needs.

    Attributes
    ----------
    model : a listed model
    task : str
    classes : int
    plan : Plan
    rounds : int
        Of the study: a local model may train as many epochs as the federation did.
    seed : int
    site : str
    """

    model: Any
    task: str
    classes: int
    plan: Plan
    rounds: int
    seed: int
    site: str


Asking = Generator[FitRequest | ScoreRequest, Any, dict[str, np.ndarray]]


def tuned_network(rows: Encoded, given: Trainable) -> Asking:
    """Yield requests that train a model on one site's rows alone, fairly tuned; return its arrays.

    Penalty (the plan's, and ten and a hundred times it) and number of epochs are chosen on a
    quarter of the rows (of the groups); then all rows are trained on.
    """
    held = _own_validation(rows, given)
    if not 0 < held.sum() < len(rows):
        return (yield from _epochs(rows, given, given.plan, given.rounds))
    base = given.plan.l2 or 1e-4
    best: tuple[float, Plan, int] = (float("inf"), given.plan, 1)
    for l2 in (base, 10 * base, 100 * base):
        plan = replace(given.plan, l2=l2)
        arrays = first_arrays(given, rows.x.shape[1])
        for number in range(1, given.rounds + 1):
            arrays = yield from _epoch(rows.take(~held), arrays, given, plan, number)
            outputs = yield ScoreRequest(model=given.model, arrays=arrays, x=rows.x[held])
            loss = loss_of_rows(given.task, outputs, rows.y[held])
            if loss < best[0]:
                best = (loss, plan, number)
    return (yield from _epochs(rows, given, best[1], best[2]))


def fine_tuned(rows: Encoded, start: dict[str, np.ndarray], given: Trainable) -> Asking:
    """Yield requests that go on from the global model on one site's rows; return its arrays.

    A tenth of the plan's learning rate; up to ten epochs, as many as help on a quarter of the
    rows (of the groups), which may be none.
    """
    held = _own_validation(rows, given)
    plan = replace(given.plan, lr=given.plan.lr / 10, schedule="constant")
    if not 0 < held.sum() < len(rows):
        return start
    arrays, best, epochs = start, float("inf"), 0
    for number in range(11):
        if number:
            arrays = yield from _epoch(rows.take(~held), arrays, given, plan, number)
        outputs = yield ScoreRequest(model=given.model, arrays=arrays, x=rows.x[held])
        loss = loss_of_rows(given.task, outputs, rows.y[held])
        if loss < best:
            best, epochs = loss, number
    arrays = start
    for number in range(1, epochs + 1):
        arrays = yield from _epoch(rows, arrays, given, plan, number)
    return arrays


def _own_validation(rows: Encoded, given: Trainable) -> np.ndarray:
    """Return which rows to choose on: about a quarter, whole groups."""
    codes, units = units_of(len(rows), rows.group)
    drawn = generator(given.seed, site=given.site, purpose="own-validation").random(units)
    return np.asarray(drawn[codes] < 0.25)


def first_arrays(given: Trainable, inputs: int) -> dict[str, np.ndarray]:
    """Return the arrays that training starts from, the same for every site of a study."""
    rng = generator(given.seed, site="", purpose="first-arrays")
    arrays = given.model.first_arrays(inputs, outputs_of(given.task, given.classes), rng)
    return {name: value.astype(given.plan.precision) for name, value in arrays.items()}


def _epochs(rows: Encoded, given: Trainable, plan: Plan, epochs: int) -> Asking:
    arrays = first_arrays(given, rows.x.shape[1])
    for number in range(1, epochs + 1):
        arrays = yield from _epoch(rows, arrays, given, plan, number)
    return arrays


def _epoch(rows: Encoded, arrays: dict[str, np.ndarray], given: Trainable, plan: Plan, number: int) -> Asking:
    rng = generator(given.seed, site=given.site, purpose="own-fit", number=number)
    lr = plan.lr * plan.factor(number, given.rounds)
    fitted: Fitted = yield FitRequest(
        model=given.model, task=given.task, arrays=arrays, rows=rows, plan=plan, lr=lr, rng=rng
    )
    return fitted.arrays
