"""Frozen rows: what the site serves from them is what it would serve from its source, and nothing else is served."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flfed.errors import TableError, UsageError
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.holdout import Holdout, SortedRows
from flfed.rows.data.partition import cut
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Frame, Part
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.snapshot import FrozenSite, Prepared, freeze, load, rows_sha256
from flfed.rows.splits.flamby_43 import Flamby43
from flfed.study.tables import Partition

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name.replace("_", "-") for path in ROOT.glob("sites/*/__init__.py"))
QUICK = {"cleveland", "minnesota-clinic", "south-lender"}
"""Sites that stand for the others until the slow tests."""
SLOW = [pytest.mark.slow, pytest.mark.studies]
ALL = [
    pytest.param(name, dataset, marks=() if name in QUICK else SLOW, id=f"{name}/{dataset}")
    for name in NAMES
    for dataset in listing.load(name).datasets
]
AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def refrozen(site: Site, folder: Path) -> FrozenSite:
    freeze(site, folder, None, at=AT)
    return load(site, folder)


def assert_served_alike(live: Site, again: FrozenSite, **question) -> None:
    """Hold both sides of every split, to the bit and in order, to the live site's."""
    for repeat in (0, 1):
        mine, theirs = again.read(repeat, **question), live.read(repeat, **question)
        for ours, other in ((mine.training, theirs.training), (mine.holdout("test"), theirs.holdout("test"))):
            pd.testing.assert_frame_equal(ours, other, check_exact=True)
            assert bits(ours) == bits(other)
        assert mine.left_out == theirs.left_out
        np.testing.assert_array_equal(mine.training_keys(), theirs.training_keys())


def bits(table: pd.DataFrame) -> list[object]:
    """Return every cell with its kind: floats and dates as bytes, texts as they are."""
    plain = [cells.to_numpy() for _, cells in table.items()]
    return [(c.dtype.str, [(type(x), x) for x in c] if c.dtype == object else c.tobytes()) for c in plain]


@pytest.mark.parametrize(("name", "dataset"), ALL)
def test_every_shipped_site_is_served_from_frozen_rows_as_from_its_source(name, dataset, tmp_path, request):
    site = listing.load(name).serving(dataset)
    if datasets.load(dataset).absent():
        request.getfixturevalue("taiwan_parties" if dataset == "taiwan-credit-parties" else "heart")
    again = refrozen(site, tmp_path)
    mine, theirs = again.inspect(), site.inspect()
    assert bits(mine[0]) == bits(theirs[0])
    assert (mine[1], mine[2]) == ([], theirs[2])
    assert (again.holdout, again.policy, again.title, again.folder) == (
        site.holdout, site.policy, site.title, site.folder,
    )  # fmt: skip
    assert_served_alike(site, again)
    ours, other = again.sorted_rows(), SortedRows.of(theirs[0], theirs[2], outcome=site.has_outcome)
    np.testing.assert_array_equal(ours.keys, other.keys)
    assert ours.order.tolist() == other.order.tolist()


@pytest.mark.studies
def test_splits_that_count_rows_in_the_sources_order_and_rows_without_gaps_are_those_of_the_source(heart, tmp_path):
    left_out = {}
    for name in ("cleveland", "hungary", "switzerland", "long-beach"):
        site = listing.load(name).serving("heart-flamby")
        again = refrozen(site, tmp_path)
        features = datasets.load("heart-flamby").schema.features()
        assert_served_alike(site, again, published=Flamby43())
        assert_served_alike(site, again, published=Flamby43(), complete=features)
        left_out[name] = again.read(complete=features).left_out
    assert left_out == {"cleveland": 0, "hungary": 33, "switzerland": 77, "long-beach": 70}


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_a_table_that_was_cut_into_sites_is_frozen_as_it_was_cut(name, tmp_path):
    sites = cut(datasets.load(name), Partition(by="iid", sites=3, alpha=1.0, seed=5))
    for site in sites:
        assert_served_alike(site, refrozen(site, tmp_path / site.name))
    whole = Site(name="whole", dataset=name, source=Frame(datasets.load(name).whole_table()), holdout=Holdout(salt="s"))
    assert_served_alike(whole, refrozen(whole, tmp_path))
    assert len(load(whole, tmp_path).inspect()[0]) == sum(len(site.inspect()[0]) for site in sites)


def test_datasets_of_one_site_are_frozen_apart(heart, tmp_path):
    site = listing.load("cleveland")
    first, second = (freeze(site.serving(dataset), tmp_path, None) for dataset in site.datasets)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heart-disease", "heart-flamby"]
    assert first.sha256 != second.sha256
    assert load(site, tmp_path).snapshot == first
    assert load(site.serving("heart-flamby"), tmp_path).snapshot == second
    assert load(site, tmp_path).datasets == ("heart-disease",)
    with pytest.raises(UsageError, match="has dataset 'heart-disease', not 'heart-flamby'"):
        load(site, tmp_path).serving("heart-flamby")


@dataclass(frozen=True, eq=False)
class Gone(Frame):
    """A source that cannot be reached any more."""

    def read(self, folders) -> pd.DataFrame:
        raise AssertionError("the source was read")


def test_a_frozen_site_never_touches_its_source(small_sites, tmp_path):
    site = small_sites(1)[0]
    freeze(site, tmp_path, None)
    again = load(replace(site, source=Gone(pd.DataFrame())), tmp_path)
    assert_served_alike(site, again)
    assert len(again.source.read(())) == 60
    with pytest.raises(AssertionError):
        replace(site, source=Gone(pd.DataFrame())).read()


def test_what_breaks_a_rule_is_refused_with_the_sites_own_error_and_the_snapshot_before_stays(small_sites, tmp_path):
    site = small_sites(1)[0]
    before = freeze(site, tmp_path, None)
    wrong = replace(site, source=Frame(site.source.table.assign(x1=999.0)))
    with pytest.raises(TableError) as raised:
        freeze(wrong, tmp_path, None)
    assert str(raised.value) == str(wrong.inspect()[1][0].error())
    assert raised.value.bad == 60
    assert load(site, tmp_path).snapshot == before


def test_the_hash_is_of_the_rows_whatever_their_order_and_whoever_wrote_them(small_sites, tmp_path):
    site = small_sites(1)[0]
    first = freeze(site, tmp_path / "a", None, at=AT)
    shuffled = replace(site, source=Frame(site.source.table.sample(frac=1, random_state=3)))
    second = freeze(shuffled, tmp_path / "b", None, at=AT)
    site.source.table.to_csv(tmp_path / "table.csv", index=False)
    third = freeze(replace(site, source=Csv(str(tmp_path / "table.csv"))), tmp_path / "c", None, at=AT)
    assert first.sha256 == second.sha256 == third.sha256
    assert first.file_sha256 != second.file_sha256
    assert first.at == "2026-11-20T12:00:00+00:00"


KINDS = Schema.model_validate({
    "name": "all-kinds", "task": "binary", "target": "y", "group": "person",
    "columns": {
        "person": {"kind": "id"}, "size": {"kind": "number", "range": [-1e9, 1e9]},
        "colour": {"kind": "category", "values": ["red", "green"]}, "flag": {"kind": "flag"},
        "seen": {"kind": "date"}, "y": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip
ROWS = st.lists(
    st.tuples(
        st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        st.floats(allow_infinity=False), st.sampled_from([None, "red", "green"]),
        st.sampled_from([0.0, 1.0, float("nan")]),
        st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
        st.sampled_from([None, "no", "yes"]),
    ),
    max_size=8,
)  # fmt: skip


def table_of(rows) -> pd.DataFrame:
    """Return rows in the kinds that `map_table` gives."""
    columns = [np.array([row[at] for row in rows], dtype=object) for at in range(6)]
    for at in (1, 3):
        columns[at] = columns[at].astype(np.float64)
    columns[4] = columns[4].astype("datetime64[ns]")
    # Texts stay objects, as a mapping gives them; pandas 3 would make them its own type.
    series = [pd.Series(column, dtype=column.dtype) for column in columns]
    return pd.DataFrame(dict(zip(KINDS.columns, series, strict=True)))


@given(ROWS, st.randoms())
def test_any_table_comes_back_to_the_bit_and_its_hash_knows_no_order(rows, random):
    table = table_of(rows)
    again = snapshot._from_parquet(snapshot._as_parquet(table), KINDS)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert bits(again) == bits(table)
    assert rows_sha256(table_of(random.sample(rows, len(rows)))) == rows_sha256(table)


@given(ROWS.filter(len), ROWS.filter(len), st.integers(0, 7), st.integers(0, 5))
def test_any_cell_that_reads_differently_changes_the_hash(rows, others, row, column):
    row, cell = row % len(rows), others[0][column]
    changed = [list(one) for one in rows]
    changed[row][column] = cell
    before, after = table_of(rows), table_of(changed)
    same = before.equals(after)  # where NaN is NaN, and -0.0 is 0.0
    assert (rows_sha256(before) == rows_sha256(after)) == same


def test_no_two_tables_look_the_same_to_the_hash():
    one, other = ("a\x1fb", 1.0, None, 0.0, None, "no"), ("a", 1.0, None, 0.0, None, "no")
    hashes = {
        rows_sha256(table_of(rows))
        for rows in ([], [one], [other], [other, other], [("", *other[1:])], [(None, *other[1:])], [one, other])
    }
    assert len(hashes) == 7
    swapped = table_of([other]).rename(columns={"size": "flag", "flag": "size"})
    assert rows_sha256(swapped) not in hashes


def test_text_that_cannot_be_kept_is_refused_without_a_word_of_it(tmp_path, small_sites):
    site = small_sites(1)[0]
    for cell in (7, b"Jane Roe", "Jane\ud800"):
        table = site.inspect()[0]
        table.loc[4, "person"] = cell
        with pytest.raises(TableError, match="^column 'person' has values that are no text") as raised:
            freeze(replace(site, source=Part(table)), tmp_path, None)
        assert (raised.value.bad, "Jane" in str(raised.value)) == (1, False)
    assert list(tmp_path.glob("small")) == []


def test_files_are_for_their_owner_alone_and_only_the_newest_snapshot_stays(small_sites, tmp_path):
    site, folder = small_sites(1)[0], tmp_path / "frozen"
    old = os.umask(0)
    try:
        freeze(site, folder, None)
        (folder / "small" / ".part-left").write_text("of a crash")
        second = freeze(replace(site, source=Frame(site.source.table[:50])), folder, None)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    files = {"frozen.json": 0o600, second.file: 0o600, second.origin.file: 0o600}
    assert modes == {"frozen": 0o700, "small": 0o700} | files
    facts = json.loads((folder / "small" / "frozen.json").read_text())
    assert (facts["rows"], facts["dataset"], facts["site"], facts["excluded"]) == (50, "small", "site-01", None)


def test_preparing_writes_nothing_and_gives_the_hash_of_what_would_be_written(small_sites, tmp_path):
    site = small_sites(1)[0]
    prepared = Prepared.of(site, None)
    assert list(tmp_path.glob("frozen*")) == []
    assert prepared.sha256() == prepared.write(tmp_path).sha256 == rows_sha256(site.inspect()[0])
