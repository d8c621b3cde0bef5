"""What every model of the listing promises: the contract for other packages' too, and more of ours."""

import numpy as np
import pytest

from flfed.registry import load, names
from flfed.rows.data import datasets
from flfed.rows.features.encode import input_names
from flfed.rows.features.summarise import layout_of
from flfed.rows.training.fit import score
from flfed.rows.training.functional import outputs_of
from flfed.rows.training.requests import ScoreRequest
from flfed.testing import check_model
from flfed.testing.models import CLASSES, INPUTS, _each, _started
from flfed.testing.rules import Subject, largest_gap

MODELS = [name for name in names("model") if name != "boosted-trees"]
"""All that have gradients; what trees keep is in tests/federation/test_boosted_trees_run.py."""


@pytest.fixture(params=MODELS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(load("model", request.param))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_the_contract(name: str):
    check_model(load("model", name))


def test_its_shapes_are_those_of_its_first_arrays(subject: Subject) -> None:
    """A model that says its shapes is compared and bounded by them, before any array is made."""
    for task, model, arrays in _each(subject):
        if hasattr(model, "shapes"):
            shapes = model.shapes(INPUTS, outputs_of(task, CLASSES[task]))
            assert shapes == {name: value.shape for name, value in arrays.items()}


def test_hidden_units_start_apart(subject: Subject) -> None:
    """Equal starts would leave all hidden units equal for ever.

    A linear model has none.
    """
    tasks = () if subject.kind.linear else subject.kind.tasks
    for task in tasks:
        model, arrays = _started(subject, task)
        first = arrays[model.penalised[0]]
        assert len(np.unique(first)) == first.size
        again = model.first_arrays(INPUTS, outputs_of(task, CLASSES[task]), np.random.default_rng(4))
        assert largest_gap(again, arrays) > 0


def test_it_accepts_every_dataset_of_its_tasks(subject: Subject) -> None:
    """Whatever the schema: one input a column or category, one output a class."""
    for name in datasets.names():
        schema = datasets.load(name).schema
        if schema.task not in subject.kind.tasks:
            continue
        inputs = len(input_names(layout_of(schema, schema.features(None))))
        outputs = outputs_of(schema.task, len(schema.classes))
        model = subject.make()
        arrays = model.first_arrays(inputs, outputs, np.random.default_rng(0))
        shape = score(ScoreRequest(model=model, arrays=arrays, x=np.zeros((5, inputs)))).shape
        assert shape == (5, outputs)


def test_there_are_three_models_and_a_linear_one_for_every_task():
    assert {"linear", "logistic", "mlp"} <= set(MODELS)
    linear = {task for name in MODELS if load("model", name).linear for task in load("model", name).tasks}
    assert linear == {"binary", "multi-class", "regression"}


def test_a_deep_network_keeps_the_contract_too():
    check_model(load("model", "mlp"), {"hidden": (7, 5, 3)})


def test_a_linear_start_may_be_drawn_as_torch_draws_it():
    model = load("model", "logistic")(start="uniform")
    arrays = model.first_arrays(25, 200, np.random.default_rng(0))
    # ±1 / sqrt(25): the largest of 5,000 draws is all but at the bound.
    assert 0.199 < np.abs(arrays["weight"]).max() <= 0.2
    assert np.abs(arrays["bias"]).max() <= 0.2 and abs(arrays["weight"].mean()) < 0.005
    assert not np.any(list(load("model", "linear")().first_arrays(3, 1, np.random.default_rng(0)).values())[0])
