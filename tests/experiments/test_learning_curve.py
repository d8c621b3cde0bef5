"""A study with growing shares of one site's training rows: which rows they are, and that each is an ordinary run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.errors import UsageError
from flfed.experiments.fewer_rows import SHARES, FewerRows, run_curve
from flfed.records.reports.catalogue import notes_of
from flfed.records.reports.site_verdict import gain_at
from flfed.records.store.reader import RunReader
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from tests.conftest import SMALL_SCHEMA


def test_rows_of_a_smaller_share_are_among_those_of_a_larger_one_and_the_holdout_stays(small_sites):
    (site,) = small_sites(1)
    whole = site.read()
    few, more = (FewerRows.of(site, share, 7).read() for share in (0.25, 0.5))
    rows = len(whole.training)
    assert (len(few.training), len(more.training)) == (round(0.25 * rows), round(0.5 * rows))
    assert set(few.training["person"]) < set(more.training["person"]) < set(whole.training["person"])
    positions = whole.training.reset_index().set_index("person").loc[more.training["person"], "index"]
    assert positions.is_monotonic_increasing
    for table in (few, more):
        pd.testing.assert_frame_equal(table.holdout("compare"), whole.holdout("compare"))
    # Another repeat keeps others.
    assert set(FewerRows.of(site, 0.25, 8).read().training["person"]) != set(few.training["person"])


@pytest.mark.studies
def test_every_row_is_as_likely_to_be_kept_as_any_other(small_sites):
    (site,) = small_sites(1)
    rows, times = site.read().training["person"].tolist(), 600
    kept = pd.Series(0, index=rows)
    for draw in range(times):
        kept[FewerRows.of(site, 0.25, draw).read().training["person"]] += 1
    share = round(0.25 * len(rows)) / len(rows)
    assert np.abs(kept - times * share).max() < 5 * np.sqrt(times * share * (1 - share))


def test_few_rows_of_patients_with_several_are_those_of_few_patients(small_sites, tmp_path: Path):
    (site,) = small_sites(1, rows=400)
    place, small = tmp_path / "root" / "datasets" / "grouped", tmp_path / "root" / "datasets" / "small"
    place.mkdir(parents=True)
    (place / "schema.toml").write_text(SMALL_SCHEMA.replace('name = "small"', 'name = "grouped"\ngroup = "person"'))
    (place / "source.toml").write_text((small / "source.toml").read_text())
    visits = site.source.table.assign(person=[f"P{number // 4:03d}" for number in range(400)])
    kept = FewerRows.of(replace(site, dataset="grouped", source=Frame(visits)), 0.25, 7).read().training
    assert len(kept) / 4 <= kept["person"].nunique() <= len(kept) / 4 + 1  # of four visits each


def test_each_point_is_an_ordinary_run_and_that_of_all_rows_the_study_itself(small_sites, small_study):
    study, sites = Study.parse(small_study).replace({"compare.site-model": "same"}), small_sites(3, rows=200)
    points = run_curve(study, "site-02", sites=sites)
    rows = len(sites[1].read().training)
    assert [point.share for point in points] == list(SHARES)
    assert [point.rows for point in points] == [round(share * rows) for share in SHARES]
    whole = run(study, sites=sites).report
    assert points[-1].gain == gain_at(whole["sites"]["site-02"], "roc_auc_score")
    with RunReader.open() as reader:
        hashes = [reader.runs_of(point.run)[0].arrays_sha256 for point in points]
        notes = notes_of(reader, [point.run for point in points])
    shares = zip(points, ("12.5 %", "25 %", "50 %"), strict=False)
    assert notes == {point.run: f"--curve: {share} of the training rows of site-02" for point, share in shares}
    assert hashes[-1] == whole["arrays-sha256"] and len(set(hashes)) == len(SHARES)
    # The other sites keep all rows.
    few = FewerRows.of(sites[1], SHARES[0], study.seed)
    assert run(study, sites=[sites[0], few, sites[2]]).report["arrays-sha256"] == hashes[0]
    json.dumps([point.as_object() for point in points])


@pytest.mark.studies
def test_research_sites_of_one_table_have_a_curve_too():
    study = Study.load("breast-cancer").replace({"rounds": 2, "compare.site-model": "same", "compare.resamples": 200})
    points = run_curve(study, "breast-cancer-2")
    assert [point.rows for point in points] == sorted(point.rows for point in points)
    assert points[-1].gain["verdict"] and run(study).report["arrays-sha256"]


def test_what_cannot_have_a_curve_is_refused_in_one_sentence(small_sites, small_study):
    study = Study.parse(small_study)
    with pytest.raises(UsageError, match="--curve: site 'site-9' is not known"):
        run_curve(study, "site-9", sites=small_sites(2))
    closed = [replace(site, policy=Policy()) for site in small_sites(2)]
    with pytest.raises(UsageError, match="--curve needs open policies, and that of site-01, site-02 is not 'open'"):
        run_curve(study, "site-01", sites=closed)


def test_the_command_prints_a_line_a_share_and_takes_no_other_engine(flfed, home):
    words = ("study", "run", "breast-cancer", "--set", "rounds=2", "--set", "compare.site-model=same")
    words += ("--curve", "breast-cancer-2")
    code, out, _ = flfed(*words, "--json")
    found = json.loads(out)
    assert (found["study"], found["site"]) == ("breast-cancer", "breast-cancer-2")
    assert [point["share"] for point in found["points"]] == list(SHARES)
    code_shown, shown, _ = flfed(*words)
    assert (code, code_shown) == (0, 0) and "gain of breast-cancer-2 from joining" in shown
    assert flfed(*words, "--engine", "ray")[0] == 2
