"""The training plan: what it refuses, by name, and how the learning rate goes over the rounds."""

import inspect
import math
from dataclasses import fields

import pytest
import torch

from flfed.errors import UsageError
from flfed.study.plan import Plan

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(("key", "values"), [
    ("lr", [0.0, -0.1, INF, NAN]), ("momentum", [-0.1, 1.0, NAN]), ("weight_decay", [-1e-9, INF, NAN]),
    ("batch", [-1]), ("epochs", [0]), ("steps", [-1]), ("l1", [-0.1, INF, NAN]), ("l2", [-0.1, INF, NAN]),
    ("clip", [-1.0, INF, NAN]), ("validation", [-0.1, 1.0, NAN]), ("plateau_patience", [0]),
])  # fmt: skip
def test_a_value_out_of_its_range_is_refused_with_key_value_and_rule(key, values):
    for value in values:
        with pytest.raises(UsageError) as caught:
            Plan(**{key: value})
        text = str(caught.value)
        assert text.startswith(f"[plan]: {key.replace('_', '-')}={value} must be "), text


def test_the_ends_of_the_ranges_are_allowed():
    Plan(momentum=0.0, batch=0, steps=0, l1=0.0, l2=0.0, clip=0.0, validation=0.0, weight_decay=0.0)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UsageError, match="momentum is for optimiser 'sgd', not 'adam'"):
        Plan(optimiser="adam", momentum=0.9)
    with pytest.raises(UsageError, match="reads validation rows: set validation"):
        Plan(schedule="plateau")
    assert Plan(schedule="plateau", validation=0.2).schedule == "plateau"


def test_every_attribute_is_documented():
    lines = [line.partition(" : ")[0] for line in inspect.getdoc(Plan).splitlines() if " : " in line]
    assert {name for line in lines for name in line.split(", ")} == {field.name for field in fields(Plan)}


@pytest.mark.parametrize("rounds", [1, 2, 7, 40])
def test_a_cosine_schedule_is_that_of_torch(rounds):
    plan, weight = Plan(schedule="cosine", lr=0.3), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=rounds)
    for number in range(1, rounds + 1):
        assert plan.lr * plan.factor(number, rounds) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        assert plan.factor(number, rounds) > 0  # no round is for nothing
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(("given", "rows", "size", "steps"), [
    ({"batch": 32}, 100, 32, 4), ({"batch": 32, "epochs": 3}, 96, 32, 9), ({"batch": 32}, 20, 20, 1),
    ({"batch": 0, "epochs": 2}, 100, 100, 2), ({"batch": 32, "epochs": 3, "steps": 5}, 100, 32, 5),
    ({"batch": 32, "steps": 5}, 0, 0, 0),
])  # fmt: skip
def test_steps_follow_from_rows_and_batch_unless_the_plan_fixes_them(given, rows, size, steps):
    assert (Plan(**given).batch_size(rows), Plan(**given).steps_a_round(rows)) == (size, steps)


def test_a_constant_schedule_and_the_sites_side_of_a_plateau_change_nothing():
    for plan in (Plan(), Plan(schedule="plateau", validation=0.1)):
        assert {plan.factor(number, 9) for number in range(1, 10)} == {1.0}
