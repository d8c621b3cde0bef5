"""docs/omop.md: its query gives the flat Cleveland table back from long rows in a real PostgreSQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import create_engine

from flfed import Sql
from flfed.rows.data.site_discovery import load
from flfed.rows.data.sources import Csv
from tests.records.test_postgres import Server, server
from tests.test_readme import ROOT, blocks_of

pytestmark = [pytest.mark.slow, pytest.mark.servers]

__all__ = ["server"]
INDEX = datetime(2020, 6, 1, 10, 30)
CONCEPTS = {
    "trestbps": 3004249, "chol": 3027114, "thalach": 2000000001, "oldpeak": 2000000002, "ca": 2000000003,
    "cp": 2000000004, "fbs": 2000000005, "restecg": 2000000006, "exang": 2000000007, "slope": 2000000008,
    "thal": 2000000009,
}  # fmt: skip
UNITS = {"trestbps": [(8876, 1.0)], "chol": [(8840, 1.0), (8753, 38.67)], "thalach": [(8541, 1.0)]}
UNITS |= {"oldpeak": [(8588, 1.0), (8582, 10.0)], "ca": [(0, 1.0)]}
ANSWERS = 2_000_001_000
"""An answer's concept is its code above this number."""
AT = "_datetime"


def wanted_query() -> str:
    (query,) = blocks_of((ROOT / "docs/omop.md").read_text(encoding="utf-8"), "sql")
    return query


@pytest.fixture(scope="module")
def flat(test_data: Path) -> pd.DataFrame:
    """The flat Cleveland table, as its file has it."""
    source = load("cleveland").source
    assert isinstance(source, Csv)
    table = pd.read_csv(test_data / "uci_heart/processed.cleveland.data", names=source.columns, na_values="?")
    return table.astype(float)


@pytest.fixture(scope="module")
def omop(server: Server, flat: pd.DataFrame) -> str:
    """The address of a database with that table in long rows, with values that do not count around them."""
    random = np.random.default_rng(3)
    measured, observed = [], []
    for person, row in enumerate(flat.to_dict("records"), 1):
        for name, concept in CONCEPTS.items():
            if np.isnan(row[name]):
                continue
            days = float(random.uniform(0, 40)) if person % 2 else float(random.uniform(0, 364))
            # The last one counts; the others are older, too old, or from after the index moment.
            for value, day in ((row[name], days), (row[name] + 1, days + 0.2), (row[name] + 283, -2.0)):
                units = UNITS.get(name)
                place = {"person_id": person, "concept_id": concept, "moment": INDEX - timedelta(days=day)}
                if units is None:
                    observed.append(place | {"value_as_concept_id": ANSWERS + int(value), "unit_concept_id": None})
                    continue
                unit, factor = units[int(random.integers(len(units)))]
                unit_id = unit or None
                measured.append(place | {"value_as_number": value / factor, "unit_concept_id": unit_id})
    people = range(1, len(flat) + 1)
    births = [datetime(2020 - int(age), 3, 1) for age in flat["age"]]
    sexes = np.where(flat["sex"] == 1, 8507, 8532)
    sick = [person for person, num in zip(people, flat["num"], strict=True) if num > 0]
    tables = {
        "person": pd.DataFrame({"person_id": people, "birth_datetime": births, "gender_concept_id": sexes}),
        "visit_occurrence": pd.concat([visits(people, 0, 9202), visits(people, -90, 9202), visits(people, 5, 9201)]),
        "measurement": renamed(measured, "measurement"),
        "observation": renamed(observed, "observation"),
        "condition_occurrence": pd.DataFrame(
            {"person_id": sick, "condition_concept_id": 317576, "condition_start_datetime": INDEX + timedelta(days=7)}
        ),
    }
    tables["visit_occurrence"].insert(0, "visit_occurrence_id", range(len(tables["visit_occurrence"])))
    url = server.fresh()
    engine = create_engine(url)
    for name, table in tables.items():
        table.to_sql(name, engine, index=False)
    engine.dispose()
    assert len(tables["measurement"]) + len(tables["observation"]) > 6_060
    return url


def visits(people: range, days_before: int, concept: int) -> pd.DataFrame:
    moment = INDEX - timedelta(days=days_before)
    return pd.DataFrame({"person_id": people, "visit_concept_id": concept, "visit_start_datetime": moment})


def renamed(lines: list[dict[str, object]], kind: str) -> pd.DataFrame:
    table = pd.DataFrame(lines)
    for absent in {"value_as_number", "value_as_concept_id"} - set(table):
        table[absent] = np.nan
    for name in ("unit_concept_id", "value_as_concept_id"):
        table[name] = table[name].astype("Int64")
    table = table.rename(columns={"concept_id": f"{kind}_concept_id", "moment": f"{kind}{AT}"})
    table.insert(0, f"{kind}_id", range(len(table)))
    return table


def answered(url: str, query: str, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Return the table that a site's source reads by a query, with answers as Cleveland's codes."""
    monkeypatch.setenv("FLFED_SITE_URL", url)
    table = Sql(query).read(()).apply(pd.to_numeric).astype(float)
    table["sex"] = table["sex"].map({8507.0: 1.0, 8532.0: 0.0})
    for name in CONCEPTS.keys() - UNITS.keys():
        table[name] -= ANSWERS
    return table


def test_the_query_of_the_page_gives_the_flat_table_back(omop, flat, monkeypatch):
    table = answered(omop, wanted_query(), monkeypatch)
    expected = flat.assign(disease=(flat["num"] > 0).astype(float)).drop(columns="num")
    np.testing.assert_allclose(table[expected.columns], expected, rtol=0, atol=1e-9, equal_nan=True)


def test_a_query_that_takes_later_values_ignores_units_or_looks_back_too_shortly_gives_another_table(
    omop, flat, monkeypatch
):
    query = wanted_query()
    spoilt = {
        "later": ("facts.moment <= index_visit.moment", "true"),
        "units": ("facts.value_as_number * wanted.factor", "facts.value_as_number"),
        "days": ("INTERVAL '365 days'", "INTERVAL '20 days'"),
    }
    tables = {}
    for fault, (right, wrong) in spoilt.items():
        assert query.count(right) == 1
        tables[fault] = answered(omop, query.replace(right, wrong), monkeypatch)
    assert (tables["later"]["chol"] - flat["chol"]).abs().max() == pytest.approx(283)
    # The largest cholesterol in mmol/L, read as mg/dL, is off by nearly all of itself.
    assert (tables["units"]["chol"] - flat["chol"]).abs().max() > 400
    assert tables["days"]["chol"].isna().sum() > 100
