"""Runs that begin with the model of an earlier one: their text, record, arms, what they go with, and kills."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import Study
from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.experiments.compare_runs import compare_runs
from flfed.export.run_folder import export
from flfed.federation.recording import source_model
from flfed.federation.recording.source_model import UNCOVERED, load_source, required_hash, start_arrays
from flfed.federation.server.run import Result, resume, run
from flfed.records.reports.site_answer import rests_on
from flfed.records.statistics.verdict import number
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data import datasets
from flfed.updates.checkpoints import checkpoint
from flfed.updates.strategies.fedavg import FedAvg
from tests.federation.test_resume import killer, newest

AUC = "roc_auc_score"
TRAINED = "the model that the run began with, may have been trained on test rows"
MLP = {"model.name": "mlp", "model.hidden": [5]}
GOING_WITH: dict[str, dict[str, Any]] = {
    "secure sums": {"privacy.secure-aggregation": "on"},
    "CKKS": {"privacy.secure-aggregation": "ckks"},
    "record-dp": {
        "privacy.name": "record-dp", "privacy.epsilon": 8.0, "privacy.delta": 1e-3, "plan.steps": 5, "plan.batch": 16,
    },
    "site-dp": {"privacy.name": "site-dp", "privacy.noise": 1.0, "privacy.clip": 0.5, "privacy.delta": 1e-3},
    "a codec": {"codec.name": "int8"}, "frozen layers": {"model.frozen-layers": 1},
    "ditto": {"strategy.name": "ditto"}, "own last layers": {"strategy.name": "fedper"},
    "control variates": {"strategy.name": "scaffold"},
}  # fmt: skip


@pytest.fixture
def sites(small_sites: Any) -> Any:
    return small_sites(3, rows=80)


@pytest.fixture
def earlier(sites: Any, small_study: str) -> Result:
    """A run of a network, whose model the others begin with."""
    return run(Study.parse(small_study).replace(MLP), sites=sites)


def begun(earlier: Result, **changes: Any) -> Study:
    with RunReader.open() as reader:
        text = reader.series(earlier.report["run"]).study_text
    return Study.parse(text).replace({"warm-start": earlier.report["run"], "strategy.rounds": 4, **changes})


def arrays_of(done: Result) -> dict[str, np.ndarray]:
    return checkpoint.final(done.report["run"]).arrays


def test_the_text_names_the_arrays_the_record_the_columns_and_each_site_the_arms(earlier, sites, monkeypatch):
    started: list[dict[str, np.ndarray]] = []
    plain = FedAvg.start

    def noting(self: FedAvg, grid: Any, arrays: Any, rounds: int) -> Any:
        started.append({name: value.numpy() for name, value in arrays.items()})
        return plain(self, grid, arrays, rounds)

    monkeypatch.setattr(FedAvg, "start", noting)
    study = begun(earlier)
    done = run(study, sites=sites)
    name = done.report["run"]
    with RunReader.open() as reader:
        text, facts = reader.series(name).study_text, reader.summary(name, "warm-start")
    assert Study.parse(text).start_sha256 == facts["start-sha256"] != earlier.report["arrays-sha256"]
    assert facts["arrays-sha256"] == earlier.report["arrays-sha256"]
    assert facts["from"] == earlier.report["run"] and facts["columns"] == ["x1", "x2", "flag", "colour"]
    # The sites are the same, and so is their encoder: the source itself, to the rounding of float32.
    for key, value in arrays_of(earlier).items():
        np.testing.assert_allclose(started[0][key], value, rtol=1e-5, atol=1e-6)
    for entry in done.report["sites"].values():
        assert 0 <= entry["warm-start"][AUC]["value"] <= 1 and 0 <= entry["warm-start-tuned"][AUC]["value"] <= 1
    of_first = done.report["sites"]["site-01"]
    assert of_first["warm-start"][AUC]["value"] == pytest.approx(
        earlier.report["sites"]["site-01"]["global"][AUC]["value"], abs=1e-6
    )
    as_it_is = of_first["warm-start"][AUC]["value"]
    of_first["warm-start-tuned"][AUC]["value"] = 0.25
    said = " ".join(rests_on(done.report, "site-01", AUC))
    assert f"began with reaches {number(as_it_is)} here as it is, and 0.250 where" in said
    assert "warm-start" not in earlier.report["sites"]["site-01"]
    assert compare_runs(earlier.report["run"], name)["settings"]


def test_an_exported_folder_is_the_same_start_and_another_file_is_none(earlier: Result, sites: Any, tmp_path: Path):
    folder = tmp_path / "model"
    export(earlier.report["run"], folder)
    by_run, by_folder = (
        run(begun(earlier, **{"warm-start": name}), sites=sites) for name in (earlier.report["run"], str(folder))
    )
    for key, value in arrays_of(by_run).items():
        assert (arrays_of(by_folder)[key] == value).all()
    (folder / "study.toml").write_text((folder / "study.toml").read_text() + "\n")
    with pytest.raises(UsageError, match="is not the file that was exported"):
        run(begun(earlier, **{"warm-start": str(folder), "seed": 3}), sites=sites)


@pytest.mark.proof
@pytest.mark.servers
def test_rays_processes_compare_with_the_same_model(earlier: Result, sites: Any):
    study = begun(earlier, seed=13)
    here, there = (run(study, engine=engine, sites=sites).report["sites"] for engine in ("inprocess", "ray"))
    for site, entry in here.items():
        for arm in ("warm-start", "warm-start-tuned"):
            assert entry[arm][AUC]["value"] == pytest.approx(there[site][arm][AUC]["value"], abs=1e-9)


def test_what_is_no_source_is_refused_with_a_sentence(earlier: Result, sites: Any, small_study: str):
    said = {
        "no run": ({"warm-start": "20200101-0000"}, "20200101-0000"),
        "another model": ({"start-sha256": "0" * 64}, ": another model"),
        "another width": ({"model.hidden": [6]}, "its layers have other widths than the study's model"),
        "no layer to train": (
            {"model.frozen-layers": 2}, "frozen-layers=2 leaves no layer to train: the model names 2 layers",
        ),
        "noise on frozen layers": (
            {"model.frozen-layers": 1, **GOING_WITH["record-dp"]}, "frozen-layers cannot be combined with record-dp",
        ),
    }  # fmt: skip
    for why, (changes, expected) in said.items():
        with pytest.raises(UsageError) as refused:
            run(begun(earlier, **changes), sites=sites)
        assert expected in str(refused.value), why
    with pytest.raises(UsageError, match="needs start-sha256"):
        required_hash(begun(earlier))
    headless = run(Study.parse(small_study).replace({**MLP, "strategy.name": "fedper"}), sites=sites)
    with pytest.raises(UsageError, match="each site has its own bias-1, weight-1: there is no whole"):
        run(begun(headless, **{"strategy.name": "fedavg"}), sites=sites)


@pytest.mark.studies
@pytest.mark.parametrize("what", GOING_WITH)
def test_a_warm_start_goes_with(what: str, earlier: Result, sites: Any):
    done = run(begun(earlier, **GOING_WITH[what]), sites=sites)
    assert (done.status, done.report["faults"]) == ("completed", [])
    with RunReader.open() as reader:
        notes = [event.reason for event in reader.events([done.report["run"]])]
    assert (UNCOVERED in notes) == what.endswith("-dp")
    if what == "frozen layers":
        study = begun(earlier)
        before = start_arrays(study, datasets.load("small").schema, checkpoint.final(done.report["run"]).encoder, 0)
        found = arrays_of(done)
        assert (found["weight-0"] == before["weight-0"]).all() and (found["bias-0"] == before["bias-0"]).all()
        assert (found["weight-1"] != before["weight-1"]).any()


def test_repeats_that_draw_other_test_rows_say_so_and_sites_of_part_width_take_no_start(earlier, sites, tmp_path):
    twice = run(begun(earlier), sites=sites, repeats=2)
    with RunReader.open() as reader:
        runs = [one.run for one in reader.runs_of(twice.report["run"])]
        said = [[event.reason for event in reader.events([one])] for one in runs]
    assert [any(TRAINED in note for note in notes) for notes in said] == [False, True]
    # So does a run that begins with the model of a repeat, by its id or as a folder; in the repeat of that number, too:
    # that model began with the earlier one, which had learned from these test rows.
    for name in (runs[1], str(export(runs[1], tmp_path / "model").folder)):
        once = run(begun(earlier, **{"warm-start": name, "start-sha256": ""}), sites=sites, repeats=2)
        with RunReader.open() as reader:
            found = [one.run for one in reader.runs_of(once.report["run"])]
            said = [[event.reason for event in reader.events([one])] for one in found]
        assert [any(TRAINED in note for note in notes) for notes in said] == [True, True], name
    narrow = [replace(site, policy=site.policy.model_copy(update={"width": 0.5})) for site in sites]
    with pytest.raises(FlfedError, match="has all hidden units"):
        run(begun(earlier, seed=5), sites=narrow)


def test_a_run_that_was_killed_goes_on_to_the_same_arrays(earlier: Result, sites: Any):
    study = begun(earlier, seed=11)
    whole = run(study, sites=sites)
    for stage, round in (("checkpoint", 2), ("round", 3)):
        with pytest.raises(RunStopped):
            run(study, sites=sites, observer=killer(stage, round))
        again = resume(newest(), sites=sites)
        assert again.report["arrays-sha256"] == whole.report["arrays-sha256"]
        assert again.report["sites"] == whole.report["sites"]


@pytest.mark.parametrize("exported", [False, True])
def test_a_run_goes_on_without_the_model_that_it_began_with(exported, earlier, sites, tmp_path, monkeypatch):
    folder, name = tmp_path / "model", earlier.report["run"]
    if exported:
        export(name, folder)
    changes = {"warm-start": str(folder)} if exported else {}
    study = begun(earlier, seed=12, **changes)
    whole = run(study, sites=sites, repeats=2)
    killed = []
    for stage, round in (("checkpoint", 2), ("round", 3)):
        with pytest.raises(RunStopped):
            run(study, sites=sites, repeats=2, observer=killer(stage, round))
        killed.append(newest())
    if exported:
        shutil.rmtree(folder)
    else:
        with RunStore.open() as store:
            store.delete([name])
        checkpoint.forget(name)
    with pytest.raises(UsageError):
        run(study, sites=sites)
    again = resume(killed[0], sites=sites).report
    assert again["sites"] == whole.report["sites"]
    with RunReader.open() as reader:
        both = (whole.report["run"], again["run"])
        hashes = [[one.arrays_sha256 for one in reader.runs_of(name)] for name in both]
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 2
    # What was written down goes once it is of no more use.
    assert load_source(again["run"]) is None and not checkpoint.folder_of(again["run"]).exists()
    # The wrong implementation, which looks for the model again where it was.
    monkeypatch.setattr(source_model, "load_source", lambda series: None)
    with pytest.raises(UsageError, match="is no folder here, and run .* is not in the store"):
        resume(killed[1], sites=sites)


def test_a_model_is_found_in_the_store_where_its_run_is(sites: Any, small_study: str, tmp_path: Path):
    store = f"sqlite:///{tmp_path}/other.db"
    first = run(Study.parse(small_study).replace(MLP), sites=sites, store=store)
    study = Study.parse(small_study).replace({**MLP, "warm-start": first.run})
    with pytest.raises(UsageError, match=first.run):
        run(study, sites=sites)
    whole = run(study, sites=sites, store=store)
    with pytest.raises(RunStopped):
        run(study, sites=sites, store=store, observer=killer("round", 2))
    with RunReader.open(store) as reader:
        killed = reader.runs(limit=1)[0].run
    assert resume(killed, sites=sites, store=store).report["arrays-sha256"] == whole.report["arrays-sha256"]
