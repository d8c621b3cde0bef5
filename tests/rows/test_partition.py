"""One table cut into research sites: every row once, the same way each time, and never a tiny site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.holdout import canonical_rows
from flfed.rows.data.mapping import map_table
from flfed.rows.data.partition import cut
from flfed.rows.data.row_keys import order_keys, row_keys
from flfed.rows.data.sources import Frame
from flfed.study.study import Partition


def sizes(name: str, **partition) -> list[int]:
    return [len(site.source.read(())) for site in cut(datasets.load(name), Partition(**partition))]


@pytest.mark.parametrize(("name", "partition"), [
    ("diabetes", {"by": "iid", "sites": 4}), ("diabetes", {"by": "sex"}),
    ("diabetes", {"by": "dirichlet", "sites": 3, "alpha": 5.0}),
    ("wine", {"by": "quantity", "sites": 3, "alpha": 5.0}), ("wine", {"by": "cultivar"}),
])  # fmt: skip
def test_every_row_is_at_one_site_and_the_cut_is_the_same_each_time(name, partition):
    dataset = datasets.load(name)
    sites = cut(dataset, Partition(**partition))
    rows = [row for site in sites for row in canonical_rows(site.source.read(()))]
    whole, _ = map_table(dataset.whole_table(), dataset.schema, {})
    assert sorted(rows) == sorted(canonical_rows(whole))
    again = [row for site in cut(dataset, Partition(**partition)) for row in canonical_rows(site.source.read(()))]
    assert again == rows
    assert [site.name for site in sites] == sorted({site.name for site in sites})
    for site in sites:
        assert len(site.read().training) > 0 and site.policy.disclosure == "open"


def test_iid_sites_differ_by_one_row_at_most():
    assert sorted(sizes("diabetes", by="iid", sites=4)) == [110, 110, 111, 111]


def test_another_seed_cuts_otherwise():
    tables = [cut(datasets.load("wine"), Partition(by="iid", sites=3, seed=seed))[0].source.read(()) for seed in (0, 1)]
    assert canonical_rows(tables[0]) != canonical_rows(tables[1])


def test_a_column_gives_a_site_a_value():
    sites = cut(datasets.load("wine"), Partition(by="cultivar"))
    assert [site.name for site in sites] == ["wine-barbera", "wine-barolo", "wine-grignolino"]
    for site in sites:
        assert site.source.read(())["cultivar"].nunique() == 1


def test_a_small_alpha_skews_labels_and_a_large_one_does_not():
    def spread(alpha: float) -> float:
        parts = [s.source.read(())["progression"] for s in cut(datasets.load("diabetes"), skewed(alpha))]
        return float(np.std([part.mean() for part in parts]))

    def skewed(alpha: float) -> Partition:
        return Partition(by="dirichlet", sites=3, alpha=alpha, seed=3)

    # With equal shares, means of 147 rows of deviation 77 differ by 77 / sqrt(147) = 6.4.
    assert spread(1000.0) < 3 * 6.4
    assert spread(0.7) > spread(1000.0) + 6.4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from(["dirichlet", "quantity"]))
def test_as_many_sites_as_asked_each_with_ten_rows_or_an_error(seed, alpha, by):
    # A site that no row is dealt to must not vanish in silence.
    try:
        found = sizes("wine", by=by, sites=4, alpha=alpha, seed=seed)
    except UsageError as error:
        assert "fewer than 10 rows; raise alpha, or cut fewer sites" in str(error)
    else:
        assert len(found) == 4 and min(found) >= 10 and sum(found) == 178


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(UsageError, match="neither a column of 'wine' nor one of"):
        cut(datasets.load("wine"), Partition(by="idd"))
    with pytest.raises(UsageError, match="is not one table"):
        cut(datasets.load("preterm-birth"), Partition())
    with pytest.raises(UsageError, match="leaves a site with fewer than 10 rows; cut fewer sites"):
        cut(datasets.load("wine"), Partition(by="iid", sites=30))


def test_two_values_that_give_one_name_are_refused(tmp_path, monkeypatch):
    # Blood groups A+ and A- are both "a" in a site's name: they must not become one site.
    source = datasets.load("wine")
    folder = tmp_path / "datasets" / "wine"
    folder.mkdir(parents=True)
    text = (source.folder / "schema.toml").read_text(encoding="utf-8")
    (folder / "schema.toml").write_text(text.replace('"barolo", "grignolino"', '"a+", "a-"'), encoding="utf-8")
    (folder / "source.toml").write_text((source.folder / "source.toml").read_text(encoding="utf-8"), encoding="utf-8")
    code = (source.folder / "table.py").read_text(encoding="utf-8")
    (folder / "table.py").write_text(code.replace("barolo", "a+").replace("grignolino", "a-"), encoding="utf-8")
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    changed = datasets.load("wine")
    assert changed.schema.classes[:2] == ("a+", "a-")
    with pytest.raises(UsageError, match="two values of 'cultivar' give one site's name"):
        cut(changed, Partition(by="cultivar"))


def test_each_sites_rows_are_in_canonical_order():
    for site in cut(datasets.load("wine"), Partition(by="iid", sites=3)):
        rows = site.source.read(())
        np.testing.assert_array_equal(order_keys(row_keys(rows)), np.arange(len(rows)))


def test_a_site_reads_its_part_as_it_would_read_a_table_of_its_own_and_holds_no_copy():
    dataset = datasets.load("diabetes")
    sites = cut(dataset, Partition(by="quantity", sites=3, alpha=5.0))
    for site in sites:
        own = replace(site, source=Frame(site.source.read(())))
        for repeat in (0, 1):
            mine, theirs = site.read(repeat), own.read(repeat)
            pd.testing.assert_frame_equal(mine.training, theirs.training)
            pd.testing.assert_frame_equal(mine.holdout("x"), theirs.holdout("x"))
    numbers = [site.source.table["bmi"].to_numpy() for site in sites]
    assert np.shares_memory(numbers[0].base, numbers[1].base)
    assert sum(map(len, numbers)) == 442
