"""Coins guessed: the bound is the theorem's, it finds a planted bug, and it lets a right implementation pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from flfed.rows.attacks.canaries import Canaries, least_epsilon, p_value
from flfed.rows.comparison.attack_runner import Finding
from flfed.rows.training.answer import compute_one_by_one, stacked_compute
from flfed.rows.training.requests import ShadowsRequest, run_client_by
from flfed.study.plan import PrivateSteps
from flfed.updates.accounting import Release, epsilon

MLP = {"model.name": "mlp", "model.hidden": [32]}


def bound(attacked, coins: int = 400) -> Finding:
    """Return the one finding."""
    (found,) = run_client_by(Canaries(coins=coins).findings(attacked), stacked_compute())
    return found


def steps(noise: float) -> PrivateSteps:
    return PrivateSteps(clip=1.0, noise=noise, sampling=0.1)


@pytest.mark.parametrize("changes", [{}, MLP], ids=["logistic", "mlp"])
def test_a_promise_of_epsilon_1_kept_without_noise_is_flagged(wide_site, changes):
    found = bound(wide_site(changes, steps=steps(0.0), promised=(1.0, 1e-5)))
    assert found.value > 1.5 and found.beyond and found.promise == 1.0
    assert found.low == found.value and math.isnan(found.high) and found.rows == 400
    assert "not the ε of the run" in found.says


@pytest.mark.parametrize("changes", [{}, MLP], ids=["logistic", "mlp"])
def test_the_noise_that_the_accountant_asks_for_passes(wide_site, changes):
    spent = epsilon([Release(2.0, 0.1, 100)], 1e-5)
    found = bound(wide_site(changes, steps=steps(2.0), promised=(spent, 1e-5)))
    assert 2.2 < spent < 2.5 and 0 <= found.value < 1.2 and not found.beyond


def test_less_noise_gives_a_higher_bound_and_none_without_protection_has_no_promise(wide_site):
    low, high, plain = (
        bound(wide_site(steps=steps(2.0))).value, bound(wide_site(steps=steps(0.5))).value, bound(wide_site()),
    )  # fmt: skip
    assert low < 0.7 < high
    assert plain.value > 1 and math.isnan(plain.promise) and not plain.beyond


def test_the_p_value_is_the_binomial_tail_and_what_delta_adds():
    q = math.e / (1 + math.e)
    tail = sum(math.comb(20, k) * q**k * (1 - q) ** (20 - k) for k in range(18, 21))
    assert p_value(50, 20, 18, 1.0, 0.0) == pytest.approx(tail, rel=1e-12)
    # alpha = max over i of P(18 - i <= Binomial < 18) / i, by the sums themselves
    alpha = max(sum(binom.pmf(18 - j, 20, q) for j in range(1, i + 1)) / i for i in range(1, 19))
    assert p_value(50, 20, 18, 1.0, 1e-3) == pytest.approx(tail + 2 * 50 * 1e-3 * alpha, rel=1e-9)


@pytest.mark.parametrize("right", [50, 60, 75])
def test_the_bound_is_where_the_p_value_is_a_twentieth(right):
    guesses = 75
    found = least_epsilon(100, guesses, right, 1e-5)
    assert p_value(100, guesses, right, found - 1e-3, 1e-5) < 0.05 < p_value(100, guesses, right, found + 1e-3, 1e-5)
    # Without δ and all guesses right: q ** guesses = 0.05
    if right == guesses:
        q = 0.05 ** (1 / guesses)
        assert least_epsilon(100, guesses, right, 0.0) == pytest.approx(math.log(q / (1 - q)), abs=1e-5)


def test_half_of_the_guesses_right_refutes_nothing():
    assert least_epsilon(100, 50, 25, 1e-5) == 0 < least_epsilon(100, 50, 40, 1e-5)


@pytest.mark.studies
def test_randomised_response_is_bounded_by_its_own_epsilon_in_nineteen_trials_of_twenty():
    # ε = 1: each coin told rightly with e / (1 + e). The bound may pass 1 in 5 % of trials, and one of ε = 2 must.
    rng, coins = np.random.default_rng(6), 200
    right = {eps: rng.binomial(coins, 1 / (1 + math.exp(-eps)), 2000) for eps in (1.0, 2.0)}
    bounds = {k: least_epsilon(coins, coins, k, 0.0) for k in range(100, 201)}
    passed = {eps: np.mean([bounds[int(k)] > 1.0 for k in found]) for eps, found in right.items()}
    assert passed[1.0] < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert passed[2.0] > 0.9


def test_canaries_stand_at_right_angles_have_the_length_of_rows_and_half_are_in(wide_site):
    attacked, tables = wide_site({"rounds": 1, "steps": 1}), []

    def answer(requests):
        shadows = [request for request in requests if isinstance(request, ShadowsRequest)]
        tables.extend(fit.rows for request in shadows for fit in request.rounds[0])
        return compute_one_by_one(requests)

    run_client_by(Canaries(coins=400, beside=50).findings(attacked), answer)
    assert len(tables) == 10  # forty inputs, so forty canaries
    planted = [table.x[50:] for table in tables]
    length = np.sqrt(np.square(tables[0].x[:50]).sum(axis=1).mean())
    np.testing.assert_allclose(planted[0] @ planted[0].T, length**2 * np.eye(len(planted[0])), atol=1e-9)
    assert 170 < sum(map(len, planted)) < 230
