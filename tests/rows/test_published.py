"""Published splits and complete rows: which rows of a site a study takes, and what the site's policy lets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from flfed import run
from flfed.errors import UsageError
from flfed.registry import load, names
from flfed.rows.comparison.compare import compare
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.holdout import canonical_rows
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Mapped, Site, redraws, study_refusal, study_table
from flfed.rows.data.sources import Csv, Parquet
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.study.study import Study

SIZES = {"cleveland": (199, 104), "hungary": (172, 89), "switzerland": (30, 16), "long-beach": (85, 45)}
FILES = {"cleveland": "cleveland", "hungary": "hungarian", "switzerland": "switzerland", "long-beach": "va"}
NUMBERS = {"age": 0, "trestbps": 3, "chol": 4, "thalach": 7, "oldpeak": 9}


def split_of(raw: pd.DataFrame, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """The publication's rule, written anew: rows that train, rows that are tested on, by place."""
    sick = (raw[13] > 0).to_numpy()
    several = min(sick.sum(), (~sick).sum()) > 2
    strata = sick if several else None
    return train_test_split(
        np.arange(len(raw)), train_size=0.66, test_size=0.34, random_state=random_state, stratify=strata
    )


def raw_rows(site: str, folder: Path) -> pd.DataFrame:
    raw = pd.read_csv(folder / f"processed.{FILES[site]}.data", header=None, na_values="?")
    return raw.drop(columns=[10, 11, 12]).dropna().reset_index(drop=True)


def same_rows(table: pd.DataFrame, raw: pd.DataFrame) -> bool:
    """Tell whether a mapped table holds the same rows as a raw one, in any order."""
    mapped = table[list(NUMBERS)].assign(sick=table["disease"] == "present").to_numpy(float)
    wanted = raw[list(NUMBERS.values())].assign(sick=raw[13] > 0).to_numpy(float)
    return np.array_equal(mapped[np.lexsort(mapped.T)], wanted[np.lexsort(wanted.T)])


@pytest.mark.parametrize("repeat", [0, 1, 7])
def test_the_rows_are_those_of_scikit_learns_split_of_the_raw_files(heart, repeat):
    study = Study.load("fed-heart-flamby").replace({"split.redraw": True})
    for site in listing.of_dataset("heart-flamby"):
        raw = raw_rows(site.name, heart.folders()[1])
        found = study_table(study, site, repeat)
        held = found.holdout("test")
        assert (len(found.training), len(held)) == SIZES[site.name]
        train, test = split_of(raw, 43 + repeat)
        assert same_rows(found.training, raw.iloc[train]) and same_rows(held, raw.iloc[test])
        assert not same_rows(held, raw.iloc[split_of(raw, 44 + repeat)[1]])


def test_the_published_rows_stay_in_every_repeat_unless_they_are_redrawn(heart):
    kept = Study.load("fed-heart-flamby")
    redrawn = kept.replace({"split.redraw": True})
    site = listing.load("cleveland").serving("heart-flamby")
    tables = [[study_table(study, site, repeat).holdout("test") for repeat in (0, 1)] for study in (kept, redrawn)]
    assert tables[0][0].equals(tables[0][1]) and tables[0][0].equals(tables[1][0])
    assert not tables[1][0].equals(tables[1][1])
    assert (redraws(kept, site), redraws(redrawn, site)) == (False, True)
    assert redraws(kept.replace({"split.fixed": None}), site)


def test_the_files_of_one_heart_dataset_are_those_of_the_other(home, test_data):
    flamby, heart = datasets.load("heart-flamby"), datasets.load("heart-disease")
    assert [file.sha256 for file in flamby.source.files] == [file.sha256 for file in heart.source.files]
    assert len(flamby.absent()) == len(heart.absent()) == 4
    paths = datasets.get(flamby, from_folder=test_data, progress=lambda line: None)
    assert heart.absent() == flamby.absent() == []
    assert {path.parent for path in paths} == {home / "data" / "heart-disease"}
    assert datasets.get(heart, from_folder=home, progress=lambda line: None) == paths


@pytest.mark.parametrize(("text", "why"), [
    ('files-of = "nix"', "dataset 'nix' is not known"), ('files-of = "wine"', "'wine' has no downloads of its own"),
    ('files-of = "preterm-birth"', "'preterm-birth' has no downloads of its own"),
    ('files-of = "heart-flamby"', "'heart-flamby' has no downloads of its own"),
    ('files-of = "small"', "'small' has no downloads of its own"),
])  # fmt: skip
def test_files_that_cannot_be_shared_are_refused(small_sites, tmp_path, text, why):
    source = tmp_path / "root" / "datasets" / "small" / "source.toml"
    source.write_text(f"{source.read_text()}{text}\n")
    with pytest.raises(UsageError, match=why):
        datasets.load("small")


def small_split(
    sites: list[Site], study: str, *, repeat: int = 0, **changes: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    chosen = Study.parse(study).replace({"split.fixed": "flamby-43", **changes})
    found = study_table(chosen, sites[0], repeat)
    return found.training, found.holdout("test")


def test_a_class_of_two_rows_is_not_stratified_and_one_of_three_is(small_sites, small_study):
    # 60 rows: 39 train (60 × 0.66 = 39.6, down) and 21 are held out. Of 3 stratified rows 2 and 1.
    for few, stratified in ((2, False), (3, True)):

        def change(_: int, table: pd.DataFrame, few: int = few) -> pd.DataFrame:
            return table.assign(y=np.where(np.arange(len(table)) < few, "yes", "no"))

        sites = small_sites(1, rows=60, change=change)
        held = [(small_split(sites, small_study, repeat=r, redraw=True)[1]["y"] == "yes").sum() for r in range(12)]
        assert (set(held) == {1}) == stratified
    assert [len(part) for part in small_split(sites, small_study)] == [39, 21]


def test_a_published_split_of_grouped_or_three_rows_is_refused(small_sites, small_study, tmp_path):
    with pytest.raises(UsageError, match="fewer than 3 rows"):
        small_split(small_sites(1, change=lambda _, t: t.head(2)), small_study)
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    with pytest.raises(UsageError, match="has groups of rows"):
        small_split(small_sites(1), small_study)


def test_a_site_that_keeps_its_holdout_refuses_a_published_split(small_sites, small_study):
    study = Study.parse(small_study).replace({"split.fixed": "flamby-43"})
    sites = small_sites(3)
    sites[1] = replace(sites[1], policy=Policy(disclosure="open"))
    report = run(study, sites=sites).report
    [fault] = report["faults"]
    sentence = "its policy keeps the site's own holdout (resplit = false), and the study asks for a published split"
    assert (fault["site"], fault["reason"]) == ("site-02", f"refused: {sentence}")
    assert sorted(report["sites"]) == ["site-01", "site-03"]
    with pytest.raises(UsageError, match="keeps the site's own holdout"):
        SiteSession(sites[1], study)


def test_every_listed_split_puts_each_row_on_one_side_and_draws_anew(small_sites):
    site = small_sites(1, rows=90)[0]
    table, _, schema = site.inspect()
    assert "flamby-43" in names("split")
    for name in names("split"):
        assert "Source:" in (load("split", name).__doc__ or "")
        if name == "official":  # a table brings it, and there is one: tests/rows/test_engines_reader.py
            continue
        split = load("split", name)()
        masks = [split.split(table, schema, draw) for draw in (0, 0, 1)]
        for train, held in masks:
            assert train.dtype == held.dtype == bool and np.array_equal(train, ~held) and 0 < held.sum() < len(table)
        assert np.array_equal(masks[0][1], masks[1][1]) and not np.array_equal(masks[0][1], masks[2][1])


def gaps(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Five rows without x1, of which the first two lack x2 as well, and no other gap in the table."""
    table = table.assign(x2=table["x2"].fillna(0.0))
    table.loc[table.index[:5], "x1"] = np.nan
    table.loc[table.index[:2], "x2"] = np.nan
    return table


@pytest.mark.parametrize(("features", "left_out"), [(None, 5), (["x1", "flag"], 5), (["x2", "flag"], 2), (["flag"], 0)])
def test_rows_with_a_gap_in_a_feature_of_the_study_are_left_out_before_anything(
    small_sites, small_study, features, left_out
):
    site = small_sites(1, rows=80, change=gaps)[0]
    study = Study.parse(small_study).replace({"features": features, "encode.rows": "complete"})
    work = SiteSession(site, study)
    held = work.table.holdout("test")
    assert work.table.left_out == left_out
    assert len(work.table.training) + len(held) == 80 - left_out
    assert work.summary().rows[0] == len(work.table.training)
    for part in (work.table.training, held):
        assert part[[column.name for column in work.layout.features]].notna().all(axis=None)
    # Nobody else changes sides, and nobody is left out who has all features.
    every = site.read()
    kept = set(canonical_rows(every.holdout("test"))) & set(canonical_rows(held))
    assert kept == set(canonical_rows(held))
    assert set(canonical_rows(work.table.training)) <= set(canonical_rows(every.training))


def test_a_site_is_too_small_by_what_is_left(small_sites, small_study):
    site = small_sites(1, rows=60, change=lambda _, t: t.assign(x1=t["x1"].where(np.arange(60) < 20)))[0]
    site = replace(site, policy=Policy(outputs=("complete-rows",)))
    study = Study.parse(small_study).replace({"features": ["x1"]})
    assert SiteSession(site, study).too_small() is None
    assert "fewer than 10" in SiteSession(site, study.replace({"encode.rows": "complete"})).too_small()


@pytest.mark.parametrize(("policy", "said"), [
    (Policy(disclosure="open"), "rows left out because a feature is missing: 5"),
    (Policy(outputs=("complete-rows",)), "rows left out because a feature is missing: fewer than 10"),
    (Policy(outputs=("complete-rows",), cell_minimum=4), "rows left out because a feature is missing: 5"),
])  # fmt: skip
def test_a_comparison_says_how_many_rows_were_left_out(small_sites, small_study, policy, said):
    study = Study.parse(small_study).replace({"encode.rows": "complete"})
    [site] = small_sites(1, rows=100, change=gaps, policy=policy)
    work = SiteSession(site, study)
    encoder = work.own_encoder()
    arrays = {"weight": np.zeros((work.training(encoder).x.shape[1], 1)), "bias": np.zeros(1)}
    assert run_client(compare(work, arrays, encoder)).note.split("; ")[0] == said
    assert "left out" not in run_client(compare(SiteSession(site, Study.parse(small_study)), arrays, encoder)).note


def test_an_institution_decides_whether_a_study_may_leave_rows_out(small_sites, small_study):
    # Two studies, one with all rows and one with complete ones: their rows differ by those with a gap.
    study = Study.parse(small_study).replace({"encode.rows": "complete"})
    [site] = small_sites(1, rows=200, change=gaps, policy=Policy())
    why = "its policy does not let a study leave out rows with a missing feature (outputs: 'complete-rows')"
    assert study_refusal(study, site) == why
    assert study_refusal(Study.parse(small_study), site) is None
    with pytest.raises(UsageError, match="does not let a study leave out rows"):
        SiteSession(site, study)
    assert study_refusal(study, replace(site, policy=Policy(outputs=("complete-rows",)))) is None


def test_csv_and_parquet_give_equal_rows_under_a_published_split(small_sites, small_study, tmp_path):
    [site] = small_sites(1, rows=90, change=gaps)
    table = site.source.read(())
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    study = Study.parse(small_study).replace({"split.fixed": "flamby-43", "encode.rows": "complete"})
    sources = (Csv(str(tmp_path / "t.csv")), Parquet(str(tmp_path / "t.parquet")), site.source)
    found = [study_table(study, replace(site, source=source)) for source in sources]
    assert all(f.training.equals(found[0].training) for f in found)
    assert all(f.holdout("test").equals(found[0].holdout("test")) for f in found)
    assert len(found[0].training) == int(0.66 * 85)


def test_another_dataset_may_have_a_table_and_a_holdout_of_its_own(small_sites, tmp_path):
    one, other = small_sites(2)
    own = replace(one, dataset="other", also={"small": Mapped(source=other.source, holdout=other.holdout)})
    assert own.datasets == ("other", "small")
    assert own.serving("small").read().training.equals(other.read().training)
    shared = replace(one, dataset="other", also={"small": Mapped()})
    assert shared.serving("small").read().training.equals(one.read().training)
