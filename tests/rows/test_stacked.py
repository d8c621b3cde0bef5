"""Fits of many sites as one: each equal to the fit done by itself, whatever the others hold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flfed.rows.features.encode import Encoded
from flfed.rows.models.linear import Linear
from flfed.rows.models.logistic import Logistic
from flfed.rows.models.mlp import Mlp
from flfed.rows.training.answer import CHUNK, fit_stacked, program_of
from flfed.rows.training.fit import fit
from flfed.rows.training.requests import FitRequest, Fitted
from flfed.study.plan import Plan
from flfed.updates.strategies.fedprox import proximal_gradient
from tests.rows.drawn import distance

TASKS = ("binary", "multi-class", "regression")
MODELS = {"linear": Linear(start="uniform"), "mlp": Mlp(hidden=(6, 1, 4))}
OUTPUTS = {"regression": 1, "binary": 1, "multi-class": 3}
EQUAL, UNEQUAL = [20] * 4, [61, 33, 17, 16, 9, 1]
FIXED = {"batch": 8, "lr": 0.05}
RULES = {
    "sgd": {}, "sgd with l2": {"l2": 0.05}, "sgd with l1": {"l1": 0.01}, "sgd with a clip": {"clip": 0.3},
    "sgd with a term": {"mu": 0.5}, "momentum": {"momentum": 0.9, "lr": 0.01},
    "momentum with l1 and l2": {"momentum": 0.5, "l1": 0.01, "l2": 0.05, "lr": 0.02},
    "adam": {"optimiser": "adam", "lr": 0.01},
    "adam with all": {"optimiser": "adam", "l1": 0.01, "l2": 0.05, "clip": 0.2, "mu": 0.5, "lr": 0.01},
    "adamw": {"optimiser": "adamw", "weight_decay": 0.1, "lr": 0.01},
}  # fmt: skip
COURSES = {
    "an epoch": {}, "three epochs": {"epochs": 3}, "steps": {"steps": 7}, "rows one by one": {"batch": 1},
    "all rows": {"batch": 0, "epochs": 2}, "all rows in steps": {"batch": 0, "steps": 3},
    "more than all rows": {"batch": 1000, "epochs": 2},
}  # fmt: skip


def table(task: str, rows: int, seed: int = 0, weighted: bool = True) -> Encoded:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)) + 0.3
    signal = x @ np.linspace(1, -1, 4) + rng.normal(size=rows)
    if task == "regression":
        return Encoded(x, signal, np.where(signal > 0, 1.8, 0.6) if weighted else np.ones(rows))
    y = np.digitize(signal, [0.4] if task == "binary" else [-1.0, 1.0]).astype(np.int64)
    return Encoded(x, y, np.array([0.6, 1.8, 1.4])[y] if weighted else np.ones(rows))


def tables(task: str, sizes: list[int], weighted: bool = True) -> list[Encoded]:
    return [table(task, rows, seed, weighted) for seed, rows in enumerate(sizes)]


def start(task: str, model, precision: str = "float64") -> dict[str, np.ndarray]:
    arrays = model.first_arrays(4, OUTPUTS[task], np.random.default_rng(9))
    return {name: value.astype(precision) for name, value in arrays.items()}


def asked(task, model, rows, arrays, plan, *, number=0, terms=()) -> list[FitRequest]:
    """Ask each site for a fit; learning rates differ from site to site."""
    arrays = arrays if isinstance(arrays, list) else [arrays] * len(rows)
    return [
        FitRequest(model=model, task=task, arrays=before, rows=site, plan=plan, lr=plan.lr * (1 + place / 10),
                   rng=np.random.default_rng([number, place]), terms=terms)
        for place, (site, before) in enumerate(zip(rows, arrays, strict=True))
    ]  # fmt: skip


def plan_of(mu: float = 0.0, **keys) -> tuple[Plan, tuple]:
    # A new partial for each plan, as each site makes its own.
    return Plan(**{**FIXED, **keys}), (partial(proximal_gradient, mu=mu),) if mu else ()


def mean_of(found: list[Fitted]) -> dict[str, np.ndarray]:
    return {name: np.mean([each.arrays[name] for each in found], axis=0) for name in found[0].arrays}


def rounds_apart(task, model, sizes, rounds, *, precision="float64", **keys) -> tuple[float, float]:
    """Run rounds of averaging both ways; return the largest distance in a round, and of the last losses."""
    (plan, terms), rows = plan_of(precision=precision, **keys), tables(task, sizes)
    alone = stacked = start(task, model, precision)
    worst = last = 0.0
    for number in range(rounds):
        one = [fit(request) for request in asked(task, model, rows, alone, plan, number=number, terms=terms)]
        all_ = fit_stacked(asked(task, model, rows, stacked, plan, number=number, terms=terms))
        worst = max(worst, *(distance(a, b) for a, b in zip(one, all_, strict=True)))
        last = max(abs(a.loss - b.loss) for a, b in zip(one, all_, strict=True))
        alone, stacked = mean_of(one), mean_of(all_)
    assert max(np.abs(alone[name] - start(task, model)[name]).max() for name in alone) > 1e-5  # something was learned
    return worst, last


@pytest.mark.parametrize("place, rule", list(enumerate(RULES)))
def test_each_rule_gives_after_rounds_what_it_gives_one_by_one(place, rule):
    # Each rule with another task, model and course; all with all are below, and take longer.
    task, model = TASKS[place % 3], MODELS["mlp" if place % 2 else "linear"]
    course = list(COURSES.values())[place % len(COURSES)]
    worst, _ = rounds_apart(task, model, UNEQUAL, 4, **{**course, **RULES[rule]})
    assert worst < 1e-10


@pytest.mark.studies
@pytest.mark.parametrize("sizes", [pytest.param(EQUAL, marks=pytest.mark.proof), UNEQUAL])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_after_twenty_rounds_what_it_gives_one_by_one(rule, task, model, sizes):
    keys = {**RULES[rule], "lr": RULES[rule].get("lr", 0.05) / (5 if task == "regression" else 1)}
    assert rounds_apart(task, MODELS[model], sizes, 20, **keys)[0] < 1e-10


@pytest.mark.parametrize("course", COURSES)
@settings(max_examples=4, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), rule=st.sampled_from(sorted(RULES)),
    task=st.sampled_from(TASKS), weighted=st.booleans(),
)  # fmt: skip
def test_sites_of_any_sizes_train_together_as_alone(course, sizes, rule, task, weighted):
    plan, terms = plan_of(**{**RULES[rule], **COURSES[course]})
    rows, before = tables(task, sizes, weighted), start(task, MODELS["mlp"])
    both = [asked(task, MODELS["mlp"], rows, before, plan, terms=terms) for _ in range(2)]
    for one, other in zip(map(fit, both[0]), fit_stacked(both[1]), strict=True):
        assert distance(one, other) < 1e-10
    for one, other in zip(*both, strict=True):
        assert one.rng.random() == other.rng.random()  # as many draws, so that what follows is the same too


@pytest.mark.proof
@pytest.mark.studies
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.floats(0, 6).map(lambda size: int(np.exp(size))), min_size=1, max_size=12),
    course=st.sampled_from(sorted(COURSES)), rule=st.sampled_from(sorted(RULES)), task=st.sampled_from(TASKS),
    model=st.sampled_from(sorted(MODELS)),
)  # fmt: skip
def test_rounds_of_sites_of_log_normal_sizes_give_what_they_give_one_by_one(sizes, course, rule, task, model):
    keys = {**RULES[rule], **COURSES[course]}
    assert rounds_apart(task, MODELS[model], sizes, 3, **{**keys, "lr": 0.01})[0] < 1e-10


@pytest.mark.parametrize("model", MODELS)
def test_float32_stays_near_after_three_rounds(model):
    worst, _ = rounds_apart("binary", MODELS[model], UNEQUAL, 3, precision="float32")
    assert worst < 1e-5
    _, last = rounds_apart("binary", MODELS[model], UNEQUAL, 3, precision="float32", **RULES["adam"])
    assert last < 1e-4


def test_a_full_batch_step_is_the_gradient_written_out():
    # X'(w * (p - y)) / n, and its column sums for the intercept
    rows, before = tables("binary", [7, 5]), start("binary", MODELS["linear"])
    found = fit_stacked(asked("binary", Logistic(), rows, before, Plan(batch=0, lr=0.3)))
    for place, (site, fitted) in enumerate(zip(rows, found, strict=True)):
        p = 1 / (1 + np.exp(-(site.x @ before["weight"] + before["bias"])))
        residual = site.weight[:, None] * (p - site.y[:, None]) / len(site)
        step = 0.3 * (1 + place / 10)
        np.testing.assert_allclose(fitted.arrays["weight"], before["weight"] - step * site.x.T @ residual, atol=1e-14)
        np.testing.assert_allclose(fitted.arrays["bias"], before["bias"] - step * residual.sum(axis=0), atol=1e-14)
        loss = -np.log(np.where(site.y[:, None] == 1, p, 1 - p))
        assert fitted.loss == pytest.approx((site.weight[:, None] * loss).mean(), rel=1e-13)


@pytest.mark.parametrize("rule", ["sgd", "adam with all"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_at_one_site_stays_there(value, rule):
    (plan, terms), rows, model = plan_of(**RULES[rule]), tables("regression", UNEQUAL), MODELS["mlp"]
    before = start("regression", model)
    healthy = fit_stacked(asked("regression", model, rows, before, plan, terms=terms))
    for sick in (0, 3, 5):
        spoilt = [site if place != sick else Encoded(site.x * value, site.y, site.weight)
                  for place, site in enumerate(rows)]  # fmt: skip
        found = fit_stacked(asked("regression", model, spoilt, before, plan, terms=terms))
        for place in range(len(rows)):
            if place == sick:
                assert np.isnan(found[place].loss)
            else:
                assert distance(found[place], healthy[place]) == 0


@pytest.mark.parametrize("model, weight, unit", [("mlp", "weight-0", 2), ("linear", "weight", 0)])
@pytest.mark.parametrize("task", TASKS)
def test_arrays_that_are_not_finite_give_what_they_give_alone(task, model, weight, unit):
    # A dead unit, or a class that cannot be: rows go through its -inf, and rows that are none would make NaN of it.
    rows, before = tables(task, [13, 12, 9, 10]), start(task, MODELS[model])
    rows = [Encoded(np.abs(site.x) + 0.1, site.y, site.weight) for site in rows]
    broken = {name: value.copy() for name, value in before.items()}
    broken[weight][:, unit] = -np.inf
    arrays = [before, before, broken, broken]
    one = [fit(request) for request in asked(task, MODELS[model], rows, arrays, Plan(**FIXED))]
    all_ = fit_stacked(asked(task, MODELS[model], rows, arrays, Plan(**FIXED)))
    for a, b in zip(one, all_, strict=True):
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-12)  # also inf is inf and NaN is NaN
        for name in before:
            np.testing.assert_allclose(a.arrays[name], b.arrays[name], rtol=1e-11, atol=1e-13)


def test_a_result_does_not_depend_on_who_else_is_in_the_stack():
    plan, model = Plan(**FIXED, momentum=0.5, clip=0.5), MODELS["mlp"]
    rows, before = tables("multi-class", [30, 5, 64, 8, 9, 41, 40]), start("multi-class", model)
    for chosen in ([0, 1, 2, 3, 4, 5, 6], [6, 4, 2, 0, 5, 3, 1], [3], [1, 2], [6, 5]):
        all_ = asked("multi-class", model, rows, before, plan)
        found = fit_stacked([all_[place] for place in chosen])
        again = asked("multi-class", model, rows, before, plan)
        for place, fitted in zip(chosen, found, strict=True):
            assert distance(fitted, fit_stacked([again[place]])[0]) < 1e-12


def test_programs_are_told_apart_and_come_back_in_order():
    rows = table("binary", 21)
    rules = [{}, {"l2": 0.1}, {"l2": 1.0}, {"momentum": 0.9}, {"batch": 0}, {"steps": 2}, {"mu": 1.0}, {"mu": 3.0}]
    kinds = [(model, plan_of(**keys)) for model in MODELS.values() for keys in rules]

    def all_of() -> list[FitRequest]:
        return [
            FitRequest(model=model, task="binary", arrays=start("binary", model), rows=rows, plan=plan, lr=0.05,
                       rng=np.random.default_rng(place), terms=terms)
            for place, (model, (plan, terms)) in enumerate(kinds * 2)
        ]  # fmt: skip

    # One program for two penalties, one for two partials of the same term.
    assert len({program_of(request) for request in all_of()}) == len(kinds) - len(MODELS)
    for one, other in zip(map(fit, all_of()), fit_stacked(all_of()), strict=True):
        assert distance(one, other) < 1e-12


def test_hidden_layers_of_other_and_of_equal_widths_do_not_write_into_each_others_room():
    # The widest first: the others then find memory that it has written to.
    rows, plan, models = table("binary", 21), Plan(**FIXED), [Mlp(hidden=h) for h in ((9, 9), (4, 4), (5,), (2, 7))]
    both = [[asked("binary", m, [rows], start("binary", m), plan)[0] for m in models * 2] for _ in range(2)]
    for one, other in zip(map(fit, both[0]), fit_stacked(both[1]), strict=True):
        assert distance(one, other) < 1e-12


def test_what_is_known_of_the_same_arrays_and_plan_holds_for_the_same_inputs_task_and_model_alone():
    rows, plan, other = table("binary", 21), Plan(**FIXED), Plan(**FIXED, l2=0.1)
    before = start("binary", Linear())
    wide = Encoded(np.ones((21, 5)), rows.y, rows.weight)
    first = asked("binary", Linear(start="uniform"), [rows], before, plan, terms=plan_of(mu=1.0)[1])[0]
    changes: list[dict] = [
        {}, {"plan": other}, {"task": "regression"}, {"task": "multi-class"}, {"rows": wide}, {"terms": ()},
        {"terms": plan_of(mu=2.0)[1]}, {"delta": True}, {"model": Mlp(hidden=(3,))}, {"model": Doubled()},
        {"rows": rows.take(np.arange(0))}, {"arrays": {**before, "weight": before["weight"][:3]}},
        {"plan": Plan(**FIXED), "terms": plan_of(mu=1.0)[1]},
    ]  # fmt: skip
    requests, known = [replace(first, **change) for change in changes], {}
    afresh = [program_of(request) for request in requests]
    assert [program_of(request, known) for request in requests * 2] == afresh * 2
    assert [one is None for one in afresh] == [False] * 4 + [True] + [False] * 3 + [True] * 4 + [False]
    assert len(set(afresh)) == 8 and afresh[0] == afresh[-1]


class Doubled(Logistic):
    """A model of its own making: its outputs are not those of the layers that it inherits."""

    def outputs(self, arrays, x):
        return 2 * super().outputs(arrays, x)


def test_what_cannot_be_stacked_is_fitted_by_itself():
    before, plan = start("binary", MODELS["linear"]), Plan(**FIXED)
    rows = [table("binary", 12), table("binary", 3).take(np.arange(0)), table("binary", 10, seed=1)]
    requests = asked("binary", Logistic(), rows, before, plan) + asked("binary", Doubled(), rows[:1], before, plan)
    assert [program_of(request) is None for request in requests] == [False, True, False, True]
    found = fit_stacked(requests)
    again = asked("binary", Logistic(), rows, before, plan) + asked("binary", Doubled(), rows[:1], before, plan)
    for one, other in zip(map(fit, again), found, strict=True):
        assert distance(one, other) < 1e-14
    assert found[1].steps == 0 and distance(found[0], Fitted(arrays=found[3].arrays, steps=2, loss=0)) > 1e-3


def test_arrays_that_do_not_fit_the_rows_are_refused_as_alone():
    rows, plan = table("binary", 12), Plan(**FIXED)
    wrong = {**start("binary", MODELS["linear"]), "weight": np.zeros((3, 1))}
    with pytest.raises(RuntimeError) as alone:
        fit(asked("binary", Logistic(), [rows], wrong, plan)[0])
    with pytest.raises(RuntimeError) as stacked:
        fit_stacked(asked("binary", Logistic(), [rows], wrong, plan))
    assert str(alone.value) == str(stacked.value)


def test_requests_that_draw_from_one_generator_draw_in_their_order():
    rows, before = tables("binary", [12, 30, 20]), start("binary", MODELS["linear"])
    found = []
    for way in (lambda requests: [fit(request) for request in requests], fit_stacked):
        rng = np.random.default_rng(3)
        found.append(way([
            FitRequest(model=Logistic(), task="binary", arrays=before, rows=site, plan=Plan(**FIXED), lr=0.1, rng=rng)
            for site in rows
        ]))  # fmt: skip
    for one, other in zip(*found, strict=True):
        assert distance(one, other) < 1e-14


def test_results_are_arrays_of_their_own_and_nothing_that_was_given_is_changed():
    rows, before = tables("binary", [12, 30]), start("binary", MODELS["mlp"])
    x, kept = [site.x.copy() for site in rows], {name: value.copy() for name, value in before.items()}
    for site in rows:
        site.x.flags.writeable = False
    found = fit_stacked(asked("binary", MODELS["mlp"], rows, before, Plan(**FIXED, precision="float32")))
    parts = [value for fitted in found for value in fitted.arrays.values()]
    assert all(part.dtype == np.float32 and part.flags.c_contiguous for part in parts)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(parts) for b in [*parts[:i], *before.values()])
    first = parts[0].copy()
    fit_stacked(asked("binary", MODELS["mlp"], rows, before, Plan(**FIXED, precision="float32"), number=1))
    np.testing.assert_array_equal(parts[0], first)
    assert all(np.array_equal(before[name], kept[name]) for name in before)
    assert all(np.array_equal(site.x, values) for site, values in zip(rows, x, strict=True))


def test_more_sites_than_a_stack_holds_are_several_stacks():
    rows, before = tables("binary", [3 + place % 5 for place in range(2 * CHUNK + 7)]), start("binary", Logistic())
    found = fit_stacked(asked("binary", Logistic(), rows, before, Plan(lr=0.1, batch=4)))
    for place in (0, 1, CHUNK, 2 * CHUNK, 2 * CHUNK + 6):
        one = fit(asked("binary", Logistic(), rows, before, Plan(lr=0.1, batch=4))[place])
        assert distance(one, found[place]) < 1e-13


def corrected(requests: list[FitRequest], names: set[str]) -> list[FitRequest]:
    """Give each site a constant gradient of its own for some arrays."""
    found = []
    for place, request in enumerate(requests):
        rng = np.random.default_rng([7, place])
        constant = {name: rng.normal(size=value.shape) for name, value in request.arrays.items() if name in names}
        found.append(replace(request, correction=constant))
    return found


@pytest.mark.parametrize("rule", ["sgd", "sgd with a clip", "momentum with l1 and l2", "adam with all"])
@pytest.mark.parametrize("model", MODELS)
def test_each_site_may_have_a_constant_gradient_of_its_own(rule: str, model: str):
    (plan, terms), rows = plan_of(**RULES[rule]), tables("binary", UNEQUAL)
    before = start("binary", MODELS[model])
    for names in (set(before), {min(before)}):  # of all arrays, or of one
        both = [corrected(asked("binary", MODELS[model], rows, before, plan, terms=terms), names) for _ in range(2)]
        one, all_ = [fit(request) for request in both[0]], fit_stacked(both[1])
        assert len({program_of(request) for request in both[1]}) == 1
        assert max(distance(a, b) for a, b in zip(one, all_, strict=True)) < 1e-12
        plain = fit_stacked(asked("binary", MODELS[model], rows, before, plan, terms=terms))
        assert max(distance(a, b) for a, b in zip(all_, plain, strict=True)) > 1e-3


def test_a_constant_gradient_is_added_to_that_of_the_loss():
    rows, plan = tables("binary", EQUAL), Plan(batch=0, steps=1, lr=0.3)
    before = start("binary", MODELS["linear"])
    plain = fit_stacked(asked("binary", MODELS["linear"], rows, before, plan))
    requests = corrected(asked("binary", MODELS["linear"], rows, before, plan), set(before))
    for request, found, without in zip(requests, fit_stacked(requests), plain, strict=True):
        for name, value in found.arrays.items():
            expected = without.arrays[name] - request.lr * request.correction[name]
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-14)
