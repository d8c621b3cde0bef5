"""Figures that need every table in one place equal scikit-learn's on the rows put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from flfed.rows.comparison.pooled import Reference, _groups, first_searches, reference, union_scores
from flfed.rows.data.site import Policy, Site
from flfed.rows.features.encode import Encoded, pooled_rows
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.rows.training.requests import ModelRequest
from flfed.rows.training.tuned_linear import PENALTIES
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder, merge

Arrays = dict[str, np.ndarray]


@pytest.fixture
def at_work(small_sites, small_study) -> tuple[list[SiteSession], Encoder, Arrays]:
    """Three open sites at work, the encoder of all, and a global model."""
    sessions = open_workplaces(small_sites(3, rows=150), small_study)
    encoder = fit_encoder(sessions[0].layout, merge([summarise(w.table.training, w.layout) for w in sessions]))
    inputs = sessions[0].training(encoder).x.shape[1]
    weight = np.zeros((inputs, 1))
    weight[:2, 0] = 0.9, 0.8
    return sessions, encoder, {"weight": weight, "bias": np.array([0.1])}


def open_workplaces(sites: list[Site], text: str) -> list[SiteSession]:
    return [SiteSession(site, Study.parse(text)) for site in sites]


def holdouts(sessions: list[SiteSession]) -> tuple[list[pd.DataFrame], np.ndarray]:
    tables = [w.table.holdout("test") for w in sessions]
    return tables, np.concatenate([w.target(t) for w, t in zip(sessions, tables, strict=True)])


def found_of(at_work: tuple[list[SiteSession], Encoder, Arrays]) -> Reference:
    sessions, encoder, arrays = at_work
    return run_client(reference(sessions, arrays, encoder))


def test_the_union_is_the_global_model_on_all_holdouts_together(at_work):
    sessions, encoder, arrays = at_work
    tables, y = holdouts(sessions)
    x = np.concatenate([w.encode(t, encoder).x for w, t in zip(sessions, tables, strict=True)])
    p = 1 / (1 + np.exp(-(x @ arrays["weight"] + arrays["bias"])[:, 0]))
    found = found_of(at_work)
    assert found.rows == len(y) == sum(len(t) for t in tables)
    assert found.union["roc_auc_score"].value == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert found.union["log_loss"].value == pytest.approx(log_loss(y, p), abs=1e-12)
    assert found.union["brier_score_loss"].value == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert found.union["roc_auc_score"].low < roc_auc_score(y, p) < found.union["roc_auc_score"].high
    np.testing.assert_allclose(run_client(union_scores(sessions, arrays, encoder)), p, atol=1e-12)


def pooled_inputs(sessions: list[SiteSession], tables: list[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test inputs of scikit-learn's own making: standard scores, means for gaps, indicators."""
    training = pd.concat([w.table.training for w in sessions])
    test = pd.concat(tables)
    numbers = StandardScaler().fit(training[["x1", "x2"]])  # leaves gaps out of mean and deviation
    parts = []
    for table in (training, test):
        scores = np.nan_to_num(numbers.transform(table[["x1", "x2"]]))
        kinds = pd.get_dummies(pd.Categorical(table["colour"], ["red", "green", "blue"])).to_numpy(float)[:, 1:]
        parts.append((scores, table[["flag"]].to_numpy(float), kinds))
    spread = [StandardScaler().fit(np.hstack(parts[0][1:])).transform(np.hstack(p[1:])) for p in parts]
    return tuple(np.hstack([p[0], s]) for p, s in zip(parts, spread, strict=True))


def test_pooled_is_scikit_learns_regularised_fit_on_all_training_rows(at_work):
    sessions = at_work[0]
    tables, y = holdouts(sessions)
    x_train, x_test = pooled_inputs(sessions, tables)
    y_train = np.concatenate([w.target(w.table.training) for w in sessions])
    losses = [
        cross_val_score(
            LogisticRegression(C=1 / (l2 * len(y_train) * 0.8)), x_train, y_train, scoring="neg_log_loss", cv=5
        )
        for l2 in PENALTIES
    ]
    best = PENALTIES[int(np.argmax([np.mean(loss) for loss in losses]))]
    model = LogisticRegression(C=1 / (best * len(y_train))).fit(x_train, y_train)
    p = model.predict_proba(x_test)[:, 1]
    found = found_of(at_work)
    assert found.pooled["roc_auc_score"].value == pytest.approx(roc_auc_score(y, p), abs=0.005)
    assert found.pooled["log_loss"].value == pytest.approx(log_loss(y, p), abs=0.005)
    # and it is no constant: it beats one by far
    assert found.pooled["roc_auc_score"].value > 0.65


def test_own_model_everywhere_is_the_mean_over_sites_of_one_sites_model_on_all_holdouts(at_work):
    sessions = at_work[0]
    tables, y = holdouts(sessions)
    aucs, losses = [], []
    for work in sessions:
        local = run_client(work.local_model())
        x = np.concatenate([work.encode(table, local.encoder).x for table in tables])
        p = 1 / (1 + np.exp(-local.outputs(x)[:, 0]))
        aucs.append(roc_auc_score(y, p))
        losses.append(log_loss(y, p))
    found = found_of(at_work).own_everywhere
    assert found["roc_auc_score"].value == pytest.approx(np.mean(aucs), abs=1e-12)
    assert found["log_loss"].value == pytest.approx(np.mean(losses), abs=1e-12)
    assert np.ptp(aucs) > 0.001
    assert (found["log_loss"].method, np.isnan(found["log_loss"].low)) == ("mean over sites", True)


@pytest.mark.studies
def test_exact_sums_give_the_encoder_in_use_under_open_and_another_under_institution(at_work, small_sites, small_study):
    assert found_of(at_work).exact_encoder.sha256() == at_work[1].sha256()
    closed = open_workplaces(small_sites(3, rows=150, policy=Policy()), small_study)
    used = fit_encoder(closed[0].layout, merge([w.summary() for w in closed]))
    found = run_client(reference(closed, at_work[2], used))
    assert found.exact_encoder.sha256() == at_work[1].sha256() != used.sha256()
    # the pooled model goes through the exact one: nothing of it is said at a site
    assert found.pooled == found_of(at_work).pooled
    np.testing.assert_allclose(used.center, found.exact_encoder.center, atol=2.5)


def test_the_order_of_sites_changes_no_pooled_row_but_the_figures_stay(at_work):
    sessions, encoder, arrays = at_work
    one, other = (run_client(reference(order, arrays, encoder)) for order in (sessions, sessions[::-1]))
    assert one.exact_encoder.sha256() == other.exact_encoder.sha256()
    assert one.union["roc_auc_score"].value == pytest.approx(other.union["roc_auc_score"].value, abs=1e-12)
    # the folds of cross-validation follow the order of rows: close, not equal
    assert one.pooled["roc_auc_score"].value == pytest.approx(other.pooled["roc_auc_score"].value, abs=0.005)


def test_the_reference_opens_holdouts_to_compare_only(at_work):
    found_of(at_work)
    assert {purpose for work in at_work[0] for purpose in work.table.opened} == {"compare"}


def test_rows_put_together_keep_inputs_targets_and_weights_in_line():
    parts = [Encoded(np.full((n, 2), n), np.full(n, n), np.full(n, 10.0 * n)) for n in (2, 3)]
    rows = pooled_rows(parts)
    assert rows.x.shape == (5, 2)
    np.testing.assert_array_equal(rows.x[:, 0], [2, 2, 3, 3, 3])
    np.testing.assert_array_equal(rows.weight, 10.0 * rows.y)


def test_patients_of_two_parts_put_together_are_never_one():
    parts = [
        Encoded(np.zeros((len(g), 1)), np.zeros(len(g)), np.ones(len(g)), np.array(g)) for g in ([0, 0, 1], [0, 1])
    ]
    plain = replace(parts[1], group=None)
    assert pooled_rows(parts).group.tolist() == [0, 0, 1, 2, 3]
    assert pooled_rows([plain, *parts]).group.tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert pooled_rows([plain, plain]).group is None


def test_a_model_that_saw_one_class_is_left_out_of_the_mean_of_own_models(small_sites, small_study, at_work):
    def spoil(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(y="yes") if number == 0 else table

    sessions = open_workplaces(small_sites(3, rows=150, change=spoil), small_study)
    found = run_client(reference(sessions, at_work[2], at_work[1])).own_everywhere
    tables, y = holdouts(sessions)
    losses = []
    for work in sessions:
        local = run_client(work.local_model())
        x = np.concatenate([work.encode(table, local.encoder).x for table in tables])
        losses.append(log_loss(y, 1 / (1 + np.exp(-local.outputs(x)[:, 0]))))
    assert found["log_loss"].value == pytest.approx(np.mean(losses[1:]), rel=1e-9)
    assert abs(np.mean(losses) - np.mean(losses[1:])) > 0.1
    assert found["log_loss"].method == "mean of 2 sites; 1 whose model saw one class left out"


def test_sites_that_cannot_be_judged_tune_no_model_and_are_left_out_of_the_mean_of_own_models(small_sites, small_study):
    def rare(number: int, table: pd.DataFrame) -> pd.DataFrame:
        few = np.arange(len(table)) % 20 == 0
        return table.assign(y=np.where(few, "yes", "no")) if number else table

    sites = small_sites(3, rows=150, policy=Policy(), change=rare)
    sessions = open_workplaces(sites, small_study)
    encoder = fit_encoder(sessions[0].layout, merge([w.exact_summary for w in sessions]))
    searches = first_searches(sessions)
    arrays = {"weight": np.zeros((sessions[0].training(encoder).x.shape[1], 1)), "bias": np.zeros(1)}
    found = run_client(reference(sessions, arrays, encoder)).own_everywhere["log_loss"]
    assert [len(w._local) for w in sessions] == [1, 0, 0]
    # Nor is one begun before the rounds; what is pooled is.
    assert len([one for one in searches if not isinstance(one, ModelRequest)]) == 1
    local, (tables, y) = run_client(sessions[0].local_model()), holdouts(sessions)
    x = np.concatenate([sessions[0].encode(table, local.encoder).x for table in tables])
    assert found.value == pytest.approx(log_loss(y, 1 / (1 + np.exp(-local.outputs(x)[:, 0]))), rel=1e-9)
    assert found.method == "mean of 1 site; 2 without this figure left out"


def test_where_every_own_model_saw_one_class_there_is_no_mean_of_them(small_sites, small_study, at_work):
    spoilt = open_workplaces(small_sites(3, rows=60, change=lambda _, t: t.assign(y="yes")), small_study)
    found = run_client(reference(spoilt, at_work[2], at_work[1])).own_everywhere
    assert np.isnan([found["roc_auc_score"].value, found["log_loss"].value]).all()
    assert found["log_loss"].method == "mean of 0 sites; 3 whose model saw one class left out"


def test_pooled_is_the_best_model_of_all_rows_and_that_of_the_studys_kind_stands_beside_it(small_sites, small_study):
    mlp = small_study.replace('name = "logistic"', 'name = "mlp"\nhidden = [4]')
    found = {}
    for own in ("best", "same"):
        study = Study.parse(mlp).replace({"compare.site-model": own})
        sessions = [SiteSession(site, study) for site in small_sites(3, rows=150, change=crossed)]
        encoder = fit_encoder(sessions[0].layout, merge([w.exact_summary for w in sessions]))
        arrays = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        found[own] = run_client(reference(sessions, arrays, encoder))
    best, same = found["best"], found["same"]
    assert (best.pooled_family, same.pooled_family, same.pooled_same) == ("boosted-trees", None, {})
    assert best.pooled_same == same.pooled
    # x1 and x2 matter only together: a line through them tells nothing, and the perceptron had no time to learn
    assert best.pooled["roc_auc_score"].value > same.pooled["roc_auc_score"].value + 0.1


SHAPES = {"weight-0": (5, 4), "bias-0": (4,), "weight-1": (4, 1), "bias-1": (1,)}


def crossed(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose outcome goes with the product of x1 and x2, and with neither alone."""
    y = np.where((table["x1"] - 50) * table["x2"].fillna(0) > 0, "yes", "no")
    return table.assign(y=np.where(np.random.default_rng(number).random(len(table)) < 0.1, "yes", y))


def test_groups_of_two_sites_are_never_one_person(small_sites, small_study, tmp_path: Path):
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))

    def persons(number: int, table: pd.DataFrame) -> pd.DataFrame:
        # Site 1: one row a person. Sites 2 and 3: three rows a person, under the same names.
        return table if number == 0 else table.assign(person=[f"P{row // 3}" for row in range(len(table))])

    sessions = open_workplaces(small_sites(3, rows=60, change=persons), small_study)
    codes = _groups(sessions)
    tables = [w.table.holdout("test") for w in sessions]
    expected = pd.factorize(
        np.concatenate([[f"{k}/{person}" for person in table["person"]] for k, table in enumerate(tables)])
    )[0]
    assert codes is not None and len(codes) == sum(map(len, tables))
    # The same partition of rows: each pairing of codes occurs for one code of the other only.
    assert len(set(zip(codes, expected, strict=True))) == len(set(codes)) == len(set(expected))


def test_without_groups_rows_are_their_own(at_work):
    assert _groups(at_work[0]) is None
