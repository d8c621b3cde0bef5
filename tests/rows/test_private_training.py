"""One protected step: rows clipped one by one, by layer or by row, and what one row or person can move."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from flfed.errors import UsageError
from flfed.rows.features.encode import Encoded
from flfed.rows.models.linear import Linear
from flfed.rows.models.logistic import Logistic
from flfed.rows.models.mlp import Mlp
from flfed.rows.training.answer import compute_one_by_one
from flfed.rows.training.fit import fit, gradient
from flfed.rows.training.functional import row_losses
from flfed.rows.training.private_fit import clipped_by_row, fit_by_row, private_fit
from flfed.rows.training.private_noise import SeededNoise, drawn_steps
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps
from flfed.updates.strategies.fedprox import proximal_gradient
from tests.rows.drawn import distance

SHAPES = {
    "logistic": (Logistic(), "binary", 1), "mlp": (Mlp(hidden=(16,)), "binary", 1),
    "deeper mlp, three classes": (Mlp(hidden=(24, 1, 12)), "multi-class", 3),
    "linear regression": (Linear(start="uniform"), "regression", 1),
}  # fmt: skip
EVERYONE = PrivateSteps(clip=1e9, noise=0.0, sampling=1.0, unit="row")


class Doubled(Mlp):
    """A model of its own making: not the layers that it inherits."""

    def outputs(self, arrays, x):
        return 2 * super().outputs(arrays, x.tanh())


class Mixing(Logistic):
    """A wrong model: what comes out for a row depends on the rows beside it."""

    def outputs(self, arrays, x):
        return super().outputs(arrays, x * x.square().sum(dim=-2, keepdim=True))


def drawn(model, task: str, outputs: int, dtype=torch.float64, rows: int = 60, inputs: int = 9):
    """Return arrays and rows whose gradients are on both sides of a clip of 1."""
    rng = np.random.default_rng(4)
    w = {name: torch.tensor(v, dtype=dtype) for name, v in model.first_arrays(inputs, outputs, rng).items()}
    w = {name: value + 0.3 * torch.from_numpy(rng.normal(size=value.shape)).to(dtype) for name, value in w.items()}
    x = torch.tensor(rng.normal(size=(rows, inputs)) * rng.exponential(size=(rows, 1)), dtype=dtype)
    y = torch.tensor(rng.integers(0, max(outputs, 2), rows), dtype=torch.int64 if outputs > 1 else dtype)
    return w, x, y, torch.tensor(rng.uniform(0.5, 2, rows), dtype=dtype)


def one_by_one(model, task, w, x, y, weight, clip) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return the sum of clipped gradients by autograd, a row at a time, and the norms before."""
    total, norms = {name: torch.zeros_like(value) for name, value in w.items()}, []
    for row in range(len(x)):
        part = slice(row, row + 1)
        _, g = gradient(model, task, w, x[part], y[part], weight[part])
        norms.append(float(torch.cat([value.flatten() for value in g.values()]).norm()))
        total = {name: total[name] + g[name] * min(1.0, clip / norms[-1]) for name in total}
    return total, norms


def clipped_sum(model, task, w, x, y, weight, *, clip, way=private_fit) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and the sum of clipped gradients: what one step on all rows takes off, with lr = rows."""
    precision = str(x.dtype).removeprefix("torch.")
    rng, arrays = np.random.default_rng(0), {name: value.numpy() for name, value in w.items()}
    fitted = way(FitRequest(
        model=model, task=task, arrays=arrays, rows=Encoded(x.numpy(), y.numpy(), weight.numpy()), rng=rng,
        plan=Plan(steps=1, precision=precision), lr=float(len(x)), delta=True, chance=SeededNoise(rng),
        private=PrivateSteps(clip=clip, noise=0.0, sampling=1.0, unit="row"),
    ))  # fmt: skip
    return fitted.loss, {name: -torch.from_numpy(value) for name, value in fitted.arrays.items()}


def furthest(a, b) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def norm_of(g) -> float:
    return float(torch.cat([value.flatten() for value in g.values()]).norm())


@pytest.mark.parametrize("shape", [*SHAPES, "own outputs"])
def test_the_sum_is_that_of_rows_clipped_one_by_one(shape):
    model, task, outputs = SHAPES.get(shape, (Doubled(hidden=(7,)), "binary", 1))
    w, x, y, weight = drawn(model, task, outputs)
    expected, norms = one_by_one(model, task, w, x, y, weight, 1.0)
    assert min(norms) < 0.9 and max(norms) > 1.1
    loss, found = clipped_sum(model, task, w, x, y, weight, clip=1.0)
    assert furthest(found, expected) < 1e-12
    assert loss == pytest.approx(float((weight * row_losses(task, model.outputs(w, x), y)).mean()), rel=1e-12)
    assert furthest(clipped_sum(model, task, w, x, y, weight, clip=0.5)[1], expected) > 0.1
    for held in (1, 20_000):  # any model's way, a row or some rows at a time
        losses, found = clipped_by_row(model, task, w, x, y, weight, clip=1.0, gradient_bytes=held)
        assert furthest(found, expected) < 1e-12 and float(losses.sum()) / 60 == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("shape", list(SHAPES)[:3])
@pytest.mark.parametrize("dtype, near", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # Opacus' own hooks, on inputs without gradient
def test_the_sum_is_that_of_opacus(shape, dtype, near):
    model, task, outputs = SHAPES[shape]
    w, x, y, _ = drawn(model, task, outputs, dtype)
    parts: list[torch.nn.Module] = []
    for weight, bias in model.layers:
        layer = torch.nn.Linear(*w[weight].shape, dtype=dtype)
        layer.load_state_dict({"weight": w[weight].T, "bias": w[bias]})
        parts += [layer, torch.nn.ReLU()]
    from opacus import GradSampleModule  # a second, which no other worker need take

    module = GradSampleModule(torch.nn.Sequential(*parts[:-1]), loss_reduction="sum")
    row_losses(task, module(x), y).sum().backward()
    samples = [p.grad_sample for p in module.parameters()]
    norms = torch.stack([s.flatten(1).norm(dim=1) for s in samples]).norm(dim=0)
    clipped = [torch.tensordot((1 / norms).clamp(max=1), s, dims=1) for s in samples]
    names = [name for layer in model.layers for name in layer]
    opacus = {n: c.T if c.dim() == 2 else c for n, c in zip(names, clipped, strict=True)}
    assert furthest(clipped_sum(model, task, w, x, y, torch.ones_like(norms), clip=1.0)[1], opacus) < near


@pytest.mark.parametrize("shape", [*SHAPES, "own outputs"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_whose_gradient_is_not_finite_adds_nothing(shape, value):
    model, task, outputs = SHAPES.get(shape, (Doubled(hidden=(7,)), "binary", 1))
    w, x, y, weight = drawn(model, task, outputs)
    healthy = clipped_sum(model, task, w, x, y, weight, clip=1.0)
    x, y, weight = (torch.cat([part[:1], part]) for part in (x, y, weight))
    if shape == "own outputs":
        weight[0] = value  # its inputs are squashed: what is far away there is an ordinary row
    else:
        x[0] *= value
    loss, found = clipped_sum(model, task, w, x, y, weight, clip=1.0)
    assert furthest(found, healthy[1]) < 1e-12
    assert loss == pytest.approx(healthy[0] * 60 / 61, rel=1e-9)


def test_float32_numbers_whose_squares_are_no_float32_numbers_are_clipped():
    w, one = {"weight": torch.zeros((1, 1)), "bias": torch.zeros(1)}, torch.ones(1)
    for way in (private_fit, fit_by_row):
        # |a| = 1e25 and d = 1/2: the squared norm is 2.5e49, beyond float32
        _, g = clipped_sum(Logistic(), "binary", w, torch.tensor([[1e25]]), 0 * one, one, clip=0.7, way=way)
        assert float(g["weight"]) == pytest.approx(0.7, rel=1e-6)
        # d = 1e-30 beside |a| = 1e31: its square is 0 in float32, and the gradient of norm 10 would pass
        _, g = clipped_sum(Linear(), "regression", w, torch.tensor([[1e31]]), -1e-30 * one, one, clip=0.7, way=way)
        assert float(g["weight"]) == pytest.approx(0.7, rel=1e-6)


def test_a_model_that_mixes_rows_cannot_break_the_bound():
    w, x, y, weight = drawn(Mixing(), "binary", 1)
    whole = clipped_sum(Mixing(), "binary", w, x, y, weight, clip=0.3)[1]
    for row in range(0, 60, 7):
        rest = torch.arange(60) != row
        less = clipped_sum(Mixing(), "binary", w, x[rest], y[rest], weight[rest], clip=0.3)[1]
        assert norm_of({name: whole[name] - less[name] for name in w}) <= 0.3 + 1e-9


REAL = {
    "binary": (load_breast_cancer, Mlp(hidden=(8,)), 1), "multi-class": (load_wine, Mlp(hidden=(6, 4)), 3),
    "regression": (load_diabetes, Linear(start="uniform"), 1),
}  # fmt: skip


@pytest.mark.parametrize("task", REAL)
def test_one_row_more_or_less_of_a_real_table_moves_the_sum_by_the_clip_at_most(task):
    load, model, outputs = REAL[task]
    x, y = (torch.from_numpy(part.astype(np.float64)) for part in load(return_X_y=True))
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean()) / y.std() if task == "regression" else y.to(torch.int64 if outputs > 1 else torch.float64)
    rng = np.random.default_rng(1)
    w = {name: torch.from_numpy(v) for name, v in model.first_arrays(x.shape[1], outputs, rng).items()}
    weight = torch.ones(len(x), dtype=torch.float64)
    clip = float(np.median(one_by_one(model, task, w, x, y, weight, 1.0)[1]))
    whole = clipped_sum(model, task, w, x, y, weight, clip=clip)[1]
    moved = []
    for row in range(0, len(x), 3):
        rest = torch.arange(len(x)) != row
        less = clipped_sum(model, task, w, x[rest], y[rest], weight[rest], clip=clip)[1]
        moved.append(norm_of({name: whole[name] - less[name] for name in w}))
    assert max(moved) <= clip + 1e-9
    assert max(moved) > clip - 1e-6 and min(moved) < 0.9 * clip  # the bound is met, and not by everybody


@pytest.fixture(scope="module")
def voices(test_data: Path) -> Encoded:
    """The voices of 42 patients, 101 to 168 recordings of each: Parkinson's telemonitoring, of UCI."""
    table = pd.read_csv(test_data / "parkinsons_telemonitoring" / "parkinsons_updrs.data")
    x = table.drop(columns=["subject#", "motor_UPDRS", "total_UPDRS", "test_time"]).to_numpy(dtype=np.float64)
    y = table["total_UPDRS"].to_numpy()
    return Encoded((x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std(), np.ones(len(y)), table["subject#"].to_numpy())


def test_all_rows_of_a_person_move_a_step_by_the_clip_at_most(voices):
    private = PrivateSteps(clip=0.5, noise=0.0, sampling=0.6)
    w = {
        "weight": torch.zeros((voices.x.shape[1], 1), dtype=torch.float64), "bias": torch.zeros(1, dtype=torch.float64),
    }  # fmt: skip
    x, y, weight = (torch.from_numpy(part) for part in (voices.x, voices.y, voices.weight))

    def step(rows) -> dict[str, torch.Tensor]:
        return clipped_sum(Linear(), "regression", w, x[rows], y[rows], weight[rows], clip=0.5)[1]

    moved, other = [], []
    for chosen, _ in drawn_steps(voices, private, SeededNoise(np.random.default_rng(2)), 40, 1):
        persons = voices.group[chosen]
        assert len(np.unique(persons)) == len(persons)  # nobody with two rows
        whole = step(chosen)
        without = [step(chosen[persons != person]) for person in np.unique(persons)[::5]]
        moved += [norm_of({n: whole[n] - v for n, v in less.items()}) for less in without]
    for chosen, _ in drawn_steps(voices, replace(private, unit="row"), SeededNoise(np.random.default_rng(2)), 1, 1):
        left = step(chosen[voices.group[chosen] != 3])
        other.append(norm_of({n: step(chosen)[n] - v for n, v in left.items()}))
    assert max(moved) <= 0.5 + 1e-9 and max(moved) > 0.49
    assert min(other) > 5 * 0.5  # where rows are the unit a person's hundred rows are not hidden


def asked(model, task: str, plan: Plan, private: PrivateSteps, *, rows: int = 40, seed: int = 0, **more) -> FitRequest:
    rng = np.random.default_rng(seed)
    x, outputs = rng.normal(size=(rows, 4)), 3 if task == "multi-class" else 1
    y = x @ np.arange(4.0)
    y = y if task == "regression" else np.digitize(y, [-2.0, 2.0][: max(outputs - 1, 1)])
    start = model.first_arrays(4, outputs, np.random.default_rng(8))
    encoded = Encoded(x, y, rng.uniform(0.5, 2, rows))
    given = {"rows": encoded, "arrays": start, "chance": SeededNoise(rng), "rng": rng, "lr": plan.lr, **more}
    return FitRequest(model=model, task=task, plan=plan, private=private, **given)


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
@pytest.mark.parametrize(
    "rule", [{}, {"momentum": 0.5, "l2": 0.1}, {"optimiser": "adam", "l1": 0.01, "clip": 0.5}, {"optimiser": "adamw"}]
)
def test_with_all_rows_no_noise_and_no_clip_it_is_the_fit_on_all_rows(rule, task):
    terms = (partial(proximal_gradient, mu=0.3),)
    for model in (Mlp(hidden=(5,)), Doubled(hidden=(5,))):
        request = asked(model, task, Plan(batch=0, steps=6, lr=0.02, **rule), EVERYONE, terms=terms, delta=True)
        found, expected = private_fit(request), fit(request)
        assert distance(found, expected) < 1e-12
        assert distance(fit_by_row(replace(request, chance=SeededNoise(np.random.default_rng(0)))), expected) < 1e-12
        assert max(np.abs(value).max() for value in found.arrays.values()) > 0.01


def test_the_divisor_is_the_expected_number_and_not_the_drawn_one():
    # One step from 0 with lr 1: minus the clipped sum over those drawn, over 0.25 * 40 = 10 in every case.
    plan, private = Plan(steps=1, lr=1.0), PrivateSteps(clip=0.3, noise=0.0, sampling=0.25)
    counts = set()
    for seed in range(5):
        request, again = (
            asked(Logistic(), "binary", plan, private, delta=True, chance=SeededNoise(np.random.default_rng(seed)))
            for _ in range(2)
        )
        ((chosen, _),) = drawn_steps(again.rows, private, again.chance, 1, 5)
        part = (again.rows.x[chosen], again.rows.y[chosen].astype(float), again.rows.weight[chosen])
        w = {name: torch.from_numpy(value) for name, value in request.arrays.items()}
        g, _ = one_by_one(Logistic(), "binary", w, *map(torch.from_numpy, part), 0.3)
        np.testing.assert_allclose(private_fit(request).arrays["weight"], -g["weight"].numpy() / 10, atol=1e-13)
        counts.add(len(chosen))
    assert len(counts) > 2


def test_a_site_without_rows_takes_no_step_and_an_empty_sample_is_a_step_of_noise():
    plan = Plan(steps=3, lr=0.1, validation=0.2)
    for unit in ("row", "person"):
        nothing = Encoded(np.empty((0, 4)), np.empty(0), np.empty(0), np.empty(0, dtype=int))
        request = asked(Logistic(), "binary", plan, replace(EVERYONE, noise=1.0, unit=unit))
        (found,) = compute_one_by_one([replace(request, rows=nothing)])
        assert found.steps == 0 and found.loss == 0 and not found.arrays["weight"].any()
    rare = PrivateSteps(clip=1.0, noise=1.0, sampling=1e-9)
    request = asked(Logistic(), "binary", plan, rare, delta=True)
    assert [len(chosen) for chosen, _ in drawn_steps(request.rows, rare, request.chance, 3, 5)] == [0, 0, 0]
    found = private_fit(request)
    assert found.steps == 3 and found.loss == 0
    # three steps of 0.1 * noise / (1e-9 * 40): of deviation 0.1 * sqrt(3) / 4e-8
    assert 0.3 < np.std(np.concatenate([v.ravel() for v in found.arrays.values()])) * 4e-8 / (0.1 * 3**0.5) < 2


def test_without_steps_or_chance_nothing_is_trained():
    for plan, more in ((Plan(), {}), (Plan(steps=2), {"chance": None})):
        with pytest.raises(UsageError, match=r"needs plan\.steps"):
            private_fit(asked(Logistic(), "binary", plan, EVERYONE, **more))
