"""The script of the simulated payments: it makes the files that ship, and no row knows what came later."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "card-fraud"
MAKE = runpy.run_path(str(FOLDER / "make.py"))
with_past = MAKE["with_past"]
START = pd.Timestamp("2026-01-01")

# Hours on a coarse grid: many equal moments, and gaps of exactly 1, 7 and 8 days.
payment = st.tuples(
    st.integers(0, 160).map(lambda step: 6 * step), st.integers(0, 2), st.integers(0, 2), st.integers(0, 10**7),
    st.integers(0, 1),
)  # fmt: skip


def as_table(payments: list[tuple]) -> pd.DataFrame:
    hours, customer, terminal, cents, fraud = zip(*payments, strict=True)
    return pd.DataFrame({
        "time": START + pd.to_timedelta(hours, unit="h"), "customer": [f"C{number}" for number in customer],
        "terminal": list(terminal), "amount": np.array(cents) / 100, "fraud": list(fraud),
    })  # fmt: skip


def by_hand(table: pd.DataFrame, row: int) -> dict[str, float]:
    """Return one row's columns by looking at every other row, in whole cents."""
    own = table.iloc[row]
    found = {"weekend": float(own.time.day_name() in ("Saturday", "Sunday")), "night": float(own.time.hour < 7)}
    for days in (1, 7, 30):
        length = pd.Timedelta(days=days)
        of_customer = table[(table["customer"] == own.customer) & (table["time"] <= own.time)]
        rows = of_customer[of_customer["time"] > own.time - length]
        cents = int((rows["amount"] * 100).round().sum())
        found |= {f"customer_count_{days}d": len(rows), f"customer_sum_{days}d": cents / 100}
        end = own.time - pd.Timedelta(days=7)
        of_terminal = table[(table["terminal"] == own.terminal) & (table["time"] <= end)]
        rows = of_terminal[of_terminal["time"] > end - length]
        found |= {
            f"terminal_count_{days}d": len(rows),
            f"terminal_risk_{days}d": rows["fraud"].sum() / max(len(rows), 1),
        }
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(payment, min_size=1, max_size=40))
def test_every_column_of_the_past_equals_a_count_by_hand_exactly(payments):
    table = as_table(payments)
    found = with_past(table, table)
    for name in by_hand(table, 0):
        expected = [by_hand(table, row)[name] for row in range(len(table))]
        np.testing.assert_array_equal(found[name], np.array(expected, dtype=float), err_msg=name)


@settings(max_examples=40, deadline=None)
@given(st.lists(payment, min_size=2, max_size=40), st.integers(0, 960))
def test_no_row_knows_a_later_payment_nor_a_label_before_it_was_known(payments, hour):
    table = as_table(payments)
    now = START + pd.Timedelta(hours=hour)
    changed = table.copy()
    later = (table["time"] > now).to_numpy()
    changed.loc[later, ["amount", "customer", "terminal"]] = [99.0, "C9", 9]
    # A label is known seven days after its payment.
    changed.loc[(table["time"] > now - pd.Timedelta(days=7)).to_numpy(), "fraud"] = 1
    before, after = (with_past(one[~later], one).drop(columns="fraud") for one in (table, changed))
    pd.testing.assert_frame_equal(after, before)


def test_the_script_makes_the_rows_that_ship():
    # numpy may change its streams between versions: then these are made anew, with the README's figures.
    for number, (name, (customers, spending)) in enumerate(MAKE["BANKS"].items(), 1):
        if name not in ("hill", "valley"):
            continue
        paid = MAKE["payments"](number, customers, spending)
        chosen = np.any([paid["time"].ge(start) & paid["time"].lt(end) for start, end in MAKE["PERIODS"]], axis=0)
        shipped = pd.read_csv(FOLDER / f"{name}-bank.csv.gz", parse_dates=["time"], float_precision="round_trip")
        made = with_past(paid[chosen], paid).reset_index(drop=True)
        pd.testing.assert_frame_equal(made, shipped, check_exact=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return MAKE["payments"](1, 2000, 45.0)


def test_about_one_payment_in_a_hundred_is_fraud_and_customers_pay_as_often_as_said(table):
    # 65 days at 1.8 a day; the deviation of a customer's rate is 3 % of the mean over 2,000 customers
    assert len(table) / (2000 * 65) == pytest.approx(1.8, rel=0.1)
    assert 0.007 <= table["fraud"].mean() <= 0.017
    assert table["time"].is_monotonic_increasing and (table["amount"] >= 0.5).all()


def test_a_compromised_terminal_is_so_at_every_bank(table):
    other = MAKE["payments"](2, 2000, 45.0)
    shares = [one.groupby("terminal")["fraud"].agg(["mean", "size"]).query("size > 100") for one in (table, other)]
    bad = shares[0].index[shares[0]["mean"] > 0.15]
    elsewhere = shares[1]["mean"].reindex(bad).dropna()
    assert len(elsewhere) >= 5 and elsewhere.min() > 0.08
    assert shares[1]["mean"].drop(bad, errors="ignore").median() < 0.02


def test_everything_that_ships_says_that_it_is_simulated():
    dataset = datasets.load("card-fraud")
    found = sites.of_dataset("card-fraud")
    assert dataset.source.synthetic and "synthetic" in dataset.source.citation
    assert len(found) == 5
    assert all("(simulated)" in site.title for site in found)
    assert "simulated" in (dataset.folder / "README.md").read_text().splitlines()[2].lower()
