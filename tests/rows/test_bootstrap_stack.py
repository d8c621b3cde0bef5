"""Drawing all metrics of all arms at once gives what each metric gives alone, draw by draw."""

from __future__ import annotations

import numpy as np
import pytest

from flfed.rows.evaluation.bootstrap import Replicates, drawn_weights, left_out_weights, replicate, units_of
from flfed.rows.evaluation.scoring import example, metrics_of
from flfed.rows.evaluation.weighted_metrics import add_up
from flfed.rows.metrics.average_precision_score import AveragePrecisionScore
from flfed.rows.metrics.brier_score_loss import BrierScoreLoss
from flfed.rows.metrics.calibration_in_the_large_error import CalibrationInTheLargeError

TASKS = ("binary", "multi-class", "regression")
DRAWS = 1200


def arms_of(task: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Targets, and the scores of three arms: one as it is, one with ties, one the other way round."""
    y, score = example(task)
    return y, {"plain": score, "tied": np.round(score, 1), "turned": score[::-1].copy()}


@pytest.mark.parametrize("together", [1, 2], ids=["rows", "groups of two"])
@pytest.mark.parametrize("task", TASKS)
def test_every_draw_is_what_the_metric_says_of_the_same_weights_alone(task, together):
    y, scores = arms_of(task)
    groups = np.arange(len(y)) // together
    metrics = metrics_of(task, 0.3 if task == "binary" else None)
    found = replicate(metrics, y, scores, np.random.default_rng(3), DRAWS, groups)
    rng, (codes, units) = np.random.default_rng(3), units_of(len(y), groups)
    assert units == len(y) // together
    parts = [*left_out_weights(rng, codes, units), *drawn_weights(rng, codes, units, DRAWS)]
    assert len(parts) == 3  # what is left out, and the draws in two parts, the last one short
    weights = np.ascontiguousarray(np.concatenate(parts))
    for name, metric in metrics.items():
        for arm, score in scores.items():
            alone = metric.weighted(y, score, weights)
            np.testing.assert_allclose(found[name][arm].left_out, alone[:-DRAWS], rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(found[name][arm].draws, alone[-DRAWS:], rtol=1e-11, atol=1e-13)
            assert found[name][arm].value == pytest.approx(metric.value(y, score), rel=1e-12)


def test_weights_are_how_often_each_unit_is_picked_in_a_row_of_one_table_of_picks():
    rows, draws = 30, 2500
    parts = list(drawn_weights(np.random.default_rng(8), np.arange(rows) // 2, rows // 2, draws))
    picks = np.random.default_rng(8).integers(0, rows // 2, size=(draws, rows // 2))
    direct = np.stack([(picks == unit).sum(axis=1) for unit in range(rows // 2)], axis=1)
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), np.repeat(direct, 2, axis=1))


class Own(BrierScoreLoss):
    """A metric of somebody else's: one of ours with another `weighted`."""

    def weighted(self, y, score, weights):
        return np.sqrt(super().weighted(y, score, weights))


class OwnRanking(AveragePrecisionScore):
    """As `Own`, of a ranking."""

    def weighted(self, y, score, weights):
        return 1 - super().weighted(y, score, weights)


class OwnSign(CalibrationInTheLargeError):
    """As `Own`, of a figure with a sign."""

    def signed(self, y, score, weights):
        return super().signed(y, score, weights) + 1.0


@pytest.mark.parametrize("metric", [Own(), OwnRanking(), OwnSign()], ids=lambda metric: type(metric).__name__)
def test_a_metric_with_a_weighted_of_its_own_is_drawn_by_that_one(metric):
    y, scores = arms_of("binary")
    draws = replicate({"own": metric}, y, scores, np.random.default_rng(3), DRAWS)["own"]["plain"].draws
    ours = type(metric).__bases__[0]()
    plain = replicate({"ours": ours}, y, scores, np.random.default_rng(3), DRAWS)["ours"]["plain"]
    signed = plain.signed.draws if plain.signed is not None else plain.draws
    expected = {"Own": np.sqrt(plain.draws), "OwnRanking": 1 - plain.draws, "OwnSign": np.abs(signed + 1)}
    np.testing.assert_allclose(draws, expected[type(metric).__name__], rtol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 8, 9, 10, 15, 16, 17, 60])
def test_rows_are_added_up_as_numpy_adds_them(rows):
    values = np.random.default_rng(rows).integers(0, 9, size=(rows, 3)).astype(float)
    for given in (values.copy(), np.asfortranarray(values)):
        np.testing.assert_array_equal(add_up(given), np.cumsum(values, axis=0))


def test_draws_that_are_equal_but_for_rounding_count_half_below_the_value():
    # A third of the draws equals the value, a third is below: the bias is that of one half.
    value, rng = 0.3, np.random.default_rng(0)
    equal = value + rng.choice([-1e-16, 0.0, 1e-16], size=300)
    draws = np.concatenate([value - 0.1 - rng.random(300), equal, value + 0.1 + rng.random(300)])
    exact = np.where(np.abs(draws - value) < 1e-12, value, draws)
    left_out = rng.normal(size=50)
    limits = [Replicates(value, some, left_out, 50, value).limits(0.95) for some in (draws, exact)]
    assert limits[0] == pytest.approx(limits[1], abs=1e-12)
    assert Replicates(value, draws, left_out, 50, value)._bias() == pytest.approx(0.0, abs=1e-12)
