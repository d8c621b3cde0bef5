"""The draws of protected steps: how much noise, which rows, and that institutions' come from the system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from flfed.rows.features.encode import Encoded
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.answer import compute_stacked
from flfed.rows.training.private_fit import private_fit
from flfed.rows.training.private_noise import AT_A_TIME, PAGE, SeededNoise, SystemNoise, count_units, drawn_steps
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps

STEPS = 2000
NOISY = PrivateSteps(clip=0.5, noise=1.3, sampling=0.2, unit="row")


@dataclass(frozen=True)
class SeededSystem(SystemNoise):
    """The system's formula for normal draws on uniform numbers that can be drawn again."""

    rng: np.random.Generator

    def uniform(self, count: int) -> np.ndarray:
        return self.rng.random(count)


def table(rows: int, *, group: np.ndarray | None = None) -> Encoded:
    # Rows that count nothing: their gradients are 0.
    return Encoded(np.ones((rows, 6)), np.zeros(rows), np.zeros(rows), group)


def asked(rows: Encoded, private: PrivateSteps, plan: Plan, seed: int) -> FitRequest:
    rng = np.random.default_rng(seed)
    arrays = Logistic().first_arrays(6, 1, rng)
    return FitRequest(model=Logistic(), task="binary", arrays=arrays, rows=rows, plan=plan, lr=1.0, rng=rng,
                      delta=True, private=private, chance=SeededNoise(rng))  # fmt: skip


def of_steps(private: PrivateSteps, way: Callable[[list[FitRequest]], list], precision: str, steps=STEPS) -> np.ndarray:
    """Return what steps of zero gradients moved, [steps, numbers]."""
    plan = Plan(steps=1, precision=precision)
    found = way([asked(table(50), private, plan, seed) for seed in range(steps)])
    return np.array([np.append(fitted.arrays["weight"].ravel(), fitted.arrays["bias"]) for fitted in found])


def deviates_by(found: np.ndarray, deviation: float) -> bool:
    """Tell whether numbers are of mean 0 and of a deviation, within 3 %."""
    return abs(found.mean()) < 0.03 * deviation and abs(found.std() / deviation - 1) < 0.03


def alone(requests: list[FitRequest]) -> list:
    return [private_fit(request) for request in requests]


@pytest.mark.studies
@pytest.mark.parametrize(
    "way, precision, steps",
    [(compute_stacked, "float64", STEPS), (compute_stacked, "float32", STEPS), (alone, "float64", 700)],
)
def test_noise_has_the_deviation_of_the_promise(way, precision, steps):
    # sigma * C over the expected number of rows, 0.2 * 50
    expected = 1.3 * 0.5 / 10
    found = of_steps(NOISY, way, precision, steps)
    assert deviates_by(found, expected)
    assert stats.kstest(found.ravel() / expected, "norm").pvalue > 0.01
    together = np.corrcoef(found.T) - np.eye(7)
    assert np.abs(together).max() < 4.5 / steps**0.5  # numbers of one step are drawn one by one
    for wrong in (2 / 3, 3 / 2):
        assert not deviates_by(of_steps(replace(NOISY, noise=1.3 * wrong), way, precision, 200), expected)


def test_noise_of_one_fit_is_drawn_anew_in_each_step():
    rows = table(700)
    steps = [noise for _, noise in drawn_steps(rows, NOISY, SeededNoise(np.random.default_rng(1)), 500, 40)]
    found = np.array(steps)
    assert len(found) == 500 and PAGE // 700 < 100  # several pages
    assert len(np.unique(found)) == found.size
    assert deviates_by(found, 1.3 * 0.5) and not deviates_by(1.5 * found, 1.3 * 0.5)
    lag = [np.corrcoef(found[:-k].ravel(), found[k:].ravel())[0, 1] for k in range(1, 100)]
    assert np.abs(lag).max() < 4 / (400 * 40) ** 0.5
    # Without noise none is drawn: the same rows from the same seed, and nothing is added.
    plain = replace(NOISY, noise=0.0)
    assert not any(added.any() for _, added in drawn_steps(rows, plain, SeededNoise(np.random.default_rng(1)), 9, 40))


def taken(rows: Encoded, private: PrivateSteps, steps: int, chance=None) -> np.ndarray:
    """Return which rows take part in which step, bool [steps, rows]."""
    found = np.zeros((steps, len(rows)), dtype=bool)
    chance = chance or SeededNoise(np.random.default_rng(5))
    for step, (chosen, _) in enumerate(drawn_steps(rows, private, chance, steps, 3)):
        assert len(np.unique(chosen)) == len(chosen)
        found[step, chosen] = True
    return found


def of_rate(found: np.ndarray, rate: float) -> bool:
    """Tell whether entries are drawn one by one at a rate: the mean, and the spread of rows' and of steps' counts."""
    steps, rows = found.shape
    good = abs(found.mean() - rate) < 4 * (rate * (1 - rate) / found.size) ** 0.5
    for counts, of in ((found.sum(1), rows), (found.sum(0), steps)):
        # Index of dispersion of binomial counts: chi-squared.
        spread = ((counts - of * rate) ** 2).sum() / (of * rate * (1 - rate))
        good &= bool(0.001 < stats.chi2.cdf(spread, len(counts)) < 0.999)
    return good


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_rows_are_drawn_one_by_one_at_the_rate(rate):
    private, rng = replace(NOISY, sampling=rate), np.random.default_rng(7)
    found = taken(table(300), private, 600)
    assert of_rate(found, rate)
    assert not of_rate(found, rate * 1.1) and not of_rate(found, rate * 0.9)
    # A fixed number of rows a step has the rate, but is no Poisson sampling; nor is the same sample again.
    fixed = rng.permuted(np.tile(np.arange(300) < 300 * rate, (600, 1)), axis=1)
    assert not of_rate(fixed, rate) and not of_rate(np.repeat(found[:300], 2, axis=0), rate)
    rows = np.corrcoef(found[:, :60].T) - np.eye(60)
    assert np.abs(rows).max() < 4.8 / 600**0.5
    assert np.array_equal(taken(table(30), replace(NOISY, sampling=1.0), 9), np.ones((9, 30), dtype=bool))


def test_a_person_is_drawn_at_the_rate_whatever_the_rows_and_each_of_the_rows_as_often():
    counts = np.array([1, 2, 3, 7, 40, 1, 5])
    group = np.random.default_rng(3).permutation(np.repeat([4, 9, -1, 0, 2, 7, 30], counts))
    rows, private = table(59, group=group), replace(NOISY, sampling=0.3, unit="person")
    found = taken(rows, private, 4000)
    persons = np.stack([found[:, group == code].sum(1) for code in np.unique(group)], axis=1)
    assert count_units(rows, private, None).most == 7 and count_units(rows, NOISY, None).most == 59
    assert persons.max() == 1 and of_rate(persons.astype(bool), 0.3)
    often = found.sum(0)
    for code, own in zip(*np.unique(group, return_counts=True), strict=True):
        if own > 1:
            assert stats.chisquare(often[group == code]).pvalue > 0.001
    assert stats.chisquare(often[group == 2] * np.linspace(0.6, 1.4, 40)).pvalue < 0.001
    # By rows a person of forty is in nearly every step.
    assert taken(rows, NOISY, 500)[:, group == 2].any(1).mean() > 0.99


def test_seeded_draws_are_the_same_again_and_the_systems_are_not():
    rows, plan = table(30), Plan(steps=4)
    request = asked(rows, NOISY, plan, 1)

    def trained(chance) -> np.ndarray:
        return private_fit(replace(request, chance=chance)).arrays["weight"].ravel()

    one, again, other = (trained(SeededNoise(np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.isin(one, other).any()
    system = [trained(SystemNoise(np.random.default_rng(1))) for _ in range(3)]
    assert len(np.unique([one, *system])) == 4 * 6  # the same generator given, and no number twice
    rng = np.random.default_rng(1)
    SystemNoise(rng).normal(5)
    assert rng.random() == np.random.default_rng(1).random()  # nothing was taken from it
    assert replace(request, rng=rng, chance=SystemNoise(rng)).source is None
    assert replace(request, rng=rng, chance=SeededNoise(rng)).source is rng.bit_generator
    assert replace(request, rng=rng, chance=None).source is rng.bit_generator


def test_the_systems_uniform_numbers_have_53_bits():
    chance = SystemNoise()
    found = chance.uniform(40_000)
    assert found.dtype == np.float64 and found.min() >= 0 and found.max() < 1
    bits = found * 2**53
    assert np.array_equal(bits, np.floor(bits))
    odd = (bits % 2).mean()  # the last bit is drawn too
    # Nobody can seed these: bounds that fail less than once in a billion times.
    assert abs(odd - 0.5) < 6.5 * 0.5 / 200 and abs(found.mean() - 0.5) < 6.5 * 12**-0.5 / 200
    assert stats.kstest(found, "uniform").pvalue > 1e-9
    assert len(chance.uniform(0)) == len(chance.normal(0)) == 0


def test_the_systems_normal_numbers_are_normal_and_unrelated():
    chance = SeededSystem(np.random.default_rng(11))
    found = chance.normal(AT_A_TIME + 20_001)  # more than are held at a time, and an odd number
    assert found.shape == (AT_A_TIME + 20_001,)
    assert stats.kstest(found, "norm").pvalue > 0.01 and deviates_by(found, 1.0)
    for wrong in (2 / 3, 1.05, 3 / 2):
        assert stats.kstest(wrong * found, "norm").pvalue < 0.01
    # Draws i and i + half come of the same pairs, by cosine and by sine: unrelated, and their squares too.
    first, second = found[:AT_A_TIME].reshape(2, -1)
    for power in (1, 2):
        assert abs(np.corrcoef(first**power, second**power)[0, 1]) < 4 / len(first) ** 0.5
    assert stats.kstest(np.hypot(first, second) ** 2 / 2, "expon").pvalue > 0.01
    real = SystemNoise().normal(40_000)
    assert stats.kstest(real, "norm").pvalue > 1e-9 and len(np.unique(real)) == 40_000


def test_four_system_draws_are_cosines_and_sines_of_two_radii_and_two_angles():
    class Written(SystemNoise):
        def uniform(self, count: int) -> np.ndarray:
            assert count == 4  # two radii, then two angles
            return np.array([1 - np.exp(-0.5), 1 - np.exp(-2), 0.25, 0.5])

    # radii 1 and 2 by sqrt(-2 log(1 - u)), at 90 and 180 degrees
    np.testing.assert_allclose(Written().normal(4), [0, -2, 1, 0], atol=1e-12)
    np.testing.assert_allclose(Written().normal(3), [0, -2, 1], atol=1e-12)
