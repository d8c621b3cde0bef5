"""What the shipped studies must show, and bounds that a wrong implementation breaks (TARGETS.md §1, §2)."""

from __future__ import annotations

import pytest

from flfed import Study, run

pytestmark = pytest.mark.slow

REPEATS = 10


def means(study: str, metric: str, *, repeats: int = REPEATS, **changes: object) -> dict[str, float]:
    """Return the mean over repeats of each figure over all holdouts."""
    chosen = Study.load(study).replace({"draws": 200, **changes})
    report = run(chosen, repeats=repeats).report
    if report["status"] != "completed" or report["faults"]:
        pytest.fail(f"{study}: {report['status']} {report['faults']}")
    return {arm: report[arm][metric]["value"] for arm in ("global", "pooled", "own-model-everywhere")}


def test_preterm_birth_neither_leaks_nor_loses_against_pooling():
    found = means("preterm-birth", "roc_auc_score")
    # Published baseline columns allow about .64; more means that a later column leaked in.
    assert 0.61 <= found["global"] <= 0.70
    assert found["global"] >= found["pooled"] - 0.015
    assert found["global"] >= found["own-model-everywhere"] + 0.06


def test_loan_default_is_as_good_as_pooling():
    found = means("loan-default", "roc_auc_score")
    assert found["global"] >= 0.73
    assert abs(found["global"] - found["pooled"]) <= 0.01
    assert found["global"] >= found["own-model-everywhere"] + 0.005


@pytest.mark.usefixtures("heart")
def test_heart_disease_is_as_good_as_pooling():
    found = means("heart-disease", "roc_auc_score")
    assert found["global"] >= 0.88
    assert abs(found["global"] - found["pooled"]) <= 0.015
    assert found["global"] >= found["own-model-everywhere"] + 0.05


@pytest.mark.usefixtures("heart")
def test_a_scaler_of_each_site_breaks_the_bound_on_heart_disease():
    found = means("heart-disease", "roc_auc_score", repeats=4, **{"encode.scaler": "per-site"})
    assert found["pooled"] - found["global"] > 0.015


def test_diabetes_reaches_the_pooled_fit():
    found = means("diabetes", "r2_score")
    assert abs(found["global"] - found["pooled"]) <= 0.02
    assert found["global"] > 0.4


def test_wine_reaches_the_pooled_fit():
    found = means("wine", "log_loss")
    assert abs(found["global"] - found["pooled"]) <= 0.02
    assert found["global"] < 0.1
