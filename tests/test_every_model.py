"""What every model of the listing promises: pure functions of named arrays, for one site or a stack of them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from flfed.listing import load, names
from flfed.plan import Plan
from flfed.rows import datasets
from flfed.rows.encode import Encoded, input_names
from flfed.rows.summarise import layout_of
from flfed.rows.training.fit import FitRequest, ScoreRequest, fit, score
from flfed.rows.training.losses import outputs_of

MODELS = names("model")
CASES = [(name, task) for name in MODELS for task in load("model", name).tasks]
CLASSES = {"binary": 2, "multi-class": 3, "regression": 0}


def rows_of(task: str, rows: int = 40, inputs: int = 4) -> Encoded:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(rows, inputs))
    y = x @ np.arange(1.0, inputs + 1)
    return Encoded(x, y if task == "regression" else np.digitize(y, [-1.0, 2.0][: CLASSES[task] - 1]), np.ones(rows))


def started(name: str, task: str, inputs: int = 4, seed: int = 3):
    model = load("model", name)()
    return model, model.first_arrays(inputs, outputs_of(task, CLASSES[task]), np.random.default_rng(seed))


def test_there_are_three_models_and_a_linear_one_for_every_task():
    assert {"linear", "logistic", "mlp"} <= set(MODELS)
    linear = {task for name, task in CASES if load("model", name).linear}
    assert linear == set(CLASSES)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_first_arrays_follow_from_the_generator_alone_and_are_float64(name, task):
    model, arrays = started(name, task)
    again, other = started(name, task)[1], started(name, task, seed=4)[1]
    assert all(value.dtype == np.float64 and np.isfinite(value).all() for value in arrays.values())
    assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    assert model.intercept in arrays and set(model.penalised) <= set(arrays) - {model.intercept}
    if not model.linear:  # equal starts would leave all hidden units equal for ever
        assert any(not np.array_equal(arrays[key], other[key]) for key in arrays)
        assert len(np.unique(arrays[model.penalised[0]])) == arrays[model.penalised[0]].size


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_stack_of_sites_gives_each_its_own_outputs(name, task):
    model, _ = started(name, task)
    several = [started(name, task, seed=seed)[1] for seed in range(3)]
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 11, 4)))
    stack = {key: torch.from_numpy(np.stack([arrays[key] for arrays in several])) for key in several[0]}
    found = model.outputs(stack, x)
    assert found.shape == (3, 11, outputs_of(task, CLASSES[task]))
    for place, arrays in enumerate(several):
        alone = model.outputs({key: torch.from_numpy(value) for key, value in arrays.items()}, x[place])
        np.testing.assert_allclose(found[place].numpy(), alone.numpy(), atol=1e-13)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_intercept_moves_every_output_alike(name, task):
    model, arrays = started(name, task)
    x = rows_of(task).x
    moved = {**arrays, model.intercept: arrays[model.intercept] + 0.7}
    outputs = [score(ScoreRequest(model=model, arrays=a, x=x)) for a in (arrays, moved)]
    np.testing.assert_allclose(outputs[1] - outputs[0], 0.7, atol=1e-12)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_training_lowers_the_loss_and_no_row_depends_on_another(name, task):
    model, arrays = started(name, task)
    rows = rows_of(task)
    plan = Plan(lr=0.05, batch=0, steps=60)
    fitted = fit(FitRequest(model=model, task=task, arrays=arrays, rows=rows, plan=plan, lr=0.05,
                            rng=np.random.default_rng(0)))  # fmt: skip
    one = fit(FitRequest(model=model, task=task, arrays=arrays, rows=rows, plan=Plan(batch=0), lr=0.05,
                         rng=np.random.default_rng(0)))  # fmt: skip
    last = fit(FitRequest(model=model, task=task, arrays=fitted.arrays, rows=rows, plan=Plan(batch=0), lr=0.05,
                          rng=np.random.default_rng(0)))  # fmt: skip
    assert last.loss < 0.9 * one.loss
    whole = score(ScoreRequest(model=model, arrays=fitted.arrays, x=rows.x))
    part = score(ScoreRequest(model=model, arrays=fitted.arrays, x=rows.x[7:9]))
    np.testing.assert_allclose(part, whole[7:9], atol=1e-13)


@pytest.mark.parametrize("dataset", datasets.names())
@pytest.mark.parametrize("name", MODELS)
def test_a_model_accepts_each_schema_of_its_tasks(name, dataset):
    schema = datasets.load(dataset).schema
    model = load("model", name)()
    if schema.task not in model.tasks:
        return
    inputs = len(input_names(layout_of(schema, schema.features(None))))
    outputs = outputs_of(schema.task, len(schema.classes))
    arrays = model.first_arrays(inputs, outputs, np.random.default_rng(0))
    assert score(ScoreRequest(model=model, arrays=arrays, x=np.zeros((5, inputs)))).shape == (5, outputs)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_names_its_source(name):
    assert "Source:" in inspect.getdoc(load("model", name))


def test_a_linear_start_may_be_drawn_as_torch_draws_it():
    model = load("model", "logistic")(start="uniform")
    arrays = model.first_arrays(25, 200, np.random.default_rng(0))
    # ±1 / sqrt(25): the largest of 5,000 draws is all but at the bound.
    assert 0.199 < np.abs(arrays["weight"]).max() <= 0.2
    assert np.abs(arrays["bias"]).max() <= 0.2 and abs(arrays["weight"].mean()) < 0.005
    assert not np.any(list(load("model", "linear")().first_arrays(3, 1, np.random.default_rng(0)).values())[0])
