"""Transactions as a site's source: CSV, Parquet, never a pickle; held out by time, labels only once known."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed import (
    Csv,
    Field,
    Frame,
    Holdout,
    HoldoutByTime,
    Parquet,
    Policy,
    SimulatedTransactions,
    Site,
    Sql,
    Transactions,
)
from flfed.errors import TableError, UsageError
from flfed.rows.data import datasets
from flfed.rows.data.table_check import check_site
from flfed.rows.splits.flamby_43 import Flamby43

OWN = {"customer": "CUSTOMER_ID", "terminal": "TERMINAL_ID", "time": "TX_DATETIME", "amount": "TX_AMOUNT",
       "fraud": "TX_FRAUD"}  # fmt: skip
HOLDOUT = HoldoutByTime(
    "time", train_from="2026-03-20", train_until="2026-04-07", gap_days=7, test_from="2026-04-07",
    test_until="2026-04-14", same_groups=True,
)  # fmt: skip
OPEN = Policy(disclosure="open")


@pytest.fixture(scope="module")
def payments() -> pd.DataFrame:
    """A bank of forty customers, its columns as the handbook calls them."""
    table = SimulatedTransactions(issuer=9, customers=40).read()
    table["customer"] = table["customer"].str[3:].astype(int)
    table["terminal"] = table["terminal"].str[1:].astype(int)
    return table.rename(columns=OWN)


def bank(source: object, **changes: object) -> Site:
    given = {"name": "bank", "dataset": "card-fraud", "holdout": HOLDOUT, "policy": OPEN, **changes}
    return Site(source=source, **given)


def test_csv_parquet_and_frame_give_the_same_site(payments, tmp_path):
    payments.to_csv(tmp_path / "t.csv", index=False)
    payments.astype({"CUSTOMER_ID": "int32", "TX_FRAUD": "int8"}).to_parquet(tmp_path / "t.parquet")
    sources = [Csv(str(tmp_path / "t.csv")), Parquet(str(tmp_path / "t.parquet")), Frame(payments.iloc[::-1])]
    read = [bank(Transactions(source, columns=OWN)).read() for source in sources]
    assert len(read[0].training) > 700 and read[0].holdout_rows > 300
    for other in read[1:]:
        pd.testing.assert_frame_equal(other.training, read[0].training)
        pd.testing.assert_frame_equal(other.holdout("compare"), read[0].holdout("compare"))


@pytest.mark.parametrize("ending", ["pkl", "pickle", "PKL"])
def test_a_pickle_is_never_opened(payments, tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(pickle.dumps(payments))
    for source in (Csv(str(path)), Parquet(str(path))):
        with pytest.raises(UsageError, match=rf"t\.{ending}: a pickle can run code when it is opened"):
            bank(Transactions(source, columns=OWN)).inspect()


def test_rows_are_of_the_two_periods_and_no_training_label_is_later_than_the_cut_minus_the_delay(payments):
    table = bank(Transactions(Frame(payments), columns=OWN)).read()
    cut, delay = pd.Timestamp("2026-04-07"), pd.Timedelta(days=7)
    trained, held = table.training["time"], table.holdout("compare")["time"]
    times = payments["TX_DATETIME"]
    assert len(trained) == times.between("2026-03-20", cut - delay).sum()
    assert len(held) == ((times >= cut) & (times < "2026-04-14")).sum()
    assert trained.max() <= cut - delay
    assert trained.min() >= pd.Timestamp("2026-03-20")


def test_labels_that_were_not_known_at_the_cut_change_no_training_row_and_no_input(payments):
    cut = pd.Timestamp("2026-04-07")
    changed = payments.copy()
    unknown = changed["TX_DATETIME"] > cut - pd.Timedelta(days=7)
    changed.loc[unknown, "TX_FRAUD"] = 1 - changed.loc[unknown, "TX_FRAUD"]
    before, after = (bank(Transactions(Frame(table), columns=OWN)).read() for table in (payments, changed))
    pd.testing.assert_frame_equal(after.training, before.training)
    # On the first day of the test the same labels are still unknown; a week later they are used.
    inputs = [name for name in before.training if name != "fraud"]
    early = [t.holdout("compare").query("time < '2026-04-07 23:59'")[inputs] for t in (before, after)]
    # Rows are sorted by all of their cells, so that other labels put them in another order.
    known = [part[part["time"] <= cut].sort_values(inputs[:4], ignore_index=True) for part in early]
    pd.testing.assert_frame_equal(known[1], known[0])
    late = [t.holdout("compare").query("time > '2026-04-09'").sort_values(inputs[:4]) for t in (before, after)]
    assert (late[0]["terminal_risk_1d"].to_numpy() != late[1]["terminal_risk_1d"].to_numpy()).mean() > 0.1


@pytest.mark.parametrize("gap", [0, 6])
def test_a_gap_shorter_than_the_delay_of_labels_is_refused_with_the_one_that_is_needed(payments, gap):
    short = HoldoutByTime("time", train_until="2026-04-06", test_from="2026-04-07", gap_days=gap, same_groups=True)
    if gap == 6:
        assert bank(Transactions(Frame(payments), columns=OWN), holdout=short).read().holdout_rows > 0
        short = replace(short, gap_days=5)
    with pytest.raises(UsageError, match="must end at 2026-03-31, not 2026-04-0.*gap_days=7"):
        bank(Transactions(Frame(payments), columns=OWN), holdout=short).inspect()


def test_a_holdout_by_hash_is_refused_for_transactions():
    with pytest.raises(UsageError, match="site 'bank': transactions are held out by time"):
        bank(Transactions(SimulatedTransactions(1)), holdout=Holdout(salt="s"))


def test_a_bank_may_keep_its_own_customers_of_a_table_that_holds_more(payments):
    keep = [lambda table, number=number: table["customer"] % 2 == number for number in (0, 1)]
    halves = [bank(Transactions(Frame(payments), columns=OWN, keep=one)).read().training for one in keep]
    whole = bank(Transactions(Frame(payments), columns=OWN)).read().training
    assert sum(map(len, halves)) == len(whole)
    assert set(halves[0]["customer"].astype(int) % 2) == {0}
    # A customer's own windows need nobody else; a terminal's are those of the bank's own payments.
    joined = pd.concat(halves).sort_values(["time", "customer", "amount"]).reset_index(drop=True)
    same = whole.sort_values(["time", "customer", "amount"]).reset_index(drop=True)
    np.testing.assert_array_equal(joined["customer_sum_30d"], same["customer_sum_30d"])
    assert (joined["terminal_count_30d"] <= same["terminal_count_30d"]).all()
    assert joined["terminal_count_30d"].sum() < 0.8 * same["terminal_count_30d"].sum()


def test_a_feed_of_all_terminals_gives_each_bank_what_all_of_them_together_would_see(payments):
    told = payments.rename(columns={own: name for name, own in OWN.items()})[["terminal", "time", "fraud"]]
    source = Transactions(Frame(payments), columns=OWN, feeds={"terminal": Frame(told)})
    half = bank(replace(source, keep=lambda table: table["customer"] < 20)).read().training
    whole = bank(Transactions(Frame(payments), columns=OWN)).read().training
    expected = whole[whole["customer"].astype(int) < 20].reset_index(drop=True)
    pd.testing.assert_frame_equal(half, expected)
    with pytest.raises(UsageError, match="feeds\\['shop'\\] must be one of customer, terminal"):
        bank(replace(source, feeds={"shop": Frame(told)})).inspect()


def test_a_feed_whose_owners_are_text_says_the_same_as_one_of_numbers(payments):
    told = payments.rename(columns={own: name for name, own in OWN.items()})[["terminal", "time", "fraud"]]
    source = Transactions(Frame(payments), columns=OWN, feeds={"terminal": Frame(told)})
    written = replace(source, feeds={"terminal": Frame(told.astype(str))})
    found = [bank(one).read().training for one in (source, written)]
    pd.testing.assert_frame_equal(*found)
    assert (found[1]["terminal_risk_30d"] > 0).mean() > 0.01


def test_the_check_of_a_site_says_whose_history_comes_from_a_feed(payments):
    told = payments.rename(columns={own: name for name, own in OWN.items()})[["terminal", "time", "fraud"]]
    source = Transactions(Frame(payments), columns=OWN, feeds={"terminal": Frame(told)})
    said = [[line.detail for line in check_site(bank(one)).lines] for one in (replace(source, feeds={}), source)]
    assert [sum("comes from a feed" in detail for detail in details) for details in said] == [0, 1]


def test_a_label_in_other_words_is_refused_and_not_taken_for_no_fraud(payments, tmp_path):
    table = payments.assign(TX_FRAUD=payments["TX_FRAUD"].map({0: "G", 1: "F"}))
    rule = "column 'fraud' is neither '1' nor '0' as the windows' file declares it in [0-9]+ rows"
    mapping = {"fraud": Field("fraud", values={"F": "1", "G": "0"})}
    site = bank(Transactions(Frame(table), columns=OWN), mapping=mapping)
    with pytest.raises(TableError, match=rule):
        site.inspect()
    # Its own declaration, in the site's folder, says what its codes mean.
    shipped = (datasets.load("card-fraud").folder / "transactions.toml").read_text()
    (tmp_path / "transactions.toml").write_text(shipped.replace('positive = "1"', 'positive = "F"\nnegative = "G"'))
    expected = bank(Transactions(Frame(payments), columns=OWN)).read().training
    pd.testing.assert_frame_equal(replace(site, folder=tmp_path).read().training, expected)


@pytest.mark.parametrize(("keep", "why"), [
    (lambda table: table["customer"] // 1000 == 2, r"keep cannot be used on the table \(TypeError\)"),
    ("customer // 1000 == 2", r"keep cannot be used on the table \(TypeError\)"),
    ("shop == 2", r"keep cannot be used on the table \(UndefinedVariableError\)"),
    ("customer ==", r"keep cannot be used on the table \(SyntaxError\)"),
    (lambda table: table["shop"] == 2, r"keep cannot be used on the table \(KeyError\)"),
    (lambda table: table["customer"], "keep must give True or False for each row"),
    (lambda table: np.array([True]), "keep must give True or False for each row"),
])  # fmt: skip
def test_a_choice_of_rows_that_fails_is_said_without_a_cell(payments, keep, why):
    source = Transactions(Frame(payments.head(50).astype(str)), columns=OWN, keep=keep)
    with pytest.raises(UsageError, match=why):
        bank(source).inspect()


def test_a_choice_of_rows_in_words_is_the_function_and_can_be_sent_to_another_process(payments):
    source = Transactions(Frame(payments), columns=OWN)
    ways = "customer % 4 == 3", lambda table: table["customer"] % 4 == 3
    found = [bank(replace(source, keep=keep)) for keep in ways]
    pd.testing.assert_frame_equal(*(site.read().training for site in found))
    again = pickle.loads(pickle.dumps(found[0])).read()
    assert len(again.training) > 100 and set(again.training["customer"].astype(int) % 4) == {3}


def test_transactions_are_split_by_the_moment_that_their_windows_end_at_and_by_nothing_else(payments):
    source = Transactions(Frame(payments), columns=OWN)
    with pytest.raises(UsageError, match="holdout: column='posted' must be 'time'"):
        bank(source, holdout=replace(HOLDOUT, column="posted")).inspect()
    free = bank(source, policy=Policy(disclosure="open", resplit=True))
    with pytest.raises(UsageError, match="held out by time, and the study asks for a published split"):
        free.read(published=Flamby43())


def test_a_payment_without_a_label_is_history_and_no_row(payments):
    table = payments.astype({"TX_FRAUD": float})
    last = table["TX_DATETIME"] >= "2026-04-13"
    table.loc[last, "TX_FRAUD"] = np.nan
    site = bank(Transactions(Frame(table), columns=OWN))
    unlabelled = int((last & (table["TX_DATETIME"] < "2026-04-14")).sum())
    checked = check_site(site)
    line = next(line for line in checked.lines if line.column == "fraud")
    assert checked.passed
    assert f"missing in {unlabelled} of" in line.detail and "not known yet" in line.detail
    assert checked.training_rows + checked.holdout_rows == checked.rows - unlabelled


@pytest.mark.parametrize(("column", "cell", "why"), [
    ("TX_DATETIME", "Canary", "column 'time' is not a date .* in fewer than 5 rows"),
    ("TX_AMOUNT", "Canary", "column 'amount' is not a number in fewer than 5 rows"),
    ("TX_AMOUNT", "inf", "column 'amount' is not a number in fewer than 5 rows"),
    ("CUSTOMER_ID", " ", "column 'customer' has no value in fewer than 5 rows"),
    ("TERMINAL_ID", "", "column 'terminal' has no value in fewer than 5 rows"),
])  # fmt: skip
def test_a_cell_that_cannot_be_used_is_counted_and_never_quoted(payments, column, cell, why):
    table = payments.head(2000).astype(str)
    table.loc[7, column] = cell
    with pytest.raises(TableError, match=why) as raised:
        bank(Transactions(Frame(table), columns=OWN)).inspect()
    assert "Canary" not in str(raised.value)


def test_a_column_that_is_absent_or_misnamed_is_said(payments):
    with pytest.raises(TableError, match="column 'terminal' is not in the table"):
        bank(Transactions(Frame(payments.drop(columns="TERMINAL_ID")), columns=OWN)).inspect()
    with pytest.raises(UsageError, match="columns\\['shop'\\] must be one of customer, terminal, time, amount, fraud"):
        bank(Transactions(Frame(payments), columns={"shop": "TERMINAL_ID"})).inspect()
    with pytest.raises(UsageError, match="source='t.csv' must be a Csv, Parquet, Sql, Frame or SimulatedTransactions"):
        Transactions("t.csv")


def test_a_query_on_a_database_gives_the_same_rows(payments, tmp_path, monkeypatch):
    import sqlalchemy

    url = f"sqlite:///{tmp_path / 'bank.db'}"
    payments.to_sql("payments", sqlalchemy.create_engine(url), index=False)
    monkeypatch.setenv("FLFED_SITE_URL", url)
    read = bank(Transactions(Sql("SELECT * FROM payments"), columns=OWN)).read()
    pd.testing.assert_frame_equal(read.training, bank(Transactions(Frame(payments), columns=OWN)).read().training)
