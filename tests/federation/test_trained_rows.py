"""Test rows that the model which a run begins with was trained on: counted as a plain comparison of the tables does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from flfed import Study
from flfed.callbacks import WARNING
from flfed.cli.runs import app as commands
from flfed.errors import UsageError
from flfed.export.run_folder import export
from flfed.federation.recording.source_model import SEEN
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.federation.server.source_rows import source_rows
from flfed.records.document.document import document
from flfed.records.reports.narrative import story
from flfed.records.reports.site_answer import rests_on
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import Viewer
from flfed.records.store.writer import RunStore
from flfed.refusals import TEMPLATES
from flfed.rows.data import datasets
from flfed.rows.data.partition import cut
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site, study_table
from tests.records.documents import read
from tests.records.one_answer import page, words

AUC, KEY = "roc_auc_score", "trained-test-rows"
QUICK = {"strategy.rounds": 2, "compare.site-model": "same"}
CUTS: list[dict[str, Any]] = [
    {"by": "iid", "sites": 4, "seed": 9}, {"by": "iid", "sites": 3, "seed": 1},
    {"by": "dirichlet", "sites": 4, "alpha": 5.0, "seed": 5},
]  # fmt: skip


@pytest.fixture
def cancer(home: Path) -> Study:
    return Study.load("breast-cancer").replace(QUICK)


def tables(study: Study, repeat: int = 0, sites: list[Site] | None = None) -> dict[str, tuple[Any, Any]]:
    """Return the training and test rows of each site."""
    partition = study.dataset.partition
    found = cut(datasets.load(study.dataset.name), partition) if partition else sites or []
    read_tables = {site.name: study_table(study, site, repeat) for site in found}
    return {site: (table.training, table.holdout("test")) for site, table in read_tables.items()}


def plain_counts(earlier: dict[str, tuple[Any, Any]], later: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, int]]:
    """Return how many test rows of each site stand in the earlier training tables, by joining all columns."""
    trained = pd.concat([training for training, _ in earlier.values()]).drop_duplicates()
    return {
        site: {"rows": len(held.merge(trained, how="inner", on=list(held.columns))), "of": len(held)}
        for site, (_, held) in later.items()
    }


def notes(name: str) -> list[str]:
    with RunReader.open() as reader:
        return [event.reason for event in reader.events([one.run for one in reader.runs_of(name)])]


@pytest.mark.studies
@pytest.mark.parametrize("partition", CUTS, ids=["other-seed", "three-sites", "dirichlet"])
def test_rows_on_another_cut_are_counted_as_a_join_of_the_tables_does(partition: dict[str, Any], cancer: Study):
    earlier = run(cancer)
    later = cancer.replace({"warm-start": earlier.run, "dataset.partition": partition})
    told: list[str] = []
    done = run(later, progress=lambda stage, done, of: told.append(stage))
    expected = plain_counts(tables(cancer), tables(later))
    found = json.loads(CliRunner().invoke(commands, ["show", done.run, "--json"]).stdout)[KEY]
    assert found["sites"] == expected and found["why"] == ""
    rows = sum(of["rows"] for of in expected.values())
    assert (found["rows"], found["of"]) == (rows, sum(of["of"] for of in expected.values()))
    assert 50 < rows < found["of"]
    # It is told before the first round, in the record, and on every page that tells what the run showed.
    said = f"{earlier.run}, the model that the run began with, was trained on {rows} of {found['of']} test rows"
    places = [place for place, stage in enumerate(told) if stage.startswith(WARNING + said)]
    assert len(places) == 1 and places[0] < told.index("rounds")
    assert any(note.startswith(said) for note in notes(done.run)) and SEEN not in notes(done.run)
    assert story(done.report)[0].startswith(said)
    assert said in read(document(done.run)).words()


def test_on_the_same_cut_none_is_counted_and_nothing_is_said(cancer: Study):
    done = run(cancer.replace({"warm-start": run(cancer).run}))
    found = done.report[KEY]
    assert found["rows"] == 0 < found["of"] and {of["rows"] for of in found["sites"].values()} == {0}
    assert not [
        line
        for line in [*story(done.report), *notes(done.run)]
        if "model that the run began with, was trained on" in line
    ]
    assert KEY not in run(cancer).report


@pytest.mark.studies
def test_rows_that_the_sources_own_source_was_trained_on_count(cancer: Study):
    first = run(cancer)
    second = cancer.replace({"warm-start": first.run, "dataset.partition": CUTS[0]})
    third = cancer.replace({"warm-start": run(second).run, "dataset.partition": CUTS[1]})
    both = {
        f"{name}-{site}": of for name, study in (("a", cancer), ("b", second)) for site, of in tables(study).items()
    }
    done = run(third)
    assert done.report[KEY]["sites"] == plain_counts(both, tables(third))
    assert done.report[KEY]["rows"] > sum(of["rows"] for of in plain_counts(tables(second), tables(third)).values())


@pytest.mark.usefixtures("heart")
def test_other_data_of_the_same_dataset_count_0():
    study = Study.load("heart-disease").replace(QUICK)
    earlier = run(study, sites=["cleveland", "hungary"])
    done = run(study.replace({"warm-start": earlier.run}), sites=["switzerland", "long-beach"])
    found = done.report[KEY]
    assert (found["why"], found["rows"]) == ("", 0) and found["of"] > 50


@pytest.fixture
def small(small_study: str) -> Study:
    return Study.parse(small_study).replace({"compare.site-model": "same"})


def test_repeats_count_each_their_own_test_rows_also_from_an_exported_folder(small, small_sites, tmp_path):
    sites = small_sites(3, rows=80)
    earlier = run(small, sites=sites)
    folder = export(earlier.run, tmp_path / "model").folder
    expected = [plain_counts(tables(small, 0, sites), tables(small, repeat, sites)) for repeat in range(3)]
    both = {site: {key: sum(one[site][key] for one in expected) for key in ("rows", "of")} for site in expected[0]}
    assert expected[0]["site-01"]["rows"] == 0 < expected[1]["site-01"]["rows"]
    for name in (earlier.run, str(folder)):
        done = run(small.replace({"warm-start": name}), sites=sites, repeats=3)
        assert done.report[KEY]["sites"] == both
        assert SEEN not in notes(done.run)


def test_what_is_not_known_is_said_so(small: Study, small_sites: Any, tmp_path: Path):
    sites = small_sites(3, rows=80)
    earlier = run(small, sites=sites)
    study = small.replace({"warm-start": earlier.run})
    # A program gave the sites: one that is not here again cannot be read.
    done = run(study, sites=sites[:2])
    assert "site-03 is not among those of this one" in done.report[KEY]["why"]
    assert "is not known" in story(done.report)[0] and "rows" not in done.report[KEY]
    # Another table of the same name was not what was trained on.
    done = run(study, sites=small_sites(3, rows=81))
    assert done.report[KEY]["why"] == "the table of site-01 has changed since its run"
    # An institution's table is nowhere here; another repeat than the source's drew other test rows.
    unknown = source_rows(study, "", None, "")
    assert unknown is not None and (unknown.texts, unknown.why) == (None, "")
    assert source_rows(small, "", sites, "") is None
    folder = export(earlier.run, tmp_path / "model").folder
    with RunStore.open() as store:
        store.delete([earlier.run])
    done = run(study.replace({"warm-start": str(folder)}), sites=sites, repeats=2)
    assert "is not in the store" in done.report[KEY]["why"] and notes(done.run).count(SEEN) == 1


def test_a_site_sees_its_own_count_and_one_that_shares_sums_only_has_none(small: Study, small_sites: Any):
    sites = small_sites(5, rows=80)
    sites[3:] = [
        replace(sites[3], policy=Policy(disclosure="open", resplit=True, share_metrics="pseudonym")),
        replace(sites[4], policy=Policy(disclosure="open", resplit=True, share_metrics="aggregate-only")),
    ]
    study = small.replace({"warm-start": run(small, sites=sites).run})
    done = run(study, sites=sites, repeats=2)
    counts = done.report[KEY]["sites"]
    assert {"site-01", "site-02", "site-03"} < set(counts) and len(counts) == 4
    assert not {"site-04", "site-05"} & set(counts)
    own = " ".join(rests_on(done.report, "site-01", AUC))
    assert f"trained on {counts['site-01']['rows']} of the site's {counts['site-01']['of']} test rows" in own
    assert "if this site took part in that earlier run" not in own
    with RunReader.open(only="site-01") as reader:
        runs = reader.runs_of(done.run)
        found = [reader.summary(one.run, KEY) for one in runs]
    assert [set(one or {}) for one in found] == [{"source", "why", "sites"}] * 2
    assert [set((one or {})["sites"]) for one in found] == [{"site-01"}] * 2
    html = read(document(done.run, viewer=Viewer("site", "site-01"))).words()
    assert "of the site's" in html and "site-02" not in html


@pytest.mark.studies
def test_the_pages_of_the_run_and_of_the_site_tell_it(cancer: Study):
    earlier = run(cancer)
    done = run(cancer.replace({"warm-start": earlier.run, "dataset.partition": CUTS[0]}))
    found = done.report[KEY]
    assert f"was trained on {found['rows']} of {found['of']} test rows" in words(page("p20_overview", done.run))
    site, of = max(found["sites"].items(), key=lambda item: item[1]["rows"])
    assert f"{of['rows']} of the site's {of['of']} test rows" in words(page("p30_sites", done.run, site=site))


PER_SITE = {"encode.scaler": "per-site"}


def test_rows_scaled_by_each_sites_own_means_take_no_start_and_give_none(small, small_sites, tmp_path):
    sites = small_sites(3, rows=80)
    plain, per_site = run(small, sites=sites), run(small.replace(PER_SITE), sites=sites)
    refused = small.replace({**PER_SITE, "warm-start": plain.run})
    for call in (lambda: check(refused), lambda: run(refused, sites=sites)):
        with pytest.raises(UsageError) as why:
            call()
        assert TEMPLATES["start-per-site"] in str(why.value)
    folder = str(export(per_site.run, tmp_path / "model").folder)
    for name in (per_site.run, folder):
        with pytest.raises(UsageError) as why:
            run(small.replace({"warm-start": name}), sites=sites)
        assert TEMPLATES["source-per-site"] in str(why.value)
