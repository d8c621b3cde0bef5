"""Intervals and tests of differences: exact values, degenerate cases, and coverage in simulation."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import quad
from scipy.special import expit, ndtr
from scipy.stats import binomtest, norm

from flfed.rows.evaluation.bootstrap import Replicates
from flfed.rows.evaluation.delong import delong
from flfed.rows.evaluation.intervals import Difference, Estimate, compare, estimate, hanley_mcneil
from flfed.rows.metrics.accuracy_score import AccuracyScore
from flfed.rows.metrics.average_precision_score import AveragePrecisionScore
from flfed.rows.metrics.brier_score_loss import BrierScoreLoss
from flfed.rows.metrics.log_loss import LogLoss
from flfed.rows.metrics.mean_absolute_error import MeanAbsoluteError
from flfed.rows.metrics.r2_score import R2Score
from flfed.rows.metrics.roc_auc_score import RocAucScore


def estimates(metrics, y, scores, *how, **groups):
    """Each metric of each model."""
    return compare(metrics, y, scores, (), *how, **groups)[0]


def differences(metrics, y, scores, pairs, *how):
    """Each metric of each pair of models."""
    return compare(metrics, y, scores, pairs, *how)[1]


def difference(metric, y, a, b, *how):
    """One metric of a minus that of b."""
    return differences({"": metric}, y, {"a": a, "b": b}, [("a", "b")], *how)[""]["a", "b"]


AUC, AP, BRIER, ACCURACY = RocAucScore(), AveragePrecisionScore(), BrierScoreLoss(), AccuracyScore()
BINARY = {"auc": AUC, "ap": AP, "brier": BRIER, "log": LogLoss(), "accuracy": ACCURACY}
REGRESSION = {"r2": R2Score(), "mae": MeanAbsoluteError()}

SHARE, SHIFT = 0.4, 1.5  # positives, and how far their scores lie above the others, in sd


def generator(seed: int = 11) -> np.random.Generator:
    return np.random.default_rng(seed)


def figures(found: Estimate | Difference) -> tuple[float, ...]:
    """Return the four numbers of an estimate or a difference."""
    return astuple(found)[:4]


def patients(rng: np.random.Generator, n: int, arms: int = 1):
    """Return codes [n] and probabilities [arms, n] of arms that are equally good and correlated."""
    y = (rng.random(n) < SHARE).astype(int)
    shared, own = rng.normal(size=n), rng.normal(size=(arms, n))
    noise = own if arms == 1 else (shared + own) / np.sqrt(2)
    return y, expit(noise + SHIFT * (y - 0.5))


def direct_delong(y, scores):
    """Return AUC and covariance from the definition: every positive against every negative."""
    kernel = [[[float(a > b) + 0.5 * float(a == b) for b in arm[y == 0]] for a in arm[y == 1]] for arm in scores]
    pairs = np.array(kernel)  # [arms, positives, negatives]
    ten, one = pairs.mean(axis=2), pairs.mean(axis=1)
    covariance = np.atleast_2d(np.cov(ten)) / ten.shape[1] + np.atleast_2d(np.cov(one)) / one.shape[1]
    return pairs.mean(axis=(1, 2)), covariance


# --- exact values ---------------------------------------------------------------------------------


@given(hnp.arrays(np.int64, 25, elements=st.integers(0, 1)), hnp.arrays(np.int64, (3, 25), elements=st.integers(0, 12)))
def test_fast_delong_equals_the_direct_computation_also_with_ties(y, scores):
    assume(2 <= y.sum() <= 23)
    auc, covariance = delong(y, scores / 12)
    expected_auc, expected_covariance = direct_delong(y, scores / 12)
    np.testing.assert_allclose(auc, expected_auc, atol=1e-10, rtol=0)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-10, rtol=0)


def test_delong_of_four_rows_by_hand():
    # positives 2, 4 and negatives 1, 3: the positives beat 1/2 and 2/2 of the negatives, AUC 3/4;
    # the negatives lose to 2/2 and 1/2. Both variances are 1/8, so (1/8) / 2 + (1/8) / 2 = 1/8.
    auc, covariance = delong(np.array([0, 1, 0, 1]), np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert (auc[0], covariance[0, 0]) == pytest.approx((0.75, 0.125), abs=1e-15)
    # value +- on the logit scale: log 3 +- 1.96 sqrt(1/8) / (3/16)
    found = estimate(AUC, np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4]), generator())
    reach = 1.959963984540054 * np.sqrt(0.125) / (3 / 16)
    assert found.low == pytest.approx(expit(np.log(3) - reach), abs=1e-12)
    assert found.high == pytest.approx(expit(np.log(3) + reach), abs=1e-12)


def test_a_delong_difference_uses_the_covariance_of_the_two_arms():
    y, scores = patients(generator(), 80, arms=2)
    auc, covariance = direct_delong(y, scores)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = difference(AUC, y, *scores, generator())
    assert found.method == "DeLong"
    assert found.value == pytest.approx(auc[0] - auc[1], abs=1e-12)
    assert found.high - found.value == pytest.approx(1.959963984540054 * error, abs=1e-10)
    assert found.p == pytest.approx(2 * norm.sf(abs(found.value) / error), abs=1e-10)


def test_hanley_mcneil_gives_the_variance_of_the_scores_it_assumes():
    # AUC 0.5, m and n rows: Q1 = Q2 = 1/3, so (m + n + 1) / (12 m n), as for Mann and Whitney's U
    moved, variance = hanley_mcneil(0.5, 7, 12)
    assert (moved, variance) == pytest.approx((0.5, (7 + 12 + 1) / (12 * 7 * 12)), abs=1e-15)
    assert hanley_mcneil(1.0, 7, 12)[0] == pytest.approx(7.5 / 8, abs=1e-15)


def test_hanley_mcneil_tells_the_many_rows_of_one_class_from_the_few_of_the_other():
    # Scores as it assumes: exponential, of negatives with mean 1, of positives with mean t; the AUC is t / (1 + t).
    moved, variance = hanley_mcneil(0.9, 3, 40)
    assert moved == pytest.approx(0.8, abs=1e-15)
    rng = np.random.default_rng(5)
    few, many = rng.exponential(4.0, (20_000, 3, 1)), rng.exponential(1.0, (20_000, 1, 40))
    assert variance == pytest.approx((few > many).mean((1, 2)).var(), rel=0.05)
    assert abs(hanley_mcneil(0.9, 40, 3)[1] / variance - 1) > 0.2


def test_accuracy_has_wilsons_interval():
    right = np.arange(50) < 41
    y, score = np.ones(50, dtype=int), np.where(right, 0.9, 0.1)
    found = estimate(ACCURACY, y, score, generator())
    reference = binomtest(41, 50).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_an_accuracy_difference_has_agresti_and_mins_interval():
    # a alone right 12 times, b alone 4, of 40: centre 8 / 42, variance (17 / 42 - (8 / 42)^2) / 42
    y = np.ones(40, dtype=int)
    a = np.where(np.arange(40) < 12, 0.9, 0.1)
    b = np.where((np.arange(40) >= 12) & (np.arange(40) < 16), 0.9, 0.1)
    reach = 1.959963984540054 * np.sqrt((17 / 42 - (8 / 42) ** 2) / 42)
    found = difference(ACCURACY, y, a, b, generator())
    assert found.value == pytest.approx(8 / 40, abs=1e-15)
    assert (found.low, found.high) == pytest.approx((8 / 42 - reach, 8 / 42 + reach), abs=1e-12)


def test_bootstrap_variance_is_the_variance_of_a_mean():
    # drawing n of n rows: the variance of the mean is (population variance) / n; 20,000 draws know
    # it within 1 / sqrt(10,000) = 1 %, here 4 of these
    y, (score,) = patients(generator(), 200)
    found = estimate(BRIER, y, score, generator(), draws=20_000)
    assert found.variance == pytest.approx(np.var((score - y) ** 2) / 200, rel=0.04)


def test_limits_are_plain_quantiles_without_bias_or_skew_and_with_many_rows():
    draws = np.arange(1001) / 1000
    plain = Replicates(0.5, draws, np.array([0.0, 0.5, 1.0]), 10**9, 1.0)
    assert plain.limits(0.9) == pytest.approx((0.05, 0.95), abs=1e-6)
    # 5 rows: the normal quantile 1.645 becomes t 2.132 (4 degrees), times sqrt(5 / 4)
    few = Replicates(0.5, draws, np.array([0.0, 0.5, 1.0]), 5, 1.0)
    assert few.limits(0.9)[1] == pytest.approx(ndtr(2.131846786 * np.sqrt(5 / 4)), abs=1e-6)


# --- shared draws, pairs, groups ------------------------------------------------------------------


def test_one_call_for_all_gives_what_single_calls_give():
    y, (a, b) = patients(generator(), 60, arms=2)
    together, apart = compare(BINARY, y, {"a": a, "b": b}, [("a", "b")], generator(), 300)
    for name, metric in BINARY.items():
        alone = estimate(metric, y, b, generator(), 300)
        assert figures(together[name]["b"]) == pytest.approx(figures(alone), abs=1e-12)
        alone = difference(metric, y, a, b, generator(), 300)
        assert figures(apart[name]["a", "b"]) == pytest.approx(figures(alone), abs=1e-12)
    assert together == estimates(BINARY, y, {"a": a, "b": b}, generator(), 300)
    assert apart == differences(BINARY, y, {"a": a, "b": b}, [("a", "b")], generator(), 300)


@pytest.mark.parametrize("name", BINARY)
def test_identical_scores_differ_by_nothing_with_p_of_one(name):
    y, (score,) = patients(generator(), 40)
    found = difference(BINARY[name], y, score, score.copy(), generator(), 200)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("name", BINARY)
def test_swapping_the_arms_turns_the_difference_and_keeps_p(name):
    y, (a, b) = patients(generator(), 60, arms=2)
    forth = difference(BINARY[name], y, a, b, generator(), 2000)
    back = difference(BINARY[name], y, b, a, generator(), 2000)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-10)
    assert (back.value, back.p) == pytest.approx((-forth.value, forth.p), abs=1e-10)


@pytest.mark.parametrize("name", ["auc", "ap", "brier", "log"])
def test_an_interval_leaves_out_zero_where_p_is_below_five_percent(name):
    rng, agreed = generator(), []
    for _ in range(60):
        y, (a, b) = patients(rng, 60, arms=2)
        found = difference(BINARY[name], y, a, b, rng, 400)
        if abs(found.p - 0.05) > 0.01:  # nearer, the step from one draw to the next decides
            agreed.append((found.p < 0.05) == (found.low > 0 or found.high < 0))
    assert np.mean(agreed) == 1


def test_rows_given_three_times_tell_no_more_when_they_are_one_group():
    y, (a, b) = patients(generator(), 50, arms=2)
    groups = np.repeat(np.arange(50) * 10 + 7, 3)
    scores, tripled = {"a": a, "b": b}, {"a": np.repeat(a, 3), "b": np.repeat(b, 3)}
    metrics = {"ap": AP, "brier": BRIER}
    once = compare(metrics, y, scores, [("a", "b")], generator(), 500)
    grouped = compare(metrics, np.repeat(y, 3), tripled, [("a", "b")], generator(), 500, groups=groups)
    for name in metrics:
        assert grouped[0][name]["a"].method == "bootstrap over groups"
        for found, same in ((grouped[0][name]["a"], once[0][name]["a"]),
                            (grouped[1][name]["a", "b"], once[1][name]["a", "b"])):  # fmt: skip
            assert (found.low, found.high) == pytest.approx((same.low, same.high), abs=1e-9)
    # taken as 150 separate rows the interval is shorter, by about sqrt(3)
    naive = estimate(BRIER, np.repeat(y, 3), tripled["a"], generator(), 2000)
    honest = once[0]["brier"]["a"]
    assert (honest.high - honest.low) / (naive.high - naive.low) == pytest.approx(np.sqrt(3), rel=0.1)


def test_auc_and_accuracy_are_bootstrapped_when_there_are_groups():
    y, (score,) = patients(generator(), 200)
    plain = estimates(BINARY, y, {"a": score}, generator())
    grouped = estimates(BINARY, y, {"a": score}, generator(), groups=np.arange(200))
    for name in ("auc", "accuracy"):
        assert grouped[name]["a"].method == "bootstrap over groups"
        assert grouped[name]["a"].variance == pytest.approx(plain[name]["a"].variance, rel=0.15)


def test_a_metric_of_three_classes_has_an_interval_about_its_value():
    rng = generator()
    y = rng.integers(0, 3, 90)
    score = expit(rng.normal(size=(90, 3)) + 2 * np.eye(3)[y])
    score /= score.sum(axis=1, keepdims=True)
    found = estimate(AUC, y, score, rng, 500)
    assert found.method == "bootstrap"
    assert 0.5 < found.low < found.value < found.high < 1


# --- what is undefined or has no spread -----------------------------------------------------------


@pytest.mark.parametrize("y", [[0, 0, 1, 1], [0, 1], [0, 0, 0, 0, 1]])
def test_a_perfect_auc_has_a_lower_limit_below_one(y):
    y = np.array(y)
    found = estimate(AUC, y, y / 2 + 0.25, generator())
    assert found.method == "Hanley-McNeil"
    assert (found.value, found.high) == (1, 1)
    assert found.low < 0.9 and found.variance > 0
    worst = estimate(AUC, y, 0.75 - y / 2, generator())
    assert (worst.value, worst.low) == (0, 0)
    assert worst.high > 0.1


def test_two_perfect_arms_differ_by_nothing_but_not_surely():
    y = np.array([0, 0, 0, 1, 1, 1])
    found = difference(AUC, y, y / 2, np.array([0.1, 0.3, 0.2, 0.7, 0.9, 0.8]), generator())
    assert (found.value, found.p, found.method) == (0, 1, "Hanley-McNeil")
    assert found.low < -0.2 and found.high > 0.2
    # the same order of rows is the same AUC on any rows
    assert difference(AUC, y, y / 2, y / 3, generator()).high == 0


@pytest.mark.parametrize("name", BINARY)
def test_scores_that_are_not_finite_are_not_estimated_and_leave_other_arms_alone(name):
    y, (good, other) = patients(generator(), 40, arms=2)
    bad = np.where(np.arange(40) == 3, np.nan, other)
    metrics = {name: BINARY[name]}
    arms, pairs = {"good": good, "bad": bad, "worse": -bad}, [("good", "bad"), ("bad", "worse")]
    found, apart = compare(metrics, y, arms, pairs, generator(), 200)
    alone = estimate(BINARY[name], y, good, generator(), 200)
    assert figures(found[name]["good"]) == pytest.approx(figures(alone), abs=1e-12)
    assert np.isnan([found[name]["bad"].value, found[name]["bad"].low, *(apart[name][pair].p for pair in pairs)]).all()
    assert found[name]["bad"].method == "the scores are not finite"


def test_an_undefined_metric_says_why_instead_of_an_interval():
    y, score = np.ones(5, dtype=int), np.linspace(0.1, 0.9, 5)
    for metric in (AUC, AP):
        found = estimate(metric, y, score, generator(), 50)
        assert np.isnan([found.value, found.low, found.high, found.variance]).all()
        assert found.method == "only one class in the holdout"
        assert difference(metric, y, score, score, generator(), 50).method == found.method


def test_no_spread_between_rows_gives_no_interval_rather_than_a_point():
    y = np.array([1.0, 2.0, 4.0])
    found = estimate(MeanAbsoluteError(), y, y + 0.1, generator(), 50)
    assert found.value == pytest.approx(0.1, abs=1e-12)
    assert np.isnan([found.low, found.high, found.variance]).all()
    assert found.method == "every draw of rows gives the same value"
    assert np.isnan(difference(MeanAbsoluteError(), y, y + 0.1, y - 0.3, generator(), 50).p)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_handful_of_rows_gives_an_ordered_interval_or_a_reason(n):
    rng = generator()
    for _ in range(20):
        y, (a, b) = patients(rng, n, arms=2)
        found, apart = compare(BINARY, y, {"a": a, "b": b}, [("a", "b")], rng, 200)
        for name in BINARY:
            one, two = found[name]["a"], apart[name]["a", "b"]
            assert one.low <= one.value <= one.high or np.isnan(one.low)
            assert two.low <= two.value <= two.high or np.isnan(two.low)
            assert np.isnan(two.p) or 0 <= two.p <= 1


# --- coverage and calibration in simulation -------------------------------------------------------

SIMULATIONS, ROWS = 1000, 100
# Monte-Carlo error of a coverage of 95 %: sqrt(0.95 0.05 / 1000) = 0.7 %


def true_values() -> dict[str, float]:
    """Return what each metric is in the population that `patients` and the regression draw from."""

    def over(function, mean):
        return quad(lambda z: function(z) * norm.pdf(z - mean), -12, 12, epsabs=1e-10)[0]

    def precision(z):
        called = SHARE * norm.sf(z - SHIFT / 2)
        return called / (called + (1 - SHARE) * norm.sf(z + SHIFT / 2))

    up, down = SHIFT / 2, -SHIFT / 2
    return {
        "auc": ndtr(SHIFT / np.sqrt(2)), "ap": over(precision, up),
        "brier": SHARE * over(lambda z: expit(-z) ** 2, up) + (1 - SHARE) * over(lambda z: expit(z) ** 2, down),
        "log": SHARE * over(lambda z: np.logaddexp(0, -z), up) + (1 - SHARE) * over(lambda z: np.logaddexp(0, z), down),
        "accuracy": ndtr(SHIFT / 2),
        "r2": 1 - 1.04 / 2,  # y = x + e, prediction 0.8 x: residual variance 0.04 + 1 of 2
        "mae": np.sqrt(2 * 1.04 / np.pi),
    }  # fmt: skip


@pytest.fixture(scope="module")
def simulated() -> dict[str, np.ndarray]:
    """Value, low and high [simulations, 3] of every metric on its own 100 rows each time."""
    rng = generator()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in BINARY | REGRESSION}
    for _ in range(SIMULATIONS):
        y, (score,) = patients(rng, ROWS)
        x = rng.normal(size=ROWS)
        once = estimates(BINARY, y, {"": score}, rng, 600)
        once |= estimates(REGRESSION, x + rng.normal(size=ROWS), {"": 0.8 * x}, rng, 600)
        for name, arms in once.items():
            found[name].append((arms[""].value, arms[""].low, arms[""].high))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.studies
@pytest.mark.parametrize("name", list(BINARY | REGRESSION))
def test_intervals_cover_the_truth_in_95_of_100_samples_and_two_thirds_of_them_do_not(name, simulated):
    value, low, high = simulated[name].T
    truth = true_values()[name]
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97
    low, high = value - (value - low) * 2 / 3, value + (high - value) * 2 / 3
    assert not 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


@pytest.fixture(scope="module")
def null() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values of p where both arms are equally good, and those of AUCs taken as if independent."""
    rng = generator(12)
    found: dict[str, list[float]] = {name: [] for name in BINARY}
    unpaired = []
    for _ in range(SIMULATIONS):
        y, scores = patients(rng, ROWS, arms=2)
        pairs = differences(BINARY, y, dict(zip("ab", scores, strict=True)), [("a", "b")], rng, 600)
        for name, once in pairs.items():
            found[name].append(once["a", "b"].p)
        auc, covariance = delong(y, scores)
        unpaired.append(2 * norm.sf(abs(auc[0] - auc[1]) / np.sqrt(np.trace(covariance))))
    return {name: np.array(p) for name, p in found.items()}, np.array(unpaired)


@pytest.mark.studies
@pytest.mark.parametrize("name", BINARY)
def test_equal_models_are_told_apart_in_5_of_100_samples(name, null):
    # sqrt(0.05 0.95 / 1000) = 0.7 %, two of these either way; sqrt(0.25 / 1000) = 1.6 % at 0.5
    p = null[0][name]
    assert 0.035 <= np.mean(p < 0.05) <= 0.065
    assert 0.46 <= np.mean(p < 0.5) <= 0.54


@pytest.mark.studies
def test_a_test_that_ignores_the_pairing_fails_that_band(null):
    assert not 0.035 <= np.mean(null[1] < 0.05) <= 0.065
