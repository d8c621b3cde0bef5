"""Rows read off the update of one step: all of them from one row without protection, none under noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flfed.rows.attacks.gradient_inversion import GradientInversion, candidates
from flfed.rows.comparison.attack_runner import Finding
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.intervals import wilson
from flfed.rows.training.answer import compute_one_by_one, run_client
from flfed.rows.training.requests import FitRequest, run_client_by
from flfed.study.plan import PrivateSteps

MLP = {"model.name": "mlp", "model.hidden": [32]}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "threat-model.md"
NOISY = PrivateSteps(clip=1.0, noise=1.0, sampling=0.1)


def inverted(attacked, records: int = 50) -> dict[str, Finding]:
    """Return the findings by metric."""
    return {found.metric: found for found in run_client(GradientInversion(records=records).findings(attacked))}


@pytest.mark.parametrize("changes", [
    {}, MLP, {"optimiser": "adam", "lr": 0.01}, {"optimiser": "adamw", "lr": 0.01, "plan.l2": 0.1},
    {"momentum": 0.9, "plan.l2": 0.1}, {"precision": "float32"},
    MLP | {"class-weight": "balanced", "validation": 0.2},
], ids=["sgd", "mlp", "adam", "adamw", "penalties", "float32", "weights"])  # fmt: skip
def test_one_step_on_one_row_without_protection_gives_50_of_50_rows_exactly(wide_site, changes):
    found = inverted(wide_site(changes))
    assert (found["share-recovered"].value, found["share-recovered"].rows) == (1.0, 50)
    assert found["share-recovered"].low == pytest.approx(wilson(1.0, 50)[0]) and found["share-recovered"].high == 1
    assert found["median-cosine"].value == pytest.approx(1, abs=1e-6)


def test_an_l1_penalty_hides_only_the_inputs_whose_weights_it_makes_0(wide_site):
    attacked = wide_site({"plan.l1": 0.01})
    rows = attacked.members()
    request = GradientInversion()._step(attacked, rows.take(np.array([0])), 0)
    delta = compute_one_by_one([request])[0].arrays
    guesses, best = candidates(attacked, delta)
    kept = (attacked.arrays["weight"] + delta["weight"])[:, 0] != 0
    np.testing.assert_allclose(guesses[best][kept], rows.x[0][kept], rtol=1e-6)
    found = inverted(attacked)
    assert 0 < found["share-recovered"].value < 1 and found["median-cosine"].value > 0.95


@pytest.mark.parametrize("changes", [{}, MLP], ids=["logistic", "mlp"])
def test_under_noise_of_one_clipping_bound_at_least_48_of_50_cosines_are_a_half_at_most(wide_site, changes):
    found = inverted(wide_site(changes, steps=NOISY, promised=(1.0, 1e-5)))
    assert found["share-recovered"].value == 0 and not found["share-recovered"].beyond
    assert found["share-close"].rows == 50 and found["share-close"].value <= 2 / 50
    assert abs(found["median-cosine"].value) < 0.13


def test_a_tenth_of_that_noise_is_no_protection_and_the_same_test_says_so(wide_site):
    weak = PrivateSteps(clip=1.0, noise=0.01, sampling=0.1)
    found = inverted(wide_site(steps=weak))
    assert found["share-close"].value > 40 / 50 and found["median-cosine"].value > 0.9


def test_a_promise_without_noise_is_flagged(wide_site):
    found = inverted(wide_site(steps=PrivateSteps(clip=1.0, noise=0.0, sampling=0.1), promised=(1.0, 1e-5)))
    assert found["share-recovered"].beyond and found["share-recovered"].promise == 0
    assert found["share-recovered"].value == 1  # clipping changes the length of a gradient, not its direction


@pytest.mark.studies
def test_a_batch_of_32_hides_rows_and_one_of_2_does_not_hide_those_of_a_network(wide_site):
    large, small = inverted(wide_site(MLP | {"batch": 32})), inverted(wide_site(MLP | {"batch": 2}))
    linear = inverted(wide_site({"batch": 8}))["share-recovered-at-plan-batch"]
    assert large["share-recovered-at-plan-batch"].value == 0 and large["share-recovered"].value == 1
    assert abs(large["median-cosine-at-plan-batch"].value) < 0.3
    assert small["share-recovered-at-plan-batch"].value > 0.27
    assert linear.value == 0 and linear.high < 0.08


@pytest.mark.studies
@pytest.mark.parametrize(("batch", "least", "most"), [(2, 0.58, 0.82), (8, 0.20, 0.26), (16, 0.0, 0.02)])
def test_how_many_rows_of_a_small_batch_come_back_from_a_network(wide_site, batch: int, least: float, most: float):
    # docs/threat-model.md says these: the least and the most of six draws of 50 rows with their batches.
    assert f"{100 * least:.0f} to {100 * most:.0f} %" in PAGE.read_text(encoding="utf-8")
    attacked = [wide_site(MLP | {"batch": batch}, seed=seed) for seed in range(6)]
    shares = [inverted(one)["share-recovered-at-plan-batch"].value for one in attacked]
    assert (min(shares), max(shares)) == pytest.approx((least, most), abs=0.04)  # two rows of 50


def test_the_quotient_is_the_row_by_arithmetic(wide_site):
    # One row x with class 1, all weights 0: p = 1/2, so the intercept moves by lr / 2 and weights by lr / 2 * x.
    attacked = wide_site(model={"weight": np.zeros((40, 1)), "bias": np.zeros(1)})
    x = np.linspace(-2, 2, 40)
    guesses, best = candidates(attacked, {"weight": (0.25 * x)[:, None], "bias": np.array([0.25])})
    np.testing.assert_allclose(guesses[best], x, atol=1e-12)


def test_what_is_attacked_is_the_sites_own_step_with_its_noise_on_so_many_rows(wide_site):
    asked: list[FitRequest] = []

    def answer(requests):
        asked.extend(requests)
        return compute_one_by_one(requests)

    attacked = wide_site(steps=NOISY)
    rows = len(attacked.members())
    run_client_by(GradientInversion(records=3).findings(attacked), answer)
    assert [len(request.rows) for request in asked] == [1] * 3 + [round(0.1 * rows)] * 3
    assert {(r.private.noise, r.private.clip, r.private.sampling, r.plan.steps) for r in asked} == {(1.0, 1.0, 1.0, 1)}


def test_a_small_count_of_rows_does_not_leave_an_institution(wide_site):
    # Of a network and a batch of 2 some rows come back and some do not; ten of twelve cannot be told.
    policy = Policy(disclosure="institution", cell_minimum=10)
    found = inverted(wide_site(MLP | {"batch": 2}, policy=policy), records=12)["share-recovered-at-plan-batch"]
    assert np.isnan(found.value) and "withheld" in found.method
    limits = sorted([(1 / 12, 9 / 12), (3 / 12, 11 / 12)], key=lambda pair: abs(pair[0] - found.low))[0]
    assert (found.low, found.high) == pytest.approx(limits)
