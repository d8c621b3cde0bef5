"""Columns that a site declares beside the schema's: read and frozen with them, and no row of the schema moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed import Field, OwnColumn, Study, resume, run
from flfed.errors import RunStopped, TableError, UsageError
from flfed.rows.data import datasets
from flfed.rows.data.holdout import side_keys
from flfed.rows.data.row_keys import row_keys
from flfed.rows.data.site import Mapped, Policy, Site
from flfed.rows.data.sources import Frame
from flfed.rows.data.table_check import check_site
from flfed.rows.snapshots.snapshot import freeze, load

MARKER = OwnColumn(Field("MARKER", missing=("-1",)), kind="number", range=(0, 1000), unit="ng/L", transform="log1p")


def with_marker(number: int, table: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(90 + number)
    marker = np.where(table["y"] == "yes", 40.0, 10.0) * rng.lognormal(0, 0.6, len(table))
    marker[rng.random(len(table)) < 0.1] = -1
    return table.assign(MARKER=marker.clip(-1, 1000))


@pytest.fixture
def marked(small_sites) -> Callable[..., list[Site]]:
    """A function that makes sites whose first declares a marker that tells much of the outcome."""

    def make(count: int = 3, rows: int = 120, **given: object) -> list[Site]:
        first, *others = small_sites(count, rows=rows, change=with_marker, **given)
        return [replace(first, own={"marker": MARKER}), *others]

    return make


def test_no_row_of_the_schema_moves_and_no_key_changes(marked):
    declared, *_ = marked()
    plain = replace(declared, own={})
    assert declared.read(0).training.drop(columns="marker").equals(plain.read(0).training)
    ours, theirs = declared.sorted_rows(), plain.sorted_rows()
    schema = datasets.load("small").schema
    np.testing.assert_array_equal(ours.keys, theirs.keys)
    np.testing.assert_array_equal(side_keys(ours.source, schema), ours.keys)
    for repeat in (0, 1, 2):
        mine, other = declared.read(repeat), plain.read(repeat)
        np.testing.assert_array_equal(mine.training_keys(), other.training_keys())
        assert mine.holdout("test").drop(columns="marker").equals(other.holdout("test"))
    # With them in the keys, most rows would fall on another side.
    wrong = row_keys(ours.source)
    sides = [declared.holdout.split(ours.source, schema, 0, keys)[0] for keys in (ours.keys, wrong)]
    assert (sides[0] != sides[1]).mean() > 0.2


def test_rows_that_are_alike_in_the_schema_stand_in_one_order_whatever_the_source_has(marked):
    site, *_ = marked()
    table = site.source.table
    twice = pd.concat([table, table.assign(MARKER=table["MARKER"] + 7)])
    sites = [replace(site, source=Frame(rows.reset_index(drop=True))) for rows in (twice, twice[::-1])]
    one, other = (rows.at(rows.order) for rows in (each.sorted_rows() for each in sites))
    assert one.equals(other) and one["marker"].duplicated().sum() < len(one) / 2


@pytest.mark.studies
def test_only_the_site_that_declares_it_gains_and_a_run_that_was_ended_goes_on_with_it(marked, small_study):
    short, sites = Study.parse(small_study).replace({"strategy.rounds": 3}), marked()
    study = short.replace({"compare.site-columns": True})
    whole = run(study, sites=sites).report
    plain = run(short, sites=[replace(site, own={}) for site in sites]).report
    gain = [
        whole["sites"][s.name]["personalised"]["roc_auc_score"]["value"]
        - plain["sites"][s.name]["personalised"]["roc_auc_score"]["value"]
        for s in sites
    ]
    assert gain[0] > 0.05 and gain[1:] == [0.0, 0.0]
    assert [("local-only-own-columns" in whole["sites"][s.name]) for s in sites] == [True, False, False]
    assert whole["arrays-sha256"] == plain["arrays-sha256"] and whole["global"] == plain["global"]

    def killer(told: str, number: int) -> None:
        if (told, number) == ("round", 2):
            raise KeyboardInterrupt

    with pytest.raises(RunStopped) as stopped:
        run(study, sites=sites, observer=killer)
    again = resume(stopped.value.run, sites=sites).report
    assert again["sites"] == whole["sites"] and again["arrays-sha256"] == whole["arrays-sha256"]


def test_they_are_frozen_with_the_rows_and_a_snapshot_without_them_is_as_before(marked, tmp_path: Path):
    site, other, _ = marked()
    frozen = freeze(site, tmp_path / "frozen", None)
    assert frozen.own == {"marker": {"kind": "number", "range": [0.0, 1000.0], "unit": "ng/L", "transform": "log1p"}}
    served = load(site, tmp_path / "frozen")
    assert served.read().training.equals(site.read().training)
    for changed in ({}, {"marker": replace(MARKER, range=(0, 2000))}, {"other": MARKER}):
        with pytest.raises(UsageError, match="has own columns other than those that the site's package declares now"):
            load(replace(site, own=changed), tmp_path / "frozen")
    # What is measured in them is part of what was approved.
    table = site.source.table.assign(MARKER=site.source.table["MARKER"] + 1)
    assert freeze(replace(site, source=Frame(table)), tmp_path / "again", None).sha256 != frozen.sha256
    freeze(other, tmp_path / "plain", None)
    assert "own" not in json.loads((tmp_path / "plain" / "small" / "frozen.json").read_text())
    assert load(other, tmp_path / "plain").read().training.equals(other.read().training)


def test_the_check_says_what_they_are_and_counts_what_breaks_their_rules(marked):
    site, *_ = marked()
    lines = {line.column: line for line in check_site(site).lines if not line.note}
    assert lines["marker"].passed and lines["marker"].detail.startswith("number, ng/L; missing in ")
    assert lines["marker"].detail.endswith("of 120 rows; the site's own column, which is in no message")
    narrow = replace(site, own={"marker": OwnColumn("MARKER", kind="number", range=(0, 30))})
    found = {line.column: line for line in check_site(narrow).lines}["marker"]
    assert not found.passed and "is outside the schema's range 0 to 30 in" in found.detail
    with pytest.raises(TableError, match="marker"):
        narrow.read()
    absent = replace(site, own={"marker": OwnColumn("MARKERS", kind="number", range=(0, 1000))})
    assert {line.column: line for line in check_site(absent).lines}["marker"].detail == "is not in the table"


@pytest.mark.parametrize(("given", "said"), [
    ({"kind": "number"}, "a number needs a range"),
    ({"kind": "number", "range": (9, 1)}, r"range \[9.0, 1.0\] must go from low to high"),
    ({"kind": "category"}, "a category needs at least two allowed values"),
    ({"kind": "category", "values": ("a", "a")}, "an allowed value stands twice"),
    ({"kind": "category", "values": ("a", "b"), "range": (0, 1)}, "a category has no range"),
    ({"kind": "flag", "values": ("a", "b")}, "a flag has no values"),
    ({"kind": "id"}, "kind='id' must be 'number', 'flag' or 'category'"),
    ({"kind": "number", "range": (0, 1), "transform": "sqrt"}, "transform='sqrt' must be one of 'none', 'log1p'"),
])  # fmt: skip
def test_a_declaration_that_says_too_little_is_refused(given: dict, said: str):
    with pytest.raises(UsageError, match=said):
        OwnColumn("MARKER", **given)


def test_a_name_of_the_schema_is_refused_and_so_is_what_is_no_declaration(marked):
    site, *_ = marked()
    for name in ("x1", "person", "y"):
        with pytest.raises(UsageError, match=f"own\\['{name}'\\] is already a column of dataset 'small': map it"):
            replace(site, own={name: MARKER}).read()
    with pytest.raises(UsageError, match="own\\['marker'\\] must be an OwnColumn"):
        replace(site, own={"marker": "MARKER"})
    other = replace(site, own={}, also={"heart-flamby": Mapped(own={"marker": MARKER})})
    assert other.serving("heart-flamby").own == {"marker": MARKER} and other.serving("small").own == {}


def test_a_study_of_several_classes_cannot_ask_for_them(small_study):
    study = Study.load("wine").replace({"compare.site-columns": True})
    with pytest.raises(UsageError, match="site-columns is for outcomes that are yes or no, or numbers"):
        run(study)


def test_under_institution_they_are_adjusted_by_like_any_column(marked, small_study):
    study = Study.parse(small_study).replace({"compare.site-columns": True})
    sites = marked(policy=Policy(disclosure="institution"))
    report = run(study, sites=sites).report
    assert "local-only-own-columns" in report["sites"]["site-01"]
