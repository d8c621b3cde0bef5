"""The rivals of the federation are real: scikit-learn's own fits, and a site's own intercept."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import sem
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.metrics import log_loss, r2_score, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from flfed.federation.engines.engine import find_sites
from flfed.rows.baselines import Trainable, _epochs, fine_tuned, first_arrays, tuned_network
from flfed.rows.features.encode import Encoded, pooled_rows
from flfed.rows.features.summarise import summarise
from flfed.rows.models.mlp import Mlp
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_one_by_one, run_client
from flfed.rows.training.fit import score
from flfed.rows.training.functional import loss_of_rows, probabilities
from flfed.rows.training.requests import FitRequest, ScoreRequest, listed, run_client_by
from flfed.rows.training.tuned_linear import FOLDS, PENALTIES, units_by_class
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from tests.rows.drawn import tuned_linear

CLASSES = {"binary": 2, "multi-class": 3, "regression": 0}


def table(task: str, rows: int, seed: int = 0, inputs: int = 6) -> Encoded:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs))
    signal = x[:, 0] - 0.7 * x[:, 1] + rng.logistic(size=rows)
    if task == "regression":
        return Encoded(x, signal, np.ones(rows))
    cuts = [0.8] if task == "binary" else [-0.8, 1.0]
    return Encoded(x, np.digitize(signal, cuts).astype(np.int64), np.ones(rows))


def folds_of(rng: np.random.Generator, kind: type, count: int = FOLDS):
    """The folds that `tuned_linear` draws from this generator."""
    return kind(count, shuffle=True, random_state=int(rng.integers(2**31)))


def search(rows: Encoded, task: str, rng: np.random.Generator, trained_on: float):
    """scikit-learn's own search over the same penalties and folds.

    Our penalty is per row, scikit-learn's of the sum, of the `trained_on` rows that a fold trains on.
    """
    if task == "regression":
        model = RidgeCV(PENALTIES * trained_on, cv=folds_of(rng, KFold), scoring="neg_mean_squared_error")
        return model.fit(rows.x, rows.y)
    known = inspect.signature(LogisticRegressionCV).parameters
    later = {"l1_ratios": (0,), "use_legacy_attributes": False} if "use_legacy_attributes" in known else {}
    model = LogisticRegressionCV(
        Cs=1 / (PENALTIES * trained_on), cv=folds_of(rng, StratifiedKFold), scoring="neg_log_loss",
        tol=1e-7, max_iter=5000, **later,
    )  # fmt: skip
    return model.fit(rows.x, rows.y, rows.weight if np.ptp(rows.weight) else None)


def refitted(found, rows: Encoded, penalty: float):
    """The model of all rows at a penalty per row, by the class that scikit-learn's search refits with."""
    if isinstance(found, RidgeCV):
        return Ridge(penalty * len(rows)).fit(rows.x, rows.y)
    weight = rows.weight if np.ptp(rows.weight) else None
    return LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-8, max_iter=5000).fit(rows.x, rows.y, weight)


def penalty_of(found, trained_on: float) -> float:
    return found.alpha_ / trained_on if isinstance(found, RidgeCV) else 1 / (float(np.ravel(found.C_)[0]) * trained_on)


@pytest.mark.studies
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_a_tuned_linear_model_has_the_penalty_that_scikit_learns_search_finds(task, seed):
    rows = table(task, 120, seed)
    ours = tuned_linear(rows, task, CLASSES[task], np.random.default_rng(seed))
    found = search(rows, task, np.random.default_rng(seed), trained_on=96)  # four of five folds of 24
    alike = refitted(found, rows, penalty_of(found, 96))
    np.testing.assert_allclose(ours.weight, np.atleast_2d(alike.coef_).T, atol=1e-4)
    np.testing.assert_allclose(ours.bias, np.atleast_1d(alike.intercept_), atol=1e-4)
    # One step of the penalty further and this would be seen.
    others = [np.atleast_2d(refitted(found, rows, penalty).coef_).T for penalty in PENALTIES]
    assert sum(np.abs(ours.weight - other).max() < 1e-4 for other in others) == 1


def test_the_penalty_is_chosen_and_not_one_of_the_ends():
    # 25 inputs of noise and one of signal in 60 rows: neither no penalty nor the largest is best.
    rows, test = table("binary", 60, 5, inputs=26), table("binary", 3000, 6, inputs=26)
    loss = loss_of_rows("binary", tuned_linear(rows, "binary", 2, np.random.default_rng(1))(test.x), test.y)
    for penalty in PENALTIES[[0, -1]]:
        model = LogisticRegression(C=1 / (penalty * 60), max_iter=5000).fit(rows.x, rows.y)
        assert loss < log_loss(test.y, model.predict_proba(test.x)) - 0.01


def test_class_weights_go_into_the_fit_and_a_constant_one_changes_nothing():
    rows = table("binary", 150)
    plain = tuned_linear(rows, "binary", 2, np.random.default_rng(0))
    same = tuned_linear(replace(rows, weight=np.full(150, 2.0)), "binary", 2, np.random.default_rng(0))
    np.testing.assert_array_equal(plain.weight, same.weight)
    heavy = replace(rows, weight=np.where(rows.y == 1, 3.0, 1.0))
    weighted = tuned_linear(heavy, "binary", 2, np.random.default_rng(0))
    # Three times the weight of a class adds about log 3 to the intercept.
    assert weighted.bias[0] - plain.bias[0] == pytest.approx(np.log(3), abs=0.25)


@pytest.mark.parametrize("counts", [(12, 0), (0, 7), (9, 1), (0, 0)])
def test_a_site_without_two_rows_of_two_classes_gets_the_constant_model(counts):
    y = np.repeat([0, 1], counts)
    rows = Encoded(np.random.default_rng(0).normal(size=(len(y), 3)), y, np.ones(len(y)))
    model = tuned_linear(rows, "binary", 2, np.random.default_rng(0))
    # Half a row is added to each class.
    odds = np.log((counts[1] + 0.5) / (counts[0] + 0.5))
    np.testing.assert_allclose(model(np.ones((4, 3))), np.full((4, 1), odds), atol=1e-12)


def test_a_class_that_a_site_never_saw_gets_about_half_a_row_and_the_others_are_fitted():
    rows = table("multi-class", 90)
    for kept in ((0, 2), (0, 1, 2)):
        own = rows.take(np.isin(rows.y, kept))
        model = tuned_linear(own, "multi-class", 4, np.random.default_rng(0))
        p = probabilities("multi-class", model(own.x))
        absent = [c for c in range(4) if c not in kept]
        assert model.weight.shape == (6, 4)
        # Not so little that one row of that class elsewhere decides a log loss over thousands.
        assert np.all((p[:, absent] > 0.05 / len(own)) & (p[:, absent] < 5 / len(own)))
        # Among the classes seen, the fit is that of these rows alone.
        relabelled = replace(own, y=np.searchsorted(kept, own.y))
        alone = tuned_linear(relabelled, "multi-class", len(kept), np.random.default_rng(0))
        shares = p[:, kept] / p[:, kept].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, probabilities("multi-class", alone(own.x)), atol=1e-8)


def test_one_row_of_a_third_class_does_not_cost_a_site_its_model():
    rows = table("multi-class", 120)
    keep = np.concatenate([np.flatnonzero(rows.y != 2), np.flatnonzero(rows.y == 2)[:1]])
    model = tuned_linear(rows.take(keep), "multi-class", 3, np.random.default_rng(0))
    test = table("multi-class", 500, 9)
    test = test.take(test.y != 2)
    p = probabilities("multi-class", model(test.x))
    two = tuned_linear(rows.take(keep[:-1]), "multi-class", 3, np.random.default_rng(0))
    ours, best = p[:, 1] / p[:, 0], probabilities("multi-class", two(test.x))[:, 1]
    assert roc_auc_score(test.y, ours) == pytest.approx(roc_auc_score(test.y, best), abs=0.02)
    assert roc_auc_score(test.y, ours) > 0.65


@pytest.mark.parametrize(("rows", "expected"), [(0, 0.0), (9, None)])
def test_a_regression_on_a_handful_of_rows_is_their_mean(rows, expected):
    own = table("regression", rows)
    model = tuned_linear(own, "regression", 0, np.random.default_rng(0))
    mean = own.y.mean() if rows else 0.0
    np.testing.assert_allclose(model(np.ones((3, 6))), np.full((3, 1), mean), atol=1e-12)


# Rows of one patient.


def visits(task: str, persons: int, each: int, seed: int = 0, inputs: int = 12) -> Encoded:
    """Patients with several visits that are all but the same row."""
    rows = table(task, persons, seed, inputs).take(np.repeat(np.arange(persons), each))
    jitter = 0.01 * np.random.default_rng(seed).normal(size=rows.x.shape)
    return replace(rows, x=rows.x + jitter, group=np.repeat(np.arange(persons), each))


def loss_of_split(task: str, rows: Encoded, train: np.ndarray, test: np.ndarray, penalty: float) -> float:
    if task == "regression":
        model = Ridge(penalty * len(train)).fit(rows.x[train], rows.y[train])
        return float(np.square(model.predict(rows.x[test]) - rows.y[test]).sum())
    model = LogisticRegression(C=1 / (penalty * len(train)), tol=1e-8, max_iter=5000).fit(rows.x[train], rows.y[train])
    return len(test) * log_loss(rows.y[test], model.predict_proba(rows.x[test]), labels=model.classes_)


@pytest.mark.studies
@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_the_penalty_is_chosen_on_patients_that_were_not_trained_on(task):
    rows, test = visits(task, 50, 8), table(task, 3000, 9, inputs=12)
    draw = int(np.random.default_rng(4).integers(2**31))
    kind = GroupKFold(FOLDS) if task == "regression" else StratifiedGroupKFold(FOLDS, shuffle=True, random_state=draw)
    folds = list(kind.split(rows.x, rows.y, rows.group))
    assert all(not set(rows.group[a]) & set(rows.group[b]) for a, b in folds)
    losses = [sum(loss_of_split(task, rows, a, b, penalty) for a, b in folds) for penalty in PENALTIES]
    alike = refitted(RidgeCV() if task == "regression" else None, rows, PENALTIES[int(np.argmin(losses))])
    ours = tuned_linear(rows, task, CLASSES[task], np.random.default_rng(4))
    np.testing.assert_allclose(ours.weight, np.atleast_2d(alike.coef_).T, atol=1e-4)
    # Blind to patients, the weakest penalty seems best: of a fold's patients all were trained on.
    blind = tuned_linear(replace(rows, group=None), task, CLASSES[task], np.random.default_rng(4))
    assert np.square(blind.weight).sum() > 1.1 * np.square(ours.weight).sum()
    assert loss_of_rows(task, ours(test.x), test.y) < loss_of_rows(task, blind(test.x), test.y) - 0.01


@pytest.mark.parametrize("persons", [(0, 1), (0, 0, 1), (0, 1, 1)])
def test_one_patient_of_a_class_is_no_class_that_can_be_tested(persons):
    # As with one row of a class: the constant model, half a row added to each class.
    y = np.repeat(persons, 10)
    group = np.repeat(np.arange(len(persons)), 10)
    rows = Encoded(np.random.default_rng(0).normal(size=(len(y), 3)), y, np.ones(len(y)), group)
    ones = int(y.sum())
    odds = np.log((ones + 0.5) / (len(y) - ones + 0.5))
    np.testing.assert_allclose(tuned_linear(rows, "binary", 2, np.random.default_rng(0))(rows.x), odds, atol=1e-12)


@pytest.mark.studies
@settings(max_examples=40, deadline=None)
@given(
    task=st.sampled_from(["binary", "multi-class", "regression"]), rows=st.integers(0, 60), persons=st.integers(1, 12),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_any_few_patients_of_any_classes_give_a_finite_model(task, rows, persons, seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=rows) if task == "regression" else rng.integers(0, CLASSES[task], rows) * rng.integers(0, 2)
    own = Encoded(rng.normal(size=(rows, 2)), y, np.ones(rows), rng.integers(0, persons, rows))
    model = tuned_linear(own, task, CLASSES[task], rng)
    assert np.isfinite(model(own.x)).all() and np.isfinite(model.weight).all() and np.isfinite(model.bias).all()


@pytest.mark.parametrize("seed", [239, 1005, 1191])
def test_a_fold_whose_training_rows_lack_a_class_does_not_break_the_search(seed):
    # Found among 6000 draws: scikit-learn's folds keep patients together, and may put all of a class
    # on one side. Of the training rows class 1 is missing; all but one are missing; class 2 is.
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(8, 60))
    group = rng.integers(0, int(rng.integers(3, 10)), rows)
    y = rng.choice(3, rows, p=[0.8, 0.15, 0.05])
    own = Encoded(rng.normal(size=(rows, 1)), y, np.ones(rows), group)
    draw = int(np.random.default_rng(0).integers(2**31))
    free, units = units_by_class(own, 3)
    folds = StratifiedGroupKFold(int(min(FOLDS, units[units > 0].min())), shuffle=True, random_state=draw)
    assert any(set(y[free][b]) - set(y[free][a]) - set(y[~free]) for a, b in folds.split(y[free], y[free], group[free]))
    model = tuned_linear(own, "multi-class", 3, np.random.default_rng(0))
    assert model.weight.shape == (1, 3) and np.abs(model(own.x)).max() < 20


def asked_of(rows: Encoded, personal: bool) -> tuple[FitRequest, ScoreRequest]:
    """The first training and the first scoring that a network asks for."""
    asked, found = given_of(Plan(), rounds=1), {}
    steps = fine_tuned(rows, first_arrays(asked, 6), asked) if personal else tuned_network(rows, asked)
    request = next(steps)
    while len(found) < 2:
        first = listed(request)[0]
        found.setdefault(type(first), first)
        request = steps.send(run_client(_ask(request)))
    return found[FitRequest], found[ScoreRequest]


def _ask(request):
    return (yield request)


@pytest.mark.parametrize("personal", [False, True])
def test_networks_are_tuned_on_whole_patients_that_they_were_not_trained_on(personal):
    rows = visits("binary", 100, 4, inputs=6)
    fitted, scored = asked_of(rows, personal)
    person = {x.tobytes(): code for x, code in zip(rows.x, rows.group, strict=True)}
    tested = [person[x.tobytes()] for x in scored.x]
    assert len(fitted.rows) + len(scored.x) == 400
    assert not set(fitted.rows.group) & set(tested)
    assert 12 <= len(set(tested)) <= 38  # a quarter of 100, three deviations of 4.3
    # Where each row is its own, the rows drawn are those of one draw a row, as ever.
    alone = replace(rows, group=None)
    held = generator(3, site="here", purpose="own-validation").random(400) < 0.25
    np.testing.assert_array_equal(asked_of(alone, personal)[1].x, rows.x[held])


# Networks.


def given_of(plan: Plan, rounds: int = 12, task: str = "binary") -> Trainable:
    return Trainable(model=Mlp(hidden=(8,)), task=task, classes=2, plan=plan, rounds=rounds, seed=3, site="here")


def loss_on(rows: Encoded, arrays) -> float:
    return loss_of_rows("binary", score(ScoreRequest(model=Mlp(hidden=(8,)), arrays=arrays, x=rows.x)), rows.y)


@pytest.mark.studies
def test_a_tuned_network_is_no_worse_than_the_plan_alone_on_rows_it_never_saw():
    # Twenty inputs, sixty rows: twelve rounds of five epochs overfit, fewer or a penalty do not.
    rows, test = table("binary", 60, 1, inputs=20), table("binary", 4000, 2, inputs=20)
    given_plan = given_of(Plan(lr=0.3, batch=8, epochs=5))
    tuned = run_client(tuned_network(rows, given_plan))
    assert loss_on(test, tuned) < loss_on(test, first_arrays(given_plan, 20))
    plain = run_client(_epochs(rows, first_arrays(given_plan, 20), given_plan, given_plan.plan, 12))
    assert loss_on(test, tuned) < loss_on(test, plain) - 0.1
    again = run_client(tuned_network(rows, given_plan))
    assert all(np.array_equal(tuned[name], again[name]) for name in tuned)


@pytest.mark.parametrize(("lr", "seed"), [(0.3, 3), (1.0, 2)])  # best: the first penalty, the second
def test_penalties_are_tried_side_by_side_with_the_numbers_of_one_after_another(lr, seed):
    rows, asked, sizes = table("binary", 50, seed), given_of(Plan(lr=lr, batch=8, epochs=3, l2=0.01), rounds=3), []

    def seen(requests):
        sizes.append(len(requests))
        return compute_one_by_one(requests)

    tuned = run_client_by(tuned_network(rows, asked), seen)
    held = generator(3, site="here", purpose="own-validation").random(50) < 0.25
    plans = [replace(asked.plan, l2=l2) for l2 in (0.01, 0.1, 1.0)]
    start = first_arrays(asked, rows.x.shape[1])
    tried = {
        (plan, number): loss_on(rows.take(held), run_client(_epochs(rows.take(~held), start, asked, plan, number)))
        for plan in plans
        for number in (1, 2, 3)
    }
    plan, number = min(tried, key=tried.get)
    assert sizes == [3] * 6 + [1] * number
    expected = run_client(_epochs(rows, start, asked, plan, number))
    for name, value in tuned.items():
        np.testing.assert_array_equal(value, expected[name])


def test_fine_tuning_that_does_not_help_returns_the_global_model_itself():
    rows = table("binary", 200, 1)
    start = run_client(tuned_network(table("binary", 3000, 2), given_of(Plan(lr=0.3), rounds=3)))
    hurting = given_of(Plan(lr=2000.0, batch=4))  # a tenth of that is still far too much
    assert fine_tuned_equals(rows, start, hurting)
    untrained = first_arrays(hurting, 6)
    helped = run_client(fine_tuned(rows, untrained, given_of(Plan(lr=5.0))))
    assert loss_on(table("binary", 2000, 3), helped) < loss_on(table("binary", 2000, 3), untrained) - 0.05


def fine_tuned_equals(rows: Encoded, start, given_plan: Trainable) -> bool:
    found = run_client(fine_tuned(rows, start, given_plan))
    return all(np.array_equal(found[name], start[name]) for name in start)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_networks_survive_a_site_of_next_to_no_rows(rows):
    own, asked = table("binary", rows), given_of(Plan())
    for arrays in (run_client(tuned_network(own, asked)), run_client(fine_tuned(own, first_arrays(asked, 6), asked))):
        assert all(np.isfinite(value).all() for value in arrays.values())


# The shipped studies' own rows.


@pytest.mark.studies
@pytest.mark.parametrize(("name", "repeats"), [
    ("diabetes", 2), ("wine", 2),
    *(pytest.param(name, repeats, marks=pytest.mark.proof)
      for name, repeats in (("preterm-birth", 1), ("loan-default", 1), ("diabetes", 3), ("wine", 3))),
])  # fmt: skip
def test_local_only_and_pooled_match_scikit_learn_on_the_shipped_rows_and_folds(name, repeats):
    study = Study.load(name)
    sites, gaps, plain_gaps = find_sites(study), [], []
    for repeat in range(repeats):
        places = [SiteSession(site, study, repeat) for site in sites]
        for number, (training, held) in enumerate(arms_of(places)):
            if not same_folds(training, held, places[0]):
                continue
            task, seed = places[0].task, 100 * repeat + number
            ours = tuned_linear(training, task, places[0].classes, np.random.default_rng(seed))(held.x)
            found = search(training, task, np.random.default_rng(seed), 0.8 * len(training))
            alike = refitted(found, training, penalty_of(found, 0.8 * len(training)))
            figure = figure_of(task, ours, held.y)
            gaps.append(abs(figure - figure_of(task, outputs_of_sklearn(alike, held.x), held.y)))
            plain = search(training, task, np.random.default_rng(seed), len(training))
            plain_gaps.append(figure - figure_of(task, outputs_of_sklearn(plain, held.x), held.y))
    assert len(gaps) >= 4
    # scikit-learn averages over folds, we over rows: where folds are unequal and two penalties all
    # but tie, a site of 80 rows may get the next one. No clinic or lender does.
    assert np.mean(gaps) < 0.005
    assert name == "diabetes" or max(gaps) < 0.005
    # The search as scikit-learn has it refits with the penalty of a sum over a fold's rows, a quarter
    # off: it is no better a rival, beyond what so few sites show by chance.
    worse = -np.mean(plain_gaps) if name == "wine" else np.mean(plain_gaps)
    assert worse > -max(0.005, 2 * sem(plain_gaps)), plain_gaps


def arms_of(places: list[SiteSession]) -> list[tuple[Encoded, Encoded]]:
    """Training and holdout rows of each site in its own encoder, then of all in the exact one."""
    exact = fit_encoder(places[0].layout, merge([summarise(w.table.training, w.layout) for w in places]))
    tables = [(w, w.table.training, w.table.holdout("compare")) for w in places]
    alone = [(w.encode(t, w.own_encoder()), w.encode(h, w.own_encoder())) for w, t, h in tables]
    pooled = [pooled_rows([w.encode(part[i], exact) for w, *part in tables]) for i in (0, 1)]
    return [*alone, (pooled[0], pooled[1])]


def same_folds(training: Encoded, held: Encoded, place: SiteSession) -> bool:
    """Tell whether scikit-learn can fit these rows, on as many folds as we take."""
    if place.task == "regression":
        return True
    enough = np.bincount(training.y, minlength=place.classes).min() >= FOLDS
    return bool(enough) and (place.task != "binary" or len(np.unique(held.y)) == 2)


def outputs_of_sklearn(model, x: np.ndarray) -> np.ndarray:
    found = model.predict(x) if isinstance(model, (Ridge, RidgeCV)) else model.decision_function(x)
    return found if found.ndim == 2 else found[:, None]


def figure_of(task: str, outputs: np.ndarray, y: np.ndarray) -> float:
    if task == "binary":
        return roc_auc_score(y, outputs[:, 0])
    if task == "regression":
        return r2_score(y, outputs[:, 0])
    return log_loss(y, probabilities(task, outputs), labels=range(3))
