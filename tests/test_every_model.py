"""What every model of the listing promises: the rules are in `flfed.testing`, for other packages' too."""

import numpy as np
import pytest

from flfed.registry import load, names
from flfed.testing import MODEL_RULES, Subject, keep

MODELS = [name for name in names("model") if name != "boosted-trees"]
"""All that have gradients; what trees keep is in tests/federation/test_boosted_trees_run.py."""


@pytest.mark.parametrize("rule", MODEL_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_every_rule_of_the_contract(name, rule):
    keep(rule, Subject(load("model", name)))


def test_there_are_three_models_and_a_linear_one_for_every_task():
    assert {"linear", "logistic", "mlp"} <= set(MODELS)
    linear = {task for name in MODELS if load("model", name).linear for task in load("model", name).tasks}
    assert linear == {"binary", "multi-class", "regression"}


def test_a_deep_network_keeps_the_contract_too():
    for rule in MODEL_RULES:
        keep(rule, Subject(load("model", "mlp"), {"hidden": (7, 5, 3)}))


def test_a_linear_start_may_be_drawn_as_torch_draws_it():
    model = load("model", "logistic")(start="uniform")
    arrays = model.first_arrays(25, 200, np.random.default_rng(0))
    # ±1 / sqrt(25): the largest of 5,000 draws is all but at the bound.
    assert 0.199 < np.abs(arrays["weight"]).max() <= 0.2
    assert np.abs(arrays["bias"]).max() <= 0.2 and abs(arrays["weight"].mean()) < 0.005
    assert not np.any(list(load("model", "linear")().first_arrays(3, 1, np.random.default_rng(0)).values())[0])
