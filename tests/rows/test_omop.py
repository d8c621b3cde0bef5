"""docs/omop.md: its query gives the flat Cleveland table back from OMOP's long tables, in a real PostgreSQL."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import NullPool, create_engine

from flfed import Site
from flfed.errors import TableError
from flfed.federation.engines.engine import find_sites
from flfed.study.study import Study
from tests.postgres import Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.servers]

PAGE = (Path(__file__).parents[2] / "docs" / "omop.md").read_text()
MOMENT = pd.Timestamp("2025-06-02 09:30")
YEAR = 365
CHOLESTEROL = 3027114
MMOL = 38.67
RECENT = 12
"""Patients whose outcome is not known yet."""
MEASURED = {"trestbps": (3004249, 8876), "chol": (CHOLESTEROL, 8840), "thalach": (2000000001, 8541),
            "oldpeak": (2000000002, 8588), "ca": (2000000003, None)}  # fmt: skip
OBSERVED = {"cp": 2000000010, "fbs": 2000000011, "restecg": 2000000012, "exang": 2000000013, "slope": 2000000014,
            "thal": 2000000015}  # fmt: skip
"""Concepts of the page: measurements with their unit, and observations."""


def block(language: str) -> str:
    """Return the page's block of code in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running server of this test session."""
    yield from running_server()


@pytest.fixture
def cleveland(heart) -> pd.DataFrame:
    """The Cleveland table as flfed reads it from the public file."""
    site = next(site for site in find_sites(Study.load("heart-disease")) if site.name == "cleveland")
    return site.sorted_rows(()).source


def lines_of(rows: pd.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return measurements and observations: each patient's value, and decoys that the query must not take."""
    rng = np.random.default_rng(0)
    measured: list[dict[str, Any]] = []
    observed: list[dict[str, Any]] = []

    def add(name: str, person: int, value: Any, days: float, unit: int | None = None) -> None:
        taken = MOMENT - pd.Timedelta(days=days)
        line = {"person_id": person, "measurement_date": taken.date(), "measurement_datetime": taken}
        if name in MEASURED:
            concept, own = MEASURED[name]
            measured.append(line | {"measurement_concept_id": concept, "unit_concept_id": own if unit is None else unit,
                                    "value_as_number": value})  # fmt: skip
        else:
            line = {key.replace("measurement", "observation"): of for key, of in line.items()}
            observed.append(line | {"observation_concept_id": OBSERVED[name], "value_as_string": str(value)})

    for person, (_, row) in enumerate(rows.iterrows(), start=1):
        for name in (*MEASURED, *OBSERVED):
            if pd.isna(row[name]):
                continue
            value = {0.0: "no", 1.0: "yes"}[row[name]] if name in ("fbs", "exang") else row[name]
            # Half of the patients came some months before, and half of cholesterol is in mmol/L.
            days = float(rng.choice([1, 25, 200]))
            if name == "chol" and person % 2:
                add(name, person, value / MMOL, days, 8753)
            else:
                add(name, person, value, days)
        # An earlier value, one that is too old, one after the moment, and one in a unit that nobody knows.
        if row["chol"] > 0:
            add("chol", person, 150.0, 300)
            add("chol", person, 400.0, -3)
            add("chol", person, 5000.0, 0.5, 9999)
        add("ca", person, 3.0, YEAR + 2)
        add("thalach", person, 240.0, -0.01)
        add("cp", person, "typical-angina", -30)
    return measured, observed


@pytest.fixture
def omop(server: Server, cleveland: pd.DataFrame) -> str:
    """The URL of a database with Cleveland's patients in OMOP's tables, a line a value."""
    url = server.fresh()
    people = range(1, len(cleveland) + 1)
    measured, observed = lines_of(cleveland)
    born = [MOMENT - pd.DateOffset(years=int(age)) - pd.Timedelta(days=100) for age in cleveland["age"]]
    gender = cleveland["sex"].map({"male": 8507, "female": 8532})
    sick = [person for person, outcome in zip(people, cleveland["disease"], strict=True) if outcome == "present"]
    again = MOMENT + pd.Timedelta(days=40)
    visits = [(person, 9202, moment) for moment in (MOMENT, again) for person in people]
    visits += [(len(cleveland) + number, 9202, pd.Timestamp.now()) for number in range(1, RECENT + 1)]
    visited = pd.DataFrame(visits, columns=["person_id", "visit_concept_id", "visit_start_datetime"])
    person = pd.DataFrame({"person_id": people, "gender_concept_id": gender, "birth_datetime": born})
    for part in ("year", "month", "day"):
        person[f"{part}_of_birth"] = getattr(person["birth_datetime"].dt, part)
    # Some institutions fill dates alone.
    person.loc[person["person_id"] % 3 == 0, "birth_datetime"] = None
    recent = person.head(RECENT).assign(person_id=range(len(cleveland) + 1, len(cleveland) + RECENT + 1))
    visited["visit_start_date"] = visited["visit_start_datetime"].dt.date
    visited.loc[visited["person_id"] % 4 == 0, "visit_start_datetime"] = None
    tables = {
        "person": pd.concat([person, recent]),
        "visit_occurrence": visited,
        "measurement": pd.DataFrame(measured),
        "observation": pd.DataFrame(observed),
        "condition_occurrence": pd.DataFrame({
            # Everybody has the condition long after: that is another question.
            "person_id": [*sick, *people], "condition_concept_id": 317576,
            "condition_start_date": [(MOMENT + pd.Timedelta(days=20)).date()] * len(sick)
            + [(MOMENT + pd.Timedelta(days=300)).date()] * len(people),
        }),
    }  # fmt: skip
    keys = {"visit_occurrence": "visit_occurrence_id", "measurement": "measurement_id", "observation": "observation_id"}
    engine = create_engine(url, poolclass=NullPool)
    for name, table in tables.items():
        if name in keys:
            table = table.assign(**{keys[name]: range(1, len(table) + 1)})
        table.to_sql(name, engine, index=False)
    return url


def rows_by(query: str, package: Path) -> pd.DataFrame:
    """Return the rows that the page's site reads by a query."""
    (package / "omop.sql").write_text(query)
    scope: dict[str, Any] = {"__file__": str(package / "__init__.py")}
    exec(block("python"), scope)
    site: Site = scope["site"]
    return site.sorted_rows(()).source


def sorted_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in an order that their cells alone give."""
    keys = rows.round(6).astype(str).agg("|".join, axis=1)
    return rows.iloc[np.argsort(keys.to_numpy(), kind="stable")].reset_index(drop=True)


def test_the_query_gives_the_flat_table_back(omop, cleveland, tmp_path, monkeypatch):
    monkeypatch.setenv("OMOP_URL", omop)
    flat = rows_by(block("sql"), tmp_path)[list(cleveland.columns)]
    pd.testing.assert_frame_equal(sorted_cells(flat), sorted_cells(cleveland), rtol=0, atol=1e-9)


BORN = "COALESCE(birth_datetime, make_date(year_of_birth, COALESCE(month_of_birth, 7), COALESCE(day_of_birth, 1)))"
VISIT = "COALESCE(visit_start_datetime, visit_start_date)"
RULES = {
    "the year of birth alone": (BORN, "birth_datetime", "age", 90),
    "the day of a visit alone": (VISIT, "visit_start_datetime", "chol", 60),
    "nothing after the moment": ("taken <= moment AND ", "", "chol", 200),
    "20 days": ("365 days", "20 days", "chol", 100),
    "ten years": ("365 days", "3650 days", "ca", 3),
    "the first value": ("ORDER BY taken DESC", "ORDER BY taken", "chol", 200),
    "patients of last week": (" AND visit_start_date <= current_date - 90", "", "disease", 5),
    "any outcome": (" <= moment::date + 90", " <= moment::date + 900", "disease", 100),
}
"""A rule of the query, what takes its place, the column that it changes, and in how many rows at least."""


@pytest.mark.parametrize("name", RULES)
def test_without_a_rule_of_the_query_the_table_is_another(omop, cleveland, tmp_path, monkeypatch, name):
    monkeypatch.setenv("OMOP_URL", omop)
    rule, without, column, least = RULES[name]
    query = block("sql")
    assert rule in query
    flat = rows_by(query.replace(rule, without), tmp_path)
    counts = [table[column].astype(str).value_counts() for table in (flat, cleveland)]
    assert counts[0].sub(counts[1], fill_value=0).abs().sum() / 2 > least


def test_a_unit_that_is_not_converted_is_found_by_the_check_of_the_site(omop, tmp_path, monkeypatch):
    monkeypatch.setenv("OMOP_URL", omop)
    query = block("sql").replace("value_as_number * 38.67", "value_as_number")
    with pytest.raises(TableError, match="'chol' is outside the schema's range 50 to 1000 mg/dL in 152 rows"):
        rows_by(query, tmp_path)
