"""Flagged rows at false positive rates of training rows: those of scikit-learn, and none of an institution."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from flfed.rows.comparison.compare import compare, count_flagged, threshold_of
from flfed.rows.data.policy import Policy
from flfed.rows.training.answer import run_client
from tests.rows.test_compare import at_work, judged, model_of

RATES = (0.05, 0.3)


def scored(rows: int, seed: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.3).astype(int)
    return y, (1 / (1 + np.exp(-(rng.normal(size=rows) + 1.5 * y - 0.8)))).round(digits)


@pytest.mark.parametrize("digits", [9, 1], ids=["scores apart", "ties"])
@pytest.mark.parametrize("rate", [0.0, *RATES, 0.999])
def test_a_threshold_is_the_least_that_exceeds_no_rate(digits, rate):
    y, score = scored(500, 1, digits)
    threshold = threshold_of(rate, y, score)
    others = score[y == 0]
    assert (others >= threshold).mean() <= rate
    lower = np.unique(score)[np.unique(score) < threshold]
    assert not len(lower) or (others >= lower[-1]).mean() > rate


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_counts_are_those_of_scikit_learn(threshold):
    y, score = scored(500, 2, 9)
    counts = count_flagged(0.1, y, score, threshold)
    tn, fp, fn, tp = confusion_matrix(y, score >= threshold).ravel()
    assert counts.counts == (tp, fp, fn, tn) and counts.rate == 0.1


def test_a_score_that_is_no_number_is_not_flagged():
    counts = count_flagged(0.1, np.array([1, 1, 0, 0]), np.array([np.nan, 0.9, 0.1, np.nan]), 1e-9)
    assert counts.counts == (1, 1, 1, 1)


def compared(small_sites, small_study, policy: Policy | None):
    text = small_study.replace("[compare]\n", f"[compare]\nfalse-positive-rates = {list(RATES)}\n")
    sites = small_sites(1, rows=800, policy=policy)
    work, _, scores = judged(sites, text)
    sessions, encoder = at_work(sites, text)
    found = run_client(compare(sessions[0], model_of(sessions[0], encoder), encoder))
    return found, scores["global"], work.target(work.table.holdout("test"))


def test_an_open_site_counts_test_rows_from_a_threshold_of_its_training_rows(small_sites, small_study):
    found, score, y = compared(small_sites, small_study, None)
    assert [point.rate for point in found.points] == list(RATES)
    for point in found.points:
        assert point.method == "" and sum(point.counts) == len(y)
        # The counts are those at one threshold of the test rows' scores.
        assert point.counts in [count_flagged(point.rate, y, score, cut).counts for cut in np.unique(score)]
        assert point.fp / (y == 0).sum() == pytest.approx(point.rate, abs=0.08)


def test_an_institution_withholds_them_and_says_why(small_sites, small_study):
    found, *_ = compared(small_sites, small_study, Policy())
    assert {(point.counts, point.method) for point in found.points} == {
        ((-1, -1, -1, -1), "withheld: training rows set the threshold")
    }
