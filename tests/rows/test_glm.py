"""Generalised linear models over visits: equal to statsmodels on all rows, in the clear and in secure sums."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.statistics import newton
from flfed.rows.statistics.listed.glm import Glm
from flfed.updates.ring import Ring
from tests.fitting import design, distances, fitted, glm, ring_of
from tests.small_runs import tables as rows_of

BINOMIAL, GAUSSIAN, POISSON = sm.families.Binomial(), sm.families.Gaussian(), sm.families.Poisson()
HEART = ["age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak", "cp", "restecg"]
BILLS = [f"{name}{month}" for name in ("BILL_AMT", "PAY_AMT") for month in range(1, 7)]
STATES = [f"PAY_{month}" for month in (0, 2, 3, 4, 5, 6)]
CREDIT = ["LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", *STATES, *BILLS]
WITHIN = {"coefficients": 1e-8, "errors": 1e-7, "low": 1e-6, "p": 1e-7}


class Case(NamedTuple):
    """Sites of a model, and the fit of statsmodels on all their rows."""

    tables: list[pd.DataFrame]
    schema: Schema
    settings: dict[str, Any]
    columns: pd.DataFrame
    outcome: Any
    family: Any
    offset: Any = None

    @property
    def model(self) -> Glm:
        return Glm(**self.settings)

    def reference(self, **options: Any) -> Any:
        more = {} if self.offset is None else {"offset": self.offset}
        return glm(self.outcome, self.columns, self.family, **more, **options)


def schema_of(target: dict[str, Any], columns: dict[str, Any], task: str = "regression") -> Schema:
    found = {**columns, "y": {"kind": "target", **target}}
    return Schema.model_validate({"name": "made", "task": task, "target": "y", "columns": found})


@pytest.fixture
def hospitals(heart: Any) -> tuple[list[pd.DataFrame], Schema]:
    from sites.cleveland import site as cleveland
    from sites.hungary import site as hungary
    from sites.long_beach import site as long_beach
    from sites.switzerland import site as switzerland

    sites = [one.serving("heart-flamby") for one in (cleveland, hungary, switzerland, long_beach)]
    return [rows_of([site]) for site in sites], datasets.load("heart-flamby").schema


def heart_case(tables: list[pd.DataFrame], schema: Schema, family: str = "binomial", outcome: str = "") -> Case:
    of = [name for name in HEART if name != outcome]
    complete = pd.concat(tables).dropna(subset=HEART).reset_index(drop=True)
    assert len(complete) == 740
    values = complete[outcome] if outcome else (complete["disease"] == "present") * 1.0
    settings = {"family": family, "of": of, "outcome": outcome}
    distribution = BINOMIAL if family == "binomial" else GAUSSIAN
    return Case(tables, schema, settings, design(complete, of, schema), values, distribution)


def taiwan_case(test_data: Path) -> Case:
    """Twelve sites of 137 to 5,468 rows: education by third of age."""
    read = pd.read_csv(test_data / "uci_taiwan_credit" / "UCI_Credit_Card.csv")
    read["EDUCATION"] = read["EDUCATION"].clip(1, 4)
    read["y"] = read.pop(read.columns[-1]).astype(float)
    bounds = {name: (float(read[name].min()), float(read[name].max())) for name in CREDIT}
    wide = {name: (-1e8, 1e8) for name in BILLS} | {"LIMIT_BAL": (0, 1e8), "AGE": (18, 120)}
    columns = {name: {"kind": "number", "range": wide.get(name, bounds[name])} for name in CREDIT}
    thirds = pd.qcut(read["AGE"], 3, labels=False)
    tables = [part for _, part in read.groupby([read["EDUCATION"], thirds])]
    assert (len(tables), min(map(len, tables)), max(map(len, tables))) == (12, 137, 5468)
    schema = schema_of({"range": (0, 1)}, columns | {"late": {"kind": "flag"}})
    tables = [part.assign(late=part["y"]) for part in tables]
    settings = {"family": "binomial", "of": CREDIT, "outcome": "late"}
    return Case(tables, schema, settings, design(read, CREDIT, schema), read["y"], BINOMIAL)


def visits_case() -> Case:
    """Visits to a doctor in a randomised experiment on insurance, over twelve sites."""
    read = sm.datasets.randhie.load_pandas().data.astype(float)
    of = [name for name in read.columns if name != "mdvis"]
    bounds = {name: (float(np.floor(read[name].min())), float(np.ceil(read[name].max()))) for name in of}
    columns = {name: {"kind": "number", "range": bounds[name]} for name in of}
    read["y"] = read.pop("mdvis")
    tables = [part for _, part in read.groupby(np.arange(len(read)) % 12)]
    settings = {"family": "poisson", "of": of}
    schema = schema_of({"range": (0, 200)}, columns)
    return Case(tables, schema, settings, design(read, of, schema), read["y"], POISSON)


def flu_case(test_data: Path) -> Case:
    """Weekly admissions of 52 states, by the people who live there."""
    read = pd.read_csv(test_data / "flusight" / "target-hospital-admissions.csv", dtype={"location": str})
    people = pd.read_csv(test_data / "flusight" / "locations.csv", dtype={"location": str})
    read = read[read["location"] != "US"].merge(people[["location", "population"]], on="location")
    read = read.dropna(subset=["value"]).reset_index(drop=True)
    days = (pd.to_datetime(read["date"]) - pd.Timestamp("2022-01-01")).dt.days
    read["sine"], read["cosine"] = np.sin(2 * np.pi * days / 365.25), np.cos(2 * np.pi * days / 365.25)
    read["year"] = days / 365.25
    read["y"] = read["value"].astype(float)
    of = ["sine", "cosine", "year"]
    columns = {name: {"kind": "number", "range": (-1, 1)} for name in of[:2]}
    columns |= {"year": {"kind": "number", "range": (0, 10)}, "population": {"kind": "number", "range": (0, 1e8)}}
    schema = schema_of({"range": (0, 20_000)}, columns)
    tables = [part for _, part in read.groupby("location")]
    assert len(tables) == 52
    offset = np.log(read["population"])
    settings = {"family": "poisson", "of": of, "exposure": "population"}
    return Case(tables, schema, settings, design(read, of, schema), read["y"], POISSON, offset)


NAMES = ("heart", "oldpeak", "taiwan", "randhie", "flu")


@pytest.fixture
def case(request: pytest.FixtureRequest, test_data: Path) -> Case:
    if request.param in ("heart", "oldpeak"):
        tables, schema = request.getfixturevalue("hospitals")
        return heart_case(tables, schema, *(("gaussian", "oldpeak") if request.param == "oldpeak" else ()))
    if request.param == "randhie":
        return visits_case()
    return taiwan_case(test_data) if request.param == "taiwan" else flu_case(test_data)


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "secure"])
@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_coefficients_and_errors_are_those_of_all_rows_together(case: Case, secure: bool):
    ring = ring_of(case.tables) if secure else None
    figures, visits = fitted(case.model, case.tables, case.schema, ring=ring)
    reference = case.reference(use_t=True) if case.family is GAUSSIAN else case.reference()
    found = distances(figures, reference)
    assert {name: one for name, one in found.items() if one > WITHIN[name]} == {}
    assert len(visits) <= 9
    assert figures["deviance"] == pytest.approx(reference.deviance, rel=1e-10)
    assert figures["aic"] == pytest.approx(reference.aic, rel=1e-10)
    assert figures["degrees-of-freedom"] == reference.df_resid
    if "dispersion" in figures:
        assert figures["dispersion"] == pytest.approx(reference.pearson_chi2 / reference.df_resid, rel=1e-8)


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_robust_errors_are_those_of_all_rows_together(case: Case):
    model = Glm(**case.settings, robust=True)
    figures, _ = fitted(model, case.tables, case.schema, ring=ring_of(case.tables))
    found = distances(figures, case.reference(cov_type="HC0"))
    assert max(found["coefficients"] * 100, found["errors"]) <= 1e-6


@pytest.mark.parametrize("case", ["heart", "taiwan"], indirect=True)
@pytest.mark.parametrize("fault", ["mean", "rows", "early", "coarse"])
def test_wrong_ways_to_add_or_to_stop_are_seen(case: Case, fault: str, monkeypatch: pytest.MonkeyPatch):
    ring = ring_of(case.tables)
    rows = sum(map(len, case.tables))
    options: dict[str, Any] = {"ring": ring}
    if fault == "mean":
        options["weigh"] = lambda table: 1 / len(case.tables)
    elif fault == "rows":
        options["weigh"] = lambda table: len(table) / rows
    elif fault == "coarse":
        options["ring"] = Ring(64, 2.0**20, ring.largest)
    else:
        monkeypatch.setattr(newton, "TOLERANCE", 1e-4)
    try:
        figures, _ = fitted(case.model, case.tables, case.schema, **options)
    except UsageError:
        # Where columns are far smaller than their ranges nothing is left of them.
        assert fault == "coarse"
        return
    found = distances(figures, case.reference())
    if fault == "mean":
        # Errors are as large as with one site's rows.
        assert found["errors"] == pytest.approx(np.sqrt(len(case.tables)) - 1, rel=1e-6)
    else:
        assert found["coefficients"] > 3 * WITHIN["coefficients"]


@pytest.mark.parametrize("case", ["flu"], indirect=True)
def test_a_forgotten_exposure_is_seen(case: Case):
    model = Glm(**{**case.settings, "exposure": ""})
    figures, _ = fitted(model, case.tables, case.schema)
    assert distances(figures, case.reference())["coefficients"] > 1000 * WITHIN["coefficients"]


def test_intercepts_of_sites_are_those_of_indicators(hospitals: tuple[list[pd.DataFrame], Schema]):
    tables, schema = hospitals
    of = ["age", "sex", "exang", "age * sex"]
    complete = [table.dropna(subset=["age", "sex", "exang", "disease"]) for table in tables]
    # A site whose rows have one outcome adds nothing.
    complete.append(complete[0][complete[0]["disease"] == "absent"].head(20))
    rows = pd.concat(complete[:4], ignore_index=True)
    columns = design(rows, ["age", "sex", "exang"], schema).drop(columns="intercept")
    columns["age * sex=male"] = columns["age"] * columns["sex=male"]
    places = np.repeat(np.arange(4), [len(table) for table in complete[:4]])
    indicators = pd.get_dummies(pd.Series(places, name="site"), prefix="site").astype(float)
    outcome = (rows["disease"] == "present") * 1.0
    for robust in (False, True):
        model = Glm(family="binomial", of=of, intercept="site", robust=robust)
        figures, _ = fitted(model, complete, schema, ring=ring_of(complete))
        options = {"cov_type": "HC0"} if robust else {}
        found = distances(figures, glm(outcome, columns.join(indicators), BINOMIAL, **options))
        assert max(found["coefficients"], found["errors"] / 10, found["p"] / 10) < 1e-8
        assert figures["sites-of-one-outcome"] == 1
        assert "intercept" not in figures["coefficients"]


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_intercepts_of_sites_in_other_families(family: Any):
    draw = np.random.default_rng(4)
    sites = []
    for place in range(5):
        table = pd.DataFrame({"x": draw.normal(size=60).clip(-4, 4), "hours": draw.uniform(1, 9, 60)})
        mean = table["x"] * 0.4 + place
        table["y"] = mean + draw.normal(size=60) if family == "gaussian" else draw.poisson(table["hours"] * np.exp(mean / 4))
        sites.append(table)
    columns = {"x": {"kind": "number", "range": (-4, 4)}, "hours": {"kind": "number", "range": (0, 10)}}
    schema = schema_of({"range": (-20, 20) if family == "gaussian" else (0, 500)}, columns)
    exposure = "hours" if family == "poisson" else ""
    model = Glm(family=family, of=["x"], exposure=exposure, intercept="site")
    figures, _ = fitted(model, sites, schema, ring=ring_of(sites))
    rows = pd.concat(sites, ignore_index=True)
    indicators = pd.get_dummies(pd.Series(np.repeat(np.arange(5), 60)), prefix="site").astype(float)
    options = {"use_t": True} if family == "gaussian" else {"offset": np.log(rows["hours"])}
    reference = glm(rows["y"], rows[["x"]].join(indicators), GAUSSIAN if family == "gaussian" else POISSON, **options)
    found = distances(figures, reference)
    assert max(found["coefficients"], found["errors"] / 10) < 1e-8
    assert figures["aic"] == pytest.approx(reference.aic, rel=1e-9)
    assert figures["degrees-of-freedom"] == reference.df_resid
