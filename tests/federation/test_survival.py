"""Survival by group: lifelines' curves and statsmodels' log-rank test, in the clear, in secure sums and on pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lifelines
import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.utils import median_survival_times
from statsmodels.duration.survfunc import survdiff
from typer.testing import CliRunner

from flfed import Study, run
from flfed.cli.run_tables import print_report
from flfed.cli.runs import app as commands
from flfed.errors import UsageError
from flfed.experiments.verify import verify
from flfed.export.run_folder import export
from flfed.records.document.document import document
from flfed.rows.data.datasets import Dataset, SourceDescription
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.statistics.listed.survival import Survival, log_rank_terms, log_rank_test, survival_of
from flfed.rows.statistics.statistic import added, entries, of_entries
from tests.federation.test_statistics import SECRET
from tests.memory_datasets import in_memory
from tests.records.one_answer import page, words

FOLDER = Path(lifelines.__file__).parent / "datasets"
COLUMNS: dict[str, Any] = {
    "days": {"kind": "number", "range": [0, 1500], "unit": "days"},
    "before": {"kind": "number", "range": [-10, 10], "unit": "days"},
    "treat": {"kind": "flag"},
    "arm": {"kind": "category", "values": ["0", "1", "2", "3"]},
    "event": {"kind": "target", "values": ["no", "yes"]},
}
SCHEMA = Schema.model_validate({"format": 1, "name": "actg", "task": "binary", "target": "event", "columns": COLUMNS})
STUDY = """
format = 1
name = "actg"
purpose = "Compare four treatments of HIV"
legal-basis = "public data"

[dataset]
name = "actg"

[statistic]
name = "survival"
time = "days"
event = "event"
by = "treat"
"""
BY_TREATMENT = Survival(time="days", event="event", by="treat")


@cache
def trial() -> pd.DataFrame:
    """The trial ACTG175 as lifelines has it, in the schema's columns."""
    raw = pd.read_csv(FOLDER / "ACTG175.csv")
    table = raw[["days", "treat", "strat"]].assign(before=0.0, died=raw["cens"], arm=raw["arms"].astype(str))
    return table.assign(event=raw["cens"].map({0: "no", 1: "yes"}))


def figures(statistic: Survival, parts: list[pd.DataFrame], schema: Schema = SCHEMA) -> dict[str, Any]:
    sums = [statistic.sums(part, schema) for part in parts]
    return statistic.figures(sums, schema, added(sums))


def strata() -> list[pd.DataFrame]:
    return [part for _, part in trial().groupby("strat")]


def fitted(rows: pd.DataFrame) -> KaplanMeierFitter:
    return KaplanMeierFitter().fit(rows["days"], rows["died"])


def test_curves_in_days_are_kaplan_and_meiers_with_greenwoods_intervals():
    found = figures(BY_TREATMENT, strata())
    assert found["method"] == "kaplan-meier"
    for place, group in enumerate(found["groups"]):
        rows = trial()[trial()["treat"] == place]
        oracle, curve = fitted(rows), group["curve"]
        assert (group["rows"], group["events"]) == (len(rows), rows["died"].sum())
        assert group["followed-until"] == rows["days"].max()
        times = np.sort(rows.loc[rows["died"] == 1, "days"].unique())
        assert curve["time"] == times.tolist()
        np.testing.assert_allclose(
            curve["survival"], oracle.survival_function_at_times(times).to_numpy(), rtol=0, atol=1e-12
        )
        ends = oracle.confidence_interval_.loc[times].to_numpy()
        np.testing.assert_allclose(np.array([curve["low"], curve["high"]]).T, ends, rtol=0, atol=1e-12)
        assert curve["at-risk"] == [int((rows["days"] >= time).sum()) for time in times]


def test_a_life_table_in_quarters_is_near_it_and_without_the_half_of_the_censored_it_is_not():
    quarters = Survival(time="days", event="event", by="treat", step=91.25)
    found = figures(quarters, strata())
    assert found["method"] == "life-table"
    for place, group in enumerate(found["groups"]):
        rows, curve = trial()[trial()["treat"] == place], group["curve"]
        exact = fitted(rows).survival_function_at_times(curve["time"]).to_numpy()
        assert np.abs(np.array(curve["survival"]) - exact).max() < 0.01
        # By hand: the first quarter.
        first = rows["days"] < 91.25
        events, censored = (first & (rows["died"] == 1)).sum(), (first & (rows["died"] == 0)).sum()
        assert curve["survival"][0] == pytest.approx(1 - events / (len(rows) - censored / 2), rel=1e-14)
    # Times that are no whole days have no curve by days.
    assert figures(BY_TREATMENT, [trial().assign(days=trial()["days"] + 0.5)])["method"] == "life-table"


def test_the_log_rank_test_is_stratified_by_site_whatever_the_step():
    stratified = survdiff(trial()["days"], trial()["died"], trial()["treat"], strata=trial()["strat"])
    for step in (1.0, 91.25):
        test = figures(Survival(time="days", event="event", by="treat", step=step), strata())["log-rank"]
        assert test["chi2"]["value"] == pytest.approx(stratified[0], rel=1e-12)
        assert round(test["chi2"]["value"], 5) == 48.97376 and test["degrees-of-freedom"] == 1
        assert test["p"]["value"] == pytest.approx(stratified[1], rel=1e-4)
    # One site of all rows has no strata: the pooled test is another one.
    pooled = figures(BY_TREATMENT, [trial()])["log-rank"]["chi2"]["value"]
    assert round(pooled, 5) == 47.66933
    assert pooled == pytest.approx(survdiff(trial()["days"], trial()["died"], trial()["treat"])[0], rel=1e-12)


def test_four_arms_are_compared_at_once_also_where_a_site_has_two_of_them():
    by_arm = Survival(time="days", event="event", by="arm")
    parts = [part if place else part[part["arm"].isin(["0", "2"])] for place, part in enumerate(strata())]
    rows = pd.concat(parts)
    expected = survdiff(rows["days"], rows["died"], rows["arm"], strata=rows["strat"])
    test = figures(by_arm, parts)["log-rank"]
    assert (test["chi2"]["value"], test["degrees-of-freedom"]) == (pytest.approx(expected[0], rel=1e-10), 3)


def test_the_median_has_the_interval_of_the_curves_ends():
    raw = pd.read_csv(FOLDER / "waltons_dataset.csv")
    columns = {
        "t": {"kind": "number", "range": [0, 100], "unit": "days"},
        "e": {"kind": "target", "values": ["0", "1"]},
    }
    schema = Schema.model_validate({"format": 1, "name": "w", "task": "binary", "target": "e", "columns": columns})
    rows = pd.DataFrame({"t": raw["T"], "e": raw["E"].astype(str)})
    (group,) = figures(Survival(time="t", event="e"), [rows[:70], rows[70:]], schema)["groups"]
    oracle = KaplanMeierFitter().fit(raw["T"], raw["E"])
    low, high = median_survival_times(oracle.confidence_interval_).iloc[0]
    assert group["median"] == {"value": 56.0, "low": low, "high": high}
    assert group["curve"]["survival"][group["curve"]["time"].index(48.0)] == pytest.approx(
        float(oracle.predict(48.0)), abs=1e-12
    )
    assert float(oracle.predict(50)) == pytest.approx(0.6168, abs=1e-4)


def test_rows_without_time_event_or_group_are_left_out_and_counted():
    table = trial().copy()
    table.loc[:4, "days"] = np.nan
    table.loc[10:11, "treat"] = np.nan
    found = figures(BY_TREATMENT, [table])
    assert found["rows-left-out"] == 7 and sum(of["rows"] for of in found["groups"]) == len(table) - 7
    nothing = figures(BY_TREATMENT, [trial()[:0]])
    assert [of["rows"] for of in nothing["groups"]] == [0, 0] and "log-rank" not in nothing


def test_a_share_of_0_or_1_has_no_interval_and_all_else_has():
    survival, low, high = survival_of(np.array([0.0, 1.0, 1.0]), np.array([3.0, 2.0, 1.0]))
    assert survival.tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(low[[0, 2]]).all() and np.isnan(high[[0, 2]]).all() and 0 < low[1] < 0.5 < high[1] < 1


def test_terms_of_one_row_are_nothing_and_lie_within_the_rows():
    difference, variance = log_rank_terms(np.array([3.0]), np.array([True]), np.array([1]), 2)
    assert not difference.any() and not variance.any() and log_rank_test(difference, variance) is None
    sums = BY_TREATMENT.sums(trial(), SCHEMA)
    numbers = entries(BY_TREATMENT, sums, SCHEMA)
    assert np.abs(numbers).max() <= len(trial())
    for name, found in of_entries(BY_TREATMENT, numbers, SCHEMA).items():
        np.testing.assert_array_equal(found, sums[name])


@pytest.mark.parametrize(("change", "message"), [
    (("step", 0.0), "step must be above 0"), (("step", float("inf")), "step must be above 0"),
    (("time", "before"), "the range of 'before' must begin at 0 or above"), (("time", "treat"), "time='treat' must be"),
    (("event", "arm"), "event='arm' must be a column of the dataset: treat, event"),
    (("by", "days"), "by='days' must be"), (("step", 0.01), "more than 25,000 steps"),
])  # fmt: skip
def test_wrong_settings_are_refused_before_anything_runs(change: tuple[str, Any], message: str):
    settings: dict[str, Any] = {"time": "days", "event": "event", "by": "treat", change[0]: change[1]}
    with pytest.raises(UsageError, match=message):
        Survival(**settings).columns(SCHEMA)


@pytest.fixture
def hospitals() -> Iterator[list[Site]]:
    """The trial's three strata as sites."""
    dataset = Dataset("actg", Path(), SCHEMA, SourceDescription(licence="none", citation="ACTG 175"))
    with in_memory(dataset):
        yield [
            Site(
                name=f"stratum-{place}",
                dataset="actg",
                source=Frame(part[[*COLUMNS]]),
                policy=Policy(disclosure="open"),
            )
            for place, part in enumerate(strata())
        ]


def test_secure_sums_give_the_same_curves_and_test(hospitals: list[Site]):
    plain = run(Study.parse(STUDY), sites=hospitals).report["statistics"]
    summed = run(Study.parse(STUDY + SECRET), sites=hospitals).report["statistics"]
    assert summed["groups"] == plain["groups"] and summed["by-site"] == {} and len(plain["by-site"]) == 3
    assert summed["log-rank"]["chi2"]["value"] == pytest.approx(48.973756, abs=5e-7)
    assert summed["log-rank"]["chi2"]["value"] == pytest.approx(plain["log-rank"]["chi2"]["value"], rel=1e-11)


def test_a_run_has_curves_in_app_and_report_and_figures_in_table_json_and_csv(
    hospitals: list[Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(Study.parse(STUDY), sites=hospitals).report
    print_report(done)
    printed = " ".join(capsys.readouterr().out.split())
    sentence = "At 900 days the share of rows without the event is 65.0 % (treat = no), 81.1 % (treat = yes)."
    test = "The curves differ by more than chance explains (log-rank test, each site a stratum: χ² 49.0; p < 0.001)."
    report = document(done["run"])
    for text in (printed, report.replace("&lt;", "<")):
        assert sentence in text and test in text and "0.811" in text and "0.830" in text
    assert report.count('aria-label="Curves of treat = no, treat = yes') == 1
    opened = page("p20_overview", done["run"])
    assert sentence in words(opened)
    (chart,) = opened.get("vega_lite_chart")
    assert "share without the event" in chart.proto.spec and "step-after" in chart.proto.spec
    found = json.loads(CliRunner().invoke(commands, ["show", done["run"], "--json"]).stdout)["statistics"]
    export(done["run"], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["statistics"] == found


def test_the_shipped_study_expects_the_stratified_test_and_not_the_pooled_one(breast_cancer_survival: Dataset):
    study = Study.load("breast-cancer-survival")
    assert verify(study).holds
    raw = pd.read_csv(FOLDER / "gbsg2.csv")
    stratified = survdiff(raw["time"], raw["cens"], raw["horTh"], strata=raw.index % 4)[0]
    assert study.expected.figures[0].value == pytest.approx(stratified, abs=1e-8)
    pooled = survdiff(raw["time"], raw["cens"], raw["horTh"])[0]
    assert not verify(Study.parse(study.text.replace("8.579223751,", f"{pooled:.9f},"))).holds
