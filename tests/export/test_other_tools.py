"""Models in scikit-learn and ONNX: the same predictions on every row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

import flfed
from flfed.errors import UsageError
from flfed.export.other_tools import CLOSE_INT8, write_onnx
from tests.notebook.test_federate import FRAMES

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # every row of real runs

MODELS = [("died", "mlp"), ("died", "logistic"), ("cost", "linear"), ("band", "mlp")]


def with_cost() -> dict[str, pd.DataFrame]:
    """Return the frames with a number and three classes to predict."""
    made = {}
    for site, table in FRAMES.items():
        band = pd.cut(table["age"], [0, 50, 65, 200], labels=["young", "middle", "old"]).astype(str)
        made[site] = table.assign(cost=50 + 3 * table["age"] + 20 * table["smoker"], band=band)
    return made


ROWS = pd.concat(with_cost().values(), ignore_index=True)


def trained(target: str = "died", **more: object) -> flfed.Result:
    return flfed.federate(with_cost(), target, rounds=5, say=lambda line: None, **more)


@pytest.mark.parametrize(("target", "model"), MODELS)
def test_an_onnx_file_predicts_the_same_on_every_row(target: str, model: str, tmp_path: Path):
    result = trained(target, model=model)
    result.model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    given = result.model.inputs(ROWS)
    (found,) = session.run(None, {"inputs": given})
    theirs = result.model.predict(ROWS)[:, None] if target == "cost" else result.model.predict_proba(ROWS)
    assert found.shape == theirs.shape
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-6)
    properties = session.get_modelmeta().custom_metadata_map
    assert len(properties["inputs"].splitlines()) == given.shape[1]
    assert tuple(properties["classes"].split()) == result.model.shared.schema.classes


@pytest.mark.parametrize(("target", "model"), MODELS)
def test_an_int8_file_is_smaller_and_its_scores_are_within_the_stated_error(target: str, model: str, tmp_path: Path):
    result = trained(target, model=model, **({"hidden": (128, 32)} if model == "mlp" else {}))
    result.model.to_onnx(tmp_path / "whole.onnx")
    result.model.to_onnx(tmp_path / "int8.onnx", int8=True)
    if model == "mlp":
        assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * (tmp_path / "whole.onnx").stat().st_size
    given = result.model.inputs(ROWS)
    whole, small = (
        onnxruntime.InferenceSession(str(tmp_path / name)).run(None, {"inputs": given.astype(dtype)})[0]
        for name, dtype in (("whole.onnx", np.float64), ("int8.onnx", np.float32))
    )
    gap = np.abs(small - whole) / np.maximum(1, np.abs(whole))
    assert 0 < gap.max() <= CLOSE_INT8


def test_a_file_whose_scores_differ_by_more_is_not_written(tmp_path: Path):
    shared = trained(model="mlp").model.shared
    large = {name: value * 1e4 for name, value in shared.arrays.items()}
    with pytest.raises(UsageError, match=r"of the ONNX file differs by .* \(at most 0.05\)"):
        write_onnx(replace(shared, arrays=large), tmp_path / "int8.onnx", int8=True)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_linear_model_is_a_pipeline_of_scikit_learn():
    result = trained()
    pipeline = result.model.to_sklearn()
    mapped = ROWS.assign(smoker=ROWS["smoker"].astype(float))
    np.testing.assert_allclose(pipeline.predict_proba(mapped), result.model.predict_proba(ROWS), rtol=0, atol=1e-12)
    assert list(pipeline.predict(mapped)) == list(result.model.predict(ROWS))
    assert list(pipeline[0].get_feature_names_out())[0] == "age"
    numbers = trained("cost").model
    np.testing.assert_allclose(numbers.to_sklearn().predict(mapped), numbers.predict(ROWS), rtol=1e-12)


def test_what_other_tools_cannot_hold_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="is not linear"):
        trained(model="mlp").model.to_sklearn()
