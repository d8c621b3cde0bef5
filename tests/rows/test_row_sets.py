"""Sets of rows by keyed hashes: what is the same set, how two differ, and when their sums give people away."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import combinations_with_replacement, product

import numpy as np
import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.holdout import row_texts
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots.differencing import BYTES, RowSet, digest, too_close, value_texts
from flfed.rows.snapshots.withholding import Chosen, resting
from tests.rows.drawn import difference

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def site(small_sites) -> Site:
    return small_sites(1, rows=200)[0]


@pytest.fixture
def schema(site: Site) -> Schema:
    return datasets.load("small").schema


@pytest.fixture
def table(site: Site) -> pd.DataFrame:
    return site.inspect()[0]


def of_numbers(*numbers: int) -> RowSet:
    """Return a set whose persons are numbers."""
    return RowSet.made("small", [digest(KEY, "small", f"person {number}") for number in numbers], KEY)


def brute_force(asked: set[int], released: list[set[int]], minimum: int) -> bool:
    """Return what the docstring says, by going through all of it."""
    few = [len(asked - one) for one in released] + [len(one - asked) for one in released] + [len(asked)]
    inside = np.array([[person in one for person in range(60)] for one in [asked, *released, set()]], dtype=int)
    for three in combinations_with_replacement(inside[1:], 3):
        few += [
            np.count_nonzero(inside[0] + sum(sign * one for sign, one in zip(signs, three, strict=True)))
            for signs in product((1, -1), repeat=3)
        ]
    return any(0 < many < minimum for many in few)


def test_order_ids_and_format_make_no_other_set(table, schema):
    first = RowSet.of(table, schema, KEY)
    assert len(first) == 200
    shuffled = table.sample(frac=1, random_state=3)
    renumbered = table.assign(person=[f"row {at}" for at in range(200)])
    for other in (shuffled, renumbered, table.assign(x1=table["x1"] + 0.0)):
        found = RowSet.of(other, schema, KEY)
        assert (found.id, difference(first, found)) == (first.id, (0, 0))


def test_rows_that_are_alike_count_each(table, schema):
    same = pd.concat([table[:5]] + [table[:1]] * 3, ignore_index=True)
    fewer = same[:-2]
    assert len(RowSet.of(same, schema, KEY)) == 8
    assert difference(RowSet.of(same, schema, KEY), RowSet.of(fewer, schema, KEY)) == (2, 0)
    changed = same.copy()
    changed.loc[7, "x1"] += 1e-9
    assert difference(RowSet.of(same, schema, KEY), RowSet.of(changed, schema, KEY)) == (1, 1)


def test_rows_of_one_person_are_one(table, schema):
    grouped = schema.model_copy(update={"group": "person"})
    table = table.assign(person=[f"P{at // 4}" for at in range(200)])
    whole = RowSet.of(table, grouped, KEY)
    assert len(whole) == 50
    # Forty rows of ten people, one row of one, and four rows of one.
    assert difference(whole, RowSet.of(table[40:], grouped, KEY)) == (10, 0)
    assert difference(whole, RowSet.of(table[1:], grouped, KEY)) == (1, 1)
    assert difference(whole, RowSet.of(table[4:], grouped, KEY)) == (1, 0)


def test_hashes_say_nothing_without_the_key(table, schema):
    texts = [*value_texts(table, schema), *row_texts(table)]
    mine, others = RowSet.of(table, schema, KEY).members(), RowSet.of(table, schema, OTHER).members()
    unkeyed = {
        hashlib.new(kind, made.encode()).digest()[:BYTES]
        for kind in ("md5", "sha1", "sha256")
        for text in texts
        for made in (text, f"0\x1e{text}", f"rows of small\x00{text}", f"rows of small\x000\x1e{text}")
    }
    assert len(mine) == 200
    assert not mine & unkeyed
    assert not mine & others
    assert RowSet.of(table, schema, KEY).id != RowSet.of(table, schema, OTHER).id


def test_a_set_comes_back_as_it_was_written_and_a_damaged_one_does_not():
    # Of 600 hashes two or three end with a zero byte, which NumPy's texts of bytes hide.
    before = of_numbers(*range(600))
    content = before.to_bytes()
    assert any(one.endswith(b"\x00") for one in before.members())
    after = RowSet.from_bytes("small", content, KEY, id=before.id)
    assert (len(content), len(after.members())) == (600 * BYTES, 600)
    assert (after.common(before), after.members()) == (600, before.members())
    for damaged in (content[:-BYTES], content[:-1], bytes([content[0] ^ 1]) + content[1:], b""):
        with pytest.raises(UsageError, match="damaged"):
            RowSet.from_bytes("small", damaged, KEY, id=before.id)
    for key, dataset in ((OTHER, "small"), (KEY, "large")):
        with pytest.raises(UsageError, match="another key"):
            RowSet.from_bytes(dataset, content, key, id=before.id)


@pytest.mark.parametrize(("asked", "close"), [
    (range(100), False),  # the same
    (range(1, 100), True),  # one less
    (range(9, 100), True),  # k - 1 less
    (range(10, 100), False),  # k less
    (range(109), True),  # k - 1 more
    (range(110), False),
    ((*range(1, 100), 500), True),  # one for another
    ((*range(1, 100), *range(500, 520)), True),  # one left while twenty came
    ((*range(10, 100), *range(500, 510)), False),
    (range(200, 300), False),  # others
    (range(200, 205), True),  # too few by themselves
])  # fmt: skip
def test_what_is_too_close_to_a_released_set(asked, close: bool):
    assert too_close(of_numbers(*asked), [of_numbers(*range(100))], 10) == close


def test_sums_of_two_released_sets_give_nobody_away():
    left, right = of_numbers(*range(100)), of_numbers(*range(100, 200))
    everybody, and_one_more = of_numbers(*range(200)), of_numbers(*range(201))
    assert not too_close(everybody, [left, right], 10)
    # It differs from each by a hundred, and from both together by one person.
    assert not too_close(and_one_more, [left], 10)
    assert not too_close(and_one_more, [right], 10)
    assert too_close(and_one_more, [left, right], 10)
    # One released set without another is all but one person of what is asked for.
    all_but_one, first = of_numbers(*range(50, 99)), of_numbers(*range(50))
    assert not too_close(all_but_one, [left], 10)
    assert too_close(all_but_one, [left, first], 10)


def test_differences_of_differences_give_nobody_away():
    # Two pairs, each apart by ten people and more, of which nine are the same.
    base, other, ten = range(100, 200), range(300, 400), range(10)
    released = [of_numbers(*base), of_numbers(*base, *ten), of_numbers(*other)]
    asked = of_numbers(*other, *ten[:9], 50)
    assert not any(too_close(asked, [one for one in released if one is not left], 10) for left in released)
    assert too_close(asked, released, 10)
    assert not too_close(of_numbers(*other, *range(10, 20)), released, 10)
    assert not too_close(of_numbers(*other, *ten), released, 10)  # the same ten: nobody is left over


def test_two_people_whom_four_sums_count_twice_are_not_given_away():
    # The asked set and the last one less the first two: twice those who are in both.
    both = (500, 501)
    a, b, c, d = (range(start, start + 30) for start in (0, 30, 60, 90))
    asked = of_numbers(*both, *a, *b)
    released = [of_numbers(*b, *c), of_numbers(*a, *d), of_numbers(*both, *c, *d)]
    assert too_close(asked, released, 3)
    for left in range(3):
        assert not too_close(asked, released[:left] + released[left + 1 :], 3)
    assert not too_close(asked, released, 2)


def test_the_rule_is_that_of_going_through_all_combinations():
    rng, seen = np.random.default_rng(5), {True: 0, False: 0}
    for _ in range(150):
        persons = [set(np.flatnonzero(rng.random(60) < rng.choice([0.5, 0.8])).tolist()) for _ in range(5)]
        if rng.random() < 0.5:  # what differs from another by few, or is made of others
            persons[0] = (persons[1] ^ persons[2] ^ persons[3]) ^ set(rng.choice(60, 3).tolist())
        asked, *released = persons
        minimum = int(rng.integers(2, 8))
        expected = brute_force(asked, released, minimum) and asked not in released
        sets = [of_numbers(*one) for one in released]
        assert too_close(of_numbers(*asked), sets, minimum) == expected
        seen[expected] += 1
    assert min(seen.values()) > 25


def released_of(
    site: Site, table: pd.DataFrame, schema: Schema, *chosen: Chosen, key: bytes = KEY
) -> list[tuple[Chosen, RowSet]]:
    return [(one, RowSet.of(table.iloc[one.rows(site, table)], schema, key)) for one in chosen]


PLAIN = (Chosen("training"), Chosen("holdout"))


def test_the_parts_of_a_table_are_those_of_a_site(site, table, schema):
    split = site.read()
    for part, own in zip(PLAIN, (split.training, split.holdout("compare")), strict=True):
        assert RowSet.of(table.iloc[part.rows(site, table)], schema, KEY).id == RowSet.of(own, schema, KEY).id
    whole = Chosen("training", ("x2",)).rows(site, table)
    assert table.iloc[whole]["x2"].notna().all()
    assert len(whole) == len(site.read(complete=("x2",)).training) < len(split.training)


def test_as_many_people_rest_as_hide_the_one_who_went_and_the_same_ones_each_time(site, table, schema):
    released = released_of(site, table, schema, *PLAIN)
    left = table.drop(index=17).reset_index(drop=True)
    rest = resting(site, left, released, KEY, 10)
    assert rest.sum() == 9
    assert set(left["person"][rest]) == set(left["person"][resting(site, left[::-1], released, KEY, 10)[::-1]])
    others = released_of(site, table, schema, *PLAIN, key=OTHER)
    assert set(left["person"][rest]) != set(left["person"][resting(site, left, others, OTHER, 10)])
    next_sets = released_of(site, left[~rest].reset_index(drop=True), schema, *PLAIN)
    apart = sorted(difference(a, b) for (_, a), (_, b) in zip(released, next_sets, strict=True))
    assert apart == [(0, 0), (10, 0)]  # the other side lost nobody
    # Once these have left too, nothing changes; the next one to go costs nine more, who hide this one from both.
    assert (resting(site, left, [*released, *next_sets], KEY, 10) == rest).all()
    fewer = left.drop(index=int(np.flatnonzero(~rest)[0])).reset_index(drop=True)
    assert resting(site, fewer, [*released, *next_sets], KEY, 10).sum() == 18


def test_people_come_back_once_enough_have_left_or_come(site, table, schema):
    released = released_of(site, table, schema, *PLAIN)
    training = Chosen("training").rows(site, table)
    twelve = table.drop(index=training[:12]).reset_index(drop=True)
    assert not resting(site, twelve, released, KEY, 10).any()
    for came in (3, 60):
        more = pd.concat([table, table[:came].assign(x1=np.linspace(1, 2, came))], ignore_index=True)
        rest = resting(site, more, released, KEY, 10)
        new = [sum(row >= 200 for row in part.rows(site, more)) for part in PLAIN]
        waiting = [sum(rest[part.rows(site, more)]) for part in PLAIN]
        assert waiting == [many if many < 10 else 0 for many in new]
        assert not rest[:200].any()
    assert min(new) >= 10


def test_validation_rows_are_hidden_in_too(site, table, schema):
    parts = [*PLAIN, *(Chosen(part, (), 0.3, seed) for part in ("validation", "fitted") for seed in (7, 8))]
    released = released_of(site, table, schema, *parts)
    for gone in parts[2].rows(site, table)[:3].tolist():
        left = table.drop(index=gone).reset_index(drop=True)
        rest = resting(site, left, released, KEY, 10)
        after = released_of(site, left[~rest].reset_index(drop=True), schema, *parts)
        for (_, a), (_, b) in zip(released, after, strict=True):
            for apart in difference(a, b):
                assert apart == 0 or apart >= 10
        assert 9 <= rest.sum() <= 30


def test_all_rows_of_a_person_rest(site):
    # A person of four rows each; groups are the schema's, so that this one's is changed on the disk.
    path = datasets.load("small").folder / "schema.toml"
    path.write_text(path.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    raw = site.source.table.assign(person=[f"P{at // 4}" for at in range(200)])
    site = replace(site, source=Frame(raw))
    table, grouped = site.inspect()[0], datasets.load("small").schema
    assert grouped.group == "person"
    released = released_of(site, table, grouped, *PLAIN)
    left = table[table["person"] != "P5"].reset_index(drop=True)
    rest = resting(site, left, released, KEY, 5)
    assert rest.sum() == 4 * 4
    assert left[rest].groupby("person").size().tolist() == [4] * 4
    # Also rows that no sum was over, as they have a gap.
    gaps = raw.assign(x2=raw["x2"].fillna(0.0).where(raw.index % 4 > 0))
    site = replace(site, source=Frame(gaps))
    table = site.inspect()[0]
    released = released_of(site, table, grouped, Chosen("training", ("x2",)))
    left = table[table["person"] != "P5"].reset_index(drop=True)
    rest = resting(site, left, released, KEY, 5)
    assert left[rest].groupby("person").size().tolist() == [4] * 4
