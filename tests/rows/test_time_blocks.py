"""Intervals over blocks that follow one another in time: how often they call chance a difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from flfed.rows.evaluation.intervals import (
    LEAST_BLOCKS,
    Difference,
    compare,
    effective_blocks,
    row_losses,
    widen_differences,
)
from flfed.rows.metrics.mean_absolute_error import MeanAbsoluteError

DRAWS = 2000
PAIR = ("a", "b")


def series(blocks: int, correlation: float, draws: int = DRAWS) -> np.ndarray:
    """Return gains of mean 0 that follow on one another, [draws, blocks]: normal, of the first order."""
    rng = np.random.default_rng([blocks, int(100 * correlation)])
    noise = rng.standard_normal((draws, blocks))
    gains = noise.copy()
    for block in range(1, blocks):
        gains[:, block] = correlation * gains[:, block - 1] + np.sqrt(1 - correlation**2) * noise[:, block]
    return gains


def widened(gains: np.ndarray) -> Difference:
    """Return the difference of two models whose blocks differ so, by what a comparison does."""
    blocks = len(gains)
    half = float(stdtrit(blocks - 1, 0.975)) * gains.std(ddof=1) / np.sqrt(blocks)
    mean = float(gains.mean())
    plain = Difference(mean, mean - half, mean + half, 0.5, "bootstrap over groups")
    losses = {"a": np.zeros(blocks), "b": gains}
    return widen_differences({"m": {PAIR: plain}}, losses, np.arange(blocks))["m"][PAIR]


def shares(blocks: int, correlation: float) -> tuple[float, float]:
    """Return the share of draws that are called different, and of those without an interval."""
    found = [widened(gains) for gains in series(blocks, correlation)]
    untold = [np.isnan(one.low) for one in found]
    clear = [one.low > 0 or one.high < 0 for one in found]
    return float(np.mean(clear)), float(np.mean(untold))


@pytest.mark.parametrize("correlation", [0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("blocks", [12, 20, 60, 107])
def test_gains_of_mean_zero_are_seldom_clear_however_alike_neighbours_are(blocks: int, correlation: float):
    clear, untold = shares(blocks, correlation)
    assert clear <= 0.09
    if (blocks, correlation) == (60, 0):
        assert untold <= 0.02


def doubled(gains: np.ndarray) -> float:
    """Return the effective number by a rule that is wrong: pairs of blocks are joined while neighbours correlate."""
    while len(gains) >= 2 * LEAST_BLOCKS and abs(np.corrcoef(gains[1:], gains[:-1])[0, 1]) > 0.2:
        gains = gains[: len(gains) // 2 * 2].reshape(-1, 2).mean(axis=1)
    return len(gains) if abs(np.corrcoef(gains[1:], gains[:-1])[0, 1]) <= 0.2 else 0


def test_joining_blocks_while_neighbours_correlate_leaves_half_of_independent_series_without_a_verdict():
    untold = np.mean([doubled(gains) < LEAST_BLOCKS for gains in series(12, 0)])
    assert untold > 0.3
    assert untold > shares(12, 0)[1]


def test_the_number_of_blocks_is_that_of_the_first_order_law():
    # n (1 - r) / (1 + r) of a long series of correlation 0.5 is a third of it.
    found = [effective_blocks(gains) for gains in series(3000, 0.5, draws=50)]
    assert np.mean(found) == pytest.approx(1000, rel=0.03)
    assert effective_blocks(np.full(9, 0.25)) == 9  # all gains are the same: nothing follows on anything


def test_an_interval_grows_by_the_root_of_the_share_of_blocks_and_by_students_t():
    gains = series(107, 0.5, draws=1)[0]
    found, effective = widened(gains), effective_blocks(gains)
    half = stdtrit(effective - 1, 0.975) * gains.std(ddof=1) / np.sqrt(effective)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)
    assert found.value - found.low == pytest.approx(half, rel=1e-9)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_below_eight_blocks_there_is_no_interval_and_equal_models_differ_by_nothing():
    found = widened(series(12, 0.99, draws=1)[0])
    assert np.isnan([found.low, found.high, found.p]).all()
    assert found.method == "too few independent blocks of time"
    same = Difference(0.0, 0.0, 0.0, 1.0, "identical scores")
    losses = {"a": np.ones(5), "b": np.ones(5)}
    assert widen_differences({"m": {PAIR: same}}, losses, np.arange(5))["m"][PAIR] == same


def test_blocks_of_several_rows_are_taken_in_the_order_of_time():
    gains = series(40, 0.5, draws=1)[0]
    blocks = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 3))
    y = np.zeros(120)
    scores = {"a": np.ones(120), "b": np.sqrt(4 + gains)[blocks]}
    losses = {arm: row_losses("regression", y, score) for arm, score in scores.items()}
    rng = np.random.default_rng(1)
    plain = compare({"m": MeanAbsoluteError()}, y, scores, [PAIR], rng, draws=500, groups=blocks)[1]
    found = widen_differences(plain, losses, blocks)["m"][PAIR]
    wide, narrow = found.high - found.low, plain["m"][PAIR].high - plain["m"][PAIR].low
    count = effective_blocks(losses["b"][np.argsort(blocks)][::3])
    assert wide / narrow == pytest.approx(np.sqrt(40 / count) * stdtrit(count - 1, 0.975) / stdtrit(39, 0.975))


def test_a_rows_loss_is_that_of_its_task():
    y = np.array([1, 0])
    assert row_losses("binary", y, np.array([0.8, 0.3])) == pytest.approx(-np.log([0.8, 0.7]))
    assert row_losses("multi-class", y, np.array([[0.1, 0.9], [0.4, 0.6]])) == pytest.approx(-np.log([0.9, 0.4]))
    assert row_losses("regression", np.array([1.0, 2.0]), np.array([1.5, 0.0])).tolist() == [0.25, 4.0]
