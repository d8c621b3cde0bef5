"""What honest tables look like gets no note; what looks alike and is odd gets one."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flfed.rows.data.findings.columns import far_from_all
from flfed.rows.data.findings.oddities import oddities
from flfed.rows.data.schema import Column, Schema

SCHEMA = Schema.model_validate({
    "name": "coarse", "task": "binary", "target": "y",
    "columns": {
        "sex": {"kind": "category", "values": ["female", "male"]}, "smokes": {"kind": "flag"},
        "stage": {"kind": "number", "range": [0, 9]}, "y": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip


def notes(raw: pd.DataFrame) -> list[str]:
    return [note.text for note in oddities(raw, raw, SCHEMA, {}) if note.column == "table"]


def test_rows_that_are_alike_by_chance_are_no_copies_and_an_export_twice_is():
    rng = np.random.default_rng(3)
    coarse = pd.DataFrame({
        "sex": rng.choice(["female", "male"], 500), "smokes": rng.choice([0.0, 1.0], 500),
        "stage": rng.integers(0, 4, 500).astype(float), "y": rng.choice(["no", "yes"], 500),
    })  # fmt: skip
    assert coarse.duplicated().sum() > 350 and notes(coarse) == []
    fine = coarse.assign(weight=rng.normal(size=500))
    twice = pd.concat([fine, fine[:40]], ignore_index=True)
    assert notes(twice) == ["40 rows are copies of another row in every column: was something exported twice?"]


def test_a_zero_that_many_rows_have_is_a_value_and_one_that_some_have_may_be_a_code():
    amounts = [*range(100, 150)] * 2
    assert far_from_all(pd.Series([*amounts, *[0] * 40])) == 0
    assert far_from_all(pd.Series([*amounts, *[0] * 20])) == 20
    assert far_from_all(pd.Series([*amounts, *[999] * 40])) == 40


def test_a_range_of_which_a_column_fills_a_thousandth_is_noted():
    ages = pd.DataFrame({"age": np.arange(20.0, 80.0)}).assign(
        sex="female", smokes=0.0, stage=np.arange(60) % 4, y="no"
    )
    for column, noted in (
        (Column(kind="number", range=(0, 120)), False), (Column(kind="number", range=(0, 100_000)), True),
        (Column(kind="number", range=(0, 100_000), transform="log1p"), False),
    ):  # fmt: skip
        schema = SCHEMA.model_copy(update={"columns": {**SCHEMA.columns, "age": column}})
        found = [note.text for note in oddities(ages, ages, schema, {}) if note.column == "age"]
        assert any("the schema's range, 0 to 100000" in text for text in found) == noted
