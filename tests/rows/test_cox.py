"""Cox's model over visits, each site a stratum: equal to lifelines on all rows, in the clear and in secure sums."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import lifelines
import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from flfed.errors import UsageError
from flfed.rows.data.schema import Schema
from flfed.rows.statistics import newton
from flfed.rows.statistics.listed import cox
from flfed.rows.statistics.listed.cox import Cox, event_risks
from tests.fitting import fitted, ring_of

FILES = Path(lifelines.__file__).parent / "datasets"
TO_THE_END = {"precision": 1e-14, "r_precision": 1e-14}


class Case(NamedTuple):
    """A table with the columns `time`, `event` (a target) and `site`, and the columns of the model."""

    table: pd.DataFrame
    of: list[str]

    @property
    def schema(self) -> Schema:
        columns: dict[str, Any] = {"time": {"kind": "number", "range": (0, 1e5)}}
        for name in self.of:
            low, high = self.table[name].min(), self.table[name].max()
            is_flag = {low, high} == {0, 1}
            columns[name] = {"kind": "flag"} if is_flag else {"kind": "number", "range": (np.floor(low), np.ceil(high))}
        columns["event"] = {"kind": "target", "values": ["no", "yes"]}
        return Schema.model_validate({"name": "made", "task": "binary", "target": "event", "columns": columns})

    @property
    def sites(self) -> list[pd.DataFrame]:
        named = self.table.assign(event=np.where(self.table["event"] == 1, "yes", "no"))
        return [part for _, part in named.groupby("site")]

    def reference(self, **options: Any) -> CoxPHFitter:
        columns = self.table[["time", "event", "site", *self.of]]
        if not options.get("strata", True):
            return CoxPHFitter().fit(columns.drop(columns="site"), "time", "event", fit_options=TO_THE_END)
        return CoxPHFitter().fit(columns, "time", "event", strata=["site"], fit_options=TO_THE_END)


def actg() -> Case:
    read = pd.read_csv(FILES / "ACTG175.csv")
    read = read.rename(columns={"days": "time", "cens": "event", "strat": "site"})
    indicators = {f"arm{arm}": (read["arms"] == arm) * 1.0 for arm in (1, 2, 3)}
    return Case(
        read.assign(**indicators), [*indicators, "age", "wtkg", "karnof", "cd40", "gender", "race", "homo", "drugs"]
    )


def gbsg(sites: int = 4) -> Case:
    read = pd.read_csv(FILES / "gbsg2.csv")
    read = read.rename(columns={"cens": "event"})
    columns = {
        "horTh": (read["horTh"] == "yes") * 1.0, "menostat": (read["menostat"] == "Post") * 1.0,
        "grade2": (read["tgrade"] == "II") * 1.0, "grade3": (read["tgrade"] == "III") * 1.0,
    }  # fmt: skip
    table = read.assign(**columns, site=np.arange(len(read)) % sites)
    return Case(table, [*columns, "age", "tsize", "pnodes", "progrec", "estrec"])


def lung() -> Case:
    read = pd.read_csv(FILES / "lung.csv").dropna(subset=["inst", "ph.ecog"])
    read = read.rename(columns={"inst": "site", "status": "event", "ph.ecog": "ecog"})
    assert len(read) == 226
    return Case(read.assign(sex=read["sex"] - 1.0), ["age", "sex", "ecog"])


CASES = {"actg": actg, "gbsg": gbsg, "lung": lung}


def distances(figures: dict[str, Any], fit: CoxPHFitter) -> dict[str, float]:
    names = list(figures["coefficients"])
    values = np.array([one["value"] for one in figures["coefficients"].values()])
    errors = np.array([one["standard-error"] for one in figures["coefficients"].values()])
    reference = fit.standard_errors_[names].to_numpy()
    return {
        "coefficients": float((np.abs(values - fit.params_[names].to_numpy()) / reference).max()),
        "errors": float(np.abs(errors / reference - 1).max()),
        "low": float(np.abs(
            np.array([one["low"] for one in figures["coefficients"].values()])
            - fit.confidence_intervals_.loc[names].iloc[:, 0].to_numpy()
        ).max()),
    }  # fmt: skip


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "secure"])
@pytest.mark.parametrize("name", CASES)
def test_hazard_ratios_are_those_of_all_rows_stratified_by_site(name: str, secure: bool):
    case = CASES[name]()
    model = Cox(time="time", of=case.of)
    figures, visits = fitted(model, case.sites, case.schema, ring=ring_of(case.sites) if secure else None)
    reference = case.reference()
    found = distances(figures, reference)
    print(name, len(visits), found)
    assert found["coefficients"] < 1e-8 and found["errors"] < 1e-7 and found["low"] < 1e-7
    assert figures["deviance"] == pytest.approx(-2 * reference.log_likelihood_, rel=1e-10)
    assert figures["events"] == case.table["event"].sum()
    # One stratum for all sites is another model.
    assert distances(figures, case.reference(strata=False))["coefficients"] > 1e-4
    largest = [max(model.at(visit.point).largest_share(site, case.schema) for site in case.sites) for visit in visits]
    print(max(largest))


def test_ties_by_breslow_and_a_step_too_few_are_seen(monkeypatch: pytest.MonkeyPatch):
    case = actg()
    model = Cox(time="time", of=case.of)
    reference = case.reference()
    with monkeypatch.context() as patch:
        patch.setattr(newton, "TOLERANCE", 1e-4)
        early, _ = fitted(model, case.sites, case.schema)
    assert distances(early, reference)["coefficients"] > 1e-8
    # Without a share of the ties each of them has all risks, as Breslow has it.
    source = inspect.getsource(cox.partial_likelihood)
    changed = source.replace("share = place / tied[moment]", "share = place * 0.0")
    assert changed != source
    space = dict(vars(cox))
    exec(compile(changed, "breslow", "exec"), space)
    monkeypatch.setattr("flfed.rows.statistics.listed.cox.partial_likelihood", space["partial_likelihood"])
    breslow, _ = fitted(model, case.sites, case.schema)
    found = distances(breslow, reference)["coefficients"]
    assert 1e-3 < found < 1e-2


@pytest.mark.parametrize(("settings", "words"), [
    ({"time": "when"}, "time='when' must be a column"), ({"of": ["time"]}, "of names 'time'"),
    ({"event": "age"}, "event='age' must be a column"), ({"of": []}, "at least one column"),
    ({"time": "below"}, "time='below' has a range below 0"), ({}, "no row of any site has the event 'event'"),
])  # fmt: skip
def test_what_has_no_answer_is_refused_with_the_column(settings: dict[str, Any], words: str):
    case = gbsg()
    columns = {name: one.model_dump(by_alias=True) for name, one in case.schema.columns.items()}
    columns["below"] = {"kind": "number", "range": (-1, 5)}
    schema = Schema.model_validate({**case.schema.model_dump(by_alias=True), "columns": columns})
    sites = [site.assign(event="no", below=1.0) for site in case.sites]
    with pytest.raises(UsageError) as error:
        fitted(Cox(**{"time": "time", "of": ["age"], **settings}), sites, schema)
    assert words in str(error.value)


def test_steep_coefficients_give_a_row_away_and_do_not_pass():
    case = gbsg()
    draw = np.random.default_rng(1)
    model = Cox(time="time", of=case.of)
    passed = 0
    for _ in range(50):
        point = {"coefficients": draw.normal(size=len(case.of)) * 3000}
        passed += max(model.at(point).largest_share(site, case.schema) for site in case.sites) <= 0.1
    assert passed == 0


def test_a_row_that_is_all_of_each_risk_set_is_a_whole_part_of_them():
    # Twenty alike are censored before the first event; one is followed to the end.
    times = np.array([1.0] * 20 + [200.0] + list(range(2, 102)))
    events = np.array([False] * 21 + [True] * 100)
    predictor = np.array([60.0] * 21 + [0.0] * 100)
    assert newton.largest_part(np.exp(predictor - 60)) < 0.05
    assert newton.largest_part(event_risks(times, events, predictor)) > 0.999
    # At coefficients of 0 it is a mean over the events of one in those at risk.
    at_zero = event_risks(times, events, np.zeros(121))
    assert at_zero.sum() == pytest.approx(100)
