"""Each foreign export, read back by its truth, gives the original rows; the unrelated one none."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets, site_discovery
from tests.foreign_exports import make

FOREIGN = [name for name in make.EXPORTS if name != "unrelated"]


ROUNDED = {("klinik_de", "chol"): 0.005 * 38.67, ("sparkasse_de", "annual_inc"): 0.005 * 12.01}
"""Half a step of two digits: of mmol/l in milligrams, of an income a month in one a year; all else is exact."""


def read(cells: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """Return an export as a reader of its file gets it: text, empty where not known."""
    content = BytesIO(make.written(cells, settings))
    table = pd.read_csv(
        content,
        sep=settings["separator"],
        encoding=settings["encoding"],
        dtype=str,
        keep_default_na=False,
    )
    return table.replace(settings["missing"], "")


def mapped(cells: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    """Return the schema's columns of an export, by its truth."""
    found = {}
    for name, own in facts["columns"].items():
        if not own:
            continue
        if name in facts["codes"]:
            codes = facts["codes"][name]
            found[name] = [codes[cell] if cell else None for cell in cells[own]]
            continue
        numbers = [make.number_of(cell, facts["csv"]) for cell in cells[own]]
        multiply = facts.get("units", {}).get(name, {}).get("multiply", 1)
        found[name] = pd.to_numeric(pd.Series(numbers, dtype=object)).astype(float) * multiply
    return pd.DataFrame(found)


def assert_same(found: pd.Series, original: pd.Series, half_step: float) -> None:
    """Compare a column that was read back with the original one."""
    if found.dtype == object:
        assert found.fillna("").tolist() == original.fillna("").tolist()
        return
    np.testing.assert_allclose(found, original.astype(float), rtol=0, atol=half_step)


@pytest.mark.parametrize("name", FOREIGN)
def test_an_export_read_back_by_its_truth_is_the_original(name: str, test_data: Path):
    facts = make.truth(name)
    rows = make.EXPORTS[name][0](test_data)
    found = mapped(read(make.table(name, test_data), facts["csv"]), facts)
    absent = [column for column, own in facts["columns"].items() if not own]
    assert list(facts["columns"]) == list(datasets.load(facts["dataset"]).schema.columns)
    assert set(found) == set(rows) - set(absent)
    assert len(found) == len(rows) >= 294
    for column in found:
        assert_same(found[column], rows[column], ROUNDED.get((name, column), 1e-6))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_truth_has_each_category_and_each_code_once(name: str, test_data: Path):
    facts = make.truth(name)
    schema = datasets.load(facts["dataset"]).schema
    own = [column for column in facts["columns"].values() if column]
    assert len(own) == len(set(own))
    # Two or more columns of the export are nothing of the schema.
    assert len(set(make.table(name, test_data)) - set(own)) >= 2
    for column, codes in facts["codes"].items():
        flag = schema.columns[column].kind == "flag"
        values = {"yes", "no"} if flag else set(schema.columns[column].values)
        assert sorted(codes.values()) == sorted(values)


@pytest.mark.parametrize(("name", "site"), [("klinik_de", "cleveland"), ("hospital_es", "hungary")])
def test_original_rows_are_those_that_the_site_reads(name: str, site: str, heart, test_data: Path):
    table = site_discovery.load(site).inspect()[0]
    rows = make.EXPORTS[name][0](test_data)
    for column in ("age", "chol", "oldpeak", "ca"):
        np.testing.assert_array_equal(rows[column], table[column])
    for column in ("fbs", "exang"):
        flags = rows[column].map({"yes": 1.0, "no": 0.0})
        np.testing.assert_array_equal(flags, table[column])
    for column in ("sex", "cp", "restecg", "slope", "thal", "disease"):
        assert rows[column].fillna("").tolist() == table[column].fillna("").tolist()


def test_nothing_of_the_unrelated_table_is_in_a_schema(test_data: Path):
    facts = make.truth("unrelated")
    cells = read(make.table("unrelated", test_data), facts["csv"])
    assert set(facts["columns"].values()) == {""}
    for name in (facts["dataset"], *facts["also"]):
        assert not set(cells) & set(datasets.load(name).schema.columns)
    others = set().union(*(make.table(name, test_data) for name in FOREIGN))
    assert not set(cells) & others


@pytest.mark.parametrize("name", FOREIGN)
def test_a_swapped_export_has_two_columns_under_each_others_name(name: str, test_data: Path):
    plain, damaged = make.table(name, test_data), make.swapped(name, test_data)
    one, other = make.truth(name)["damage"]["swapped"]["columns"]
    assert damaged[one].tolist() == plain[other].tolist()
    assert damaged[other].tolist() == plain[one].tolist()
    rest = plain.columns.difference([one, other])
    pd.testing.assert_frame_equal(damaged[rest], plain[rest])


@pytest.mark.parametrize("name", FOREIGN)
def test_a_factor_of_ten_is_in_one_column_only(name: str, test_data: Path):
    facts = make.truth(name)
    plain = mapped(read(make.table(name, test_data), facts["csv"]), facts)
    damaged = mapped(read(make.factor_ten(name, test_data), facts["csv"]), facts)
    damage = facts["damage"]["factor_ten"]
    assert damage["multiply"] in (10, 0.1)
    for column in plain:
        factor = damage["multiply"] if facts["columns"][column] == damage["column"] else 1
        if plain[column].dtype == object:
            assert damaged[column].tolist() == plain[column].tolist()
        else:
            np.testing.assert_allclose(damaged[column], plain[column] * factor, rtol=1e-9)


def test_exports_are_the_same_at_each_call(test_data: Path):
    for name in make.EXPORTS:
        once, again = make.table(name, test_data), make.table(name, test_data)
        pd.testing.assert_frame_equal(once, again)
