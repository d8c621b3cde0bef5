"""Sets of rows where the schema names people: identifiers tell them, too, when all that rows say drifts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots.differencing import BYTES, RowSet, too_close
from flfed.rows.snapshots.withholding import Chosen, resting
from tests.rows.drawn import difference

KEY = b"k" * 32
PLAIN = (Chosen("training"), Chosen("holdout"))


@pytest.fixture
def site(small_sites) -> Site:
    """A site of 50 people with four rows each."""
    (found,) = small_sites(1, rows=200)
    path = datasets.load("small").folder / "schema.toml"
    path.write_text(path.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    return replace(found, source=Frame(found.source.table.assign(person=[f"P{at // 4}" for at in range(200)])))


@pytest.fixture
def table(site: Site) -> pd.DataFrame:
    return site.inspect()[0]


@pytest.fixture
def schema(site: Site) -> Schema:
    found = datasets.load("small").schema
    assert found.group == "person"
    return found


def drifted(table: pd.DataFrame, by: float = 1e-9) -> pd.DataFrame:
    """Return the table on the next day: a column that is computed anew differs in every row."""
    return table.assign(x1=table["x1"] + by).reset_index(drop=True)


def of_parts(site: Site, table: pd.DataFrame, schema: Schema) -> list[tuple[Chosen, RowSet]]:
    return [(one, RowSet.of(table.iloc[one.rows(site, table)], schema, KEY)) for one in PLAIN]


def gone(before: RowSet, after: RowSet) -> tuple[int, int]:
    """How many people are in the first only, and in the second only, by their identifiers."""
    a, b = before.people_one_by_one(), after.people_one_by_one()
    return len(a - b), len(b - a)


@pytest.mark.parametrize(("left", "close"), [(0, False), (1, True), (9, True), (10, False)])
def test_who_left_is_seen_though_every_row_says_something_else(table, schema, left: int, close: bool):
    whole = RowSet.of(table, schema, KEY)
    asked = RowSet.of(drifted(table[4 * left :]), schema, KEY)
    # By what the rows say nobody is in both.
    assert difference(whole, asked) == (50, 50 - left)
    assert gone(whole, asked) == (left, 0)
    assert too_close(asked, [whole], 10) == close
    assert too_close(whole, [asked], 10) == close


def test_rows_of_the_same_people_are_looked_at_as_before(table, schema):
    whole = RowSet.of(table, schema, KEY)
    changed = table.copy()
    changed.loc[0, "x1"] += 1.0
    assert gone(whole, RowSet.of(changed, schema, KEY)) == (0, 0)
    assert too_close(RowSet.of(changed, schema, KEY), [whole], 10)
    # Made anew, identifiers say nothing, and the rows still do.
    anew = table.assign(person="Q" + table["person"].astype(str))
    assert gone(whole, RowSet.of(anew, schema, KEY)) == (50, 50)
    assert not too_close(RowSet.of(anew, schema, KEY), [whole], 10)
    assert too_close(RowSet.of(anew[4:], schema, KEY), [whole], 10)


def test_a_set_with_people_comes_back_as_it_was_written(table, schema):
    before = RowSet.of(table, schema, KEY)
    content = before.to_bytes()
    assert len(content) == (1 + 50 + 50) * BYTES
    after = RowSet.from_bytes("small", content, KEY, id=before.id)
    assert (after.members(), after.people_one_by_one()) == (before.members(), before.people_one_by_one())
    assert not before.members() & before.people_one_by_one()
    with pytest.raises(UsageError, match="damaged"):
        RowSet.from_bytes("small", content[:-BYTES], KEY, id=before.id)
    without = RowSet.of(table, schema.model_copy(update={"group": None}), KEY)
    assert len(without.people) == 0
    assert len(without.to_bytes()) == 200 * BYTES


def test_people_rest_with_who_left_though_every_row_drifts_and_the_same_ones_each_day(site, table, schema):
    released = of_parts(site, table, schema)
    resting_people = []
    for day in (1, 2):
        left = drifted(table[table["person"] != "P5"], day * 1e-9)
        rest = resting(site, left, released, KEY, 5)
        resting_people.append(set(left["person"][rest]))
        after = of_parts(site, left[~rest].reset_index(drop=True), schema)
        assert sorted(gone(a, b) for (_, a), (_, b) in zip(released[:2], after, strict=True)) == [(0, 0), (5, 0)]
        assert not any(too_close(b, [a for _, a in released], 5) for _, b in after)
        released += after
    assert (len(resting_people[0]), resting_people[1]) == (4, resting_people[0])


def test_somebody_new_waits_though_every_row_drifts(site, table, schema):
    released = of_parts(site, table, schema)
    for came, waiting in ((1, 1), (60, 0)):
        people = [f"N{at}" for at in range(came)]
        more = pd.concat([drifted(table), table[:came].assign(person=people)], ignore_index=True)
        rest = resting(site, more, released, KEY, 5)
        assert int(rest.sum()) == waiting
        assert np.flatnonzero(rest).tolist() == [200] * waiting
