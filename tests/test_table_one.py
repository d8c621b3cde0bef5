"""Table 1 in words: what is counted, what is at least, what is suppressed."""

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data.site import Policy
from flfed.rows.data.site_discovery import load
from flfed.rows.features.summarise import disclose, summarise
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.summaries.summary import ColumnLayout, Layout
from flfed.summaries.table_one import SUPPRESSED, digits, table_one

AGE = ColumnLayout(name="age", kind="number", cells=("low", "high", "missing"), edges=(0.0, 50.0, 100.0), unit="years")
COST = ColumnLayout(
    name="cost", kind="number", cells=("low", "high", "missing"), edges=(0.0, 5.0, 10.0), transform="log1p", unit="EUR"
)
SEX = ColumnLayout(name="sex", kind="category", cells=("female", "male", "missing"))
Y = ColumnLayout(name="y", kind="category", cells=("no", "yes", "missing"))
AGES = "age, years (mean ± SD)"
LAYOUT = Layout(features=(AGE, COST, SEX), target=Y, task="binary")


def rows(male: int, missing: int, of: int = 40) -> pd.DataFrame:
    sex = ["male"] * male + [None] * missing + ["female"] * (of - male - missing)
    return pd.DataFrame({"age": [40.0, 60.0] * (of // 2), "cost": 99.0, "sex": sex, "y": ["no", "yes"] * (of // 2)})


def lines(sites: dict) -> dict[str, dict[str, str]]:
    return {line.pop("Characteristic"): line for line in table_one(LAYOUT, sites)}


def test_numbers_amounts_and_counts_are_said_for_all_sites_and_each():
    found = lines({"a": [summarise(rows(10, 4), LAYOUT)], "b": [summarise(rows(30, 0), LAYOUT)]})
    assert found["Rows"] == {"All sites": "80", "a": "40", "b": "40"}
    assert found[AGES] == {"All sites": "50.0 ± 10.1", "a": "50.0 ± 10.1", "b": "50.0 ± 10.1"}
    assert found["cost, EUR (geometric mean)"]["a"] == "99.00"
    # Of the 36 rows of a that have a value, and of 76 in all; of missing rows, of all rows.
    assert found["sex: male"] == {"All sites": "40 (53 %)", "a": "10 (28 %)", "b": "30 (75 %)"}
    assert found["sex: missing"] == {"All sites": "4 (5 %)", "a": "4 (10 %)", "b": "0 (0 %)"}
    assert found["y: yes"]["All sites"] == "40 (50 %)"
    # A column that is complete has no line of missing ones, and an outcome is never missing.
    assert "age, years: missing" not in found and "y: missing" not in found


def test_a_column_of_one_value_is_that_value_and_no_rounding():
    depth = ColumnLayout(name="depth", kind="number", cells=("low", "high", "missing"), edges=(-3.3, 0.1, 7.7))
    layout = Layout(features=(depth,), target=Y, task="binary")
    found = table_one(layout, {"a": [summarise(pd.DataFrame({"depth": 0.0, "y": ["no"] * 41}), layout)]})
    assert [line["a"] for line in found if "±" in line["Characteristic"]] == ["0 ± 0"]


def test_training_and_holdout_rows_are_counted_together():
    parts = [summarise(rows(10, 0), LAYOUT), summarise(rows(5, 0, of=20), LAYOUT)]
    found = lines({"a": parts})
    assert (found["Rows"]["a"], found["sex: male"]["a"]) == ("60", "15 (25 %)")


def test_what_a_site_keeps_back_is_suppressed_there_and_at_least_in_the_sum():
    kept = disclose(summarise(rows(3, 0), LAYOUT), LAYOUT, 10)
    given = disclose(summarise(rows(20, 10), LAYOUT), LAYOUT, 10)
    found = lines({"a": [kept], "b": [given]})
    assert found["sex: male"] == {"All sites": "at least 20", "a": SUPPRESSED, "b": "20 (67 %)"}
    assert found["sex: missing"] == {"All sites": "at least 10", "a": SUPPRESSED, "b": "10 (25 %)"}
    assert lines({"a": [kept]})["sex: male"]["All sites"] == SUPPRESSED
    # Suppressed is marked and never 0: the three are in no line.
    assert not any(text.startswith(("0 (", "3 (")) for line in lines({"a": [kept]}).values() for text in line.values())


def test_a_mean_that_a_site_keeps_back_is_suppressed_and_an_empty_column_has_none():
    table = rows(20, 0).assign(age=np.nan)
    assert lines({"a": [summarise(table, LAYOUT)]})[AGES]["a"] == "none"
    assert lines({"a": [disclose(summarise(table, LAYOUT), LAYOUT, 10)]})[AGES]["a"] == SUPPRESSED


def test_of_one_row_there_is_no_deviation_and_of_equal_ones_it_is_0():
    one, equal = rows(0, 0, of=2).iloc[:1], rows(20, 0).assign(age=63.1)
    found = lines({"a": [summarise(one, LAYOUT)], "b": [summarise(equal, LAYOUT)]})[AGES]
    # Of 40 equal values the sums leave a variance of about 1e-17: it is rounding, and has no digits to show.
    assert (found["a"], found["b"]) == ("40.00 ± –", "63.10 ± 0")


def test_means_and_deviations_of_real_rows_are_those_of_pandas_with_each_digit_shown(heart, test_data):
    study = Study.load("heart-disease")
    places = {name: SiteSession(load(name), study) for name in ("cleveland", "hungary")}
    parts = {name: [place.summary(), place.holdout_summary()] for name, place in places.items()}
    lines_of = table_one(places["hungary"].layout, parts)
    found = {line["Characteristic"].split(",")[0]: line for line in lines_of if "missing" not in line["Characteristic"]}
    files = {"cleveland": "cleveland", "hungary": "hungarian"}
    tables = {
        name: pd.read_csv(test_data / f"uci_heart/processed.{file}.data", header=None, na_values="?")
        for name, file in files.items()
    }
    tables["All sites"] = pd.concat(tables.values())
    for name, table in tables.items():
        assert found["Rows"][name] == str(len(table))
        for column, position in (("age", 0), ("thalach", 7), ("oldpeak", 9)):
            about = table[position].describe()
            mean, deviation = found[column][name].split(" ± ")
            for text, key in ((mean, "mean"), (deviation, "std")):
                decimals = 2 - int(np.floor(np.log10(about["std"])))
                assert text == f"{about[key]:.{decimals}f}"
    assert (found["age"]["cleveland"], found["age"]["hungary"]) == ("54.44 ± 9.04", "47.83 ± 7.81")


def test_counts_have_separators_as_figures_do():
    many, kept = summarise(rows(1500, 0, of=12000), LAYOUT), disclose(summarise(rows(3, 0), LAYOUT), LAYOUT, 10)
    found = lines({"a": [many], "b": [kept]})
    assert found["Rows"] == {"All sites": "12,040", "a": "12,000", "b": "40"}
    assert found["sex: male"] == {"All sites": "at least 1,500", "a": "1,500 (12 %)", "b": SUPPRESSED}


def test_a_deviation_that_is_rounded_up_to_ten_has_no_digit_more():
    # Two rows 14.14 apart: 9.9985 to three digits is 10.0.
    table = rows(0, 0, of=2).assign(age=[40.0, 54.14])
    assert lines({"a": [summarise(table, LAYOUT)]})[AGES]["a"] == "47.1 ± 10.0"


def test_a_mean_of_all_sites_says_which_it_lacks():
    kept = disclose(summarise(rows(20, 0).assign(age=np.nan), LAYOUT), LAYOUT, 10)
    given = summarise(rows(20, 0), LAYOUT)
    found = lines({"a": [kept], "b": [given, given]})
    assert found[AGES] == {"All sites": "50.0 ± 10.1 (1 of 2 sites)", "a": SUPPRESSED, "b": "50.0 ± 10.1"}
    full = lines({"a": [given], "b": [given, given]})[AGES]
    assert full == {"All sites": "50.0 ± 10.0", "a": "50.0 ± 10.1", "b": "50.0 ± 10.1"}
    # One site's training rows are known, its holdout rows are not.
    partly = lines({"a": [given, kept], "b": [given]})[AGES]
    assert partly == {"All sites": "50.0 ± 10.1 (not all rows)", "a": "50.0 ± 10.1 (not all rows)", "b": "50.0 ± 10.1"}
    assert lines({"a": [kept], "b": [kept]})[AGES]["All sites"] == SUPPRESSED


def test_table_one_of_institutions_shows_no_count_below_ten(small_sites, small_study):
    study = Study.parse(small_study)
    places = [SiteSession(site, study) for site in small_sites(3, policy=Policy())]
    parts = {place.site.name: [place.summary()] for place in places}
    found = table_one(places[0].layout, parts)
    counts = [
        text.split()[0] for line in found for key, text in line.items() if key != "Characteristic" and "%" in text
    ]
    assert counts and all(int(count) >= 10 for count in counts)
    widths = {line["Characteristic"]: line for line in found}["x1, mm (mean ± SD)"]
    exact = np.mean([place.table.training["x1"].mean() for place in places])
    about, mean, *_ = widths["All sites"].split()
    assert about == "about" and float(mean) == pytest.approx(exact, abs=3)


def test_a_mean_of_groups_of_bins_is_about_and_has_the_digits_of_two_of_its_deviation():
    rng = np.random.default_rng(3)
    kelvin = ColumnLayout(
        name="t", kind="number", cells=(*(str(n) for n in range(64)), "missing"), edges=tuple(np.linspace(0, 1000, 65))
    )
    layout = Layout(features=(kelvin,), target=Y, task="binary")
    table = pd.DataFrame({"t": rng.normal(293.4321, 31.234, 400), "y": ["no", "yes"] * 200})
    exact = summarise(table, layout)
    found = table_one(layout, {"a": [disclose(exact, layout, 10)], "b": [exact]})[1]
    assert found["b"] == f"{table['t'].mean():.1f} ± {table['t'].std():.1f}"
    for name in ("a", "All sites"):
        about, mean, _, deviation = found[name].split()
        assert (about, "." in mean + deviation) == ("about", False)  # 31: two digits, so the mean has no decimals
        assert float(mean) == pytest.approx(table["t"].mean(), abs=0.25 * 31)


def test_a_site_whose_bins_are_all_large_is_known_by_its_sums_to_give_bins():
    # Ten rows and more in each of two bins and in "missing": each cell leaves, and only the middles tell.
    table = pd.DataFrame({"age": [10.0] * 20 + [60.0] * 20 + [np.nan] * 12, "cost": 99.0, "sex": "male"})
    table["y"] = ["no", "yes"] * 26
    exact = summarise(table, LAYOUT)
    given = disclose(exact, LAYOUT, 10)
    assert given.cells_known[LAYOUT.slices()["age"]].all()
    found = lines({"a": [given], "b": [exact]})[AGES]
    assert found == {"All sites": "about 42 ± 26", "a": "about 50 ± 25", "b": "35.0 ± 25.3"}
    # of 25 and 75; of 10 and 60; together 42.5 ± sqrt(((25² + 75² + 10² + 60²) / 4 - 42.5²) · 80 / 79) = 26.3


def test_a_share_is_about_where_it_is_kept_back_how_few_rows_have_no_value():
    found = lines({"a": [disclose(summarise(rows(20, 0), LAYOUT), LAYOUT, 10)]})
    # female: last of the order, a group of its own; of 40 rows, or a few less
    assert found["sex: female"]["a"] == "20 (about 50 %)"
    assert found["sex: missing"]["a"] == SUPPRESSED
    assert found["y: yes"]["a"] == "20 (50 %)"  # an outcome is never missing


def test_neither_few_rows_nor_nearly_all_are_none_or_all():
    table = rows(1, 0, of=400)
    found = lines({"a": [summarise(table, LAYOUT)]})
    assert (found["sex: male"]["a"], found["sex: female"]["a"]) == ("1 (<1 %)", "399 (>99 %)")


def test_nothing_is_said_to_be_at_least_0():
    kept = disclose(summarise(rows(20, 3), LAYOUT), LAYOUT, 10)
    found = lines({"a": [kept], "b": [summarise(rows(20, 0), LAYOUT)]})
    assert found["sex: missing"] == {"All sites": SUPPRESSED, "a": SUPPRESSED, "b": "0 (0 %)"}


@pytest.mark.parametrize("value", [1.2345e9, 51223.4, 0.0004567, -99.95, 7.0])
def test_figures_are_written_out_with_the_digits_of_their_size(value):
    said = digits(value, 4)
    assert "e" not in said
    assert float(said.replace(",", "")) == float(f"{value:.4g}")
