"""Rank correlation within steps of time: scipy's of each step, and weights that are rows given more than once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from flfed import Study
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import list_study_metrics, metrics_of, withheld
from flfed.rows.metrics.rank_correlation import RankCorrelation
from flfed.testing import check_metric

RNG = np.random.default_rng(7)
STEPS = RNG.permutation(np.repeat(np.arange(6), 5))
Y, SCORE = RNG.integers(0, 4, 30).astype(float), RNG.normal(size=30).round(1)


def of_each_step(y: np.ndarray, score: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.array([spearmanr(y[steps == step], score[steps == step]).statistic for step in np.unique(steps)])


def test_it_keeps_what_every_metric_keeps():
    check_metric(RankCorrelation)


def test_it_is_the_mean_of_what_scipy_gives_for_each_step():
    metric = RankCorrelation()
    assert metric.value(Y, SCORE) == pytest.approx(spearmanr(Y, SCORE).statistic, abs=1e-12)
    within = metric.within(STEPS)
    assert within.value(Y, SCORE) == pytest.approx(of_each_step(Y, SCORE, STEPS).mean(), abs=1e-12)
    # What moves all rows of a step alike is no skill within it.
    moved = SCORE + 100 * STEPS
    assert within.value(Y + 10 * STEPS, moved) == pytest.approx(within.value(Y, SCORE), abs=1e-12)
    assert metric.value(Y + 10 * STEPS, moved) > 0.9


def test_weights_stand_for_rows_given_again_and_whole_steps_for_steps():
    within = RankCorrelation().within(STEPS)
    times = np.arange(30) % 3
    again = RankCorrelation().within(np.repeat(STEPS, times)).value(np.repeat(Y, times), np.repeat(SCORE, times))
    assert within.weighted(Y, SCORE, times[None].astype(float))[0] == pytest.approx(again, abs=1e-12)
    drawn = np.array([2, 0, 1, 1, 0, 2])
    expected = np.average(of_each_step(Y, SCORE, STEPS), weights=drawn)
    assert within.weighted(Y, SCORE, drawn[STEPS][None].astype(float))[0] == pytest.approx(expected, abs=1e-12)


def test_a_step_whose_outcomes_or_predictions_are_alike_has_none():
    alike = np.where(STEPS == 0, 0.1 + 0.2, SCORE)
    found = of_each_step(Y, SCORE, STEPS)
    assert RankCorrelation().within(STEPS).value(Y, alike) == pytest.approx(found[1:].mean(), abs=1e-12)
    assert RankCorrelation().within(STEPS).defined(np.ones(30)) == "no step has two different outcomes"
    assert np.isnan(RankCorrelation().within(STEPS).value(Y, np.ones(30)))


def test_rows_without_a_step_are_left_out_and_an_institution_keeps_it():
    steps = np.where(STEPS == 0, -1, STEPS)
    found = of_each_step(Y, SCORE, STEPS)
    assert RankCorrelation().within(steps).value(Y, SCORE) == pytest.approx(found[1:].mean(), abs=1e-12)
    assert withheld("rank_correlation", Y, SCORE, "regression", Policy()) == "its steps may have few rows"
    assert withheld("rank_correlation", Y, SCORE, "regression", Policy(disclosure="open")) == ""


@pytest.mark.parametrize(("study", "within", "said"), [
    ("influenza", "now", "rank-within='now' must be a date of the dataset: date"),
    ("loan-default", "date", "rank-within is for numeric outcomes; the dataset's task is 'binary'"),
])  # fmt: skip
def test_what_has_no_steps_or_no_ranks_is_refused(study: str, within: str, said: str):
    with pytest.raises(UsageError) as error:
        check(Study.load(study).replace({"compare.rank-within": within}))
    assert said in str(error.value)


def test_only_a_study_that_names_steps_is_judged_by_it():
    assert "rank_correlation" in list_study_metrics(
        "regression", Study.load("influenza").replace({"compare.rank-within": "date"}).compare
    )
    assert "rank_correlation" not in list_study_metrics("regression", Study.load("influenza").compare)
    assert "rank_correlation" not in metrics_of("regression")
