"""Generalised linear models over visits: equal to statsmodels on all rows, in the clear and in secure sums."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from flfed.errors import UsageError
from flfed.records.statistics.regression import coefficient_lines, coefficients_in_words
from flfed.refusals import NotTakingPart
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.statistics import newton
from flfed.rows.statistics.listed import glm as listed
from flfed.rows.statistics.listed.glm import Glm
from flfed.rows.statistics.statistic import Visit
from flfed.updates.masks.ring import Ring
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
    wide = dict.fromkeys(BILLS, (-100000000.0, 100000000.0)) | {"LIMIT_BAL": (0, 1e8), "AGE": (18, 120)}
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
        table["y"] = (
            mean + draw.normal(size=60) if family == "gaussian" else draw.poisson(table["hours"] * np.exp(mean / 4))
        )
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


def shares(model: Glm, tables: Sequence[pd.DataFrame], schema: Schema) -> list[float]:
    return [model.largest_share(table, schema) for table in tables]


def test_steep_coefficients_give_a_row_away_and_pass_at_no_set_of_sites(
    hospitals: tuple[list[pd.DataFrame], Schema], monkeypatch: pytest.MonkeyPatch
):
    tables, schema = hospitals
    # The bound of a site's deviance alone keeps such sums back; the rule must do without it.
    monkeypatch.setattr(listed, "LARGEST_PART", math.inf)
    case = heart_case(tables, schema)
    draw = np.random.default_rng(0)
    columns = case.columns.drop(columns="intercept")
    middle = np.array([term.middle for term in case.model._model(schema).design.terms])
    half = np.array([term.half for term in case.model._model(schema).design.terms])
    given_away = 0
    for _ in range(100):
        slopes = draw.normal(size=columns.shape[1]) * 3000 / columns.std().to_numpy()
        intercept = draw.normal() * 9000 - slopes @ columns.mean().to_numpy()
        point = {"coefficients": np.array([intercept + slopes @ middle, *(slopes * half)])}
        model = case.model.at(point)
        total = newton.symmetric(
            sum(model.sums(table, schema)["hessian"] for table in tables), len(point["coefficients"])
        )
        if total[0, 0] < 1e-300:
            continue
        total /= total[0, 0]
        if not np.allclose(total, np.outer(total[0], total[0]), rtol=1e-6):
            continue
        # The first line is the row.
        row = total[0, 1:] * half + middle
        given_away += bool(np.isclose(columns.to_numpy(), row, rtol=1e-4, atol=1e-3).all(axis=1).any())
        assert max(shares(model, tables, schema)) > 0.1
    # Where weights that are too small for float64 count too, 70 of 100.
    assert given_away > 50


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_honest_visits_pass_the_rule_of_a_tenth(case: Case):
    _, visits = fitted(case.model, case.tables, case.schema)
    largest = max(max(shares(case.model.at(visit.point), case.tables, case.schema)) for visit in visits)
    assert largest < 0.1, largest


def refused(model: Glm, tables: Sequence[pd.DataFrame], schema: Schema) -> str:
    with pytest.raises(UsageError) as error:
        fitted(model, tables, schema, ring=ring_of(tables))
    return str(error.value)


def test_a_level_of_one_outcome_does_not_converge_and_is_named(test_data: Path):
    read = pd.read_csv(test_data / "uci_taiwan_credit" / "UCI_Credit_Card.csv")
    read = read.rename(columns={read.columns[-1]: "y"})
    read["education"] = read["EDUCATION"].clip(0, 4).map("e{}".format)
    assert len(read[read["education"] == "e0"]) == 14 and not read.loc[read["education"] == "e0", "y"].any()
    columns = {
        "education": {"kind": "category", "values": ["e2", "e0", "e1", "e3", "e4"]},
        "AGE": {"kind": "number", "range": (18, 120)},
        "late": {"kind": "flag"},
    }
    schema = schema_of({"range": (0, 1)}, columns)
    tables = [part.assign(late=part["y"]) for _, part in read.groupby("SEX")]
    words = refused(Glm(family="binomial", of=["education", "AGE"], outcome="late"), tables, schema)
    assert "not converged" in words and "'education=e0'" in words


def made_tables(**columns: Any) -> list[pd.DataFrame]:
    draw = np.random.default_rng(3)
    rows = 300
    table = pd.DataFrame({"x": draw.uniform(0, 10, rows), "y": draw.integers(0, 9, rows).astype(float), **columns})
    return [table.assign(z=table["x"] * 2, same=3.0, event=(table["y"] > 4) * 1.0)[at::3] for at in range(3)]


MADE = {
    "x": {"kind": "number", "range": (0, 10)}, "z": {"kind": "number", "range": (0, 20)},
    "same": {"kind": "number", "range": (0, 10)}, "event": {"kind": "flag"},
    "low": {"kind": "number", "range": (-1, 5)}, "name": {"kind": "id"},
}  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), [
    ({"of": ["x", "z"]}, "'z' follows from the columns before it"),
    ({"of": ["x", "same"]}, "'same' is the same in all rows"),
    ({"of": ["x", "same"], "intercept": "site"}, "'same' is the same in all rows"),
    ({"of": ["x", "age"]}, "of names 'age'; it must be a number, flag or category"),
    ({"of": ["x", "name"]}, "of names 'name'"), ({"of": ["event"]}, "of names 'event'"),
    ({"of": []}, "at least one column"),
    ({"of": ["x", "x"]}, "names 'x' twice"), ({"of": ["x * x"]}, "a product of two different ones"),
    ({"of": ["x * z * same"]}, "a product of two different ones"),
    ({"of": ["x"], "outcome": "x"}, "family 'binomial' does not fit outcome='x'"),
    ({"of": ["x"], "family": "gaussian"}, "family 'gaussian' does not fit outcome='event'"),
    ({"of": ["x"], "family": "poisson", "outcome": "low"}, "outcome='low' has a range below 0"),
    ({"of": ["x"], "family": "poisson", "outcome": "y", "exposure": "low"}, "exposure='low' has a range below 0"),
    ({"of": ["x"], "exposure": "z"}, "exposure is for family 'poisson'"),
])  # fmt: skip
def test_what_has_no_answer_is_refused_with_the_column(settings: dict[str, Any], words: str):
    schema = schema_of({"range": (0, 20)}, MADE)
    given = {"family": "binomial", "outcome": "event", **settings}
    tables = [table.assign(low=1.0, name="a") for table in made_tables()]
    assert words in refused(Glm(**given), tables, schema)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
@pytest.mark.parametrize("settings", [
    {"family": "binomial"}, {"family": "binomial", "intercept": "site"}, {"family": "poisson"},
    {"family": "poisson", "intercept": "site"},
])  # fmt: skip
def test_an_outcome_without_another_is_refused(settings: dict[str, Any], outcome: float):
    schema = schema_of({"range": (0, 20)}, MADE)
    tables = [table.assign(event=outcome, y=0.0) for table in made_tables()]
    name = "event" if settings["family"] == "binomial" else "y"
    words = f"all rows have one value of the outcome {name!r}"
    assert words in refused(Glm(of=["x"], outcome=name, **settings), tables, schema)


@pytest.mark.parametrize("outcome", [3.0, 10.0])
def test_a_number_that_is_the_same_in_all_rows_has_no_errors(outcome: float):
    schema = schema_of({"range": (0, 20)}, MADE)
    tables = [table.assign(y=outcome) for table in made_tables()]
    assert "has no errors" in refused(Glm(family="gaussian", of=["x"], outcome="y"), tables, schema)


def test_counts_whose_second_visit_every_site_refuses_end_with_a_sentence(monkeypatch: pytest.MonkeyPatch):
    sums = Glm.sums

    def refusing(model: Glm, table: pd.DataFrame, schema: Schema) -> Any:
        if model._coefficients.any():
            raise NotTakingPart("sums-too-large")
        return sums(model, table, schema)

    monkeypatch.setattr(Glm, "sums", refusing)
    schema = schema_of({"range": (0, 20)}, MADE)
    words = refused(Glm(family="poisson", of=["x"], outcome="y"), made_tables(), schema)
    assert "sites refused the sums at the first coefficients" in words


def test_the_visit_for_the_starting_rate_has_no_sum_that_nobody_needs():
    schema = schema_of({"range": (0, 20)}, MADE)
    model = Glm(family="poisson", of=["x"], outcome="y", robust=True)
    sums = model.at(model.first(schema)).sums(made_tables()[0], schema)
    assert sums["gradient"][0] and sums["hessian"][0]
    assert not any(sums[name].any() for name in ("deviance", "chi2", "scores"))


def test_a_ratio_that_no_number_has_is_left_out():
    one = {"value": 17044.0, "standard-error": 2136.0, "low": 12857.0, "high": 21231.0, "p": 0.0}
    ordinary = {"value": 0.5, "standard-error": 0.1, "low": 0.3, "high": 0.7, "p": 0.0}
    record = {
        "family": "binomial", "outcome": "y", "coefficients": {"creatinine": one, "age": ordinary}, "sites": 3,
        "visits": 6, "rows": 400, "deviance": 300.0, "aic": 304.0,
    }  # fmt: skip
    first, second = coefficient_lines(record)
    assert (first["Odds ratio (95 % CI)"], second["Odds ratio (95 % CI)"]) == ("", "1.65 (1.35 to 2.01)")
    assert "for age is 1.65" in coefficients_in_words(record)[0]
    alone = record | {"coefficients": {"creatinine": one}}
    assert coefficients_in_words(alone) == [
        "No ratio for one unit fits in a number: choose smaller units for the columns."
    ]


def test_a_step_after_which_the_deviance_rises_or_a_site_refuses_is_halved():
    def visit(point: float, deviance: float) -> Visit:
        sums = {"gradient": np.array([4.0]), "hessian": np.array([2.0]), "deviance": np.array([deviance])}
        return Visit({"coefficients": np.array([point])}, {**sums, "rows": np.array([9], np.uint64)})

    # The step is 4 / 2.
    visits = [visit(1.0, 10.0)]
    assert newton.next_coefficients(visits, ["x"]) == pytest.approx([3.0])
    visits.append(visit(3.0, 12.0))
    assert newton.next_coefficients(visits, ["x"]) == pytest.approx([2.0])
    visits.append(Visit({"coefficients": np.array([2.0])}, {}))
    assert newton.next_coefficients(visits, ["x"]) == pytest.approx([1.5])
    visits.append(visit(1.5, 9.0))
    assert newton.next_coefficients(visits, ["x"]) == pytest.approx([3.5])


def test_a_site_whose_sums_are_too_large_sends_none():
    table = pd.DataFrame({"x": np.linspace(0, 10, 40), "y": np.arange(40.0) % 7})
    schema = schema_of({"range": (0, 60)}, {"x": {"kind": "number", "range": (0, 10)}})
    model = Glm(family="poisson", of=["x"])
    for slope in (50.0, 5000.0):
        with pytest.raises(NotTakingPart, match="larger than the schema's ranges allow"):
            model.at({"coefficients": np.array([0.0, slope])}).sums(table, schema)


def stroke_trial(test_data: Path) -> tuple[list[pd.DataFrame], Schema]:
    """The International Stroke Trial, by country: dead or dependent at six months."""
    read = pd.read_csv(test_data / "ist" / "IST.csv", encoding="latin-1", low_memory=False)
    read.columns = [name.lower() for name in read.columns]
    outcome = pd.to_numeric(read["occode"], errors="coerce")
    read = read[outcome.isin([1, 2, 3, 4])]
    table = pd.DataFrame({
        "country": read["country"], "aspirin": (read["rxasp"].str.upper() == "Y") * 1.0,
        "age": pd.to_numeric(read["age"]), "sbp": pd.to_numeric(read["rsbp"]),
        "male": (read["sex"].str.upper() == "M") * 1.0, "event": (pd.to_numeric(read["occode"]) <= 2) * 1.0,
    })  # fmt: skip
    columns = {
        "aspirin": {"kind": "flag"}, "male": {"kind": "flag"}, "event": {"kind": "flag"},
        "age": {"kind": "number", "range": (15, 110)}, "sbp": {"kind": "number", "range": (50, 350)},
    }  # fmt: skip
    return [part for _, part in table.groupby("country")], schema_of({"range": (0, 1)}, columns)


def test_the_stroke_trial_has_its_figures_with_one_intercept_and_with_those_of_countries(test_data: Path):
    tables, schema = stroke_trial(test_data)
    assert len(tables) == 36
    of = ["aspirin", "age", "sbp", "male"]
    settings: dict[str, Any] = {"family": "binomial", "of": of, "outcome": "event"}
    ring = ring_of(tables)
    shared, _ = fitted(Glm(**settings), tables, schema, ring=ring)
    assert shared["deviance"] == pytest.approx(23499.6357, abs=1e-4)
    assert shared["coefficients"]["aspirin"]["value"] == pytest.approx(-0.06505, abs=1e-5)
    assert shared["degrees-of-freedom"] == 19280
    own, _ = fitted(Glm(**settings, intercept="site"), tables, schema, ring=ring)
    assert own["deviance"] == pytest.approx(22248.0566, abs=1e-4)
    aspirin = own["coefficients"]["aspirin"]
    assert (round(aspirin["value"], 5), round(aspirin["standard-error"], 5)) == (-0.06919, 0.03248)


@pytest.mark.proof
def test_four_large_sites_take_half_of_the_time_of_one_table():
    draw = np.random.default_rng(5)
    names = [f"x{number}" for number in range(30)]
    schema = schema_of(
        {"range": (0, 1)}, {name: {"kind": "number", "range": (-6, 6)} for name in names} | {"event": {"kind": "flag"}}
    )
    tables = []
    for _ in range(4):
        table = pd.DataFrame(draw.normal(size=(100_000, 30)).clip(-6, 6), columns=names)
        odds = table.to_numpy() @ np.linspace(-0.3, 0.3, 30) - 1
        tables.append(table.assign(event=(draw.random(100_000) < 1 / (1 + np.exp(-odds))) * 1.0))
    rows = pd.concat(tables)
    columns = design(rows, names, schema)
    began = time.process_time()
    reference = sm.GLM(rows["event"], columns, family=BINOMIAL).fit()
    middle = time.process_time()
    figures, visits = fitted(Glm(family="binomial", of=names, outcome="event"), tables, schema)
    ended = time.process_time()
    print((ended - middle), (middle - began), len(visits))
    assert distances(figures, reference)["coefficients"] < 1e-6
    assert (ended - middle) / (middle - began) <= 0.5
