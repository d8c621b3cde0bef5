"""Numbers of a ring: their sum is exact, never wraps at the largest entries, and its mean over draws is the entry."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flfed.refusals import Refusal
from flfed.seeds import generator
from flfed.updates.masks.ring import LARGEST_TOTAL, Ring

MADE = {32: Ring.of_updates, 64: Ring.of_sums}
SIGNED = {32: np.int32, 64: np.int64}


def rng(site: int = 0, number: int = 0) -> np.random.Generator:
    return generator(7, site=f"site-{site}", purpose="ring", number=number)


def encoded(ring: Ring, values: np.ndarray) -> list[np.ndarray]:
    return ring.encode_all(values, [rng(site) for site in range(len(values))])


def whole_numbers(ring: Ring, vector: np.ndarray) -> list[int]:
    """Return a vector's numbers as Python's, which have no limit."""
    return [int(number) for number in vector.view(SIGNED[ring.bits])]


@pytest.mark.parametrize("bits", MADE)
@pytest.mark.parametrize("sites", [3, 5, 20, 100])
@pytest.mark.parametrize("largest", [8.0, 0.3, 1e6])
def test_the_sum_is_exact_with_all_entries_at_their_largest(bits: int, sites: int, largest: float):
    ring = MADE[bits](sites, largest)
    values = largest * np.concatenate(
        [np.ones((sites, 40)), -np.ones((sites, 40)), rng().uniform(-1, 1, (sites, 40))], axis=1
    )
    vectors = encoded(ring, values)
    total = ring.add(vectors)
    assert total.dtype == ring.dtype == np.dtype(f"uint{bits}")
    # Bit for bit the sum of whole numbers without any limit: it never wrapped.
    exact = [sum(column) for column in zip(*(whole_numbers(ring, one) for one in vectors), strict=True)]
    assert whole_numbers(ring, total) == exact
    assert max(map(abs, exact)) <= LARGEST_TOTAL[bits]
    # Every entry is rounded by less than one whole number, and by a step of float64.
    plain = [math.fsum(column) for column in values.T]
    np.testing.assert_allclose(ring.decode(total), plain, rtol=0, atol=sites * (1 / ring.scale + 3e-16 * largest))


def test_without_room_for_rounding_up_three_sites_at_their_largest_wrap():
    values = np.full((3, 60), 8.0)
    naive = Ring(32, 2**31 / (3 * 8.0), 8.0)
    wrapped = naive.decode(naive.add(encoded(naive, values)))
    # 715,827,882.67 each: an entry of which two or three are rounded up, 0.74 of them, is 2^31 or more, and about -24.
    assert 0.5 < np.mean(wrapped < 0) < 0.95 and wrapped.min() == pytest.approx(-24, abs=1e-6)
    right = Ring.of_updates(3, 8.0)
    np.testing.assert_allclose(right.decode(right.add(encoded(right, values))), 24, atol=3 / right.scale)


def test_the_scale_of_one_site_wraps_in_a_sum_of_twenty():
    alone = Ring.of_updates(1, 1.0)
    total = alone.decode(alone.add(encoded(alone, np.ones((20, 5)))))
    np.testing.assert_allclose(total, 0.0, atol=1e-7)  # 20 × (2^31 - 2) is -40 modulo 2^32
    shared = Ring.of_updates(20, 1.0)
    np.testing.assert_allclose(shared.decode(shared.add(encoded(shared, np.ones((20, 5))))), 20.0, atol=1e-6)


@given(sites=st.integers(1, 10_000), largest=st.floats(1e-6, 1e12), bits=st.sampled_from(sorted(MADE)))
def test_the_scale_is_the_largest_that_leaves_room_for_all_sites(sites: int, largest: float, bits: int):
    ring, most = MADE[bits](sites, largest), LARGEST_TOTAL[bits]
    assert math.ceil(ring.scale * largest) * sites <= most
    assert ring.scale == pytest.approx((most / sites - 1) / largest, rel=1e-15)


def test_in_64_bits_the_formula_alone_would_wrap_and_float64_would_round_the_sum():
    naive = Ring(64, ((2**63 - 1) / 5 - 1) / 8.0, 8.0)
    assert math.ceil(naive.scale * 8.0) * 5 > 2**63 - 1  # a step of float64 is 256 there, and swallows the 1
    largest = np.full((5, 3), 8.0)
    assert (naive.decode(naive.add(encoded(naive, largest))) < 0).all()
    ring = Ring.of_sums(5, 8.0)
    np.testing.assert_allclose(ring.decode(ring.add(encoded(ring, largest))), 40.0, rtol=1e-15)
    values = rng(1).uniform(1, 8, (5, 200))
    vectors = encoded(ring, values)
    exact = [sum(column) for column in zip(*(whole_numbers(ring, one) for one in vectors), strict=True)]
    as_floats = np.sum([one.view(np.int64).astype(float) for one in vectors], axis=0)
    assert [int(number) for number in as_floats] != exact
    plain = np.array([math.fsum(column) for column in values.T])
    assert np.abs(ring.decode(ring.add(vectors)) / plain - 1).max() <= 3e-13


@pytest.mark.parametrize("bits", MADE)
def test_rounding_is_unbiased_where_truncating_keeps_nothing(bits: int):
    ring = MADE[bits](20, 8.0)
    # Entries of 0.1 to 0.9 whole numbers, of either sign, as updates late in a run have in 32 bits.
    parts = np.repeat([0.1, 0.37, 0.5, 0.9, -0.1, -0.37, -0.5, -0.9], 20_000)
    drawn = ring.encode(parts / ring.scale, rng()).view(SIGNED[bits]).astype(float)
    means = drawn.reshape(8, -1).mean(axis=1)
    # A mean of 20,000 draws has a standard deviation of at most 0.5 / √20,000 = 0.0035.
    np.testing.assert_allclose(means, parts[::20_000], atol=4.5 * 0.0035)
    assert np.polyfit(parts[::20_000], means, 1)[0] == pytest.approx(1, abs=0.02)
    assert np.abs(np.trunc(parts)).max() == 0  # the planted fault: a slope of 0


def test_what_is_drawn_depends_on_a_sites_generator_alone():
    ring, values = Ring.of_updates(5, 2.0), rng().normal(0, 0.3, (5, 33))
    together = encoded(ring, values)
    for site, one in enumerate(together):
        np.testing.assert_array_equal(ring.encode(values[site], rng(site)), one)
    assert not np.array_equal(ring.encode(values[0], rng(1)), together[0])
    # A known answer: numpy's generators keep their streams.
    fixed = ring.encode(np.array([1.0, -1.0, 0.123456789, 0.0]), np.random.Generator(np.random.PCG64(1)))
    assert fixed.tolist() == [214748364, 4080218931, 26512144, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 8.000000000000002, -9.0, 1e308])
@pytest.mark.parametrize("bits", MADE)
def test_an_entry_beyond_the_largest_is_refused_without_its_value(bits: int, bad: float):
    ring, values = MADE[bits](3, 8.0), np.full((3, 4), 8.0)
    values[1, 2] = bad
    before = values.copy()
    first, refused, last = encoded(ring, values)
    assert isinstance(refused, Refusal) and refused.code == "entry-too-large" and refused.facts == {"limit": "8"}
    # The other sites' numbers are those of a stack without the fault.
    np.testing.assert_array_equal(first, ring.encode(values[0], rng(0)))
    np.testing.assert_array_equal(last, ring.encode(values[2], rng(2)))
    np.testing.assert_array_equal(values, before)


def test_a_ring_without_numbers_is_wrong_use():
    for bits, scale, largest in ((16, 1.0, 1.0), (32, 0.0, 1.0), (32, math.nan, 1.0), (64, 1.0, math.inf)):
        with pytest.raises(ValueError, match="must be"):
            Ring(bits, scale, largest)
    with pytest.raises(ValueError, match="too many"):
        Ring.of_updates(2**30, 1.0)
    with pytest.raises(ValueError, match="finite"):
        Ring.of_sums(3, 1e-320)
