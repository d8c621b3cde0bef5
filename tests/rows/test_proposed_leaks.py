"""Columns that a proposal leaves out, for they tell the outcome with another column, and such as only look so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from flfed.rows.proposals.tables import propose_schema


def test_parts_of_a_number_and_what_gives_it_with_another_column_are_leaks():
    rng = np.random.default_rng(2)
    casual, registered, wind = rng.poisson(80, 600), rng.poisson(300, 600), rng.normal(12, 4, 600).round(2)
    table = pd.DataFrame({"casual": casual, "registered": registered, "wind": wind, "rentals": casual + registered})
    table["rentals_and_wind"] = table["rentals"] * 1.0 + table["wind"] * 1.0
    found = propose_schema({"a": table}, "rentals", name="own")
    assert set(found.leaks) == {"casual", "registered", "rentals_and_wind"}
    assert found.leaks["casual"] == "together with 'registered' it gives 'rentals', which reveals the outcome"
    assert found.schema.features() == ("wind",)


def test_a_copy_of_a_leak_in_another_unit_is_one_too():
    rng = np.random.default_rng(3)
    died = rng.random(900) < 0.4
    # Many have died at one whole number of months; in days, with a little noise, no value is frequent.
    months = np.where(died & (rng.random(900) < 0.3), 7, rng.integers(20, 90, 900))
    days = np.round(months * 30.4 + rng.normal(0, 2, 900), 1)
    table = pd.DataFrame({"months": months, "days": days, "age": rng.normal(60, 9, 900).round(1), "died": died})
    leaks = propose_schema({"a": table}, "died", name="own").leaks
    assert leaks["days"] == "it is a copy of 'months', which reveals the outcome" and "age" not in leaks


def test_of_a_rare_outcome_a_column_with_gaps_is_no_leak():
    rng = np.random.default_rng(4)
    called = rng.random(3000) < 0.05
    died = np.where(called, rng.random(3000) < 0.6, rng.random(3000) < 0.08)
    days = np.where(called, rng.integers(1, 30, 3000), np.nan)
    table = pd.DataFrame({"days": days, "age": rng.normal(60, 9, 3000).round(1), "died": died})
    assert dict(propose_schema({"a": table}, "died", name="own").leaks) == {}


def test_columns_that_hardly_ever_lack_a_value_do_not_say_which_rows_have_a_leak(test_data: Path):
    # A trial's table: the day of last contact is known of nearly all, and every column at entry is full.
    table = pd.read_csv(test_data / "ist" / "IST.csv", dtype=str, keep_default_na=False, encoding="latin-1")
    found = propose_schema({"a": table}, "FDEAD", name="own", leave_out=["COUNTRY"])
    assert (found.target.task, found.target.sure) == ("binary", False) and "'U' (" in found.target.why
    known_first = {"RDELAY", "RCONSC", "SEX", "AGE", "RSLEEP", "RSBP", "RDEF1", "STYPE", "RXASP", "RXHEP", "SET14D"}
    assert known_first <= set(found.schema.features()) and found.columns["HOSPNUM"].kind == "id"
    assert {"DDEAD", "FDEADD", "FRECOVER", "DIED", "OCCODE", "TD", "DEAD1", "ID14"} <= set(found.leaks)
