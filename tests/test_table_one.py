"""Table 1 in words: what is counted, what is at least, what is suppressed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flfed.rows.site import Policy
from flfed.rows.summarise import disclose, summarise
from flfed.rows.workplace import Workplace
from flfed.study import Study
from flfed.summary import ColumnLayout, Layout
from flfed.table_one import SUPPRESSED, table_one

AGE = ColumnLayout(name="age", kind="number", cells=("low", "high", "missing"), edges=(0.0, 50.0, 100.0), unit="years")
COST = ColumnLayout(
    name="cost", kind="number", cells=("low", "high", "missing"), edges=(0.0, 5.0, 10.0), transform="log1p", unit="EUR"
)
SEX = ColumnLayout(name="sex", kind="category", cells=("female", "male", "missing"))
Y = ColumnLayout(name="y", kind="category", cells=("no", "yes", "missing"))
LAYOUT = Layout(features=(AGE, COST, SEX), target=Y, task="binary")


def rows(male: int, missing: int, of: int = 40) -> pd.DataFrame:
    sex = ["male"] * male + [None] * missing + ["female"] * (of - male - missing)
    return pd.DataFrame({"age": [40.0, 60.0] * (of // 2), "cost": 99.0, "sex": sex, "y": ["no", "yes"] * (of // 2)})


def lines(sites: dict) -> dict[str, dict[str, str]]:
    return {line.pop("Characteristic"): line for line in table_one(LAYOUT, sites)}


def test_numbers_amounts_and_counts_are_said_for_all_sites_and_each():
    found = lines({"a": [summarise(rows(10, 4), LAYOUT)], "b": [summarise(rows(30, 0), LAYOUT)]})
    assert found["Rows"] == {"All sites": "80", "a": "40", "b": "40"}
    assert found["age, years"] == {"All sites": "50 ± 10", "a": "50 ± 10", "b": "50 ± 10"}
    assert found["cost, EUR"]["a"] == "99 (geometric mean)"
    assert found["sex: male"] == {"All sites": "40 (50 %)", "a": "10 (25 %)", "b": "30 (75 %)"}
    assert found["sex: missing"] == {"All sites": "4 (5 %)", "a": "4 (10 %)", "b": "0 (0 %)"}
    assert found["y: yes"]["All sites"] == "40 (50 %)"
    # A column that is complete has no line of missing ones, and an outcome is never missing.
    assert "age, years: missing" not in found and "y: missing" not in found


def test_training_and_holdout_rows_are_counted_together():
    parts = [summarise(rows(10, 0), LAYOUT), summarise(rows(5, 0, of=20), LAYOUT)]
    found = lines({"a": parts})
    assert (found["Rows"]["a"], found["sex: male"]["a"]) == ("60", "15 (25 %)")


def test_what_a_site_keeps_back_is_suppressed_there_and_at_least_in_the_sum():
    kept = disclose(summarise(rows(3, 0), LAYOUT), LAYOUT, 10)
    given = disclose(summarise(rows(20, 10), LAYOUT), LAYOUT, 10)
    found = lines({"a": [kept], "b": [given]})
    assert found["sex: male"] == {"All sites": "at least 20", "a": SUPPRESSED, "b": "20 (50 %)"}
    assert found["sex: missing"] == {"All sites": "at least 10", "a": SUPPRESSED, "b": "10 (25 %)"}
    assert lines({"a": [kept]})["sex: male"]["All sites"] == SUPPRESSED
    # Suppressed is marked and never 0: the three are in no line.
    assert not any(text.startswith(("0 (", "3 (")) for line in lines({"a": [kept]}).values() for text in line.values())


def test_a_mean_that_a_site_keeps_back_is_suppressed_and_an_empty_column_has_none():
    table = rows(20, 0).assign(age=np.nan)
    assert lines({"a": [summarise(table, LAYOUT)]})["age, years"]["a"] == "none"
    assert lines({"a": [disclose(summarise(table, LAYOUT), LAYOUT, 10)]})["age, years"]["a"] == SUPPRESSED


def test_a_mean_of_all_sites_says_which_it_lacks():
    kept = disclose(summarise(rows(20, 0).assign(age=np.nan), LAYOUT), LAYOUT, 10)
    given = summarise(rows(20, 0), LAYOUT)
    found = lines({"a": [kept], "b": [given, given]})
    assert found["age, years"] == {"All sites": "50 ± 10 (1 of 2 sites)", "a": SUPPRESSED, "b": "50 ± 10"}
    full = lines({"a": [given], "b": [given, given]})["age, years"]
    assert full == {"All sites": "50 ± 10", "a": "50 ± 10", "b": "50 ± 10"}
    # One site's training rows are known, its holdout rows are not.
    partly = lines({"a": [given, kept], "b": [given]})["age, years"]
    assert partly == {"All sites": "50 ± 10 (not all rows)", "a": "50 ± 10 (not all rows)", "b": "50 ± 10"}
    assert lines({"a": [kept], "b": [kept]})["age, years"]["All sites"] == SUPPRESSED


def test_table_one_of_institutions_shows_no_count_below_ten(small_sites, small_study):
    study = Study.parse(small_study)
    places = [Workplace(site, study) for site in small_sites(3, policy=Policy())]
    parts = {place.site.name: [place.summary()] for place in places}
    found = table_one(places[0].layout, parts)
    counts = [
        text.split()[0] for line in found for key, text in line.items() if key != "Characteristic" and "%" in text
    ]
    assert counts and all(int(count) >= 10 for count in counts)
    ages = {line["Characteristic"]: line for line in found}["x1, mm"]
    exact = np.mean([place.table.training["x1"].mean() for place in places])
    assert float(ages["All sites"].split()[0]) == pytest.approx(exact, abs=3)
