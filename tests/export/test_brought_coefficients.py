"""Coefficients that somebody brings along as CSV: a run's own predictions, a glm's own file, refusals."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from flfed import Study, run
from flfed.errors import UsageError
from flfed.export.brought.validation_study import bring_model
from flfed.export.model_folder import SharedModel
from flfed.export.monitor import monitor
from flfed.export.predict import predict_frame, predict_site
from flfed.export.run_folder import export
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.warm_start import read_source

SITES = ("cleveland", "hungary", "switzerland", "long-beach")
FEATURES = ["age", "sex", "cp", "trestbps", "thalach", "exang", "oldpeak"]
SCHEMA = Schema.model_validate({
    "name": "made", "task": "binary", "target": "y",
    "columns": {
        "age": {"kind": "number", "unit": "years", "range": [0, 120]},
        "income": {"kind": "number", "unit": "EUR", "range": [0, 1e6], "transform": "log1p"},
        "late": {"kind": "number", "range": [0, 1], "leak": "known after the outcome"},
        "smokes": {"kind": "flag"},
        "colour": {"kind": "category", "values": ["red", "green", "blue"]},
        "y": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip
SOUND = {
    "intercept": (-1.5, ""), "age": (0.02, "years"), "income": (0.3, "log1p(EUR)"), "smokes": (0.7, ""),
    "colour=green": (-0.4, ""), "colour=red": (0.25, ""),
}  # fmt: skip
TABLE = pd.DataFrame({
    "age": [50.0, 61.5, 70.0, np.nan, 40.0], "income": [0.0, 1000.0, 5e4, 10.0, 20.0], "smokes": [0, 1, 1, 0, np.nan],
    "colour": ["red", "green", "blue", "red", "green"], "y": ["no", "yes", "yes", "no", "yes"],
})  # fmt: skip
# -1.5 + 0.02 * age + 0.3 * log(1 + income) + 0.7 * smokes + (red 0.25, green -0.4, blue 0)
SCORES = [-1.5 + 1 + 0.25, -1.5 + 1.23 + 0.3 * np.log(1001) + 0.7 - 0.4, -1.5 + 1.4 + 0.3 * np.log(50001) + 0.7]

Rows = dict[str, tuple[object, str]]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Rows], Path]:
    """A function that writes coefficients as CSV, with a column more than is read, and returns its path."""

    def write(rows: Rows) -> Path:
        path = tmp_path / "model.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "standard error", "value", "unit"])
            writer.writerows([name, 0.1, value, unit] for name, (value, unit) in rows.items())
        return path

    return write


def brought(path: Path, schema: Schema, folder: Path) -> SharedModel:
    return SharedModel.read(bring_model(path, schema, folder))


def coefficients_of(model: SharedModel) -> Rows:
    """Return a model's coefficients by unit of each column: its encoder's centres and scales taken out."""
    (weight, bias), places, by = ("weight", "bias"), model.layout.slices(), model.encoder
    constant = float(model.arrays[bias][0])
    weights = iter(model.arrays[weight][:, 0].astype(float))
    rows: Rows = {}
    for number, column in enumerate(model.layout.features):
        if column.kind == "number":
            rows[column.name] = (next(weights) / by.scale[number], column.unit)
            constant -= rows[column.name][0] * by.center[number]
            continue
        for code, value in list(enumerate(column.cells[:-1]))[1:]:
            place = places[column.name].start + code
            name = column.name if column.kind == "flag" else f"{column.name}={value}"
            rows[name] = (next(weights) / by.spread[place], "")
            constant -= rows[name][0] * by.frequency[place]
    return {"intercept": (constant, ""), **rows}


@pytest.mark.studies
def test_a_runs_coefficients_predict_as_its_folder_at_each_site(heart, written, tmp_path: Path):
    study = Study(dataset="heart-disease", features=FEATURES, encode={"rows": "complete"}, rounds=10)
    folder = export(run(study).run, tmp_path / "folder").folder
    own = SharedModel.read(folder)
    assert bring_model(folder, own.schema, tmp_path / "unused") == folder
    model = brought(written(coefficients_of(own)), own.schema, tmp_path / "brought")
    assert [column.name for column in model.layout.features] == FEATURES
    rows_with_gaps = 0
    for site in SITES:
        ours, theirs = predict_site(own, site), predict_site(model, site)
        np.testing.assert_allclose(theirs.values, ours.values, rtol=0, atol=1e-9)
        gaps = np.isnan(ours.values[:, 0])
        rows_with_gaps += int(gaps.sum())
        assert np.ptp(ours.values[~gaps]) > 0.3
        assert [note for note in theirs.notes if "have a gap" in note] == [n for n in ours.notes if "have a gap" in n]
        for metric, figure in ours.figures.items():
            assert theirs.figures[metric]["value"] == pytest.approx(figure["value"], abs=1e-9)
    assert rows_with_gaps > 50
    source = read_source(tmp_path / "brought", "the folder")
    assert source.layers == (("weight", "bias"),) and len(source.layout.features) == len(FEATURES)


def test_probabilities_are_those_of_the_coefficients_and_a_row_with_a_gap_has_none(written, tmp_path: Path):
    model = brought(written(SOUND), SCHEMA, tmp_path / "folder")
    found = predict_frame(model, TABLE)
    np.testing.assert_allclose(found.values[:3, 0], expit(SCORES), rtol=0, atol=1e-15)
    assert np.isnan(found.values[3:, 0]).all() and any("fewer than 5 rows have a gap" in note for note in found.notes)
    with pytest.raises(UsageError, match=r"no counts of training rows .* made of a file of coefficients or trees"):
        monitor(model, found)


def test_a_column_without_a_coefficient_may_be_missing(written, tmp_path: Path):
    model = brought(written({"intercept": (0.5, ""), "age": (0.02, "years")}), SCHEMA, tmp_path / "folder")
    found = predict_frame(model, TABLE[["age", "y"]])
    np.testing.assert_allclose(found.values[[0, 4], 0], expit([1.5, 1.3]), atol=1e-15)
    assert np.isnan(found.values[:, 0]).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("unit", ["", "kg"])
def test_a_number_is_predicted_in_its_unit(unit, written, tmp_path: Path):
    columns = {
        **SCHEMA.columns,
        "y": SCHEMA.columns["y"].model_copy(update={"values": (), "unit": "kg", "range": (0, 9)}),
    }
    schema = SCHEMA.model_copy(update={"task": "regression", "columns": columns})
    path = written({"intercept": (2.0, unit), "smokes=1": (0.5, "")})
    found = predict_frame(brought(path, schema, tmp_path / "folder"), TABLE.assign(y=1.0))
    assert found.values[:4, 0].tolist() == [2.0, 2.5, 2.5, 2.0]
    with pytest.raises(UsageError, match="'intercept' has the unit 'g', and the schema needs 'kg'"):
        bring_model(written({"intercept": (2.0, "g"), "smokes": (0.5, "")}), schema, tmp_path / "other")


REFUSED = [
    ({"age": (0.02, "months")}, "'age' has the unit 'months', and the schema needs 'years'"),
    ({"age": (0.02, "")}, "'age' has the unit '', and the schema needs 'years'"),
    ({"income": (0.3, "EUR")}, r"'income' has the unit 'EUR', and the schema needs 'log1p\(EUR\)'"),
    ({"smokes": (0.3, "packs")}, "'smokes' has the unit 'packs', and the schema needs ''"),
    ({"intercept": (0.3, "EUR")}, "'intercept' has the unit 'EUR', and the schema needs ''"),
    ({"weight": (0.3, "kg")}, "no number, flag or category=value 'weight'"),
    ({"y": (0.3, "")}, "no number, flag or category=value 'y'"),
    ({"colour": (0.3, "")}, "no number, flag or category=value 'colour'; did you mean"),
    ({"colour=pink": (0.3, "")}, "no number, flag or category=value 'colour=pink'"),
    ({"age * smokes": (0.3, "")}, r"no number, flag or category=value 'age \* smokes'"),
    ({"smokes=1": (0.3, "")}, "'smokes=1' has two coefficients"),
    ({"late": (0.3, "")}, "column 'late' leaks the target"),
    ({"age": ("1,5", "years")}, "the value of 'age' is not a finite number$"),
    ({"age": ("Jane Roe", "years")}, "the value of 'age' is not a finite number$"),
    ({"age": ("", "years")}, "the value of 'age' is not a finite number$"),
    ({"age": ("inf", "years")}, "the value of 'age' is not a finite number$"),
    ({"age": ("nan", "years")}, "the value of 'age' is not a finite number$"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_what_is_refused_is_refused_in_a_sentence(change, sentence, written, tmp_path: Path):
    with pytest.raises(UsageError, match=sentence):
        bring_model(written({**SOUND, **change}), SCHEMA, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


TEXTS = {
    "name,value,unit\nage,1,years\n": "no row 'intercept'",
    "name,value,unit\nintercept,1,\nage,1,years\nage,1,years\n": "'age' has two coefficients",
    "name;value;unit\nintercept;1;\n": "needs the columns name, value and unit",
    "name,value\nintercept,1\n": "needs the columns name, value and unit",
    "name,value,value,unit\nintercept,1,2,\n": "needs the columns name, value and unit, each once",
    "name,value,unit\nintercept,1,\n": "must name at least one column",
    "": "needs the columns",
}


@pytest.mark.parametrize("text", TEXTS)
def test_other_tables_are_refused(text, tmp_path: Path):
    (tmp_path / "model.csv").write_text(text)
    with pytest.raises(UsageError, match=TEXTS[text]):
        bring_model(tmp_path / "model.csv", SCHEMA, tmp_path / "folder")


def test_damaged_and_endless_files_and_several_classes_are_refused(written, tmp_path: Path):
    (tmp_path / "bytes.csv").write_bytes(b"name,value,unit\n\xff")
    with pytest.raises(UsageError, match="it is not in UTF-8"):
        bring_model(tmp_path / "bytes.csv", SCHEMA, tmp_path / "folder")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="has more than 1,000,000 bytes"):
        bring_model(tmp_path / "endless.csv", SCHEMA, tmp_path / "folder")
    with pytest.raises(UsageError, match="for two classes or for a number"):
        bring_model(written(SOUND), datasets.load("wine").schema, tmp_path / "folder")
    with pytest.raises(UsageError, match="cannot be opened"):
        bring_model(tmp_path / "absent.csv", SCHEMA, tmp_path / "folder")
