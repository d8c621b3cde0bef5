"""Sites that took no part: figures equal those of runs by hand, exported and scored at home."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from statsmodels.stats.meta_analysis import combine_effects

from flfed.errors import UsageError
from flfed.experiments.leave_one_out import leave_one_site_out
from flfed.export.run_folder import model_of
from flfed.federation.engines.engine import find_sites
from flfed.records.document.document import document
from flfed.records.reports.report import report
from flfed.records.statistics.intervals import mean_over_sites, prediction_interval
from flfed.records.statistics.left_out import describe_left_out
from flfed.records.store.reader import RunReader
from flfed.rows.comparison.all_rows import measure_all_rows
from flfed.rows.session import SiteSession
from flfed.study.study import Study

FILES = {"cleveland": "cleveland", "hungary": "hungarian", "long-beach": "va", "switzerland": "switzerland"}
FIGURES = {
    "cleveland": (0.873, 1.21, 0.16),
    "hungary": (0.910, 1.33, -0.72),
    "long-beach": (0.741, 0.63, 0.80),
    "switzerland": (0.778, 0.93, 2.31),
}
"""AUC, slope and intercept of the split of the shipped seed."""
IN_SIX = 'dataset.partition={by="iid",sites=6,seed=1}'


def calibration(y, score):
    """Return statsmodels' slope and intercept, the second one with the slope fixed at 1."""
    odds = logit(score)
    family = sm.families.Binomial()
    joint = sm.GLM(y, sm.add_constant(odds), family=family).fit(tol=1e-14, maxiter=200)
    alone = sm.GLM(y, np.ones(len(y)), offset=odds, family=family).fit(tol=1e-14, maxiter=200)
    return joint.params[1], alone.params[0]


def measured(site):
    figures = site["calibration"]
    return [site["roc_auc_score"]["value"], figures["slope"]["value"], figures["intercept"]["value"]]


@pytest.mark.proof
@pytest.mark.studies
def test_heart_disease_has_the_figures_of_runs_by_hand(heart, test_data, tmp_path, flfed):
    code, out, _ = flfed("study", "run", "heart-disease", "--leave-one-site-out", "--json")
    everybody = json.loads(out)
    left_out = everybody["left-out"]
    assert code == 0 and set(left_out["sites"]) == set(FILES)
    for name, file in FILES.items():
        rest = json.dumps([site for site in FILES if site != name])
        code, out, _ = flfed("study", "run", "heart-disease", "--set", f"dataset.sites={rest}", "--json")
        folder = tmp_path / name
        flfed("run", "export", json.loads(out)["run"], "--output", folder)
        predictions = tmp_path / f"{name}.csv"
        assert flfed("predict", folder, "--site", name, "--output", predictions)[0] == 0
        rows = pd.read_csv(test_data / "uci_heart" / f"processed.{file}.data", header=None)
        y = (rows.iloc[:, 13] > 0).to_numpy(int)
        score = pd.read_csv(predictions)["probability"].to_numpy()
        by_hand = [roc_auc_score(y, score), *calibration(y, score)]
        assert measured(left_out["sites"][name]) == pytest.approx(by_hand, abs=1e-9)
        area, *others = FIGURES[name]
        assert by_hand[0] == pytest.approx(area, abs=0.02) and by_hand[1:] == pytest.approx(others, abs=0.15)
    assert left_out["mean"]["roc_auc_score"]["i2"] >= 0.7
    assert left_out["mean"]["roc_auc_score"]["prediction-low"] is None  # of four sites
    # A site that trained, or whose rows are in the encoder, has other figures.
    study = Study.load("heart-disease")
    session = SiteSession(next(site for site in find_sites(study) if site.name == "cleveland"), study)
    with RunReader.open() as reader:
        of_all = model_of(reader, reader.runs_of(everybody["run"])[0])
        without = model_of(reader, reader.runs_of(left_out["sites"]["cleveland"]["run"])[0])
    ours = measured(left_out["sites"]["cleveland"])
    trained = measured(measure_all_rows(session, of_all.encoder, of_all.predictions))
    encoded = measured(measure_all_rows(session, of_all.encoder, without.predictions))
    assert trained[0] > ours[0] + 0.02
    assert np.abs(np.subtract(encoded, ours)).max() > 0.01


def test_six_sites_have_means_in_report_terminal_and_document(home, flfed):
    same = ("--set", IN_SIX, "--set", "compare.site-model=same", "--set", "rounds=2")
    code, out, _ = flfed("study", "run", "breast-cancer", *same, "--leave-one-site-out")
    assert code == 0 and "Another such site" in out and "few events" in out
    run = out.split()[-1]
    with RunReader.open() as reader:
        of_run = report(reader, run)
    sites, mean = of_run["left-out"]["sites"].values(), of_run["left-out"]["mean"]
    areas = [site["roc_auc_score"] for site in sites]
    there = combine_effects(
        np.array([area["logit"] for area in areas]),
        np.array([area["standard-error"] ** 2 for area in areas]),
        method_re="iterated",
    )
    area = mean["roc_auc_score"]
    assert area["value"] == pytest.approx(expit(there.mean_effect_re), abs=1e-6)
    assert area["i2"] == pytest.approx(max(there.i2, 0.0), abs=1e-9)
    assert area["prediction-low"] < area["low"] < area["value"] < area["high"] < area["prediction-high"]
    assert of_run["left-out"]["sites"]["breast-cancer-1"]["rows"] == 95
    assert "At a site that took no part" in flfed("run", "show", run)[1]
    assert "At a site that took no part" in document(run)


def test_a_prediction_interval_holds_the_next_site_and_that_of_the_mean_does_not():
    rng = np.random.default_rng(4)
    held = 0
    held_by_mean = 0
    for _ in range(2000):
        errors = rng.uniform(0.1, 0.3, 9)
        truth = rng.normal(1.0, 0.4, 9)
        values = rng.normal(truth, errors)
        mean = mean_over_sites(values[:8], errors[:8])
        low, high = prediction_interval(mean, 8)
        held += low < truth[8] < high
        held_by_mean += mean.low < truth[8] < mean.high
    # Of eight sites the spread is known too little for 95 %, as the methods say.
    assert 0.9 < held / 2000 < 0.97 and held_by_mean / 2000 < 0.7
    # Without a spread between sites it is that of the mean, with a degree of freedom less: t of 3 and 2 at 95 %.
    mean = mean_over_sites([1.0] * 4, [0.2] * 4)
    low, high = prediction_interval(mean, 4)
    assert (high - low) / (mean.high - mean.low) == pytest.approx(4.302652729911275 / 3.182446305284263)


def test_a_site_of_one_outcome_is_in_no_mean():
    def site(value):
        figure = {"value": value, "standard-error": 0.2}
        return {"roc_auc_score": figure | {"logit": value}, "calibration": {"slope": figure, "intercept": figure}}

    mean = describe_left_out({str(value): site(value) for value in (0.5, 1.0, 1.5, math.nan)})["mean"]
    assert mean["roc_auc_score"]["sites"] == 3
    assert mean["roc_auc_score"]["value"] == pytest.approx(expit(1.0))
    few = describe_left_out({str(value): site(value) for value in (0.5, 1.0, math.nan)})["mean"]
    assert few["calibration"]["slope"]["reason"] == "2 of them have a figure, and 3 are needed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"privacy.secure-aggregation": "on"}, "secure aggregation hides a site's update"),
        ({"privacy.secure-aggregation": "ckks"}, "secure aggregation hides a site's update"),
        (
            {"privacy.name": "record-dp", "privacy.epsilon": 3.0, "privacy.delta": 1e-5, "privacy.covers": "study"},
            "the privacy budget covers all",
        ),
        ({"encode.scaler": "per-site"}, "each site uses its own means"),
        ({"strategy.name": "fedper"}, "a part of the model stays at its site"),
        ({"dataset.sites": ["cleveland", "hungary"]}, "has 2 sites, and 3 are needed"),
    ],
)
def test_a_study_whose_runs_may_not_be_compared_is_refused(changes, reason, heart):
    with pytest.raises(UsageError, match=reason):
        leave_one_site_out(Study.load("heart-disease").replace(changes))


@pytest.mark.parametrize("words", [("--engine", "deployment"), ("--repeats", "2"), ("--site", "cleveland")])
def test_institutions_and_other_options_are_refused(words, home, flfed):
    code, _, error = flfed("study", "run", "heart-disease", "--leave-one-site-out", *words)
    assert code == 2 and "--leave-one-site-out goes with no other option" in error


def test_other_outcomes_are_refused(home):
    with pytest.raises(UsageError, match="trains no model of a yes/no outcome"):
        leave_one_site_out(Study.load("wine"))
