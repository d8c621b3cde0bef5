"""The best model of some rows alone.

It is a tuned linear one, or boosted trees where cross-validation prefers them. Of a regression whose rows are in the
order of time forecasts without a model are tried, too: the site's mean, its last training value, and columns that a
study names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from flfed.rows.features.encode import Encoded, input_names, input_slices
from flfed.rows.training.requests import LEAST_ROWS, Predictor, RivalRequest, TreesRequest
from flfed.rows.training.tuned_linear import (
    Fold,
    LinearPredictor,
    Search,
    chosen,
    fit_at,
    linear_family,
    log_losses,
    search_of,
    sum_test_losses,
    units_by_class,
)
from flfed.study.tables import NAIVE_FAMILIES, OwnFamily
from flfed.summaries.summary import Encoder, Layout

FOLDS = 3
PENALTIES = np.array([1e-4, 3e-3, 3e-2, 3e-1])
"""Ridge penalties tried, in units of `plan.l2`: of a loss that is a mean over rows."""
TREES = {4: (60, 180), 12: (40, 100)}
"""Numbers of trees by most leaves of a tree: four settings. The few trees are the first of the many."""
LEARNING_RATE = 0.06
LEAST_OF_A_CLASS = 9
"""People (or rows, where each is its own) of each class, below which no trees are grown: three a fold."""
MEAN, LAST, COLUMN = NAIVE_FAMILIES
ORIGINS = 10
"""Blocks, twice as many at most, from which on a last value is tried."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A model of some rows alone.

    It has a family and the function of its outputs.
    """

    family: OwnFamily
    outputs: Predictor


def best_alone(request: RivalRequest) -> Rival:
    """Find the model of least cross-validated loss.

    The loss is over the folds' test rows; the model is then fitted on all rows.

    Notes
    -----
    The loss is the log loss, or the squared error of a regression. Folds are stratified, and no group of
    rows is on both sides of one (`search_of`). Of a regression under a holdout by time the forecasts of
    `naive_forecasts` are candidates, too. Fewer rows than `LEAST_ROWS`, or a class with fewer people than
    `LEAST_OF_A_CLASS`, leave the linear model alone. Trees take the same inputs and class weights.
    """
    linear = linear_family(request.task)
    cv_search = search_of(request.rows, request.task, request.classes, request.rng, folds=FOLDS)
    if not isinstance(cv_search, Search):
        return Rival(linear, cv_search)  # the constant model: nothing can be tuned
    # Fewer penalties are tried here than where a linear model is tuned alone.
    cv_search = replace(cv_search, penalties=PENALTIES)
    linear_search = cv_search.in_basis(request.basis)
    losses = sum_test_losses(linear_search)
    place = chosen(losses)
    naive, least_loss = _best_naive(cv_search, request.columns, request.least)
    if suffice_for_trees(request.rows, request.task, request.classes):
        seed = int(request.rng.integers(2**31))
        trees = _trees_below(cv_search, min(losses[place], least_loss), seed)
        if trees is not None:
            return trees
    if naive is not None and least_loss < losses[place]:
        return naive
    fitted = linear_search.finished(fit_at(linear_search, float(PENALTIES[place])))
    return Rival(linear, fitted.before(request.basis))


def _best_naive(cv_search: Search, columns: Sequence[LinearPredictor], least: int) -> tuple[Rival | None, float]:
    """Return the naive forecast of least loss over the folds' test rows, and that loss; of none it is infinite."""
    losses: dict[OwnFamily, float] = {}
    if cv_search.task != "regression":
        return None, float("inf")
    for fold in cv_search.folds:
        test = cv_search.rows.take(fold.test)
        for family, forecast in naive_forecasts(cv_search.rows.take(fold.train), columns, least).items():
            losses[family] = losses.get(family, 0.0) + squared_error(forecast, test)
    if not losses:
        return None, float("inf")
    if LAST in losses:
        losses[LAST] = losses[MEAN] * last_over_mean(cv_search.all_rows, least)
    made = naive_forecasts(cv_search.all_rows, columns, least)
    best = min(losses.keys() & made.keys(), key=losses.__getitem__)
    return Rival(best, made[best]), losses[best]


def trees_alone(request: TreesRequest) -> Predictor:
    """Fit boosted trees of the setting with least cross-validated loss.

    A class without rows gets half a row's share, as in a linear model; of rows of
    one class the model is a constant.
    """
    cv_search = search_of(request.rows, request.task, request.classes, request.rng, folds=FOLDS)
    if not isinstance(cv_search, Search):
        # Inputs may be missing, which nothing but trees can read.
        return partial(_constant_outputs, cv_search.bias)
    seed = int(request.rng.integers(2**31))
    trees = _trees_below(cv_search, np.inf, seed)
    if trees is None:
        # Nothing could be tested, as where a class comes up in the latest rows only: the fewest trees.
        with _one_thread():
            model = _boosted(cv_search.all_rows, cv_search.task, min(TREES), min(TREES[min(TREES)]), seed)
        trees = Rival("boosted-trees", partial(_outputs, model))
    if cv_search.outputs in (1, len(cv_search.present)):
        return trees.outputs
    return partial(_whole, trees.outputs, cv_search.outputs, cv_search.present, len(cv_search.all_rows))


def _constant_outputs(bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.tile(bias, (len(x), 1))


def _whole(outputs: Predictor, classes: int, present: np.ndarray, rows: int, x: np.ndarray) -> np.ndarray:
    """Return outputs for each class of the schema, of those for the classes with rows."""
    own = outputs(x)
    if own.shape[1] == 1:
        own = np.hstack([np.zeros_like(own), own])
    share = logsumexp(own, axis=1, keepdims=True) + np.log(0.5 / rows)
    logits = np.tile(share, (1, classes))
    logits[:, present] = own
    return logits


def suffice_for_trees(rows: Encoded, task: str, classes: int) -> bool:
    """Return whether rows suffice to grow trees."""
    if len(rows) < LEAST_ROWS or task == "regression":
        return len(rows) >= LEAST_ROWS
    _, units = units_by_class(rows, classes)
    return int(units.min()) >= LEAST_OF_A_CLASS


def _trees_below(cv_search: Search, bar: float, seed: int) -> Rival | None:
    """Fit boosted trees at their best setting.

    They are fitted on all rows. None where no setting has less loss than `bar`, or no fold can be tested.
    """
    if not cv_search.folds:
        return None
    losses: Counter[tuple[int, int]] = Counter()
    # Losses of all folds are added up for each number of leaves and trees.
    with _one_thread():
        for leaves, fold in product(TREES, cv_search.folds):
            losses.update(_losses_by_trees(cv_search, fold, leaves, seed))
        best = min(losses, key=losses.__getitem__)
        if losses[best] >= bar:
            return None
        model = _boosted(cv_search.all_rows, cv_search.task, *best, seed)
    return Rival("boosted-trees", partial(_outputs, model))


def _one_thread() -> threadpool_limits:
    """Limit scikit-learn's trees to one thread.

    Returns the context in which they are limited.

    On a table several wait for each other longer than they compute: ten times the processor's seconds.
    """
    import sklearn.ensemble  # noqa: F401 - its threads can be bounded only once they are loaded

    return threadpool_limits(1, user_api="openmp")


def _losses_by_trees(cv_search: Search, fold: Fold, leaves: int, seed: int) -> dict[tuple[int, int], float]:
    """Return a fold's losses by leaves and trees.

    They are summed over the fold's test rows.
    """
    own = cv_search.rows.take(fold.train)
    test = cv_search.rows.take(fold.test)
    trees = TREES[leaves]
    task = cv_search.task
    y = test.y
    # By time a fold may lack a class; those of its test rows are all among its own.
    if task != "regression":
        present = np.unique(own.y)
        y = np.searchsorted(present, y)
        task = "binary" if len(present) == 2 else "multi-class"
    # One model of the largest number of trees gives the smaller ones on the way.
    model = _boosted(own, task, leaves, max(trees), seed)
    staged = model.staged_predict if task == "regression" else model.staged_decision_function
    by_number = enumerate(staged(test.x), 1)
    return {(leaves, number): _loss(task, out, y, test.counts) for number, out in by_number if number in trees}


def _boosted(rows: Encoded, task: str, leaves: int, trees: int, seed: int) -> Any:
    """Fit scikit-learn's boosted trees.

    No weights are given where all are the same, as with them it takes ten times as long. A column without any value
    has one for all rows, which scikit-learn cannot do without; no tree splits it.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    model = kind(
        learning_rate=LEARNING_RATE, max_leaf_nodes=leaves, max_iter=trees, early_stopping=False, random_state=seed
    )
    x = np.where(np.isnan(rows.x).all(axis=0), 0.0, rows.x)
    weight = rows.weight if np.ptp(rows.weight) else None
    return model.fit(x, rows.y, weight)


def _outputs(model: Any, x: np.ndarray) -> np.ndarray:
    """Return log-odds, logits or predictions.

    Predictions are of a regression; [rows, outputs].
    """
    with _one_thread():
        scores = model.decision_function(x) if hasattr(model, "decision_function") else model.predict(x)
    return np.asarray(scores).reshape(len(x), -1)


def _loss(task: str, outputs: np.ndarray, y: np.ndarray, counts: np.ndarray | float) -> float:
    """Return the summed loss of outputs, each as often as its row counts.

    There are one or more outputs a row; the loss is that of `sum_test_losses`.
    """
    if task == "regression":
        return float(np.square(outputs.ravel() - y).sum())
    return float((counts * log_losses(outputs.reshape(len(y), -1), y)).sum())


def naive_forecasts(
    rows: Encoded, columns: Sequence[LinearPredictor] = (), least: int = 0
) -> dict[OwnFamily, LinearPredictor]:
    """Return the forecasts that rows in the order of time allow, by family.

    None of other rows.

    Parameters
    ----------
    rows : Encoded
        Of a regression, to train on.
    columns : sequence of LinearPredictor
        `column_forecasts`, of which the one with the least squared error is taken.
    least : int
        Rows, of as many people, that the last value is the mean of at least. Figures of a constant reveal the constant.
        0 leaves it out, as of rows of several sites.
    """
    if rows.elapsed is None:
        return {}
    forecasts = {MEAN: _constant(rows, float(rows.y.mean()))}
    last = _latest_rows(rows, least)
    if last.any():
        forecasts[LAST] = _constant(rows, float(rows.y[last].mean()))
    if columns:
        forecasts[COLUMN] = min(columns, key=lambda column: squared_error(column, rows))
    return forecasts


def _latest_rows(rows: Encoded, least: int) -> np.ndarray:
    """Return which are the latest whole blocks with `least` rows of as many people; none where there are none."""
    latest = np.zeros(len(rows), dtype=bool)
    if 0 < least <= len(rows) and rows.elapsed is not None:
        latest = rows.elapsed >= np.sort(rows.elapsed)[-least]
    # There are so many rows already, but they may be of fewer people.
    if rows.group is not None and len(np.unique(rows.group[latest])) < least:
        latest[:] = False
    return latest


def _constant(rows: Encoded, value: float) -> LinearPredictor:
    return LinearPredictor.constant(np.array([value]), rows.x.shape[1])


def squared_error(forecast: LinearPredictor, rows: Encoded) -> float:
    """Return the summed squared error of a forecast."""
    return float(np.square(forecast(rows.x)[:, 0] - rows.y).sum())


def last_over_mean(rows: Encoded, least: int) -> float:
    """Return the squared error of the last value over that of the mean, of rows in the order of time.

    Both are made of the rows before a block and tried on all from that block on, for blocks of `Encoded.latest`. A
    single last value may be near the next ones by chance. Infinite where there is no last value; `least` as
    `naive_forecasts` takes it.
    """
    latest = rows.latest()
    elapsed = rows.elapsed
    errors = np.zeros(2)
    if latest is None or elapsed is None:
        return np.inf
    starts = np.unique(elapsed[latest])
    for start in starts[:: max(1, len(starts) // ORIGINS)]:
        forecasts = naive_forecasts(rows.take(np.flatnonzero(elapsed < start)), least=least)
        after = rows.take(np.flatnonzero(elapsed >= start))
        if LAST in forecasts:
            errors += [squared_error(forecasts[LAST], after), squared_error(forecasts[MEAN], after)]
    return float(errors[0] / errors[1]) if errors[1] else np.inf


def column_forecasts(names: Sequence[str], layout: Layout, encoder: Encoder) -> list[LinearPredictor]:
    """Return the forecasts that columns are, as functions of scaled inputs.

    Where a column has no value its mean stands in place of it.

    Parameters
    ----------
    names : sequence of str
        As the check of a study lets them be.
    layout : Layout
    encoder : Encoder
        By which the inputs and the target are scaled.
    """
    scaled = replace(layout, plain=False)
    places = input_slices(scaled)
    inputs = len(input_names(scaled))
    numbers = {column.name: number for number, column in enumerate(layout.features)}
    forecasts = []
    for name in names:
        if name not in numbers:
            continue  # the coordinator's own check refuses it before
        number = numbers[name]
        weight = np.zeros((inputs, 1))
        # Both are scaled about a centre: one deviation of the column is so many of the target.
        weight[places[name].start] = encoder.scale[number] / encoder.scale[-1]
        bias = (encoder.center[number] - encoder.center[-1]) / encoder.scale[-1]
        forecasts.append(LinearPredictor(weight, np.array([bias])))
    return forecasts
