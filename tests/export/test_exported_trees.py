"""Exported trees: flfed predicts from the folder alone, and XGBoost from its file, alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xgboost

from flfed import Study, run
from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.run_folder import export
from flfed.export.xgboost_file import FILES
from flfed.rows.data import datasets
from flfed.rows.features.columns import coded
from flfed.rows.features.encode import encode
from tests.boosting import trees_study

OTHERS = {"wine": "multi-class", "diabetes": "regression"}


def study_of(dataset: str) -> Study:
    model, partition = {"name": "boosted-trees", "depth": 3}, {"by": "iid", "sites": 3}
    return Study(dataset=dataset, rounds=6, model=model, partition=partition)


def booster(folder: Path, file: str) -> xgboost.Booster:
    return xgboost.Booster(model_file=str(folder / file))


def names_of(model: SharedModel) -> list[str]:
    return [column.name for column in model.layout.features]


@pytest.mark.parametrize("least", [0, 10])
@pytest.mark.parametrize("file", FILES)
def test_xgboost_and_flfed_predict_alike_from_an_exported_folder(
    least: int, file: str, small_sites, small_study, home, tmp_path: Path
):
    sites = small_sites(3, rows=120)
    done = run(Study.parse(trees_study(small_study, **{"strategy.min-rows": least})), sites=sites)
    folder = export(done.run, tmp_path / "folder").folder
    model = SharedModel.read(folder)
    assert "xgboost.json" in (folder / "README.txt").read_text()
    x = encode(coded(sites[0].read().training, model.layout), model.layout, model.encoder).x
    x = np.concatenate([x, np.full((1, x.shape[1]), np.nan)])
    theirs = booster(folder, file).predict(xgboost.DMatrix(x.astype(np.float32), feature_names=names_of(model)))
    np.testing.assert_allclose(theirs, model.predictions(x), atol=1e-6)
    assert np.ptp(theirs) > 0.3
    columns = json.loads((folder / "model.json").read_text())["columns"]
    assert columns[0] == {"name": "x1", "unit": "mm"}
    assert columns[-1] == {"name": "colour", "values": ["red", "green", "blue"]}


@pytest.mark.parametrize("dataset", OTHERS)
def test_trees_of_several_classes_and_of_a_number_are_exported(dataset: str, home, tmp_path: Path):
    done = run(study_of(dataset))
    assert done.status == "completed"
    folder = export(done.run, tmp_path / "folder").folder
    model = SharedModel.read(folder)
    assert model.schema.task == OTHERS[dataset]
    x = encode(coded(datasets.load(dataset).whole_table(), model.layout), model.layout, model.encoder).x
    theirs = booster(folder, FILES[1]).predict(xgboost.DMatrix(x.astype(np.float32), feature_names=names_of(model)))
    ours = model.predictions(x)
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)
    if dataset == "diabetes":
        target = coded(datasets.load(dataset).whole_table(), model.layout).scaled(model.layout.target)
        assert np.corrcoef(ours, target)[0, 1] > 0.5


def test_a_folder_whose_xgboost_file_was_changed_is_not_used(small_sites, small_study, home, tmp_path: Path):
    done = run(Study.parse(trees_study(small_study, **{"strategy.rounds": 2})), sites=small_sites(2, rows=120))
    folder = export(done.run, tmp_path / "folder").folder
    (folder / "xgboost.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the file that was exported"):
        SharedModel.read(folder)
    with pytest.raises(UsageError, match="no weights that could be written as int8"):
        export(done.run, tmp_path / "other", dtype="int8")
