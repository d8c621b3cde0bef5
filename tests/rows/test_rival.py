"""The best model of some rows alone is what scikit-learn's own fits and folds give, chosen by cross-validated loss."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold

from flfed.rows.features.encode import Encoded
from flfed.rows.training.answer import compute_one_by_one, compute_stacked
from flfed.rows.training.best_model import LEARNING_RATE, PENALTIES, TREES
from flfed.rows.training.requests import RivalRequest
from tests.rows.drawn import best_of, trees_of

SEED = 5


def rows_of(task: str, law: str, rows: int = 400) -> Encoded:
    """Return rows whose target goes with a sum of inputs ("line"), or with a product of two ("cross")."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 4))
    signal = 2 * x[:, 0] + x[:, 1] if law == "line" else 3 * x[:, 0] * x[:, 1]
    if task == "regression":
        return Encoded(x, signal + rng.normal(size=rows), np.ones(rows))
    if task == "binary":
        return Encoded(x, (rng.random(rows) < 1 / (1 + np.exp(-signal))).astype(np.int64), np.ones(rows))
    return Encoded(x, np.digitize(signal + 0.5 * rng.normal(size=rows), [-1.0, 1.0]), np.ones(rows))


def boosting(task: str, leaves: int, trees: int):
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return kind(learning_rate=LEARNING_RATE, max_leaf_nodes=leaves, max_iter=trees, early_stopping=False)


def linear(task: str, l2: float, rows: int):
    if task == "regression":
        return Ridge(l2 * rows)
    return LogisticRegression(C=1 / (l2 * rows), tol=1e-10, max_iter=5000)


def direct(rows: Encoded, task: str):
    """Return family and fit of the least loss, each setting fitted anew for each fold."""
    seed = int(np.random.default_rng(SEED).integers(2**31))
    kind = KFold if task == "regression" else StratifiedKFold
    folds = list(kind(3, shuffle=True, random_state=seed).split(rows.x, rows.y))
    settings = [("linear", l2) for l2 in PENALTIES]
    settings += [("trees", (leaves, number)) for leaves, numbers in TREES.items() for number in numbers]

    def made(setting, count: int):
        family, value = setting
        return linear(task, value, count) if family == "linear" else boosting(task, *value)

    def loss(setting) -> float:
        found = 0.0
        for train, test in folds:
            model = made(setting, len(train)).fit(rows.x[train], rows.y[train])
            if task == "regression":
                found += len(test) * mean_squared_error(rows.y[test], model.predict(rows.x[test]))
            else:
                p = model.predict_proba(rows.x[test])
                found += len(test) * log_loss(rows.y[test], p, labels=model.classes_)
        return found

    best = min(settings, key=loss)
    return best[0], made(best, len(rows)).fit(rows.x, rows.y)


@pytest.mark.studies
@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
@pytest.mark.parametrize("law", ["line", "cross"])
def test_the_model_is_the_one_that_scikit_learn_finds_by_the_same_folds(task: str, law: str):
    rows, new = rows_of(task, law), np.random.default_rng(9).normal(size=(50, 4))
    found = best_of(rows, task, 3 if task == "multi-class" else 2, np.random.default_rng(SEED))
    family, model = direct(rows, task)
    assert family == ("linear" if law == "line" else "trees")
    straight = "ridge-regression" if task == "regression" else "logistic-regression"
    assert found.family == (straight if law == "line" else "boosted-trees")
    outputs = found.outputs(new)
    if task == "regression":
        np.testing.assert_allclose(outputs[:, 0], model.predict(new), atol=1e-9)
    elif task == "binary":
        np.testing.assert_allclose(outputs[:, 0], model.decision_function(new), atol=1e-4)
    else:
        shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, model.predict_proba(new), atol=1e-5)


def test_trees_are_grown_only_from_two_hundred_rows_and_nine_people_of_each_class_on():
    x = np.random.default_rng(3).normal(size=(900, 4))
    product = x[:, 0] * x[:, 1]
    x = x[(product < 0) | (product > 0.5)]  # a law that trees see in few rows, and a line in none
    whole = Encoded(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), np.ones(len(x)))
    with_, without = np.flatnonzero(whole.y), np.flatnonzero(whole.y == 0)
    families = {}
    for name, chosen in {
        "200": np.arange(200),
        "199": np.arange(199),
        "9 of a class": np.concatenate([with_[:9], without]),
        "8 of a class": np.concatenate([with_[:8], without]),
    }.items():
        families[name] = best_of(whole.take(chosen), "binary", 2, np.random.default_rng(0)).family
    trees, line = "boosted-trees", "logistic-regression"
    assert families == {"200": trees, "199": line, "9 of a class": trees, "8 of a class": line}


def test_people_count_where_each_has_several_rows():
    rows = rows_of("binary", "cross", 600)
    # Each person's rows have one class: 15 people of forty rows, and 300 of two.
    ordered = rows.take(np.argsort(rows.y, kind="stable"))
    alone = best_of(ordered, "binary", 2, np.random.default_rng(0))
    few = Encoded(ordered.x, ordered.y, ordered.weight, np.arange(600) // 40)
    many = Encoded(ordered.x, ordered.y, ordered.weight, np.arange(600) // 2)
    found = [best_of(own, "binary", 2, np.random.default_rng(0)).family for own in (few, many)]
    assert (alone.family, found) == ("boosted-trees", ["logistic-regression", "boosted-trees"])


def test_nobody_is_on_both_sides_of_a_fold():
    # Ten copies of each row with a random outcome: who may look it up at a copy seems to predict it.
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=(60, 4)), 10, axis=0), np.repeat(rng.integers(0, 2, 60), 10)
    rows = Encoded(x, y.astype(np.int64), np.ones(600))
    assert best_of(rows, "binary", 2, np.random.default_rng(0)).family == "boosted-trees"
    people = Encoded(rows.x, rows.y, rows.weight, np.repeat(np.arange(60), 10))
    assert best_of(people, "binary", 2, np.random.default_rng(0)).family == "logistic-regression"


@pytest.mark.studies
def test_class_weights_move_the_trees_too():
    rows, new = rows_of("binary", "cross"), np.random.default_rng(9).normal(size=(50, 4))
    heavy = Encoded(rows.x, rows.y, np.where(rows.y == 1, 5.0, 1.0))
    plain, weighted = (best_of(own, "binary", 2, np.random.default_rng(SEED)) for own in (rows, heavy))
    assert (plain.family, weighted.family) == ("boosted-trees", "boosted-trees")
    assert weighted.outputs(new).mean() > plain.outputs(new).mean() + 0.3


def test_one_class_gives_the_constant_model():
    rows = Encoded(np.random.default_rng(0).normal(size=(300, 2)), np.ones(300, dtype=np.int64), np.ones(300))
    found = best_of(rows, "binary", 2, np.random.default_rng(0))
    np.testing.assert_allclose(found.outputs(rows.x[:3]), np.log(300.5 / 0.5), rtol=1e-9)


@pytest.mark.studies
def test_asked_together_or_alone_the_model_is_the_same():
    def requests() -> list[RivalRequest]:
        return [
            RivalRequest(rows=rows_of("binary", law), task="binary", classes=2, rng=np.random.default_rng(SEED))
            for law in ("line", "cross")
        ]

    x = np.random.default_rng(9).normal(size=(50, 4))
    for one, other in zip(compute_one_by_one(requests()), compute_stacked(requests()), strict=True):
        assert one.family == other.family
        np.testing.assert_array_equal(one.outputs(x), other.outputs(x))


def test_trees_alone_do_without_a_column_that_has_no_value_here():
    rows, rng = rows_of("binary", "cross"), np.random.default_rng
    empty = Encoded(np.hstack([rows.x, np.full((len(rows), 1), np.nan)]), rows.y, rows.weight)
    with pytest.raises(ValueError, match="window shape"):
        boosting("binary", 4, 60).fit(empty.x, empty.y)
    plain, without = (trees_of(table, "binary", 2, rng(SEED)) for table in (rows, empty))
    elsewhere = np.hstack([rows.x, rng(2).normal(size=(len(rows), 1))])
    assert np.array_equal(without(elsewhere), plain(rows.x)) and np.ptp(plain(rows.x)) > 1
