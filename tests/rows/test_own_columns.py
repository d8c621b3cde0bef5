"""Columns that a site has beside the shared ones: how they are fitted, what they gain, what is never looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from flfed import OwnColumn, Study, run
from flfed.federation.engines.engine import find_sites
from flfed.records.reports.site_answer import rests_on
from flfed.rows.comparison.arms import OWN_COLUMNS, arm_scores
from flfed.rows.comparison.own_columns import DEVIATIONS, own_fit, own_part, used_at
from flfed.rows.data.schema import Column
from flfed.rows.features.encode import Encoded
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.rows.training.tuned_linear import fit_beside
from flfed.summaries.summary import fit_encoder

AUC = "roc_auc_score"
DECLARED = {"second": OwnColumn("x2", kind="number", range=(-5, 5))}
OWN = {"dataset.features": ["x1", "colour"], "compare.site-columns": True}
TEN = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
HEART = {"dataset.features": TEN, "compare.site-columns": True, "compare.resamples": 200}
THREE = ("ca", "thal", "slope")


def declared(site, name: str, meaning: Column) -> OwnColumn:
    """Return a column of the schema as a site's package would declare it."""
    given = {key: getattr(meaning, key) for key in ("kind", "range", "values", "unit", "transform")}
    return OwnColumn(site.mapping.get(name, name), **given)


def drawn(rows: int, seed: int = 0) -> tuple[Encoded, np.ndarray]:
    """Return rows of two own columns, and a score beside them that is right in itself."""
    rng = np.random.default_rng(seed)
    x, offset = rng.normal(size=(rows, 2)), rng.normal(0, 2, rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-(offset + 0.8 * x[:, 0] - 0.3)))).astype(np.int64)
    return Encoded(x, y, np.ones(rows)), offset


def at_work(site, study: Study) -> tuple[SiteSession, dict[str, np.ndarray], object]:
    """Return a site at work, and a shared model of x1 with its encoder."""
    work = SiteSession(site, study)
    encoder = fit_encoder(work.layout, work.exact_summary)
    weight = np.zeros((work.training(encoder).x.shape[1], 1))
    weight[0, 0] = 0.9
    return work, {"weight": weight, "bias": np.array([0.2])}, encoder


def test_the_fit_is_the_least_of_its_formula():
    rows, offset = drawn(200)

    def objective(w: np.ndarray) -> float:
        score = offset + rows.x @ w[:2] + w[2]
        loss = np.logaddexp(0, score) - score * rows.y
        return loss.sum() + w[:2] @ w[:2] / 2 / 0.3**2 + w[2] ** 2 / 2 / 2.0**2

    found = fit_beside(rows, offset[:, None], "binary", 0.3**-2, 2.0**-2)
    wanted = minimize(objective, np.zeros(3), tol=1e-12).x
    assert [*found.weight[:, 0], *found.bias] == pytest.approx(wanted, abs=1e-4)


def test_a_regression_is_ridge_on_what_the_shared_model_leaves():
    rows, offset = drawn(100)
    left = rows.x @ [0.5, -1.0] + 0.25
    found = fit_beside(replace(rows, y=offset + left), offset[:, None], "regression", 1e-6, 1e-6)
    assert [*found.weight[:, 0], *found.bias] == pytest.approx([0.5, -1.0, 0.25], abs=1e-6)


def test_columns_that_say_nothing_are_penalised():
    sizes = []
    for seed in range(10):
        rows, offset = drawn(60, seed=seed)
        noise = replace(rows, x=np.random.default_rng(seed).normal(size=(60, 8)))
        beside = offset[:, None]
        fits = (
            own_fit(noise, beside, "binary", np.random.default_rng(0)), fit_beside(noise, beside, "binary", 0.01, 0.25),
        )  # fmt: skip
        sizes.append([np.linalg.norm(fit.weight) for fit in fits])
    chosen, weakest = np.mean(sizes, axis=0)
    assert chosen < weakest / 2
    # Of one row nothing can be tested.
    rows, offset = drawn(60)
    one, beside = rows.take(np.array([0])), offset[:1, None]
    found = own_fit(one, beside, "binary", np.random.default_rng(0))
    narrowest, wider = (fit_beside(one, beside, "binary", sd**-2, 0.25).weight for sd in DEVIATIONS[-1:-3:-1])
    assert (found.weight == narrowest).all() and (found.weight != wider).all()


@pytest.mark.studies
def test_without_the_shared_score_twenty_rows_rank_worse():
    # The wrong implementation: a regression on the own columns alone, its score added to nothing.
    (tested, beside), beside_only, alone = drawn(5000, seed=99), [], []
    for seed in range(20):
        rows, offset = drawn(20, seed=seed)
        if len(set(rows.y)) < 2:
            continue
        fit = own_fit(rows, offset[:, None], "binary", np.random.default_rng(seed))
        beside_only.append(roc_auc_score(tested.y, beside + fit(tested.x)[:, 0]) - roc_auc_score(tested.y, beside))
        without = own_fit(rows, np.zeros((20, 1)), "binary", np.random.default_rng(seed))
        alone.append(roc_auc_score(tested.y, without(tested.x)) - roc_auc_score(tested.y, beside))
    assert np.mean(beside_only) > 0.0
    assert np.mean(alone) < -0.1


def test_rows_held_out_do_not_move_the_fit(small_sites, small_study):
    (site,) = small_sites(1, rows=300)
    site = replace(site, own=DECLARED)
    work, arrays, encoder = at_work(site, Study.parse(small_study).replace(OWN))
    fitted = run_client(own_part(work, arrays, encoder))
    held = work.table.holdout("test")
    spoilt = held.assign(
        y=np.where(held["y"] == "yes", "no", "yes"), second=-held["second"], x1=held["x1"].to_numpy()[::-1]
    )
    other = SiteSession(site, work.study, table=replace(work.table, _holdout=spoilt))
    again = run_client(own_part(other, arrays, encoder))
    assert np.array_equal(fitted(held), again(held))
    # The control: a training row that changes moves it.
    changed = work.table.training.assign(second=-work.table.training["second"])
    moved = run_client(
        own_part(SiteSession(site, work.study, table=work.table.with_training(changed)), arrays, encoder)
    )
    assert np.abs(moved(held) - fitted(held)).max() > 0.1


def test_the_arm_adds_the_fit_and_the_sites_own_model_stands_beside_it(small_sites, small_study):
    (site,) = small_sites(1, rows=2000)
    study = Study.parse(small_study)
    found = {}
    for name, changes in {"with": OWN, "without": {"dataset.features": OWN["dataset.features"]}}.items():
        work, arrays, encoder = at_work(replace(site, own=DECLARED), study.replace(changes))
        held = work.table.holdout("test")
        found[name] = run_client(arm_scores(work, held, arrays, encoder, same=True))
    assert set(found["with"]) - set(found["without"]) == {OWN_COLUMNS}
    for arm in ("global", "local-only"):
        assert np.array_equal(found["with"][arm], found["without"][arm])
    y = work.target(held)
    aucs = {arm: roc_auc_score(y, score[:, -1] if score.ndim > 1 else score) for arm, score in found["with"].items()}
    assert aucs["personalised"] > aucs["global"] + 0.03 and aucs[OWN_COLUMNS] > aucs["local-only"] + 0.03


def test_a_site_without_values_leaves_the_column_out(small_sites, small_study):
    study = Study.parse(small_study).replace(OWN)

    def gaps(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table if number == 0 else table.assign(x2=table["x2"].where(table.index % (3 * number) == 0))

    first, half, few = (replace(site, own=DECLARED) for site in small_sites(3, rows=200, change=gaps))
    assert used_at(SiteSession(first, study)) == ("second",)
    assert used_at(SiteSession(half, study)) == used_at(SiteSession(few, study)) == ()
    work, arrays, encoder = at_work(few, study)
    scores = run_client(arm_scores(work, work.table.holdout("test"), arrays, encoder, same=True))
    assert OWN_COLUMNS not in scores


@pytest.mark.studies
@pytest.mark.proof
def test_cleveland_gains_from_its_own_columns(heart):
    study, columns = Study.load("heart-disease").replace(HEART), heart.schema.columns
    # Three columns of the schema, as if Cleveland alone had them.
    sites = [
        replace(site, own={f"own {name}": declared(site, name, columns[name]) for name in THREE})
        if site.name == "cleveland"
        else site
        for site in find_sites(study)
    ]
    found = run(study, sites=sites, repeats=5).report
    of = found["sites"]["cleveland"]
    value = {arm: of[arm][AUC]["value"] for arm in ("global", "local-only", "personalised", OWN_COLUMNS)}
    assert value["personalised"] >= value["global"] + 0.02  # found 0.039, and 0.040 over ten
    assert value[OWN_COLUMNS] > value["local-only"]
    assert OWN_COLUMNS not in found["sites"]["hungary"]
    assert "columns that only this site uses" in "\n".join(rests_on(found, "cleveland", AUC))
