"""Checking a site: every column passes or fails, with counts; row numbers stay in a private file."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Policy
from flfed.rows.data.table_check import check_site, write_local_rows


def spoil(number, table):
    table = table.astype({"x1": object})
    table.loc[:6, "x1"] = "not a number"
    table.loc[20, "colour"] = "mauve"
    return table


def test_a_good_table_passes_with_its_counts(small_sites):
    checked = check_site(small_sites(1, rows=80)[0])
    assert checked.passed
    assert checked.rows == 80
    assert checked.training_rows + checked.holdout_rows == 80
    assert [line.column for line in checked.lines] == [
        "person", "x1", "x2", "flag", "colour", "y", "table", "table", "y",
    ]  # fmt: skip


def test_a_broken_table_names_columns_rules_and_counts(small_sites):
    checked = check_site(small_sites(1, change=spoil)[0])
    failed = {line.column: line.detail for line in checked.lines if not line.passed}
    assert failed == {
        "x1": "is not a number in 7 rows",
        "colour": "has a value that the schema does not allow in fewer than 5 rows",
    }
    assert (checked.training_rows, checked.holdout_rows) == (0, 0)


@pytest.mark.parametrize(
    ("column", "entry", "misfits"),
    [
        ("x1", Field("colour", values={"red": "warm", "green": "cold"}), "number"),  # it was a category
        ("x1", Field("colour", values={"red": "1", "green": "0"}), ""),
        ("x1", Field("colour", multiply=2.0), ""),
        ("colour", Field("x1", multiply=2.0), "category"),  # it was a number
        ("colour", Field("flag", values={"1": "mauve", "0": "red"}), "category"),
        ("flag", Field("colour", values={"red": "warm", "green": "cold"}), "flag"),
    ],
)
def test_an_entry_of_the_mapping_that_no_longer_fits_the_schema_is_named(small_sites, column, entry, misfits):
    site = replace(small_sites(1)[0], mapping={column: entry})
    (failed,) = [line for line in check_site(site).lines if line.column == column]
    hint = (
        f"its entry in the mapping does not fit its kind in the schema ({misfits}); flfed site map proposes another one"
    )
    assert failed.detail.endswith(hint) == bool(misfits), failed.detail


def test_row_numbers_are_written_once_for_the_site_alone(small_sites, tmp_path: Path):
    checked = check_site(small_sites(1, change=spoil)[0])
    path = tmp_path / "rows.csv"
    assert write_local_rows(checked, path) == 8
    assert path.stat().st_mode & 0o777 == 0o600
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert [int(line["row"]) for line in lines if line["column"] == "x1"] == [1, 2, 3, 4, 5, 6, 7]
    assert [int(line["row"]) for line in lines if line["column"] == "colour"] == [21]
    with pytest.raises(UsageError, match="not replaced"):
        write_local_rows(checked, path)


def test_one_class_is_said_but_does_not_fail(small_sites):
    checked = check_site(small_sites(1, change=lambda _, table: table.assign(y="yes"))[0])
    assert checked.passed
    assert "one class only" in checked.lines[-1].detail


def test_an_institution_needs_enough_training_rows(small_sites):
    checked = check_site(small_sites(1, rows=9, policy=Policy())[0])
    assert not checked.passed
    assert [line.column for line in checked.lines if not line.passed] == ["table", "table"]
    assert "at least 10" in checked.lines[-3].detail


def test_a_holdout_without_a_salt_is_warned_of(small_sites):
    site = small_sites(1, rows=90, policy=Policy())[0]
    assert not [line for line in check_site(site).lines if "salt" in line.detail]
    warned = check_site(replace(site, holdout=Holdout()))
    assert warned.passed
    assert len([line for line in warned.lines if "Holdout(salt=...)" in line.detail]) == 1
