"""What every metric of the listing promises: the contract, and scikit-learn's values."""

import numpy as np
import pytest
import sklearn.metrics

from flfed.registry import load, names
from flfed.rows.evaluation.scoring import example
from flfed.testing import check_metric

METRICS = names("metric")
CASES = [(name, task) for name in METRICS for task in load("metric", name).tasks]
SETTINGS = {"recall_at_alert_budget": {"alert_budget": 0.5}}
"""Half of the rows may be looked at, so that sixty are enough for a difference."""
OWN = {"calibration_in_the_large_error", "recall_at_alert_budget"}
"""Metrics that scikit-learn does not have: the reference below is written out, row by row."""


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_keeps_the_contract(name):
    check_metric(load("metric", name), SETTINGS.get(name))


def written_out(name: str, y, score, weight=None) -> float:
    weight = np.ones(len(y)) if weight is None else weight
    if name == "calibration_in_the_large_error":
        observed = sum(w for w, label in zip(weight, y, strict=True) if label == 1)
        return abs(float(np.log(sum(w * p for w, p in zip(weight, score, strict=True)) / observed)))
    room, found = 0.5 * weight.sum(), 0.0
    for value in sorted(set(score), reverse=True):
        block = weight[score == value].sum()
        share = min(1.0, room / block) if block else 0.0
        found += share * weight[(score == value) & (y == 1)].sum()
        room = max(0.0, room - block)
    return float(found / weight[y == 1].sum())


def scikit_learn(name: str, task: str, y, score, weight=None) -> float:
    if name in OWN:
        return written_out(name, y, score, weight)
    if name == "accuracy_score":
        score = (score > 0.5).astype(int) if task == "binary" else score.argmax(axis=1)
    options = {"multi_class": "ovr"} if (name, task) == ("roc_auc_score", "multi-class") else {}
    return float(getattr(sklearn.metrics, name)(y, score, sample_weight=weight, **options))


def test_there_are_ten_metrics_and_they_keep_underscores():
    assert sorted(METRICS) == METRICS and len(METRICS) >= 10
    assert {"roc_auc_score", "brier_score_loss", "r2_score"} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_bears_the_name_scikit_learn_gives_it_if_any(name):
    metric = load("metric", name)
    assert hasattr(sklearn.metrics, name) != (name in OWN)
    assert metric.better == ("lower" if name.endswith(("loss", "error")) else "higher")
    assert metric.unit == ("target" if name.endswith("error") and "regression" in metric.tasks else "")


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_metric_equals_scikit_learn_or_its_definition_written_out_with_and_without_weights(name, task):
    y, score = example(task)
    weights = np.random.default_rng(5).multinomial(len(y), np.full(len(y), 1 / len(y)), size=4)
    metric = load("metric", name)(**SETTINGS.get(name, {}))
    assert metric.value(y, score) == pytest.approx(scikit_learn(name, task, y, score), abs=1e-12)
    expected = [scikit_learn(name, task, y, score, row) for row in weights]
    np.testing.assert_allclose(metric.weighted(y, score, weights.astype(float)), expected, rtol=1e-12)
