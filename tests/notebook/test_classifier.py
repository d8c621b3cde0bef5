"""The scikit-learn estimator: its checks, its equality with `federate`, and its errors."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from flfed import FederatedClassifier, federate, run
from flfed.errors import FlfedError
from flfed.notebook.classifier import train
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256

X, Y = load_breast_cancer(return_X_y=True)
SITES = np.resize(["north", "south", "east", "west"], len(Y))


@pytest.mark.proof
@pytest.mark.slow
def test_scikit_learns_own_checks_pass():
    results = check_estimator(FederatedClassifier(), on_fail=None, on_skip=None)
    assert len(results) > 50
    assert [result["check_name"] for result in results if result["status"] == "failed"] == []


@pytest.mark.studies
@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_with_sites_the_probabilities_are_those_of_federate_without_a_holdout(model: str):
    # A batch takes all rows: their order follows from the names of the classes, too.
    every = {"model": model, "rounds": 5, "batch": 200}
    fitted = FederatedClassifier(**every).fit(X, Y, sites=SITES)
    columns = [f"x{number}" for number in range(X.shape[1])]
    table = pd.DataFrame(X, columns=columns).assign(target=Y)
    frames = {f"site-{site}": table[site == SITES] for site in np.unique(SITES)}
    again = federate(frames, "target", holdout=0, l2=0.01, strategy={"quorum": 1.0}, say=lambda line: None, **every)
    assert again.report["status"] == "completed"
    ours, theirs = fitted.predict_proba(X), again.model.predict_proba(table)
    assert ours.shape == (569, 2)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_it_learns_as_well_as_the_same_model_on_all_rows_in_one_place():
    fitted = FederatedClassifier().fit(X, Y, sites=SITES)
    pooled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    assert fitted.score(X, Y) > pooled.score(X, Y) - 0.01
    assert fitted.sites_ == ["site-east", "site-north", "site-south", "site-west"]


def test_it_works_in_cross_validation_with_sites_routed():
    with sklearn.config_context(enable_metadata_routing=True):
        model = FederatedClassifier(rounds=10).set_fit_request(sites=True)
        scores = cross_val_score(model, X, Y, params={"sites": SITES}, cv=3)
    assert len(scores) == 3 and scores.min() > 0.9
    assert cross_val_score(FederatedClassifier(rounds=10), X, Y, cv=3).min() > 0.9
    folds = GroupKFold(2).split(X, Y, SITES)
    assert all(len(set(SITES[train])) >= 2 for train, _ in folds)


def test_missing_values_and_several_classes_are_learnt():
    x, y = load_iris(return_X_y=True)
    x = np.where(np.random.default_rng(0).random(x.shape) < 0.1, np.nan, x)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    fitted = FederatedClassifier(rounds=60, lr=0.3).fit(x, names)
    assert fitted.score(x, names) > 0.9 and list(fitted.classes_) == ["setosa", "versicolor", "virginica"]
    assert fitted.predict_proba(x).shape == (150, 3)


def test_nothing_is_recorded(home: Path):
    FederatedClassifier(rounds=1).fit(X, Y, sites=SITES)
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("settings", "sites", "words"), [
    ({"lr": -1.0}, SITES, "lr"), ({"model": "forest"}, SITES, "forest"), ({}, np.zeros(569), "two sites"),
    ({}, SITES[:9], "inconsistent"), ({"rounds": 0}, SITES, "rounds"), ({"model": "linear"}, SITES, "must be 'log"),
    ({"model": "mlp", "hidden": 4}, SITES, "hidden=4 must be the widths"), ({"hidden": 4}, SITES, "hidden=4"),
    ({"random_state": np.random.RandomState(0)}, SITES, "random_state=.* must be a number"),
    ({"rounds": "5"}, SITES, "rounds='5' must be a number"), ({"rounds": 2.5}, SITES, "must be a whole number"),
])  # fmt: skip
def test_errors_are_value_errors(settings: dict, sites: np.ndarray, words: str):
    with pytest.raises(ValueError, match=words) as error:
        FederatedClassifier(**settings).fit(X, Y, sites=sites)
    assert isinstance(error.value, FlfedError) or words == "inconsistent"


@pytest.mark.parametrize("ask", ["predict", "predict_proba"])
def test_an_unfitted_classifier_says_so(ask: str):
    with pytest.raises(NotFittedError):
        getattr(FederatedClassifier(), ask)(X)


def test_numbers_of_numpy_are_taken_as_they_come_from_a_search():
    given = {"rounds": np.int64(2), "lr": np.float32(0.5), "batch": np.int32(16), "random_state": np.int64(1)}
    ours = FederatedClassifier(**given).fit(X, Y, sites=SITES).predict_proba(X)
    plain = FederatedClassifier(rounds=2, lr=0.5, batch=16, random_state=1).fit(X, Y, sites=SITES).predict_proba(X)
    np.testing.assert_array_equal(ours, plain)
    search = RandomizedSearchCV(FederatedClassifier(), {"rounds": np.arange(1, 3)}, n_iter=2, cv=2, random_state=0)
    assert search.fit(X, Y).best_params_["rounds"] in (1, 2)


def test_a_study_with_a_codec_trains_here_as_in_a_run(small_sites, small_study):
    study, sites = Study.parse(small_study + '[codec]\nname = "int8"\ndownload = "int8"\n'), small_sites(3)
    arrays, _ = train(study, sites)
    assert arrays_sha256(arrays) == run(study, sites=sites).report["arrays-sha256"]
