"""Whether the model that a run begins with may have been trained on test rows: one sentence says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from flfed import Study
from flfed.callbacks import WARNING
from flfed.errors import UsageError
from flfed.export.run_folder import export
from flfed.federation.recording.source_model import source_model
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.records.document.document import document
from flfed.records.reports.narrative import story
from flfed.records.reports.site_answer import rests_on
from flfed.records.store.reader import RunReader
from flfed.refusals import TEMPLATES
from tests.records.documents import read
from tests.records.one_answer import page, words

AUC, KEY, SAID = "roc_auc_score", "warm-start", "may have been trained on test rows of this run"
QUICK = {"strategy.rounds": 2, "compare.site-model": "same"}
OTHER_CUT = {"by": "iid", "sites": 4, "seed": 9}


@pytest.fixture
def cancer(home: Path) -> Study:
    return Study.load("breast-cancer").replace(QUICK)


@pytest.fixture
def small(small_study: str) -> Study:
    return Study.parse(small_study).replace({"compare.site-model": "same"})


def notes(name: str) -> list[str]:
    """Return the notes of each repeat that say it."""
    with RunReader.open() as reader:
        events = reader.events([one.run for one in reader.runs_of(name)])
    return [event.reason for event in events if SAID in event.reason]


def test_another_cut_of_the_rows_is_said_before_the_first_round_in_the_record_and_on_every_page(cancer: Study):
    earlier = run(cancer)
    told: list[str] = []
    later = cancer.replace({"warm-start": earlier.run, "dataset.partition": OTHER_CUT})
    done = run(later, progress=lambda stage, done, of: told.append(stage))
    said = f"Figures may be too good: {earlier.run}, the model that the run began with, {SAID}"
    places = [place for place, stage in enumerate(told) if stage.startswith(WARNING + said)]
    assert len(places) == 1 and places[0] < told.index("rounds")
    assert done.report[KEY]["may-have-seen"] and len(notes(done.run)) == 1
    assert story(done.report)[0].startswith(said) and said in read(document(done.run)).words()
    assert said in " ".join(rests_on(done.report, next(iter(done.report["sites"])), AUC))
    assert said in words(page("p20_overview", done.run))


def test_on_the_same_cut_nothing_is_said(cancer: Study):
    done = run(cancer.replace({"warm-start": run(cancer).run}))
    assert not done.report[KEY]["may-have-seen"]
    assert not notes(done.run) and SAID not in " ".join(story(done.report))
    assert KEY not in run(cancer).report


def test_a_source_that_began_with_another_model_may_have_learned_from_that_ones_rows(cancer: Study):
    second = run(cancer.replace({"warm-start": run(cancer).run}))
    assert len(notes(run(cancer.replace({"warm-start": second.run})).run)) == 1


def test_each_repeat_but_the_sources_own_says_it_also_of_an_exported_folder(small, small_sites, tmp_path):
    sites = small_sites(3, rows=80)
    earlier = run(small, sites=sites)
    for name in (earlier.run, str(export(earlier.run, tmp_path / "model").folder)):
        done = run(small.replace({"warm-start": name}), sites=sites, repeats=3)
        assert len(notes(done.run)) == 2 and done.report[KEY]["may-have-seen"]


def test_another_seed_of_the_training_draws_the_same_test_rows(small, small_sites):
    sites = small_sites(3, rows=80)
    earlier = run(small, sites=sites)
    assert not notes(run(small.replace({"warm-start": earlier.run, "seed": 3}), sites=sites).run)


@pytest.mark.usefixtures("heart")
def test_a_published_split_is_another_one_than_the_sites_own_and_stays_in_each_repeat():
    published = Study.load("fed-heart-flamby").replace(
        {"strategy.rounds": 1, "encode.scaler": "global", "split.redraw": False}
    )
    own, drawn = (published.replace(of) for of in ({"split.fixed": ""}, {"split.redraw": True}))
    for study, seen in ((published, [False, False]), (own, [True, True]), (drawn, [True, True])):
        source = source_model(study.replace({"warm-start": run(published).run}))
        assert [source.may_have_seen(study, repeat) for repeat in (0, 1)] == seen


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
