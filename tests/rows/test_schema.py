"""What a schema refuses, what it allows as features, and what its hash means."""

from __future__ import annotations

from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.rows.data.schema import Schema, read_schema

SMALL = """
format = 1
name = "small"
task = "binary"
target = "y"
group = "person"

[columns.person]
kind = "id"

[columns.seen]
kind = "date"

[columns.age]
kind = "number"
range = [0, 120]
unit = "years"
description = "Age"

[columns.after]
kind = "flag"
leak = "recorded after the outcome"

[columns.colour]
kind = "category"
values = ["red", "green"]

[columns.y]
kind = "target"
values = ["no", "yes"]
"""


def read(text: str, folder: Path) -> Schema:
    path = folder / "schema.toml"
    path.write_text(text, encoding="utf-8")
    return read_schema(path)


def test_features_are_the_allowed_columns_in_the_order_of_the_schema(tmp_path):
    schema = read(SMALL, tmp_path)
    assert schema.features() == ("age", "colour")
    assert schema.features(["colour", "age"]) == ("age", "colour")
    assert schema.classes == ("no", "yes")


@pytest.mark.parametrize(("name", "why"), [
    ("agee", "did you mean 'age'"), ("after", "leaks the target: recorded after the outcome"),
    ("person", "kind 'id', no feature"), ("y", "kind 'target', no feature"),
])  # fmt: skip
def test_a_study_cannot_choose_what_is_no_feature(tmp_path, name, why):
    with pytest.raises(UsageError, match=why):
        read(SMALL, tmp_path).features(["age", name])


@pytest.mark.parametrize(("old", "new", "why"), [
    ("range = [0, 120]\n", "", "columns.age: a number needs a range"),
    ("range = [0, 120]", "range = [120, 0]", "must go from low to high"),
    ("range = [0, 120]", "range = [0, inf]", "columns.age.range value 2=inf must be a finite number"),
    ("range = [0, 120]", "range = [0, 1e308]", "must go from low to high, from -1e19 to 1e19 at most"),
    ("range = [0, 120]", 'range = [-1, 9]\ntransform = "log1p"', "log1p needs a range above -1"),
    ('values = ["red", "green"]', 'values = ["red"]', "at least two allowed values"),
    ('values = ["red", "green"]', 'values = ["red", "red"]', "stands twice"),
    ('values = ["no", "yes"]', 'values = ["no", "yes", "maybe"]', "a binary target needs two values, not 3"),
    ('task = "binary"', 'task = "regression"', "the target of a regression needs a range"),
    ('task = "binary"', 'task = "multi-class"', "needs three values or more, not 2"),
    ('target = "y"', 'target = "age"', "must be the one column of kind 'target'"),
    ('group = "person"', 'group = "age"', "must be a column of kind 'id'"),
    ('kind = "date"', 'kind = "dates"', "columns.seen.kind"),
    ('unit = "years"', 'units = "years"', "columns.age.units: this key is not known; did you mean 'unit'?"),
    ('unit = "years"', 'nuit = "years"', "columns.age.nuit: this key is not known; did you mean 'unit'?"),
    ('kind = "date"', 'knid = "date"', "columns.seen.knid: this key is not known; did you mean 'kind'?"),
    ('kind = "date"', "", "schema.toml: columns.seen.kind is missing"), ('target = "y"', "", "toml: target is missing"),
    ('name = "small"', 'name = "So small"', "toml: name='So small' must be of a-z, 0-9 and single hyphens"),
    ("range = [0, 120]", "range = [0]", "columns.age.range value 2 is missing"),
    ("range = [0, 120]", "range = [0, 9, 120]", "columns.age.range=[0, 9, 120] may have 2 values at most"),
    ('["red", "green"]', '["red", "gre\\nen"]', "columns.colour: allowed value 2 has a line break"),
    ('["red", "green"]', '["red", "gre\\u2028en"]', "allowed value 2 has a line break"),
    ("[columns.after]", '[columns."af\\u0001ter"]', "columns: the name of column 4 has a line break or another"),
    ("format = 1", "format = 2", "format"), ("format = 1", "format = ", "is not valid TOML"),
])  # fmt: skip
def test_an_inconsistent_schema_is_refused_with_place_and_rule(tmp_path, old, new, why):
    assert old in SMALL
    with pytest.raises(UsageError) as caught:
        read(SMALL.replace(old, new), tmp_path)
    assert why in str(caught.value)
    assert "schema.toml" in str(caught.value)


def test_the_hash_covers_meaning_and_not_descriptions(tmp_path):
    plain = read(SMALL, tmp_path).sha256()
    same = [('description = "Age"', 'description = "Years lived"'), ("recorded after the outcome", "other words")]
    for old, new in same:
        assert read(SMALL.replace(old, new), tmp_path).sha256() == plain
    typical = 'unit = "years"\ntypical = [20, 90]\ntypical-source = "a census"'
    sources = {read(SMALL.replace('unit = "years"', typical.replace("census", of)), tmp_path).sha256() for of in "ab"}
    assert len(sources) == 1 and plain not in sources
    other = [
        ("[0, 120]", "[0, 121]"), ('unit = "years"', 'unit = "months"'), ('["red", "green"]', '["green", "red"]'),
        ('leak = "recorded after the outcome"', ""), ('unit = "years"', 'unit = "years"\nmissing = [0]'),
        ('unit = "years"', typical),
    ]  # fmt: skip
    hashes = {read(SMALL.replace(old, new), tmp_path).sha256() for old, new in other}
    assert len(hashes) == len(other)
    assert plain not in hashes


def test_the_hash_follows_the_order_of_the_columns(tmp_path):
    # The order of the columns is the order of the model's inputs.
    parts = SMALL.split("\n\n")
    swapped = "\n\n".join([*parts[:3], parts[5], parts[4], parts[3], *parts[6:]])
    assert swapped != SMALL
    assert read(swapped, tmp_path).sha256() != read(SMALL, tmp_path).sha256()


def test_a_choice_of_no_features_is_refused(tmp_path):
    with pytest.raises(UsageError, match="must name at least one column"):
        read(SMALL, tmp_path).features([])
