"""What a study could show before it is run: against simulated scores, and as command and page have it."""

import json

import numpy as np
import pytest
from scipy import stats
from streamlit.testing.v1 import AppTest

from flfed.records.charts.by_site import chart_of_gains
from flfed.records.charts.chart import picture
from flfed.records.dashboard import page_files
from flfed.records.objects import read
from flfed.records.sections.prospect import curve_lines, in_words, number, prospect_of_site
from flfed.records.statistics.intervals import NORMAL_95, WeightedGain, class_gain, widening
from flfed.records.statistics.power import (
    POWER,
    SPREAD,
    Curve,
    Design,
    Outlook,
    Range,
    SiteRows,
    class_outlook,
    correlation,
    count_test_rows,
    error_at,
    expected_gain,
    fit_curve,
    gain_error,
    least_gain,
    mean_outlook,
    of_one_study,
    outlook,
    own_auc,
    placement_covariance,
    power,
    site_rows,
)
from flfed.rows.evaluation.delong import delong
from tests.records.one_answer import words

CURVE = Curve.of_columns(20)


def separation(auc):
    return np.sqrt(2) * stats.norm.ppf(auc)


def drawn_scores(rng, aucs, correlation, events, others):
    """Return scores [rows, 2] of two models, normal within a class, and the outcomes."""
    y = np.r_[np.ones(events, int), np.zeros(others, int)]
    scores = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], events + others)
    return scores + y[:, None] * separation(np.array(aucs)), y


@pytest.mark.parametrize(
    ("auc", "other", "rho"), [(0.8, 0.7, 0.6), (0.95, 0.94, 0.99), (0.9, 0.5, 0.3), (0.7, 0.7, 1.0)]
)
def test_the_covariance_of_placement_values_is_that_of_the_bivariate_normal(auc, other, rho):
    ends = stats.norm.ppf([auc, other])
    joint = stats.multivariate_normal.cdf(ends, cov=[[1, rho / 2], [rho / 2, 1]], abseps=1e-10, releps=1e-10)
    assert placement_covariance(auc, other, rho) == pytest.approx(joint - auc * other, abs=1e-8)


@pytest.mark.parametrize(("events", "others", "dimensions"), [(30, 70, 10), (12, 200, 20), (150, 150, 5)])
def test_a_discriminant_of_few_rows_has_the_auc_and_the_correlation_of_the_curve(events, others, dimensions):
    rng = np.random.default_rng(events)
    delta = separation(0.8)
    means = np.zeros(dimensions)
    means[0] = delta
    directions = means + rng.normal(size=(20_000, dimensions)) * np.sqrt(1 / events + 1 / others)
    lengths = np.linalg.norm(directions, axis=1)
    effective = events * others / (events + others)
    aucs = stats.norm.cdf(directions @ means / lengths / np.sqrt(2))
    assert own_auc(0.8, effective, dimensions) == pytest.approx(aucs.mean(), abs=0.006)
    alike = (directions[:, 0] / lengths).mean()
    assert correlation(0.8, effective, dimensions) == pytest.approx(alike, abs=0.03)


def test_a_shared_model_that_has_the_sites_rows_is_nearer_to_the_sites_own():
    rng = np.random.default_rng(3)
    dimensions, draws = 10, 20_000
    means = np.zeros(dimensions)
    means[0] = separation(0.8)
    own = means + rng.normal(size=(draws, dimensions)) / np.sqrt(20)  # a weight of 20 here and at the other site
    shared = (own + means + rng.normal(size=(draws, dimensions)) / np.sqrt(20)) / 2
    lengths = [np.linalg.norm(each, axis=1) for each in (own, shared)]
    own_aucs, shared_aucs = (
        stats.norm.cdf(each @ means / length / np.sqrt(2)) for each, length in zip((own, shared), lengths)
    )
    alike = ((own * shared).sum(axis=1) / lengths[0] / lengths[1]).mean()
    here, there = of_one_study([SiteRows(80, 10, 10), SiteRows(80, 10, 10)])
    assert here.weight == 20 and here.effective == there.effective == 40
    auc = shared_aucs.mean()
    assert own_auc(auc, here.effective, dimensions) == pytest.approx(own_aucs.mean(), abs=0.006)
    assert correlation(auc, here.effective, dimensions) == pytest.approx(alike, abs=0.03)
    # As if the shared model had other rows alone, both are too far from it.
    assert own_auc(auc, here.weight, dimensions) < own_aucs.mean() - 0.02
    assert correlation(auc, here.weight, dimensions) < alike - 0.08


def test_the_error_of_a_gain_is_delongs_and_one_without_correlation_is_not():
    rng = np.random.default_rng(2)
    errors = []
    for _ in range(200):
        scores, y = drawn_scores(rng, (0.8, 0.75), 0.85, 60, 140)
        _, covariance = delong(y, scores.T)
        errors.append(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    measured = np.sqrt(np.mean(errors))
    assert gain_error(0.8, 0.75, 0.85, 60, 140) == pytest.approx(measured, rel=0.03)
    assert gain_error(0.8, 0.75, 0.0, 60, 140) > 1.8 * measured


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.05, 0.10])
@pytest.mark.parametrize("rows", [100, 600, 2000])
def test_the_chance_of_a_clear_gain_is_the_share_of_simulated_sites_that_have_one(gain, rows):
    rng = np.random.default_rng([rows, int(1000 * gain)])
    design = Design(auc=0.8, sites=4)
    site = SiteRows(training=4 * rows, events=rows // 4, others=rows - rows // 4)
    unlikeness = 20.0
    alike = correlation(0.8, site.effective, unlikeness)
    pays = []
    for _ in range(300):
        scores, y = drawn_scores(rng, (0.8, 0.8 - gain), alike, rows // 4, rows - rows // 4)
        aucs, covariance = delong(y, scores.T)
        error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        pays.append(aucs[0] - aucs[1] - NORMAL_95 * widening(4) * error > design.worthwhile)
    assert np.mean(pays) == pytest.approx(power(site, design, gain, unlikeness), abs=0.08)
    if gain == 0:
        assert np.mean(pays) <= 0.025


def test_the_least_gain_is_shown_with_the_power_named_and_more_rows_show_less():
    design = Design(auc=0.75, sites=5, repeats=10)
    site = site_rows(1000, 0.2 * 1000)
    least = least_gain(site, design, 20.0)
    assert power(site, design, least, 20.0) == pytest.approx(POWER, abs=1e-9)
    assert least_gain(site_rows(4000, 0.2 * 4000), design, 20.0) < least
    assert least_gain(site_rows(30, 0.2 * 30), design, 20.0) is None
    needed = count_test_rows(site, design, least, 20.0)
    assert needed == pytest.approx(site.events + site.others, rel=0.01)


def test_a_site_with_more_rows_gains_less_and_intervals_hold_their_values():
    design = Design(auc=0.75, sites=5, repeats=10)
    gains = [expected_gain(site_rows(rows, 0.3 * rows), design, 10.0) for rows in (50, 200, 1000, 10_000)]
    assert gains == sorted(gains, reverse=True) and gains[-1] < 0.001
    prospect = outlook(site_rows(1000, 0.3 * 1000), design, CURVE)
    for values in (prospect.expected, prospect.least, prospect.power):
        assert values.low <= values.value <= values.high
    assert mean_outlook([site_rows(1000, 0.3 * 1000)] * 2, design, CURVE) is None
    gain, chance = mean_outlook([site_rows(1000, 0.3 * 1000)] * 10, design, CURVE)
    expected = expected_gain(site_rows(1000, 0.3 * 1000), design, CURVE.dimensions.value)
    assert gain.value == pytest.approx(expected, abs=0.001)
    assert gain.low < gain.value - 0.008 and gain.high > gain.value + 0.008
    assert chance.low < chance.value < chance.high


@pytest.mark.parametrize(("sites", "rows", "auc"), [(8, 60, 0.75), (12, 150, 0.75), (20, 400, 0.75), (30, 40, 0.65)])
def test_the_chance_of_a_clear_class_is_the_share_of_simulated_classes(sites, rows, auc):
    rng = np.random.default_rng(sites)
    design = Design(auc=auc, sites=sites, repeats=10)
    sizes = rng.integers(rows // 2, 2 * rows, sites)
    members = [site_rows(float(size), 0.3 * size) for size in sizes]
    gain, chance = class_outlook(members, 3, design, CURVE)
    weights = np.array([of.events * of.others / (of.events + of.others) for of in members])
    expected = np.array([expected_gain(of, design, CURVE.dimensions.value) for of in members])
    errors = [error_at(of, design, auc - one, CURVE.unlikeness.value) for of, one in zip(members, expected)]
    assert gain.value == pytest.approx((weights * expected).sum() / weights.sum(), abs=0.01)
    clear = 0
    for _ in range(600):
        gains = rng.normal(expected, np.hypot(errors, SPREAD))
        measured = class_gain([WeightedGain(w, w * g) for w, g in zip(weights, gains)], 3)
        clear += measured.low > design.worthwhile
    assert chance.value == pytest.approx(clear / 600, abs=0.1)
    assert chance.low <= chance.value <= chance.high


def test_a_class_of_few_sites_has_no_outlook():
    assert class_outlook([site_rows(100.0, 30.0)] * 7, 3, Design(auc=0.75), CURVE) is None
    uneven = [site_rows(100.0, 30.0)] * 8 + [site_rows(1_000_000.0, 300_000.0)]
    assert class_outlook(uneven, 3, Design(auc=0.75), CURVE) is None


@pytest.mark.parametrize(("d", "c"), [(9.5, 20.0), (2.0, 60.0)])
def test_the_curve_of_a_run_is_the_one_that_made_its_figures(d, c):
    design = Design(auc=0.8, sites=6, repeats=10)
    members = [site_rows(float(size), 0.3 * size) for size in (80, 120, 200, 400, 800, 1600)]
    gains = np.array([expected_gain(of, design, d) for of in members])
    single = Design(auc=0.8, sites=6)
    errors = [error_at(of, single, 0.8 - one, c) for of, one in zip(members, gains)]
    # A site's error is of its own gain; the fit takes the curve's, which is the same here.
    weights = np.array([of.events * of.others / (of.events + of.others) for of in members])
    mean = float((weights * gains).sum() / weights.sum())
    fitted = fit_curve(members, errors, Range(mean, mean / 2, 2 * mean), design, CURVE)
    assert fitted.dimensions.value == pytest.approx(d, rel=1e-6)
    assert fitted.unlikeness.value == pytest.approx(c, rel=1e-6)
    assert fitted.dimensions.low < d < fitted.dimensions.high
    few = fit_curve(members[:3], errors[:3], Range(mean, mean / 2, 2 * mean), design, CURVE)
    assert few.unlikeness == CURVE.unlikeness


def test_the_chart_shades_what_no_site_could_see():
    lines = curve_lines(0.2, Design(auc=0.75, sites=5), CURVE)
    assert lines[0]["least gain shown"] is None and lines[-1]["least gain shown"] < 0.05
    drawn = chart_of_gains(lines, [{"Site": "a", "Rows": 300, "Gain in AUC": 0.04}])
    assert drawn.rows["shaded"].max() == 0.5
    assert "<svg" in picture(drawn, 400)
    assert chart_of_gains([]) is None


def test_the_page_says_what_can_be_shown_and_what_cannot():
    design = Design(auc=0.75, sites=5, repeats=10)
    assert in_words(2000, 0.2, design, CURVE)[0].startswith("With your rows, a study can show a gain in AUC of ")
    assert "can show no gain in AUC" in in_words(20, 0.2, design, CURVE)[0]


def test_the_command_predicts_for_sites_that_are_named_and_counts_those_of_a_study(flfed):
    words = ("study", "power", "breast-cancer", "--json")
    named = json.loads(flfed(*words, "--site", "a=2000,400", "--site", "b=9,1")[1])
    assert named["sites"]["b"] == {"rows": 9, "events": 1}
    assert named["sites"]["a"]["least"]["value"] > named["minimum-gain"] == 0.005
    assert named["mean"] is None and named["columns"] == 30
    counted = json.loads(flfed(*words, "--auc", "0.9", "--repeats", "10")[1])
    assert sum(site["rows"] for site in counted["sites"].values()) == 569
    shown = flfed("study", "power", "breast-cancer", "--site", "a=2000,400", "--site", "b=9,1")[1]
    assert "chance of a clear gain" in shown and "There is no mean over the sites" in shown
    assert "30 % of the rows for tests" in shown
    # Of a study's own tables only the outcomes of training rows are read.
    assert "estimated" not in shown and "events, estimated" in flfed(*words[:3])[1]


def test_page_and_command_have_the_same_figures_for_the_same_numbers(flfed):
    named = [word for site in "abcde" for word in ("--site", f"{site}=500,100")]
    counted = json.loads(flfed("study", "power", "breast-cancer", "--json", "--repeats", "10", *named)[1])
    page = AppTest.from_file(str(page_files()["before-you-join"]), default_timeout=60).run()
    page.number_input[1].set_value(counted["columns"]).run()
    assert [box.value for box in page.number_input] == [500, 30, 5, 10]
    prospect = read(Outlook, counted["sites"]["a"])
    shown = words(page)
    for of in (prospect.least, prospect.expected):
        assert f"{number(of.value)} " in shown and f"{number(of.low)} to {number(of.high)}" in shown
    assert f"clear is {100 * prospect.power.value:.0f} %" in shown
    assert "with 30 % of the rows for tests" in page.caption[-1].value


def test_the_command_says_plainly_where_the_prediction_does_not_hold(flfed):
    words = ("study", "power", "taiwan-credit", "--site", "a=2000,400", "--site", "b=3000,500")
    assert "does not hold for this study: its shared model (mlp) is no logistic regression" in flfed(*words)[1]
    linear = flfed("study", "power", "heart-disease", *words[3:])[1]
    assert "own boosted trees are better" in linear and "does not hold for this study" not in linear


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["breast-cancer", "--site", "a=20"], "write it as NAME=ROWS,EVENTS"),
        (["breast-cancer", "--site", "a=20,30"], "30 events of 20 rows"),
        (["breast-cancer", "--site", "a=20,3", "--site", "a=20,3"], "is there twice"),
        (["breast-cancer", "--auc", "0.4"], "must be in (0.5, 1)"),
        (["wine"], "not judged by AUC"),
    ],
)
def test_an_impossible_question_is_refused(flfed, words, reason):
    code, _, error = flfed("study", "power", *words)
    assert code == 2 and reason in error


def test_a_first_run_sets_the_curve_and_one_of_another_dataset_is_refused(flfed):
    code, out, error = flfed("study", "run", "breast-cancer", "--set", "rounds=3", "--json")
    assert code == 0, error
    run = json.loads(out)
    counted = json.loads(flfed("study", "power", "breast-cancer", "--run", run["run"], "--json")[1])
    assert counted["auc"] == pytest.approx(run["sites-mean"]["roc_auc_score"]["value"])
    others = json.loads(flfed("study", "power", "breast-cancer", "--auc", str(counted["auc"]), "--json")[1])
    assert counted["sites"] != others["sites"]
    code, _, error = flfed("study", "power", "loan-default", "--run", run["run"])
    assert code == 2
    assert "is of dataset 'breast-cancer'" in error


def test_the_page_takes_the_numbers_of_a_link():
    page = AppTest.from_file(str(page_files()["before-you-join"]), default_timeout=60)
    for key, value in {"rows": "120", "share": "7", "auc": "0.83", "sites": "12", "repeats": "x"}.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception
    # The rows are as many as the link says, and any number can be typed.
    assert [slider.value for slider in page.slider] == [7, 0.83]
    assert [number.value for number in page.number_input] == [120, 20, 12, 10]
    page.number_input[0].set_value(137).run()
    assert not page.exception and page.number_input[0].value == 137


def test_a_link_has_the_numbers_of_the_site():
    site = {"rows": 480, "holdout-rows": 100, "holdout-classes": {"0": 80, "1": 20}}
    site["global"] = {"roc_auc_score": {"value": 0.7349}}
    report = {"sites": {"a": site, "b": site}, "repeats": 10}
    expected = {"rows": "480", "share": "20", "auc": "0.73", "sites": "2", "repeats": "10"}
    assert prospect_of_site(report, "a") == expected
    assert prospect_of_site({"sites": {"a": site | {"holdout-classes": None}}}, "a") == {}
