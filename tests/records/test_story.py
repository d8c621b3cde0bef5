"""What is said of gains: whose stands out, on which side of 0, by which model, from how many rows of each class."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flfed.records.charts.by_site import _forest_row, forest_plot
from flfed.records.charts.chart import picture
from flfed.records.document.document import document
from flfed.records.objects import figure_of
from flfed.records.reports.narrative import (
    comparison_rows,
    forest_lines,
    gain_in_words,
    over_sites,
    stands_out,
    story,
    untold_in_words,
)
from flfed.records.reports.report import metrics_of, report
from flfed.records.reports.site_verdict import best_arm, best_gain, site_verdict
from flfed.records.statistics.intervals import resplit_interval, widening
from flfed.records.statistics.verdict import (
    ARM_NAMES,
    DO_NOT_USE,
    INCONCLUSIVE,
    LEAST_OF_A_CLASS,
    MINUS,
    NO_CLEAR_GAIN,
    PAYS,
    Difference,
    better_of,
    decimals_for,
    describe_verdict,
    number,
    verdict,
)
from flfed.records.store.entries import ComparisonRow, DifferenceRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore

AUC, LOSS, CALIBRATION = "roc_auc_score", "log_loss", "calibration_in_the_large_error"
ARMS = ("global", "personalised")
Gain = tuple[float, float, float] | None


def recorded(
    store: RunStore,
    sites: dict[str, tuple[Gain, Gain]],
    *,
    metric: str = AUC,
    classes: dict[str, tuple[int, int]] | None = None,
    repeats: int = 1,
    values: dict[str, list[float]] | None = None,
    text: str = "",
) -> str:
    """A series of repeats: the gaps of both models at each site, or by repeat in `values`; rows without, with."""
    series = store.begin_series(study="s", study_sha256="", study_text=text, repeats=repeats)
    for repeat in range(repeats):
        run = store.begin_run(
            series, repeat=repeat, engine="e", path="p", seed=repeat, rounds_planned=1, primary=metric, task="binary"
        )
        figures, rows = [ComparisonRow(None, "global", metric, 0.8)], []
        for site, gaps in sites.items():
            run.sites([SiteRow(site, rows=127, holdout_rows=38, resplit=values is not None)])
            figures.append(ComparisonRow(site, "local-only", metric, 0.5, 0.4, 0.6))
            for arm, gap in zip(ARMS, gaps, strict=True):
                told = gap if values is None else (values[site][repeat], -0.9, 0.9)
                figures.append(ComparisonRow(site, arm, metric, 0.5 + told[0] if told else None, 0.4, 0.6))
                rows.append(DifferenceRow(site, arm, "local-only", metric, *(told or (None, None, None))))
        if classes:
            counts = {site: {"0": [[1, 2], [7, n - 2]], "1": [[9, m]]} for site, (n, m) in classes.items()}
            payload = {
                "bins": 256, "limit": 12.0, "sites": counts, "all": None, "combined-sites": 0,
                "requested-sites": len(sites),
            }  # fmt: skip
            run.summary("score-histograms", payload)
        run.comparison(figures, rows)
        run.finish(status="completed")
    return series


def found_of(url: str, series: str) -> Any:
    with RunReader.open(url) as reader:
        return report(reader, series)


def test_the_largest_gain_that_is_named_is_the_largest_of_those_that_are_clear(store, url):
    sites: dict[str, tuple[Gain, Gain]] = {
        "noisy": ((0.433, -0.325, 1.0), None), "sure": ((0.060, 0.030, 0.090), (0.050, 0.020, 0.080)),
        "surer": ((0.040, 0.030, 0.050), None), "lucky": ((0.125, 0.004, 0.247), None),
    }  # fmt: skip
    found = found_of(url, recorded(store, sites))
    name, gain = stands_out(found, AUC)
    by = stats.norm.ppf(1 - 0.025 / 4) / stats.norm.ppf(0.975)  # four sites were looked at
    assert name == "sure"
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.06, 0.06 - 0.03 * by, 0.06 + 0.03 * by), abs=1e-12)
    (said,) = [line for line in story(found) if "largest clear gain" in line]
    assert said.startswith("sure has the largest clear gain. AUC 0.560 with the shared model against 0.500 alone")
    assert said.endswith("gain +0.060 (95 % CI, widened for 4 sites: +0.022 to +0.098).")
    assert found["sites"]["lucky"]["verdict"] == NO_CLEAR_GAIN


def test_a_study_says_what_gain_is_worthwhile(store, url):
    sites: dict[str, tuple[Gain, Gain]] = {
        "a": ((0.06, 0.03, 0.09), None), "b": ((0.003, 0.002, 0.004), None), "c": ((-0.02, -0.03, -0.01), None),
    }  # fmt: skip
    for text, codes in (
        ("", {"a": PAYS, "b": NO_CLEAR_GAIN, "c": DO_NOT_USE}),
        ("[compare]\nminimum-gain = 0.001", {"a": PAYS, "b": PAYS, "c": DO_NOT_USE}),
        ("[compare]\nminimum-gain = 0.0025", {"a": PAYS, "b": NO_CLEAR_GAIN, "c": DO_NOT_USE}),
        ("[compare]\nminimum-gain = 0.05", {"a": NO_CLEAR_GAIN, "b": NO_CLEAR_GAIN, "c": NO_CLEAR_GAIN}),
    ):
        series = recorded(store, sites, text=text)
        found = found_of(url, series)
        assert {site: of["verdict"] for site, of in found["sites"].items()} == codes
        said = {site: site_verdict(of, AUC)[1] for site, of in found["sites"].items()}
        assert ("(under 0.0025)" in said["b"]) == ("0.0025" in text)
        for site, code in codes.items():
            assert ("too small to matter" in said[site]) == (code == NO_CLEAR_GAIN)
            assert not any(f"(under {figure})" in said[site] for figure in ("0.003", "0.000"))


def test_a_widened_interval_ends_where_the_metric_does(store, url):
    sites: dict[str, tuple[Gain, Gain]] = dict.fromkeys(("a", "b", "c", "d", "e", "f"), ((0.6, 0.25, 0.95), None))
    _, gain = stands_out(found_of(url, recorded(store, sites)), AUC)
    by = stats.norm.ppf(1 - 0.025 / 6) / stats.norm.ppf(0.975)
    assert 0.6 + 0.35 * by > 1
    assert (gain.low, gain.high) == pytest.approx((0.6 - 0.35 * by, 1.0), abs=1e-12)


@pytest.mark.parametrize(("low", "code"), [(0.0052, PAYS), (0.0048, NO_CLEAR_GAIN)])
def test_a_bound_near_the_limit_is_one_and_the_same_on_every_side(store, url, low, code):
    by = stats.norm.ppf(1 - 0.025 / 4) / stats.norm.ppf(0.975)
    near = (0.05, 0.05 - (0.05 - low) / by, 0.05 + (0.05 - low) / by)
    series = recorded(store, {"near": (near, None), **dict.fromkeys(("b", "c", "d"), ((0.0, -0.1, 0.1), None))})
    found = found_of(url, series)
    span = f"+{number(low, 4)} to +{number(0.1 - low, 4)}"
    assert site_verdict(found["sites"]["near"], AUC)[0] == code
    assert f"gain +0.0500 (95 % CI, widened for 4 sites: {span})" in site_verdict(found["sites"]["near"], AUC)[1]
    headers, rows, _ = comparison_rows(found)
    assert headers[-2].endswith("95 % CI, widened for 4 sites")
    (line,) = [row for row in rows if row[0] == "near"]
    assert line[-2:] == [f"+0.0500 ({span}), shared", describe_verdict(code, AUC)]
    plotted = forest_plot(found, AUC, list(found["sites"]))
    assert plotted is not None and f">+0.0500 ({span})<" in picture(plotted, 900)
    drawn = json.dumps(plotted.to_dict())
    assert f"+0.0500 ({span})" in drawn and "gain (95 % CI, widened)" in drawn
    # A verdict longer than its column takes two lines.
    line = replace(forest_lines(found, AUC, ["near"])[0], rows=1200)
    row = _forest_row(line, "joining improves mean absolute error", 0)
    assert (row["conclusion"], row["rows"]) == ("joining improves mean¶absolute error", "1,200")
    # Nowhere stands the interval of one site looked at alone, which is in the JSON.
    plain = number(near[1], 3)
    assert number(found["sites"]["near"]["difference"][AUC]["low"], 3) == plain
    for text in (document(series, store=url), drawn, "\n".join(story(found))):
        assert f"+{plain} to" not in text


@pytest.mark.parametrize(("comparisons", "freedom"), [(1, None), (8, None), (200, None), (1, 2), (8, 2), (8, 9)])
def test_widening_is_the_quantile_of_bonferronis_level_over_that_of_one_interval(comparisons, freedom):
    law = stats.norm if freedom is None else stats.t(freedom)
    expected = law.ppf(1 - 0.025 / comparisons) / law.ppf(0.975)
    assert widening(comparisons, freedom) == pytest.approx(expected, rel=1e-6)


def test_a_shared_model_that_is_clearly_worse_is_told_of_whatever_adjusting_it_does():
    # demo, northeast-lender: 0.586 shared, 0.489 own, adjusted 0.003 better
    shared, figures = Difference(0.096, 0.066, 0.126), {"global": 0.585, "local-only": 0.489, "personalised": 0.486}
    for adjusted, code in (((-0.003, -0.02, 0.014), NO_CLEAR_GAIN), ((-0.05, -0.07, -0.03), PAYS)):
        found, sentence = verdict(shared, Difference(*adjusted), "lower", metric=CALIBRATION, figures=figures)
        assert found == code
        assert sentence.endswith(
            f"; without adjustment the shared model is clearly worse here ({MINUS}0.096, 95 % CI "
            f"{MINUS}0.126 to {MINUS}0.066): do not use it so."
        )
    unclear = Difference(0.096, -0.01, 0.2)
    assert "worse" not in verdict(unclear, Difference(-0.05, -0.07, -0.03), "lower", metric=CALIBRATION)[1]


BOUNDS = st.tuples(st.floats(-0.5, 0.5), st.floats(0.001, 0.4), st.floats(0.001, 0.4))


@given(st.sampled_from([AUC, LOSS]), st.one_of(st.none(), BOUNDS), st.one_of(st.none(), BOUNDS))
def test_the_sentence_and_the_gain_are_of_one_model_and_of_one_sign(metric, shared, adjusted):
    entries = [
        {metric: {"value": v, "low": v - below, "high": v + above}} if gap else {}
        for gap in (shared, adjusted)
        for v, below, above in [gap or (0.0, 0.0, 0.0)]
    ]
    site = dict.fromkeys(("global", "local-only", "personalised"), {}) | {"holdout-classes": None}
    site |= dict(zip(("difference", "difference-personalised"), entries, strict=True))
    code, sentence = site_verdict(site, metric)
    best = best_arm(site, metric)
    if best is None:
        assert code == INCONCLUSIVE
        return
    arm, gain = best
    assert best_gain(site, metric) == gain
    own = r"(?:\S+ alone|the site's own one)"
    told = re.search(rf" with the (.*?) against {own}: gain (\S+) \(95 % CI (\S+) to ([^)]+)\)", sentence)
    assert told is not None and told[1] == ARM_NAMES[arm]
    for text, value in zip(told.groups()[1:], (gain.value, gain.low, gain.high), strict=True):
        digits = len(text.partition(".")[2])
        assert float(text.replace(MINUS, "-")) == pytest.approx(value, abs=0.5001 * 10**-digits)
    size = [abs(gain.value - entry[metric]["value"] * (1 if better_of(metric) == "higher" else -1)) for entry in
            entries if entry]  # fmt: skip
    assert min(size) < 1e-12
    least = 0.005 if metric == AUC else 0.0
    assert (code == PAYS) == (gain.low > least)
    assert (code == DO_NOT_USE) == (gain.high < -least)
    assert ("too small to matter" in sentence) == (code == NO_CLEAR_GAIN and (gain.low > 0 or gain.high < 0))


@pytest.mark.parametrize(("low", "digits"), [(0.02, 3), (0.004, 3), (-0.0004, 4), (0.0, 3), (1e-9, 3)])
def test_a_bound_that_is_not_zero_does_not_read_as_zero(low, digits):
    assert decimals_for(Difference(0.1, low, 0.2)) == digits
    shown = number(low, digits, signed=True)
    assert (float(shown.replace(MINUS, "-")) == 0) == (abs(low) < 1e-6)


def test_the_interval_of_repeats_stays_within_what_the_metric_can_be(store, url):
    # heart-disease, switzerland: -0.09 (-1.58 to +1.41); 38 test rows of 127
    wild, some, tame = [0.25, -0.9, 0.4], [0.1, 0.5, 0.3], [0.02, 0.01, 0.03]
    sites: dict[str, tuple[Gain, Gain]] = {"some": (None, None), "tame": (None, None), "wild": (None, None)}
    values = {"wild": wild, "some": some, "tame": tame}
    found = found_of(url, recorded(store, sites, repeats=3, values=values))
    for site, told in values.items():
        mean, low, high, _ = resplit_interval(told, 38 / 89)
        entry = found["sites"][site]["difference"][AUC]
        assert entry["value"] == pytest.approx(mean, abs=1e-12)
        assert (low < -1, high > 1) == {"wild": (True, True), "some": (False, True), "tame": (False, False)}[site]
        if site == "wild":
            assert (entry["low"], entry["high"]) == (None, None)
            continue
        assert (entry["low"], entry["high"]) == (pytest.approx(low, abs=1e-12), pytest.approx(min(high, 1), abs=1e-12))
    code, sentence = site_verdict(found["sites"]["wild"], AUC)
    assert code == INCONCLUSIVE
    assert sentence == "AUC cannot be compared here: the repeats leave all that is possible open."
    assert stands_out(found, AUC) is None


def test_a_loss_has_no_greatest_difference(store, url):
    series = recorded(store, {"a": (None, None)}, metric=LOSS, repeats=3, values={"a": [0.25, -0.9, 0.4]})
    entry = found_of(url, series)["sites"]["a"]["difference"][LOSS]
    assert entry["low"] < -1 and entry["high"] > 1


def test_models_are_not_told_apart_where_one_class_has_too_few_rows(store, url):
    gap = (0.4, 0.1, 0.7)
    classes = {"rare": (2, 36), "least": (10, 28), "sick": (30, 1)}
    found = found_of(url, recorded(store, dict.fromkeys((*classes, "unknown"), (gap, gap)), classes=classes))
    sites = found["sites"]
    assert {site: of["holdout-classes"] for site, of in sites.items()} == {
        "rare": {"0": 2, "1": 36}, "least": {"0": 10, "1": 28}, "sick": {"0": 30, "1": 1}, "unknown": None,
    }  # fmt: skip
    codes = {site: of["verdict"] for site, of in sites.items()}
    assert codes == {"rare": INCONCLUSIVE, "sick": INCONCLUSIVE, "least": PAYS, "unknown": PAYS}
    needed = f"at least {LEAST_OF_A_CLASS} with it and {LEAST_OF_A_CLASS} without are needed"
    said = {site: site_verdict(of, AUC)[1] for site, of in sites.items()}
    start = "AUC cannot be compared here: "
    assert said["rare"] == f"{start}2 of the 38 test rows do not have the outcome; {needed}."
    assert said["sick"] == f"{start}1 of the 31 test rows has the outcome; {needed}."
    assert (best_gain(sites["rare"], AUC), gain_in_words(sites["rare"], AUC)) == (None, "n/a")
    assert gain_in_words(sites["least"], AUC) == "+0.400 (+0.018 to +0.782), shared"
    assert found["mean-gain"][AUC]["sites"] == 2
    rare = "Inconclusive at rare: 2 of the 38 test rows do not have the outcome"
    (why,) = [line for line in comparison_rows(found, AUC)[2] if line.startswith("Inconclusive ")]
    assert why == f"{rare}; {needed}. The same holds at 1 more."
    whole = {**found, "sites": {"least": sites["least"]}}
    assert untold_in_words(whole, AUC) == []


def test_the_counts_of_repeats_are_averaged(store, url):
    series = recorded(store, {"a": (None, None)}, classes={"a": (20, 18)}, repeats=2, values={"a": [0.1, 0.2]})
    assert found_of(url, series)["sites"]["a"]["holdout-classes"] == {"0": 20, "1": 18}


def test_the_metrics_of_a_report_without_sums_are_those_of_its_sites(store, url):
    found = found_of(url, recorded(store, {"a": ((0.1, 0.0, 0.2), None)}))
    assert metrics_of(found) == metrics_of(found | {"global": {}}) == [AUC]
    assert metrics_of(found | {"global": {}, "sites": {}}) == []


def test_a_mean_of_the_sites_says_over_how_many_it_is(store, url):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=1, primary=AUC, task="binary")
    mean = "mean of 3 sites; 1 without this figure left out"
    run.comparison([ComparisonRow(None, "sites-mean", AUC, 0.857, method=mean),
                    ComparisonRow(None, "global", AUC, 0.9, method="merged score histograms")], [])  # fmt: skip
    found = found_of(url, series)
    assert found["sites-mean"][AUC]["method"] == mean
    assert over_sites(figure_of(found["sites-mean"], AUC)) == f" ({mean})"
    assert "The shared model reaches AUC 0.900 (no interval: merged score histograms), on" in story(found)[0]
