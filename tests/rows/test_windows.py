"""Windows of the past: equal to a slow count by hand, order does not matter, and nothing looks ahead."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flfed.rows.data.schema import parse_settings
from flfed.rows.data.transactions import Windows, look_back

ROOT = Path(__file__).resolve().parents[2]
START = pd.Timestamp("2026-01-01")
DECLARED = Windows.model_validate(
    tomllib.loads("""
time = "time"
amount = "amount"
label = "fraud"
label-delay-days = 7
[calendar]
weekend = { weekdays = [5, 6] }
night = { hours = [0, 7] }
[windows]
"c_count_{days}" = { by = "customer", what = "count", days = [1, 7] }
"c_sum_{days}" = { by = "customer", what = "sum", of = "amount", days = [1, 7] }
"c_mean_{days}" = { by = "customer", what = "mean", of = "amount", days = [1, 7] }
"t_count_{days}" = { by = "terminal", what = "count", days = [1, 30], delayed = true }
"t_risk_{days}" = { by = "terminal", what = "risk", days = [1, 30] }
""")
)

# Hours on a coarse grid: many equal moments, and gaps of exactly 1, 7 and 8 days.
payment = st.tuples(
    st.integers(0, 160).map(lambda step: 6 * step), st.integers(0, 2), st.integers(0, 2), st.integers(0, 10**7),
    st.sampled_from([0.0, 1.0, float("nan")]),
)  # fmt: skip


def as_table(payments: list[tuple]) -> pd.DataFrame:
    hours, customer, terminal, cents, fraud = zip(*payments, strict=True)
    return pd.DataFrame({
        "time": START + pd.to_timedelta(hours, unit="h"), "customer": [f"C{number}" for number in customer],
        "terminal": list(terminal), "amount": np.array(cents) / 100, "fraud": np.array(fraud, dtype=float),
    })  # fmt: skip


def by_hand(table: pd.DataFrame, row: int) -> dict[str, float]:
    """Return one row's columns by looking at every other row, in whole cents."""
    own = table.iloc[row]
    found = {"weekend": float(own.time.day_name() in ("Saturday", "Sunday")), "night": float(own.time.hour < 7)}
    for days in (1, 7):
        rows = [
            other
            for other in table.itertuples()
            if other.customer == own.customer and own.time - pd.Timedelta(days=days) < other.time <= own.time
        ]
        cents = sum(round(other.amount * 100) for other in rows)
        found |= {f"c_count_{days}": len(rows), f"c_sum_{days}": cents / 100, f"c_mean_{days}": cents / 100 / len(rows)}
    end = own.time - pd.Timedelta(days=7)
    for days in (1, 30):
        rows = [
            other
            for other in table.itertuples()
            if other.terminal == own.terminal and end - pd.Timedelta(days=days) < other.time <= end
        ]
        known = [other.fraud for other in rows if other.fraud == other.fraud]
        found |= {f"t_count_{days}": len(rows), f"t_risk_{days}": sum(known) / len(known) if known else 0.0}
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(payment, min_size=1, max_size=40))
def test_every_window_equals_a_count_by_hand_exactly(payments):
    table = as_table(payments)
    found = look_back(table, DECLARED, np.ones(len(table), dtype=bool))
    expected = pd.DataFrame([by_hand(table, row) for row in range(len(table))])
    assert list(found.columns) == list(DECLARED.made())
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name].astype(float), err_msg=name)


@settings(max_examples=40, deadline=None)
@given(st.lists(payment, min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_which_are_wanted_changes_a_row(payments, random):
    table = as_table(payments)
    every = look_back(table, DECLARED, np.ones(len(table), dtype=bool))
    order = list(range(len(table)))
    random.shuffle(order)
    wanted = np.array([random.random() < 0.5 for _ in order])
    part = look_back(table.iloc[order], DECLARED, wanted)
    pd.testing.assert_frame_equal(part.sort_index(), every.loc[sorted(np.array(order)[wanted])])


@settings(max_examples=40, deadline=None)
@given(st.lists(payment, min_size=2, max_size=40), st.integers(0, 960))
def test_no_row_knows_a_later_payment_nor_a_label_before_it_was_known(payments, hour):
    table = as_table(payments)
    now = START + pd.Timedelta(hours=hour)
    changed = table.copy()
    later = (table["time"] > now).to_numpy()
    changed.loc[later, "amount"] = 99.0
    changed.loc[later, "customer"] = "C9"
    changed.loc[later, "terminal"] = 9
    # a label is known seven days after its payment
    changed.loc[(table["time"] > now - pd.Timedelta(days=7)).to_numpy(), "fraud"] = 1.0
    before, after = (look_back(one, DECLARED, ~later) for one in (table, changed))
    pd.testing.assert_frame_equal(after, before)


def test_a_label_counts_from_the_moment_it_is_known_and_not_before():
    # One fraud at hour 0, and payments 1 minute before, at, and 23 h after the moment its label is known.
    minutes = np.array([0, 7 * 1440 - 1, 7 * 1440, 8 * 1440 - 60, 8 * 1440])
    table = as_table([(0, 0, 0, 100, 1.0)] * 5)
    table["time"] = START + pd.to_timedelta(minutes, unit="min")
    table["fraud"] = [1.0, np.nan, np.nan, np.nan, np.nan]
    found = look_back(table, DECLARED, np.ones(5, dtype=bool))
    assert found["t_risk_1"].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]
    assert found["t_risk_30"].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_a_history_of_its_own_replaces_that_of_the_table():
    table = as_table([(24 * 10, 0, 0, 500, 0.0), (24 * 11, 0, 1, 500, 0.0)])
    told = as_table([(24, 0, 0, 0, 1.0), (24, 0, 0, 0, 0.0), (48, 0, 0, 0, 0.0), (24 * 9, 0, 0, 0, 1.0)])
    found = look_back(table, DECLARED, np.ones(2, dtype=bool), {"terminal": told[["terminal", "time", "fraud"]]})
    assert found["t_count_30"].tolist() == [3.0, 0.0]
    assert found["t_risk_30"].tolist() == [pytest.approx(1 / 3), 0.0]
    assert found["c_count_7"].tolist() == [1.0, 2.0]


def test_a_sum_of_money_is_exact_after_millions():
    # 0.1 ten thousand times over: running sums of floats would be off in the ninth digit.
    table = as_table([(0, 0, 0, 10, 0.0)] * 10_000)
    found = look_back(table, DECLARED, np.ones(len(table), dtype=bool))
    assert set(found["c_sum_1"]) == {1000.0}


def test_the_shipped_declaration_makes_the_columns_of_its_schema():
    declared = parse_settings(Windows, ROOT / "datasets" / "card-fraud" / "transactions.toml")
    schema = tomllib.loads((ROOT / "datasets" / "card-fraud" / "schema.toml").read_text())
    assert declared.label_delay_days == 7
    assert [*declared.taken(), *declared.made()] and len(declared.made()) == 14
    assert set(schema["columns"]) == {*declared.taken(), *declared.made()}


@pytest.mark.parametrize(("line", "why"), [
    ('w = { by = "customer", what = "sum", days = [1] }', "needs a column"),
    ('w = { by = "customer", what = "count", of = "amount", days = [1] }', "takes no column"),
    ('w = { by = "customer", what = "count", days = [0] }', "at least 1"),
    ('w = { by = "customer", what = "count", days = [] }', "at least 1 item"),
    ('w = { by = "customer", what = "count", days = [1, 7] }', "stands twice"),
    ('amount = { by = "customer", what = "count", days = [1] }', "stands twice"),
    ('w = { by = "customer", what = "median", days = [1] }', "count"),
])  # fmt: skip
def test_a_window_that_means_nothing_is_refused(line, why):
    text = f'time = "time"\namount = "amount"\nlabel = "fraud"\nlabel-delay-days = 7\n[windows]\n{line}\n'
    with pytest.raises(ValidationError, match=why):
        Windows.model_validate(tomllib.loads(text))


@pytest.mark.parametrize(("change", "why"), [
    ({"label_delay_days": 0}, "at least 1 for a risk, which else counts a row's own label"),
    ({"negative": "1"}, "positive and negative are both '1'"),
])  # fmt: skip
def test_a_declaration_that_would_show_a_row_its_own_label_is_refused(change, why):
    with pytest.raises(ValidationError, match=why):
        Windows.model_validate({**DECLARED.model_dump(), **change})


@pytest.mark.parametrize("rule", [{}, {"weekdays": [7]}, {"hours": [7, 7]}, {"weekdays": [1], "hours": [0, 1]}])
def test_a_flag_of_the_calendar_needs_one_rule_that_can_be(rule):
    text = {"time": "t", "amount": "a", "label": "l", "label-delay-days": 0, "windows": {}, "calendar": {"x": rule}}
    with pytest.raises(ValidationError):
        Windows.model_validate(text)
