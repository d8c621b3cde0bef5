"""Simulated payments: the same every time, about 1 % fraud, three patterns, terminals that banks share."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.transactions import CUSTOMER_FACTOR, LARGE, SimulatedTransactions, _made

BIG = SimulatedTransactions(issuer=1, customers=2000)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return BIG.read()


def test_the_same_arguments_give_the_same_bytes_and_others_do_not():
    small = SimulatedTransactions(issuer=3, customers=40)
    digests = [
        hashlib.sha256(one.read().to_csv(index=False).encode()).hexdigest()
        for one in (small, small, replace(small, issuer=4), replace(small, seed=1))
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    # numpy may change its streams between versions; then this is to be measured anew, with the README's figures.
    assert digests[0] == "6412f7e56093e3ebdd72e133fcc0962c2fd77a7dd299ee55676ebb4dfcdfc24c"


def test_a_table_is_made_once_and_each_reading_is_the_callers_own():
    bank = SimulatedTransactions(issuer=3, customers=40)
    first = bank.read()
    expected, made = first.copy(), _made.cache_info().misses
    first["amount"], first.loc[0, "customer"] = 0.0, "nobody"
    pd.testing.assert_frame_equal(replace(bank, missing=("x",)).read(), expected)
    assert _made.cache_info().misses == made
    # memory is not held for ever: a study's five banks
    assert _made.cache_info().maxsize == 5


def test_about_one_payment_in_a_hundred_is_fraud_and_customers_pay_as_often_as_said(table):
    # 65 days at 1.8 a day; the deviation of a customer's rate is 3 % of the mean over 2,000 customers
    assert len(table) / (2000 * 65) == pytest.approx(1.8, rel=0.1)
    assert 0.007 <= table["fraud"].mean() <= 0.017
    assert table["time"].is_monotonic_increasing
    assert (table["amount"] >= 0.5).all()


def test_large_amounts_are_fraud(table):
    rest = SimulatedTransactions(issuer=1, customers=2000, spending=1.0).read()
    assert rest.loc[rest["amount"] >= LARGE[0], "fraud"].mean() == 1.0
    # 0.0015 of all payments
    assert (rest["amount"] >= LARGE[0]).mean() == pytest.approx(0.0015, rel=0.3)


def test_a_compromised_terminal_is_so_at_every_bank_and_for_four_weeks(table):
    other = SimulatedTransactions(issuer=2, customers=2000).read()
    shares = [one.groupby("terminal")["fraud"].agg(["mean", "size"]).query("size > 100") for one in (table, other)]
    bad = shares[0].index[shares[0]["mean"] > 0.15]
    elsewhere = shares[1]["mean"].reindex(bad).dropna()
    assert len(elsewhere) >= 5 and elsewhere.min() > 0.08
    assert shares[1]["mean"].drop(bad, errors="ignore").median() < 0.02
    place = table[table["terminal"] == max(bad, key=lambda name: shares[0].loc[name, "size"])]
    frauds = place.loc[place["fraud"] == 1, "time"]
    within = place[place["time"].between(frauds.quantile(0.05), frauds.quantile(0.95))]
    assert (frauds.quantile(0.95) - frauds.quantile(0.05)).days < 28
    assert within["fraud"].mean() == pytest.approx(0.6, abs=0.15)


def test_a_stolen_card_pays_more_than_usual_for_two_weeks(table):
    # Customers with at least three frauds at three terminals: not a terminal's fault.
    frauds = table[table["fraud"] == 1].groupby("customer")
    stolen = frauds.filter(lambda rows: len(rows) >= 4 and rows["terminal"].nunique() >= 4)
    assert stolen["customer"].nunique() >= 10
    usual = table[table["fraud"] == 0].groupby("customer")["amount"].mean()
    ratio = stolen["amount"] / stolen["customer"].map(usual)
    assert 0.6 * CUSTOMER_FACTOR < np.median(ratio) < 1.4 * CUSTOMER_FACTOR


def test_everything_that_ships_says_that_it_is_simulated():
    dataset = datasets.load("card-fraud")
    found = sites.of_dataset("card-fraud")
    assert dataset.source.synthetic and "synthetic" in dataset.source.citation
    assert len(found) == 5
    assert all("(simulated)" in site.title for site in found)
    assert "simulated" in (dataset.folder / "README.md").read_text().splitlines()[2].lower()


@pytest.mark.parametrize("given", [{"issuer": 0}, {"customers": 0}, {"spending": 0.0}, {"seed": -1}])
def test_a_bank_that_cannot_be_made_is_refused(given):
    with pytest.raises(UsageError, match="SimulatedTransactions: issuer="):
        SimulatedTransactions(**{"issuer": 1, **given})
