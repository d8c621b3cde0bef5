"""A table that is read once for many runs: the same rows and splits as when each run reads for itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.holdout import Holdout, canonical_rows, side_keys
from flfed.rows.data.partition import cut
from flfed.rows.data.site import CachedSite, Policy, Site
from flfed.rows.data.sources import Frame
from flfed.rows.data.table_check import check_site
from flfed.rows.session import SiteSession
from flfed.rows.splits.flamby_43 import Flamby43
from flfed.study.study import Partition


@dataclass(frozen=True, eq=False)
class Counting(Frame):
    """A frame that counts how often it is read."""

    times: list[int] = field(default_factory=list)

    def read(self, folders) -> pd.DataFrame:
        self.times.append(1)
        return super().read(folders)


def counting(site: Site) -> Site:
    return replace(site, source=Counting(site.source.table))


@pytest.mark.parametrize(
    "question", [{}, {"complete": ("x2",)}, {"published": Flamby43()}], ids=["all", "complete", "published"]
)
def test_every_split_of_rows_read_once_is_that_of_a_site_that_reads_each_time(small_sites, question):
    plain = counting(small_sites(1, rows=80)[0])
    once = CachedSite.of(plain)
    for repeat in range(4):
        mine, theirs = once.read(repeat, **question), plain.read(repeat, **question)
        pd.testing.assert_frame_equal(mine.training, theirs.training)
        pd.testing.assert_frame_equal(mine.holdout("test"), theirs.holdout("test"))
        assert mine.left_out == theirs.left_out
        np.testing.assert_array_equal(mine.training_keys(), side_keys(theirs.training, theirs.schema))
        assert mine.opened == ["test"]
    assert len(plain.source.times) == 4 + 1
    assert 0 < mine.holdout_rows < len(mine.training)


def test_a_published_split_counts_rows_in_the_sources_order_whatever_the_order_of_training(small_sites):
    site = small_sites(1, rows=80, change=lambda _, table: table.sample(frac=1, random_state=1))[0]
    table, _, schema = site.inspect()
    train, held = Flamby43().split(table, schema, 0)
    found = site.read(published=Flamby43())
    assert sorted(found.training["person"]) == sorted(table["person"][train])
    assert sorted(found.holdout("test")["person"]) == sorted(table["person"][held])
    assert train.sum() + held.sum() == 80


def test_keys_of_other_rows_than_the_ones_they_came_with_are_made_anew(small_sites):
    table = CachedSite.of(small_sites(1)[0]).read()
    few = table.with_training(table.training[:7].reset_index(drop=True))
    np.testing.assert_array_equal(few.training_keys(), table.training_keys()[:7])


def test_validation_rows_are_the_same_where_keys_are_kept(small_sites, small_study):
    study = Study.parse(small_study).replace({"plan.validation": 0.3})
    site = small_sites(1, rows=80)[0]
    one, two = (SiteSession(each, study, 1)._validation for each in (site, CachedSite.of(site)))
    np.testing.assert_array_equal(one, two)
    assert 5 < one.sum() < 40


def test_what_was_read_is_not_taken_along_to_a_changed_site_or_another_run(small_sites):
    site = small_sites(1)[0]
    once = CachedSite.of(site)
    assert len(once.read().training) == len(site.read().training)
    shorter = Frame(site.source.table[:40])
    assert len(once.sorted_rows().source) == 60
    assert len(replace(once, source=shorter).sorted_rows().source) == 40
    assert len(CachedSite.of(replace(site, source=shorter)).sorted_rows().source) == 40


def test_runs_of_one_split_share_it_and_open_the_holdout_each_for_itself(small_sites):
    site = small_sites(1)[0]
    once = CachedSite.of(site, splits_once=True)
    one, two, other = once.read(), once.read(), once.read(1)
    assert one.holdout("one") is two.holdout("two")
    assert np.shares_memory(one.training["x1"].to_numpy(), two.training["x1"].to_numpy())
    assert (one.opened, two.opened) == (["one"], ["two"])
    pd.testing.assert_frame_equal(one.training, site.read().training)
    pd.testing.assert_frame_equal(other.training, site.read(1).training)
    assert not one.training.equals(other.training)
    several = CachedSite.of(site)
    rows = [several.read().training["x1"].to_numpy() for _ in range(2)]
    assert not np.shares_memory(*rows)


def test_a_site_that_reads_in_a_way_of_its_own_is_left_as_it_is(small_sites):
    class Own(Site):
        """A subclass."""

    own = Own(**vars(small_sites(1)[0]))
    assert CachedSite.of(own) is own
    assert len(own.read().training) > 30


@pytest.mark.slow  # three series
@pytest.mark.studies
def test_repeats_read_a_table_once(small_sites, small_study):
    study = Study.parse(small_study).replace({"rounds": 1, "compare.resamples": 200})
    together, alone = (list(map(counting, small_sites(2))) for _ in range(2))
    figures = [run(study, sites=sites, repeats=3, stacked=sites is together) for sites in (together, alone)]
    assert [len(site.source.times) for site in together] == [1, 1]
    assert [len(site.source.times) for site in alone] == [1, 1]
    values = [result.sites["value"].to_numpy(float) for result in figures]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6, atol=1e-6)
    # Data may change between two runs in one process.
    run(study, sites=together, repeats=2)
    assert [len(site.source.times) for site in together] == [2, 2]


# --- which rows are held out is a contract: written down when row keys took the place of texts ---

HELD = {
    ("minnesota-clinic", 0): (190, 57, "1c29d38f72dc", "2cb92dffe98e"),
    ("minnesota-clinic", 2): (174, 73, "dad7000c1b1c", "6fc24d4a5212"),
    ("west-lender", 2): (1716, 730, "001eac9960a9", "ebd235038cac"),
    ("wine-2", 0): (44, 15, "e3aab4bf5e48", "155b5501c8a2"), ("wine-2", 2): (40, 19, "c7739806d30e", "1b308e9c0eb3"),
    ("diabetes-3", 0): (100, 38, "e3be5aeefd1c", "193157d12171"),
    ("small", 0): (86, 34, "2d112d12fd08", "c7cbda129218"),
    ("small", 2): (92, 28, "e3943449b5cb", "a5c86ddc8b0d"),
}  # fmt: skip
CUTS = {"wine-2": Partition(by="iid", sites=3), "diabetes-3": Partition(by="dirichlet", sites=3, alpha=5.0)}


def digest(table: pd.DataFrame) -> str:
    """Return the start of a hash over the rows in their order."""
    return hashlib.sha256("\n".join(canonical_rows(table)).encode()).hexdigest()[:12]


def site_of(name: str) -> Site:
    """Return a site of an embedded dataset, of a cut one, or one with numbers of up to 17 digits."""
    if name in CUTS:
        return next(site for site in cut(datasets.load(name.split("-")[0]), CUTS[name]) if site.name == name)
    if name != "small":
        return listing.load(name)
    rng, rows = np.random.default_rng(5), 120
    columns = {
        "person": [f"P{number}" for number in rng.permutation(rows)], "x1": rng.random(rows) * 100,
        "x2": rng.normal(0, 1, rows).clip(-5, 5).round(2), "flag": rng.integers(0, 2, rows),
        "colour": rng.choice(["red", "green"], rows), "y": rng.choice(["yes", "no"], rows),
    }  # fmt: skip
    return Site("small", "small", Frame(pd.DataFrame(columns)), holdout=Holdout(salt="s"))


@pytest.mark.parametrize(("name", "repeat"), HELD, ids=str)
def test_the_same_rows_are_held_out_as_ever(small_sites, name, repeat):
    small_sites(1)  # its dataset
    site = replace(site_of(name), policy=Policy(disclosure="open", resplit=True))
    for each in (site, CachedSite.of(site)):
        found = each.read(repeat)
        sides = (found.training, found.holdout("test"))
        assert (*map(len, sides), *map(digest, sides)) == HELD[name, repeat]


def test_a_check_reads_a_table_once_and_counts_the_rows_that_a_run_reads(small_sites):
    site = counting(small_sites(1, rows=80)[0])
    found = check_site(site)
    assert len(site.source.times) == 1 and found.passed
    table = site.read()
    assert (found.training_rows, found.holdout_rows) == (len(table.training), table.holdout_rows)
