"""Fraud on the transactions of the Fraud Detection Handbook (simulated by its authors), five issuers, by time."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from flfed import Frame, HoldoutByTime, Policy, Site, Study, run

with_past = runpy.run_path(str(Path(__file__).resolve().parents[2] / "datasets" / "card-fraud" / "make.py"))[
    "with_past"
]
pytestmark = [pytest.mark.slow, pytest.mark.studies]

NAMES = {
    "customer": "CUSTOMER_ID", "terminal": "TERMINAL_ID", "time": "TX_DATETIME", "amount": "TX_AMOUNT",
    "fraud": "TX_FRAUD",
}  # fmt: skip
CUT, DELAY = pd.Timestamp("2018-08-08"), pd.Timedelta(days=7)
HOLDOUT = HoldoutByTime(
    "time", train_from="2018-07-25", train_until="2018-08-08", gap_days=7, test_from="2018-08-08",
    test_until="2018-08-15", same_groups=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def payments(test_data: Path) -> pd.DataFrame:
    """The payments of June to August: the longest window and the delay need 37 days before the training."""
    path = test_data / "fraud_handbook" / "transactions.parquet"
    since = [("TX_DATETIME", ">=", pd.Timestamp("2018-06-01")), ("TX_DATETIME", "<", pd.Timestamp("2018-08-15"))]
    table = pd.read_parquet(path, columns=list(NAMES.values()), filters=since)
    return table.rename(columns={own: name for name, own in NAMES.items()})


def issuers(payments: pd.DataFrame, *, feed: bool) -> list[Site]:
    """Return five issuing banks; with a feed, each is told by the card scheme what every terminal did."""
    found = []
    for number, (_, own) in enumerate(payments.groupby(payments["customer"] // 1000)):
        rows = own[np.logical_or(own["time"].between("2018-07-25", "2018-08-01"), own["time"] >= CUT)]
        table = with_past(rows, own, payments if feed else None)
        found.append(
            Site(f"issuer-{number}", "card-fraud", Frame(table), holdout=HOLDOUT, policy=Policy(disclosure="open"))
        )
    return found


def means(report: dict, metric: str) -> dict[str, float]:
    """Return the mean over the five issuers of a metric, by arm."""
    sites = report["sites"].values()
    return {arm: float(np.mean([site[arm][metric]["value"] for site in sites])) for arm in ("global", "local-only")}


@pytest.mark.proof
def test_five_issuers_with_the_schemes_feed_find_fraud_as_published_and_better_than_each_alone(payments):
    # TARGETS.md section 3: federated MLP of 32 units 0.898 and 0.686, local 0.880 and 0.638; above 0.93: a label early.
    # One epoch for the pooled model, which is not asked here: tuned, it takes as long as all the rest.
    study = Study.load("card-fraud").replace({"resamples": 200, "compare.pooled": {"lr": 0.5, "epochs": 1}})
    report = run(study, sites=issuers(payments, feed=True)).report
    auc, precision = means(report, "roc_auc_score"), means(report, "average_precision_score")
    assert 0.87 <= auc["global"] <= 0.93
    assert precision["global"] >= 0.65
    assert auc["global"] > auc["local-only"]
    assert precision["global"] > precision["local-only"]
    assert report["status"] == "completed" and report["faults"] == []


def test_a_risk_that_ignored_the_delay_of_labels_would_be_seen(payments):
    # Alone: 0.749 with the delay and 0.997 without (measured), which is why a model above 0.93 is suspected.
    test = payments[payments["time"] >= CUT]
    found = {}
    for days in (7, 0):
        # A label that is known at once is as one of a payment a week before.
        terminals = payments.assign(time=payments["time"] - DELAY + pd.Timedelta(days=days))
        risk = with_past(test, payments, terminals)["terminal_risk_7d"]
        found[days] = roc_auc_score(test["fraud"], risk)
    assert found[7] == pytest.approx(0.749, abs=0.005)
    assert found[0] > 0.99


def test_no_training_label_of_an_issuer_is_later_than_the_cut_minus_the_delay(payments):
    table = issuers(payments, feed=False)[0].read()
    trained, held = table.training["time"], table.holdout("compare")["time"]
    assert trained.max() <= CUT - DELAY
    assert trained.min() >= pd.Timestamp("2018-07-25") and held.min() >= CUT
    # 13,408 payments of customers below 1,000 in the seven training days
    assert len(trained) == 13_408
    assert (table.training["fraud"] == "1").sum() == 123
