"""Sums over a cohort in blocks of sites: those of plain loops, however many sites there are."""

import tracemalloc

import numpy as np
import pytest

from flfed.updates.aggregation.guard import BLOCK, guard, joint_norms, weighted_mean
from flfed.updates.messages.train import TrainReply

SHAPES = {"weight": (3, 4), "bias": (4,), "none": (0, 2), "one": (1,)}
MANY = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]


def updates(count: int, dtype: str = "float32", seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()} for _ in range(count)]


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_are_those_of_each_update_alone(count, dtype):
    found = updates(count, dtype)
    expected = [np.linalg.norm(np.concatenate([v.ravel().astype(float) for v in u.values()])) for u in found]
    np.testing.assert_allclose(joint_norms(found), expected, rtol=1e-14)
    np.testing.assert_array_equal([joint_norms([update])[0] for update in found], joint_norms(found))


def test_the_norm_of_three_and_four_is_five_and_of_nothing_is_nothing():
    assert joint_norms([{"a": np.array([3.0, 0.0]), "b": np.array([[4.0]], dtype=np.float32)}]) == pytest.approx(5.0)
    assert joint_norms([]).shape == (0,) and joint_norms([{}, {}]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_a_bad_value_makes_the_norm_of_its_own_update_bad_and_no_other(value):
    found = updates(BLOCK + 3, "float64")
    found[BLOCK]["bias"][2] = value
    assert np.flatnonzero(~np.isfinite(joint_norms(found))).tolist() == [BLOCK]


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mean_is_that_of_numpy_in_float64(count, dtype):
    found, weights = updates(count, dtype), np.random.default_rng(1).integers(1, 500, count).astype(float)
    for name, shape in SHAPES.items():
        mean = weighted_mean(found, name, weights / weights.sum())
        expected = np.average(np.stack([u[name] for u in found]).astype(float), axis=0, weights=weights)
        assert mean.shape == shape and mean.dtype == np.float64
        np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-14)


def test_where_all_agree_the_mean_is_theirs_to_the_last_bit():
    alike = updates(1, "float64") * (2 * BLOCK + 5)
    shares = np.random.default_rng(2).dirichlet(np.ones(len(alike)))
    alike[0]["bias"][1] = 0.0  # as L1 leaves it
    for name in SHAPES:
        assert weighted_mean(alike, name, shares).tobytes() == alike[0][name].tobytes()


def test_memory_does_not_grow_with_the_cohort():
    # 1,000 updates of 4,000 float32 numbers: 32 MB as one float64 block, 2 MB a block of 64.
    one = {"a": np.ones(4000, dtype=np.float32)}
    many, shares = [one] * 1000, np.full(1000, 1e-3)
    tracemalloc.start()
    weighted_mean(many, "a", shares)
    joint_norms(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_bad_sites_in_a_cohort_of_many_blocks_are_refused_each_for_its_own_reason():
    like = updates(1)[0]
    found = updates(2 * BLOCK + 9, seed=3)
    single = np.float32
    changes = {
        5: ({"bias": np.full(4, np.nan, single)}, "array 'bias' has values that are not finite"),
        BLOCK: ({"bias": np.ones((4, 1), single)}, "array 'bias' has shape (4, 1), not (4,)"),
        70: ({"one": np.ones(1)}, "array 'one' has dtype float64, not float32"),
        71: ({"more": np.ones(1, single)}, "names of arrays differ from the model's"),
        # Of several wrong arrays the first in the model's order is named.
        99: ({"weight": np.full((3, 4), np.inf, single), "bias": np.ones(5)}, "array 'weight' has values that are not"),
        131: ({name: 1e3 * value for name, value in found[131].items()}, "times the cohort's median (limit 10)"),
    }
    deltas = [{**update, **changes.get(k, ({}, ""))[0]} for k, update in enumerate(found)]
    replies = {f"s{k:03d}": TrainReply(delta=d, num_examples=5, loss=0.1, steps=1) for k, d in enumerate(deltas)}
    verdicts = guard(replies, like, dict.fromkeys(replies, 99))
    assert list(verdicts.refused) == [f"s{k:03d}" for k in changes]
    assert all(reason in verdicts.refused[f"s{k:03d}"] for k, (_, reason) in changes.items())
    assert len(verdicts.accepted) == len(found) - 6 and list(verdicts.accepted) == sorted(verdicts.accepted)
