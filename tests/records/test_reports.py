"""Reports: the JSON object, what repeats say together, and verdicts in words."""

import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from scipy import stats

from flfed.records.reports import report as reports
from flfed.records.reports.catalogue import run_list
from flfed.records.reports.faults import fault_kind, refused_sites
from flfed.records.reports.narrative import comparison_rows, story
from flfed.records.reports.report import purpose_of, report
from flfed.records.statistics.intervals import resplit_interval, student_t_bound, student_t_within
from flfed.records.statistics.verdict import DO_NOT_USE, INCONCLUSIVE, MINUS, NO_CLEAR_GAIN, PAYS, Difference, verdict
from flfed.records.store.entries import ComparisonRow, DifferenceRow, EventRow, SiteRow
from flfed.records.store.reader import RunReader

AUC, BRIER = "roc_auc_score", "brier_score_loss"
KEYS = [
    "run", "study", "status", "reason", "engine", "path", "rounds", "seconds", "repeats", "arrays-sha256",
    "global", "sites-mean", "personalised", "personalised-sites-mean", "pooled", "own-model-everywhere",
    "share", "sites", "verdict-rule", "training", "leaking-columns", "mean-gain",
    "faults", "privacy", "audit", "apart", "outcome-reversed",
    "round-bytes", "pooled-same", "pooled-family", "pooled-families",
]  # fmt: skip


@pytest.fixture
def found(url, heart):
    with RunReader.open(url) as reader:
        return report(reader, heart)


def test_the_object_has_the_keys_of_the_design(found, heart):
    assert list(found) == KEYS
    assert (found["run"], found["status"], found["rounds"], found["repeats"]) == (heart, "completed", 40, 1)
    assert found["global"][AUC] == {"value": 0.896, "low": 0.871, "high": 0.919, "sd": None}
    assert list(found["global"]) == [AUC, BRIER]
    assert found["pooled"][AUC]["value"] == 0.901
    site = found["sites"]["long-beach"]
    assert (site["rows"], site["holdout-rows"], site["verdict"]) == (200, 60, NO_CLEAR_GAIN)
    assert site["difference"][AUC]["value"] == pytest.approx(0.062, abs=1e-12)
    assert site["difference-personalised"][AUC] == {
        "value": pytest.approx(0.111, abs=1e-12), "low": 0.022, "high": 0.199, "p": 0.01, "freedom": None,
        # z(1 - 0.025 / 4) / z(0.975) = 2.4977 / 1.9600 = 1.27436, of arms of 0.089 and 0.088
        "widened-low": pytest.approx(0.111 - 0.089 * 1.27436, abs=1e-6),
        "widened-high": pytest.approx(0.111 + 0.088 * 1.27436, abs=1e-6), "sites": 4, "minimum-gain": 0.005,
    }  # fmt: skip
    assert found["verdict-rule"] == {"sites": 4, "level": 0.95, "minimum-gain": {AUC: 0.005, BRIER: 0.0}}
    assert set(found["sites"]) == {"cleveland", "hungary", "long-beach", "switzerland"}


def test_faults_name_round_site_and_reason_and_refused_sites(found):
    assert found["faults"] == [
        {"round": 3, "site": "hungary", "reason": "the delta has 3 values that are not finite"},
        {"round": 17, "site": "long-beach", "reason": "no answer before the deadline of 600 seconds"},
        {"round": None, "site": "basel",
         "reason": "refused: its policy does not allow the data set heart-disease"},
    ]  # fmt: skip


def test_a_figure_that_is_not_defined_is_null_with_its_reason(found):
    site = found["sites"]["switzerland"]
    assert site["global"][AUC]["value"] is None
    assert site["global"][AUC]["reason"] == "the holdout has one class only"
    assert site["verdict"] == INCONCLUSIVE


def test_references_that_the_engine_could_not_measure_are_null(store, url):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=2, primary=AUC, task="binary")
    run.finish(status="stopped", reason="quorum")
    with RunReader.open(url) as reader:
        found = report(reader, run.run)
    assert (found["pooled"], found["own-model-everywhere"], found["global"]) == (None, None, {})
    assert comparison_rows(found)[2] == ["Nothing was compared: the run is stopped after 0 rounds (quorum)."]


@pytest.mark.parametrize("resplit", [True, False])
def test_repeats_give_means_and_a_spread(store, url, write, resplit):
    shifts = [0.00, 0.01, 0.03, -0.02]
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=4)
    for repeat, shift in enumerate(shifts):
        write(store, series, repeat=repeat, shift=shift, resplit=resplit, rounds=3 + repeat)
    with RunReader.open(url) as reader:
        found = report(reader, series)
    assert (found["run"], found["repeats"], found["rounds"], found["arrays-sha256"]) == (series, 4, 3, None)
    assert found["seconds"] == pytest.approx(4 * 8.4)
    figure = found["global"][AUC]
    assert figure["value"] == pytest.approx(0.896 + 0.005, abs=1e-12)
    assert figure["sd"] == pytest.approx(statistics.stdev(shifts), abs=1e-12)
    gain = found["sites"]["long-beach"]["difference-personalised"][AUC]
    assert gain["value"] == pytest.approx(0.111 + 0.005, abs=1e-12)
    # by hand: 200 rows of which 60 are holdout, t of 3 degrees of freedom = 3.1824
    reach = 3.182446 * statistics.stdev(shifts) * math.sqrt(1 / 4 + 60 / 140)
    low = 0.116 - reach if resplit else 0.022 + 0.005
    assert gain["low"] == pytest.approx(low, abs=1e-6)
    assert (gain["p"] is None) != resplit
    assert gain["freedom"] == (3 if resplit else None)
    assert {fault["reason"][:8] for fault in found["faults"] if fault["round"]} == {f"repeat {k}" for k in (1, 2, 3, 4)}
    assert [fault["site"] for fault in found["faults"] if fault["round"] is None] == ["basel"]


def test_the_status_of_a_series_is_that_of_its_worst_run(store, url, write):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    write(store, series, repeat=0, rounds=1)
    run = store.begin_run(series, repeat=1, engine="e", path="stacked", seed=1, rounds_planned=2, primary=AUC, task="b")
    run.finish(status="stopped", reason="the quorum is 3")
    with RunReader.open(url) as reader:
        found = report(reader, series)
    assert (found["status"], found["reason"], found["path"]) == ("stopped", "repeat 2: the quorum is 3", "mixed")


def test_the_list_of_runs_has_the_keys_of_the_design(url, heart):
    with RunReader.open(url) as reader:
        line = run_list(reader)["runs"][0]
    keys = ["run", "study", "status", "engine", "started", "rounds", "sites", "missing", "series", "repeat"]
    answer = ["dataset", "rows", "verdict", "gain", "mechanism", "epsilon"]
    assert list(line) == [*keys, "metric", "value", "low", "high", *answer]
    assert (line["run"], line["rounds"]) == (heart, 40)
    assert (line["sites"], line["missing"]) == (5, ["basel"])


def test_sites_that_took_no_part_are_in_the_first_sentence(found, store, url):
    policy = "its policy does not allow the data set heart-disease"
    assert story(found)[0] == f"1 of 5 sites took no part: basel ({policy})."
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=1, primary=AUC, task="binary")
    run.sites([SiteRow("here")])
    for place in range(6):
        run.sites([SiteRow(f"hospital-{place}", status="refused", reason="too few rows")])
    run.events([EventRow(None, "away", "fault", "not there: no answer before the deadline", "not-there")])
    run.finish(status="failed", reason="x")
    with RunReader.open(url) as reader:
        lost = report(reader, series)
        (line,) = [line for line in run_list(reader)["runs"] if line["run"] == run.run]
    away = "away (no answer before the deadline)"
    said = f"7 of 8 sites took no part: {away}, hospital-0, hospital-1, hospital-2 and 3 more (too few rows)."
    assert story(lost)[0] == comparison_rows(lost)[2][0] == said
    assert (line["sites"], len(line["missing"])) == (8, 7)


def test_a_site_that_took_part_in_most_repeats_is_said_to_have_missed_some(store, url, write):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=4)
    for repeat in range(4):
        run = write(store, series, repeat=repeat, rounds=1)
        if repeat in (1, 3):
            run.events([EventRow(None, "hungary", "fault", "not there: no answer before the deadline", "not-there")])
        if repeat == 3:
            run.sites([SiteRow("cleveland", status="refused", reason="too few rows")])
    with RunReader.open(url) as reader:
        found = report(reader, series)
    assert story(found)[:3] == [
        "1 of 5 sites took no part: basel (its policy does not allow the data set heart-disease).",
        "hungary took no part in 2 of 4 repeats (no answer before the deadline).",
        "cleveland took no part in 1 of 4 repeats (too few rows).",
    ]


@pytest.mark.parametrize(("cases", "told"), [(3, []), (30, ["x"])])
def test_an_outcome_is_not_said_to_be_reversed_from_a_few_rows_of_a_class(store, url, cases, told):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=1, primary=AUC, task="binary")
    run.sites([SiteRow("x", rows=200, holdout_rows=40 + cases)])
    counts = {"0": [[10, 40]], "1": [[20, cases]]}
    run.summary("score-histograms", {"bins": 256, "limit": 12.0, "sites": {"x": counts}, "all": None})
    figures = [("local-only", 0.8, 0.7, 0.9), ("global", 0.2, 0.1, 0.3)]
    run.comparison([ComparisonRow("x", arm, AUC, *values, 40 + cases, "DeLong") for arm, *values in figures], [])
    run.finish(status="completed")
    with RunReader.open(url) as reader:
        assert [line["site"] for line in report(reader, series)["outcome-reversed"]] == told


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 39])
def test_students_t_equals_scipys(freedom):
    for t in (0.1, 1.0, 2.5, 12.0):
        expected = 1 - 2 * stats.t.sf(t, freedom)
        assert student_t_within(t, freedom) == pytest.approx(expected, abs=1e-12)
    assert student_t_bound(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_the_interval_of_re_splits_does_not_shrink_to_nothing_with_repetition():
    values = [0.05, 0.01, 0.03, -0.01] * 25
    mean, low, high, p = resplit_interval(values, 0.43)
    plain = 1.984 * statistics.stdev(values) / math.sqrt(100)
    assert mean == pytest.approx(0.02, abs=1e-12)
    assert high - mean == pytest.approx(plain * math.sqrt(1 + 100 * 0.43), rel=1e-3)
    assert low < 0 < p


@pytest.mark.parametrize(("shared", "adjusted", "better", "code"), [
    ((0.11, 0.02, 0.19), None, "higher", PAYS),
    ((-0.05, -0.09, -0.01), (0.04, 0.01, 0.07), "higher", PAYS),
    ((0.02, -0.03, 0.07), (0.01, -0.02, 0.04), "higher", NO_CLEAR_GAIN),
    ((-0.05, -0.09, -0.01), (0.01, -0.02, 0.04), "higher", NO_CLEAR_GAIN),
    ((-0.05, -0.09, -0.01), (-0.01, -0.04, 0.02), "higher", NO_CLEAR_GAIN),
    ((-0.05, -0.09, -0.01), None, "higher", DO_NOT_USE),
    ((-0.05, -0.09, -0.01), None, "lower", PAYS),
    ((0.05, 0.01, 0.09), (0.01, -0.02, 0.04), "lower", NO_CLEAR_GAIN),
    ((-0.05, -0.12, 0.02), (-0.03, -0.05, -0.01), "higher", DO_NOT_USE),
    ((0.05, -0.02, 0.12), (0.03, 0.01, 0.05), "lower", DO_NOT_USE),
    ((-0.03, -0.05, -0.01), (-0.05, -0.12, 0.02), "higher", DO_NOT_USE),
    (None, (-0.03, -0.05, -0.01), "higher", DO_NOT_USE), (None, (-0.03, -0.06, 0.00), "higher", NO_CLEAR_GAIN),
    ((None, None, None), None, "higher", INCONCLUSIVE), ((0.10, None, None), None, "higher", INCONCLUSIVE),
    (None, (0.04, 0.01, 0.07), "higher", PAYS),
])  # fmt: skip
def test_the_verdict_follows_from_the_intervals(shared, adjusted, better, code):
    given = [Difference(*numbers) if numbers else None for numbers in (shared, adjusted)]
    found, sentence = verdict(given[0], given[1], better, metric=AUC)
    assert found == code
    # What is said of chance is true: only an interval with 0 in it is said to contain 0.
    assert ("contains 0" in sentence) == (code == NO_CLEAR_GAIN)
    assert "certain" not in sentence
    # A model whose interval lies on the wrong side of 0 is told of, whatever the other one does: the shared one
    # always, the adjusted one where the verdict is about it.
    worse = [d is not None and d[0] is not None and d[1] is not None and (d[2] < 0 if better == "higher" else d[1] > 0)
             for d in (shared, adjusted)]  # fmt: skip
    assert ("clearly worse here" in sentence) == (worse[0] or (worse[1] and code == DO_NOT_USE))
    if code == DO_NOT_USE:
        assert "clearly worse here" in sentence


@pytest.mark.parametrize(("metric", "better", "sign"), [(AUC, "higher", 1), (BRIER, "lower", -1)])
def test_an_interval_widened_for_many_sites_decides_whichever_way_is_better(metric, better, sign):
    # A gain of 0.05 with an interval of 0.01 to 0.09, widened for eight sites -0.02 to 0.12.
    ends = [end for span in ((0.01, 0.09), (-0.02, 0.12)) for end in sorted(sign * number for number in span)]
    found, sentence = verdict(Difference(sign * 0.05, *ends, sites=8), None, better, metric=metric)
    assert found == NO_CLEAR_GAIN and "; the interval contains 0, so this may be chance" in sentence
    assert f"gain +0.050 (95 % CI, widened for 8 sites: {MINUS}0.020 to +0.120)" in sentence and "0.090" not in sentence


def test_a_metric_that_should_be_low_is_worded_that_way():
    code, sentence = verdict(
        Difference(-0.02, -0.035, -0.005), None, "lower", metric=BRIER, figures={"global": 0.131, "local-only": 0.151}
    )
    assert code == PAYS
    assert sentence == (
        "Brier score (lower is better) 0.131 with the shared model against 0.151 alone: gain +0.020 "
        "(95 % CI +0.005 to +0.035)."
    )


def test_a_clearly_worse_model_is_not_recommended_in_words():
    code, sentence = verdict(
        Difference(-0.09, -0.15, -0.02), None, "higher", metric=AUC, figures={"global": 0.62, "local-only": 0.71}
    )
    assert code == DO_NOT_USE
    assert sentence.endswith(f": the interval lies below {MINUS}0.005, the shared model is clearly worse here.")


def test_an_adjusted_model_that_is_clearly_worse_is_named():
    figures = {"global": 0.70, "local-only": 0.75, "personalised": 0.72}
    shared, adjusted = Difference(-0.05, -0.12, 0.02), Difference(-0.03, -0.05, -0.01)
    code, sentence = verdict(shared, adjusted, "higher", metric=AUC, figures=figures)
    assert code == DO_NOT_USE
    assert sentence == (
        f"AUC 0.720 with the shared model adjusted to the site against 0.750 alone: gain {MINUS}0.030 (95 % CI "
        f"{MINUS}0.050 to {MINUS}0.010): the interval lies below {MINUS}0.005, the shared model adjusted to the site "
        "is clearly worse here."
    )


def test_what_fails_after_the_last_round_is_no_update_set_aside(store, url, write):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = write(store, series, rounds=3)
    reasons = {"no comparison: no answer": 4, "holdout rows: x": 4, "did not come back after the run was resumed": 2}
    run.events([EventRow(at, "hungary", "fault", reason) for reason, at in reasons.items()])
    with RunReader.open(url) as reader:
        found = report(reader, series)
    # the fixture sets one update aside itself
    assert story(found)[-1].endswith("rejected updates: 1; sites refused: 1 (basel); other faults: 3.")


@pytest.mark.parametrize(
    ("text", "purpose"), [('purpose = "Find fraud"', "Find fraud"), ("seed = 1", ""), ("not TOML", ""), ("", "")]
)
def test_the_purpose_of_a_study_is_read_from_its_text(text, purpose):
    assert purpose_of(text) == purpose


def test_a_fault_of_no_round_is_a_refusal_only_where_it_says_so(store, url, write):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    for repeat in range(2):
        run = write(store, series, repeat=repeat, rounds=3)
        run.events([EventRow(None, "hungary", "fault", "no comparison: no answer"), EventRow(None, None, "fault", "x")])
        run.events([EventRow(None, "geneva", "fault", "refused: policy")])
    with RunReader.open(url) as reader:
        found = report(reader, series)
    kinds = {fault["reason"]: fault_kind(fault) for fault in found["faults"] if fault["round"] is None}
    assert kinds == {
        "refused: its policy does not allow the data set heart-disease": "site refused",
        **{f"repeat {k}: refused: policy": "site refused" for k in (1, 2)},
        **{f"repeat {k}: no comparison: no answer": "fault" for k in (1, 2)},
        **{f"repeat {k}: x": "fault" for k in (1, 2)},
    }
    assert refused_sites(found) == ["basel", "geneva"]
    expected = "rejected updates: 2; sites refused: 2 (basel, geneva); other faults: 4."
    assert story(found)[-1].endswith(expected)


@pytest.mark.studies
def test_the_work_of_a_report_grows_with_the_sites_and_not_with_their_square(store, url):
    def calls(sites: int) -> int:
        series = store.begin_series(study="s", study_sha256="", study_text="")
        run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=2, primary=AUC, task="binary")
        names = [f"s{k:03d}" for k in range(sites)]
        for name in names:
            run.sites([SiteRow(name, rows=100)])
        figures = [ComparisonRow(name, "global", AUC, 0.6) for name in names]
        run.comparison(figures, [DifferenceRow(name, "global", "local-only", AUC, 0.1, 0.0, 0.2) for name in names])
        with RunReader.open(url) as reader:
            return lines_run(lambda: report(reader, run.run))

    calls(2)  # what is done once, such as compiling the queries
    few, more, most = (calls(sites) for sites in (20, 40, 80))
    # Linear in sites: doubling the number added doubles the lines added; quadratic would give about 4.
    assert (most - more) / (more - few) == pytest.approx(2, rel=0.1)


def lines_run(work: Callable[[], object]) -> int:
    """Return how many lines of `flfed/records/` a call runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal count
        if Path(frame.f_code.co_filename).parent != Path(reports.__file__).parent:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_the_story_says_who_gains_how_far_pooled_is_and_what_was_set_aside(found):
    said = "\n".join(story(found, planned=40))
    assert "would reach 0.901: 0.005 better than the shared model" in said
    # +0.111 (+0.022 to +0.199) is above 0, but not for four sites:
    # z(1 - 0.025 / 4) = 2.498, 0.111 - 0.089 / 1.96 * 2.498 < 0
    assert "At no site does joining improve AUC: no interval (95 % CI, widened for 4 sites) lies above 0.005." in said
    assert "Joining improves AUC at 0 of 4 sites; no clear improvement at 3 (cleveland, hungary, long-beach)" in said
    assert said.endswith("40 of 40 rounds ran; rejected updates: 2; sites refused: 1 (basel).")


def test_the_table_has_a_line_a_site_and_a_line_a_reference(found):
    headers, rows, footers = comparison_rows(found)
    assert {len(row) for row in rows} == {len(headers)}
    assert [row[0] for row in rows][:4] == ["cleveland", "hungary", "long-beach", "switzerland"]
    assert headers[-2:] == ["gain (+ is better), 95 % CI, widened for 4 sites", "verdict"]
    assert rows[2][2:] == [
        "0.662", "0.600", "0.711", f"+0.111 ({MINUS}0.002 to +0.223), adjusted", "no clear improvement",
    ]  # fmt: skip
    assert rows[3][-1] == "inconclusive"
    assert ["all rows in one place (pooled)", "", "0.901"] in [row[:3] for row in rows]
    assert comparison_rows(found, BRIER)[1][0][2] == "0.130"


def test_a_verdict_uses_the_stored_numbers_not_the_stored_words(store, url):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=2, primary=AUC, task="binary")
    run.sites([SiteRow("a", rows=100)])
    row = DifferenceRow("a", "global", "local-only", AUC, -0.1, -0.2, -0.05, 0.001, "DeLong", "joining pays")
    run.comparison([ComparisonRow("a", "global", AUC, 0.6), ComparisonRow("a", "local-only", AUC, 0.7)], [row])
    with RunReader.open(url) as reader:
        assert report(reader, run.run)["sites"]["a"]["verdict"] == DO_NOT_USE
