"""Strategies with own parts: which arrays stay at a site, the pull of own models, and studies that have none."""

from typing import Any

import numpy as np
import pytest
import torch

from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.study.study import Study
from flfed.testing import check_strategy
from flfed.updates.arrays import shapes_of
from flfed.updates.extra import own_terms
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.strategies.ditto import Ditto
from flfed.updates.strategies.fedper import FedPer


def test_dittos_gradient_is_lam_times_the_distance_from_the_shared_model_at_every_step():
    start, incoming, now = ({"weight": np.array([[value, -value]])} for value in (2.0, 0.5, 3.0))
    (term,), constant = own_terms(Ditto, {"lam": 0.4}, start, incoming)
    anchor, w = (torch.tensor(arrays["weight"]) for arrays in (start, now))
    found = term(w, anchor).numpy() + constant["weight"]
    np.testing.assert_allclose(found, 0.4 * np.array([[2.5, -2.5]]), rtol=1e-15)  # 0.4 (3 - 0.5)
    np.testing.assert_array_equal(term(anchor, anchor).numpy(), 0)
    with pytest.raises(MalformedMessage, match="lam"):
        own_terms(Ditto, {}, start, incoming)


@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf")])
def test_a_pull_that_is_no_pull_is_refused(lam: float):
    with pytest.raises(UsageError, match="lam"):
        Ditto(lam=lam)


def test_ditto_keeps_strategies_contract():
    check_strategy(Ditto, {"lam": 0.5})
    model = shapes_of({"weight": np.zeros((3, 1)), "bias": np.zeros(1)})
    shapes = Ditto.extra_shapes(model)
    assert (shapes.sent, shapes.returned, shapes.kept, shapes.own_part) == ({}, {}, {}, {})
    assert shapes.own_model == model and shapes.stay


def test_a_second_training_that_no_budget_is_charged_for_is_refused(small_sites: Any, small_study: str):
    small_sites(1)
    private = {"privacy.name": "record-dp", "privacy.epsilon": 8.0, "privacy.delta": 1e-3, "plan.steps": 4}
    study = Study.parse(small_study).replace({**private, "plan.epochs": 1})
    check(study)
    with pytest.raises(UsageError, match="a second model on the same rows, and record-dp under .privacy. neither"):
        check(study.replace({"strategy.name": "ditto"}))


def shapes_named(*names: str) -> dict[str, Any]:
    """Return shapes of a model whose weights have two dimensions and whose intercepts have one."""
    return shapes_of({name: np.zeros((3,) if "bias" in name else (3, 3)) for name in names})


@pytest.mark.parametrize(("names", "own"), [
    (("weight", "bias"), {"bias"}), (("weight-0", "bias-0", "weight-1", "bias-1"), {"weight-1", "bias-1"}),
    # Of ten layers and more the last is that of the highest number, not of the last name in the alphabet.
    (("bias-10", "weight-10", "bias-9", "weight-9", "bias-0", "weight-0"), {"weight-10", "bias-10"}),
    (("0.weight", "0.bias", "2.weight", "2.bias"), {"2.weight", "2.bias"}),
])  # fmt: skip
def test_the_own_part_is_the_last_layer_and_of_one_layer_its_intercepts(names: tuple[str, ...], own: set[str]):
    shapes = FedPer.extra_shapes(shapes_named(*names))
    assert set(shapes.own_part) == own and not (shapes.own_model or shapes.kept or shapes.sent or shapes.returned)


def test_a_model_whose_last_layer_is_not_known_is_refused():
    said = "the names hidden.weight, hidden.bias, out.weight, out.bias do not show which layer is the last"
    with pytest.raises(UsageError, match=said):
        FedPer.extra_shapes(shapes_named("hidden.weight", "hidden.bias", "out.weight", "out.bias"))


def test_own_last_layers_keep_strategies_contract_and_take_no_earlier_round(small_sites: Any, small_study: str):
    check_strategy(FedPer)
    small_sites(1)
    study = Study.parse(small_study).replace({"strategy.name": "fedper", "plan.validation": 0.3})
    check(study)
    with pytest.raises(UsageError, match="each site's own layers are those of the last round"):
        check(study.replace({"strategy.select": "best"}))
