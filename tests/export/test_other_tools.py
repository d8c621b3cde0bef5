"""Models in scikit-learn and ONNX: the same predictions on every row."""

from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

import flfed
from flfed.errors import UsageError
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
