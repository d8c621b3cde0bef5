"""Expressions over a source's own columns: rows that are read, derived columns, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data.parsing.expressions import columns_of, derived_columns, rows_where
from flfed.rows.data.sources import Csv, Parquet

TABLE = pd.DataFrame(
    {
        "age": ["17", "44", "", "61"], "ward": ["A", "B", "B", None], "weight": ["60", "80", "90", "70"],
        "admitted": ["2024-01-31", "2025-02-01", "", "2026-03-03"],
        "discharged": ["2024-02-02", "2025-02-03", "", "2026-03-13"], "height cm": ["170", "180", "190", ""],
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("age >= 18", [1, 3]), ("ward == 'B' and not missing(age)", [1]), ("18 <= age < 60", [1]),
        ("ward in ('A', 'B')", [0, 1, 2]), ("ward not in ('A',)", [1, 2]), ("ward != 'A'", [1, 2]),
        ("year(admitted) in (2024, 2026)", [0, 3]), ("admitted >= '2025-01-01'", [1, 3]),
        ("weight / (column('height cm') / 100) ** 2 > 22", [1, 2]), ("days(discharged, admitted) > 2", [3]),
        ("weekday(admitted) == 2", [0]), ("weight in (60, 80)", [0, 1]), ("age < 18 or missing(ward)", [0, 3]),
        ("-age < -50", [3]), ("missing(age)", [2]), ("'2025-01-01' > admitted", [0]),
    ],
)  # fmt: skip
def test_rows_are_those_for_which_an_expression_holds(expression: str, rows: list[int]):
    pd.testing.assert_frame_equal(rows_where(TABLE, expression), TABLE.iloc[rows].reset_index(drop=True))


def test_derived_columns_are_missing_where_what_they_are_made_of_is():
    made = derived_columns(
        TABLE,
        {
            "bmi": "weight / (column('height cm') / 100) ** 2", "stay": "days(discharged, admitted)", "old": "age > 50",
            "twice": "bmi * 2", "month": "month(admitted)", "zero": "weight / (age - 17)",
        },
    )  # fmt: skip
    np.testing.assert_allclose(made["bmi"], [60 / 1.7**2, 80 / 1.8**2, 90 / 1.9**2, np.nan])
    np.testing.assert_allclose(made["twice"], 2 * made["bmi"])
    np.testing.assert_array_equal(made["stay"], [2, 2, np.nan, 10])
    np.testing.assert_array_equal(made["old"], [0, 0, np.nan, 1])
    np.testing.assert_array_equal(made["month"], [1, 2, np.nan, 3])
    assert np.isnan(made["zero"][0]) and made["zero"][1] == pytest.approx(80 / 27)  # nothing is infinite
    assert columns_of("weight / (column('height cm') / 100) ** 2 > 22 and missing(age)") == ["weight", "height cm"]


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('id')", "age.__class__", "(lambda: 1)()", "[x for x in age]", "age >", "1 < 2", "age",
        "f'{age}'", "age if age else 1", "True", "open('x')", "age[0]", "admitted > 'soon'", "missing(3)",
        "no_such > 1", "days(age)", "year(3)", "age >= 18; import os", "ward > 3", "year(ward) == 3", "not age",
        "age := 3", "9" * 1001 + " > age", "{'a': age}", "age @ age", "~age", "'a' 'b'",
    ],
)  # fmt: skip
def test_what_is_no_plain_expression_is_refused_without_a_cell(expression: str):
    with pytest.raises(UsageError) as refused:
        rows_where(TABLE, expression)
    assert not any(cell in str(refused.value) for cell in ("2025-02-01", "44", "61"))


def test_a_source_reads_its_rows_and_derived_columns(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    TABLE.to_parquet(tmp_path / "a.parquet")
    chosen = {"where": "stay > 1 and ward == 'B'", "derive": {"stay": "days(discharged, admitted)"}}
    for source in (
        Csv(str(tmp_path / "a.csv"), **chosen),
        Parquet(str(tmp_path / "a.parquet"), **chosen),
    ):
        read = source.read(())
        assert read["age"].tolist() == ["44"] and read["stay"].tolist() == [2.0]
    with pytest.raises(UsageError, match="is not allowed"):
        Csv("never read.csv", where="age.x")
