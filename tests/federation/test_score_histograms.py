"""What a run writes down of score histograms: the figures of the rows, and nothing of a site that shares none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from flfed import run
from flfed.federation.recording.pooled_figures import CENTRE_STEPS, auc_interval, score_bins, score_histograms
from flfed.federation.recording.recorder import from_replies
from flfed.records.reports.narrative import bound_of, under
from flfed.records.reports.report import report
from flfed.records.statistics.score_curves import (
    ScoreCounts,
    average_precision,
    average_precision_hidden,
    roc_auc,
    roc_auc_hidden,
)
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.evaluation.intervals import compare
from flfed.rows.evaluation.scoring import histogram
from flfed.rows.metrics.roc_auc_score import RocAucScore
from flfed.summaries.score_bins import EVEN_ODDS, LEAST_SPREAD, ScoreBins, auc_between, bound_in
from flfed.updates.messages.compare import CompareReply, Figure
from flfed.updates.messages.train import Scores

SITES = ("a", "b", "c", "d")


def reply(seed: int, *, given: bool = True) -> CompareReply:
    """The reply of a site whose holdout has `40 + seed` rows."""
    rng = np.random.default_rng(seed)
    y = (rng.random(40 + seed) < 0.4).astype(int)
    counts = histogram(y, 1 / (1 + np.exp(-(rng.normal(size=len(y)) + y)))) if given else None
    auc = Figure(metric="roc_auc_score", arm="global", value=0.7, low=0.6, high=0.8, extra=0.01, method="DeLong")
    return CompareReply(num_examples=100, holdout_rows=len(y), arms=(auc,), differences=(), histogram=counts)


def dense(counts) -> np.ndarray:
    """The histogram that a record has, as the site sent it."""
    found = np.zeros((2, 256))
    for label, pairs in counts.items():
        for place, rows in pairs:
            found[int(label), place] = rows
    return found


@pytest.mark.studies
def test_the_areas_at_real_sites_are_those_of_their_rows():
    result = run("breast-cancer")
    with RunReader.open() as reader:
        payload = reader.summary(result.report["run"], "score-histograms")
    read = {"all": payload["all"], **payload["sites"]}
    assert (payload["combined-sites"], payload["requested-sites"], len(payload["sites"])) == (4, 4, 4)
    assert payload["rows"] == "holdout"
    for name, counts in read.items():
        found = ScoreCounts.read(counts, ScoreBins.of(payload))
        exact = result.report["global"] if name == "all" else result.report["sites"][name]["global"]
        assert roc_auc(found) == pytest.approx(exact["roc_auc_score"]["value"], abs=0.005)
        assert abs(roc_auc(found) - exact["roc_auc_score"]["value"]) <= roc_auc_hidden(found) + 1e-12
        off = abs(average_precision(found) - exact["average_precision_score"]["value"])
        assert off <= average_precision_hidden(found) + 1e-12
        rows = [site["holdout-rows"] for site in result.report["sites"].values()]
        assert found.rows == (sum(rows) if name == "all" else result.report["sites"][name]["holdout-rows"])


def test_the_sum_has_the_area_that_is_recorded_where_sites_are_apart():
    replies = {site: reply(place) for place, site in enumerate(SITES)}
    payload = score_histograms(replies)
    np.testing.assert_array_equal(dense(payload["all"]), sum(r.histogram for r in replies.values()))
    found = ScoreCounts.read(payload["all"], ScoreBins.of(payload))
    merged = next(row for row in from_replies(replies) if row.metric == "roc_auc_score")
    assert merged.method == "merged score histograms"
    assert roc_auc(found) == pytest.approx(merged.value, abs=1e-12)


@pytest.mark.parametrize("lift", [0.0, 1.0, 30.0])
def test_the_interval_over_all_sites_is_that_of_the_rows_of_all_sites(lift):
    # The same rows, each in the place of its bin; far apart, where DeLong has no variance, it is Hanley and McNeil's.
    replies, y, score = {}, [], []
    for place, site in enumerate(SITES):
        rng = np.random.default_rng(place)
        label = (rng.random(40 + place) < 0.4).astype(int)
        guess = 1 / (1 + np.exp(-(rng.normal(size=len(label)) + lift * (label - 0.5))))
        counts = histogram(label, guess)
        replies[site] = replace(reply(place), histogram=counts)
        for cls in (0, 1):
            score += [float(b) for b in np.flatnonzero(counts[cls]) for _ in range(int(counts[cls][b]))]
            y += [cls] * int(counts[cls].sum())
    (union,) = from_replies(replies)
    metrics = {"roc_auc_score": RocAucScore()}
    exact, _ = compare(metrics, np.array(y), {"a": np.array(score)}, (), np.random.default_rng(0))
    expected = exact["roc_auc_score"]["a"]
    assert expected.method == ("Hanley-McNeil" if lift == 30.0 else "DeLong")
    assert (union.value, union.low, union.high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-9
    )


def test_there_is_no_interval_where_rows_go_together_or_a_class_has_none():
    grouped = replace(reply(1).arms[0], method="bootstrap over groups")
    replies = {"a": reply(0), "b": replace(reply(1), arms=(grouped,))}
    (union,) = from_replies(replies)
    assert (union.low, union.high) == (None, None) and 0 < union.value < 1
    assert union.method == "merged score histograms, which do not tell which rows are of one person"
    assert auc_interval(np.array([[3.0, 2.0], [0.0, 0.0]])) == (None, None)


SHAPES = {
    # share of events, rows, gap of their log-odds, spread of the log-odds, middle of them
    "rarest, close": (0.0005, 400_000, 0.05, 0.05, -7.6),
    "rare, close": (0.002, 100_000, 0.1, 0.1, -6.2),
    "rare, apart": (0.008, 50_000, 3.0, 1.5, -5.0),
    "some": (0.05, 20_000, 1.0, 1.0, -3.0),
    "many, close": (0.2, 10_000, 0.05, 0.02, -1.4),
    "even": (0.5, 4_000, 1.0, 1.0, 0.0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_auc_of_the_rows_lies_within_the_bound_that_is_shown(shape):
    share, rows, gap, spread, middle = SHAPES[shape]
    rng = np.random.default_rng(len(shape))
    y = (rng.random(rows) < share).astype(int)
    score = 1 / (1 + np.exp(-(middle + gap * y + rng.normal(0, spread, rows))))
    counts = histogram(y, score)
    exact, (merged, low, high) = roc_auc_score(y, score), auc_between(counts)
    assert low - 1e-12 <= exact <= high + 1e-12
    replies = {"a": replace(reply(1), histogram=counts, holdout_rows=rows)}
    with RunStore.open() as store:
        series = store.begin_series(study="s", study_sha256="", study_text="")
        run = store.begin_run(
            series, engine="e", path="p", seed=1, rounds_planned=1, primary="roc_auc_score", task="binary"
        )
        run.summary("score-histograms", score_histograms(replies))
        run.comparison(from_replies(replies), [])
        run.finish(status="completed")
    with RunReader.open() as reader:
        entry = report(reader, series)["global"]["roc_auc_score"]
    assert entry["bound"] == pytest.approx(max(high - merged, merged - low), abs=1e-12)
    assert abs(exact - entry["value"]) <= entry["bound"] + 1e-12
    assert entry["bound"] <= 0.5
    assert (entry["bound"] > 0.02) == ("close" in shape)  # where a point by round is drawn as a range
    assert f"within {bound_of(entry)}, as scores" in under(entry, 1)[-1]


@pytest.mark.parametrize("spread", [0.002, 0.01, 0.03])
def test_the_bound_holds_where_a_model_gives_a_strong_input_a_small_weight(spread):
    # Two flags spread the predictions over the bins; within a bin they are ordered by an amount of slope 1.
    for seed in range(10):
        rng = np.random.default_rng(seed)
        flags, amount = rng.integers(0, 2, (2, 4_000)) - 0.5, rng.normal(size=4_000)
        y = (rng.random(4_000) < 1 / (1 + np.exp(-(flags.sum(axis=0) + amount)))).astype(int)
        score = 1 / (1 + np.exp(-(flags.sum(axis=0) + 0.1 + spread * amount)))
        exact, (_, low, high) = roc_auc_score(y, score), auc_between(histogram(y, score))
        assert low <= exact <= high


BAR, SHIPPED = 0.005, 0.003
LARGEST = pytest.param("loan-default", marks=pytest.mark.proof)


@pytest.mark.studies
@pytest.mark.parametrize("name", ["breast-cancer", LARGEST, "preterm-birth", "heart-disease"])
def test_the_bound_on_shipped_studies_is_at_most_half_a_percent_and_holds(name, request):
    if name == "heart-disease":
        request.getfixturevalue("heart")
    result = run(name)
    with RunReader.open() as reader:
        payload = reader.summary(result.report["run"], "score-histograms")
    found = ScoreCounts.read(payload["all"], ScoreBins.of(payload))
    off = abs(roc_auc(found) - result.report["global"]["roc_auc_score"]["value"])
    assert off <= bound_in(payload) <= SHIPPED
    assert bound_in(payload) == pytest.approx(roc_auc_hidden(found), abs=1e-12)


def scored(rows: int, *, middle: float, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and predicted probabilities of rows of one site."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.1).astype(int)
    return y, 1 / (1 + np.exp(-(middle + gap * y + rng.normal(0, gap, rows))))


def last_round(middle: float, gap: float, sites: int = 4) -> dict[str, Scores]:
    """Return what sites sent with the last round."""
    parts = {f"s{place}": scored(2_000, middle=middle, gap=gap, seed=place) for place in range(sites)}
    return {
        site: Scores(rows="validation", num_examples=len(y), metrics={}, histogram=histogram(y, score))
        for site, (y, score) in parts.items()
    }


@pytest.mark.parametrize(("middle", "gap"), [(-7.0, 0.4), (-3.0, 0.3), (0.0, 0.3), (4.0, 0.6)])
def test_where_predictions_are_close_the_bins_lie_about_them(middle, gap):
    bins = score_bins(last_round(middle, gap))
    assert bins.centre == pytest.approx(middle + gap / 2, abs=bins.spread / CENTRE_STEPS + 0.05)
    assert LEAST_SPREAD <= bins.spread <= 2 * gap
    y, score = scored(40_000, middle=middle, gap=gap, seed=9)
    counts = histogram(y, score, bins)
    merged, low, high = auc_between(counts)
    assert low <= roc_auc_score(y, score) <= high and high - merged <= BAR
    assert auc_between(histogram(y, score))[2] - merged > BAR
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(y))
    # What is written down tells where each row's prediction lay, and the curves are drawn from it.
    replies = {site: replace(reply(place), histogram=counts) for place, site in enumerate("ab")}
    payload = score_histograms(replies, bins)
    found = ScoreCounts.read(payload["sites"]["a"], ScoreBins.of(json.loads(json.dumps(payload))))
    places = bins.places(np.log(score / (1 - score)))
    edges = np.unique(places, return_inverse=True)[1]
    assert (found.low[edges] <= score + 1e-12).all() and (score - 1e-12 <= found.high[edges]).all()
    assert (payload["limit"], payload["bins"]) == (12.0, 256)


def test_bins_lie_about_even_odds_where_that_is_fine_or_a_site_could_tell_anothers_predictions():
    close = last_round(-3.0, 0.3)
    assert score_bins(close) != EVEN_ODDS
    assert score_bins(last_round(-1.0, 2.0)) == EVEN_ODDS  # predictions far apart
    assert score_bins(last_round(-3.0, 0.3, sites=2)) == EVEN_ODDS
    assert score_bins({}) == EVEN_ODDS
    # A few rows far away would make the bins wider than they are where most rows lie.
    far = {site: replace(one, histogram=one.histogram.copy()) for site, one in last_round(0.0, 0.2).items()}
    assert score_bins(far) != EVEN_ODDS
    for one in far.values():
        one.histogram[:, 0] += one.histogram.sum(axis=1) // 9
    assert score_bins(far) == EVEN_ODDS
    none = {
        site: replace(one, histogram=np.vstack([one.histogram.sum(axis=0), np.zeros(256)]))
        for site, one in close.items()
    }
    assert score_bins(none) == EVEN_ODDS


@pytest.mark.parametrize("bins", [EVEN_ODDS, ScoreBins(-3.0, 0.5), ScoreBins(2.0, 0.25), ScoreBins(0.0, 40.0)])
def test_every_prediction_is_in_the_bin_between_whose_ends_it_lies(bins):
    odds = np.concatenate([np.linspace(-15, 15, 3_001), [-1e9, 1e9, -np.inf, np.inf]])
    points, places = bins.points(), bins.places(odds)
    assert np.isinf(points[[0, -1]]).all() and (np.diff(points) > 0).all() and len(points) == 513
    assert (points[2 * places] <= odds + 1e-9).all() and (odds - 1e-9 <= points[2 * places + 2]).all()
    assert bins.places(np.array([np.nan])).tolist() == [0]
    middle = slice(100, 157)
    np.testing.assert_allclose(bins.widths(points[1::2][middle]), np.diff(points[::2])[middle], rtol=0.01)
