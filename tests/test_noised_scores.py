"""Metrics from noised counts of scores: against scikit-learn on the exact rows, over many draws of the noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from flfed.rows.statistics.noised_analysis import STEP, GaussianQuery
from flfed.rows.training.private_noise import SeededNoise
from flfed.study.plan import Plan
from flfed.summaries.noised_scores import (
    BINS,
    CLASS_LOST,
    METRICS,
    SCORES,
    ScoreCounts,
    base_rate,
    bounds_of,
    expit,
    score_counts,
)
from flfed.updates.privacy.record_dp import RecordDp

EXACT = {
    "roc_auc_score": lambda y, odds: roc_auc_score(y, odds),
    "log_loss": lambda y, odds: log_loss(y, expit(odds)),
    "brier_score_loss": lambda y, odds: brier_score_loss(y, expit(odds)),
}
NOISE = RecordDp(epsilon=3.0, covers="study").answer_releases(Plan(steps=20), 40)[SCORES].noise
"""Of the counts of a study at ε 3 and δ 1e-5."""


def made(rows: int, events: float, spread: float, slope: float = 0.8, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds and outcomes of a model that is too extreme where the slope is below 1."""
    rng = np.random.default_rng(seed)
    odds = np.log(events / (1 - events)) + rng.normal(-(spread**2) / 4, spread, rows)
    return odds, (rng.random(rows) < expit(slope * odds)).astype(np.int64)


def counted(odds: np.ndarray, y: np.ndarray, noise: float = 0.0, seed: int = 0) -> ScoreCounts:
    centre = base_rate(np.bincount(y, minlength=2).astype(float))
    counts = score_counts(odds, y, np.ones(len(y)), centre)
    if noise:
        query = GaussianQuery(sensitivity=1.0, noise=noise, step=STEP)
        counts = query.answer(counts, SeededNoise(np.random.default_rng(seed)))
    return ScoreCounts(counts=counts, deviation=noise or 1e-9, centre=centre)


@pytest.mark.parametrize(("events", "spread"), [(0.005, 1.2), (0.02, 1.0), (0.22, 0.8), (0.5, 1.5), (0.3, 3.0)])
def test_bins_lose_little_of_each_metric_at_any_base_rate(events: float, spread: float):
    odds, y = made(200_000, events, spread)
    found = counted(odds, y)
    assert abs(found.roc_auc_score().value - roc_auc_score(y, odds)) <= 0.004
    assert found.brier_score_loss().value == pytest.approx(EXACT["brier_score_loss"](y, odds), rel=0.02, abs=2e-4)
    assert found.log_loss().value == pytest.approx(EXACT["log_loss"](y, odds), rel=0.02)
    assert found.calibration_slope().value == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("rows", "events", "spread"), [(7_500, 0.22, 0.9), (1_500, 0.4, 1.5)])
def test_intervals_hold_the_exact_metric_in_93_of_100_draws(rows: int, events: float, spread: float):
    odds, y = made(rows, events, spread)
    exact = {name: of(y, odds) for name, of in EXACT.items()}
    held = dict.fromkeys(exact, 0)
    for seed in range(400):
        found = counted(odds, y, noise=2 * NOISE, seed=seed)  # of four sites
        for name, metric in METRICS.items():
            interval = metric(found)
            held[name] += interval.low <= exact[name] <= interval.high
    assert min(held.values()) >= 0.93 * 400, held


@pytest.mark.parametrize("rows", [7_500, 1_500])
def test_intervals_hold_the_metric_of_other_people_too(rows: int):
    odds, y = made(400_000, 0.22, 0.9, seed=5)
    exact = {name: of(y, odds) for name, of in EXACT.items()}
    held = dict.fromkeys(exact, 0)
    for seed in range(200):
        of = np.random.default_rng(seed).integers(0, len(y), rows)
        found = counted(odds[of], y[of], noise=2 * NOISE, seed=seed)
        for name, metric in METRICS.items():
            interval = metric(found)
            held[name] += interval.low <= exact[name] <= interval.high
    assert min(held.values()) >= 0.92 * 200, held


def test_the_noise_of_the_counts_is_what_is_charged():
    # Half the noise, and one and a half times it, are found out.
    exact = np.zeros((2, BINS))
    query = GaussianQuery(sensitivity=1.0, noise=NOISE, step=STEP)
    draws = [query.answer(exact, SeededNoise(np.random.default_rng(seed))) for seed in range(300)]
    assert 0.97 < np.std(draws) / NOISE < 1.03


def test_one_person_moves_the_counts_by_one_at_most():
    odds, y = made(500, 0.3, 1.5)
    weights = np.ones(500)
    whole = score_counts(odds, y, weights, 0.0)
    moved = [
        np.linalg.norm(whole - score_counts(*(np.delete(of, n) for of in (odds, y, weights)), 0.0)) for n in range(50)
    ]
    assert max(moved) <= 1.0 and min(moved) > 0.9
    assert whole.sum() == 500 and whole.shape == (2, BINS)


def test_predictions_beyond_the_bins_and_those_that_are_no_numbers_are_in_the_end_bins():
    odds = np.array([-np.inf, np.nan, np.inf, 500.0])
    counts = score_counts(odds, np.array([0, 0, 1, 1]), np.ones(4), -3.0)
    assert counts[0, 0] == 2 and counts[1, -1] == 2
    assert bounds_of(-3.0)[[0, 1, -1]].tolist() == [-12.0, -6.5, 12.0]


def test_a_class_that_is_lost_in_the_noise_has_no_metric():
    odds, y = made(400, 0.02, 1.0)
    found = counted(odds, y, noise=NOISE)
    assert found.reason == CLASS_LOST == found.slope_reason
    assert [metric(found) for metric in METRICS.values()] == [None] * 3
