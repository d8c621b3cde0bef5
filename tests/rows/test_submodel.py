"""Sub-models: what a site with a width trains, what it costs, and that it changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flfed import Study, registry
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import study_refusal
from flfed.rows.data.table_check import check_site
from flfed.rows.features.encode import Encoded
from flfed.rows.models.mlp import Mlp
from flfed.rows.own_parts import narrowed, nested_start, submodel, widened
from flfed.rows.training.answer import fit_one, fit_stacked
from flfed.rows.training.fit import fit
from flfed.rows.training.private_noise import SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps
from flfed.updates.strategies.fedprox import proximal_gradient

INPUTS = 24
ONE, DEEP = Mlp(hidden=(16,)), Mlp(hidden=(16, 7))
Arrays = dict[str, np.ndarray]
RULES = {
    "sgd": Plan(lr=0.1, batch=16),
    "adam with penalties": Plan(optimiser="adam", lr=0.01, l1=0.01, l2=0.05, clip=0.3, batch=16),
}


def rows(number: int = 0, many: int = 60) -> Encoded:
    rng = np.random.default_rng(number)
    x = rng.normal(size=(many, INPUTS))
    return Encoded(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), np.ones(many))


def start(model: Mlp = ONE) -> Arrays:
    return model.first_arrays(INPUTS, 1, np.random.default_rng(3))


def asked(model: Mlp, arrays: Arrays, plan: Plan = RULES["sgd"], number: int = 0) -> FitRequest:
    return FitRequest(
        model=model, task="binary", arrays=arrays, rows=rows(number), plan=plan, lr=plan.lr,
        rng=np.random.default_rng([1, number]), terms=(partial(proximal_gradient, mu=0.2),), delta=True,
    )  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_half_is_trained_as_a_network_of_half_the_units_would_be(rule: str):
    whole, plan = start(), RULES[rule]
    by_hand = {
        "weight-0": whole["weight-0"][:, :8], "bias-0": whole["bias-0"][:8],
        "weight-1": whole["weight-1"][:8], "bias-1": whole["bias-1"],
    }  # fmt: skip
    small = fit(asked(Mlp(hidden=(8,)), by_hand, plan)).arrays
    delta = widened(fit(narrowed(asked(ONE, whole, plan), 0.5)).arrays, whole)
    for name, part in small.items():
        inside = tuple(slice(length) for length in part.shape)
        assert np.array_equal(delta[name][inside], part) and part.any()
        outside = np.ones(delta[name].shape, bool)
        outside[inside] = False
        assert not delta[name][outside].any()  # exactly zero: a site changes only its own units
    # The units that it has move otherwise than in a fit of all: what the others add is not computed.
    assert not np.array_equal(fit(asked(ONE, whole, plan)).arrays["weight-0"][:, :8], small["weight-0"])


@pytest.mark.parametrize("model", [ONE, DEEP], ids=["one hidden layer", "two"])
def test_half_the_units_are_half_the_parameters_and_multiplications_of_training(model: Mlp):
    def cost(width: float) -> tuple[int, int]:
        request = narrowed(asked(model, start(model)), width)
        with FlopCounterMode(display=False) as counted:
            fit(replace(request, terms=()))
        return sum(value.size for value in request.arrays.values()), counted.get_total_flops()

    (all_parameters, all_products), (parameters, products) = cost(1.0), cost(0.5)
    assert parameters <= 0.52 * all_parameters and 0 < products <= 0.52 * all_products
    # Zeros in the places of the others, in place of a cut, would cost as much as all of them.
    zeroed = start(model) | {"weight-0": np.zeros_like(start(model)["weight-0"])}
    with FlopCounterMode(display=False) as counted:
        fit(replace(asked(model, zeroed), terms=()))
    assert counted.get_total_flops() == all_products


def test_all_units_are_the_request_itself_and_every_layer_keeps_one():
    request = asked(DEEP, start(DEEP))
    assert narrowed(request, 1.0) is request
    assert widened(request.arrays, request.arrays)["weight-0"] is request.arrays["weight-0"]
    shapes = {name: value.shape for name, value in submodel(DEEP, start(DEEP), 0.05).items()}
    assert shapes == {
        "weight-0": (INPUTS, 1), "bias-0": (1,), "weight-1": (1, 1), "bias-1": (1,), "weight-2": (1, 1), "bias-2": (1,)
    }  # fmt: skip


@pytest.mark.parametrize("model", [ONE, DEEP], ids=["one hidden layer", "two"])
def test_weak_and_other_sites_train_in_stacks_as_each_would_alone(model: Mlp):
    whole, widths = start(model), [1.0, 0.5, 0.5, 0.25, 1.0]

    def requests() -> list[FitRequest]:
        return [narrowed(asked(model, whole, number=number), width) for number, width in enumerate(widths)]

    alone = [fit(request).arrays for request in requests()]
    refused: list[FitRequest] = []
    together = fit_stacked(requests(), alone=lambda request: refused.append(request))
    assert not refused  # of one shape each: the stacks' own arithmetic
    for one, stacked in zip(alone, together, strict=True):
        for name, value in one.items():
            assert np.allclose(stacked.arrays[name], value, rtol=0, atol=1e-10)


def test_noise_of_protected_training_falls_on_the_sites_own_units_alone():
    steps = PrivateSteps(sampling=0.5, noise=1.0, clip=1.0, unit="row")
    plan = Plan(lr=0.1, batch=16, steps=4)
    request = replace(asked(ONE, start(), plan), private=steps, chance=SeededNoise(np.random.default_rng(4)))
    delta = widened(fit_one(narrowed(request, 0.5)).arrays, start())
    assert delta["weight-0"][:, :8].all() and not delta["weight-0"][:, 8:].any()
    assert delta["weight-1"][:8].all() and not delta["weight-1"][8:].any()


def outputs(model: Mlp, arrays: Arrays) -> np.ndarray:
    found: torch.Tensor = model.outputs({name: torch.tensor(value) for name, value in arrays.items()},
                                        torch.tensor(rows().x))  # fmt: skip
    return found.numpy()


@pytest.mark.parametrize("model", [ONE, DEEP], ids=["one hidden layer", "two"])
def test_at_the_start_every_sites_part_computes_what_the_whole_does(model: Mlp):
    drawn = start(model)
    first = nested_start(model, drawn, [1.0, 0.5, 0.25, 0.5])
    for width in (0.5, 0.25):
        assert np.allclose(outputs(model, submodel(model, first, width)), outputs(model, first), atol=1e-12)
        # As drawn, the units that nobody may train add noise.
        assert np.abs(outputs(model, submodel(model, drawn, width)) - outputs(model, drawn)).max() > 0.01
    last = f"weight-{len(model.hidden)}"
    assert first[last][:1].any() and not first[last][len(first[last]) // 2 :].any()
    assert all(np.array_equal(first[name], drawn[name]) for name in ("weight-0", "bias-0"))
    assert all(value is drawn[name] for name, value in nested_start(model, drawn, [1.0, 1.0]).items())


class Whole:
    """A model that names no layers."""

    tasks = ("binary",)
    linear = False
    penalised = ()
    intercept = ""

    def first_arrays(self, inputs: int, outputs: int, rng: np.random.Generator) -> Arrays:
        return {"weight": rng.normal(size=(inputs, outputs))}

    def outputs(self, arrays, x):
        return x @ arrays["weight"]


def test_what_cannot_be_trained_in_part_is_refused_by_the_site(small_sites, small_study: str):
    (site,) = small_sites(1, policy=Policy(disclosure="open", width=0.5))
    linear = Study.parse(small_study)
    network = linear.replace({"model.name": "mlp", "model.hidden": [16]})
    assert study_refusal(linear, site) is None  # no hidden units: trained whole
    assert study_refusal(network, site) is None
    middle = network.replace({"strategy.name": "median"})
    assert study_refusal(middle, site) == (
        "its policy lets it train a part of the hidden units (width), and strategy 'median' needs updates of the "
        "whole model"
    )
    assert study_refusal(middle, replace(site, policy=Policy(disclosure="open"))) is None
    with registry.lending("model", [Whole]):
        assert "is not known: it names no layers" in str(study_refusal(linear.replace({"model.name": "whole"}), site))


def test_the_check_of_a_site_says_which_part_it_trains(small_sites):
    for width, said in ((1.0, []), (0.5, ["the site trains the first 0.5 of the units of each hidden layer (width)"])):
        (site,) = small_sites(1, policy=Policy(disclosure="open", width=width))
        notes = [line.detail for line in check_site(site).lines if line.note and "hidden layer" in line.detail]
        assert [note.partition(",")[0] for note in notes] == said
