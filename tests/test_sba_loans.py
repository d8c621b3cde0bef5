"""Loans by bank: no feature tells the outcome afterwards."""

import pytest
from sklearn.metrics import roc_auc_score

from flfed import Study
from flfed.federation.engines.engine import find_sites
from flfed.rows.data import datasets
from flfed.rows.study_model import study_layout

pytestmark = [pytest.mark.slow, pytest.mark.studies]
LATER = {
    "Term", "RealEstate", "Recession", "DisbursementGross", "DisbursementDate", "ChgOffDate", "ChgOffPrinGr",
    "MIS_Status", "BalanceGross", "daysterm", "xx", "Selected",
}  # fmt: skip
"""Columns that are known, or made, only after a loan was approved."""


def test_ten_banks_and_all_others_are_the_sites(sba_loans):
    sites = {site.name: site.read() for site in find_sites(Study.load("sba-loans"))}
    rows = {
        name.removeprefix("sba-loans-"): len(one.training) + len(one.holdout("test")) for name, one in sites.items()
    }
    assert (len(rows), sum(rows.values()), rows["other"]) == (11, 2098, 792)
    assert min(rows.values()) == rows["mufg-union-bank"] == 68


def test_no_feature_is_known_only_after_the_approval(sba_loans):
    study = Study.load("sba-loans")
    schema = datasets.load(study.dataset.name).schema
    features = {column.name for column in study_layout(study, schema).features}
    # Nor is the bank one: the model is of use at another bank.
    assert not features & (LATER | {"Bank", "Name", "Default"})
    assert all(schema.columns[one].leak for one in LATER & schema.columns.keys())


def test_the_term_of_a_loan_tells_how_long_it_was_paid(sba_loans):
    table = datasets.load("sba-loans").whole_table()
    defaulted = table["Default"].map({"paid": 0, "charged-off": 1}).to_numpy()
    assert roc_auc_score(defaulted, -table["Term"].astype(float)) == pytest.approx(0.881, abs=0.002)
    assert ((table["Term"].astype(float) >= 240) == (table["RealEstate"] == "1")).all()
