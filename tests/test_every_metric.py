"""What every metric of the listing promises, whatever it measures."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import sklearn.metrics

from flfed.listing import load, names

TASKS = ("binary", "multi-class", "regression")
METRICS = names("metric")
CASES = [(name, task) for name in METRICS for task in load("metric", name).tasks]


def example(task: str, n: int = 60, seed: int = 3):
    """Return targets [n] and scores ([n] or [n, 3]) of a task, with equal scores among them."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(50, 10, n)
        return y, np.round(y + rng.normal(0, 5, n))
    if task == "binary":
        y = rng.permutation(np.arange(n) % 2)
        return y, np.round(np.clip(0.3 * y + rng.uniform(0, 0.7, n), 0.01, 0.99), 1)
    y, odds = rng.permutation(np.arange(n) % 3), rng.integers(1, 5, (n, 3))
    return y, odds / odds.sum(axis=1, keepdims=True)


def scikit_learn(name: str, task: str, y, score, weight=None) -> float:
    if name == "accuracy_score":
        score = (score > 0.5).astype(int) if task == "binary" else score.argmax(axis=1)
    options = {"multi_class": "ovr"} if (name, task) == ("roc_auc_score", "multi-class") else {}
    return float(getattr(sklearn.metrics, name)(y, score, sample_weight=weight, **options))


def test_there_are_eight_metrics_and_they_keep_underscores():
    assert sorted(METRICS) == METRICS and len(METRICS) >= 8
    assert {"roc_auc_score", "brier_score_loss", "r2_score"} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_bears_the_name_scikit_learn_gives_it_and_says_what_it_is(name):
    metric = load("metric", name)
    assert hasattr(sklearn.metrics, name)
    assert "Source:" in inspect.getdoc(metric)
    assert metric.better == ("lower" if name.endswith(("loss", "error")) else "higher")
    assert metric.unit == ("target" if name.endswith("error") else "")
    assert metric.tasks and set(metric.tasks) <= set(TASKS)
    assert metric.label and "_" not in metric.label


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_metric_equals_scikit_learn_with_and_without_weights(name, task):
    y, score = example(task)
    weights = np.random.default_rng(5).multinomial(len(y), np.full(len(y), 1 / len(y)), size=4)
    metric = load("metric", name)()
    assert metric.value(y, score) == pytest.approx(scikit_learn(name, task, y, score), abs=1e-12)
    expected = [scikit_learn(name, task, y, score, row) for row in weights]
    np.testing.assert_allclose(metric.weighted(y, score, weights.astype(float)), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_weight_of_two_is_a_row_given_twice_and_none_a_row_left_out(name, task):
    y, score = example(task)
    times = np.arange(len(y)) % 3
    metric = load("metric", name)()
    repeated = metric.value(np.repeat(y, times), np.repeat(score, times, axis=0))
    np.testing.assert_allclose(metric.weighted(y, score, times[None].astype(float)), repeated, rtol=1e-12)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_only_the_ratio_of_weights_counts_and_not_the_order_of_rows(name, task):
    y, score = example(task)
    rng = np.random.default_rng(8)
    weights, order = rng.uniform(0.1, 1, (3, len(y))), rng.permutation(len(y))
    metric = load("metric", name)()
    expected = metric.weighted(y, score, weights)
    np.testing.assert_allclose(metric.weighted(y, score, 7 * weights), expected, rtol=1e-12)
    shuffled = metric.weighted(y[order], score[order], weights[:, order])
    np.testing.assert_allclose(shuffled, expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_metric_leaves_its_arguments_as_they_were(name, task):
    y, score = example(task)
    weights = np.ones((2, len(y)))
    before = y.copy(), score.copy(), weights.copy()
    load("metric", name)().weighted(y, score, weights)
    for now, then in zip((y, score, weights), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_metric_is_nan_with_a_reason_without_rows_and_nan_in_a_draw_without_weight(name, task):
    y, score = example(task)
    metric = load("metric", name)()
    assert metric.defined(y) == ""
    assert metric.defined(y[:0]) == "no rows"
    assert np.isnan(metric.value(y[:0], score[:0]))
    drawn = metric.weighted(y, score, np.stack([np.zeros(len(y)), np.ones(len(y))]))
    np.testing.assert_array_equal(np.isnan(drawn), [True, False])


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_score_that_is_not_a_number_gives_a_value_that_is_none(name, task):
    y, score = example(task)
    score[4] = np.nan
    assert np.isnan(load("metric", name)().value(y, score))


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_better_score_moves_a_metric_to_its_better_side(name, task):
    y, score = example(task)
    best = np.eye(3)[y] if task == "multi-class" else y.astype(float)
    metric = load("metric", name)()
    gain = metric.value(y, (score + best) / 2) - metric.value(y, score)
    assert gain * (1 if metric.better == "higher" else -1) > 0
