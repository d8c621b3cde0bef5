"""Packed rows: those that a site takes alone, kept for the sites that they are of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.rows.features.encode import Encoded
from flfed.rows.training.batches import BatchPlan, BufferPool, PackCache, Unpacked, gathered, pack
from flfed.study.plan import Plan
from tests.rows.drawn import batches


def table(rows: int, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    return Encoded(rng.normal(size=(rows, 4)), y, np.array([0.6, 1.8])[y])


def tables(sizes: list[int]) -> list[Encoded]:
    return [table(rows, seed) for seed, rows in enumerate(sizes)]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    keys=st.fixed_dictionaries({"batch": st.integers(0, 12), "epochs": st.integers(1, 3), "steps": st.integers(0, 9)}),
    most=st.integers(1, 200), window=st.integers(1, 4000),
)  # fmt: skip
def test_each_site_takes_the_rows_that_it_takes_alone_however_they_are_cut(sizes, keys, most, window):
    plan, seeds = Plan(**keys), range(len(sizes))
    alone = [[part.tolist() for part in batches(n, plan, np.random.default_rng(seed))] for seed, n in enumerate(sizes)]
    order = sorted(seeds, key=lambda site: -len(alone[site]))
    first = np.cumsum([0, *(sizes[site] for site in order)])
    taken: list[list[list[int]]] = [[] for _ in order]
    for block in BatchPlan(
        [sizes[site] for site in order], plan, [np.random.default_rng(site) for site in order]
    ).blocks(most, window):  # fmt: skip
        for step in range(block.steps):
            for place, row in enumerate(block.index[step % len(block.index)]):
                taken[place].append((row[row != block.none] - first[place]).tolist())
                assert len(taken[place][-1]) == block.used[step % len(block.index), place]
    assert taken == [alone[site] for site in order]


def test_the_rows_gathered_weigh_one_over_their_true_batch_and_absent_ones_nothing():
    rows = tables([5, 3])
    packed = pack(rows, "binary", torch.float64)
    plan = Plan(batch=4)
    block, last = BatchPlan([5, 3], plan, [np.random.default_rng(site) for site in (0, 1)]).blocks(10**6)
    found = gathered(packed, block, BufferPool())
    np.testing.assert_array_equal(found.share[0] > 0, [[1, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_allclose(found.share[0, 1, :3], rows[1].weight / 3)
    np.testing.assert_array_equal(found.x[0, 1], [*np.column_stack([rows[1].x, np.ones(3)]), np.zeros(5)])
    assert found.absent is not None and found.absent[0].tolist() == [7]
    assert last.index.shape == (1, 1, 1) and gathered(packed, last, BufferPool()).absent is None


def test_packed_rows_are_kept_for_the_same_objects_and_no_others():
    kept, rows = PackCache(), tables([5, 3])
    first = kept.packed(rows, "binary", torch.float32)
    assert kept.packed(rows, "binary", torch.float32) is first
    assert kept.packed(rows, "binary", torch.float64) is not first
    assert kept.packed(rows[::-1], "binary", torch.float32) is not first
    np.testing.assert_allclose(first.x[:5, :4], rows[0].x, rtol=1e-6)
    assert PackCache(0).packed(rows, "binary", torch.float32) is not PackCache(0).packed(rows, "binary", torch.float32)


def test_packed_rows_are_let_go_with_their_sites_and_never_exceed_the_limit():
    limit = 3 * pack(tables([100]), "binary", torch.float64).nbytes()
    kept, held = PackCache(limit), []
    for seed in range(12):
        rows = table(100, seed)
        np.testing.assert_array_equal(kept.packed([rows], "binary", torch.float64).x[:100, :4], rows.x)
        held = [*held, rows] if seed % 2 else held
        assert kept.nbytes() <= limit
        del rows
    first = kept.packed(held[:1], "binary", torch.float64)
    assert kept.packed(held[:1], "binary", torch.float64) is first


def test_packed_rows_are_not_mistaken_for_those_of_an_object_that_took_their_place_in_memory():
    kept, first, other = PackCache(), table(9, 0), table(9, 1)
    kept.packed([first], "binary", torch.float64)
    number = id(first)
    del first
    copies = []
    while len(copies) < 1000 and (not copies or id(copies[-1]) != number):
        copies.append(Encoded(other.x, other.y, other.weight))
    np.testing.assert_array_equal(kept.packed(copies[-1:], "binary", torch.float64).x[:9, :4], other.x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("plan", [Plan(batch=8, steps=5), Plan(batch=8, epochs=2), Plan(epochs=3, batch=0)])
def test_rows_of_a_large_site_are_gathered_from_where_they_lie_as_from_a_packed_copy(plan, dtype):
    rows = table(61)
    for block in BatchPlan([61], plan, [np.random.default_rng(3)]).blocks(20):
        copied = gathered(pack([rows], "binary", dtype), block, BufferPool())
        where_they_lie = gathered(Unpacked.of(rows, "binary", dtype), block, BufferPool())
        for part in ("x", "y", "share"):
            assert torch.equal(getattr(where_they_lie, part), getattr(copied, part))
            assert getattr(where_they_lie, part).dtype == getattr(copied, part).dtype
