"""The grid of protected steps: no last bit tells who is in a sum, and rounding moves no sum beyond the clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from flfed.errors import UsageError
from flfed.rows.features.encode import Encoded
from flfed.rows.models.mlp import Mlp
from flfed.rows.training.private_fit import clipped_by_row, fit_by_row, private_fit
from flfed.rows.training.private_noise import PublicGrid, SeededNoise, SystemNoise, drawn_steps
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps

UNITS, SIGMA = 256, 8.0
NOISY = PrivateSteps(clip=1.0, noise=SIGMA, sampling=1.0, unit="row")


@dataclass(frozen=True)
class SeededSystem(SystemNoise):
    """The system's formula for normal draws on uniform numbers that can be drawn again."""

    rng: np.random.Generator

    def uniform(self, count: int) -> np.ndarray:
        return self.rng.random(count)


class Still:
    """Draws of noise that are all 0, so that the sum on the grid is seen: everybody takes part."""

    def uniform(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def normal(self, count: int) -> np.ndarray:
        return np.zeros(count)


def asked(rows: Encoded, private: PrivateSteps, chance, *, arrays=None, precision="float64") -> FitRequest:
    """Ask for one step from 0 whose learning rate undoes the division by the number of rows."""
    if arrays is None:  # hidden units that are open for the first person only
        arrays = {"weight-0": np.zeros((4, UNITS)), "bias-0": np.full(UNITS, -5.0),
                  "weight-1": np.zeros((UNITS, 1)), "bias-1": np.zeros(1)}  # fmt: skip
        arrays["weight-0"][0] = 1 + np.arange(UNITS) * 1e-3
    arrays = {name: value.astype(precision) for name, value in arrays.items()}
    return FitRequest(
        model=Mlp(hidden=(len(arrays["bias-0"]),)), task="binary", arrays=arrays, rows=rows, lr=float(len(rows)),
        plan=Plan(steps=1, precision=precision), rng=np.random.default_rng(0), delta=True, private=private,
        chance=chance,
    )  # fmt: skip


def table(rows: int, seed: int = 1) -> Encoded:
    x = np.random.default_rng(seed).normal(size=(rows, 4))
    x[0] = [8, 1.3, -0.7, 0.2]  # the person that the attack is on stands out
    return Encoded(x, np.ones(rows, dtype=int), np.ones(rows))


def trace(released: np.ndarray) -> float:
    """Return how many of the smallest numbers are on the grid that noise alone is on, not finer nor coarser."""
    near = released[np.abs(released) < SIGMA / 64] / SIGMA * 2.0**54
    return float((np.abs(near - np.round(near)) < 0.06).mean()) if len(near) else 0.5


class Summed(SeededSystem):
    """Normal draws that lie on a grid of their own, as sums of several do: half of four."""

    def normal(self, count: int) -> np.ndarray:
        return np.sum([super(Summed, self).normal(count) for _ in range(4)], axis=0) / 2


def area(step, whole: Encoded) -> float:
    """Return the AUC of the attack: a hundred steps with the person, a hundred without."""
    rng, found = np.random.default_rng(5), []
    for rows in (whole, whole.take(np.arange(1, len(whole)))):
        found += [trace(step(rows, Summed(rng)) / len(rows) * len(rows)) for _ in range(100)]
    # The side is the attacker's choice: what matters is how far from 0.5 it is.
    return 0.5 + abs(float(roc_auc_score(np.repeat([1, 0], 100), found)) - 0.5)


def test_last_bits_tell_nothing_and_told_everything_where_sum_and_noise_were_added_as_they_are():
    # One step of deviation 8 times the clip: by its epsilon of 0.44 no test has an AUC above 0.61.
    def released(rows: Encoded, chance) -> np.ndarray:
        return private_fit(asked(rows, NOISY, chance)).arrays["weight-1"].ravel()

    def as_it_is(rows: Encoded, chance) -> np.ndarray:
        bare = private_fit(asked(rows, replace(NOISY, noise=0.0), chance)).arrays["weight-1"].ravel()
        return bare + SIGMA * chance.normal(UNITS)

    assert area(as_it_is, table(101)) > 0.85
    assert area(released, table(101)) < 0.58


@pytest.mark.studies
@pytest.mark.parametrize("way", [private_fit, fit_by_row])
@pytest.mark.parametrize("clip, noise", [(1.0, SIGMA), (0.3, 0.5), (1e-5, 1.0)])
def test_all_that_is_released_is_on_one_grid_with_a_person_and_without(way, clip, noise):
    private = PrivateSteps(clip=clip, noise=noise, sampling=1.0, unit="row")
    for rows in (table(64), Encoded(*(part[1:65] for part in (table(65).x, table(65).y, table(65).weight)))):
        grid = PublicGrid.of(private, 64, 6 * UNITS + 1)
        # 64 rows, and arrays that start at 0: neither the division nor the learning rate rounds.
        found = way(asked(rows, private, SeededSystem(np.random.default_rng(3)))).arrays
        steps = np.append(found["weight-1"], found["bias-1"]) / grid.step
        assert np.array_equal(steps, np.round(steps)) and np.abs(steps % 2).mean() == pytest.approx(0.5, abs=0.1)
        deviation = max(1.0, noise) * clip  # a power of two near 2^-27 of it
        assert 2**-28 < grid.step / deviation <= 2**-27 and math.frexp(grid.step)[0] == 0.5


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("way", [private_fit, fit_by_row])
def test_a_row_moves_the_rounded_sum_by_the_clip_at_most(way, precision):
    rng = np.random.default_rng(2)
    arrays = {"weight-0": rng.normal(size=(4, 40)), "bias-0": rng.normal(size=40),
              "weight-1": rng.normal(size=(40, 1)), "bias-1": rng.normal(size=1)}  # fmt: skip
    whole, private = table(8, seed=4), replace(NOISY, noise=1e-9)
    numbers = sum(value.size for value in arrays.values())
    grid = PublicGrid.of(private, 8, numbers)

    def rounded(rows: Encoded) -> np.ndarray:
        found = way(asked(rows, private, Still(), arrays=arrays, precision=precision))
        return np.concatenate([value.ravel() for value in found.arrays.values()]).astype(np.float64)

    def plain(rows: Encoded) -> np.ndarray:
        w = {name: torch.from_numpy(value) for name, value in arrays.items()}
        parts = (torch.from_numpy(part.astype(float)) for part in (rows.x, rows.y, rows.weight))
        _, total = clipped_by_row(Mlp(hidden=(40,)), "binary", w, *parts, clip=1.0)
        return np.concatenate([PublicGrid(grid.step, 1.0).rounded(value).numpy().ravel() for value in total.values()])

    def moved(of) -> list[float]:
        rest = [whole.take(np.delete(np.arange(8), row)) for row in range(8)]
        return [math.sqrt(sum(Fraction(float(v)) ** 2 for v in of(whole) - of(part))) for part in rest]

    if precision == "float64":
        # Without noise in the draws the sums are seen, but for float32 arrays of such a plan.
        assert max(moved(rounded)) <= 1.0 < max(moved(plain))  # rounding takes rows of the full clip beyond it
    assert max(moved(rounded)) == pytest.approx(1.0, abs=1e-6)


def test_what_rounding_may_add_is_taken_from_the_clip_before():
    # 10,000 numbers: 100 steps of 2^-27, and 2 * 101^2 + 10,000 roundings of 2^-53
    private = PrivateSteps(clip=1.0, noise=1.0, sampling=0.1)
    assert PublicGrid.of(private, 100, 10_000).clip == 1 - 100 * 2.0**-27 - 30_402 * 2.0**-53
    assert PublicGrid.of(replace(private, noise=0.0), 100, 10_000) == PublicGrid(0.0, 1.0)
    # Of 2^26 rows sums are fewer than 2^52 steps of 2^-26.
    assert PublicGrid.of(private, 2**26 - 100, 9).step == 2.0**-26
    for units, numbers in ((2**27, 9), (100, 2**54)):
        with pytest.raises(UsageError, match="rounding alone"):
            PublicGrid.of(private, units, numbers)


def test_noise_on_the_grid_is_normal_noise_to_the_nearest_number():
    grid = PublicGrid.of(NOISY, 100, 5)
    normal = np.random.default_rng(7).normal(size=4000)
    found = grid.noise(normal.copy(), 8.0)
    assert np.abs(found - 8 * normal).max() <= grid.step / 2 and np.abs(found - 8 * normal).max() > grid.step / 3
    half = np.arange(-6, 6) + 0.5
    np.testing.assert_array_equal(grid.noise(half * grid.step / 8, 8.0) / grid.step, half + 0.5)  # no even ones
    rows, chance = table(100), SeededNoise(np.random.default_rng(1))
    for _, noise in drawn_steps(rows, NOISY, chance, 3, 40):
        assert np.array_equal(noise / grid.step, np.round(noise / grid.step)) and noise.std() > 5
