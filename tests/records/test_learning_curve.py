"""The learning curve in the run store, as JSON, as a table and in words."""

import pytest

from flfed.records.reports.report import report
from flfed.records.statistics.learning_curve import METHOD, by_size, curve_object, curve_rows, gain_at, in_words
from flfed.records.store.entries import LearningPoint
from flfed.records.store.reader import RunReader

AUC = "roc_auc_score"
CHANGE = "personalised - local-only"
POINTS = [
    LearningPoint("long-beach", 10, 10, "local-only", AUC, 0.559, 0.45, 0.67),
    LearningPoint("long-beach", 10, 10, "personalised", AUC, 0.752, 0.66, 0.84),
    LearningPoint("long-beach", 10, 10, "global", AUC, 0.752, 0.66, 0.84),
    LearningPoint("long-beach", 10, 10, CHANGE, AUC, 0.194, 0.022, 0.365),
    LearningPoint("long-beach", 85, 10, "local-only", AUC, 0.667, 0.59, 0.74),
    LearningPoint("long-beach", 85, 10, "personalised", AUC, 0.744, 0.68, 0.81),
    LearningPoint("long-beach", 85, 10, "global", AUC, 0.744, 0.68, 0.81),
    LearningPoint("long-beach", 85, 10, CHANGE, AUC, 0.077, -0.03, 0.183),
]


def change(value, low, high, draws=10):
    return {CHANGE: {"value": value, "low": low, "high": high, "draws": draws}}


def test_points_are_read_as_they_were_written_by_any_run_of_the_series(store, write, url):
    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text="", repeats=2)
    write(store, series, rounds=2).learning_curve(reversed(POINTS))
    second = write(store, series, repeat=1, rounds=2)
    with RunReader.open(url) as reader:
        found = reader.learning_curve(series)
        assert sorted(found, key=POINTS.index) == POINTS
        assert [(point.site, point.rows) for point in found] == [(p.site, p.rows) for p in POINTS]
    second.learning_curve(POINTS[:4])  # anew: nothing is kept twice
    with RunReader.open(url) as reader:
        assert reader.learning_curve(series) == POINTS[:4]
        assert reader.learning_curve("another") == []


def test_a_bound_that_is_not_a_number_is_kept_as_null(store, heart, url):
    nan = float("nan")
    with RunReader.open(url) as reader:
        run = reader.runs_of(heart)[0]
    writer = store.begin_run(
        store.begin_series(study="s", study_sha256="", study_text=""),
        engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary",
    )  # fmt: skip
    writer.learning_curve([LearningPoint("a", 9, 1, "global", AUC, 0.5, nan, nan)])
    with RunReader.open(url) as reader:
        assert reader.learning_curve(writer.run) == [LearningPoint("a", 9, 1, "global", AUC, 0.5, None, None)]
        assert reader.learning_curve(run.series) == []


def test_the_report_has_the_curve_or_null(store, heart, write, url):
    with RunReader.open(url) as reader:
        assert report(reader, heart)["learning-curve"] is None
    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text="", repeats=2)
    run = write(store, series, rounds=2)
    run.learning_curve(POINTS)
    with RunReader.open(url) as reader:
        for name in (series, run.run):
            found = report(reader, name)["learning-curve"]
            assert set(found) == {"metric", "points", "method", "sites", "worthwhile"}
            assert (found["sites"], found["worthwhile"]) == (4, 0.005)  # four of the fixture's sites took part
            assert (found["metric"], found["method"]) == (AUC, METHOD)
            assert found["points"][3] == {
                "site": "long-beach", "rows": 10, "draws": 10, "arm": CHANGE,
                "value": 0.194, "low": 0.022, "high": 0.365, "freedom": None,
            }  # fmt: skip
            assert len(found["points"]) == 8


def test_the_table_has_a_line_for_each_size_with_the_gain_and_its_interval():
    headers, rows, sentences = curve_rows(curve_object(POINTS))
    assert headers[:2] == ["site", "own rows"]
    assert rows == [
        ["long-beach", "10", ".559", ".752", "+.194 (+.022 to +.365)"],
        ["long-beach", "85 (all)", ".667", ".744", "+.077 (−.030 to +.183)"],
    ]
    assert sentences == [
        "long-beach: with 10 rows of its own, joining gains +.194 AUC (95 % CI +.022 to +.365); "
        "with all its 85 rows, no clear gain: +.077 AUC (95 % CI −.030 to +.183)."
    ]


def test_a_metric_that_is_better_when_lower_is_turned_so_that_a_gain_is_above_zero():
    sizes = {10: change(-0.2, -0.3, -0.1), 50: change(0.05, 0.02, 0.08)}
    sentence = in_words("vienna", sizes, {"metric": "log_loss"}, draws=10)
    assert "with 10 rows of its own, joining gains +.200 log loss (95 % CI +.100 to +.300)" in sentence
    assert "with all its 50 rows, joining costs .050 log loss (gain −.050, 95 % CI −.080 to −.020)" in sentence


@pytest.mark.parametrize("freedom", [None, 9])
def test_a_gain_at_all_rows_is_widened_as_in_the_table_of_the_comparison(store, url, write, freedom):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = write(store, series, rounds=1)
    with RunReader.open(url) as reader:
        entry = report(reader, series)["sites"]["cleveland"]["difference-personalised"][AUC]
    figures = (entry["value"], entry["low"], entry["high"])
    run.learning_curve([LearningPoint("cleveland", 85, 10, CHANGE, AUC, *figures, freedom)])
    with RunReader.open(url) as reader:
        curve = report(reader, series)["learning-curve"]
    gain = gain_at(by_size(curve)["cleveland"][85], curve)
    told, normal = (gain.wide_low, gain.wide_high), (entry["widened-low"], entry["widened-high"])
    assert entry["freedom"] is None  # the holdout stays
    if freedom is None:
        assert told == pytest.approx(normal, abs=1e-12)
    else:
        assert told[0] < normal[0] and told[1] > normal[1]


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (change(None, None, None, 0), "it cannot be told: AUC was not defined in any draw."),
        (change(0.2, None, None, 6), "it cannot be told: AUC was defined in too few draws (in 6 of 10 draws)."),
        (change(0.002, 0.001, 0.003), "+.003); the interval lies above 0, but the gain is too small to matter"),
        (change(0.2, 0.1, 0.3, 9), "joining gains +.200 AUC (95 % CI +.100 to +.300) (in 9 of 10 draws)."),
    ],
)
def test_undefined_draws_and_gains_that_are_too_small_are_said(arms, said):
    assert said in in_words("basel", {30: arms}, {"metric": AUC}, draws=10)
