"""Exporting a run and setting two side by side: the folder says what the store says, and differences are right."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from flfed import load
from flfed.errors import FlfedError, UsageError
from flfed.experiments.compare_runs import compare_runs
from flfed.export.model_folder import SharedModel
from flfed.export.run_folder import EVENTS, export
from flfed.federation.server.run import run
from flfed.records.reports.report import report
from flfed.records.statistics.verdict import better_of
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import EventRow, RunStore
from flfed.rows.data import datasets
from flfed.rows.data.holdout import HoldoutByOrder
from flfed.study.study import Study
from flfed.study.tables import OrderedHoldout
from flfed.updates.checkpoints import checkpoint
from flfed.updates.checkpoints.checkpoint import Checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # real studies


@dataclass(frozen=True)
class Ran:
    """Runs that several tests look at: the same study twice, with another rate, as a series, and as an MLP."""

    home: Path
    first: str
    again: str
    faster: str
    series: str
    deep: str


@pytest.fixture(scope="session")
def made() -> dict[str, Ran]:
    return {}


@pytest.fixture
def ran(made, small_sites, small_study, home, monkeypatch) -> Ran:
    """The runs, made by the first test that asks; each test's home is then that of these runs."""
    sites = small_sites(2, rows=100)
    if "runs" not in made:
        study = Study.parse(small_study)
        changes: list[dict] = [{}, {}, {"lr": 0.2}, {"rounds": 2}, {"model.name": "mlp", "rounds": 2}]
        done = [run(study.replace(c), sites=sites, repeats=2 if n == 3 else 1).run for n, c in enumerate(changes)]
        made["runs"] = Ran(home, *done)
    monkeypatch.setenv("FLFED_HOME", str(made["runs"].home))
    return made["runs"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_exported_run_says_what_the_store_says(ran, tmp_path):
    done = export(ran.first, tmp_path / "out")
    assert done.model == ran.first and len(done.files) == 12
    with RunReader.open() as reader:
        assert json.loads((tmp_path / "out" / "report.json").read_text()) == report(reader, ran.first)
        figures, differences = reader.figures(ran.first), reader.differences(ran.first)
        compared = rows_of(tmp_path / "out" / "comparison.csv")
        assert len(compared) == len(figures) + len(differences) > 50
        plain, apart = [row for row in compared if not row["against"]], [row for row in compared if row["against"]]
        assert [float(row["value"]) if row["value"] else None for row in plain] == [f.value for f in figures]
        assert [float(row["low"]) if row["low"] else None for row in apart] == [d.low for d in differences]
        told = report(reader, ran.first)["sites"]
        gains = rows_of(tmp_path / "out" / "gains.csv")
        assert len(gains) == len(told) * len(report(reader, ran.first)["global"]) > 6
        for row in gains:
            better = "difference" if row["model"] == "global" else "difference-personalised"
            of = told[row["site"]][better][row["metric"]]
            # The interval is the one that the verdict goes by, turned where lower is better.
            ends = [of["widened-low"], of["widened-high"]]
            if better_of(row["metric"]) == "lower":
                ends = [-end for end in reversed(ends)]
            assert [float(row["low"]), float(row["high"])] == ends
            if row["metric"] == "roc_auc_score":
                assert row["verdict"] == told[row["site"]]["verdict"]
        rounds = rows_of(tmp_path / "out" / "rounds.csv")
        for number in range(6):
            written = [row["value"] for row in rounds if row["round"] == str(number)]
            assert [float(value) for value in written] == [m.value for m in reader.metrics(ran.first, number)]
        assert len(rows_of(tmp_path / "out" / "events.csv")) == len(reader.events([ran.first]))
    text = (tmp_path / "out" / "README.txt").read_text()
    for said in (
        "x1: mm",
        "They do not apply to other institutions",
        "the probability (0 to 1) of y = yes",
        "own intercept",
    ):
        assert said in text


def test_the_exported_model_is_the_runs_final_one_with_its_figures(ran, tmp_path):
    export(ran.first, tmp_path / "out")
    model, final = SharedModel.read(tmp_path / "out"), checkpoint.final(ran.first)
    for name, value in final.arrays.items():
        np.testing.assert_array_equal(model.arrays[name], value)
    assert model.encoder.sha256() == final.encoder.sha256()
    with RunReader.open() as reader:
        found = report(reader, ran.first)
    assert model.figures["global"] == found["global"]
    assert model.figures["sites"]["site-02"]["holdout-rows"] == found["sites"]["site-02"]["holdout-rows"] > 10


def test_a_series_is_exported_with_all_repeats_and_each_repeat_with_its_model(ran, tmp_path):
    done = export(ran.series, tmp_path / "all")
    assert done.model is None and "2 repeats have 2 models" in done.reason and f"{ran.series}-r01" in done.reason
    assert {row["run"] for row in rows_of(tmp_path / "all" / "comparison.csv")} == {
        f"{ran.series}-r01", f"{ran.series}-r02",
    }  # fmt: skip
    assert len(EVENTS) == 7
    assert json.loads((tmp_path / "all" / "report.json").read_text())["repeats"] == 2
    assert not (tmp_path / "all" / "model.json").exists()
    one = export(f"{ran.series}-r02", tmp_path / "one")
    assert one.model == f"{ran.series}-r02" and SharedModel.read(tmp_path / "one").run == one.model


def test_nothing_is_replaced_and_what_has_no_model_is_refused(ran, tmp_path, home, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and nothing is replaced"):
        export(ran.first, tmp_path / "taken")
    with pytest.raises(UsageError, match="is a file"):
        export(ran.first, tmp_path / "taken" / "notes.txt")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="'no-such' is not in the store"):
        export("no-such", tmp_path / "x")
    store = f"sqlite:///{ran.home}/runs.db"
    monkeypatch.setenv("FLFED_HOME", str(home / "elsewhere"))
    with pytest.raises(UsageError, match="or was on another machine"):
        export(ran.first, tmp_path / "x", store=store)
    monkeypatch.setenv("FLFED_HOME", str(home))
    with RunStore.open() as opened:
        series = opened.begin_series(study="s", study_sha256="", study_text="")
        name = opened.begin_run(
            series, engine="e", path="p", seed=1, rounds_planned=2, primary="log_loss", task="binary"
        ).run
    with pytest.raises(UsageError, match=f"run {name} is running: it has no final model"):
        export(name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_run_is_exported_where_nobody_has_the_folder_of_its_dataset(
    tmp_path, small_sites, small_study, home, monkeypatch
):
    name = run(Study.parse(small_study).replace({"rounds": 1}), sites=small_sites(2)).run
    sha256 = datasets.load("small").schema.sha256()
    monkeypatch.delenv("FLFED_PATH")
    with pytest.raises(UsageError, match="dataset 'small' is not known"):
        datasets.load("small")
    export(name, tmp_path / "x")
    assert SharedModel.read(tmp_path / "x").schema.sha256() == sha256


def test_a_model_file_that_is_not_the_runs_and_a_schema_that_changed_are_refused(
    ran, tmp_path, small_sites, small_study, home, monkeypatch
):
    monkeypatch.setenv("FLFED_HOME", str(home))
    name = run(Study.parse(small_study).replace({"rounds": 1}), sites=small_sites(2)).run
    final = checkpoint.final(name)
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace("[0, 100]", "[0, 200]"))
    export(name, tmp_path / "kept")  # with the schema of the run, not of today
    assert SharedModel.read(tmp_path / "kept").schema.columns["x1"].range == (0, 100)
    other = {"schema": datasets.load("small").schema.model_dump(mode="json", by_alias=True, exclude_none=True)}
    checkpoint.write(name, replace(final, facts=other), final=True)
    with pytest.raises(FlfedError, match="the schema in .* is not that of run .* in the store"):
        export(name, tmp_path / "x")
    moved = {key: value + 1e-9 for key, value in final.arrays.items()}
    checkpoint.write(name, Checkpoint(round=final.round, arrays=moved, encoder=final.encoder), final=True)
    with pytest.raises(FlfedError, match="is not that of run .* in the store"):
        export(name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_same_study_twice_differs_in_nothing(ran):
    found = compare_runs(ran.first, ran.again)
    assert found["arrays-max-difference"] == 0.0 and found["arrays-reason"] == ""
    assert [both["equal"] for both in found["hashes"].values()] == [True] * 6
    assert found["settings"] == [] and found["warnings"] == []
    assert found["primary"] == {"a": "roc_auc_score", "b": "roc_auc_score"}
    assert {both["difference"] for both in found["global"].values()} == {0.0}


def test_two_runs_differ_by_what_was_set_and_what_came_out(ran):
    found = compare_runs(ran.first, ran.faster)
    assert found["settings"] == [{"key": "plan.lr", "a": 0.1, "b": 0.2}]
    first, second = (checkpoint.final(name).arrays for name in (ran.first, ran.faster))
    apart = max(np.abs(second[name] - first[name]).max() for name in first)
    assert found["arrays-max-difference"] == pytest.approx(apart, abs=1e-15) and apart > 0.01
    assert {name: both["equal"] for name, both in found["hashes"].items()} == {
        "study": False, "schema": True, "code": True, "sums": True, "encoder": True, "arrays": False,
    }  # fmt: skip
    with RunReader.open() as reader:
        one, other = (report(reader, name) for name in (ran.first, ran.faster))
    both = found["sites"]["site-02"]["global"]["log_loss"]
    expected = [r["sites"]["site-02"]["global"]["log_loss"]["value"] for r in (one, other)]
    assert both == {"a": expected[0], "b": expected[1], "difference": expected[1] - expected[0]}
    assert both["difference"] != 0 and (found["a"]["run"], found["b"]["rounds"]) == (ran.first, 5)
    turned = compare_runs(ran.faster, ran.first)
    assert turned["global"]["log_loss"]["difference"] == -found["global"]["log_loss"]["difference"]
    assert turned["arrays-max-difference"] == found["arrays-max-difference"]


def test_other_rows_in_equal_numbers_are_not_taken_for_the_same(small_sites, small_study, flfed):
    study = Study.parse(small_study).replace({"rounds": 1})
    by_order = HoldoutByOrder(OrderedHoldout(by="x1", train_share=0.7))
    changes = (None, lambda _, table: table.assign(x2=table["x2"].to_numpy()[::-1]))
    sites, others = (
        [replace(site, holdout=by_order) for site in small_sites(2, rows=100, change=change)] for change in changes
    )
    one, other = (run(study, sites=own).run for own in (sites, others))
    found = compare_runs(one, other)
    rows = [[site["holdout-rows"] for site in load(name).report["sites"].values()] for name in (one, other)]
    assert rows[0] == rows[1] and min(rows[0]) > 0
    why = "the sums over their training rows differ"
    [warning] = found["warnings"]
    assert f"({why}): part of a difference is chance." in warning
    assert {pair["reason"] for pair in found["paired"].values()} == {why}
    shown = flfed("run", "compare", one, other)[1]
    assert warning in " ".join(shown.split()) and "sums different" in shown
    # Of other columns nothing is known by their sums.
    fewer = run(study.replace({"features": ["x1"]}), sites=sites).run
    assert compare_runs(one, fewer)["warnings"] == []


def test_models_that_cannot_be_set_side_by_side_are_null_with_a_reason(ran, home, monkeypatch):
    shapes = compare_runs(ran.first, ran.deep)
    assert (shapes["arrays-max-difference"], shapes["hashes"]["arrays"]["equal"]) == (None, False)
    assert "different names or shapes" in shapes["arrays-reason"]
    assert {"key": "model.name", "a": "logistic", "b": "mlp"} in shapes["settings"]
    repeats = compare_runs(ran.series, ran.first)
    assert (repeats["arrays-max-difference"], repeats["hashes"]["arrays"]["equal"]) == (None, False)
    assert repeats["arrays-reason"] == "one has 2 repeats, the other 1"
    assert compare_runs(ran.series, ran.series)["arrays-max-difference"] == 0.0
    store = f"sqlite:///{ran.home}/runs.db"
    monkeypatch.setenv("FLFED_HOME", str(home / "elsewhere"))
    absent = compare_runs(ran.first, ran.again, store=store)
    assert absent["arrays-max-difference"] is None and "ran elsewhere" in absent["arrays-reason"]
    assert absent["hashes"]["arrays"]["equal"] is True
    with pytest.raises(UsageError, match="is not in the store"):
        compare_runs(ran.first, "no-such", store=store)


def test_repeats_are_compared_by_the_hashes_of_each_and_other_test_rows_are_named(ran, flfed):
    hashes = compare_runs(ran.series, ran.series)["hashes"]
    assert [both["equal"] for both in hashes.values()] == [True] * 6
    with RunReader.open() as reader:
        assert hashes["arrays"]["a"].split() == [run.arrays_sha256 for run in reader.runs_of(ran.series)]
    # Two repeats that drew a holdout each, beside one run.
    warning = "Runs were not all evaluated on the same sites and test rows (A; B): part of a difference is chance."
    assert compare_runs(ran.series, ran.first)["warnings"] == [warning]
    _, shown, _ = flfed("run", "compare", ran.series, ran.first)
    assert warning in shown and "unknown" not in shown.partition("over all sites")[0]
    assert "encoder equal, arrays equal" in flfed("run", "compare", ran.series, ran.series)[1]


def test_an_event_with_a_formula_is_exported_as_text(ran, tmp_path):
    with RunStore.open() as opened:
        series = opened.begin_series(study="s", study_sha256="", study_text='name = "s"', repeats=2)
        begun = [
            opened.begin_run(
                series, repeat=k, engine="e", path="p", seed=1, rounds_planned=2, primary="log_loss", task="binary"
            )
            for k in (0, 1)
        ]
        begun[0].events([EventRow(1, "a", "note", "=HYPERLINK(0)")])
    export(series, tmp_path / "out")
    [event] = rows_of(tmp_path / "out" / "events.csv")
    assert (event["reason"], event["round"], event["site"]) == ("'=HYPERLINK(0)", "1", "a")
