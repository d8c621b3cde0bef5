"""Modules, and functions that make them: training as torch's, a sentence for what is wrong, the same scores in ONNX."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from torch import nn

import flfed
from flfed import registry
from flfed.errors import UsageError
from flfed.export.other_tools import write_onnx
from flfed.notebook.own_model import model_of, name_of_model
from flfed.rows.baselines import first_arrays
from flfed.rows.features.encode import Encoded
from flfed.rows.study_model import study_trainable
from flfed.rows.training.fit import drawn, fit, score
from flfed.rows.training.requests import FitRequest, ScoreRequest
from flfed.study.plan import Plan
from tests.notebook.test_federate import FRAMES, federate

INPUTS = 3
ROWS = 33
"""With batches of 16 the last batch has one row, of which no variance can be taken."""
BATCHES = Plan(batch=16, epochs=2, l2=0.0, precision="float64")


def site_rows() -> Encoded:
    rng = np.random.default_rng(3)
    x = rng.normal(1, 2, (ROWS, INPUTS))
    return Encoded(x=x, y=(x[:, 0] > 1).astype(float), weight=np.ones(ROWS))


def fitted(module: nn.Module, seed: int = 1, plan: Plan = BATCHES) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a module's model, and its arrays after a fit."""
    model = model_of(module, INPUTS, 1)()
    arrays = model.first_arrays(INPUTS, 1, np.random.default_rng(0))
    request = FitRequest(
        model=model, task="binary", arrays=arrays, rows=site_rows(), plan=plan, lr=0.1, rng=np.random.default_rng(seed)
    )
    return model, fit(request).arrays


def with_norm(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, outputs))


def whole(inputs: int, outputs: int) -> nn.Module:
    """Return a lazy layer, BatchNorm and Dropout."""
    return nn.Sequential(nn.LazyLinear(8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.LazyLinear(outputs))


def test_batch_norm_trains_and_moves_its_means_as_torch_does():
    torch.manual_seed(4)
    net = with_norm(INPUTS, 1).double()
    model, arrays = fitted(net)
    assert model.buffers == ("1.running_mean", "1.running_var")
    loss_of = nn.BCEWithLogitsLoss()
    net = copy.deepcopy(net)
    steps = torch.optim.SGD(net.parameters(), lr=0.1)
    for x, y in drawn(site_rows(), "binary", BATCHES, np.random.default_rng(1), torch.float64):
        net.train(len(x) > 1)  # one row has no variance
        steps.zero_grad()
        loss_of(net(x)[:, 0], y).backward()
        steps.step()
    expected = net.state_dict()
    assert set(arrays) == {name for name in expected if "tracked" not in name}
    for name, value in arrays.items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=0, atol=1e-10)
    assert np.abs(arrays["1.running_mean"]).max() > 0.1  # they have moved
    scores = score(ScoreRequest(model=model, arrays=arrays, x=site_rows().x))
    with torch.no_grad():
        np.testing.assert_allclose(scores, net.eval()(torch.from_numpy(site_rows().x)).numpy(), rtol=0, atol=1e-10)
    # A variance that noise took below 0 counts as 0, and no score is lost.
    below = arrays | {"1.running_var": -arrays["1.running_var"]}
    assert np.isfinite(score(ScoreRequest(model=model, arrays=below, x=site_rows().x))).all()


def test_dropout_draws_by_the_seed_in_training_and_never_in_evaluation():
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(INPUTS, 6), nn.Dropout(0.5), nn.Linear(6, 1))
    before = torch.get_rng_state()
    full = Plan(batch=0, epochs=3, l2=0.0, precision="float64")  # all rows: only the layer draws
    model, arrays = fitted(net, 1, full)
    _, again = fitted(net, 1, full)
    _, other = fitted(net, 2, full)
    _, plain = fitted(nn.Sequential(net[0], net[2]), 1, full)
    assert torch.equal(torch.get_rng_state(), before)  # the program's own draws stay as they were
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, again[name])
    assert np.abs(arrays["2.weight"] - other["2.weight"]).max() > 1e-3
    assert np.abs(arrays["2.weight"] - plain["1.weight"]).max() > 1e-3
    rows = ScoreRequest(model=model, arrays=arrays, x=site_rows().x)
    np.testing.assert_array_equal(score(rows), score(rows))


def test_a_function_starts_each_seed_anew_with_the_shapes_of_lazy_layers():
    model = model_of(whole, INPUTS, 2)()
    first, again, other = (model.first_arrays(INPUTS, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first["0.weight"].shape == (8, INPUTS) and first["4.weight"].shape == (2, 8)
    np.testing.assert_array_equal(first["0.weight"], again["0.weight"])
    assert np.abs(first["0.weight"] - other["0.weight"]).max() > 0.01
    assert model_of(whole, INPUTS, 2).__name__ == type(model).__name__ != model_of(whole, INPUTS, 3).__name__


WIDTHS = iter(range(2, 50))


@pytest.mark.parametrize(("build", "words"), [
    (lambda inputs, outputs: nn.Linear(inputs, outputs + 1), "returns .2, 2. for 2 rows, not .2, 1."),
    (lambda inputs, outputs: nn.Linear(inputs + 1, outputs), "takes no input .rows, 3."),
    (lambda inputs, outputs: nn.Sequential(nn.LazyLinear(2), nn.Linear(5, 1)), "takes no input .rows, 3."),
    (lambda inputs, outputs: nn.Linear, "returned type, not a torch.nn.Module"),
    (lambda inputs: nn.Linear(inputs, 1), "must take two numbers"),
    (lambda inputs, outputs: nn.ReLU(), "no parameters to train"),
    (lambda inputs, outputs: nn.Linear(inputs, outputs).requires_grad_(False), "not trained"),
    (lambda inputs, outputs: nn.Sequential(nn.Linear(inputs, next(WIDTHS)), nn.LazyLinear(1)), "another module"),
])  # fmt: skip
def test_a_function_that_makes_no_model_is_answered_in_a_sentence(build: Callable[..., Any], words: str):
    with pytest.raises(UsageError, match=words) as refused:
        model_of(build, INPUTS, 1)().first_arrays(INPUTS, 1, np.random.default_rng(0))
    assert "\n" not in str(refused.value)


@pytest.mark.proof
@pytest.mark.studies
def test_a_module_with_dropout_and_batch_norm_is_trained_opened_again_and_written_as_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    result = federate(
        FRAMES, "died", model=whole, rounds=2, holdout=0.0, missing_indicator=False, say=lambda line: None
    )
    rows = pd.concat(FRAMES.values(), ignore_index=True)
    theirs = result.model.predict_proba(rows)
    assert result.status == "completed" and np.abs(result.model.arrays["1.running_mean"]).max() > 0.01
    assert "module" in result.study.model.name and "own module model" in repr(result.model)
    assert not any(result.study.model.name in text for text in (repr(result), result._repr_html_()))
    result.model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (scores,) = session.run(None, {"inputs": result.model.inputs(rows)})
    np.testing.assert_allclose(scores, theirs, rtol=0, atol=1e-6)
    # Sums so large that float32, which GELU needs, cannot hold the scores.
    steep = name_of_model(
        lambda inputs, outputs: nn.Sequential(Steep(inputs), nn.GELU(), nn.Linear(1, outputs)), lambda: (5, 1)
    )
    study = result.study.replace({"model.name": steep})
    arrays = first_arrays(study_trainable(study, result.model.shared.schema, study.model.build("model"), seed=1), 5)
    with pytest.raises(UsageError, match="a score of the ONNX file differs by"):
        write_onnx(replace(result.model.shared, study=study, arrays=arrays), tmp_path / "large.onnx")
    assert not (tmp_path / "large.onnx").exists()
    with pytest.raises(UsageError, match="runs with engine=\"inprocess\" only, not 'ray'"):
        flfed.run(result.study, engine="ray")
    monkeypatch.setattr(registry, "_LENT", {})  # another process
    with pytest.raises(UsageError, match="its code is only in that program"):
        _ = flfed.load(result.run).model
    again = flfed.load(result.run, model=whole).model
    np.testing.assert_array_equal(again.predict_proba(rows), theirs)


class Steep(nn.Linear):
    """Sums of which float32 loses most digits."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (super().forward(x) + 1e4) - 1e4
