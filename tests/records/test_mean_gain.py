"""What joining gains on average over sites: against statsmodels, by simulation, and as a report has it."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from flfed.records.reports.narrative import describe_mean_beside_sites, headline, stands_out, story, verdict_in_words
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import describe_spread, mean_gain, mean_gain_in_words
from flfed.records.statistics.intervals import (
    NORMAL_95,
    chi_squared_beyond,
    mean_over_sites,
    standard_error,
    student_t_bound,
    variance_between,
)
from flfed.records.statistics.verdict import LEAST_SITES, UNLIKE
from flfed.records.store.entries import ComparisonRow, DifferenceRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.words import render

AUC, LOSS = "roc_auc_score", "log_loss"


@pytest.mark.parametrize("sites", [2, 3, 4, 10, 100])
@pytest.mark.parametrize("between", [0.0, 0.05, 1.0])
def test_the_mean_over_sites_is_that_of_statsmodels(sites, between):
    rng = np.random.default_rng([sites, int(between * 100)])
    errors = rng.uniform(0.01, 0.2, sites)
    values = rng.normal(0.03, np.sqrt(errors**2 + between**2))
    found = mean_over_sites(list(values), list(errors))
    theirs = combine_effects(values, errors**2, method_re="iterated", use_t=True)
    # Theirs stops where the steps are below 1e-5; what the variance solves is Q = sites - 1, and ours does.
    assert found.value == pytest.approx(theirs.mean_effect_re, abs=1e-4)
    assert found.between**2 == pytest.approx(theirs.tau2, rel=1e-3, abs=1e-6)
    apart = ((values - found.value) ** 2 / (errors**2 + found.between**2)).sum()
    assert apart == pytest.approx(sites - 1, rel=1e-9) if found.between else apart <= sites - 1
    # Their Hartung-Knapp error has the factor `scale_hksj_re`, below 1 where sites agree by chance: ours is left at 1.
    assert theirs.scale_hksj_re < 1 + 1e-3
    error = theirs.sd_eff_w_re_hksj / math.sqrt(theirs.scale_hksj_re)
    assert found.high - found.value == pytest.approx(student_t_bound(sites - 1) * error, rel=1e-3)
    assert found.value - found.low == pytest.approx(found.high - found.value, rel=1e-9)


@pytest.mark.parametrize("sites", [1, 3, 50])
@pytest.mark.parametrize("between", [0.0, 0.3, 1.5])
def test_about_a_known_mean_the_variance_makes_the_weighted_squares_as_many_as_the_sites(sites, between):
    rng = np.random.default_rng([sites, int(between * 100)])
    errors = rng.uniform(0.1, 0.6, sites)
    values = rng.normal(0.2, np.sqrt(errors**2 + between**2))

    def left(variance):
        return float((values**2 / (errors**2 + variance)).sum() - sites)

    wanted = optimize.brentq(left, 0, 100, xtol=1e-14) if left(0) > 0 else 0.0
    assert variance_between(list(values), list(errors), mean=0.0) == pytest.approx(wanted, rel=1e-8, abs=1e-12)
    if sites > 1:  # about the mean of the values it is that of statsmodels, as above
        theirs = combine_effects(values, errors**2, method_re="iterated")
        assert variance_between(list(values), list(errors)) == pytest.approx(theirs.tau2, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("errors", "least"), [((0.013, 0.027, 0.018, 0.027), 0.95), ((0.01, 0.02, 0.03, 0.05, 0.10), 0.90)]
)
def test_the_interval_holds_for_few_sites_of_unequal_precision_and_a_plain_weighted_one_does_not(errors, least):
    rng, errors = np.random.default_rng(7), np.array(errors)
    held = plain = 0
    for values in rng.normal(0.02, np.sqrt(errors**2 + 0.03**2), (2000, len(errors))):
        found = mean_over_sites(list(values), list(errors))
        held += found.low <= 0.02 <= found.high
        weights = 1 / errors**2
        mean, reach = weights @ values / weights.sum(), NORMAL_95 / math.sqrt(weights.sum())
        plain += abs(mean - 0.02) <= reach
    assert held / 2000 >= least  # one of the second's errors is ten times another: as the docstring says
    assert plain / 2000 < 0.75


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 99, 998])
def test_chi_squared_is_that_of_scipy(freedom):
    for x in (0.0, 0.01, freedom / 2, float(freedom), 2.0 * freedom, 2000.0):
        assert chi_squared_beyond(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-9, abs=1e-300)


def test_sites_that_do_not_differ_are_said_to_in_one_study_of_twenty():
    rng = np.random.default_rng(3)
    found = [
        mean_over_sites(list(rng.normal(0, errors)), list(errors)) for errors in rng.uniform(0.02, 0.06, (2000, 4))
    ]
    assert 0.04 <= np.mean([mean.alike < UNLIKE for mean in found]) <= 0.06
    assert np.mean([mean.between > 0.0005 for mean in found]) > 0.3  # a variance above 0 is no proof


def test_repeats_that_drew_their_holdouts_have_the_error_of_their_mean():
    # Two splits of one table correlate by ratio / (1 + ratio): of 4 with 0.5, 1/3 + 2/3 / 4 = 0.5 of one's variance.
    row = DifferenceRow("a", "global", "local-only", AUC, *span(0.05, 0.04))
    sites = {site: [(row, 0.5)] * 4 for site in "abcd"}
    found, one = mean_gain(sites, AUC, 4), mean_gain({site: pairs[:1] for site, pairs in sites.items()}, AUC, 4)
    assert (found["value"], one["value"]) == pytest.approx((0.05, 0.05))
    assert found["high"] - 0.05 == pytest.approx(math.sqrt(0.5) * (one["high"] - 0.05), rel=1e-9)
    held = mean_gain({site: [(row, None)] * 4 for site in "abcd"}, AUC, 4)  # the same holdout four times
    assert held["high"] == pytest.approx(one["high"], rel=1e-9)


def test_a_repeat_whose_models_rank_alike_does_not_take_its_site_out():
    alike = DifferenceRow("a", "global", "local-only", AUC, 0.0, 0.0, 0.0)
    row = DifferenceRow("a", "global", "local-only", AUC, *span(0.06, 0.04))
    found = mean_gain({site: [(row, None), (row, None), (alike, None)] for site in "abc"}, AUC, 3)
    assert (found["sites"], found["value"]) == (3, pytest.approx(0.04))


def test_repeats_that_say_the_same_but_for_rounding_are_no_certainty(store, url):
    same = [0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6]
    assert len(set(same)) == 2 and max(same) - min(same) < 1e-15
    gains = {"a": [(value, value - 0.15, value + 0.15) for value in same]}
    found = found_of(url, compared(store, gains, resplit=True))
    entry = found["sites"]["a"]["difference"][AUC]
    assert (entry["low"], entry["high"]) == pytest.approx((-0.05, 0.25))


def test_the_mean_s_interval_ends_where_the_metric_does():
    rows = {site: [(DifferenceRow(site, "global", "local-only", AUC, *span(value, 0.1)), None)]
            for site, value in (("a", 0.5), ("b", 0.0), ("c", -0.5))}  # fmt: skip
    found = mean_gain(rows, AUC, 3)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.0, -1.0, 1.0))


def compared(
    store: RunStore,
    gains: dict[str, Sequence[tuple[float, float, float] | None]],
    metric: str = AUC,
    *,
    resplit: bool = False,
) -> str:
    """A series with one repeat for each of a site's gains (value, low, high)."""
    repeats = max(map(len, gains.values()))
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=repeats)
    for repeat in range(repeats):
        run = store.begin_run(
            series, repeat=repeat, engine="e", path="p", seed=1, rounds_planned=2, primary=metric, task="binary"
        )
        rows, figures = [], [ComparisonRow(None, "global", metric, 0.8)]
        for site, of_site in gains.items():
            run.sites([SiteRow(site, rows=300, holdout_rows=100, resplit=resplit)])
            told = of_site[repeat]
            figures.append(ComparisonRow(site, "global", metric, 0.8))
            rows.append(DifferenceRow(site, "global", "local-only", metric, *(told or (None, None, None))))
        run.comparison(figures, rows)
        run.finish(status="completed")
    return series


def found_of(url: str, series: str):
    with RunReader.open(url) as reader:
        return report(reader, series)


def span(value: float, error: float) -> tuple[float, float, float]:
    return value, value - NORMAL_95 * error, value + NORMAL_95 * error


def test_a_report_has_the_mean_of_those_sites_whose_interval_tells_an_error(store, url):
    gains = {"a": (0.02, 0.01), "b": (0.05, 0.02), "c": (-0.01, 0.04), "d": (0.9, 0.3)}
    given = {site: [span(*gain)] for site, gain in gains.items()}
    given["d"] = [(0.9, 0.9 - NORMAL_95 * 0.3, 1.0)]  # cut on one side: the other tells the error
    given |= {"cut": [(-0.1, -1.0, 1.0)], "none": [None], "alike": [(0.0, 0.0, 0.0)], "bare": [(0.1, None, None)]}
    entry = found_of(url, compared(store, given))["mean-gain"][AUC]
    values, errors = zip(*gains.values(), strict=True)
    theirs = combine_effects(np.array(values), np.array(errors) ** 2, method_re="iterated", use_t=True)
    method = render("report.mean.method")
    assert (entry["sites"], entry["of"], entry["arm"], entry["method"]) == (4, 8, "global", method)
    assert entry["value"] == pytest.approx(theirs.mean_effect_re, abs=1e-6)
    assert entry["between-sites-sd"] == pytest.approx(math.sqrt(theirs.tau2), abs=1e-6)
    assert entry["low"] < entry["value"] < entry["high"]
    assert "over 4 of 8 sites" in mean_gain_in_words(entry, AUC)


def test_where_lower_is_better_a_gain_is_above_zero_and_repeats_are_averaged(store, url):
    # Two repeats: gains 0.1, 0.2, 0.3 on average, and errors 0.02 on average, of unequal widths.
    given = {
        site: [span(-value - 0.01, 0.01), span(-value + 0.01, 0.03)]
        for site, value in (("a", 0.1), ("b", 0.2), ("c", 0.3))
    }
    entry = found_of(url, compared(store, given, LOSS))["mean-gain"][LOSS]
    expected = mean_over_sites([0.1, 0.2, 0.3], [0.02, 0.02, 0.02])
    assert entry["value"] == pytest.approx(0.2, abs=1e-9)
    # Three equal errors: the interval is that of three numbers, 4.3027 * sd / sqrt(3) with sd 0.1.
    assert entry["high"] - 0.2 == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert entry["between-sites-sd"] == pytest.approx(math.sqrt(0.1**2 - 0.02**2), abs=1e-9) == expected.between


def test_a_mean_of_too_few_sites_is_null_with_a_reason_and_no_sentence(store, url):
    found = found_of(url, compared(store, {"a": [span(0.2, 0.01)], "b": [span(0.3, 0.01)], "c": [None]}))
    entry = found["mean-gain"][AUC]
    assert [entry[key] for key in ("value", "low", "high", "between-sites-sd")] == [None] * 4
    assert (
        entry["reason"] == f"only 2 of 3 sites have figures from which an error follows, and {LEAST_SITES} are needed"
    )
    assert (mean_gain_in_words(entry, AUC), describe_spread(entry)) == ("", "")
    assert headline(found, AUC) == ["Joining improves AUC at 2 of 3 sites (a, b); inconclusive at 1 (c)."]


def test_of_a_hundred_sites_alike_the_common_gain_is_told_and_the_luckiest_is_not_named(store, url):
    rng = np.random.default_rng(0)
    gains = {f"s{place:03d}": [span(value, 0.034)] for place, value in enumerate(rng.normal(0.024, 0.034, 100))}
    found = found_of(url, compared(store, gains))
    entry = found["mean-gain"][AUC]
    assert (entry["low"], entry["high"]) == pytest.approx(
        (entry["value"] - 0.00675, entry["value"] + 0.00675), abs=1e-4
    )
    assert not any(of["verdict"] == "joining pays" for of in found["sites"].values())
    lucky = [site for site, of in found["sites"].items() if of["difference"][AUC]["low"] > 0]
    assert len(lucky) >= 5 and stands_out(found, AUC) is None
    said = story(found)
    assert headline(found, AUC) == [line for line in said if line in headline(found, AUC)]
    assert headline(found, AUC)[0].startswith(
        "On average over 100 sites, the shared model before adjustment against each site's own: gain +0.0"
    )
    assert headline(found, AUC)[0].endswith("for sites like these that train it together), which is clear.")
    # "Joining improves AUC at 0 of 100 sites" would read as the contrary.
    assert headline(found, AUC)[1] == "No clear improvement at 100 of 100 sites."
    # Why the mean is clear where no site's gain is stands behind both, once.
    narrower = (
        "The mean rests on the test rows of 100 sites. A site's interval rests on its own rows alone, and is widened "
        "for 100 sites."
    )
    assert headline(found, AUC)[-1] == narrower == verdict_in_words(found)[-1] and said.count(narrower) == 1
    assert not any(site in line for site in lucky for line in said)
    assert "The gains before adjustment of these 100 sites differ no more than chance explains." in said


@pytest.mark.parametrize(
    ("values", "error", "start"),
    [
        ((0.2, 0.0, -0.1, 0.1), 0.02, "A gain or loss is clear at a site but not on average:"),
        ((-0.2, 0.0, 0.02, 0.1), 0.06, "A gain or loss is clear at a site but not on average:"),
        ((0.2, 0.21, 0.19, 0.2), 0.02, ""),
        ((0.02, 0.021, 0.019, 0.02), 0.05, ""),
        ((0.08, 0.081, 0.079, 0.08), 0.04, "The mean rests on the test rows of 4 sites. A site's interval"),
    ],
)
def test_where_mean_and_sites_disagree_a_sentence_says_why(store, url, values, error, start):
    gains = {site: [span(value, error)] for site, value in zip("abcd", values, strict=True)}
    found = found_of(url, compared(store, gains))
    mean = found["mean-gain"][AUC]
    is_clear = not mean["low"] <= 0 <= mean["high"]
    at_sites = {of["verdict"] for of in found["sites"].values()} & {"joining pays", "do not use it here"}
    assert (is_clear != bool(at_sites)) == bool(start)
    sentence = describe_mean_beside_sites(found, AUC)
    assert sentence.startswith(start) and bool(sentence) == bool(start)
    assert verdict_in_words(found).count(sentence) == bool(start)


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [(0.01, 0.03, "which is clear."), (-0.03, -0.01, "a clear loss."), (-0.01, 0.03, "chance.")],
)
def test_what_the_mean_says_follows_from_its_interval(low, high, ends):
    entry = {"value": (low + high) / 2, "low": low, "high": high, "sites": 5, "of": 5}
    entry |= {"between-sites-sd": 0.02, "between-sites-p": 0.01}
    assert mean_gain_in_words(entry, AUC).endswith(ends)
    differ = "The sites' gains before adjustment differ by more than chance explains: by about 0.020 (SD)."
    assert describe_spread(entry) == differ
    not_seen = "The gains before adjustment of these 5 sites differ no more than chance explains."
    assert describe_spread(entry | {"between-sites-p": 0.06}) == not_seen
    small = describe_spread(entry | {"between-sites-sd": 0.0004})
    assert small == differ.replace("0.020", "0.0004")


def test_an_error_is_that_of_the_arm_that_was_not_cut():
    assert standard_error(AUC, 0.9, 0.9 - 0.6 * NORMAL_95 / 2, 1.0) == pytest.approx(0.3)
    assert standard_error("r2_score", 0.0, -1.0, 1.0) == pytest.approx(1 / NORMAL_95)  # nothing cuts it
    assert standard_error(AUC, None, 0.1, 0.2) is None


def coverage(sites: int, apart: float, cases: int, *, linked: float = 0.0) -> float:
    """How often the interval of a mean holds the true one: errors so far apart, that go with the gains so much."""
    rng, hits = np.random.default_rng(sites), 0
    for _ in range(cases):
        own = rng.normal(0, 0.04, sites)
        errors = np.geomspace(0.03 / math.sqrt(apart), 0.03 * math.sqrt(apart), sites) * np.exp(linked * own / 0.04)
        found = mean_over_sites(list(own + errors * rng.normal(size=sites)), list(errors))
        hits += found.low <= 0 <= found.high
    return hits / cases


def test_a_mean_holds_as_often_as_is_said_where_sites_are_known_about_equally_well():
    assert coverage(8, 1.0, 400) >= 0.92
    assert "94 to 100 of 100 cases" in render("report.mean.coverage")


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_mean_holds_as_often_as_is_said():
    alike = {sites: coverage(sites, 4.0, 4000) for sites in (3, 4, 8, 20)}
    unlike = {sites: coverage(sites, 10.0, 4000) for sites in (3, 4, 8)}
    linked = coverage(8, 1.0, 4000, linked=0.5)
    print(f"of 95 %: {alike}; a factor of ten apart: {unlike}; errors that go with gains: {linked}")
    assert all(share >= 0.935 for share in alike.values())
    assert all(share >= 0.86 for share in unlike.values())
    assert 0.79 <= linked <= 0.88
