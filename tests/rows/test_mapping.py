"""How own columns become a schema's: every conversion, and errors that say no cell."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.errors import UsageError
from flfed.rows.data.mapping import _as_read_from_text, _numbers_at_once, _plain_cell, map_table, plain_text
from flfed.rows.data.parsing.cells import AMBIGUOUS
from flfed.rows.data.parsing.fields import NO_GROUP, Field
from flfed.rows.data.schema import Schema

CANARY = "Canary-Jane-Roe-8842"

SCHEMA = Schema.model_validate({
    "name": "small", "task": "binary", "target": "y",
    "columns": {
        "person": {"kind": "id"}, "seen": {"kind": "date"},
        "chol": {"kind": "number", "range": [50, 1000], "unit": "mg/dL", "missing": [0]},
        "dose": {"kind": "number", "range": [0, 100]}, "smokes": {"kind": "flag"},
        "sex": {"kind": "category", "values": ["female", "male"]},
        "later": {"kind": "number", "range": [0, 1], "leak": "after the outcome"},
        "y": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip


def raw(**columns) -> pd.DataFrame:
    """Two good rows, as text, with some columns replaced."""
    good = {"person": "P", "seen": "2026-01-31", "chol": "200", "dose": "1", "smokes": "1", "sex": "male", "y": "no"}
    rows = max([len(cells) for cells in columns.values()], default=2)
    return pd.DataFrame({name: columns.get(name, [cell] * rows) for name, cell in good.items()})


def mapped(table: pd.DataFrame, missing: tuple[str, ...] = (), **mapping) -> pd.DataFrame:
    found, findings = map_table(table, SCHEMA, mapping, missing)
    assert [str(finding.error()) for finding in findings] == []
    return found


def rules(table: pd.DataFrame, missing: tuple[str, ...] = (), **mapping) -> list[str]:
    return [str(finding.error()) for finding in map_table(table, SCHEMA, mapping, missing)[1]]


def test_a_table_in_the_schemas_own_words_is_read_as_it_stands():
    table = mapped(raw())
    assert list(table.columns) == list(SCHEMA.columns)
    assert table["chol"].tolist() == [200.0, 200.0]
    assert table["seen"].tolist() == [pd.Timestamp("2026-01-31")] * 2
    assert table["later"].isna().all()


def test_columns_are_renamed_and_values_mapped():
    table = raw(sex=["1", " 0.0 ", ""]).rename(columns={"sex": "GESCHLECHT"})
    found = mapped(table, sex=Field("GESCHLECHT", values={"1": "male", "0": "female"}))
    assert found["sex"].tolist() == ["male", "female", None]


def test_units_are_converted():
    # 38.67 mg/dL a mmol/L; 0 °C = 32 °F, 1 °C = 1.8 °F more
    found = mapped(raw(chol=["5", "6.5"]), chol=Field("chol", multiply=38.67))
    np.testing.assert_allclose(found["chol"], [193.35, 251.355], rtol=1e-12)
    found = mapped(raw(dose=["10", "0"]), dose=Field("dose", multiply=1.8, add=32))
    np.testing.assert_allclose(found["dose"], [50, 32], rtol=1e-12)


def test_a_conversion_that_ends_a_hair_outside_the_range_is_at_its_end():
    found = mapped(raw(dose=["33.333333333333336", "1"]), dose=Field("dose", multiply=3.0000000000000004))
    assert found["dose"].tolist() == [100.0, pytest.approx(3.0)]


def test_marks_that_may_stand_between_thousands_are_reported_beside_limits_and_millions():
    limits = Field("dose", censored="limit", multiply=0.001)
    for cells in ([">35.000", "12.500", "7"], ["< 35.000", "<=12.500", "7"]):
        said = rules(raw(dose=cells), dose=limits)
        assert said == [f"column 'dose' {AMBIGUOUS} in fewer than 5 rows"]
    findings = map_table(raw(dose=["35.000", "1.234.567", "9"]), SCHEMA, {"dose": Field("dose", multiply=0.00005)})[1]
    assert [finding.rows.tolist() for finding in findings] == [[0, 1]]
    # One cell that can be a decimal only tells what the mark is.
    assert mapped(raw(dose=[">35.000", "12.50"]), dose=Field("dose", censored="limit"))["dose"].tolist() == [35.0, 12.5]


def test_midnights_of_another_zone_are_told_by_rows_where_they_have_few_dates():
    days = ["2026-01-30T23:00:00Z", "2026-06-30T22:00:00Z"] * 10
    assert rules(raw(seen=days)) == [
        "column 'seen' is midnight of another time zone (have the source give local dates) in 20 rows"
    ]
    assert rules(raw(seen=days[:4])) == []


def test_decimal_commas_are_read_and_grouped_thousands_refused():
    assert mapped(raw(dose=["6,2", "-0,0"]), dose=Field("dose", decimal=","))["dose"].tolist() == [6.2, 0.0]
    # "1.000" may be a thousand: as 1 it would be inside the range and silently wrong.
    assert rules(raw(dose=["1.000", "6,2"]), dose=Field("dose", decimal=",")) == [
        "column 'dose' has a '.' although its decimal mark is ',' in fewer than 5 rows"
    ]
    # A source that gives numbers needs no decimal mark.
    assert mapped(raw(dose=[6.25, 7.0]), dose=Field("dose", decimal=","))["dose"].tolist() == [6.25, 7.0]


def test_limits_are_read_as_their_bound_only_where_the_mapping_says_so():
    cells = ["<0.5", "> 89", ">=3", "4"]
    found = mapped(raw(dose=cells), dose=Field("dose", censored="limit"))
    assert found["dose"].tolist() == [0.5, 89.0, 3.0, 4.0]
    found = mapped(raw(dose=["<0,5", "2"]), dose=Field("dose", censored="limit", decimal=","))
    assert found["dose"].tolist() == [0.5, 2.0]
    assert rules(raw(dose=cells)) == ["column 'dose' has limits such as '<' or '>' (set censored) in fewer than 5 rows"]


def test_hidden_missing_codes_are_missing_however_they_are_written():
    chol = mapped(raw(chol=["0", "0.00", "0,0", "", " ", "200"]), chol=Field("chol", decimal=",", missing=("0.00",)))
    assert chol["chol"].isna().tolist() == [True] * 5 + [False]
    # A code is compared before units are converted: -9 mmol/L is no -348 mg/dL.
    found = mapped(raw(chol=["-9", "-9.00", "5"]), chol=Field("chol", multiply=38.67, missing=("-9",)))
    assert found["chol"].isna().tolist() == [True, True, False]
    found = mapped(raw(chol=["?", "999", "200"], sex=["?", "999", "male"]), missing=("?", "999"))
    assert found["chol"].isna().tolist() == found["sex"].isna().tolist() == [True, True, False]


@pytest.mark.parametrize("value", [
    True, np.True_, 1, 1.0, np.int64(1), Decimal("1.0"), "1", None, np.nan, datetime.date(2026, 1, 31)
], ids=repr)  # fmt: skip
def test_values_of_a_mapping_are_of_every_natural_type(value):
    text = plain_text(pd.Series([value], dtype=object))[0]
    for name in ("person", "seen", "dose", "smokes"):
        found = map_table(raw(**{name: ["x", "x"]}), SCHEMA, {name: Field(name, values={"x": value})})
        written = map_table(raw(**{name: [text, text]}), SCHEMA, {})
        pd.testing.assert_frame_equal(found[0], written[0])
        assert [finding.rule for finding in found[1]] == [finding.rule for finding in written[1]]


def test_a_flag_for_a_number_fits_it_and_a_foreign_code_beside_it_is_all_that_is_said():
    table, findings = map_table(raw(dose=["x", "?"]), SCHEMA, {"dose": Field("dose", values={"x": True})})
    assert table["dose"][0] == 1 and [finding.hint for finding in findings] == [""]


@pytest.mark.parametrize("value", [[1], {}, b"1", 1j, object(), np.inf, pd.NA], ids=lambda value: type(value).__name__)
def test_a_mapping_to_what_is_no_cell_is_refused_when_the_package_is_loaded(value):
    with pytest.raises(UsageError, match="values must map own codes to texts, numbers"):
        Field("f", values={"x": value})


def test_flags_are_read_from_words_numbers_and_booleans():
    for cells in (["1", "0"], ["Yes", "no"], ["TRUE", "false"], [True, False], [1.0, 0.0], [1, 0]):
        assert mapped(raw(smokes=cells))["smokes"].tolist() == [1.0, 0.0]
    assert rules(raw(smokes=["0.5", "2"])) == ["column 'smokes' is not a flag (0 or 1, yes or no) in fewer than 5 rows"]


@pytest.mark.parametrize("cells", [
    ["2026-01-31", "2026-02-01"], ["2026-01-31 00:00:00", "2026-02-01 00:00:00.000000"],
    ["2026-01-31T00:00:00Z", "2026-02-01T00:00:00+02:00"], [datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)],
    list(pd.to_datetime(["2026-01-31", "2026-02-01"])),
    list(pd.to_datetime(["2026-01-31", "2026-02-01"], utc=True)),
    pd.Series(pd.to_datetime(["2026-01-31", "2026-02-01"])).dt.tz_localize("Europe/Zurich"),
])  # fmt: skip
def test_dates_of_every_source_are_the_same(cells):
    assert mapped(raw(seen=cells))["seen"].tolist() == [pd.Timestamp("2026-01-31"), pd.Timestamp("2026-02-01")]


@pytest.mark.parametrize("cells", [
    pd.Series(["1", None, "2.5"], dtype=object), pd.Series(["1", "", "2.5"], dtype="string"),
    pd.Series(["1.0", None, " 2.5 "], dtype="category"), pd.Series([1.0, np.nan, 2.5]),
    pd.Series([1.0, np.nan, 2.5], dtype="float32"), pd.Series([1.0, None, 2.5], dtype="Float32"),
    pd.Series([Decimal("1"), None, Decimal("2.5")], dtype=object),
])  # fmt: skip
def test_a_cell_gives_the_same_text_from_every_kind_of_source(cells):
    found = plain_text(cells)
    assert found.isna().tolist() == [False, True, False]
    assert (found[0], found[2]) == ("1", "2.5")
    assert mapped(raw(dose=list(cells)))["dose"].tolist()[::2] == [1.0, 2.5]


def test_single_precision_is_the_decimal_that_was_written():
    assert plain_text(pd.Series([0.1, 7.3], dtype="float32")).tolist() == ["0.1", "7.3"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(10**9), 10**9)), min_size=1, max_size=20))
def test_whole_numbers_with_gaps_give_the_same_text_as_text_and_as_floats(numbers):
    # A database or a Parquet file with gaps gives floats where a CSV has digits.
    floats = pd.Series([np.nan if n is None else float(n) for n in numbers])
    texts = pd.Series(["" if n is None else str(n) for n in numbers])
    assert plain_text(floats).tolist() == plain_text(texts).tolist()


@pytest.mark.parametrize(("column", "rule"), [
    ("dose", "is not a number"), ("smokes", "is not a flag (0 or 1, yes or no)"),
    ("sex", "has a value that the schema does not allow"), ("seen", "is not a date such as 2026-01-31"),
    ("y", "has a value that the schema does not allow"),
])  # fmt: skip
@pytest.mark.parametrize(("bad", "count"), [(1, "fewer than 5"), (4, "fewer than 5"), (6, "6")])
def test_an_error_names_column_rule_and_count_and_never_a_cell(column, rule, bad, count):
    good = raw()[column][0]
    found = rules(raw(**{column: [CANARY] * bad + [good] * 3}))
    assert found[0] == f"column {column!r} {rule} in {count} rows"
    assert not any(CANARY in text for text in found)


def test_an_unknown_code_is_reported_without_the_code():
    found = rules(raw(sex=["1", CANARY]), sex=Field("sex", values={"1": "male"}))
    assert found == ["column 'sex' has a code that the mapping does not know in fewer than 5 rows"]


def test_what_is_outside_the_range_is_reported_and_missing():
    table, findings = map_table(raw(chol=["200", "20", "inf", "1e300"]), SCHEMA, {})
    assert [str(f.error()) for f in findings] == [
        "column 'chol' is outside the schema's range 50 to 1000 mg/dL in fewer than 5 rows"
    ]
    assert table["chol"].isna().tolist() == [False, True, True, True]
    assert findings[0].rows.tolist() == [1, 3]  # nobody knows an infinite number


def test_a_number_a_little_beyond_its_range_is_outside_and_not_at_its_end():
    # The range is 50 to 1000: a thousandth of it would be 0.95.
    table, findings = map_table(raw(chol=["1000.1", "49.9", "1000"]), SCHEMA, {})
    assert [finding.rows.tolist() for finding in findings] == [[0, 1]]
    assert table["chol"].isna().tolist() == [True, True, False]


def test_rows_without_an_outcome_are_reported():
    assert rules(raw(y=["no", "", None])) == [
        "column 'y' has no value (rows without an outcome cannot be used) in fewer than 5 rows"
    ]


def test_a_feature_that_is_not_in_the_table_is_reported_unless_the_mapping_says_none():
    # A misspelt header would otherwise give a model without the column, and nobody would notice.
    table = raw().rename(columns={"dose": "Dosis"})
    assert rules(table) == ["column 'dose' is not in the table (map it to None if the site does not have it)"]
    assert rules(table, dose="Dosi") == ["column 'dose' is not in the table"]
    assert mapped(table, dose="Dosis")["dose"].tolist() == [1.0, 1.0]
    assert mapped(table, dose=None)["dose"].isna().all()


def test_columns_that_no_model_reads_may_be_absent_but_not_the_target():
    assert rules(raw().drop(columns=["person", "seen"])) == []
    for mapping in ({}, {"y": None}):
        assert rules(raw().drop(columns="y"), **mapping)[0] == "column 'y' is not in the table"


def test_a_mapping_of_an_unknown_column_and_a_column_that_stands_twice_are_reported():
    assert rules(raw(), dosis="dose") == ["column 'dosis' is mapped but the schema has no such column"]
    twice = pd.concat([raw(), raw()[["dose"]]], axis=1)
    assert rules(twice) == ["column 'dose' stands in the table more than once"]


def test_the_source_table_is_not_changed():
    table = raw(chol=["0", "200"])
    before = table.copy(deep=True)
    map_table(table, SCHEMA, {"chol": Field("chol", multiply=2)}, ("200",))
    pd.testing.assert_frame_equal(table, before)


MIXED = [
    ["a", " a ", "1.0", "", None, "a", np.nan, "1.0"], [1, 2, 2, None, 2**70, -3], [True, False, None, True],
    [0.0, -0.0, 1.5, np.nan, 3.0, 1e22], [Decimal("1.50"), Decimal("1.5"), None], [1, True, 1.0, "1", 0, False, -0.0],
    [None, None], [datetime.date(2026, 1, 2), pd.Timestamp("2026-01-02"), pd.NaT], [],
]  # fmt: skip


@pytest.mark.parametrize("cells", MIXED, ids=str)
def test_equal_values_are_read_once_and_give_what_each_cell_gives(cells):
    kinds = [pd.Series(cells, dtype=object, index=range(5, 5 + len(cells))), pd.Series(cells)]
    if cells in (MIXED[0], MIXED[2]):
        kinds.append(kinds[0].astype("string" if cells is MIXED[0] else "boolean"))
        kinds.append(kinds[0].astype("category"))
    for series in kinds:
        found = plain_text(series)
        assert found.tolist() == [_plain_cell(cell) for cell in series]  # None where missing, never NaN
        assert (found.dtype, list(found.index)) == (object, list(series.index))


floats = st.one_of(
    st.floats(-1e22, 1e22), st.decimals(-(10**6), 10**6, places=4).map(float),
    st.integers(10**15, 10**16 - 1).map(float),
    st.sampled_from([0.1, 1 / 3, 2 / 3, 1e15, 123456789012345.0, 1e16 - 2, 1e-5, -0.0, float("nan"), float("inf")]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(floats, min_size=1, max_size=12))
def test_numbers_are_read_as_pandas_reads_their_text_to_the_last_bit(cells):
    # Which rows are held out follows from these bits: a Parquet file must give those of a CSV file.
    texts = [_plain_cell(cell) for cell in cells]
    expected = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(dtype=float)
    np.testing.assert_array_equal(_as_read_from_text(np.array(cells)), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=12), st.sampled_from([1.0, 38.67]), st.booleans())
def test_a_table_of_numbers_gives_what_their_texts_give(rows, multiply, coded):
    table = raw(chol=[row[0] for row in rows], dose=[row[1] for row in rows])
    texts = table.assign(**{name: [_plain_cell(cell) or "" for cell in table[name]] for name in ("chol", "dose")})
    given_as = {"dose": Field("dose", multiply=multiply, missing=("0.1", "?") if coded else ())}
    one, broken = map_table(table, SCHEMA, given_as)
    other, broken_too = map_table(texts, SCHEMA, given_as)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert [(f.column, f.rule, f.rows.tolist()) for f in broken] == [
        (f.column, f.rule, f.rows.tolist()) for f in broken_too
    ]


def test_numbers_of_a_large_table_are_read_in_pieces(monkeypatch):
    table = raw(chol=[100.0, 2000.0, 1 / 3 + 99, np.nan], dose=[1 / 3, 2.0, 101.0, 7.0])
    fields = {name: Field(name) for name in SCHEMA.columns if name != "later"}
    whole = _numbers_at_once(table, SCHEMA, fields)
    monkeypatch.setattr("flfed.rows.data.mapping.CELLS_AT_ONCE", 4)
    pieces = _numbers_at_once(table, SCHEMA, fields)
    assert list(whole) == list(pieces) == ["chol", "dose"]
    for name, (values, found) in whole.items():
        np.testing.assert_array_equal(values, pieces[name][0])
        assert [f.rows.tolist() for f in found] == [f.rows.tolist() for f in pieces[name][1]]
    assert [f.rows.tolist() for _, found in whole.values() for f in found] == [[1], [2]]


@pytest.mark.parametrize("dtype", ["float32", "float64", "Float64"])
def test_a_decimal_mark_of_texts_says_nothing_of_numbers(dtype):
    table = raw(dose=pd.Series([6.25, 7.5], dtype=dtype))
    assert mapped(table, dose=Field("dose", decimal=","))["dose"].tolist() == [6.25, 7.5]


def test_a_group_without_an_identifier_is_reported_with_its_rows_and_an_absent_outcome_once():
    grouped = SCHEMA.model_copy(update={"group": "person"})
    cells = ["P1", "", None, "P2", "", "", ""]
    findings = map_table(raw(person=cells), grouped, {})[1]
    assert [(one.column, one.rule) for one in findings] == [("person", NO_GROUP)]
    assert findings[0].rows.tolist() == [1, 2, 4, 5, 6]
    assert map_table(raw(person=cells), grouped, {}, outcome=False)[1] == []
    absent = rules(raw(y=["no"] * 9).drop(columns="y"))
    assert len(absent) == 1 and "is not in the table" in absent[0]
    spoiled = rules(raw(y=["no", "maybe", "", "yes"]))
    assert [rule.split("'y' ")[1].split(" in ")[0] for rule in spoiled] == [
        "has a value that the schema does not allow", "has no value (rows without an outcome cannot be used)"
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["%d.%m.%y", "%x", "%%%y-%m-%d"])
def test_two_digits_of_a_year_are_refused_where_the_package_asks_for_them(form):
    with pytest.raises(UsageError, match="two digits of a year, so the century is ambiguous"):
        Field("seen", date=form)
    assert Field("seen", date="%d.%m.%Y %%y").date
