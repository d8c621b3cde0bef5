"""Protected fits of many sites as one: each equal to the fit done by itself, whatever the others draw."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.rows.features.encode import Encoded
from flfed.rows.models.linear import Linear
from flfed.rows.models.logistic import Logistic
from flfed.rows.models.mlp import Mlp
from flfed.rows.training.answer import compute_stacked, fit_one, fit_stacked, program_of, stacked_compute
from flfed.rows.training.batches import BufferPool, pack
from flfed.rows.training.fit import fit
from flfed.rows.training.private_fit import fit_by_row, fit_private_stack, private_fit
from flfed.rows.training.private_noise import SeededNoise, SystemNoise
from flfed.rows.training.requests import Failed, FitRequest, Fitted
from flfed.study.plan import Plan, PrivateSteps
from flfed.updates.strategies.fedprox import proximal_gradient
from tests.rows.drawn import distance

TASKS = ("binary", "multi-class", "regression")
MODELS = {"linear": Linear(start="uniform"), "mlp": Mlp(hidden=(6, 1, 4))}
SIZES = [61, 33, 17, 16, 9, 1, 1]
PRIVATE = PrivateSteps(clip=0.7, noise=0.8, sampling=0.3)
NEAR = 1e-8
"""Between two ways whose sums differ in the last bit: a number of the grid of 2^-28, moved by the next steps too."""
RULES = {
    "sgd": {}, "sgd with l2 and l1": {"l2": 0.05, "l1": 0.01}, "a term": {"mu": 0.5},
    "momentum": {"momentum": 0.9, "lr": 0.01},
    "adam with all": {"optimiser": "adam", "l1": 0.01, "l2": 0.05, "clip": 0.2, "mu": 0.5, "lr": 0.01},
    "adamw": {"optimiser": "adamw", "weight_decay": 0.1, "lr": 0.01},
}  # fmt: skip


class Doubled(Logistic):
    """A model of its own making: its outputs are not those of the layers that it inherits."""

    def outputs(self, arrays, x):
        return 2 * super().outputs(arrays, x)


def table(task: str, rows: int, seed: int) -> Encoded:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)) + 0.3
    y = x @ np.linspace(1, -1, 4) + rng.normal(size=rows)
    if task != "regression":
        y = np.digitize(y, [0.4] if task == "binary" else [-1.0, 1.0]).astype(np.int64)
    group = rng.integers(0, 1 + rows // 2, rows) if seed % 3 else None  # a third of the sites have single rows
    return Encoded(x, y, rng.uniform(0.5, 2, rows), group)


def asked(
    task, model, *, sizes=SIZES, private=PRIVATE, precision="float64", mu=0.0, seed=0, **keys
) -> list[FitRequest]:
    """Ask each site for a fit from a start of its own; learning rates and sizes of l2 differ from site to site."""
    plan = Plan(**{"steps": 4, "lr": 0.05, "precision": precision, **keys})
    found = []
    for place, rows in enumerate(sizes):
        rng = np.random.default_rng([seed, place])
        arrays = model.first_arrays(4, 3 if task == "multi-class" else 1, rng)
        found.append(FitRequest(
            model=model, task=task, arrays={n: (v + 0.1 * place).astype(precision) for n, v in arrays.items()},
            rows=table(task, rows, place), plan=replace(plan, l2=plan.l2 * (1 + place)), lr=plan.lr * (1 + place / 10),
            rng=rng, chance=SeededNoise(rng), private=private, delta=bool(seed % 2),
            terms=(partial(proximal_gradient, mu=mu),) if mu else (),
        ))  # fmt: skip
    return found


def furthest(alone: list[Fitted], stacked: list[Fitted]) -> float:
    return max(distance(a, b) for a, b in zip(alone, stacked, strict=True))


# Each task with one kind of model; the other pairs with the slow tests.
QUICK = {("binary", "mlp"), ("multi-class", "linear"), ("regression", "linear")}
SLOW = [pytest.mark.slow, pytest.mark.studies]
TASKS_AND_MODELS = [
    pytest.param(task, model, marks=() if (task, model) in QUICK else SLOW) for task in TASKS for model in MODELS
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("task", "model"), TASKS_AND_MODELS)
def test_a_stack_gives_what_each_gives_alone(task, model, rule):
    still = {"seed": list(RULES).index(rule), "private": replace(PRIVATE, noise=0.0), **RULES[rule]}
    bare = fit_stacked(asked(task, MODELS[model], **still))
    for way in (private_fit, fit_by_row):
        assert furthest([way(request) for request in asked(task, MODELS[model], **still)], bare) < 1e-10
    keys = {"seed": list(RULES).index(rule), **RULES[rule]}
    one, other = (asked(task, MODELS[model], **keys) for _ in range(2))
    assert len({program_of(request) for request in one}) == 1 and program_of(one[0]) is not None
    stacked = fit_stacked(other)
    assert furthest([private_fit(request) for request in one], stacked) < NEAR
    # And what autograd gives row by row, moved by the steps of named tensors.
    assert furthest([fit_by_row(request) for request in asked(task, MODELS[model], **keys)], stacked) < NEAR
    for a, b in zip(one, other, strict=True):
        assert a.rng.random() == b.rng.random()  # as many draws
    # And other draws give others: what is compared is not all zeros.
    others = fit_stacked(asked(task, MODELS[model], **keys | {"seed": 50 + keys["seed"]}))
    assert min(distance(a, b) for a, b in zip(stacked, others, strict=True)) > 1e-3


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), sampling=st.sampled_from([1e-9, 0.02, 0.4, 1.0]),
    unit=st.sampled_from(["row", "person"]), noise=st.sampled_from([0.0, 1.1]), task=st.sampled_from(TASKS),
    block=st.sampled_from([1, 2000, 2**22]),
)  # fmt: skip
def test_samples_of_any_sizes_and_none_train_together_as_alone(sizes, sampling, unit, noise, task, block):
    private = PrivateSteps(clip=0.4, noise=noise, sampling=sampling, unit=unit)
    lr = 0.05 if sampling > 1e-3 else 1e-10  # an empty sample's noise is over next to nothing
    one, other = (asked(task, MODELS["mlp"], sizes=sizes, private=private, lr=lr) for _ in range(2))
    packed = pack([request.rows for request in other], task, torch.float64)
    with torch.inference_mode():
        stacked = fit_private_stack(other, packed, BufferPool(), block_bytes=block)
    assert furthest([fit_by_row(request) for request in one], stacked) < (NEAR if noise else 1e-10)


@pytest.mark.parametrize("model", MODELS)
def test_float32_stays_near(model):
    one, other = (asked("binary", MODELS[model], precision="float32") for _ in range(2))
    stacked = fit_stacked(other)
    assert 0 < furthest([fit_by_row(request) for request in one], stacked) < 1e-5
    assert all(value.dtype == np.float32 for fitted in stacked for value in fitted.arrays.values())


def test_a_result_does_not_depend_on_who_else_is_in_the_stack():
    whole = fit_stacked(asked("multi-class", MODELS["mlp"]))
    for chosen in ([6, 0, 3], [2], [5, 4, 3, 2, 1, 0]):
        again = asked("multi-class", MODELS["mlp"])
        found = fit_stacked([again[place] for place in chosen])
        assert furthest([whole[place] for place in chosen], found) < NEAR


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_add_nothing_and_touch_nobody(model, value):
    healthy = fit_stacked(asked("regression", MODELS[model]))
    requests = asked("regression", MODELS[model])
    sick = requests[1].rows
    x, weight = sick.x.copy(), sick.weight.copy()
    x[::3], weight[::3] = value, 1.0
    requests[1] = replace(requests[1], rows=replace(sick, x=x, weight=weight))
    found = fit_stacked(requests)
    weight = np.where(np.arange(33) % 3, sick.weight, 0)  # the same rows sampled, those with a gradient of 0
    without = replace(asked("regression", MODELS[model])[1], rows=replace(sick, weight=weight))
    assert distance(found[1], fit_by_row(without)) < NEAR and distance(found[1], healthy[1]) > 1e-6
    assert (
        furthest([healthy[place] for place in (0, 2, 3, 4, 5, 6)], [found[place] for place in (0, 2, 3, 4, 5, 6)]) == 0
    )


def test_arrays_that_are_not_finite_give_what_they_give_alone_and_leave_the_others_as_they_are():
    healthy = fit_stacked(asked("binary", MODELS["mlp"]))
    both = []
    for _ in range(2):
        requests = asked("binary", MODELS["mlp"])
        broken = {n: np.where(np.arange(v.shape[-1]) == 0, -np.inf, v) for n, v in requests[2].arrays.items()}
        requests[2] = replace(requests[2], arrays=broken)
        both.append(requests)
    alone, stacked = fit_by_row(both[0][2]), fit_stacked(both[1])
    for name, value in alone.arrays.items():
        np.testing.assert_allclose(stacked[2].arrays[name], value, rtol=1e-10, atol=NEAR)
    assert furthest(healthy[:2] + healthy[3:], stacked[:2] + stacked[3:]) == 0


def test_what_differs_in_its_promise_is_no_stack_and_plain_fits_are_others():
    first = asked("binary", Logistic(), sizes=[20])[0]
    changes = [{}, {"noise": 0.9}, {"clip": 0.8}, {"sampling": 0.4}, {"unit": "row"}]
    requests = [replace(first, private=replace(PRIVATE, **change)) for change in changes]
    requests += [replace(first, private=None), replace(first, private=replace(PRIVATE))]
    programs = [program_of(request) for request in requests]
    assert len(set(programs)) == 6 and programs[0] == programs[-1] and None not in programs
    cannot = [{"chance": None}, {"plan": Plan()}, {"model": Doubled()}, {"rows": first.rows.take(np.arange(0))}]
    assert [program_of(replace(first, **change)) for change in cannot] == [None] * 4


def test_a_cohort_of_all_kinds_is_answered_in_order_and_packed_once():
    answer, plain = stacked_compute(), {"private": None, "chance": None}
    for seed in (0, 1):

        def cohort(seed: int = seed) -> list[FitRequest]:
            found = asked("binary", Logistic(), seed=seed, l2=0.01)
            more = [replace(request, **plain) for request in asked("binary", Logistic(), seed=seed + 9)]
            own = asked("binary", Doubled(), seed=seed, sizes=[30, 12])
            empty = replace(own[0], rows=own[0].rows.take(np.arange(0)))
            return [part for pair in zip(found, more, strict=True) for part in pair] + [*own, empty]

        found = answer(cohort())
        assert furthest([fit_one(request) for request in cohort()], found) < NEAR
        assert [fitted.steps for fitted in found] == [4] * 16 + [0]


@pytest.mark.parametrize("ways", [("private", "private", "private"), ("private", "plain", "private")])
def test_requests_that_draw_from_one_generator_draw_in_their_order(ways):
    found = []
    for answer in (lambda requests: [fit_one(request) for request in requests], fit_stacked, compute_stacked):
        rng, requests = np.random.default_rng(3), []
        for request, way in zip(asked("binary", Logistic(), sizes=[12, 30, 20], batch=4), ways, strict=True):
            plain = {"private": None, "chance": None}
            requests.append(replace(request, rng=rng, **(plain if way == "plain" else {"chance": SeededNoise(rng)})))
        found.append(answer(requests))
    assert furthest(found[0], found[1]) == furthest(found[0], found[2]) == 0


def test_the_systems_chance_stacks_even_where_sites_share_it_and_gives_each_its_own_noise():
    chance = SystemNoise()
    requests = [replace(r, chance=chance, arrays={n: np.zeros_like(v) for n, v in r.arrays.items()})
                for r in asked("binary", Logistic(), sizes=[20, 20], seed=1)]  # fmt: skip
    alike = [replace(request, rows=requests[0].rows, lr=0.1) for request in requests]

    def refused(request: FitRequest) -> Fitted:
        raise AssertionError("done by itself")

    one, other = fit_stacked(alike, alone=refused)
    again, _ = fit_stacked(alike, alone=refused)
    numbers = np.concatenate([fitted.arrays["weight"].ravel() for fitted in (one, other, again)])
    assert len(np.unique(numbers)) == 12


def only_alone(w, anchor):
    """Pull towards the anchor, and fail where there is more than one site."""
    if len(w) > 1 and w.dim() > 1:
        raise RuntimeError("more than one site")
    return w - anchor


def test_after_a_failure_each_draws_as_if_it_had_been_alone_at_once():
    def cohort() -> list[FitRequest]:
        found = [replace(request, terms=(only_alone,)) for request in asked("binary", Logistic(), sizes=[20, 12, 30])]
        apart = SeededNoise(np.random.default_rng(77))  # a chance that is not the request's generator
        wrong = {**found[1].arrays, "weight": np.zeros((3, 1))}
        return [found[0], replace(found[1], arrays=wrong), replace(found[2], chance=apart)]

    with pytest.raises(RuntimeError, match="more than one site"):
        fit_stacked(cohort()[::2])
    found, again = compute_stacked(cohort()), cohort()
    assert isinstance(found[1], Failed)
    assert distance(found[0], private_fit(again[0])) == distance(found[2], private_fit(again[2])) == 0


def test_with_everybody_no_noise_and_no_clip_a_stack_is_the_plain_fit_on_all_rows():
    everyone = PrivateSteps(clip=1e9, noise=0.0, sampling=1.0, unit="row")
    for task, model in (("binary", "mlp"), ("multi-class", "linear")):
        keys = {"private": everyone, "batch": 0, "momentum": 0.5, "lr": 0.02}
        plain = [fit(replace(request, private=None)) for request in asked(task, MODELS[model], **keys)]
        assert furthest(plain, fit_stacked(asked(task, MODELS[model], **keys))) < 1e-12


def test_a_constant_gradient_is_added_to_the_noisy_sum_alone_and_in_a_stack():
    one, other = (
        [
            replace(request, correction={name: np.full_like(value, 0.2) for name, value in request.arrays.items()})
            for request in asked("binary", Logistic(), sizes=[20, 12, 30])
        ]
        for _ in range(2)
    )
    stacked = fit_stacked(other)
    assert furthest([fit_by_row(request) for request in one], stacked) < NEAR
    assert furthest(fit_stacked(asked("binary", Logistic(), sizes=[20, 12, 30])), stacked) > 1e-3
