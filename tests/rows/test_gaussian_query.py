"""Gaussian mechanism on counts and clipped sums: how far neighbours lie apart, and what its faults would show."""

from __future__ import annotations

import numpy as np
import pytest

from flfed.rows.statistics.noised_analysis import STEP, GaussianQuery, clipped, person_weights
from flfed.rows.training.private_noise import SeededNoise, SystemNoise
from flfed.updates.accounting import Release, epsilon, noise_for

EPSILON, DELTA, DRAWS = 1.0, 1e-5, 100_000
NOISE = noise_for(EPSILON, DELTA, 1.0, 1)


def apart(with_person: np.ndarray, without: np.ndarray, query: GaussianQuery) -> float:
    """Return how far the mean answers of two neighbours lie apart, in deviations of the noise."""
    # Of a seed: the system's draws put the norm of 96 means beyond the bar in one run of ten.
    chance = SeededNoise(np.random.default_rng(4))
    first, second = (
        query.answer(np.broadcast_to(one, (DRAWS, len(one))), chance).mean(axis=0) for one in (with_person, without)
    )
    return float(np.linalg.norm(first - second) / query.deviation)


def histogram(cells: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(cells, weights, minlength=4).astype(float)


CELLS = np.random.default_rng(1).integers(0, 4, 300)


def test_tables_with_and_without_a_person_lie_as_far_apart_as_is_charged():
    query = GaussianQuery(sensitivity=1.0, noise=NOISE)
    assert epsilon([Release(query.noise, 1.0, 1)], DELTA) <= EPSILON
    assert apart(histogram(CELLS), histogram(CELLS[1:]), query) == pytest.approx(0.268, abs=0.01)
    # 24 histograms in one answer, in each of which the person is one.
    many = GaussianQuery(sensitivity=np.sqrt(24), noise=NOISE)
    seen = apart(np.tile(histogram(CELLS), 24), np.tile(histogram(CELLS[1:]), 24), many)
    assert seen == pytest.approx(0.268, abs=0.01)


@pytest.mark.studies
@pytest.mark.parametrize(("other", "copies", "found"), [
    (np.append(CELLS[1:], (CELLS[0] + 1) % 4), 1, 0.38),  # a person who is another one
    (CELLS[1:], 24, 1.30),  # 24 histograms that are charged as one
    (CELLS[10:], 1, 1.5),  # a person of ten rows, each of which weighs one
], ids=["replaced", "histograms", "persons"])  # fmt: skip
def test_a_wrong_sensitivity_lies_farther_apart_than_is_charged(other: np.ndarray, copies: int, found: float):
    query = GaussianQuery(sensitivity=1.0, noise=NOISE)
    seen = apart(np.tile(histogram(CELLS), copies), np.tile(histogram(other), copies), query)
    assert seen > 0.278
    assert seen == pytest.approx(found, rel=0.15)


def test_rows_of_one_person_weigh_one_together_and_sums_are_exact_in_any_order():
    rng = np.random.default_rng(2)
    persons = rng.integers(0, 40, 300)
    weights = person_weights(persons, 300)
    of_each = np.bincount(persons, weights)
    assert ((of_each > 1 - 300 * STEP) & (of_each <= 1)).all()
    values = rng.normal(size=300)
    added = clipped(values, -1.0, 1.0, weights)
    assert np.abs(np.bincount(persons, added)).max() <= 1
    order = rng.permutation(300)
    assert added.sum() == added[order].sum() == added[::-1].sum()
    np.testing.assert_allclose(added, np.clip(values, -1, 1) * weights, atol=STEP)
    query = GaussianQuery(sensitivity=1.0, noise=NOISE, step=STEP)
    gone = persons != persons[0]
    sides = [histogram(CELLS, weights), histogram(CELLS[gone], weights[gone])]
    assert apart(*sides, query) <= 0.278


def test_answers_lie_on_the_steps_of_exact_ones_and_never_between():
    query = GaussianQuery(sensitivity=1.0, noise=NOISE)
    found = query.answer(np.zeros(DRAWS), SystemNoise())
    assert (found == np.rint(found)).all()
    assert found.std() == pytest.approx(np.sqrt(NOISE**2 + 1 / 12), rel=0.02)
    # What is not rounded tells the count by the last bits of its float: many answers at 0 are impossible at 1.
    plain = np.random.default_rng(3).normal(size=DRAWS) * NOISE
    impossible = (plain - 1) + 1 != plain
    assert impossible.mean() > 0.1
    assert ((found - 1) + 1 == found).all()
    with pytest.raises(ValueError, match="must have multiples of 1"):
        query.answer(np.array([0.5]), SystemNoise())


def test_draws_that_follow_from_a_seed_give_a_row_exactly():
    # Why an institution's noise is the system's: noise that is drawn again is taken off by subtraction.
    query = GaussianQuery(sensitivity=1.0, noise=NOISE)
    neighbours = np.tile(histogram(CELLS), 100), np.tile(histogram(CELLS[1:]), 100)
    first, second = (query.answer(one, SeededNoise(np.random.default_rng(5))) for one in neighbours)
    assert np.abs(first - second).sum() == 100
    first, second = (query.answer(one, SystemNoise()) for one in neighbours)
    assert np.abs(first - second).mean() > NOISE / 2
