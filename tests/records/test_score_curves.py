"""ROC, precision-recall and calibration from counts, against scikit-learn and statsmodels on the same scores."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from statsmodels.stats.proportion import proportion_confint

from flfed.records.statistics.score_curves import (
    GROUPS,
    LEAST_ROWS,
    MOST_POINTS,
    ScoreCounts,
    average_precision,
    average_precision_hidden,
    calibration,
    precision_recall,
    roc,
    roc_auc,
    roc_auc_hidden,
    steps,
    thinned,
    wilson,
)
from flfed.rows.evaluation.scoring import histogram
from flfed.summaries.score_bins import auc_of_histogram
from tests.records.counted_rows import counted, rows_of


def of_bins(probability: np.ndarray, negative: np.ndarray, positive: np.ndarray, reach: float = 0.0) -> ScoreCounts:
    """Counts of bins that reach so far to either side of their middles."""
    return ScoreCounts(probability, negative, positive, probability - reach, probability + reach)


def test_the_curves_are_those_of_scikit_learn_on_the_same_scores(scored):
    counts = counted(*scored)
    y, score = rows_of(counts, counts.probability)
    false, true, _ = roc_curve(y, score)
    found = roc(counts)
    np.testing.assert_allclose(np.interp(false[1:-1] + 1e-12, *found), np.interp(false[1:-1] + 1e-12, false, true))
    assert roc_auc(counts) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert average_precision(counts) == pytest.approx(average_precision_score(y, score), abs=1e-12)
    precision, recall, _ = precision_recall_curve(y, score, drop_intermediate=False)
    ours = precision_recall(counts)
    np.testing.assert_allclose(ours[0][1:], recall[:-1][::-1])
    np.testing.assert_allclose(ours[1][1:], precision[:-1][::-1])


def test_the_area_is_that_of_the_merged_histogram(scored):
    assert roc_auc(counted(*scored)) == pytest.approx(auc_of_histogram(histogram(*scored)), abs=1e-12)


def test_the_figures_of_the_rows_are_within_what_the_counting_can_hide():
    rng = np.random.default_rng(0)
    for place in range(60):
        y = (rng.random(rng.integers(4, 300)) < rng.uniform(0.05, 0.9)).astype(int)
        y[:2] = [0, 1]
        score = 1 / (1 + np.exp(-(rng.normal(size=len(y)) * rng.uniform(0.02, 2) + y * rng.uniform(-1, 1))))
        score = score.round(2) if place % 3 == 0 else score  # ties of the scores themselves, too
        counts = counted(y, score)
        assert abs(roc_auc(counts) - roc_auc_score(y, score)) <= roc_auc_hidden(counts) + 1e-12
        off = abs(average_precision(counts) - average_precision_score(y, score))
        assert off <= average_precision_hidden(counts) + 1e-12


def test_what_can_be_hidden_is_reached_where_all_rows_share_a_bin():
    # two rows without and one with the outcome in one bin: AUC 0.5, but 0 or 1 by the rows;
    # average precision 1/3 where the one is last or ties with both, 1 where it is first
    one = of_bins(np.array([0.5]), np.array([2.0]), np.array([1.0]))
    assert (roc_auc(one), roc_auc_hidden(one)) == (0.5, 0.5)
    assert average_precision(one) == pytest.approx(1 / 3)
    assert average_precision_hidden(one) == pytest.approx(2 / 3)
    apart = of_bins(np.array([0.2, 0.8]), np.array([3.0, 0.0]), np.array([0.0, 1.0]))
    assert (roc_auc_hidden(apart), average_precision_hidden(apart)) == (0.0, 0.0)


def test_a_thinned_curve_is_the_same_picture():
    rng = np.random.default_rng(2)
    y = (rng.random(100_000) < 0.3).astype(int)
    counts = counted(y, 1 / (1 + np.exp(-(2 * rng.normal(size=len(y)) + y))))
    at = np.linspace(0, 1, 1001)
    for x, y_axis in (roc(counts), steps(*precision_recall(counts))):
        few = thinned(x, y_axis)
        assert len(few[0]) <= MOST_POINTS
        assert np.trapezoid(few[1], few[0]) == pytest.approx(np.trapezoid(y_axis, x), abs=1e-4)
        assert (few[0][0], few[1][0], few[0][-1], few[1][-1]) == (x[0], y_axis[0], x[-1], y_axis[-1])
    x, y_axis = roc(counts)
    np.testing.assert_allclose(np.interp(at, *thinned(x, y_axis, 60)), np.interp(at, x, y_axis), atol=2e-3)
    # a corner at which two equal points stand is none to leave out
    np.testing.assert_array_equal(thinned(np.array([0.0, 1, 1, 1]), np.array([0.0, 0, 0, 1])), [[0, 1, 1], [0, 0, 1]])


def test_the_area_below_the_drawn_steps_is_the_average_precision(scored):
    counts = counted(*scored)
    x, y = thinned(*steps(*precision_recall(counts)))
    assert np.trapezoid(y, x) == pytest.approx(average_precision(counts), abs=1e-3)


def test_points_that_are_left_out_of_the_curve_lie_on_it():
    # two negatives and two positives, each pair in one bin: one straight line from (0, 0) to (1, 1)
    straight = of_bins(np.array([0.2, 0.8]), np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert [list(axis) for axis in roc(straight)] == [[0.0, 1.0], [0.0, 1.0]]
    perfect = of_bins(np.array([0.2, 0.8]), np.array([3.0, 0.0]), np.array([0.0, 2.0]))
    assert [list(axis) for axis in roc(perfect)] == [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    assert (roc_auc(perfect), average_precision(perfect)) == (1.0, 1.0)
    reverse = of_bins(np.array([0.2, 0.8]), np.array([0.0, 3.0]), np.array([2.0, 0.0]))
    assert roc_auc(reverse) == 0.0
    assert average_precision(reverse) == pytest.approx(2 / 5)


def test_a_group_has_its_rows_their_mean_prediction_and_the_share_that_happened(scored):
    counts = counted(*scored)
    y, score = rows_of(counts, counts.probability)
    groups = calibration(counts)
    assert sum(group.rows for group in groups) == len(y)
    assert len(groups) <= GROUPS
    assert min(group.rows for group in groups) >= min(LEAST_ROWS, len(y))
    start = 0
    for group in groups:
        mine = slice(start, start + group.rows)
        assert group.predicted == pytest.approx(score[mine].mean())
        assert group.observed == pytest.approx(y[mine].mean())
        low, high = proportion_confint(int(y[mine].sum()), group.rows, method="wilson")
        assert (group.low, group.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
        start += group.rows


def test_the_groups_are_those_of_scikit_learn_where_bins_are_groups():
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 20, GROUPS).astype(float)
    counts = of_bins(np.linspace(0.05, 0.95, GROUPS), 20 - rows, rows)
    observed, predicted = calibration_curve(*rows_of(counts, counts.probability), n_bins=GROUPS, strategy="uniform")
    found = calibration(counts)
    np.testing.assert_allclose([group.observed for group in found], observed)
    np.testing.assert_allclose([group.predicted for group in found], predicted)
    assert [group.rows for group in found] == [20] * GROUPS


def test_few_rows_are_one_group_and_fewer_none():
    y, score = np.array([0, 1] * 5), np.linspace(0.1, 0.9, 10)
    assert [(group.rows, group.observed) for group in calibration(counted(y, score))] == [(10, 0.5)]
    assert calibration(counted(y[:9], score[:9])) == []
    assert calibration(counted(y[:0], score[:0])) == []
    # the last group takes rows that are too few for one more: 12 and 9 rows are one group of 21
    counts = of_bins(np.array([0.2, 0.7]), np.array([12.0, 0.0]), np.array([0.0, 9.0]))
    assert [group.rows for group in calibration(counts)] == [21]


def test_predictions_that_hold_are_found_to_hold_and_others_not():
    rng = np.random.default_rng(5)
    score = rng.uniform(0.05, 0.95, 20_000)
    y = (rng.random(20_000) < score).astype(int)
    held = [group.low <= group.predicted <= group.high for group in calibration(counted(y, score))]
    assert sum(held) >= 8  # of 10, each with 95 %
    too_high = [group.predicted > group.high for group in calibration(counted(y, score**0.5))]
    assert sum(too_high) >= 8


def test_what_the_bins_cannot_tell_is_no_miss():
    # 260 of 1,000 rows: with 95 % the share is 0.234 to 0.288, and a prediction of 0.3 seems too high; in a
    # bin from 0.285 to 0.315 it may be 0.285
    low, high = proportion_confint(260, 1000, method="wilson")
    assert low < 0.285 < high < 0.29
    for middle, reach, found in ((0.3, 0.015, (False, False)), (0.3, 0.005, (True, False))):
        (group,) = calibration(of_bins(np.array([middle]), np.array([740.0]), np.array([260.0]), reach))
        assert group.predicted > group.high  # the middle of the bin misses in both
        assert (group.too_high, group.too_low) == found
    for middle, reach, found in ((0.22, 0.02, (False, False)), (0.22, 0.01, (False, True))):
        (group,) = calibration(of_bins(np.array([middle]), np.array([740.0]), np.array([260.0]), reach))
        assert (group.too_high, group.too_low) == found


def test_the_mean_prediction_of_the_rows_lies_where_the_bins_say():
    rng = np.random.default_rng(4)
    for centre in (-14.0, -7.0, -1.0, 3.0):  # rare outcomes, too, and predictions beyond the last bin
        score = 1 / (1 + np.exp(-(centre + rng.normal(size=500))))
        y = (rng.random(500) < 0.5).astype(int)
        mean, least, most = counted(y, score).predicted
        assert least <= score.mean() <= most
        assert least <= mean <= most
        groups = calibration(counted(y, score))
        start, ordered = 0, np.sort(score)
        for group in groups:  # bins are even by rows of like predictions, so groups are those of the sorted rows
            assert group.least <= ordered[start : start + group.rows].mean() <= group.most
            start += group.rows


def test_the_interval_of_a_share_stays_within_0_and_1():
    for events, n in ((0, 12), (12, 12), (1, 3)):
        low, high = proportion_confint(events, n, method="wilson")
        assert wilson(events, n) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_of_one_class_there_is_no_curve_but_there_are_groups():
    y, score = np.ones(30, dtype=int), np.linspace(0.3, 0.9, 30)
    counts = counted(y, score)
    assert (counts.rows, counts.events, counts.has_both) == (30, 30, False)
    assert counted(y[:0], score[:0]).has_both is False
    assert [group.observed for group in calibration(counts)] == [1.0] * len(calibration(counts))
