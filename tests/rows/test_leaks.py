"""Leak warnings where a person has several rows: no false alarms, and what was recorded after the outcome is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed.rows.features.summarise import leaving, one_of_each
from flfed.summaries.summary import ColumnLayout, Layout, Summary, leak_warnings, merge, untested

COLUMNS = tuple(f"x{place}" for place in range(12))
TARGET = ColumnLayout(name="y", kind="category", cells=("0", "1", "missing"))
LAYOUT = Layout(
    features=tuple(
        ColumnLayout(name=name, kind="number", cells=("low", "high", "missing"), edges=(-10.0, 0.0, 10.0))
        for name in COLUMNS
    ),
    target=TARGET, task="binary",
)  # fmt: skip
NUMERIC = replace(LAYOUT, target=replace(LAYOUT.features[0], name="y"), task="regression")
SITES, PEOPLE = 3, 120


def site(rng: np.random.Generator, rows: int, *, people: int = PEOPLE, numeric: bool = False) -> pd.DataFrame:
    """One site of people with so many rows each, who have their own rates of outcome and gaps, independently."""
    person = np.repeat(np.arange(people), rows)
    odds = rng.normal(-1.4, 2.0, people)[person]
    y = rng.random(len(person)) < 1 / (1 + np.exp(-odds))
    table = pd.DataFrame({"person": person, "y": np.where(y, "1", "0").astype(object)})
    if numeric:
        table["y"] = np.clip(np.where(y, odds, -9.0), -9.9, 9.9)
    for name, gaps in zip(COLUMNS, rng.choice([0.01, 0.1, 0.5], len(COLUMNS)), strict=True):
        often = rng.random(people) < gaps  # whose value is never taken, such as that of a test they did not have
        missing = often[person] | (rng.random(len(person)) < gaps / 10)
        values = (rng.normal(0, 2, people)[person] + rng.normal(0, 0.5, len(person))).clip(-9.9, 9.9)
        table[name] = np.where(missing, np.nan, values)
    return table


def merged(tables: list[pd.DataFrame], minimum: int | None = None, layout: Layout = LAYOUT) -> Summary:
    return merge([leaving(table, layout, minimum, one_of_each(table, "person")) for table in tables])


def false_alarms(studies: int, rows: int, **kind: bool) -> int:
    rng, layout = np.random.default_rng(rows), NUMERIC if kind.get("numeric") else LAYOUT
    return sum(
        bool(leak_warnings(layout, merged([site(rng, rows, **kind) for _ in range(SITES)], layout=layout)))
        for _ in range(studies)
    )


@pytest.mark.studies
@pytest.mark.parametrize("rows", [1, 10, 30])
def test_many_rows_of_a_person_raise_no_false_alarm(rows):
    assert false_alarms(12, rows) == 0


@pytest.mark.proof
@pytest.mark.parametrize("rows", [1, 3, 10, 30])
@pytest.mark.parametrize("numeric", [False, True])
def test_false_alarms_are_in_at_most_one_study_of_twenty(rows, numeric):
    found = false_alarms(500, rows, numeric=numeric)
    print(f"{rows} rows a person, {'a number' if numeric else 'two classes'}: {found} of 500 studies warn")
    assert found <= 25


@pytest.mark.parametrize("rows", [1, 3, 10, 30])
@pytest.mark.parametrize("minimum", [None, 10])
def test_what_is_recorded_after_the_outcome_is_found_at_any_number_of_rows(rows, minimum):
    rng = np.random.default_rng(1)
    tables = [site(rng, rows, people=300) for _ in range(SITES)]
    for table in tables:
        later = (table["y"] == "1") & (rng.random(len(table)) < 0.65) | (rng.random(len(table)) < 0.15)
        table["x0"] = np.where(later, table["x0"].fillna(0.0), np.nan)  # recorded for those with the outcome
        table["x1"] = np.where(table["y"] == "1", 3.0, -3.0)  # the outcome itself
    found = {(one.column, one.reason) for one in leak_warnings(LAYOUT, merged(tables, minimum))}
    assert found == {("x0", "missingness"), ("x1", "separation")}


def test_two_missing_cells_in_15000_never_warn_and_are_named_as_untested():
    y = np.where(np.arange(15000) < 75, "1", "0").astype(object)
    table = pd.DataFrame({name: np.zeros(15000) for name in COLUMNS} | {"y": y, "person": np.arange(15000)})
    table.loc[:1, "x0"] = np.nan  # both with the outcome: by chance in one study of 40,000
    table.loc[:11, "x1"] = np.nan  # twelve with the outcome: by chance in none
    summary = merged([table])
    assert untested(LAYOUT, summary) == ["x0"]
    assert [one.column for one in leak_warnings(LAYOUT, summary)] == ["x1"]


def test_one_row_of_each_person_is_drawn_the_same_each_time():
    table = pd.DataFrame({"person": ["b", "a", "b", "c", "a", "b"]})
    rows = one_of_each(table, "person")
    assert sorted(table["person"].iloc[rows]) == ["a", "b", "c"]
    assert rows.tolist() == one_of_each(table, "person").tolist()
    assert one_of_each(table.drop_duplicates(), "person") is None and one_of_each(table, "") is None


def test_of_people_with_several_rows_no_count_of_the_draw_leaves():
    table = site(np.random.default_rng(3), 4)
    table["x0"] = np.where(np.random.default_rng(4).random(len(table)) < 0.4, np.nan, 1.0)
    exact, reply = (leaving(table, LAYOUT, minimum, one_of_each(table, "person")) for minimum in (None, 10))
    (u, v), (exact_u, exact_v) = reply.leaks[0, 0, :2], exact.leaks[0, 0, :2]
    assert reply.leaks_known[0, 0, 0] == 1
    assert v == 2.0 ** np.floor(np.log2(exact_v)) != exact_v
    assert u / np.sqrt(v) == pytest.approx(round(exact_u / np.sqrt(exact_v), 1), abs=1e-12)
