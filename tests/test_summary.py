"""What merged sums are made into: the same in any order of sites, to the last bit."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flfed.summaries.summary import (
    SHIFTS,
    STEP,
    ColumnLayout,
    Layout,
    LeakWarning,
    Summary,
    arrays_sha256,
    chance_at_most,
    fit_encoder,
    leak_warnings,
    merge,
    schema_encoder,
    sums_sha256,
)

X = ColumnLayout(name="x", kind="number", cells=("low", "high", "missing"), edges=(0.0, 50.0, 100.0))
FLAG = ColumnLayout(name="f", kind="flag", cells=("0", "1", "missing"))
Y = ColumnLayout(name="y", kind="category", cells=("no", "yes", "missing"))
LAYOUT = Layout(features=(X, FLAG), target=Y, task="binary")


def summary(seed: int = 0, **changes) -> Summary:
    """Sums of a made-up site; any part may be given."""
    rng = np.random.default_rng(seed)
    values = {
        "rows": np.array([100.0]), "moments": rng.normal(size=(3, 3)) * 10.0 ** rng.integers(-8, 8, (3, 3)),
        "moments_known": np.ones(3), "cells": rng.integers(0, 50, 9).astype(float), "cells_known": np.ones(9),
        "lower": np.zeros(9), "left": np.zeros(3),
        "leaks": rng.normal(size=(2, 1, 4)) * 10.0 ** rng.integers(-8, 8, (2, 1, 4)), "leaks_known": np.ones((2, 1, 2)),
        "sites": np.ones(1),
    }  # fmt: skip
    return Summary(**{**values, **{name: np.asarray(value, dtype=float) for name, value in changes.items()}})


def leaks(*values: float, rows: float = 100.0, second: tuple[float, ...] = (0.0, 1.0, 50.0, 100.0)) -> Summary:
    return summary(rows=[rows], leaks=np.array([[values], [second]]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=5, unique=True))
def test_the_order_of_sites_changes_not_one_bit(seeds):
    parts = [summary(seed) for seed in seeds]
    hashes = {arrays_sha256(merge(order).arrays()) for order in permutations(parts)}
    encoders = {fit_encoder(LAYOUT, merge(order)).sha256() for order in permutations(parts)}
    assert len(hashes) == len(encoders) == 1


def test_plain_addition_would_depend_on_the_order():
    # Why `merge` sums exactly: 1e16 + 1 - 1e16 is 0 from the left and 1 in truth.
    parts = [summary(left=[value, 0, 0]) for value in (1e16, 1.0, -1e16)]
    assert merge(parts).left[0] == 1.0
    assert sum(part.left[0] for part in parts) == 0.0


@pytest.mark.parametrize("sites", [2, 3, 8, 200])
def test_each_entry_is_the_exact_sum_rounded_once(sites: int):
    rng = np.random.default_rng(sites)
    for draw in range(20):
        counts, sizes = rng.integers(-9, 900, (sites, 3)), 10.0 ** rng.integers(-12, 18, (sites, 3))
        values = np.where(rng.random((sites, 3)) < 0.3, counts, rng.normal(size=(sites, 3)) * sizes)
        values[:, 0] = [-0.0, 2.0**52, 1.0, 0.5][draw % 4]
        found = merge([summary(left=row) for row in values]).left
        assert found.tobytes() == np.array([math.fsum(column) for column in values.T]).tobytes()
    for value, error in ((math.inf, ValueError), (1e308, OverflowError)):
        parts = [summary(left=[value, 0, 0]), summary(left=[-value if value == math.inf else value, 0, 0])]
        with pytest.raises(error):
            merge(parts)


def test_the_sum_of_nothing_is_refused_and_of_one_is_itself():
    one = summary()
    assert merge([one]) is one
    with pytest.raises(ValueError, match="no summary"):
        merge([])


def test_an_encoder_centres_and_scales_by_the_merged_moments():
    # Values 40, 60, 60, 80 and 20 of a range 0 to 100: z = -0.2, 0.2, 0.2, 0.6 | -0.6; mean 52, variance 416
    parts = [summary(moments=[[4, 0.8, 0.48], [0] * 3, [0] * 3]), summary(moments=[[1, -0.6, 0.36], [0] * 3, [0] * 3])]
    encoder = fit_encoder(LAYOUT, merge(parts))
    assert encoder.center[0] == pytest.approx(np.mean([40, 60, 60, 80, 20]), abs=1e-12)
    assert encoder.scale[0] == pytest.approx(np.std([40, 60, 60, 80, 20]), abs=1e-12)
    plain = fit_encoder(LAYOUT, merge(parts), "none")
    assert plain.scale[0] == 1.0 and (plain.spread == 1).all()
    assert plain.center[0] == encoder.center[0]


def test_the_schemas_encoder_takes_centre_and_scale_from_public_spans_and_nothing_from_sums():
    # Range 0 to 100: centre 50, and a quarter of the width, 25. A flag: one half, deviation one half. Missing: 0/1.
    parts = [summary(moments=[[4, 0.8, 0.48], [0] * 3, [0] * 3]), summary(moments=[[9, 8.1, 7.29], [0] * 3, [0] * 3])]
    first, second = (fit_encoder(LAYOUT, part, "schema") for part in parts)
    assert first.sha256() == second.sha256() == schema_encoder(LAYOUT).sha256()
    assert (first.center[0], first.scale[0]) == (50.0, 25.0)
    np.testing.assert_allclose(first.frequency, [0.5, 0.5, 0, 0.5, 0.5, 0, 0.5, 0.5, 0])
    np.testing.assert_allclose(first.spread, [0.5, 0.5, 1, 0.5, 0.5, 1, 0.5, 0.5, 1])
    np.testing.assert_allclose(first.class_weight, [1, 1])
    # 95 of 100 values within 40 to 80: two standard deviations to either side of 60.
    typical = schema_encoder(replace(LAYOUT, features=(replace(X, typical=(40.0, 80.0)), FLAG)))
    assert (typical.center[0], typical.scale[0]) == (60.0, 10.0)


def test_rows_that_were_not_given_count_for_the_values_among_them():
    # Of 100 rows 70 are "0"; 30 are "1" or missing, nobody says: they count as "1".
    cells = [50, 50, 0, 70, 0, 0, 50, 50, 0]
    known = [1, 1, 0, 1, 0, 0, 1, 1, 0]
    encoder = fit_encoder(LAYOUT, summary(cells=cells, cells_known=known, left=[0, 30, 0]))
    np.testing.assert_allclose(encoder.frequency[3:6], [0.7, 0.3, 0.0])
    # A second site that gives everything: 40 of "0", 50 of "1", 10 missing.
    second = summary(cells=[50, 50, 0, 40, 50, 10, 50, 50, 0])
    merged = merge([summary(cells=cells, cells_known=known, left=[0, 30, 0]), second])
    np.testing.assert_allclose(fit_encoder(LAYOUT, merged).frequency[3:6], [110 / 190, 80 / 190, 10 / 200])


def test_p_values_and_the_bound_of_a_warning():
    # V = 400, U / 20 = 4.6: h(0.23) = 1.23 log 1.23 - 0.23 = 0.024629, 2 exp(-400 h) = 1.054e-4; at 4.65 8.56e-5.
    for z, named in ((4.6, []), (4.65, ["x"])):
        found = leak_warnings(LAYOUT, leaks(z * 20, 400.0, 50.0, 100.0))
        assert [warning.column for warning in found] == named
    assert found[0].value == pytest.approx(8.56e-5, rel=0.01)


@pytest.mark.parametrize(("rows", "missing", "cases"), [(15000, 10, 75), (900, 40, 30), (200, 90, 100), (60, 30, 3)])
def test_the_bound_of_chance_is_never_below_what_the_hypergeometric_law_gives(rows, missing, cases):
    law = stats.hypergeom(rows, cases, missing)
    mean, variance = law.mean(), law.var()
    for count in range(int(min(missing, cases)) + 1):
        u = count - mean
        exact = law.sf(np.ceil(mean + abs(u)) - 1) + law.cdf(np.floor(mean - abs(u)))
        assert chance_at_most(u, variance) >= min(exact, 1.0) - 1e-12
    # and it still tells a column that is missing for all with the outcome, and hardly for others
    assert chance_at_most(min(missing, cases) - mean, variance) < (1e-4 if cases > 3 else 1)


def test_of_several_outcomes_the_smallest_p_is_multiplied_by_their_number():
    three = Layout(
        features=(X,), target=ColumnLayout(name="y", kind="category", cells=(*"abc", "missing")), task="multi-class"
    )
    one = [[0.0, 1.0, 50.0, 100.0]] * 2
    for z, named in ((4.65, 0), (4.9, 1)):  # p 8.6e-5 and 2.9e-5, times 3
        part = summary(leaks=[[[20 * z, 400.0, 50.0, 100.0], *one]])
        assert len(leak_warnings(three, part)) == named


def test_strength_is_the_mean_over_sites_weighted_by_rows():
    # 0.99 over 300 rows and 0.96 over 100: 0.9825; over 100 and 300 rows: 0.9675
    strong, weak = 0.99, 0.96
    for first, second, named in ((300, 100, ["separation"]), (100, 300, [])):
        parts = [leaks(0, 1, strong * first, first), leaks(0, 1, weak * second, second)]
        assert [warning.reason for warning in leak_warnings(LAYOUT, merge(parts))] == named
    # A site that gives none does not count.
    assert len(leak_warnings(LAYOUT, merge([leaks(0, 1, 99, 100), leaks(0, 0, 0, 0)]))) == 1


def test_warnings_name_the_column_and_the_reason():
    texts = [str(LeakWarning("slope", reason, 1e-9)) for reason in ("missingness", "separation")]
    assert "'slope' is missing goes with the target" in texts[0]
    assert "'slope' alone separates" in texts[1]


def test_a_hash_covers_names_shapes_types_and_values():
    base = arrays_sha256({"w": np.ones((2, 3))})
    others = [{"v": np.ones((2, 3))}, {"w": np.ones((3, 2))}, {"w": np.ones((2, 3), "f4")}, {"w": 2 * np.ones((2, 3))}]
    assert len({base, *(arrays_sha256(other) for other in others)}) == 5
    assert arrays_sha256({"w": np.ones((2, 3)).astype(">f8")}) == base
    assert arrays_sha256({"w": np.asfortranarray(np.ones((2, 3)))}) == base


def test_sums_of_the_same_rows_have_a_hash_in_common_whoever_adds_them_up():
    for seed in range(20):
        sums = summary(seed, moments=np.random.default_rng(seed).normal(size=(3, 3)) * 300)
        for shift in SHIFTS:  # where a grid rounds, and one bit below and above
            edge = (np.round(sums.moments / STEP) - shift) * STEP
            near = [replace(sums, moments=np.nextafter(edge, to)) for to in (-np.inf, np.inf)]
            assert set(sums_sha256(near[0])) & set(sums_sha256(near[1]))
        other = sums.moments.copy()
        other[0, 1] += 1e-4
        for changed in (replace(sums, moments=other), replace(sums, rows=sums.rows + 1)):
            assert not set(sums_sha256(sums)) & set(sums_sha256(changed))
