"""One budget split over all that leaves: it is spent, and never more, by our accountant and by Google's."""

import math
from collections.abc import Iterable

import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from flfed.study.plan import Plan
from flfed.updates.accounting import (
    HOLDOUT_SHARES,
    Release,
    TrainingShares,
    affordable,
    epsilon,
    gaussian_releases,
    holdout_releases,
    noise_for,
    training_releases,
)
from flfed.updates.privacy.record_dp import RecordDp

PLANS = [(1e-5, 0.1, 800), (5e-4, 0.25, 100), (1e-5, 0.05, 200)]
"""δ, sampling and steps of many steps, of breast-cancer-dp-3, and of few steps with small samples."""
DELTA = 1e-5
NOT_COMPOSED = noise_for(1.0, DELTA, 1.0, 1)
"""Noise of a query that spends an ε of 1 alone."""


def by_google(releases: Iterable[Release], delta: float) -> float:
    accountant = PLDAccountant()
    for release in releases:
        step = GaussianDpEvent(release.noise)
        sampled = step if release.sampling == 1 else PoissonSampledDpEvent(release.sampling, step)
        accountant.compose(sampled, release.steps)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("delta", "sampling", "steps", "own"),
    [(*plan, False) for plan in PLANS]
    + [pytest.param(*plan, True, marks=[pytest.mark.proof] if plan != PLANS[1] else []) for plan in PLANS],
)
def test_a_study_at_epsilon_three_spends_it_and_not_more(delta: float, sampling: float, steps: int, own: bool):
    shares = TrainingShares.with_own() if own else TrainingShares()
    released = training_releases(shares, 3.0, delta, sampling=sampling, steps=steps)
    found = [release for release in released if release is not None]
    spent = epsilon(found, delta)
    assert len(found) == 3 + own and 2.99 <= spent <= 3.0
    exact = by_google(found, delta)
    assert 2.99 <= exact <= 3.0 and exact == pytest.approx(spent, rel=0.002)
    # A hundredth less noise of any kind of steps is too much; what a gate reserves one after another fits.
    last = found[-1]
    less = Release(last.noise * 0.99, last.sampling, last.steps)
    assert epsilon([*found[:-1], less], delta) > 3.0
    assert affordable(found[:-1], last, 3.0, delta) and not affordable(found[:-1], less, 3.0, delta)


def test_a_holdout_at_epsilon_three_spends_it_and_not_more():
    held = holdout_releases(3.0, DELTA)
    spent = epsilon(held, DELTA)
    assert 2.96 <= spent <= 3.0 and by_google(held, DELTA) == pytest.approx(spent, rel=0.01)
    delta, sampling, steps = PLANS[2]
    trained = training_releases(TrainingShares(), 1.0, delta, sampling=sampling, steps=steps)
    assert spent > epsilon(trained[:3], DELTA)
    # Both accounts of one person, whom a re-split has held out and trained on, are more than the larger.
    assert epsilon([*trained[:3], *held], DELTA) > spent + 0.2


def test_shares_are_of_the_square_of_sensitivity_over_noise():
    found, whole = holdout_releases(3.0, DELTA), noise_for(3.0, DELTA, 1.0, 1)
    squares = [release.noise**-2 * whole**2 for release in found]
    assert squares == pytest.approx([0.2, 0.05, 0.35, 0.4], rel=2e-3)
    assert sum(squares) <= 1  # noise is rounded up to thousandths
    # Shares of ε would be: an ε of 0.6 for a fifth of 3 takes four times the noise, and leaves much unspent.
    of_epsilon = [noise_for(3.0 * share, DELTA, 1.0, 1) for share in (0.2, 0.05, 0.35, 0.4)]
    assert of_epsilon[0] > 1.9 * found.histograms.noise
    assert epsilon([Release(noise, 1.0, 1) for noise in of_epsilon], DELTA) < 2.0


def test_without_queries_training_needs_an_eighth_less_noise_and_takes_all_that_is_left():
    delta, sampling, steps = PLANS[1]
    alone, found = noise_for(3.0, delta, sampling, steps), training_releases(
        TrainingShares(), 3.0, delta, sampling=sampling, steps=steps
    )  # fmt: skip
    # Three quarters of μ² are 1 / sqrt(0.75) = 1.155 times the noise, were training a Gaussian query.
    assert found.training.noise / alone == pytest.approx(1.155, abs=0.025)
    # What leaves beside training at this noise and is not charged spends a seventh more than is promised.
    fault = Release(alone, sampling, steps)
    assert epsilon([found.histograms, found.sums, fault], delta) > 3.3


@pytest.mark.parametrize(("queries", "true"), [(5, 2.4), (10, 3.6), (40, 8.2)], ids=["queries", "re-runs", "looks"])
def test_an_epsilon_of_one_that_is_not_composed_is_not_one(queries: int, true: float):
    fault = [Release(NOT_COMPOSED, 1.0, queries)]
    assert epsilon(fault, DELTA) == pytest.approx(true, rel=0.02)
    assert by_google(fault, DELTA) == pytest.approx(epsilon(fault, DELTA), rel=0.01)
    # The same answers by shares spend what is promised.
    assert 0.98 <= epsilon(gaussian_releases((1 / queries,) * queries, 1.0, DELTA), DELTA) <= 1.0


@pytest.mark.parametrize("target", [0.1, 1.0])
def test_queries_of_a_small_budget_are_no_millionth_above_it(target: float):
    # Several queries are to the account the one whose budget they share: a gate refuses none of them.
    shares = (0.2, 0.05, 0.35, 0.4)
    found = gaussian_releases(shares, target, DELTA)
    assert 0.98 * target <= epsilon(found, DELTA) <= target
    assert affordable(found[:-1], found[-1], target, DELTA)
    # Noise rounded down would be above it.
    less = [Release(noise_for(target, DELTA, 1.0, 1) / math.sqrt(share) - 0.005, 1.0, 1) for share in shares]
    assert epsilon(less, DELTA) > target


def test_the_shares_are_all_of_the_budget():
    for shares in (TrainingShares(), TrainingShares.with_own(), HOLDOUT_SHARES):
        assert math.fsum(share for share in shares if share) == pytest.approx(1, abs=1e-12)


def test_a_run_that_trained_little_has_spent_what_its_test_rows_have():
    made = RecordDp(epsilon=3.0, covers="study", sampling=0.05)
    plan = Plan(steps=20)
    answers = made.answer_releases(plan, 10).values()
    held = [answer.release for answer in answers if answer.side == "holdout"]
    begun = made.spent(plan, 10, 0)
    assert begun == epsilon(held, made.delta) and 1.5 < begun < 3.0
    assert begun < made.spent(plan, 10, 10) <= 3.0
