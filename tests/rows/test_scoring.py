"""Which figures may leave a site, and counts of predictions from which an AUC follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss, matthews_corrcoef, roc_auc_score

from flfed.errors import UsageError
from flfed.rows.data.site import Policy
from flfed.rows.evaluation.delong import delong
from flfed.rows.evaluation.scoring import (
    PRIMARY,
    Measured,
    RoundFigures,
    follows_from_counts,
    histogram,
    histograms_of_odds,
    is_count,
    metrics_of,
    primary_of,
    smallest_count,
    withheld,
)
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_one_by_one
from flfed.rows.training.requests import run_client_by
from flfed.study.study import Study
from flfed.summaries.score_bins import RowScores, auc_of_histogram
from flfed.summaries.summary import Encoder, fit_encoder

OPEN, INSTITUTION = Policy(disclosure="open"), Policy(disclosure="institution", cell_minimum=10)
GRADUAL = np.linspace(0.05, 0.95, 40)


def classes(*counts: int) -> np.ndarray:
    """Return class codes: so many rows of class 0, of class 1, and on."""
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize(("metric", "y", "why"), [
    ("log_loss", classes(5, 4), "fewer than 10 rows"),
    ("log_loss", classes(31, 9), "fewer than 10 rows of a class"),
    ("log_loss", classes(40), "fewer than 10 rows of a class"),
    ("loss", classes(31, 9), "fewer than 10 rows of a class"), ("log_loss", classes(30, 10), ""),
    ("roc_auc_score", classes(10, 30), ""),
])  # fmt: skip
def test_a_figure_leaves_an_institution_only_over_ten_rows_of_each_class(metric: str, y: np.ndarray, why: str):
    score = np.linspace(0.05, 0.95, len(y))
    assert withheld(metric, y, score, "binary", INSTITUTION) == why
    assert withheld(metric, y, score, "binary", OPEN) == ""


def test_a_class_without_rows_counts_as_small_also_where_it_is_the_last_of_three():
    y, score = classes(20, 20), np.full((40, 3), 1 / 3)
    assert withheld("log_loss", y, score, "multi-class", INSTITUTION) == "fewer than 10 rows of a class"
    assert withheld("log_loss", classes(20, 10, 10), score, "multi-class", INSTITUTION) == ""


@pytest.mark.parametrize(
    ("wrong", "why"), [(9, "fewer than 10 rows behind a share of right or wrong predictions"), (10, "")]
)
def test_an_accuracy_leaves_only_where_ten_rows_are_wrong_and_ten_right(wrong: int, why: str):
    # an accuracy of 0.775 over 40 rows says that 9 were wrong
    y = classes(20, 20)
    right = np.where(y == 1, 0.9, 0.1)
    score = right.copy()
    score[:wrong] = 0.9
    assert withheld("accuracy_score", y, score, "binary", INSTITUTION) == why
    assert withheld("accuracy_score", y, 1 - score, "binary", INSTITUTION) == why
    assert withheld("log_loss", y, score, "binary", INSTITUTION) == ""


def test_a_regression_needs_ten_rows_and_no_classes():
    y = np.linspace(0, 1, 10)
    assert withheld("r2_score", y, y, "regression", INSTITUTION) == ""
    assert withheld("r2_score", y[:9], y[:9], "regression", INSTITUTION) == "fewer than 10 rows"


def test_the_cell_minimum_is_the_sites_own():
    y = classes(6, 6)
    strict, lax = Policy(cell_minimum=7), Policy(cell_minimum=6)
    assert withheld("log_loss", y, GRADUAL[:12], "binary", strict) == "fewer than 7 rows of a class"
    assert withheld("log_loss", y, GRADUAL[:12], "binary", lax) == ""


def measured(area: float = float("nan"), variance: float = float("nan")) -> Measured:
    """What an engine says of some rows; the loss is 0.6."""
    return Measured(outputs=np.zeros((0, 1)), loss=0.6, area=float(area), variance=float(variance))


def with_odds(found: Measured, y: np.ndarray, score: np.ndarray) -> Measured:
    """The same with the log-odds of these predictions, and with their histogram, asked for or not."""
    odds = np.log(score) - np.log1p(-score)
    return replace(found, outputs=odds[:, None], histogram=histograms_of_odds(y, odds, np.array([len(y)]))[0])


def round_scores(
    rows: str, task: str, y: np.ndarray, score: np.ndarray, measured: Measured, metric: str, policy: Policy,
    alert_budget: float | None = None,
) -> RowScores:  # fmt: skip
    """What a site sends of a round whose predictions are `score`."""
    figures = RoundFigures(rows, y, task=task, classes=2, metric=metric, policy=policy, alert_budget=alert_budget)
    return figures.of(with_odds(measured, y, score), lambda outputs: score)


def test_a_rounds_figures_are_the_loss_and_the_primary_metric_with_its_variance():
    rng = np.random.default_rng(0)
    y = classes(25, 15)
    score = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0.01, 0.99)
    auc, covariance = delong(y, score[None, :])
    found = round_scores(
        "training", "binary", y, score, measured(auc[0], covariance[0, 0]), "roc_auc_score", INSTITUTION
    )
    assert found.metrics == {"loss": 0.6, "roc_auc_score": pytest.approx(roc_auc_score(y, score), abs=1e-12)}
    assert found.variances == {"roc_auc_score": pytest.approx(float(covariance[0, 0]), abs=1e-15)}
    assert auc[0] == pytest.approx(found.metrics["roc_auc_score"])
    assert (found.rows, found.num_examples, found.histogram) == ("training", 40, None)


def test_probabilities_are_made_only_where_a_figure_needs_them():
    y, asked = classes(20, 20), []

    def predictions(outputs: np.ndarray) -> np.ndarray:
        asked.append(len(outputs))
        return GRADUAL

    def found(metric: str, policy: Policy) -> RowScores:
        figures = RoundFigures("training", y, task="binary", classes=2, metric=metric, policy=policy)
        return figures.of(with_odds(measured(0.75, 0.01), y, GRADUAL), predictions)

    assert found("roc_auc_score", INSTITUTION).metrics == {"loss": 0.6, "roc_auc_score": 0.75}
    assert asked == []
    assert found("log_loss", INSTITUTION).metrics["log_loss"] == pytest.approx(log_loss(y, GRADUAL), abs=1e-12)
    assert found("accuracy_score", INSTITUTION).metrics == {"loss": 0.6}
    assert len(asked) == 1
    np.testing.assert_array_equal(found("roc_auc_score", OPEN).histogram, histogram(y, GRADUAL))
    assert len(asked) == 1


@pytest.mark.parametrize(("y", "metric", "policy", "area"), [
    (classes(31, 9), "roc_auc_score", INSTITUTION, False), (classes(31, 9), "roc_auc_score", OPEN, True),
    (classes(30, 10), "roc_auc_score", INSTITUTION, True), (classes(30, 10), "log_loss", INSTITUTION, False),
    (classes(40), "roc_auc_score", OPEN, False),
])  # fmt: skip
def test_an_area_is_measured_only_where_it_is_defined_and_may_leave(y, metric: str, policy: Policy, area: bool):
    figures = RoundFigures("training", y, task="binary", classes=2, metric=metric, policy=policy)
    assert figures.area is area


def test_a_round_at_a_site_with_one_class_has_a_loss_and_no_auc():
    found = round_scores("training", "binary", classes(12), GRADUAL[:12], measured(), "roc_auc_score", OPEN)
    assert found.metrics == {"loss": 0.6}
    assert found.histogram is not None and found.histogram.sum(axis=1).tolist() == [12, 0]


def test_a_round_with_a_small_class_sends_no_figure_from_an_institution():
    found = round_scores("training", "binary", classes(31, 9), GRADUAL, measured(), "roc_auc_score", INSTITUTION)
    assert (found.metrics, found.variances, found.histogram) == ({}, {}, None)


def test_histograms_of_many_sites_are_each_ones_own():
    rng = np.random.default_rng(3)
    ys = [rng.integers(0, 2, size) for size in (5, 0, 40, 1)]
    odds = [rng.normal(0, 9, len(y)) for y in ys]
    found = histograms_of_odds(np.concatenate(ys), np.concatenate(odds), np.array([len(y) for y in ys]))
    for y, own, counts in zip(ys, odds, found, strict=True):
        np.testing.assert_array_equal(counts, histogram(y, 1 / (1 + np.exp(-own))))
        assert counts.sum(axis=1).tolist() == [(y == 0).sum(), (y == 1).sum()]


def test_a_round_without_rows_has_no_figures():
    found = round_scores("holdout", "binary", classes(0, 0), np.zeros(0), measured(), "roc_auc_score", OPEN)
    assert found.metrics == {}
    assert found.histogram is not None and found.histogram.sum() == 0


def test_a_histogram_leaves_an_institution_only_where_its_policy_names_it():
    named = Policy(outputs=("score-histogram",))
    arguments = ("training", "binary", classes(20, 20), GRADUAL, measured(), "roc_auc_score")
    assert round_scores(*arguments, INSTITUTION).histogram is None
    counted = round_scores(*arguments, named).histogram
    assert counted is not None and counted.sum() == 40


def test_a_histogram_counts_each_row_once_in_its_class_also_at_the_ends():
    y, score = classes(3, 4), np.array([0.0, 0.5, 1.0, 0.0, 1e-300, 0.9999, 1.0])
    counts = histogram(y, score)
    assert counts.shape == (2, 256)
    assert counts.sum(axis=1).tolist() == [3, 4]
    assert (counts[0, 0], counts[1, 0]) == (1, 2)
    assert (counts[0, -1], counts[1, -1]) == (1, 1)


def test_log_odds_are_counted_as_their_probabilities_are_also_far_out():
    rng = np.random.default_rng(4)
    odds = np.array([-np.inf, -800, -12.1, -0.0, 0.0, 12.1, 800, np.inf, *rng.normal(0, 4, 500)])
    y = rng.integers(0, 2, len(odds))
    with np.errstate(over="ignore"):
        found = histograms_of_odds(y, odds, np.array([len(y)]))[0]
        np.testing.assert_array_equal(found, histogram(y, 1 / (1 + np.exp(-odds))))


def test_odds_that_are_no_numbers_are_counted_where_they_move_no_other_sites_rows():
    y, odds = np.array([0, 1, 1, 0]), np.array([np.nan, np.nan, 1.0, -1.0])
    broken, whole = histograms_of_odds(y, odds, np.array([2, 2]))
    np.testing.assert_array_equal(whole, histogram(y[2:], 1 / (1 + np.exp(-odds[2:]))))
    assert broken.sum() == 2


@pytest.mark.parametrize("centre", [0.0, -4.0, 3.0])
@pytest.mark.parametrize("spread", [0.1, 0.3, 1.0, 3.0])
def test_an_auc_from_counts_is_within_half_a_percent_of_the_exact_one(centre: float, spread: float):
    # Log-odds of models in their first rounds (0.1, 0.3), of useful ones (1) and of sure ones (3), for even and
    # for rare events. With 256 bins even in log-odds a spread of 0.1 fails this by 0.02.
    rng = np.random.default_rng(7)
    y = (rng.random(3000) < 1 / (1 + np.exp(-centre))).astype(int)
    odds = rng.normal(centre + spread * y, spread)
    score = 1 / (1 + np.exp(-odds))
    tolerance = 0.005 if spread >= 0.3 or not centre else 0.02
    assert auc_of_histogram(histogram(y, score)) == pytest.approx(roc_auc_score(y, score), abs=tolerance)


def test_an_auc_from_counts_of_several_sites_is_that_of_their_sum():
    rng = np.random.default_rng(3)
    parts = [(rng.integers(0, 2, 400), rng.random(400)) for _ in range(3)]
    summed = np.sum([histogram(y, score) for y, score in parts], axis=0)
    together = [np.concatenate(column) for column in zip(*parts, strict=True)]
    assert auc_of_histogram(summed) == auc_of_histogram(histogram(*together))


def test_rows_of_one_bin_count_half_a_pair_each():
    # negatives 1, 1; positives 1, 1 in bins 0, 1: pairs won 1, tied 2 (half each), lost 1 → (1 + 1) / 4
    assert auc_of_histogram(np.array([[1.0, 1.0], [1.0, 1.0]])) == 0.5
    # one negative in bin 1; positives 1 in bin 1 and 3 in bin 2: (0.5 + 3) / 4
    assert auc_of_histogram(np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 3.0]])) == 0.875
    assert np.isnan(auc_of_histogram(np.array([[4.0, 0.0], [0.0, 0.0]])))


def test_the_primary_metric_is_the_tasks_first_unless_the_study_names_one():
    assert {task: primary_of(task, "") for task in PRIMARY} == PRIMARY
    assert primary_of("binary", "log_loss") == "log_loss"
    with pytest.raises(UsageError, match="primary='roc_auc_scor' is not a metric for task 'binary'; did you mean"):
        primary_of("binary", "roc_auc_scor")
    with pytest.raises(UsageError, match="primary='r2_score' is not a metric for task 'binary'"):
        primary_of("binary", "r2_score")


def test_every_task_has_metrics_and_its_first_among_them():
    assert {task: first in metrics_of(task) for task, first in PRIMARY.items()} == dict.fromkeys(PRIMARY, True)
    assert "accuracy_score" not in metrics_of("regression")


def test_recall_at_an_alert_budget_is_there_only_where_a_study_names_one():
    assert "recall_at_alert_budget" not in metrics_of("binary")
    assert metrics_of("binary", 0.02)["recall_at_alert_budget"].alert_budget == 0.02
    assert set(metrics_of("binary", 0.02)) == {*metrics_of("binary"), "recall_at_alert_budget"}
    assert set(metrics_of("regression", 0.02)) == set(metrics_of("regression"))
    with pytest.raises(UsageError, match="metric 'recall_at_alert_budget' needs alert-budget"):
        primary_of("binary", "recall_at_alert_budget")
    assert primary_of("binary", "recall_at_alert_budget", 0.02) == "recall_at_alert_budget"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (9, "fewer than 10 rows behind a share of right or wrong predictions"),
        (10, ""),
        (30, ""),
        (31, "fewer than 10 rows behind a share of right or wrong predictions"),
    ],
)
def test_a_recall_from_which_a_small_count_follows_stays_at_an_institution(found, why):
    # 40 events and 360 others; of the 40 rows looked at `found` are events.
    y = np.repeat([1, 0], [40, 360])
    score = np.linspace(0.2, 0.1, 400)
    score[:found], score[40 : 80 - found] = 0.9, 0.8
    assert withheld("recall_at_alert_budget", y, score, "binary", INSTITUTION, 0.1) == why
    assert withheld("recall_at_alert_budget", y, score, "binary", OPEN, 0.1) == ""
    rounds = round_scores("training", "binary", y, score, measured(), "recall_at_alert_budget", INSTITUTION, 0.1)
    assert "recall_at_alert_budget" not in rounds.metrics


def asked_in_a_round(place: SiteSession, encoder: Encoder) -> list:
    """Return the rows of each request of one round: validation rows, holdout rows, rows to train on."""
    arrays = place.model.first_arrays(place.training(encoder).x.shape[1], 1, np.random.default_rng(0))
    requests: list = []

    def answer(asked):
        requests.extend(asked)
        return compute_one_by_one(asked)

    run_client_by(place.train(arrays, encoder, round=1, rounds=5), answer)
    return [request.rows for request in requests]


def test_rows_are_split_and_encoded_once_for_all_rounds_of_equal_encoders(small_sites, small_study):
    study = Study.parse(small_study).replace({"plan.validation": 0.3})
    place = SiteSession(small_sites(1)[0], study)
    first = fit_encoder(place.layout, place.summary())
    equal = Encoder(**{name: value.copy() for name, value in first.arrays().items()})
    moved = replace(first, center=first.center + 1)
    rounds = [asked_in_a_round(place, encoder) for encoder in (first, equal, moved, first)]
    assert len(rounds[0]) == 2
    assert all(one is other for one, other in zip(rounds[0], rounds[1], strict=True))
    for one, other, back in zip(rounds[0], rounds[2], rounds[3], strict=True):
        assert np.abs(one.x - other.x).max() > 0
        np.testing.assert_array_equal(one.x, back.x)
    validation, fitted = rounds[0]
    assert len(validation) + len(fitted) == len(place.table.training) and len(validation) > 5
    both = np.concatenate([validation.x, fitted.x])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(place.training(first).x, axis=0))
    assert place.table.opened == []


class Matthews:
    """A metric of another package: made of the confusion matrix, and says nothing of it."""

    def defined(self, y: np.ndarray) -> str:
        return ""

    def value(self, y: np.ndarray, score: np.ndarray) -> float:
        return float(matthews_corrcoef(y, score > 0.5 if score.ndim == 1 else score.argmax(axis=1)))


def test_a_metric_from_which_counts_follow_is_found_out_whoever_wrote_it():
    assert {name for name in metrics_of("binary", 0.1) if is_count(name, "binary", 0.1)} == {
        "accuracy_score", "recall_at_alert_budget",
    }  # fmt: skip
    assert [name for name in metrics_of("multi-class") if is_count(name, "multi-class")] == ["accuracy_score"]
    assert not any(is_count(name, "regression") for name in metrics_of("regression"))
    assert follows_from_counts(Matthews(), "binary") and follows_from_counts(Matthews(), "multi-class")


def test_the_counts_behind_a_metric_that_names_none_are_those_of_the_confusion_matrix():
    y, score = np.repeat([0, 1], 30), np.repeat([0.1, 0.9], 30)
    assert smallest_count(Matthews(), y, score) == 0
    score[:12], score[-11:] = 0.7, 0.3
    assert smallest_count(Matthews(), y, score) == 11
    three = np.repeat([0, 1, 2], 20)
    assert smallest_count(Matthews(), three, np.eye(3)[np.roll(three, 7)]) == 0
