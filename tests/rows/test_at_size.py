"""Many rows: settings are chosen on a sample, a capped model that still grows decides nothing, draws are of parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from flfed.rows.evaluation import bootstrap
from flfed.rows.evaluation.bootstrap import replicate
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.features.encode import LEAST_OF_A_CLASS, Encoded, pooled_rows
from flfed.rows.training import tuned_linear
from flfed.rows.training.answer import compute_stacked
from flfed.rows.training.best_model import TREES, _boosted
from flfed.rows.training.requests import RivalRequest, TreesRequest, TuneRequest
from flfed.rows.training.tuned_linear import LinearPredictor, fit_at, fit_from, search_of
from tests.rows.test_rival import rows_of

AUC = "roc_auc_score"
MOST = 600


def test_a_sample_has_each_classs_share_and_nine_of_the_rarest():
    y = np.repeat([0, 1, 2], [4000, 990, 10])
    rows = Encoded(np.zeros((5000, 1)), y, np.ones(5000))
    samples = [rows.sample(most, np.random.default_rng(2)) for most in (250, 500)]
    counts = np.bincount(y[samples[1]])
    assert len(samples[1]) <= 500 and counts[2] == LEAST_OF_A_CLASS
    assert counts[0] / counts[1] == pytest.approx(4000 / 990, rel=0.1)
    assert np.isin(samples[0], samples[1]).all() and (np.diff(samples[1]) > 0).all()
    assert rows.sample(5000, np.random.default_rng(2)) == slice(None)


@pytest.fixture
def sampled(monkeypatch):
    """Settings are chosen on so few rows that a small table has more."""
    monkeypatch.setattr(tuned_linear, "MOST_ROWS", MOST)


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_settings_are_chosen_on_a_sample_and_the_fit_takes_all_rows(task, sampled):
    rows = rows_of(task, "line", rows=2000)
    classes = {"binary": 2, "multi-class": 3, "regression": 0}[task]
    search = search_of(rows, task, classes, np.random.default_rng(4))
    assert len(search.rows) <= MOST and len(search.all_rows) == 2000
    assert max(fold.test.max() for fold in search.folds) < len(search.rows)
    (found,) = compute_stacked([TuneRequest(rows=rows, task=task, classes=classes, rng=np.random.default_rng(4))])
    # The fit is the one that scikit-learn makes of all rows, at one of the penalties.
    direct = [search.finished(fit_at(search, float(l2))) for l2 in search.penalties]
    assert min(np.abs(found(rows.x) - one(rows.x)).max() for one in direct) < 1e-5
    few = replace(search, all_rows=search.rows)
    assert min(np.abs(found(rows.x) - fit_at(few, float(l2))(rows.x)).max() for l2 in few.penalties) > 1e-3


@pytest.mark.parametrize("l2", [1e-4, 0.03])
def test_a_fit_of_all_rows_from_that_of_a_sample_is_scikit_learns(l2, sampled):
    rows = rows_of("binary", "line", rows=9000)
    rows.x[:, 0] = np.arange(9000) % 700 == 1  # a rare value: of a sample it says little
    search = search_of(replace(rows, weight=np.where(rows.y == 1, 1.7, 0.6)), "binary", 2, np.random.default_rng(4))
    start = fit_at(replace(search, all_rows=search.rows), l2)
    theirs = fit_at(search, l2)
    assert np.abs(start.weight - theirs.weight).max() > 0.01
    # From far away, too, where steps do not shrink.
    for begun in (start, LinearPredictor(start.weight * 50, start.bias - 90)):
        ours = fit_from(search, l2, begun)
        np.testing.assert_allclose(ours.weight, theirs.weight, rtol=0, atol=1e-8)
        np.testing.assert_allclose(ours.bias, theirs.bias, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", [RivalRequest, TreesRequest])
def test_trees_chosen_on_a_sample_are_grown_on_all_rows(kind, sampled):
    rows = rows_of("binary", "cross", rows=3000)
    (found,) = compute_stacked([kind(rows=rows, task="binary", classes=2, rng=np.random.default_rng(4))])
    outputs = found.outputs if kind is RivalRequest else found
    search = search_of(rows, "binary", 2, np.random.default_rng(4), folds=3)
    grown = {}
    for name, some in (("all", search.all_rows), ("sample", search.rows)):
        models = [_boosted(some, "binary", leaves, trees, 0) for leaves, numbers in TREES.items() for trees in numbers]
        grown[name] = min(np.abs(model.decision_function(rows.x) - outputs(rows.x)[:, 0]).max() for model in models)
    assert grown["all"] < 1e-9 and grown["sample"] > 0.1


def test_rows_of_several_sites_are_chosen_on_as_many_of_each(sampled):
    parts = [rows_of("binary", "line", rows=1000) for _ in range(2)]
    together = pooled_rows(parts)
    found = search_of(together, "binary", 2, np.random.default_rng(4))
    assert together.take(slice(0, 5)).sites == 2 and MOST < len(found.rows) <= 2 * MOST


def test_parts_of_many_rows_vary_as_the_rows_do_and_a_figure_is_that_of_all_rows():
    rng = np.random.default_rng(0)
    rows = bootstrap.MOST_UNITS + 10_000
    z = rng.normal(size=rows) - 2
    y = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(int)
    scores = {name: 1 / (1 + np.exp(-(z + rng.normal(size=rows) * by))) for name, by in (("a", 0.3), ("b", 0.4))}
    metrics = {name: metrics_of("binary", None)[name] for name in ("log_loss", "average_precision_score")}
    made = replicate(metrics, y, scores, np.random.default_rng(1), 2000)
    losses = {name: -np.log(np.where(y == 1, score, 1 - score)) for name, score in scores.items()}
    by_rows = {"a": losses["a"], "a - b": losses["a"] - losses["b"]}
    spread = {"a": made["log_loss"]["a"], "a - b": made["log_loss"]["a"].minus(made["log_loss"]["b"])}
    for name, loss in by_rows.items():
        assert np.sqrt(spread[name].variance) == pytest.approx(loss.std() / np.sqrt(rows), rel=0.08)
    # Rows drawn one by one, as where they are fewer, for the ranking.
    some = [rng.integers(0, rows, rows) for _ in range(300)]
    drawn = [average_precision_score(y[of], scores["a"][of]) for of in some]
    ranked = made["average_precision_score"]["a"]
    assert np.sqrt(ranked.variance) == pytest.approx(np.std(drawn), rel=0.15)
    assert ranked.value == pytest.approx(average_precision_score(y, scores["a"]), abs=1e-12)
    assert ranked.draws.mean() == pytest.approx(ranked.value, abs=0.1 * np.sqrt(ranked.variance))


def test_no_more_rows_than_that_are_drawn_one_by_one(monkeypatch):
    y = np.tile([0, 1], 200)
    score = np.random.default_rng(0).random(400)
    metrics = metrics_of("binary", 0.1)
    alone = replicate(metrics, y, {"a": score}, np.random.default_rng(3), 200)
    monkeypatch.setattr(bootstrap, "MOST_UNITS", 400)
    monkeypatch.setattr(bootstrap, "PARTS", 7)
    again = replicate(metrics, y, {"a": score}, np.random.default_rng(3), 200)
    assert all(np.array_equal(alone[name]["a"].draws, again[name]["a"].draws) for name in metrics)
    monkeypatch.setattr(bootstrap, "MOST_UNITS", 399)
    parts = replicate(metrics, y, {"a": score}, np.random.default_rng(3), 200)
    assert {name for name in metrics if np.array_equal(parts[name]["a"].draws, alone[name]["a"].draws)} == set()
    assert all(parts[name]["a"].value == alone[name]["a"].value for name in metrics)
