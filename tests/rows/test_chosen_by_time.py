"""Where later rows are held out a site's own model is chosen on its latest training rows, never on random ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from flfed import Study
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.rows.baselines import Trainable, _own_validation
from flfed.rows.comparison.arms import _naive_scores
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout, HoldoutByOrder, HoldoutByTime, block_numbers, elapsed_shares
from flfed.rows.data.partition import cut
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_stacked
from flfed.rows.training.best_model import naive_forecasts
from flfed.rows.training.requests import TuneRequest
from flfed.rows.training.tuned_linear import LEAST, PENALTIES, LinearPredictor
from flfed.study.tables import OrderedHoldout
from tests.rows.drawn import best_of, trees_of, tuned_linear
from tests.rows.test_holdout_by_order import SCHEMA, visits


def in_order(x: np.ndarray, y: np.ndarray) -> Encoded:
    """Return rows of which each is a block of its own, in the order of time."""
    return Encoded(x, y, np.ones(len(y)), None, np.arange(len(y)) / len(y))


def test_the_latest_rows_are_the_last_quarter_in_whole_blocks():
    table = visits()
    rule = HoldoutByOrder(OrderedHoldout(by="day", train_share=0.5, same_groups=True))
    elapsed = elapsed_shares(table, rule, SCHEMA)
    rows = Encoded(np.zeros((20, 1)), np.zeros(20), np.ones(20), None, elapsed)
    latest = table[rows.latest()]
    assert sorted(latest["day"].dt.day) == [9, 9, 10, 10]  # of ten days the eighth begins before three quarters
    assert elapsed_shares(table, Holdout(), SCHEMA) is None
    one_day = replace(rows, elapsed=np.zeros(20))
    assert not one_day.latest().any()  # in one day nothing is later than anything: nothing is chosen on random rows


def test_whole_people_are_on_one_side_where_the_holdout_keeps_them_so():
    table = visits()
    apart = HoldoutByOrder(OrderedHoldout(by="hour", train_share=0.5))
    elapsed = elapsed_shares(table, apart, SCHEMA)
    by_person = pd.Series(elapsed).groupby(table["person"].to_numpy()).nunique()
    assert (by_person == 1).all()


def test_blocks_are_numbered_in_the_order_of_time():
    table = visits()
    dated = HoldoutByTime(column="day", train_until="2024-01-05", test_from="2024-01-06")
    numbers = block_numbers(table, dated, SCHEMA)  # people, by their last day
    last = table.groupby("person")["day"].max()
    order = [table["person"].to_numpy()[numbers == n][0] for n in range(4)]
    assert last[order].is_monotonic_increasing
    days = block_numbers(table, HoldoutByOrder(OrderedHoldout(by="day", train_share=0.5, blocks="day")), SCHEMA)
    assert (np.diff(days[np.argsort(table["day"].to_numpy(), kind="stable")]) >= 0).all()
    assert block_numbers(table, Holdout(), SCHEMA) is None


def ridge_of_latest(rows: Encoded) -> LinearPredictor:
    """Return the ridge regression of least squared error on the last quarter, fitted to all, by scikit-learn."""
    cut_at = int(len(rows) * 0.75)
    losses = []
    for l2 in PENALTIES:
        model = Ridge(l2 * cut_at).fit(rows.x[:cut_at], rows.y[:cut_at])
        losses.append(np.square(model.predict(rows.x[cut_at:]) - rows.y[cut_at:]).sum())
    best = Ridge(PENALTIES[int(np.argmin(losses))] * len(rows)).fit(rows.x, rows.y)
    return LinearPredictor(best.coef_[:, None], np.array([best.intercept_]))


def logistic_of_latest(rows: Encoded) -> LinearPredictor:
    """Return the logistic regression of least log loss on the last quarter, fitted to all, by scikit-learn."""
    cut_at = int(len(rows) * 0.75)
    losses = []
    for l2 in PENALTIES:
        model = LogisticRegression(C=1 / (l2 * cut_at), tol=1e-10, max_iter=5000).fit(rows.x[:cut_at], rows.y[:cut_at])
        likely = model.predict_proba(rows.x[cut_at:])[np.arange(len(rows) - cut_at), rows.y[cut_at:]]
        losses.append(-np.log(np.maximum(likely, LEAST)).sum())
    l2 = PENALTIES[int(np.argmin(losses))]
    best = LogisticRegression(C=1 / (l2 * len(rows)), tol=1e-10, max_iter=5000).fit(rows.x, rows.y)
    return LinearPredictor(best.coef_.T, best.intercept_)


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_a_penalty_is_the_one_that_does_best_on_the_latest_rows_alone_and_in_a_stack(task: str):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 6))
    # What the first columns say changes with time: random folds would trust them more.
    drift = np.linspace(2, -0.2, 120)
    signal = drift * x[:, 0] + 0.3 * x[:, 1]
    if task == "regression":
        rows, expected = in_order(x, signal + 0.3 * rng.normal(size=120)), ridge_of_latest
    else:
        rows, expected = in_order(x, (signal + rng.logistic(size=120) > 0).astype(np.int64)), logistic_of_latest
    wanted = expected(rows)
    alone = tuned_linear(rows, task, 2, np.random.default_rng(0))
    (stacked,) = compute_stacked([TuneRequest(rows=rows, task=task, classes=2, rng=np.random.default_rng(0))])
    for found in (alone, stacked):
        assert found(x) == pytest.approx(wanted(x), abs=1e-5)
    at_random = tuned_linear(replace(rows, elapsed=None), task, 2, np.random.default_rng(0))
    assert np.abs(at_random(x) - wanted(x)).max() > 0.01


def test_epochs_and_penalty_of_a_network_are_chosen_on_the_latest_quarter():
    plan = Study.load("heart-disease").plan
    given = Trainable(model=None, task="binary", classes=2, plan=plan, rounds=1, seed=1, site="s")
    rows = in_order(np.zeros((40, 1)), np.zeros(40, dtype=np.int64))
    assert np.flatnonzero(_own_validation(rows, given)).tolist() == list(range(30, 40))
    drawn = _own_validation(replace(rows, elapsed=None), given)
    assert np.flatnonzero(drawn).tolist() != list(range(30, 40))


def test_an_own_model_is_a_forecast_without_a_model_where_none_does_better():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(160, 3))
    walk = np.cumsum(rng.normal(size=160)) + np.linspace(0, 30, 160)
    assert best_of(in_order(noise, walk), "regression", 0, rng, least=1).family == "last-value"
    # What a column says of the target ends before the latest rows, and the last value is far off.
    level = 5 + rng.normal(size=160) + np.where(np.arange(160) < 120, 3 * noise[:, 0], 0)
    level[[119, 159]] = 14.0
    assert best_of(in_order(noise, level), "regression", 0, rng, least=1).family == "site-mean"
    # Of 20 columns one is a forecast: of 24 rows nobody learns which.
    columns = rng.normal(size=(24, 20))
    target = columns[:, 0] + 0.3 * rng.normal(size=24)
    weight = np.eye(20)[:, :1]
    found = best_of(in_order(columns, target), "regression", 0, rng, columns=[LinearPredictor(weight, np.zeros(1))])
    assert found.family == "named-column"
    assert found.outputs(columns)[:, 0] == pytest.approx(columns[:, 0])
    # Rows in no order have no last value.
    assert naive_forecasts(Encoded(noise, level, np.ones(160))) == {}


@pytest.mark.studies
def test_a_last_value_that_is_near_the_next_ones_by_chance_is_no_rival():
    chosen = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        # Forty blocks of five rows that have nothing to do with each other: the mean is the best forecast.
        y = np.repeat(rng.normal(size=40), 5) + rng.normal(scale=0.1, size=200)
        rows = Encoded(rng.normal(size=(200, 2)), y, np.ones(200), None, np.repeat(np.arange(40) / 40, 5))
        chosen.append(best_of(rows, "regression", 0, rng, least=5).family)
    assert chosen.count("last-value") == 0  # by one last value alone 9 of 40


def test_the_last_value_is_of_as_many_rows_and_people_as_may_be_told_of():
    y = np.arange(12.0)
    rows = in_order(np.zeros((12, 1)), y)
    values = {least: naive_forecasts(rows, (), least).get("last-value") for least in (0, 1, 4, 13)}
    assert {least: None if one is None else float(one.bias[0]) for least, one in values.items()} == {
        0: None, 1: 11.0, 4: 9.5, 13: None,
    }  # fmt: skip
    # Four rows of two people are not enough for three.
    people = replace(rows, group=np.repeat(np.arange(6), 2))
    assert "last-value" not in naive_forecasts(people, (), 3)
    assert "last-value" in naive_forecasts(people, (), 1)


@pytest.mark.parametrize("task", ["binary", "multi-class"])
def test_a_class_that_comes_up_in_the_latest_rows_only_leaves_a_model_all_the_same(task: str):
    rng = np.random.default_rng(4)
    x, classes = rng.normal(size=(400, 3)), 2 if task == "binary" else 3
    y = rng.integers(classes - 1, size=400)
    y[320:] = classes - 1
    rows = in_order(x, y.astype(np.int64))
    found = best_of(rows, task, classes, np.random.default_rng(0))
    assert np.isfinite(found.outputs(x)).all()
    assert np.isfinite(trees_of(rows, task, classes, np.random.default_rng(0))(x)).all()


@pytest.mark.studies
def test_a_named_column_is_the_forecast_in_the_targets_unit(zone_power):
    study = Study.load("zone-power")
    for site in cut(datasets.load(study.dataset.name), study.dataset.partition):
        session = SiteSession(site, study.replace({"compare.naive-forecasts": ["day_before"]}))
        table = session.table.holdout("test")
        found = _naive_scores(session, table)["named-column"]
        assert found == pytest.approx(table["day_before"].to_numpy(), abs=1e-9)
        last = _naive_scores(session, table)["last-value"]
        training = session.table.training
        latest = training[training["DateTime"] == training["DateTime"].max()]
        assert last == pytest.approx(np.full(len(table), latest[session.schema.target].mean()))


@pytest.mark.parametrize(
    ("name", "column", "why"),
    [
        ("zone-power", "Temperature", "must have the target's unit and transform"),
        ("zone-power", "day_befor", "not a feature of the study.*day_before"),
        ("heart-disease", "age", "for a target that is a number"),
    ],
)
def test_a_column_that_cannot_be_a_forecast_is_refused(zone_power, name: str, column: str, why: str):
    with pytest.raises(UsageError, match=why):
        check(Study.load(name).replace({"compare.naive-forecasts": [column]}))
