"""Exported trees: flfed predicts from the folder alone, and XGBoost from its file, alike."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost

from flfed import Study, run
from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.predict import inputs_of, predict_frame
from flfed.export.predictions import explain_predictions
from flfed.export.run_folder import export
from flfed.export.xgboost_file import xgboost_file
from flfed.rows.data import datasets
from flfed.rows.features.encode import coded, encode
from flfed.rows.model_files import TREES
from flfed.rows.models.boosted_trees import BoostedTrees
from flfed.rows.study_model import study_layout
from flfed.testing.strategies import ENCODER
from flfed.trees.cut_points import codes_in, widths_of
from flfed.trees.forest import contributions
from tests.boosting import trees_study

OTHERS = {"wine": "multi-class", "diabetes": "regression"}


def study_of(dataset: str) -> Study:
    model, partition = {"name": "boosted-trees", "depth": 3}, {"by": "iid", "sites": 3}
    return Study(dataset=dataset, rounds=6, model=model, partition=partition)


def booster(folder: Path) -> xgboost.Booster:
    return xgboost.Booster(model_file=str(folder / TREES))


def names_of(model: SharedModel) -> list[str]:
    return [column.name for column in model.layout.features]


@pytest.mark.studies
@pytest.mark.parametrize("least", [0, 10])
def test_xgboost_and_flfed_predict_alike_from_an_exported_folder(least, small_sites, small_study, home, tmp_path):
    sites = small_sites(3, rows=120)
    done = run(Study.parse(trees_study(small_study, **{"strategy.min-rows": least})), sites=sites)
    folder = export(done.run, tmp_path / "folder").folder
    model = SharedModel.read(folder)
    assert "xgboost.json" in (folder / "README.txt").read_text()
    x = encode(coded(sites[0].read().training, model.layout), model.layout, model.encoder).x
    x = np.concatenate([x, np.full((1, x.shape[1]), np.nan)])
    theirs = booster(folder).predict(xgboost.DMatrix(x.astype(np.float32), feature_names=names_of(model)))
    np.testing.assert_allclose(theirs, model.predictions(x), atol=1e-6)
    assert np.ptp(theirs) > 0.3
    columns = json.loads((folder / "model.json").read_text())["columns"]
    assert columns[0] == {"name": "x1", "unit": "mm"}
    assert columns[-1] == {"name": "colour", "values": ["red", "green", "blue"]}


@pytest.mark.studies
@pytest.mark.parametrize("dataset", OTHERS)
def test_trees_of_several_classes_and_of_a_number_are_exported(dataset: str, home, tmp_path: Path):
    done = run(study_of(dataset))
    assert done.status == "completed"
    folder = export(done.run, tmp_path / "folder").folder
    model = SharedModel.read(folder)
    assert model.schema.task == OTHERS[dataset]
    x = encode(coded(datasets.load(dataset).whole_table(), model.layout), model.layout, model.encoder).x
    theirs = booster(folder).predict(xgboost.DMatrix(x.astype(np.float32), feature_names=names_of(model)))
    ours = model.predictions(x)
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)
    if dataset == "diabetes":
        target = coded(datasets.load(dataset).whole_table(), model.layout).scaled(model.layout.target)
        assert np.corrcoef(ours, target)[0, 1] > 0.5


def test_a_model_without_trees_is_read_and_explained_by_class(tmp_path: Path):
    layout = study_layout(study_of("wine"), datasets.load("wine").schema)
    arrays = BoostedTrees(depth=2).first_forest(layout, 3, 5)
    (tmp_path / TREES).write_bytes(xgboost_file(arrays, layout, ENCODER))
    found = booster(tmp_path).inplace_predict(np.zeros((2, len(layout.features))))
    np.testing.assert_allclose(found, np.full((2, 3), 1 / 3), rtol=1e-6)
    codes = codes_in(np.zeros((2, len(layout.features))), arrays)
    assert contributions([], codes, widths_of(arrays) - 1, outputs=3).shape == (2, 3, len(layout.features) + 1)


@pytest.mark.studies
@pytest.mark.parametrize("dataset", ["small", "wine"])
def test_the_gains_by_column_are_those_that_xgboost_reads_off_its_file(
    dataset: str, small_sites, small_study, home, tmp_path: Path
):
    small = dataset == "small"
    study = Study.parse(trees_study(small_study)) if small else study_of("wine")
    done = run(study, sites=small_sites(3, rows=120) if small else None)
    folder = export(done.run, tmp_path / "folder").folder
    theirs = {kind: booster(folder).get_score(importance_type=kind) for kind in ("total_gain", "weight")}
    found = json.loads((folder / "report.json").read_text())["gains"]
    assert found == done.report["gains"] and found["trees"] == [8 if small else 18]
    ours = {of["column"]: of["gain"] for of in found["columns"]}
    assert {name: gain for name, gain in ours.items() if gain} == pytest.approx(theirs["total_gain"], rel=1e-5)
    shares = {of["column"]: of["share"] for of in found["columns"]}
    whole = {kind: sum(scores.values()) for kind, scores in theirs.items()}
    assert sum(shares.values()) == pytest.approx(1)
    of_gain, of_splits = ({name: theirs[kind].get(name, 0) / whole[kind] for name in shares} for kind in whole)
    assert shares == pytest.approx(of_gain, abs=1e-6) and shares != pytest.approx(of_splits, abs=0.02)


def test_a_folder_whose_xgboost_file_was_changed_is_not_used(small_sites, small_study, home, tmp_path: Path):
    done = run(Study.parse(trees_study(small_study, **{"strategy.rounds": 2})), sites=small_sites(2, rows=120))
    folder = export(done.run, tmp_path / "folder").folder
    (folder / "xgboost.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the file that was exported"):
        SharedModel.read(folder)


def test_predict_writes_what_each_column_added_as_xgboost_reckons_it(small_sites, small_study, home, tmp_path, flfed):
    sites = small_sites(3, rows=120)
    done = run(Study.parse(trees_study(small_study)), sites=sites)
    folder, table, out = export(done.run, tmp_path / "folder").folder, tmp_path / "rows.csv", tmp_path / "why.csv"
    model = SharedModel.read(folder)
    rows = sites[0].read().training.drop(columns="y").astype(object)
    rows.loc[rows.index[:5], "x1"] = None
    rows.to_csv(table, index=False)
    code, said, _ = flfed("predict", folder, table, "--explain", out, "--json")
    found, why = json.loads(said), pd.read_csv(out)
    assert code == 0 and found["explanations"]["unit"] == "log-odds"
    assert list(why.columns) == ["row", *found["explanations"]["columns"]]
    assert found["explanations"]["columns"] == [*names_of(model), "mean of all rows"]
    x = inputs_of(model, pd.read_csv(table))
    given = xgboost.DMatrix(x.astype(np.float32), feature_names=names_of(model))
    theirs = booster(folder).predict(given, pred_contribs=True)
    np.testing.assert_allclose(why.to_numpy()[:, 1:], theirs, atol=1e-5)
    score = why.to_numpy()[:, 1:].sum(axis=1)
    ours = np.array([one["probability"] for one in found["predictions"]])
    np.testing.assert_allclose(1 / (1 + np.exp(-score)), ours, atol=1e-9)
    assert oct(out.stat().st_mode & 0o777) == "0o600"
    code, _, said = flfed("predict", folder, table, "--explain", out)
    assert code == 2 and "is already there; it is not replaced" in said


@pytest.mark.studies
@pytest.mark.parametrize("dataset", OTHERS)
def test_explanations_of_classes_and_numbers_add_up_to_the_score(dataset: str, home, tmp_path: Path):
    done = run(study_of(dataset))
    folder = export(done.run, tmp_path / "folder").folder
    model = SharedModel.read(folder)
    predictions = predict_frame(model, datasets.load(dataset).whole_table())
    x = predictions.inputs
    found = explain_predictions(model, predictions)
    given = xgboost.DMatrix(x.astype(np.float32), feature_names=names_of(model))
    theirs = booster(folder).predict(given, pred_contribs=True).reshape(len(x), -1)
    np.testing.assert_allclose(found.values, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_a_network_is_not_explained(small_sites, small_study, home, tmp_path: Path, flfed):
    sites = small_sites(2)
    study = Study.parse(small_study).replace({"model.name": "mlp"})
    folder = export(run(study, sites=sites).run, tmp_path / "folder").folder
    table = tmp_path / "rows.csv"
    sites[0].read().training.to_csv(table, index=False)
    code, out, said = flfed("predict", folder, table, "--explain", tmp_path / "why.csv")
    assert code == 2 and "--explain needs boosted trees, or a linear" in said and out == ""
    assert not (tmp_path / "why.csv").exists()
