"""The least gain that a study could show before it is run: against simulated scores, as command and as page."""

import json

import numpy as np
import pytest
from scipy import stats
from streamlit.testing.v1 import AppTest

from flfed.records.charts.by_site import chart_of_gains
from flfed.records.charts.chart import picture
from flfed.records.dashboard import page_files
from flfed.records.statistics.intervals import NORMAL_95, widening
from flfed.records.statistics.power import (
    CORRELATIONS,
    POWER,
    Design,
    auc_error,
    least_gain,
    least_gain_lines,
    measured_gains,
)
from flfed.records.statistics.verdict import number
from flfed.rows.evaluation.delong import delong
from tests.records.one_answer import words


def drawn_scores(rng, aucs, correlation, events, others):
    """Return scores [rows, 2] of two models, normal within a class, and the outcomes."""
    y = np.r_[np.ones(events, int), np.zeros(others, int)]
    scores = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], events + others)
    return scores + y[:, None] * np.sqrt(2) * stats.norm.ppf(aucs), y


@pytest.mark.parametrize(("auc", "events", "others"), [(0.6, 20, 80), (0.75, 60, 140), (0.9, 30, 300)])
def test_the_error_of_an_auc_is_delongs(auc, events, others):
    rng = np.random.default_rng(events)
    variances = [
        delong(y, scores.T)[1][0, 0]
        for scores, y in (drawn_scores(rng, (auc, auc), 0.5, events, others) for _ in range(200))
    ]
    assert auc_error(auc, events, others) == pytest.approx(np.sqrt(np.mean(variances)), rel=0.05)


@pytest.mark.parametrize("rows", [1000, 3000, 8000])
def test_the_least_gain_is_clear_in_as_many_simulated_sites_as_the_power_says(rows):
    rng = np.random.default_rng(rows)
    design = Design(auc=0.8, sites=4)
    least = least_gain(rows, rows // 4, design).value
    events, others = int(0.3 * rows / 4), int(0.3 * rows * 3 / 4)
    correlation = 0.8  # of the scores; that of the AUCs is a little less
    pays, alike = [], []
    for _ in range(300):
        scores, y = drawn_scores(rng, (0.8, 0.8 - least), correlation, events, others)
        aucs, covariance = delong(y, scores.T)
        error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        alike.append(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
        pays.append(aucs[0] - aucs[1] - NORMAL_95 * widening(4) * error > design.worthwhile)
    assert np.mean(alike) == pytest.approx(CORRELATIONS[0], abs=0.03)
    assert np.mean(pays) == pytest.approx(POWER, abs=0.1)


def test_more_rows_repeats_and_fewer_sites_show_less_and_few_test_rows_none():
    design = Design(auc=0.75, sites=5, repeats=10)
    least = least_gain(1000, 200, design)
    assert design.worthwhile < least.low < least.value < least.high
    assert least_gain(4000, 800, design).value < least.value
    assert least_gain(1000, 200, Design(auc=0.75, sites=50, repeats=10)).value > least.value
    assert least_gain(1000, 200, Design(auc=0.75, sites=5, repeats=3)).value > least.value
    # Nine test rows with the outcome are below the verdict's ten; a model worse than none is no rival.
    assert least_gain(1000, 31, design) is None and least_gain(1000, 34, design) is not None
    assert least_gain(150, 40, Design(auc=0.55)) is None


def test_the_chart_shades_what_no_site_could_see():
    lines = least_gain_lines(0.2, Design(auc=0.75, sites=5))
    assert lines[0]["least gain shown"] is None and lines[-1]["least gain shown"] < 0.05
    gains = measured_gains()
    assert len(gains) == 701 and min(gain["Rows"] for gain in gains) == 3
    drawn = chart_of_gains(lines, gains)
    assert drawn.rows["shaded"].max() == 0.5 and "<svg" in picture(drawn, 400)


def test_the_command_shows_a_site_of_ones_own_and_those_of_a_study(flfed):
    own = json.loads(flfed("study", "power", "breast-cancer", "--json", "--rows", "2000", "--events", "400")[1])
    assert own["sites"]["your site"]["rows"] == 2000 and own["minimum-gain"] == 0.005
    expected = least_gain(2000, 400, Design())
    assert own["sites"]["your site"]["least"]["value"] == pytest.approx(expected.value)
    counted = json.loads(flfed("study", "power", "breast-cancer", "--auc", "0.9", "--repeats", "10", "--json")[1])
    assert sum(site["rows"] for site in counted["sites"].values()) == 569
    shown = flfed("study", "power", "breast-cancer", "--rows", "2000", "--events", "400")[1]
    assert f"{number(expected.value, 3)} (" in shown and "30 % of the rows for tests" in shown
    # Of a study's own tables only the outcomes of training rows are read.
    assert "estimated" not in shown and "events, estimated" in flfed("study", "power", "breast-cancer")[1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["breast-cancer", "--rows", "20"], "give both"),
        (["breast-cancer", "--rows", "20", "--events", "30"], "more than the 20 rows"),
        (["breast-cancer", "--auc", "0.4"], "must be in (0.5, 1)"),
        (["wine"], "not judged by AUC"),
    ],
)
def test_an_impossible_question_is_refused(flfed, words, reason):
    code, _, error = flfed("study", "power", *words)
    assert code == 2 and reason in error


def test_the_page_has_the_figure_of_its_numbers():
    page = AppTest.from_file(str(page_files()["before-you-join"]), default_timeout=60).run()
    assert not page.exception
    assert [box.value for box in page.number_input] == [500, 20, 0.75, 5, 10]
    least = least_gain(500, 100, Design(auc=0.75, sites=5, repeats=10))
    assert f"a gain in AUC of {number(least.value, 3)} or more" in words(page)
    assert "with 30 % of the rows for tests" in page.caption[-1].value
    (chart,) = page.get("vega_lite_chart")
    last = least_gain(50_000, 10_000, Design(auc=0.75, sites=5, repeats=10))
    assert f"its test rows show: {number(last.value, 3)} with 50,000 rows" in str(chart.proto)
    page.number_input[0].set_value(30).run()
    assert not page.exception and "can show no gain in AUC" in words(page)
