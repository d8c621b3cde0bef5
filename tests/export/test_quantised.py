"""Models exported as int8: rounded to the nearest, read by all that read a model, and how far predictions moved."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load

import flfed
from flfed.errors import UsageError
from flfed.export.model_folder import DRAWN_ROWS, SharedModel, dequantise, drawn_rows, quantise
from flfed.export.predict import predict_frame, predict_site, predict_table
from flfed.export.run_folder import export
from flfed.rows.data import datasets
from flfed.rows.data.partition import cut
from flfed.rows.features.encode import encode
from flfed.seeds import generator
from flfed.summaries.summary import arrays_sha256
from tests.export.test_other_tools import ROWS, trained
from tests.terminal import in_terminal

pytestmark = [pytest.mark.slow, pytest.mark.studies]

STUDIES = ("heart-disease", "preterm-birth", "taiwan-credit")
MAPPED = ROWS.drop(columns="died").assign(smoker=ROWS["smoker"].astype(float))


def test_each_weight_is_the_nearest_multiple_of_its_outputs_scale():
    rng = np.random.default_rng(3)
    arrays = {"w": rng.normal(size=(40, 6)) * [1e-4, 1e-2, 1, 1, 10, 0], "b": rng.normal(size=6)}
    stored = quantise(arrays)
    assert stored["w"].dtype == np.int8 and stored["w.scale"].dtype == np.float32
    assert stored["b"] is arrays["b"]
    back = dequantise(stored)
    assert list(back) == ["w", "b"]
    assert (np.abs(back["w"] - arrays["w"]) <= stored["w.scale"] / 2 * (1 + 1e-6)).all()
    assert (np.abs(stored["w"][:, :5]).max(axis=0) == 127).all()
    # One scale for the whole matrix would lose the first output, whose weights are small.
    whole = np.abs(arrays["w"]).max() / 127
    assert (np.rint(arrays["w"][:, 0] / whole) == 0).all() and (back["w"][:, 0] != 0).any()


def test_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(UsageError, match="not finite"):
        quantise({"w": np.array([[np.nan, 1.0]])})


@pytest.fixture
def result() -> flfed.Result:
    """A run whose MLP has 4,000 weights and more."""
    return trained(model="mlp", hidden=(128, 32))


def test_it_predicts_with_the_rounded_weights_from_a_quarter_of_the_bytes(result: flfed.Result, tmp_path: Path):
    for dtype in ("float32", "int8"):
        export(result.run, tmp_path / dtype, dtype=dtype)
    plain, small = (SharedModel.read(tmp_path / dtype) for dtype in ("float32", "int8"))
    sizes = [(tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("float32", "int8")]
    assert sizes[0] > 16_000 and sizes[1] < 0.36 * sizes[0]
    stored = load((tmp_path / "int8" / "model.safetensors").read_bytes())
    for name, value in dequantise(stored).items():
        np.testing.assert_array_equal(small.arrays[name], value)
    assert any((small.arrays[name] != plain.arrays[name]).any() for name in plain.arrays)
    MAPPED.to_csv(tmp_path / "rows.csv", index=False)
    one, other = (predict_table(model, tmp_path / "rows.csv").values for model in (plain, small))
    assert 0 < np.abs(one - other).max() < 0.05
    np.testing.assert_array_equal(other[:, 0], flfed.Model.read(tmp_path / "int8").predict_proba(MAPPED)[:, 1])


def test_the_folder_says_how_far_predictions_moved_and_on_which_rows(result: flfed.Result, tmp_path: Path):
    export(result.run, tmp_path / "int8", dtype="int8")
    said = json.loads((tmp_path / "int8" / "model.json").read_text())["quantised"]
    shared = result.model.shared
    assert said["of-arrays-sha256"] == arrays_sha256(shared.arrays)
    rows = drawn_rows(
        shared.layout, shared.encoder, DRAWN_ROWS, generator(shared.study.seed, site="", purpose="quantised")
    )
    x = encode(rows, shared.layout, shared.encoder).x
    moved = np.abs(SharedModel.read(tmp_path / "int8").predictions(x) - shared.predictions(x))
    assert said["mean"] == pytest.approx(moved.mean()) and said["largest"] == pytest.approx(moved.max())
    assert 0 < said["mean"] < said["largest"] < 0.05
    text = (tmp_path / "int8" / "README.txt").read_text()
    assert f"changed by {said['mean']:.2g}" in text and "no site's rows" in text


def test_onnx_has_the_whole_numbers_and_predicts_the_same(result: flfed.Result, tmp_path: Path):
    export(result.run, tmp_path / "int8", dtype="int8")
    model = flfed.Model.read(tmp_path / "int8")
    model.to_onnx(tmp_path / "int8.onnx")
    result.model.to_onnx(tmp_path / "plain.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.25 * (tmp_path / "plain.onnx").stat().st_size
    given = model.inputs(MAPPED)
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx")).run(None, {"inputs": given})
    np.testing.assert_allclose(found, model.predict_proba(MAPPED), rtol=0, atol=1e-6)


def test_a_linear_model_becomes_scikit_learns(tmp_path: Path):
    export(trained().run, tmp_path / "int8", dtype="int8")
    model = flfed.Model.read(tmp_path / "int8")
    theirs = model.to_sklearn().predict_proba(MAPPED)
    np.testing.assert_allclose(theirs, model.predict_proba(MAPPED), rtol=0, atol=1e-6)


def test_an_altered_folder_and_an_unknown_dtype_are_refused(result: flfed.Result, tmp_path: Path):
    export(result.run, tmp_path / "int8", dtype="int8")
    with pytest.raises(
        UsageError, match=r"dtype 'int4' is not known; did you mean 'int8'\? Known: trained, float32, int8"
    ):
        export(result.run, tmp_path / "other", dtype="int4")
    assert not (tmp_path / "other").exists()
    path = tmp_path / "int8" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="is not the file that was exported"):
        SharedModel.read(tmp_path / "int8")


def test_float32_is_written_of_a_run_in_float64_and_predicts_nearly_the_same(result: flfed.Result, tmp_path: Path):
    for dtype in ("trained", "float32"):
        code, _ = in_terminal("run", "export", result.run, "--output", str(tmp_path / dtype), "--dtype", dtype)
        assert code == 0
    stored = [load((tmp_path / dtype / "model.safetensors").read_bytes()) for dtype in ("trained", "float32")]
    assert [{value.dtype for value in arrays.values()} for arrays in stored] == [
        {np.dtype(np.float64)}, {np.dtype("f4")},
    ]  # fmt: skip
    for name, value in stored[0].items():
        np.testing.assert_array_equal(stored[1][name], value.astype(np.float32))
    said = [json.loads((tmp_path / dtype / "model.json").read_text()) for dtype in ("trained", "float32")]
    assert "rounded" not in said[0]
    assert said[1]["rounded"] == {"dtype": "float32", "of-arrays-sha256": said[0]["hashes"]["arrays-sha256"]}
    assert said[1]["hashes"]["arrays-sha256"] == arrays_sha256(stored[1])
    assert "rounded from float64" in (tmp_path / "float32" / "README.txt").read_text()
    whole, small = (flfed.Model.read(tmp_path / dtype).predict_proba(MAPPED) for dtype in ("trained", "float32"))
    np.testing.assert_allclose(small, whole, rtol=0, atol=1e-6)
    small_model = SharedModel.read(tmp_path / "float32")
    assert small_model.to_float32() is small_model


def test_float32_of_a_run_in_float32_is_the_same_file_and_trees_are_not_rounded(tmp_path: Path):
    result = trained(precision="float32")
    for dtype in ("trained", "float32"):
        export(result.run, tmp_path / dtype, dtype=dtype)
    one, other = ((tmp_path / dtype / "model.json").read_text() for dtype in ("trained", "float32"))
    assert one == other
    with pytest.raises(UsageError, match="cut points, which cannot be rounded to float32: leave --dtype out"):
        export(trained(model="boosted-trees").run, tmp_path / "trees", dtype="float32")
    assert not (tmp_path / "trees").exists()
    beyond = replace(result.model.shared, arrays={"w": np.array([1e300])})
    with pytest.raises(UsageError, match="not finite: it cannot be written as float32"):
        beyond.to_float32()


def test_the_commands_write_it_and_predict_with_it(result: flfed.Result, tmp_path: Path):
    code, lines = in_terminal("run", "export", result.run, "--output", str(tmp_path / "int8"), "--dtype", "int8")
    assert code == 0 and "To use it: flfed predict" in "".join(lines)
    MAPPED.to_csv(tmp_path / "rows.csv", index=False)
    code, lines = in_terminal(
        "predict", str(tmp_path / "int8"), str(tmp_path / "rows.csv"), "--output", str(tmp_path / "found.csv")
    )
    assert code == 0 and "int8" in " ".join(lines)
    assert len((tmp_path / "found.csv").read_text().splitlines()) == len(ROWS) + 1


def aucs(study: str, seed: int) -> np.ndarray:
    """Return the AUC at each site, by the weights as trained and as int8; over all its rows [2, sites]."""
    result = flfed.run(study, model={"name": "mlp", "hidden": [64, 32]}, rounds=15, seed=seed)
    models = [result.model.shared, result.model.shared.to_int8()]
    dataset, partition = datasets.load(result.study.dataset.name), result.study.dataset.partition
    tables = [site.source.read(dataset.folders()) for site in cut(dataset, partition)] if partition else []
    told = [
        [predict_frame(model, table) for table in tables]
        or [predict_site(model, name) for name in result.report["sites"]]
        for model in models
    ]
    found = [[site.figures["roc_auc_score"]["value"] for site in sites] for sites in told]
    return np.array(found, dtype=float)


@pytest.mark.usefixtures("heart", "taiwan")
@pytest.mark.parametrize(
    ("study", "splits"),
    [("heart-disease", range(1)), *(pytest.param(study, range(10), marks=pytest.mark.proof) for study in STUDIES)],
)
def test_rounding_moves_no_auc_by_more_than_two_thousandths(study: str, splits: range):
    found = np.array([np.nanmean(aucs(study, 100 + split), axis=1) for split in splits])
    assert np.abs(found[:, 1] - found[:, 0]).max() <= 0.002
