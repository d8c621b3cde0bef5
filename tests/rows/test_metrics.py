"""Metrics against scikit-learn, against closed forms, and where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flfed.errors import UsageError
from flfed.rows.evaluation.intervals import estimate
from flfed.rows.metrics.accuracy_score import AccuracyScore
from flfed.rows.metrics.average_precision_score import AveragePrecisionScore
from flfed.rows.metrics.brier_score_loss import BrierScoreLoss
from flfed.rows.metrics.calibration_in_the_large_error import CalibrationInTheLargeError
from flfed.rows.metrics.log_loss import LogLoss
from flfed.rows.metrics.mean_absolute_error import MeanAbsoluteError
from flfed.rows.metrics.r2_score import R2Score
from flfed.rows.metrics.recall_at_alert_budget import RecallAtAlertBudget
from flfed.rows.metrics.roc_auc_score import RocAucScore
from flfed.rows.metrics.root_mean_squared_error import RootMeanSquaredError


@st.composite
def binary_rows(draw):
    """Codes and probabilities on a grid of eleven, so that most scores have equals."""
    n = draw(st.integers(2, 40))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    score = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 10))) / 10
    weights = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3))).astype(float)
    assume(0 < y.sum() < n and weights[y == 1].sum() > 0 and weights[y == 0].sum() > 0)
    return y, score, weights


@st.composite
def class_rows(draw):
    """Codes of three classes that all occur, and probabilities in quarters and thirds."""
    n = draw(st.integers(3, 30))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 2)))
    odds = draw(hnp.arrays(np.int64, (n, 3), elements=st.integers(1, 3)))
    assume(len(np.unique(y)) == 3)
    return y, odds / odds.sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(binary_rows())
def test_binary_metrics_equal_scikit_learn_also_with_ties_and_weights(rows):
    y, score, weights = rows
    for metric, reference in (
        (RocAucScore(), sklearn.metrics.roc_auc_score),
        (AveragePrecisionScore(), sklearn.metrics.average_precision_score),
        (LogLoss(), sklearn.metrics.log_loss),
        (BrierScoreLoss(), sklearn.metrics.brier_score_loss),
    ):
        assert metric.value(y, score) == pytest.approx(reference(y, score), abs=1e-12)
        drawn = metric.weighted(y, score, weights[None])[0]
        assert drawn == pytest.approx(reference(y, score, sample_weight=weights), abs=1e-12)


@settings(deadline=None)
@given(class_rows())
def test_metrics_of_three_classes_equal_scikit_learn_also_with_ties(rows):
    y, score = rows
    auc = sklearn.metrics.roc_auc_score(y, score, multi_class="ovr")
    assert RocAucScore().value(y, score) == pytest.approx(auc, abs=1e-12)
    assert LogLoss().value(y, score) == pytest.approx(sklearn.metrics.log_loss(y, score), abs=1e-12)
    accuracy = sklearn.metrics.accuracy_score(y, score.argmax(axis=1))
    assert AccuracyScore().value(y, score) == pytest.approx(accuracy, abs=1e-12)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, 12, elements=st.integers(-50, 50).map(float)),
    hnp.arrays(np.float64, 12, elements=st.floats(-60, 60, width=32)), st.sampled_from([0.0, 1e3, 1e6]),
)  # fmt: skip
def test_regression_metrics_equal_scikit_learn_also_far_from_zero(y, score, offset):
    assume(np.ptp(y) > 0)
    y, score = y + offset, score + offset
    for metric, reference in (
        (R2Score(), sklearn.metrics.r2_score),
        (MeanAbsoluteError(), sklearn.metrics.mean_absolute_error),
        (RootMeanSquaredError(), sklearn.metrics.root_mean_squared_error),
    ):
        assert metric.value(y, score) == pytest.approx(reference(y, score), rel=1e-12, abs=1e-12)


def test_average_precision_of_four_rows_by_hand():
    # falling scores, classes 1 0 1 0: precision 1 at the first positive, 2/3 at the second
    y, score = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.35, 0.3])
    assert AveragePrecisionScore().value(y, score) == pytest.approx((1 + 2 / 3) / 2, abs=1e-15)
    # all scores equal: everybody is called at once, precision is the share of positives
    assert AveragePrecisionScore().value(y, np.full(4, 0.2)) == pytest.approx(0.5, abs=1e-15)


def test_a_constant_probability_has_the_textbook_scores():
    y, half = np.array([0, 1, 1, 1]), np.full(4, 0.5)
    assert BrierScoreLoss().value(y, half) == pytest.approx(0.25, abs=1e-15)
    assert LogLoss().value(y, half) == pytest.approx(np.log(2), abs=1e-15)
    assert RocAucScore().value(y, half) == pytest.approx(0.5, abs=1e-15)
    assert AccuracyScore().value(y, half) == pytest.approx(0.25, abs=1e-15)  # 0.5 calls class 0


def test_a_certain_error_costs_minus_the_log_of_the_score_types_precision():
    # scikit-learn clips to eps of the score's dtype, so a score of 0 costs -log(eps)
    y, wrong = np.array([1, 1]), np.zeros(2)
    assert LogLoss().value(y, wrong) == pytest.approx(52 * np.log(2), abs=1e-12)  # float64: eps = 2^-52
    single = LogLoss().value(y, wrong.astype(np.float32))
    assert single == pytest.approx(23 * np.log(2), abs=1e-12)  # float32: eps = 2^-23


def test_auc_over_classes_is_the_mean_over_the_classes_that_occur():
    # class 2 has no row: mean of the AUC of class 0 and of class 1 against the rest
    y = np.array([0, 0, 1, 1])
    score = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.4, 0.1, 0.5], [0.1, 0.6, 0.3]])
    # class 0: 0.7 > 0.4, 0.1; 0.3 > 0.1 only: 3 of 4. class 1: 0.1 beats none; 0.6 beats 0.2, 0.3: 2 of 4
    assert RocAucScore().value(y, score) == pytest.approx((3 / 4 + 2 / 4) / 2, abs=1e-15)


def test_losses_take_the_number_of_classes_from_the_score_when_a_class_is_absent():
    y, score = np.array([0, 0]), np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    reference = sklearn.metrics.log_loss(y, score, labels=[0, 1, 2])
    assert LogLoss().value(y, score) == pytest.approx(reference, abs=1e-12)
    assert reference == pytest.approx((np.log(2) + np.log(4)) / 2, abs=1e-12)
    assert AccuracyScore().value(y, score) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("metric", [RocAucScore(), AveragePrecisionScore()])
def test_ranking_metrics_are_undefined_on_one_class_and_in_draws_of_one_class(metric):
    y, score = np.array([0, 1, 1]), np.array([0.2, 0.4, 0.9])
    assert metric.defined(y[1:]) == "only one class in the holdout"
    assert np.isnan(metric.value(y[1:], score[1:]))
    assert np.isnan(metric.weighted(y, score, np.array([[3.0, 0.0, 0.0]]))[0])


def test_r2_is_undefined_on_one_row_and_on_a_constant_target():
    metric = R2Score()
    assert metric.defined(np.array([2.0])) == "fewer than two rows"
    assert metric.defined(np.array([2.1, 2.1])) == "the target is the same in every row"
    assert np.isnan(metric.value(np.array([2.1, 2.1]), np.array([2.0, 2.2])))
    # a draw that took the first row three times has one target value, the next has two
    y, weights = np.array([0.1, 0.7, 0.3]), np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(metric.weighted(y, y, weights), [np.nan, 1.0], rtol=1e-15)


def test_the_mean_has_r2_of_zero_and_a_shift_costs_its_square():
    y = np.array([1.0, 2.0, 3.0, 6.0])  # mean 3, sum of squares about it 4 + 1 + 0 + 9 = 14
    assert R2Score().value(y, np.full(4, 3.0)) == pytest.approx(0, abs=1e-15)
    assert R2Score().value(y, y + 2) == pytest.approx(1 - 4 * 2**2 / 14, abs=1e-15)
    assert MeanAbsoluteError().value(y, y + 2) == pytest.approx(2, abs=1e-15)
    assert RootMeanSquaredError().value(y, y + 2) == pytest.approx(2, abs=1e-15)


def test_recall_at_a_budget_of_ten_rows_by_hand():
    # Two rows may be looked at. Falling: 1 | 0 1 tied | seven more with one event: 1 + 1/2 of 3 events.
    y = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0, 0])
    score = np.array([0.9, 0.8, 0.8, 0.5, 0.4, 0.3, 0.2, 0.2, 0.1, 0.1])
    assert RecallAtAlertBudget(alert_budget=0.2).value(y, score) == pytest.approx(1.5 / 3, abs=1e-15)
    # Two and a half rows: three quarters of the tied pair.
    assert RecallAtAlertBudget(alert_budget=0.25).value(y, score) == pytest.approx(1.75 / 3, abs=1e-15)
    assert RecallAtAlertBudget(alert_budget=0.6).value(y, score) == pytest.approx(1.0, abs=1e-15)
    # A constant score finds the budget itself.
    assert RecallAtAlertBudget(alert_budget=0.2).value(y, np.full(10, 0.5)) == pytest.approx(0.2, abs=1e-15)


@settings(max_examples=25, deadline=None)
@given(binary_rows(), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_ties_at_the_budget_count_as_on_average_over_random_orders(rows, twentieths, seed):
    y, score, _ = rows
    budget, rng = twentieths / 20, np.random.default_rng(seed)
    room = budget * len(y)
    recalls = []
    for _ in range(400):
        order = np.lexsort((rng.random(len(y)), -score))
        looked_at = np.clip(room - np.arange(len(y)), 0, 1)
        recalls.append((looked_at * (y[order] == 1)).sum() / (y == 1).sum())
    expected = RecallAtAlertBudget(alert_budget=budget).value(y, score)
    assert np.mean(recalls) == pytest.approx(expected, abs=6 * np.std(recalls) / 20 + 1e-9)


@pytest.mark.parametrize("budget", [0.0, 1.0, -0.1, float("nan")])
def test_an_alert_budget_of_nothing_or_everything_is_refused(budget):
    with pytest.raises(UsageError, match=r"must be (in \(0, 1\)|a finite number)"):
        RecallAtAlertBudget(alert_budget=budget)


def test_twice_too_many_and_half_of_the_events_are_equally_wrong():
    y = np.array([1, 0, 0, 0])
    metric = CalibrationInTheLargeError()
    assert metric.value(y, np.full(4, 0.25)) == pytest.approx(0.0, abs=1e-15)
    assert metric.value(y, np.full(4, 0.5)) == pytest.approx(np.log(2), abs=1e-15)
    assert metric.value(y, np.full(4, 0.125)) == pytest.approx(np.log(2), abs=1e-15)
    # with its sign: above 0 where too many events are expected
    signed = [metric.signed(y, np.full(4, p), np.ones((1, 4)))[0] for p in (0.5, 0.125)]
    np.testing.assert_allclose(signed, [np.log(2), -np.log(2)], atol=1e-15)


@pytest.mark.parametrize("metric", [RecallAtAlertBudget(), CalibrationInTheLargeError()])
def test_figures_of_events_are_undefined_without_an_event(metric):
    y, score = np.array([0, 0, 1]), np.array([0.2, 0.4, 0.9])
    assert metric.defined(y) == ""
    assert metric.defined(y[:2]) == "no positive in the holdout"
    assert np.isnan(metric.value(y[:2], score[:2]))
    assert np.isnan(metric.weighted(y, score, np.array([[1.0, 2.0, 0.0]]))[0])


@pytest.mark.parametrize("truth", [0.0, 0.15, -0.7])
def test_the_interval_of_a_calibration_error_holds_the_truth_also_where_it_is_0(truth):
    # of 120 samples 95 % are 114, sd 2.4; an interval of the size alone held a truth of 0 never, and 0.1 in 81 %
    held = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        chance = rng.beta(1, 9, 400)
        found = estimate(
            CalibrationInTheLargeError(), (rng.random(400) < chance).astype(int), np.exp(truth) * chance, rng, draws=300
        )
        held += found.low <= abs(truth) <= found.high
        assert 0 <= found.low <= found.value <= found.high
    assert held >= 107
