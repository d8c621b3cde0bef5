"""How far sites lie apart: against numpy on the rows themselves, closed forms, and what chance does."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from flfed.rows.features.summarise import disclose, summarise
from flfed.summaries import drift
from flfed.summaries.drift import by_chance, columns_of, mean_difference, share_difference
from flfed.summaries.summary import ColumnLayout, Layout

X = ColumnLayout(
    name="x", kind="number", cells=(*(str(n) for n in range(64)), "missing"), edges=tuple(np.linspace(-8.0, 8.0, 65))
)
SEX = ColumnLayout(name="sex", kind="category", cells=("female", "male", "missing"))
Y = ColumnLayout(name="y", kind="category", cells=("no", "yes", "missing"))
LAYOUT = Layout(features=(X, SEX), target=Y, task="binary")


def site(seed: int, of: int = 200, *, mean: float = 0.0, known: int | None = None, male: int = 80) -> pd.DataFrame:
    """Rows of a site: x is known in the first `known`."""
    x = np.random.default_rng(seed).normal(mean, 1, of)
    x[of if known is None else known :] = np.nan
    sex = ["male"] * male + ["female"] * (of - male)
    return pd.DataFrame({"x": x, "sex": sex, "y": ["no", "yes"] * (of // 2)})


def found(tables: dict[str, pd.DataFrame], kept: tuple[str, ...] = ()) -> dict[str, dict]:
    """By column, what is recorded of each site; those in `kept` let small counts not leave."""
    sums = {name: summarise(table, LAYOUT) for name, table in tables.items()}
    sums |= {name: disclose(sums[name], LAYOUT, 10) for name in kept}
    return {column["column"]: column["sites"] for column in columns_of(LAYOUT, sums)}


def exact(tables: dict[str, pd.DataFrame], name: str, others: tuple[str, ...]) -> float:
    own, rest = tables[name]["x"].dropna(), pd.concat([tables[other]["x"] for other in others]).dropna()
    return float((own.mean() - rest.mean()) / np.sqrt((own.var(ddof=0) + rest.var(ddof=0)) / 2))


def beyond(own: np.ndarray, rest: np.ndarray) -> float:
    """The share of comparisons, a row each, whose difference is more than what chance is said to reach."""
    compared = [
        mean_difference(a.mean(), a.var(), a.size, b.mean(), b.var(), b.size) for a, b in zip(own, rest, strict=True)
    ]
    return float(np.mean([abs(size) > chance for size, chance, _ in compared]))


def test_a_difference_from_groups_of_bins_is_about_and_no_chance_is_claimed():
    tables = {"a": site(1), "b": site(2, mean=1.0), "c": site(3)}
    there = found(tables, kept=("b",))["x"]
    for name, others in {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}.items():
        entry = there[name]
        assert (entry["about"], entry["chance"], entry["compared-with"]) == (True, None, 2)
        assert abs(entry["difference"] - exact(tables, name, others)) < drift.BINNING
    open_ones = found(tables)["x"]
    for name, others in {"a": ("b", "c"), "b": ("a", "c")}.items():
        assert open_ones[name]["difference"] == pytest.approx(exact(tables, name, others), rel=1e-9)
        n, m = tables[name]["x"], pd.concat([tables[other]["x"] for other in others])
        v, w = n.var(ddof=0), m.var(ddof=0)
        of_two = 1.96 * np.sqrt((v / 200 + w / 400) / ((v + w) / 2))
        chance = pytest.approx(max(by_chance(200, 400, 1), of_two), rel=1e-4)
        assert (open_ones[name]["about"], open_ones[name]["chance"]) == (False, chance)


def test_who_keeps_a_column_back_is_told_from_who_has_nobody_to_compare_with():
    few = site(2, male=195)  # of 195 and 5 neither count leaves
    tables = {"a": site(1), "b": few, "c": site(3, male=100)}
    there = found(tables, kept=("b",))["sex"]
    assert (there["b"]["difference"], there["b"]["reason"]) == (None, drift.SITE_SUPPRESSES)
    # 80 and 100 males of 200, beside the one that tells
    assert there["a"]["difference"] == pytest.approx(-0.1 / np.sqrt((0.24 + 0.25) / 2))
    assert (there["a"]["compared-with"], there["a"]["reason"]) == (1, "")
    alone = found({"a": site(1), "b": few}, kept=("b",))["sex"]
    assert (alone["a"]["difference"], alone["a"]["reason"]) == (None, drift.OTHERS_KEEP_BACK)
    assert found({"a": site(1)})["sex"]["a"]["reason"] == drift.NO_OTHERS


@pytest.mark.parametrize(("males", "mirrored"), [
    ((240, 260, 250, 750), True),  # a quarter are men, and one site has them the other way round
    ((240, 260, 250, 640), False),  # another share, which no turning gives
    ((240, 600, 250, 750), False),  # the others are no two alike
    ((460, 450, 455, 545), False),  # too near to a half
    ((250, 750), False),  # of two sites each is the other's mirror
])  # fmt: skip
def test_a_share_that_is_one_minus_that_of_the_others_is_told(males, mirrored):
    there = found({f"s{place}": site(place, 1000, male=many) for place, many in enumerate(males)})["sex"]
    assert [name for name, entry in there.items() if entry["mirrored"]] == [f"s{len(males) - 1}"] * mirrored
    # Of a hundred rows chance alone moves a share by a tenth.
    few = found({f"s{place}": site(place, 100, male=many // 10) for place, many in enumerate(males)})["sex"]
    assert not any(entry["mirrored"] for entry in few.values())


@pytest.mark.parametrize(("known", "reason"), [(0, drift.EMPTY), (5, drift.FEW), (19, drift.FEW), (20, "")])
def test_few_rows_with_a_value_give_no_figure(known, reason):
    tables = {"a": site(1, known=known), "b": site(2)}
    there = found(tables)["x"]
    assert there["a"]["reason"] == reason and (there["a"]["difference"] is None) == bool(reason)
    elsewhere = drift.FEW_ELSEWHERE if reason else ""
    assert (there["b"]["reason"], there["b"]["difference"] is None) == (elsewhere, bool(reason))


def test_the_order_of_sites_changes_no_bit():
    tables = {name: site(seed, mean=seed / 7) for seed, name in enumerate("abcde")}
    assert found(tables) == found(dict(reversed(tables.items())))


@pytest.mark.parametrize(("draw", "of_five"), [
    (lambda rng, size: rng.normal(size=size), 0.06), (lambda rng, size: rng.exponential(size=size), 0.045),
    # vessels as the hospitals count them
    (lambda rng, size: rng.choice(4, p=[0.59, 0.21, 0.13, 0.07], size=size), 0.08),
])  # fmt: skip
def test_from_20_rows_on_chance_is_below_its_bound_in_about_95_of_100(draw, of_five):
    rng = np.random.default_rng(5)

    def above(n: int) -> float:
        return beyond(draw(rng, (6000, n)), draw(rng, (6000, 304)))

    assert above(drift.FEW_ROWS) == pytest.approx(0.055, abs=0.015)
    assert above(5) > of_five


@pytest.mark.parametrize(("n", "m"), [(25, 1000), (60, 300)])
def test_a_site_that_spreads_twice_as_much_is_within_chance_in_about_95_of_100(n, m):
    rng = np.random.default_rng(7)
    own, rest = rng.normal(0, 2, (6000, n)), rng.normal(0, 1, (6000, m))
    assert beyond(own, rest) == pytest.approx(0.06, abs=0.015)
    # By the rule for one spread it would be twice as often.
    sizes = np.abs(own.mean(axis=1) - rest.mean(axis=1)) / np.sqrt((own.var(axis=1) + rest.var(axis=1)) / 2)
    assert np.mean(sizes > by_chance(n, m, 1)) > 0.09


def test_few_rows_of_what_is_rare_that_happen_to_spread_little_are_no_more_than_chance():
    rng = np.random.default_rng(7)
    own, rest = rng.binomial(1, 0.05, (4000, 20)), rng.binomial(1, 0.05, (4000, 1000))
    assert np.mean(own.var(axis=1) == 0) > 0.3  # no case among 20 rows: with its own spread only, 36 of 100 lay apart
    assert beyond(own.astype(float), rest.astype(float)) < 0.05


def test_of_four_values_5_rows_are_too_few_for_the_bound():
    rng = np.random.default_rng(5)

    def above(n: int) -> float:
        rest = rng.multinomial(304, [0.25] * 4, size=3000).astype(float)
        sizes = [
            share_difference(a, b)[0] for a, b in zip(rng.multinomial(n, [0.25] * 4, size=3000), rest, strict=True)
        ]
        return float(np.mean(np.array(sizes) > by_chance(n, 304, 3)))

    assert above(drift.FEW_ROWS) < 0.1
    assert above(5) > 0.14


def test_a_number_differs_by_the_means_over_the_mean_spread():
    # (54 - 49.5) / sqrt((81 + 81) / 2) = 4.5 / 9
    assert mean_difference(54.0, 81.0, 100, 49.5, 81.0, 400)[:2] == (
        0.5, pytest.approx(1.96 * np.sqrt(0.0125), abs=1e-4),
    )  # fmt: skip
    # 25 rows that spread twice as much as 1000: 1.96 sqrt((4 / 25 + 1 / 1000) / 2.5); as much less, as with one spread
    assert mean_difference(0.0, 4.0, 25, 0.0, 1.0, 1000)[1] == pytest.approx(1.96 * np.sqrt(0.0644), abs=1e-4)
    assert mean_difference(0.0, 1.0, 25, 0.0, 4.0, 1000)[1] == by_chance(25, 1000, 1)
    assert mean_difference(1.0, 0.0, 5, 1.0, 0.0, 5) == (None, None, drift.CONSTANT)
    assert mean_difference(1.0, 0.0, 5, 1000.0, 0.0, 5) == (None, None, drift.APART)


def test_a_share_of_two_values_has_a_sign_and_more_values_have_none():
    # (0.5 - 0.2) / sqrt((0.25 + 0.16) / 2)
    up, _, _ = share_difference(np.array([50.0, 50.0]), np.array([80.0, 20.0]))
    assert up == pytest.approx(0.3 / np.sqrt(0.205))
    down, _, _ = share_difference(np.array([80.0, 20.0]), np.array([50.0, 50.0]))
    assert down == pytest.approx(-up)
    # three values, the third nowhere: as of two, but for the sign
    three, _, _ = share_difference(np.array([80.0, 20.0, 0.0]), np.array([50.0, 50.0, 0.0]))
    assert abs(three) == pytest.approx(up)


def test_the_size_does_not_depend_on_the_order_of_the_values():
    rng = np.random.default_rng(1)
    one, other = rng.integers(5, 90, 4).astype(float), rng.integers(5, 90, 4).astype(float)
    sizes = [share_difference(one[order], other[order])[0] for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0])]
    assert sizes == [pytest.approx(sizes[0])] * 3


def test_sites_without_a_value_in_common_have_no_spread_to_measure_by():
    assert share_difference(np.array([9.0, 0.0]), np.array([0.0, 9.0])) == (None, None, drift.APART)
    assert share_difference(np.array([0.0, 0.0]), np.array([0.0, 9.0])) == (None, None, drift.EMPTY)
    assert share_difference(np.array([4.0, 0.0]), np.array([9.0, 0.0])) == (None, None, drift.CONSTANT)


@pytest.mark.parametrize("freedom", [1, 2, 3, 8])
def test_what_chance_reaches_is_the_quantile_of_chi_squared(freedom):
    exact = np.sqrt(chi2.ppf(0.95, freedom) * (1 / 40 + 1 / 300))
    assert by_chance(40, 300, freedom) == pytest.approx(exact, rel=0.006)


@pytest.mark.parametrize("values", [2, 4])
def test_chance_alone_stays_below_its_bound_in_95_of_100(values):
    rng = np.random.default_rng(11)
    shares = np.full(values, 1 / values)
    draws = [(rng.multinomial(80, shares), rng.multinomial(400, shares)) for _ in range(2000)]
    sizes = np.array([abs(share_difference(a.astype(float), b.astype(float))[0]) for a, b in draws])
    bound = by_chance(80, 400, values - 1)
    assert np.mean(sizes < bound) == pytest.approx(0.95, abs=0.015)
    assert np.mean(sizes < 2 / 3 * bound) < 0.85
