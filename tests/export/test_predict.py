"""Predicting with a model folder: the run's own predictions, hand-computed ones, and what is refused."""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from safetensors.numpy import load, save
from scipy.special import expit, logit, softmax
from sklearn import metrics as sk

from flfed.errors import FlfedError, UsageError
from flfed.export.model_folder import SharedModel
from flfed.export.predict import predict_site, predict_table
from flfed.export.run_folder import export
from flfed.federation.server.run import run
from flfed.paths import write_private
from flfed.rows.comparison.pooled import union_scores
from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.evaluation.intervals import Estimate
from flfed.rows.features.encode import encode, input_names
from flfed.rows.features.summarise import summarise
from flfed.rows.model_files import INDEX, MODEL, seal
from flfed.rows.session import SiteSession
from flfed.rows.study_model import study_layout
from flfed.rows.training.answer import run_client
from flfed.rows.training.functional import outputs_of
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder
from flfed.updates.checkpoints import checkpoint

ROWS = pd.DataFrame({
    "x1": [40.0, 60.0, 55.5, 12.25, 99.0, 50.0], "x2": [-1.0, 2.0, np.nan, 0.5, -4.5, 0.0],
    "flag": [0, 1, 1, 0, 1, 0], "colour": ["red", "green", "blue", "red", "blue", "green"],
    "y": ["no", "yes", "yes", "no", "yes", "no"],
})  # fmt: skip


def model_of(text: str, table: pd.DataFrame, *, seed: int = 3) -> SharedModel:
    """Return a model with random arrays and the encoder of `table`, without a run."""
    study = Study.parse(text)
    schema = datasets.load(study.dataset.name).schema
    mapped, findings = map_table(table, schema, {})
    assert not findings
    layout, rng = study_layout(study, schema), np.random.default_rng(seed)
    inputs, outputs = len(input_names(layout)), outputs_of(schema.task, len(schema.classes))
    first = study.model.build("model").first_arrays(inputs, outputs, rng)
    return SharedModel(
        run="r", study=study, schema=schema,
        arrays={name: rng.normal(0, 0.5, value.shape) for name, value in first.items()},
        encoder=fit_encoder(layout, summarise(mapped, layout)), figures={"global": {}, "sites": {}},
    )  # fmt: skip


@pytest.fixture
def small_model(small_sites, small_study: str) -> SharedModel:
    """A logistic model of the dataset "small"."""
    small_sites(1)
    return model_of(small_study, ROWS.assign(person=range(len(ROWS))))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a table as CSV, or as Parquet, and returns its path."""

    def write(table: pd.DataFrame, name: str = "rows.csv", **options) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False, **options)
        return path

    return write


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_predictions_are_those_that_the_run_itself_had_on_the_holdouts(
    small_sites, small_study, written, tmp_path, model
):
    study = Study.parse(small_study).replace({"model.name": model})
    sites = small_sites(3, rows=80)
    ended = run(study, sites=sites)
    export(ended.run, tmp_path / "model")
    shared, final = SharedModel.read(tmp_path / "model"), checkpoint.final(ended.run)
    sessions = [SiteSession(site, study) for site in sites]
    expected = run_client(union_scores(sessions, final.arrays, final.encoder))
    rows = pd.concat([w.table.holdout("compare") for w in sessions])
    found = predict_table(shared, written(rows))
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=0, atol=1e-12)
    assert found.known == len(rows) > 60
    # And so are the figures: the union's, as the run's report has them.
    value = ended.report["global"]["roc_auc_score"]["value"]
    assert found.figures["roc_auc_score"]["value"] == pytest.approx(value, abs=1e-12)
    for arms in shared.figures["sites"].values():
        assert 0 <= arms["global"]["brier_score_loss"]["value"] <= 1


def test_a_logistic_model_predicts_the_hand_computed_probability(small_model, written):
    encoder, weight, bias = small_model.encoder, small_model.arrays["weight"][:, 0], small_model.arrays["bias"][0]
    # Inputs in the schema's order: x1, x2, flag, colour=green, colour=blue; red is the reference.
    assert input_names(small_model.layout) == ("x1", "x2", "flag", "colour=green", "colour=blue")
    cells = small_model.layout.slices()
    expected = []
    for row in ROWS.itertuples():
        x = [(row.x1 - encoder.center[0]) / encoder.scale[0]]
        x.append(0.0 if np.isnan(row.x2) else (row.x2 - encoder.center[1]) / encoder.scale[1])
        for column, value in (
            ("flag", row.flag == 1),
            ("colour", row.colour == "green"),
            ("colour", row.colour == "blue"),
        ):
            place = cells[column].start + (2 if column == "colour" and len(x) == 4 else 1)
            x.append((value - encoder.frequency[place]) / encoder.spread[place])
        expected.append(expit(np.dot(x, weight) + bias))
    found = predict_table(small_model, written(ROWS.drop(columns="y")))
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=0, atol=1e-12)
    assert (found.headers, found.of, found.figures, found.notes) == (("probability",), "y=yes", {}, ())
    assert [row["row"] for row in found.rows()] == [1, 2, 3, 4, 5, 6]
    lines = list(csv.reader(io.StringIO(found.as_csv())))
    assert lines[0] == ["row", "probability"]
    assert [float(line[1]) for line in lines[1:]] == found.values[:, 0].tolist()  # no digit is lost


def test_classes_get_a_probability_each_and_a_regression_its_unit(written):
    for name in ("wine", "diabetes"):
        dataset = datasets.load(name)
        raw, study = dataset.whole_table(), Study.load(name)
        model = model_of(study.text, raw)
        x = encode(map_table(raw, dataset.schema, {})[0], model.layout, model.encoder).x
        outputs = x @ model.arrays["weight"] + model.arrays["bias"]
        found = predict_table(model, written(raw, f"{name}.csv"))
        if name == "wine":
            np.testing.assert_allclose(found.values, softmax(outputs, axis=1), rtol=0, atol=1e-12)
            assert found.headers == tuple(f"probability {c}" for c in dataset.schema.classes)
        else:
            mean, sd = raw["progression"].mean(), raw["progression"].std(ddof=0)
            np.testing.assert_allclose(found.values[:, 0], outputs[:, 0] * sd + mean, rtol=1e-9)
            assert (found.headers, found.of) == (("prediction",), "progression (points)")
            expected = sk.mean_absolute_error(raw["progression"], found.values[:, 0])
            assert found.figures["mean_absolute_error"]["value"] == pytest.approx(expected, rel=1e-12)


def test_a_model_folder_gives_back_what_was_written(small_model, tmp_path):
    small_model.write(tmp_path / "m")
    again = SharedModel.read(tmp_path / "m")
    for name, value in small_model.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], value)
    assert again.encoder.sha256() == small_model.encoder.sha256()
    assert again.schema == small_model.schema and again.study.text == small_model.study.text
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    assert index["inputs"] == list(input_names(small_model.layout)) and len(index["inputs"]) == 5
    assert index["hashes"]["schema-sha256"] == small_model.schema.sha256()
    assert (index["classes"], index["model"]["name"]) == (["no", "yes"], "logistic")


@pytest.mark.parametrize("name", [MODEL, "encoder.safetensors", "schema.toml", "study.toml", INDEX])
def test_an_altered_or_missing_file_is_refused(small_model, tmp_path, name):
    folder = tmp_path / "m"
    small_model.write(folder)
    content = (folder / name).read_bytes()
    for place in (len(content) // 2, len(content) - 3):
        altered = bytearray(content)
        altered[place] ^= 1
        (folder / name).write_bytes(bytes(altered))
        with pytest.raises(UsageError, match="is not the file that was exported"):
            SharedModel.read(folder)
    (folder / name).unlink()
    with pytest.raises(UsageError, match="is missing|is not a model folder"):
        SharedModel.read(folder)


def test_parts_of_two_models_are_refused_even_where_the_files_hashes_are_put_right(small_model, tmp_path):
    folder = tmp_path / "m"
    small_model.write(folder)
    arrays = load((folder / MODEL).read_bytes())
    for changed in (save({name: value + 1 for name, value in arrays.items()}), save({"weight": arrays["weight"][:2]})):
        (folder / MODEL).write_bytes(changed)
        index = json.loads((folder / INDEX).read_text())
        index.pop("sha256")
        index["files"][MODEL] = hashlib.sha256(changed).hexdigest()
        (folder / INDEX).write_text(json.dumps(index | {"sha256": seal(index)}))
        with pytest.raises(UsageError, match="do not belong together"):
            SharedModel.read(folder)


CELL = "Jane Roe"
WRONG = {
    "column missing": (lambda t: t.drop(columns="x1"), "'x1' is not in the table (add it"),
    "out of range": (lambda t: t.assign(x1=1e6), "'x1' is outside the schema's range 0 to 100 mm in 6 rows"),
    "no number": (lambda t: t.assign(x2=CELL), "'x2' is not a number in 6 rows"),
    "unknown category": (lambda t: t.assign(colour=[CELL] + ["red"] * 5), "not allow in fewer than 5 rows"),
    "unknown class": (lambda t: t.assign(y=CELL), "'y' has a value that the schema does not allow in 6 rows"),
    "no flag": (lambda t: t.assign(flag=CELL), "'flag' is not a flag"),
    "no rows": (lambda t: t.iloc[:0], "has no rows"),
    "column twice": (lambda t: t.assign(again=1).rename(columns={"again": "x1"}), "more than once"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_breaks_the_schema_is_refused_without_a_cell(small_model, written, case):
    spoil, says = WRONG[case]
    with pytest.raises(FlfedError) as refused:
        predict_table(small_model, written(spoil(ROWS)))
    assert says in str(refused.value)
    assert refused.value.exit_code == 2
    assert CELL not in str(refused.value) and "1000000" not in str(refused.value)


def test_a_file_that_is_no_such_table_is_refused(small_model, written, tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        predict_table(small_model, tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        predict_table(small_model, written(ROWS).rename(tmp_path / "rows.parquet"))


def test_metrics_are_of_the_rows_whose_outcome_is_known(small_model, written):
    partly = ROWS.assign(y=["no", "yes", None, "no", "yes", None])
    found = predict_table(small_model, written(partly))
    known = partly["y"].notna().to_numpy()
    y, p = (partly["y"][known] == "yes").astype(int), found.values[known, 0]
    assert len(found.values) == 6 and found.known == 4
    for name in ("roc_auc_score", "brier_score_loss", "log_loss"):
        assert found.figures[name]["value"] == pytest.approx(getattr(sk, name)(y, p), abs=1e-12)
        assert found.figures[name]["low"] <= found.figures[name]["value"] <= found.figures[name]["high"]
    assert "4 of 6 rows" in found.notes[1] and "this table only" in found.notes[0]
    one_class = predict_table(small_model, written(ROWS.assign(y="yes")))
    assert one_class.figures["roc_auc_score"]["value"] is None and one_class.figures["roc_auc_score"]["method"]


def test_calibration_equals_statsmodels(small_model, written):
    rng = np.random.default_rng(4)
    rows = ROWS.sample(400, replace=True, random_state=1, ignore_index=True)
    rows = rows.assign(x1=rng.uniform(0, 100, 400), y=rng.choice(["no", "yes"], 400, p=[0.7, 0.3]))
    found = predict_table(small_model, written(rows))
    y, odds = (rows["y"] == "yes").astype(float), logit(found.values[:, 0])
    binomial = sm.families.Binomial()
    joint = sm.GLM(y, sm.add_constant(odds), family=binomial).fit(tol=1e-14, maxiter=200)
    alone = sm.GLM(y, np.ones(400), offset=odds, family=binomial).fit(tol=1e-14, maxiter=200)
    shown = found.measured()["calibration"]
    for name, theirs in (("slope", joint), ("intercept", alone)):
        expected = [np.asarray(theirs.params)[-1], *np.asarray(theirs.conf_int())[-1]]
        assert [shown[name][end] for end in ("value", "low", "high")] == pytest.approx(expected, abs=1e-8)
    assert shown["few-events"] is False
    # The joint fit's intercept is another.
    assert abs(np.asarray(joint.params)[0] - shown["intercept"]["value"]) > 0.05
    slope, intercept = found.describe_calibration()
    # An end that is not 1 does not read as 1 beside what follows from it.
    near = Estimate(1.1, 1.0003, 1.2, 0.01, "Wald")
    narrow = replace(found, calibration=replace(found.calibration, slope=near)).describe_calibration()[0]
    assert narrow.startswith("Calibration slope 1.1000 (95 % CI 1.0003 to 1.2000): predictions are not extreme enough")
    assert "predictions are too extreme. High ones are too high, and low ones too low." in slope
    assert intercept.startswith("Calibration intercept ") and "95 % CI" in intercept


def test_few_events_are_named_and_a_table_without_outcome_has_no_calibration(small_model, written):
    found = predict_table(small_model, written(pd.concat([ROWS] * 5)))
    assert found.calibration is not None and found.calibration.few
    assert found.describe_calibration()[-1].startswith("Few events: fewer than 100 rows have the outcome")
    one_class = predict_table(small_model, written(ROWS.assign(y="yes")))
    assert "is not defined: only one class" in one_class.describe_calibration()[0]
    without = predict_table(small_model, written(ROWS.drop(columns="y")))
    assert (without.measured()["calibration"], without.describe_calibration()) == (None, [])


def test_rows_of_one_person_go_together_into_the_interval(small_sites, small_study, written):
    small_sites(1)
    path = datasets.load("small").folder / "schema.toml"
    path.write_text(path.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    few = pd.concat([ROWS] * 8, ignore_index=True)
    rng = np.random.default_rng(1)
    few = few.assign(x1=rng.uniform(0, 100, len(few)), y=rng.choice(["no", "yes"], len(few)))
    model = model_of(small_study, few.assign(person=range(len(few))))
    # Nine rows of each person, all alike: what is known is that of as many people, and no more.
    copies = pd.concat([few] * 9, ignore_index=True)
    widths = []
    for person in (np.tile(np.arange(len(few)), 9), np.arange(len(copies))):
        table = written(copies.assign(person=person.astype(str)))
        figure = predict_table(model, table).figures["roc_auc_score"]
        widths.append(figure["high"] - figure["low"])
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.15)


def test_files_of_any_form_give_the_same_predictions_and_unread_columns_may_be_absent(
    small_model, small_study, written, tmp_path
):
    first = predict_table(small_model, written(ROWS)).values
    ROWS.to_excel(tmp_path / "rows.xlsx", index=False)
    umlauts = ROWS.assign(straße="Köln")
    others = (written(ROWS, "rows.parquet"), tmp_path / "rows.xlsx", written(umlauts, sep=";", encoding="cp1252"))
    for other in others:
        np.testing.assert_allclose(predict_table(small_model, other).values, first, atol=1e-12)
    narrow = small_study.replace('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1", "flag"]\n[model]')
    model = model_of(narrow, ROWS.assign(person="p"))
    assert len(predict_table(model, written(ROWS[["x1", "flag"]])).values) == 6
    # A comma at the end of every third line is no other separator.
    names, *lines = written(pd.concat([ROWS] * 5).assign(seen="2020-01-01 10:00")).read_text().splitlines()
    lines = [f"{line}," if place % 3 == 0 else line for place, line in enumerate(lines)]
    (tmp_path / "ends.csv").write_text("\n".join([names, *lines, ""]))
    np.testing.assert_allclose(predict_table(small_model, tmp_path / "ends.csv").values[:6], first, atol=1e-12)
    with pd.ExcelWriter(tmp_path / "two.xlsx") as writer:
        for year in ("2024", "2025"):
            ROWS.to_excel(writer, sheet_name=year, index=False)
    with pytest.raises(UsageError, match=r"has several sheets \(2024, 2025\): save the one to read"):
        predict_table(small_model, tmp_path / "two.xlsx")
    # Nor is one that is there looked at.
    assert len(predict_table(model, written(ROWS.assign(x2="?"))).values) == 6


def test_a_row_with_a_gap_gets_no_prediction_where_the_study_trained_on_complete_rows(
    small_sites, small_study, written
):
    small_sites(1)
    model = model_of(small_study + '[encode]\nrows = "complete"\n', ROWS.assign(person="p"))
    found = predict_table(model, written(ROWS))
    assert np.isnan(found.values[:, 0]).tolist() == [False, False, True, False, False, False]
    assert found.rows()[2] == {"row": 3, "probability": None} and "\n3,\n" in found.as_csv()
    assert found.known == 5 and "fewer than 5 rows have a gap" in found.notes[0]


def test_a_model_whose_sites_scaled_by_themselves_predicts_for_nobody_else(small_sites, small_study, written):
    small_sites(1)
    model = model_of(small_study + '[encode]\nscaler = "per-site"\n', ROWS.assign(person="p"))
    with pytest.raises(UsageError, match="no encoder fits another table; train it with scaler='global'"):
        predict_table(model, written(ROWS))


WARD = """
from flfed import Csv, Field, Site
site = Site(
    name="ward", dataset="small", source=Csv("rows.csv", separator=";", missing=("?",)),
    mapping={"x1": Field("CM", multiply=10), "colour": Field("C", values={"1": "red", "2": "blue"}), "flag": None},
)
"""


def test_a_sites_own_rows_are_read_and_mapped_as_the_site_does(small_model, tmp_path, written):
    folder = tmp_path / "root" / "sites" / "ward"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(WARD)
    (folder / "rows.csv").write_text("CM;x2;C\n5;?;1\n6.5;1.5;2\n")  # rows to predict: no outcome yet
    found = predict_site(small_model, "ward")
    same = pd.DataFrame({"x1": [50, 65], "x2": [None, 1.5], "flag": [None, None], "colour": ["red", "blue"]})
    np.testing.assert_allclose(found.values, predict_table(small_model, written(same)).values, rtol=0, atol=1e-12)
    assert found.known == 0
    with pytest.raises(UsageError, match="has dataset 'heart-disease'.*, not 'small'"):
        predict_site(small_model, "cleveland")
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace("[0, 100]", "[0, 200]"))
    with pytest.raises(UsageError, match="another schema here than in the model's training"):
        predict_site(small_model, "ward")


def test_predictions_are_written_for_their_owner_alone_and_never_replaced(tmp_path):
    path, advice = tmp_path / "out.csv", "choose another file with --output"
    write_private(path, "row,probability\n", advice=advice)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="is already there; it is not replaced"):
        write_private(path, "", advice=advice)
    with pytest.raises(UsageError, match="choose another file with --output"):
        write_private(tmp_path / "no" / "folder" / "out.csv", "", advice=advice)
