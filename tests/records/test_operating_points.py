"""Confusion tables, net benefit and alert budgets, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from flfed.records.statistics.operating_points import (
    OperatingPoint,
    at_budget,
    at_threshold,
    edges,
    in_words,
    net_benefit_line,
    threshold_in_words,
)
from flfed.records.statistics.score_curves import ScoreCounts
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins
from tests.records.counted_rows import counted


@pytest.mark.studies
@pytest.mark.parametrize("bins", [EVEN_ODDS, ScoreBins(-1.0, 0.5)], ids=["even odds", "about -1"])
def test_at_each_edge_the_confusion_table_is_that_of_the_rows_themselves(scored, bins):
    y, score = scored
    counts = counted(y, score, bins)
    assert len(edges([counts])) == len(counts.low) + 1
    for threshold in edges([counts]):
        point = at_threshold(counts, threshold)
        flagged = score >= threshold
        tn, fp, fn, tp = confusion_matrix(y, flagged, labels=[0, 1]).ravel()
        assert (point.tp, point.fp, point.fn, point.tn) == (tp, fp, fn, tn)
        assert point.sensitivity == pytest.approx(recall_score(y, flagged))
        assert point.specificity == pytest.approx(recall_score(y, flagged, pos_label=0))
        assert point.alerts_per_1000 == pytest.approx(1000 * flagged.mean())
        if flagged.any():
            assert point.ppv == pytest.approx(precision_score(y, flagged))
        if not flagged.all():
            assert point.npv == pytest.approx(precision_score(y, flagged, pos_label=0))
        if threshold < 1:
            odds = threshold / (1 - threshold)
            by_hand = np.mean(flagged & (y == 1)) - np.mean(flagged & (y == 0)) * odds
            assert point.net_benefit == pytest.approx(by_hand)
            assert point.net_benefit_of_all == pytest.approx(y.mean() - (1 - y.mean()) * odds)


def test_net_benefit_and_shares_are_those_by_hand():
    # 200 rows, 40 with the outcome; at a threshold of 0.2 a false alarm costs a quarter of a right one:
    # 30 / 200 - 40 / 200 * 0.25 = 0.15 - 0.05 = 0.1, and of all rows 40 / 200 - 160 / 200 * 0.25 = 0.2 - 0.2 = 0.
    point = OperatingPoint(0.2, tp=30, fp=40, fn=10, tn=120)
    assert point.net_benefit == pytest.approx(0.1)
    assert point.net_benefit_of_all == pytest.approx(0.0)
    shares = (point.sensitivity, point.specificity, point.ppv, point.npv, point.alerts_per_1000)
    assert shares == pytest.approx((0.75, 0.75, 3 / 7, 12 / 13, 350))


def test_the_best_way_has_another_figure_than_the_others():
    # (261 - 1072 o) / 1382 and (264 - 1118 o) / 1382 with o = 0.0725 / 0.9275 are 0.0004 apart, and 0.128 both.
    line = net_benefit_line("all", OperatingPoint(0.0725, tp=261, fp=1072, fn=3, tn=46))
    assert line["Best"] == "the model"
    assert (line["The model"], line["Flagging everybody"]) == ("0.1282", "0.1278")


def test_what_is_undefined_has_no_figure():
    nobody = OperatingPoint(1.0, tp=0, fp=0, fn=4, tn=6)
    assert (nobody.ppv, nobody.net_benefit, nobody.sensitivity) == (None, None, 0.0)
    assert OperatingPoint(0.5, 0, 3, 0, 2).sensitivity is None
    assert OperatingPoint(0.5, 3, 0, 2, 0).specificity is None
    assert OperatingPoint(0.0, 3, 2, 0, 0).npv is None
    assert OperatingPoint(None, 3, 1, 2, 4).net_benefit is None  # counts at a budget: no probability goes with them
    assert OperatingPoint(0.5, 0, 0, 0, 0).alerts_per_1000 is None


def test_a_threshold_within_a_bin_that_has_rows_is_refused(scored):
    counts = counted(*scored)
    with pytest.raises(ValueError, match="within a bin that has rows"):
        at_threshold(counts, float(counts.probability[0]))


@pytest.mark.parametrize("budget", [0.001, 0.02, 0.1, 0.5, 0.99])
def test_an_alert_budget_flags_as_many_rows_as_it_allows(scored, budget):
    y, score = scored
    counts = counted(y, score)
    point = at_budget(counts, budget)
    allowed = [edge for edge in edges([counts]) if np.mean(score >= edge) <= budget + 1e-12]
    assert point.threshold == min(allowed)
    assert point.alerts == (score >= min(allowed)).sum() <= budget * len(y) + 1e-9
    assert point.tp == ((score >= min(allowed)) & (y == 1)).sum()


def test_a_budget_that_is_met_exactly_is_used_whole():
    # 50 rows, 5 of them in the highest bin: a tenth. In floats 0.07 * 100 is above 7, and 0.29 * 100 below 29.
    counts = ScoreCounts(
        np.array([0.2, 0.8]), np.array([40, 2]), np.array([5, 3]), np.array([0.1, 0.7]), np.array([0.3, 0.9])
    )
    assert at_budget(counts, 0.1).alerts == 5
    counts = ScoreCounts(
        np.array([0.2, 0.8]), np.array([71, 29]), np.array([0, 0]), np.array([0.1, 0.7]), np.array([0.3, 0.9])
    )
    assert at_budget(counts, 0.29).alerts == 29
    assert at_budget(counts, 0.28).alerts == 0


def test_a_sentence_tells_it_of_a_thousand():
    assert in_words(OperatingPoint(0.1, tp=18, fp=56, fn=2, tn=1924), "patients") == (
        "Of 1,000 patients, 37 would be flagged; 9 of them have the outcome. Of those not flagged, 1 has it."
    )
    rare = OperatingPoint(0.1, tp=1, fp=0, fn=1, tn=9998)
    assert in_words(rare) == (
        "Of 1,000 rows, fewer than 1 would be flagged; fewer than 1 of them have the outcome. "
        "Of those not flagged, fewer than 1 have it."
    )
    assert in_words(OperatingPoint(1.0, 0, 0, 0, 10)) == (
        "Of 1,000 rows, none would be flagged. Of those not flagged, none have it."
    )
    assert in_words(OperatingPoint(0.5, 0, 0, 0, 0)) == ""


def test_half_of_one_in_a_thousand_is_one_and_a_threshold_is_never_shown_as_certain():
    assert in_words(OperatingPoint(0.2, tp=1, fp=0, fn=0, tn=1999), "rows").startswith("Of 1,000 rows, 1 would be")
    assert threshold_in_words(0.9996) == "a probability of at least 0.9996"
    assert threshold_in_words(1e-7) == "a probability of at least 0.0000001"
    assert threshold_in_words(0.99999) == "a probability of at least 0.99999"
