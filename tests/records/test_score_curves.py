"""ROC, precision-recall and calibration from counts, against scikit-learn and statsmodels on the same scores."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from statsmodels.stats.proportion import proportion_confint

from flfed.records.score_curves import (
    GROUPS,
    LEAST_ROWS,
    ScoreCounts,
    average_precision,
    calibration,
    precision_recall,
    roc,
    roc_auc,
    wilson,
)
from flfed.rows.scoring import HISTOGRAM_BINS, HISTOGRAM_LIMIT, auc_of_histogram, histogram


def sparse(counts: np.ndarray) -> dict[str, list[list[int]]]:
    return {str(c): [[int(i), int(row[i])] for i in np.flatnonzero(row)] for c, row in enumerate(counts)}


def counted(y: np.ndarray, score: np.ndarray) -> ScoreCounts:
    return ScoreCounts.read(sparse(histogram(y, score)), bins=HISTOGRAM_BINS, limit=HISTOGRAM_LIMIT)


def rows_of(counts: ScoreCounts) -> tuple[np.ndarray, np.ndarray]:
    """Every row again, with the middle of its bin as its score."""
    y = [np.repeat([0, 1], [int(n), int(p)]) for n, p in zip(counts.negative, counts.positive, strict=True)]
    score = np.repeat(counts.probability, (counts.negative + counts.positive).astype(int))
    return np.concatenate(y), score


@pytest.fixture(params=[(400, 0.5, 1.0), (2000, 0.05, 2.0), (37, 0.9, 0.5)], ids=["even", "rare", "few"])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rows, share, gap = request.param
    rng = np.random.default_rng(3)
    y = (rng.random(rows) < share).astype(int)
    y[:2] = [0, 1]
    return y, 1 / (1 + np.exp(-(rng.normal(size=rows) + gap * y - 1)))


def test_the_curves_are_those_of_scikit_learn_on_the_same_scores(scored):
    counts = counted(*scored)
    y, score = rows_of(counts)
    false, true, _ = roc_curve(y, score)
    found = roc(counts)
    np.testing.assert_allclose(np.interp(false[1:-1] + 1e-12, *found), np.interp(false[1:-1] + 1e-12, false, true))
    assert roc_auc(counts) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert average_precision(counts) == pytest.approx(average_precision_score(y, score), abs=1e-12)
    precision, recall, _ = precision_recall_curve(y, score, drop_intermediate=False)
    ours = precision_recall(counts)
    np.testing.assert_allclose(ours[0][1:], recall[:-1][::-1])
    np.testing.assert_allclose(ours[1][1:], precision[:-1][::-1])


def test_the_area_is_that_of_the_merged_histogram_and_near_that_of_the_rows(scored):
    counts = counted(*scored)
    assert roc_auc(counts) == pytest.approx(auc_of_histogram(histogram(*scored)), abs=1e-12)
    assert roc_auc(counts) == pytest.approx(roc_auc_score(*scored), abs=0.004)


def test_points_that_are_left_out_of_the_curve_lie_on_it():
    # two negatives and two positives, each pair in one bin: one straight line from (0, 0) to (1, 1)
    straight = ScoreCounts(np.array([0.2, 0.8]), np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert [list(axis) for axis in roc(straight)] == [[0.0, 1.0], [0.0, 1.0]]
    perfect = ScoreCounts(np.array([0.2, 0.8]), np.array([3.0, 0.0]), np.array([0.0, 2.0]))
    assert [list(axis) for axis in roc(perfect)] == [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    assert (roc_auc(perfect), average_precision(perfect)) == (1.0, 1.0)
    reverse = ScoreCounts(np.array([0.2, 0.8]), np.array([0.0, 3.0]), np.array([2.0, 0.0]))
    assert roc_auc(reverse) == 0.0
    assert average_precision(reverse) == pytest.approx(2 / 5)


def test_a_group_has_its_rows_their_mean_prediction_and_the_share_that_happened(scored):
    counts = counted(*scored)
    y, score = rows_of(counts)
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


def test_predictions_that_hold_are_found_to_hold_and_others_not():
    rng = np.random.default_rng(5)
    score = rng.uniform(0.05, 0.95, 20_000)
    y = (rng.random(20_000) < score).astype(int)
    held = [group.low <= group.predicted <= group.high for group in calibration(counted(y, score))]
    assert sum(held) >= 8  # of 10, each with 95 %
    too_high = [group.predicted > group.high for group in calibration(counted(y, score**0.5))]
    assert sum(too_high) >= 8


def test_the_interval_of_a_share_stays_within_0_and_1():
    for events, n in ((0, 12), (12, 12), (1, 3)):
        low, high = proportion_confint(events, n, method="wilson")
        assert wilson(events, n) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_of_one_class_there_is_no_curve_but_there_are_groups():
    y, score = np.ones(30, dtype=int), np.linspace(0.3, 0.9, 30)
    counts = counted(y, score)
    assert (counts.rows, counts.events, counts.has_both) == (30, 30, False)
    assert [group.observed for group in calibration(counts)] == [1.0] * len(calibration(counts))
