"""How much privacy releases spend: against an earlier accountant, other people's, a numerical δ and closed forms."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from flfed.errors import UsageError
from flfed.study.study import Study
from flfed.updates.accounting import Release, delta_defect, epsilon, noise_for
from flfed.updates.mechanism import mechanism_of
from flfed.updates.privacy.site_dp import site_epsilon

pytestmark = [pytest.mark.slow, pytest.mark.studies]

KNOWN = [Release(1.5, 0.05, 400)]
MIXED = [Release(0.6, 0.01, 100), Release(3.0, 0.5, 20), Release(1.1, 0.25, 7), Release(2.2, 0.02, 900)]
PLANS = json.loads((Path(__file__).parent / "accounted_plans.json").read_text())
"""δ, releases, their ε by the accountant of commit 32475eea, and by it on a grid eight times as fine, of 200 plans."""


def by_google(releases: Sequence[Release], delta: float = 1e-5, grid: float = 1e-4) -> float:
    accountant = PLDAccountant(value_discretization_interval=grid)
    for r in releases:
        accountant.compose(PoissonSampledDpEvent(r.sampling, GaussianDpEvent(r.noise)), r.steps)
    return float(accountant.get_epsilon(delta))


def balle_and_wang(e: float, mu: float) -> float:
    # Theorem 8: delta(eps) = P(N > eps/mu - mu/2) - e^eps P(N > eps/mu + mu/2).
    return float(norm.sf(e / mu - mu / 2) - math.exp(e) * norm.sf(e / mu + mu / 2))


def test_two_hundred_plans_spend_what_the_earlier_accountant_said_and_never_less():
    assert len(PLANS) == 200
    for delta, releases, before, fine in PLANS:
        found = epsilon([Release(*release) for release in releases], delta)
        # Figures of the table have six decimals, and the earlier ones are as far above the exact ones.
        assert before * (1 - 1e-6) <= found <= before * 1.001 and found >= fine - 1e-6


def test_the_figure_of_a_known_case_is_the_published_one():
    # For noise 1.5, delta 1e-5, sampling 0.05, 400 steps: RDP 3.689, PRV 3.371, PLD 3.360.
    assert by_google(KNOWN) == pytest.approx(3.360, abs=5e-4)
    assert 3.360 < epsilon(KNOWN, 1e-5) < 3.365


@pytest.mark.parametrize("name", ["breast-cancer-dp-3", "loan-table"])
def test_every_shipped_study_promises_what_it_asks_for_and_spends_nearly_all_of_it(name: str):
    study = Study.load(name)
    promise = mechanism_of(study).promise(study.plan, study.rounds)
    step = Release(promise.noise, promise.sampling, promise.steps)
    assert promise.epsilon == epsilon([step], promise.delta)
    assert promise.epsilon <= study.privacy.settings["epsilon"] < 1.005 * promise.epsilon


def test_opacus_random_variables_say_the_same_within_their_own_error():
    from opacus.accountants import PRVAccountant

    made = PRVAccountant()
    made.history = [(r.noise, r.sampling, r.steps) for r in MIXED]
    # Opacus adds a hundredth for the error of its computation, and can be as much too high.
    theirs = made.get_epsilon(1e-5, eps_error=0.01)
    assert theirs - 0.021 <= epsilon(MIXED, 1e-5) <= theirs + 0.005


def test_mixed_releases_are_composed_and_neither_added_up_nor_the_largest_alone():
    expected = by_google(MIXED, grid=2e-4)
    assert 0.9995 * expected <= epsilon(MIXED, 1e-5) <= 1.003 * expected
    alone = [epsilon([release], 1e-5) for release in MIXED]
    assert max(alone) < 0.98 * expected and sum(alone) > 1.02 * expected


@pytest.mark.parametrize(("noise", "sampling"), [(0.7, 0.2), (1.5, 0.05), (3.0, 0.5)])
def test_one_sampled_step_has_at_its_epsilon_the_delta_of_a_numerical_integral(noise: float, sampling: float):
    def density(x: float, mean: float = 0.0) -> float:
        return math.exp(-((x - mean) ** 2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi))

    def with_row(x: float) -> float:
        return (1 - sampling) * density(x) + sampling * density(x, 1.0)

    def delta_of(e: float) -> float:
        def surplus(one: Callable[[float], float], other: Callable[[float], float]) -> float:
            ends = np.linspace(-14 * noise, 1 + 14 * noise, 57)
            return math.fsum(
                quad(lambda x: max(0.0, one(x) - math.exp(e) * other(x)), low, high, epsabs=1e-14, limit=200)[0]
                for low, high in pairwise(ends)
            )

        return max(surplus(with_row, density), surplus(density, with_row))

    for delta in (1e-3, 1e-5):
        found = epsilon([Release(noise, sampling, 1)], delta)
        assert delta_of(found) <= delta * 1.0001
        assert delta_of(found * 0.995) > delta


def test_without_sampling_epsilon_is_the_closed_form_whatever_it_is_composed_of():
    for mu in (0.05, 1.0, math.sqrt(10), 6.0):
        for delta in (1e-3, 1e-5, 1e-9):
            exact = brentq(lambda e, mu=mu, delta=delta: balle_and_wang(e, mu) - delta, 0.0, 60.0, xtol=1e-12)
            three = [Release(math.sqrt(3) / mu, 1.0, 1)] * 3
            several = [Release(2 / mu, 1.0, 2), Release(math.sqrt(8) / mu, 1.0, 4)]
            for releases in (three, several) if mu < 3 else ():
                assert exact - 1e-11 <= epsilon(releases, delta) <= exact + 1e-6


def test_ten_rounds_of_site_dp_with_noise_1_spend_14_08_where_renyi_dp_says_15_46():
    assert site_epsilon(1.0, 10, 1e-3) == pytest.approx(14.08, abs=0.005)
    orders = np.linspace(1.01, 60, 20_000)
    renyi = 10 * orders / 2 + np.log1p(-1 / orders) - (math.log(1e-3) + np.log(orders)) / (orders - 1)
    assert float(renyi.min()) == pytest.approx(15.46, abs=0.01)


@pytest.mark.parametrize("steps", [10, 999, 12_345, 200_000])
@pytest.mark.parametrize("delta", [1e-5, 1e-9, 1e-11])
def test_rounding_of_the_transforms_is_never_below_the_exact_figure(steps: int, delta: float):
    # A release with next to all rows sampled is composed numerically, and is next to one with all: the closed form.
    noise = math.sqrt(steps) * 0.8
    exact = epsilon([Release(0.8, 1.0, 1)], delta)
    found = epsilon([Release(noise, 1 - 1e-9, steps)], delta)
    assert exact * (1 - 1e-6) <= found <= (1.01 if delta * 1e5 > steps * 1e-9 else math.inf) * exact


def test_the_usual_figures_take_a_tenth_of_a_second_and_a_calibration_a_second():
    def cpu_seconds(work: Callable[[], object]) -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    epsilon([Release(1.0, 0.5, 2)], 1e-5)  # what is imported is not counted
    assert cpu_seconds(lambda: epsilon([Release(1.51, 0.05, 400), *MIXED], 1e-5)) < 0.5
    assert cpu_seconds(lambda: noise_for(3.01, 1e-5, 0.05, 400)) < 0.5
    assert cpu_seconds(lambda: noise_for(3.02, 1e-5, 0.05, 400, (Release(3.0, 1.0, 1),))) < 0.5


def test_more_steps_than_memory_has_room_for_count_as_no_protection():
    assert epsilon([Release(1.0, 1e-6, 10**7 + 1)], 1e-5) == math.inf
    assert epsilon([Release(1e4, 1.0, 10**9)], 1e-5) == epsilon([Release(1e4 / math.sqrt(1e9), 1.0, 1)], 1e-5)


def test_more_steps_less_noise_larger_samples_and_a_smaller_delta_all_spend_more():
    grown = [epsilon([Release(1.5, 0.05, steps)], 1e-5) for steps in (1, 10, 100, 400, 2000, 10_000)]
    assert all(a < b for a, b in pairwise(grown))
    assert all(a < b for a, b in pairwise(epsilon([Release(s, 0.05, 400)], 1e-5) for s in (8.0, 3.0, 1.5, 0.7, 0.4)))
    assert all(a < b for a, b in pairwise(epsilon([Release(1.5, q, 400)], 1e-5) for q in (0.01, 0.05, 0.3, 1.0)))
    assert all(a < b for a, b in pairwise(epsilon(KNOWN, d) for d in (1e-2, 1e-5, 1e-9)))


def test_three_runs_spend_what_one_of_three_times_the_steps_does_and_counting_per_run_is_far_off():
    one, all_ = epsilon(KNOWN, 1e-5), epsilon(KNOWN * 3, 1e-5)
    assert all_ == epsilon([Release(1.5, 0.05, 1200)], 1e-5)
    assert one * 1.5 < all_ < one * 3


def test_nothing_spends_nothing_and_too_little_noise_spends_everything():
    assert epsilon([], 1e-5) == epsilon([Release(1.5, 0.1, 0)], 1e-5) == 0.0
    for low in (0.0, 0.29, -1.0, math.nan):
        assert epsilon([*KNOWN, Release(low, 0.05, 1)], 1e-5) == math.inf
    assert 200 < epsilon([Release(0.3, 1.0, 100)], 1e-5) < math.inf


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan])
def test_a_delta_that_is_none_is_refused(delta):
    with pytest.raises(UsageError, match="delta"):
        epsilon(KNOWN, delta)


@pytest.mark.parametrize(("target", "delta", "sampling", "steps", "beside"), [
    (3.0, 1e-5, 0.05, 400, ()),
    (8.0, 1e-5, 0.1, 800, ()),
    (1.0, 1e-4, 0.1, 150, ()),
    (3.0, 1e-3, 1.0, 9, ()),
    (3.0, 1e-5, 0.1, 100, (Release(3.0, 1.0, 1), Release(2.0, 0.05, 100))),
])  # fmt: skip
def test_calibrated_noise_is_the_least_that_keeps_the_target(target, delta, sampling, steps, beside):
    noise = noise_for(target, delta, sampling, steps, beside)
    assert epsilon([*beside, Release(noise, sampling, steps)], delta) <= target
    assert epsilon([*beside, Release(noise - 0.001, sampling, steps)], delta) > target
    assert round(noise * 1000) == pytest.approx(noise * 1000, abs=1e-9)
    # Half of it, or noise for one round of many, is found out.
    assert epsilon([*beside, Release(noise / 2, sampling, steps)], delta) > 1.5 * target
    assert epsilon([Release(noise_for(target, delta, sampling, 1), sampling, steps)], delta) > 1.5 * target


def test_calibration_refuses_what_no_noise_gives_and_stops_at_the_least_that_can_be_counted():
    with pytest.raises(UsageError, match="no noise up to 1000 spends as little as epsilon=0.0001"):
        noise_for(1e-4, 1e-9, 1.0, 10_000)
    assert noise_for(50.0, 1e-5, 0.001, 1) == 0.3


def test_delta_must_be_below_one_over_the_rows_and_the_refusal_names_no_count():
    assert delta_defect(1e-3, 999) is None
    assert "delta=0.001" in delta_defect(1e-3, 1000)
    assert "1234" not in delta_defect(1e-3, 1234)


def test_accounting_is_imported_without_torch_scipy_or_the_library_and_counts_without_opacus():
    code = """
import sys
import flfed.updates.accounting as accounting
print([name for name in ("torch", "pandas", "opacus", "dp_accounting", "scipy") if name in sys.modules])
print(round(accounting.epsilon([accounting.Release(1.5, 0.05, 400)], 1e-5), 3))
print([name for name in ("torch", "pandas", "opacus", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "3.363", "[]"] and done.stderr == ""


def test_extremes_give_a_figure_without_a_warning():
    # Warnings are errors here.
    for noise in (0.3, 1.0, 50.0):
        for sampling in (0.001, 0.5, 1.0):
            for delta in (1e-2, 1e-9):
                found = [epsilon([Release(noise, sampling, steps)], delta) for steps in (1, 3000)]
                assert 0 <= found[0] <= found[1]
    assert np.isfinite(epsilon([Release(900.0, 0.01, 5)], 1e-6))
