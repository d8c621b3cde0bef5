"""A model that somebody brings along is scored at every site, and nobody trains."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.experiments.leave_one_out import leave_one_site_out
from flfed.export.brought.validation_study import bring_model
from flfed.export.model_folder import SharedModel
from flfed.export.predict import predict_site
from flfed.export.run_folder import export
from flfed.federation.server.run import Result, run
from flfed.records.statistics.odd_sites import AUC
from flfed.rows.data import datasets
from flfed.study.study import Study
from tests.conftest import MakeSites

HOSPITALS = ("cleveland", "hungary", "long-beach", "switzerland")
FOREST = {"model": {"name": "boosted-trees", "depth": 3}, "strategy": {"name": "boosted-trees"}, "rounds": 8, "seed": 1}


@pytest.fixture
def new(flfed: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a validation of a model by the command; returns the study's file."""

    def write(dataset: str, model: Path, name: str) -> Path:
        words = ("study", "new", "--dataset", dataset, "--validate", model, "--name", name, "--output", tmp_path)
        code, _, err = flfed(*words)
        assert code == 0, err
        return tmp_path / f"{name}.toml"

    return write


def figures(result: Result) -> dict[str, Any]:
    sites: dict[str, Any] = result.report["validation"]["sites"]
    return sites


def numbers(of: Any) -> Iterator[float]:
    """Yield every number of a validation, in order."""
    if isinstance(of, float):
        yield of
    elif isinstance(of, (dict, list)):
        for one in of.values() if isinstance(of, dict) else of:
            yield from numbers(one)


@pytest.mark.usefixtures("heart")
def test_a_forest_as_a_folder_and_as_json_has_the_figures_of_its_predictions(new, tmp_path: Path):
    folder = tmp_path / "forest"
    export(run(Study(dataset="heart-disease", **FOREST)).run, folder)
    as_folder, as_json = (run(new("heart-disease", path, path.stem)) for path in (folder, folder / "xgboost.json"))
    assert list(numbers(figures(as_folder))) == pytest.approx(list(numbers(figures(as_json))), abs=1e-9)
    model = SharedModel.read(folder)
    for site in HOSPITALS:
        predicted = predict_site(model, site).figures
        assert figures(as_folder)[site][AUC]["value"] == pytest.approx(predicted[AUC]["value"], abs=1e-9)
    # Nothing was trained: the record has a comparison of one model.
    assert as_folder.report["rounds"] == 0
    assert {site["verdict"] for site in as_folder.report["sites"].values()} == {"cannot be told"}
    assert all(site["local-only"] == {} for site in as_folder.report["sites"].values())


@pytest.mark.usefixtures("heart")
def test_coefficients_and_the_folder_of_the_same_model_have_the_same_figures(new, tmp_path: Path):
    file = tmp_path / "published.csv"
    file.write_text(
        "name,value,unit\nintercept,-4.1,\nage,0.0513,years\nsex=male,1.217,\noldpeak,0.6171,mm\ntrestbps,0.00791,mmHg\nthalach,-0.01117,beats/min\n"
    )
    folder = bring_model(file, datasets.load("heart-disease").schema, tmp_path / "brought")
    as_file, as_folder = (run(new("heart-disease", path, path.stem)) for path in (file, folder))
    assert list(numbers(figures(as_file))) == list(numbers(figures(as_folder)))
    model = SharedModel.read(folder)
    for site in HOSPITALS:
        predicted = predict_site(model, site)
        assert figures(as_file)[site][AUC]["value"] == pytest.approx(predicted.figures[AUC]["value"], abs=1e-9)
        assert figures(as_file)[site]["rows"] == predicted.known


ODDS = 3.0
WRONG = ("site-01", "site-03")


def made(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose outcome follows the model of `test_…`, with other odds at the first and third site."""
    rng = np.random.default_rng(100 + number)
    odds = -1.5 + 0.04 * table["x1"] + 0.8 * table["x2"]
    if f"site-{number + 1:02d}" in WRONG:
        odds = odds - np.log(ODDS)
    happens = rng.random(len(table)) < 1 / (1 + np.exp(-odds))
    return table.assign(y=np.where(happens, "yes", "no"))


def test_what_needs_training_is_refused_in_a_sentence(small_sites: MakeSites, new, tmp_path: Path):
    sites = small_sites(3)
    file = tmp_path / "true.csv"
    file.write_text("name,value,unit\nintercept,-1.5,\nx1,0.04,mm\n")
    study = Study.load(new("small", file, "made")).replace({"dataset.partition": None})
    with pytest.raises(UsageError, match="same model on the same rows"):
        run(study, sites=sites, repeats=2)
    with pytest.raises(UsageError, match="trains nothing|trains no model"):
        leave_one_site_out(study, sites=sites)
    for key, value in (("privacy.secure-aggregation", "on"), ("plan.validation", 0.2), ("encode.scaler", "schema")):
        with pytest.raises(UsageError, match="leave .* out"):
            run(study.replace({key: value}), sites=sites)
    with pytest.raises(UsageError, match="needs warm-start"):
        study.replace({"model.warm-start": None, "model.start-sha256": None})


@pytest.mark.usefixtures("heart")
def test_a_model_of_another_dataset_or_unit_is_refused_in_a_sentence(flfed, tmp_path: Path):
    file = tmp_path / "published.csv"
    file.write_text("name,value,unit\nintercept,-4.1,\nage,0.05,months\n")
    words = ("study", "new", "--dataset", "heart-disease", "--validate", file, "--output", tmp_path)
    code, _, err = flfed(*words)
    assert (code, "'age' has the unit 'months', and the schema needs 'years'" in err) == (2, True)
    assert not (tmp_path / "heart-disease-validation.toml").exists()
