"""Metrics from noised score counts: what they are of the rows, and how often their intervals hold the truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from flfed.rows.evaluation.delong import delong
from flfed.rows.statistics.noised_counts import person_weights
from flfed.summaries.noised_scores import (
    ALIKE,
    BINS,
    CLASS_LOST,
    FIRST_SHARE,
    GRID,
    NO_LINE,
    POINTS,
    ScoreCounts,
    Spread,
    bounds_of,
    choose_edges,
    first_counts,
    number_of_bins,
    recalibrate,
    score_counts,
    spread_within,
)
from flfed.summaries.score_bins import ScoreBins, auc_bound
from flfed.updates.accounting import noise_for

DRAWS = 2000
COVERED = (0.93, 0.975)
METRICS = ("roc_auc_score", "brier_score_loss", "log_loss", "calibration_slope")
CENTRE, WIDTH = -1.60239, 1.20096
"""Of normal log-odds that are calibrated: 22 % events and an AUC of 0.778."""
Populations = tuple[np.ndarray, dict[str, float]]


def population(odds: np.ndarray, shares: np.ndarray, intercept: float = 0.0, slope: float = 1.0) -> Populations:
    """Return shares by class and cell, and the metrics of infinitely many rows, of these predictions, from low to high.

    The truth of the calibration slope is the slope of the outcome's log-odds.
    """
    p, risk = expit(odds), expit(intercept + slope * odds)
    both = np.stack([shares * (1 - risk), shares * risk])
    truth = {
        "roc_auc_score": trapezoid(both), "brier_score_loss": float(both[0] @ p**2 + both[1] @ (1 - p) ** 2),
        "log_loss": float(-both[0] @ np.log1p(-p) - both[1] @ np.log(p)), "calibration_slope": slope,
    }  # fmt: skip
    return by_cell(odds, both, GRID), truth


def by_cell(odds: np.ndarray, both: np.ndarray, grid: ScoreBins) -> np.ndarray:
    return np.stack([np.bincount(grid.places(odds), one, minlength=grid.bins) for one in both])


def trapezoid(counts: np.ndarray) -> float:
    """Return the AUC in which a pair of one bin counts half."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(shares[1] @ (np.cumsum(shares[0]) - shares[0] / 2))


def normal(centre: float = CENTRE, width: float = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    odds = np.linspace(centre - 6 * width, centre + 6 * width, 60_001)
    shares = norm.pdf(odds, centre, width)
    return odds, shares / shares.sum()


NORMAL = population(*normal())


def noise(epsilon: float, rows: int) -> float:
    """Return the noise of the whole budget, at δ = 1 / (10 rows) rounded down to a power of ten."""
    return noise_for(epsilon, 10.0 ** -math.ceil(math.log10(10 * rows)), 1.0, 1)


def drawn(rng: np.random.Generator, shares: np.ndarray, rows: int, deviation: float) -> ScoreCounts | None:
    """Return score counts of drawn people, by bins that a first histogram of the same people says."""
    first_deviation, deviation = deviation / FIRST_SHARE**0.5, deviation / (1 - FIRST_SHARE) ** 0.5
    cells = rng.multinomial(rows, shares.ravel() / shares.sum()).reshape(shares.shape).astype(float)
    first = cells.sum(axis=0) + np.rint(rng.normal(0, first_deviation, GRID.bins))
    edges = choose_edges(first, first_deviation, number_of_bins(float(first.sum()), deviation))
    if edges is None:
        return None
    # Bins are cells put together, so that their counts are exactly those of the rows.
    counts = np.add.reduceat(cells, edges[:-1], axis=1)
    counts += np.rint(rng.normal(0, deviation, counts.shape))
    # Rounding to whole numbers adds the variance of an even distribution over one.
    rounded = math.hypot(deviation, 12**-0.5)
    return ScoreCounts(counts=counts, deviation=rounded, edges=edges, first=first, first_deviation=first_deviation)


def coverage(found: list[ScoreCounts], truth: dict[str, float]) -> dict[str, float]:
    """Return how often the interval of each metric holds the truth."""
    held: dict[str, list[bool]] = {name: [] for name in METRICS}
    for counts in found:
        for name in METRICS:
            if (interval := getattr(counts, name)()) is not None:
                held[name].append(interval.low <= truth[name] <= interval.high)
    assert all(len(one) > 0.98 * len(found) for one in held.values())
    return {name: float(np.mean(one)) for name, one in held.items()}


def simulated(of: Populations, rows: int, epsilon: float, draws: int) -> list[ScoreCounts]:
    rng, deviation = np.random.default_rng(rows), noise(epsilon, rows)
    found = [drawn(rng, of[0], rows, deviation) for _ in range(draws)]
    told = [one for one in found if one is not None and not one.reason]
    assert len(told) > 0.98 * draws
    return told


def test_the_population_is_the_one_the_bars_are_for():
    assert NORMAL[0][1].sum() == pytest.approx(0.22, abs=1e-4)
    assert NORMAL[1]["roc_auc_score"] == pytest.approx(0.778, abs=1e-4)


def within_the_bar(held: dict[str, float]) -> bool:
    return all(COVERED[0] <= one <= COVERED[1] for one in held.values())


MORE_SIZES = [(1000, 1.0), (3000, 0.5), (3000, 1.0), (7500, 1.0), (40_000, 0.3)]


@pytest.mark.parametrize(
    ("rows", "epsilon"), [(300, 3.0), (7500, 0.3), *(pytest.param(*one, marks=pytest.mark.proof) for one in MORE_SIZES)]
)
@pytest.mark.proof
def test_intervals_of_sampling_and_noise_hold_the_truth_and_those_of_sampling_alone_do_not(rows: int, epsilon: float):
    found = simulated(NORMAL, rows, epsilon, DRAWS)
    held = coverage(found, NORMAL[1])
    assert within_the_bar(held), held
    alone = coverage([replace(one, deviation=0.0) for one in found[:300]], NORMAL[1])
    assert all(one < COVERED[0] for one in alone.values()), alone


@pytest.mark.parametrize("wrong", [2 / 3, 3 / 2])
def test_an_interval_of_another_noise_is_outside_the_bar_for_every_metric(wrong: float):
    found = simulated(NORMAL, 7500, 0.3, 600)
    held = coverage([replace(one, deviation=one.deviation * wrong) for one in found], NORMAL[1])
    assert all(one < COVERED[0] or one > COVERED[1] for one in held.values()), held


def others() -> dict[str, Populations]:
    """Return predictions of other shapes, and such as are not calibrated."""
    even = np.linspace(-3.6, 0.6, 40_001)
    wide = np.linspace(-12, 9, 60_001)
    heavy = (1 + ((wide + 1.55) / 0.85) ** 2 / 5) ** -3.0
    two = 0.75 * norm.pdf(wide, -1.9, 0.45) + 0.25 * norm.pdf(wide, 0.3, 0.7)
    leaves = np.sort(np.random.default_rng(8).normal(-1.3, 1.2, 25))
    trees = np.random.default_rng(9).dirichlet(np.ones(25))
    return {
        "even": population(even, np.full(len(even), 1 / len(even))),
        "heavy tails": population(wide, heavy / heavy.sum()), "two groups": population(wide, two / two.sum()),
        "25 leaves": population(leaves, trees),
        "too extreme": population(*normal(), intercept=-0.4, slope=0.6),
        "too timid": population(*normal(), intercept=0.8, slope=1.6),
    }  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("shape", ["even", "heavy tails", "two groups", "25 leaves", "too extreme", "too timid"])
@pytest.mark.parametrize(("rows", "epsilon"), [(300, 3.0), (1000, 1.0), (7500, 0.3), (7500, 3.0)])
def test_intervals_hold_the_truth_whatever_the_predictions_look_like(shape: str, rows: int, epsilon: float):
    of = others()[shape]
    held = coverage(simulated(of, rows, epsilon, DRAWS), of[1])
    assert within_the_bar(held), held


def noise_alone(rows: int, epsilon: float, grid: ScoreBins, edges: np.ndarray, draws: int) -> float:
    """Return the RMSE in AUC that the whole budget's noise on score counts adds to that of the people's own counts."""
    rng, deviation = np.random.default_rng(5), noise(epsilon, rows)
    odds, shares = normal()
    risk = expit(odds)
    of = by_cell(odds, np.stack([shares * (1 - risk), shares * risk]), grid)
    errors = []
    for _ in range(draws):
        cells = rng.multinomial(rows, of.ravel() / of.sum()).reshape(of.shape)
        counts = np.add.reduceat(cells, edges[:-1], axis=1)
        noised = counts + np.rint(rng.normal(0, deviation, counts.shape))
        errors.append(trapezoid(noised) - trapezoid(counts))
    return float(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize(("rows", "epsilon", "bar"), [(1000, 1.0, 0.022), (7500, 0.3, 0.010)])
def test_noise_in_the_auc_is_that_of_16_bins_by_quantile_and_256_or_even_ones_have_more(rows, epsilon, bar):
    cells = NORMAL[0].sum(axis=0) * rows
    edges = choose_edges(cells, 1e-9, number_of_bins(rows, noise(epsilon, rows)))
    assert len(edges) == BINS + 1
    assert noise_alone(rows, epsilon, GRID, edges, 1500) == pytest.approx(bar, rel=0.06)
    assert noise_alone(rows, epsilon, ScoreBins(bins=256), np.arange(257), 300) > 2.5 * bar
    assert noise_alone(rows, epsilon, GRID, np.arange(0, 129, 8), 1000) > 1.1 * bar


def rows_of(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds and classes of as many people; calibrated they are not."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(CENTRE, WIDTH, number)
    return odds, (rng.uniform(size=number) < expit(0.3 + 0.8 * odds)).astype(int)


def counted(odds: np.ndarray, classes: np.ndarray, bins: int) -> ScoreCounts:
    """Return the counts of these rows without noise."""
    ones = np.ones(len(odds))
    first = first_counts(odds, ones)
    edges = choose_edges(first, 0.0, bins)
    assert edges is not None
    counts = score_counts(odds, classes, ones, edges)
    return ScoreCounts(counts=counts, deviation=0.0, edges=edges, first=first, first_deviation=1e-9)


def test_without_noise_metrics_and_their_variances_are_those_of_the_rows():
    from sklearn.metrics import brier_score_loss, log_loss
    from statsmodels.api import Logit, add_constant

    odds, classes = rows_of(100_000, 1)
    found, p = counted(odds, classes, 32), expit(odds)
    area, covariance = delong(classes, odds[None])
    auc, brier, log, slope = (getattr(found, name)() for name in METRICS)
    assert auc.value == pytest.approx(area[0], abs=2e-4)
    assert auc.variance == pytest.approx(covariance[0, 0], rel=0.02)
    assert brier.value == pytest.approx(brier_score_loss(classes, p), abs=2e-4)
    assert brier.variance == pytest.approx(np.var((p - classes) ** 2) / len(p), rel=0.02)
    assert log.value == pytest.approx(log_loss(classes, p), abs=5e-4)
    loss = -np.log(np.where(classes == 1, p, 1 - p))
    assert log.variance == pytest.approx(np.var(loss) / len(p), rel=0.02)
    fitted = Logit(classes, add_constant(odds)).fit(disp=0)
    assert slope.value == pytest.approx(fitted.params[1], abs=0.005)
    assert slope.variance == pytest.approx(fitted.bse[1] ** 2, rel=0.03)


def test_pairs_within_a_bin_count_half_and_by_the_order_that_the_recalibration_line_gives_them():
    of = NORMAL[0] * 1e7
    first = of.sum(axis=0)
    for bins, lost in [(8, 0.0061), (16, 0.0016), (32, 0.0005)]:
        edges = choose_edges(first, 1e-9, bins)
        counts = np.add.reduceat(of, edges[:-1], axis=1)
        found = ScoreCounts(counts=counts, deviation=1e-9, edges=edges, first=first, first_deviation=1e-9)
        assert NORMAL[1]["roc_auc_score"] - trapezoid(counts) == pytest.approx(lost, abs=2e-4)
        assert found.roc_auc_score().value == pytest.approx(NORMAL[1]["roc_auc_score"], abs=2e-4)
        # Pairs of one bin that count nothing take much more.
        assert trapezoid(counts) - auc_bound(*counts) < NORMAL[1]["roc_auc_score"] - 8 * lost
        for name in ("brier_score_loss", "log_loss"):
            assert getattr(found, name)().value == pytest.approx(NORMAL[1][name], abs=4e-4)
        assert found.calibration_slope().value == pytest.approx(1.0, abs=0.005)


def test_predictions_in_the_middle_of_public_bins_give_wrong_losses_and_slopes():
    found = simulated(NORMAL, 7500, 0.3, 300)
    held = []
    for one in found:
        bounds = bounds_of(one.edges)
        middle = Spread(
            odds=np.repeat((bounds[1:] + bounds[:-1])[:, None] / 2, POINTS, axis=1), error=np.zeros(len(bounds) - 1)
        )
        line = recalibrate(one.counts, one.deviation, middle)
        held.append(line is not None and abs(line.slope - 1) < 1.96 * line.variance**0.5)
    assert np.mean(held) < 0.8


def test_counts_below_0_stay_as_they_are_for_cutting_them_takes_from_the_auc():
    # 1,000 rows, ε 0.6: about three events in the lowest bin and twice the noise.
    found = simulated(NORMAL, 1000, 0.6, 500)
    cut = [replace(one, counts=np.maximum(one.counts, 0.0)) for one in found]
    right, wrong = (
        [float(np.mean([getattr(one, name)().value for one in kind])) - NORMAL[1][name] for name in METRICS[:2]]
        for kind in (found, cut)
    )
    assert abs(right[0]) < 0.005 and abs(right[1]) < 0.002
    assert wrong[0] < -0.008


def test_a_tails_mean_is_the_first_histograms_where_that_is_clear_and_its_doubt_shrinks():
    odds, shares = normal()
    rows, edges = 40_000, choose_edges(NORMAL[0].sum(axis=0) * 40_000, 1e-9)
    lowest = odds < bounds_of(edges)[1]
    true = float(odds[lowest] @ shares[lowest] / shares[lowest].sum())
    counts = np.add.reduceat(NORMAL[0].sum(axis=0) * rows, edges[:-1])
    clear = spread_within(counts, edges, NORMAL[0].sum(axis=0) * rows, 1.0)
    assert clear.odds[0].mean() == pytest.approx(true, abs=0.01)
    # Of one without a count nothing is learned: the guess by the bins beside it stays, with its doubt.
    blind = spread_within(counts, edges, np.zeros(GRID.bins), 1e6)
    assert blind.odds[0].mean() == pytest.approx(true, abs=0.1)
    assert 0.1 < blind.error[0] < 0.5 and clear.error[0] < 0.01


@pytest.mark.parametrize(("rows", "epsilon"), [(1000, 1.0), (7500, 0.3)])
def test_bins_have_about_as_many_rows_each_and_after_cells_are_cut_at_0_end_bins_have_none(rows: int, epsilon: float):
    rng, deviation = np.random.default_rng(6), noise(epsilon, rows) / FIRST_SHARE**0.5
    shares = NORMAL[0].sum(axis=0) / NORMAL[0].sum()
    right, wrong = [], []
    for _ in range(200):
        first = rng.multinomial(rows, shares) + np.rint(rng.normal(0, deviation, GRID.bins))
        for cells, found in ((first, right), (np.maximum(first, 0.0), wrong)):
            edges = choose_edges(cells, deviation)
            assert edges[0] == 0 and edges[-1] == GRID.bins and (np.diff(edges) > 0).all() and len(edges) <= BINS + 1
            of_bins = np.add.reduceat(shares, edges[:-1])
            found.append([of_bins.max(), (of_bins[0] + of_bins[-1]) / 2])
    largest, ends = np.mean(right, axis=0)
    assert largest < 2 / BINS
    assert ends == pytest.approx(1 / BINS, rel=0.1)
    # Each empty cell is 0.4 deviations then: bins stand where there is nobody.
    assert np.mean(wrong, axis=0)[1] < 0.5 / BINS


def test_sites_count_what_all_rows_together_have_and_a_person_moves_a_count_by_at_most_1():
    odds, classes = rows_of(3000, 2)
    persons = np.random.default_rng(3).integers(0, 900, 3000)
    weights = person_weights(persons, 3000)
    first = first_counts(odds, weights)
    edges = choose_edges(first, 1.0)
    counts = score_counts(odds, classes, weights, edges)
    halves = [slice(0, 1300), slice(1300, 3000)]
    parts = [score_counts(odds[one], classes[one], weights[one], edges) for one in halves]
    np.testing.assert_array_equal(sum(parts), counts)
    np.testing.assert_array_equal(counts.sum(axis=0), np.add.reduceat(first, edges[:-1]))
    for person in range(40):
        stays = persons != person
        without = score_counts(odds[stays], classes[stays], weights[stays], edges)
        assert np.linalg.norm(counts - without) <= 1
        assert np.linalg.norm(first - first_counts(odds[stays], weights[stays])) <= 1
    # Rows that each weigh one move it by the root of their number at least.
    ones = np.ones(3000)
    most = np.bincount(persons).argmax()
    stays = persons != most
    moved = score_counts(odds, classes, ones, edges) - score_counts(odds[stays], classes[stays], ones[stays], edges)
    assert np.linalg.norm(moved) > 2


def test_edges_that_do_not_cover_the_cells_are_refused():
    odds, classes = rows_of(10, 4)
    for edges in ([0, 64], [1, 64, 128], [0, 64, 64, 128], [0, 80, 60, 128]):
        with pytest.raises(ValueError, match="must rise from 0 to 128"):
            score_counts(odds, classes, np.ones(10), np.array(edges))


def test_predictions_beyond_all_cells_and_none_at_all_have_their_places():
    odds = np.array([-np.inf, -800.0, np.nan, 800.0, np.inf])
    found = first_counts(odds, np.ones(5))
    assert found[0] == 3 and found[-1] == 2
    spread = spread_within(np.full(4, 50.0), np.array([0, 30, 60, 90, 128]), np.zeros(128), 1.0)
    assert np.abs(spread.odds).max() <= GRID.limit and np.isfinite(spread.odds).all()


def test_nothing_is_told_of_a_class_that_is_lost_in_the_noise():
    counts = np.full((2, 16), 50.0)
    edges = np.arange(0, 129, 8)
    first = np.repeat(counts.sum(axis=0) / 8, 8)
    # 800 rows of either class; the bar is 6 · σ · √16 = 24 σ.
    told = ScoreCounts(counts=counts, deviation=33.0, edges=edges, first=first, first_deviation=3.0)
    assert told.reason == "" and told.roc_auc_score() is not None
    lost = replace(told, deviation=33.5)
    assert lost.reason == CLASS_LOST and lost.slope_reason == CLASS_LOST
    assert all(getattr(lost, name)() is None for name in METRICS)
    empty = replace(told, counts=np.stack([counts[0], np.zeros(16)]), deviation=0.0)
    assert empty.reason == CLASS_LOST
    assert choose_edges(np.random.default_rng(1).normal(0, 10, 128), 10.0) is None
    assert choose_edges(np.zeros(128), 0.0) is None


def test_predictions_that_are_all_alike_are_told_apart_from_lost_ones_and_have_no_slope():
    first = np.zeros(128)
    first[127] = 900.0
    edges = choose_edges(first, 1.0)
    assert edges.tolist() == [0, 127, 128]
    alike = ScoreCounts(
        counts=np.array([[0.0, 600.0], [0.0, 300.0]]), deviation=1.0, edges=edges, first=first, first_deviation=2.0
    )
    assert alike.reason == ALIKE and all(getattr(alike, name)() is None for name in METRICS)
    # Classes that do not overlap have no finite slope, and the other metrics all the same.
    apart = np.zeros((2, 16))
    apart[0, :8], apart[1, 8:] = 100.0, 100.0
    parted = ScoreCounts(
        counts=apart, deviation=0.0, edges=np.arange(0, 129, 8), first=np.full(128, 12.5), first_deviation=1e-9
    )
    assert parted.slope_reason == NO_LINE and parted.calibration_slope() is None
    assert parted.roc_auc_score().value == pytest.approx(1.0)
