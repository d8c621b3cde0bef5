"""Verdict on a gain by noised pairs: how often it is right, and what reading noise as nothing would tell."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from flfed.rows.evaluation.delong import delong
from flfed.rows.statistics.noised_counts import pair_numbers, pair_query
from flfed.rows.training.private_noise import SeededNoise
from flfed.summaries.noised_scores import (
    DO_NOT_USE,
    INCONCLUSIVE,
    JOINING_PAYS,
    NO_CLEAR_GAIN,
    SQUARES_WEIGHT,
    NoisedPairs,
    pair_scale,
)
from flfed.updates.accounting import noise_for

EVENTS, HOLDOUT, OWN_AUC, CORRELATION = 0.22, 0.3, 0.73, 0.8
PAIRS_SHARE, SCORES_SHARE, BINS = 0.4, 0.35, 16
"""Of the squared μ of the holdout's budget; the class counts are those of the score counts."""
DRAWS = 600


def noise_of(rows: int, epsilon: float, share: float) -> float:
    """Return the noise multiplier of a share of a site's budget, with δ a tenth of one over its rows, or less."""
    delta = 10.0 ** math.floor(math.log10(1 / (10 * rows)))
    return noise_for(epsilon, delta, 1.0, 1) / math.sqrt(share)


def scores_of(rng: np.random.Generator, rows: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes and scores [2, rows] of the shared and the own model: normal, apart by what the AUC says."""
    outcomes = (rng.random(rows) < EVENTS).astype(int)
    common, alone = rng.normal(size=rows), rng.normal(size=(2, rows))
    noise = math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * alone
    apart = math.sqrt(2) * norm.ppf([[OWN_AUC + gain], [OWN_AUC]])  # AUC = Φ(d / √2)
    return outcomes, noise + apart * outcomes


@cache
def exact(rows: int, gain: float, draws: int) -> np.ndarray:
    """Return events, others and the two pair numbers of so many holdouts, [draws, 4]."""
    rng, found = np.random.default_rng(rows + round(1000 * gain)), []
    for _ in range(draws):
        outcomes, scores = scores_of(rng, round(HOLDOUT * rows), gain)
        found.append([outcomes.sum(), len(outcomes) - outcomes.sum(), *pair_numbers(outcomes, *scores)])
    return np.array(found)


def answers(rows: int, epsilon: float, gain: float, draws: int = DRAWS, repeats: int = 4) -> list[NoisedPairs]:
    """Return noised numbers of simulated holdouts, each with several draws of noise."""
    numbers = np.repeat(exact(rows, gain, draws), repeats, axis=0)
    chance = SeededNoise(np.random.default_rng(rows))
    query = pair_query(noise_of(rows, epsilon, PAIRS_SHARE))
    noised = query.answer(numbers[:, 2:], chance)
    of_counts = noise_of(rows, epsilon, SCORES_SHARE) * math.sqrt(BINS)
    counts = numbers[:, :2] + chance.normal(2 * len(numbers)).reshape(-1, 2) * of_counts
    return [
        NoisedPairs(
            pairs=won, squares=squares, deviation=query.deviation,
            events=events, others=others, count_deviation=of_counts,
        )
        for (won, squares), (events, others) in zip(noised, counts, strict=True)
    ]  # fmt: skip


def told(pairs: list[NoisedPairs], code: str) -> float:
    return float(np.mean([one.verdict() == code for one in pairs]))


def without_noise(pairs: NoisedPairs) -> NoisedPairs:
    """Return the same numbers, read as if they had no noise."""
    return replace(pairs, deviation=0.0, count_deviation=0.0)


@pytest.mark.parametrize(
    ("rows", "epsilon", "least"), [(7500, 3.0, 0.95), (7500, 1.0, 0.70), (4000, 3.0, 0.75)]
)  # fmt: skip
def test_a_gain_of_5_points_is_told_where_the_budget_allows_it(rows: int, epsilon: float, least: float):
    pairs = answers(rows, epsilon, 0.05)
    assert told(pairs, JOINING_PAYS) >= least
    assert told(pairs, DO_NOT_USE) < 0.001


@pytest.mark.parametrize(("rows", "epsilon"), [(7500, 1.0), (7500, 3.0), (4000, 1.0), (4000, 3.0), (2000, 3.0)])
def test_no_gain_is_seldom_called_one(rows: int, epsilon: float):
    pairs = answers(rows, epsilon, 0.0)
    assert told(pairs, JOINING_PAYS) <= 0.045
    assert told(pairs, DO_NOT_USE) <= 0.045
    # Noise that is left out of the standard error calls itself a gain.
    assert told([without_noise(one) for one in pairs], JOINING_PAYS) > 0.045
    if epsilon == 3:
        # So does the draw of people where only noise is in it.
        alone = [replace(one, squares=-1e6) for one in pairs]
        assert told(alone, JOINING_PAYS) > 0.045


def test_at_2000_rows_and_epsilon_1_nothing_is_told():
    for gain in (0.0, 0.05):
        assert told(answers(2000, 1.0, gain), INCONCLUSIVE) > 0.99
    assert 0.25 < told(answers(2000, 3.0, 0.05), JOINING_PAYS) < 0.6


def test_a_shared_model_that_is_worse_is_told_of():
    assert told(answers(7500, 3.0, -0.05, 200), DO_NOT_USE) > 0.9


COVERAGES = [(7500, 1.0), (7500, 3.0), (4000, 3.0), (2000, 3.0)]


@pytest.mark.parametrize(("rows", "epsilon"), COVERAGES)
def test_the_interval_covers_the_difference(rows: int, epsilon: float):
    def covered(pairs: list[NoisedPairs]) -> float:
        known = [one.difference() for one in pairs]
        return float(np.mean([found.low <= 0.05 <= found.high for found in known if found]))

    pairs = answers(rows, epsilon, 0.05)
    assert 0.93 <= covered(pairs) <= 0.985
    assert covered([without_noise(one) for one in pairs]) < 0.90


@pytest.mark.proof
@pytest.mark.parametrize(("rows", "epsilon", "gain", "least", "most"), [
    (7500, 3.0, 0.05, 0.95, 1.0), (7500, 1.0, 0.05, 0.70, 1.0), (4000, 3.0, 0.05, 0.75, 1.0),
    (7500, 3.0, 0.0, 0.005, 0.035), (7500, 1.0, 0.0, 0.005, 0.035), (4000, 3.0, 0.0, 0.005, 0.035),
    (2000, 3.0, 0.0, 0.003, 0.035),
])  # fmt: skip
def test_shares_of_verdicts_over_many_holdouts(rows: int, epsilon: float, gain: float, least: float, most: float):
    assert least <= told(answers(rows, epsilon, gain, 8000, 2), JOINING_PAYS) <= most


def pairs_of(outcomes: np.ndarray, scores: np.ndarray) -> NoisedPairs:
    won, squares = pair_numbers(outcomes, *scores)
    return NoisedPairs(
        pairs=won, squares=squares, deviation=0.0,
        events=float(outcomes.sum()), others=float((1 - outcomes).sum()), count_deviation=0.0,
    )  # fmt: skip


def test_without_noise_the_interval_is_delongs():
    outcomes, scores = scores_of(np.random.default_rng(1), 3000, 0.05)
    aucs, covariance = delong(outcomes, scores)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = pairs_of(outcomes, scores)
    assert found.standard_error() == pytest.approx(error, rel=1e-3)
    difference = found.difference()
    assert difference is not None
    assert difference.value == pytest.approx(aucs[0] - aucs[1], abs=1e-6)
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * error, rel=1e-3)


def test_the_noise_of_the_class_counts_is_in_the_error_to_first_order():
    # unit = 1 / (scale · n1 · n0): its relative deviation by draws of the counts.
    rng = np.random.default_rng(2)
    for events, others in ((500.0, 1700.0), (900.0, 1000.0)):
        found = NoisedPairs(pairs=1e5, squares=1e8, deviation=0.0, events=events, others=others, count_deviation=15.0)
        noised = np.array([events, others]) + rng.normal(0, 15, (20_000, 2))
        units = np.array([1 / (pair_scale(*one) * one.prod()) for one in noised])
        fixed = replace(found, count_deviation=0.0)
        added = math.sqrt((found.standard_error() or 0) ** 2 - (fixed.standard_error() or 0) ** 2)
        assert added == pytest.approx(1e5 * units.std(), rel=0.03)


VERDICTS: list[tuple[str, float, float, Callable[[NoisedPairs], NoisedPairs]]] = [
    (JOINING_PAYS, 27.0, 2.5, lambda one: one), (DO_NOT_USE, -27.0, 2.5, lambda one: one),
    (NO_CLEAR_GAIN, 3.0, 2.5, lambda one: one),
    (INCONCLUSIVE, 27.0, 25.0, lambda one: one),  # 25 / 500 · 2.8 is 0.14
    (INCONCLUSIVE, 27.0, 2.5, lambda one: replace(one, events=50.0)),
    (INCONCLUSIVE, 27.0, 2.5, lambda one: replace(one, others=-5.0)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "won", "deviation", "change"), VERDICTS)
def test_each_verdict_has_its_code(code, won, deviation, change):
    plain = NoisedPairs(
        pairs=won, squares=2.5, deviation=deviation, events=500.0, others=1750.0, count_deviation=10.0
    )  # fmt: skip
    assert change(plain).verdict() == code


def test_a_variance_that_is_lost_in_the_noise_makes_no_gain_more_certain():
    plain = NoisedPairs(pairs=0.0, squares=0.0, deviation=2.5, events=500.0, others=1750.0, count_deviation=0.0)
    errors = [replace(plain, squares=squares).standard_error() or 0.0 for squares in (-90, -30, -10, 0, 10, 90)]
    assert errors == sorted(errors)
    # In units of `pairs`: its noise 2.5; that of the squares 2.5 (scale · rows)^2 / weight; the mean of a normal number
    # about 0 that is not below 0 is √(2/π) deviations.
    scale = pair_scale(500, 1750)
    of_squares = 2.5 * (scale * 2250) ** 2 / SQUARES_WEIGHT
    in_aucs = 1 / (scale * 500 * 1750)
    assert errors[3] == pytest.approx(in_aucs * math.sqrt(2.5**2 + math.sqrt(2 / math.pi) * of_squares))
    assert errors[0] == pytest.approx(in_aucs * 2.5, rel=0.05) and errors[0] > in_aucs * 2.5
    assert errors[5] == pytest.approx(in_aucs * math.sqrt(2.5**2 + 90 / 2.5 * of_squares))


def test_pairs_have_half_the_noise_of_two_score_histograms_of_the_same_budget():
    # AUC of counts: sum of others below each bin times events in it. Each histogram has half of the share.
    rng, rows, epsilon = np.random.default_rng(3), 2000, 3.0
    outcomes, scores = scores_of(rng, round(HOLDOUT * rows), 0.05)
    deviation, areas = noise_of(rows, epsilon, PAIRS_SHARE / 2), []
    for one in scores:
        edges = np.quantile(one, np.arange(1, BINS) / BINS)
        counts = np.stack([np.bincount(np.searchsorted(edges, one[outcomes == k]), minlength=BINS) for k in (0, 1)])
        others, events = np.moveaxis(counts + rng.normal(0, deviation, (4000, 2, BINS)), 1, 0)
        below = np.cumsum(others, axis=1) - others / 2
        areas.append((events * below).sum(axis=1) / (events.sum(axis=1) * others.sum(axis=1)))
    of_histograms = float((areas[0] - areas[1]).std())
    events, others = outcomes.sum(), (1 - outcomes).sum()
    of_pairs = pair_query(noise_of(rows, epsilon, PAIRS_SHARE)).deviation / (
        pair_scale(events, others) * events * others
    )
    assert of_pairs < 0.6 * of_histograms
