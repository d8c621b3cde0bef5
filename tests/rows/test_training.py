"""Training at a site: equal to the pooled step, to torch.optim, to scikit-learn's optima."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, LogisticRegression, Ridge

from flfed.registry import load
from flfed.rows.features.encode import Encoded
from flfed.rows.models.linear import Linear
from flfed.rows.models.logistic import Logistic
from flfed.rows.models.mlp import Mlp
from flfed.rows.training.answer import run_client
from flfed.rows.training.fit import clip_by_norm, fit, score, soft_threshold
from flfed.rows.training.functional import affine, batch_loss, loss_of_rows, probabilities, row_losses
from flfed.rows.training.requests import FitRequest, ScoreRequest
from flfed.study.plan import Plan
from tests.rows.drawn import batches

SIZES = (7, 31, 104)
OUTPUTS = {"regression": 1, "binary": 1, "multi-class": 3}
MODELS = {"regression": Linear(), "binary": Logistic(), "multi-class": Logistic()}


def table(task: str, rows: int, seed: int = 0, inputs: int = 5, weighted: bool = False) -> Encoded:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) * np.linspace(0.5, 2, inputs) + 0.3
    signal = x @ np.linspace(1, -1, inputs) + rng.normal(size=rows)
    if task == "regression":
        return Encoded(x, signal, np.where(signal > 0, 2.5, 0.6) if weighted else np.ones(rows))
    y = np.digitize(signal, [0.4] if task == "binary" else [-1.0, 1.0]).astype(np.int64)
    return Encoded(x, y, np.array([0.6, 2.5, 1.4])[y] if weighted else np.ones(rows))


def together(parts: list[Encoded]) -> Encoded:
    return Encoded(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "weight")))


def start(task: str, seed: int = 9, inputs: int = 5, model=None) -> dict[str, np.ndarray]:
    model = model or load("model", "linear")(start="uniform")
    return model.first_arrays(inputs, OUTPUTS[task], np.random.default_rng(seed))


def trained(task: str, rows: Encoded, arrays, plan: Plan, *, model=None, lr=None, seed=0, terms=()):
    rng = np.random.default_rng(seed)
    return fit(
        FitRequest(model=model or MODELS[task], task=task, arrays=arrays, rows=rows, plan=plan,
                   lr=plan.lr if lr is None else lr, rng=rng, terms=terms)
    )  # fmt: skip


def mean_of(found: list[dict[str, np.ndarray]], weights) -> dict[str, np.ndarray]:
    shares = np.asarray(weights, dtype=float) / np.sum(weights)
    return {name: sum(s * a[name] for s, a in zip(shares, found, strict=True)) for name in found[0]}


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def written_out(task: str, rows: Encoded, arrays, lr: float, l2: float) -> dict[str, np.ndarray]:
    """One gradient step with the gradient written out: X'(w * (mean - y)) / n + l2 * weight."""
    outputs = rows.x @ arrays["weight"] + arrays["bias"]
    if task == "regression":
        residual = outputs - rows.y[:, None]
    elif task == "binary":
        residual = 1 / (1 + np.exp(-outputs)) - rows.y[:, None]
    else:
        p = np.exp(outputs)
        residual = p / p.sum(axis=1, keepdims=True) - np.eye(3)[rows.y]
    residual = rows.weight[:, None] * residual / len(rows)
    return {
        "weight": arrays["weight"] - lr * (rows.x.T @ residual + l2 * arrays["weight"]),
        "bias": arrays["bias"] - lr * residual.sum(axis=0),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["regression", "binary", "multi-class"])
def test_one_full_batch_step_of_unequal_sites_is_the_pooled_step(task, weighted):
    plan = Plan(lr=0.3, batch=0, epochs=1, l2=0.05)
    sites = [table(task, rows, seed, weighted=weighted) for seed, rows in enumerate(SIZES)]
    before = start(task)
    after = [trained(task, rows, before, plan).arrays for rows in sites]
    pooled = written_out(task, together(sites), before, 0.3, 0.05)
    assert distance(mean_of(after, SIZES), pooled) < 1e-12
    assert distance(trained(task, together(sites), before, plan).arrays, pooled) < 1e-12
    # The comparison sees what an AUC would not: each of these misses by a wide margin.
    wrong = {
        "unweighted": mean_of(after, [1, 1, 1]), "n squared": mean_of(after, np.square(SIZES)),
        "a dropped site": mean_of(after[1:], SIZES[1:]),
    }  # fmt: skip
    if weighted:
        wrong["sums of class weights"] = mean_of(after, [rows.weight.sum() for rows in sites])
    for name, arrays in wrong.items():
        assert distance(arrays, pooled) > 1e-4, name


def test_two_hundred_federated_steps_reach_the_ridge_optimum_of_scikit_learn():
    l2, sites = 0.1, [table("regression", rows, seed) for seed, rows in enumerate(SIZES)]
    pooled = together(sites)
    design = np.column_stack([pooled.x, np.ones(len(pooled))])
    # Gradient descent goes by 1 / L, with L the largest eigenvalue of the loss's second derivative.
    lr = 1 / (np.linalg.eigvalsh(design.T @ design / len(pooled)).max() + l2)
    plan, arrays = Plan(lr=lr, batch=0, epochs=1, l2=l2), start("regression")
    for _ in range(200):
        arrays = mean_of([trained("regression", rows, arrays, plan).arrays for rows in sites], SIZES)
    optimum = Ridge(alpha=l2 * len(pooled), tol=1e-12).fit(pooled.x, pooled.y)
    np.testing.assert_allclose(arrays["weight"][:, 0], optimum.coef_, atol=1e-6)
    np.testing.assert_allclose(arrays["bias"][0], optimum.intercept_, atol=1e-6)
    # Another meaning of alpha would be seen here.
    assert np.abs(Ridge(alpha=l2).fit(pooled.x, pooled.y).coef_ - optimum.coef_).max() > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["binary", "multi-class"])
def test_logistic_training_reaches_the_optimum_of_scikit_learn_also_with_class_weights(task, weighted):
    l2, rows = 0.05, table(task, 120, weighted=weighted)
    plan = Plan(lr=0.4, batch=0, steps=1500, l2=l2)
    found = trained(task, rows, start(task), plan).arrays
    model = LogisticRegression(C=1 / (l2 * len(rows)), tol=1e-10, max_iter=10000).fit(rows.x, rows.y, rows.weight)
    np.testing.assert_allclose(found["weight"], model.coef_.T, atol=1e-5)
    # Softmax intercepts are known up to a constant.
    bias = found["bias"] - found["bias"].mean() * (task == "multi-class")
    np.testing.assert_allclose(bias, model.intercept_ - model.intercept_.mean() * (task == "multi-class"), atol=1e-5)


OPTIMISERS = {
    "sgd": (Plan(optimiser="sgd", lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd with momentum": (
        Plan(optimiser="sgd", lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    ),
    "adam": (Plan(optimiser="adam", lr=0.02), lambda p: torch.optim.Adam(p, lr=0.02)),
    "adamw": (
        Plan(optimiser="adamw", lr=0.02, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    ),
}  # fmt: skip
LEARNERS = {"linear": ("regression", Linear()), "logistic": ("binary", Logistic()), "mlp": ("multi-class", Mlp())}


def torch_run(task, model, rows, arrays, make, order, l2=0.0, clip=0.0):
    """The same steps by torch.optim, on the same batches."""
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in arrays.items()}
    x, y, weight = torch.tensor(rows.x), torch.tensor(rows.y), torch.tensor(rows.weight)
    optimiser = make(list(leaves.values()))
    for batch in order:
        optimiser.zero_grad()
        loss = (weight[batch] * row_losses(task, model.outputs(leaves, x[batch]), y[batch])).mean()
        loss = loss + l2 / 2 * sum(leaves[name].square().sum() for name in model.penalised)
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(list(leaves.values()), clip)
        optimiser.step()
    return {name: leaf.detach().numpy() for name, leaf in leaves.items()}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_optimiser_equals_torch_optim_over_many_steps(name, learner):
    (task, model), (plan, make) = LEARNERS[learner], OPTIMISERS[name]
    plan = Plan(**{**vars(plan), "batch": 16, "steps": 120, "l2": 0.01})
    rows, before = table(task, 75, weighted=task != "regression"), start(task, model=model)
    order = batches(75, plan, np.random.default_rng(4))
    assert len(order) == 120
    expected = torch_run(task, model, rows, before if learner == "mlp" else start(task), make, order, l2=0.01)
    found = trained(task, rows, before if learner == "mlp" else start(task), plan, model=model, seed=4)
    assert found.steps == 120
    assert distance(found.arrays, expected) < 1e-10
    assert distance(found.arrays, before) > 1e-2


def test_plain_steps_without_weights_are_those_of_torch_optim_to_the_last_bits():
    model, plan = Mlp(hidden=(8, 4)), Plan(batch=16, steps=60, lr=0.05)
    rows, before = table("binary", 75), start("binary", model=Mlp(hidden=(8, 4)))
    order = batches(75, plan, np.random.default_rng(4))
    expected = torch_run("binary", model, rows, before, lambda p: torch.optim.SGD(p, lr=0.05), order)
    assert distance(trained("binary", rows, before, plan, model=model, seed=4).arrays, expected) < 1e-15
    assert distance(expected, before) > 1e-2


@pytest.mark.parametrize("task", OUTPUTS)
def test_a_batch_without_weights_is_one_where_each_row_counts_one(task):
    rows = table(task, 9)
    y, weight = torch.tensor(rows.y), torch.linspace(0.5, 2, 9, dtype=torch.float64)
    outputs = torch.tensor(np.random.default_rng(3).normal(size=(9, OUTPUTS[task])), requires_grad=True)
    plain, counted = batch_loss(task, outputs, y), batch_loss(task, outputs, y, torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(plain, counted, rtol=1e-15, atol=0)
    found, expected = (torch.autograd.grad(loss, outputs)[0] for loss in (plain, counted))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-17)
    # The divisor is the number of rows, not the sum of weights.
    by_hand = sum(w * row_losses(task, outputs[i : i + 1], y[i : i + 1])[0] for i, w in enumerate(weight)) / 9
    torch.testing.assert_close(batch_loss(task, outputs, y, weight), by_hand, rtol=1e-14, atol=0)


def test_a_layer_is_the_same_alone_and_in_a_stack():
    rng = np.random.default_rng(5)
    x, weight, bias = (torch.tensor(rng.normal(size=shape)) for shape in ((3, 6, 4), (3, 4, 2), (3, 2)))
    stacked = affine(x, weight, bias)
    for site in range(3):
        torch.testing.assert_close(affine(x[site], weight[site], bias[site]), stacked[site], rtol=1e-14, atol=1e-15)
        expected = x[site].numpy() @ weight[site].numpy() + bias[site].numpy()
        np.testing.assert_allclose(stacked[site], expected, rtol=1e-13)


def test_clipping_equals_torch_and_leaves_a_small_gradient_alone():
    rows, before = table("binary", 60), start("binary")
    order = batches(60, Plan(batch=10, epochs=5), np.random.default_rng(2))
    expected = torch_run("binary", Logistic(), rows, before, lambda p: torch.optim.SGD(p, lr=1.0), order, clip=0.05)
    plan = Plan(lr=1.0, batch=10, epochs=5, clip=0.05)
    # torch divides by norm + 1e-6, so the two differ by one part in 50,000 of a step of 0.05.
    assert distance(trained("binary", rows, before, plan, seed=2).arrays, expected) < 5e-5
    wide = Plan(lr=1.0, batch=10, epochs=5, clip=1e6)
    assert distance(
        trained("binary", rows, before, wide, seed=2).arrays,
        trained("binary", rows, before, Plan(lr=1.0, batch=10, epochs=5), seed=2).arrays,
    ) == 0  # fmt: skip


@settings(deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), bound=st.floats(1e-3, 1e3))
def test_clipping_keeps_the_direction_and_never_exceeds_its_bound(values, bound):
    g = {"a": torch.tensor(values, dtype=torch.float64), "b": torch.tensor([[3.0]], dtype=torch.float64)}
    norm = float(torch.cat([value.flatten() for value in g.values()]).norm())
    clipped = clip_by_norm(g, bound)
    assert float(torch.cat([value.flatten() for value in clipped.values()]).norm()) <= bound * (1 + 1e-12)
    for name in g:
        torch.testing.assert_close(clipped[name], g[name] * min(1.0, bound / norm), rtol=1e-12, atol=0)


def test_l1_reaches_the_lasso_optimum_of_scikit_learn_with_its_exact_zeros():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 12))
    rows = Encoded(x, x[:, :3] @ np.array([2.0, -1.0, 0.5]) + 0.7 + 0.3 * rng.normal(size=200), np.ones(200))
    found = trained("regression", rows, start("regression", inputs=12), Plan(lr=0.5, batch=0, steps=800, l1=0.1)).arrays
    # scikit-learn's loss is ||y - Xw||^2 / 2n + alpha ||w||_1: alpha is our l1.
    lasso = Lasso(alpha=0.1, tol=1e-12, max_iter=100_000).fit(rows.x, rows.y)
    np.testing.assert_allclose(found["weight"][:, 0], lasso.coef_, atol=1e-8)
    np.testing.assert_allclose(found["bias"][0], lasso.intercept_, atol=1e-8)
    zeros = lasso.coef_ == 0
    assert 5 <= zeros.sum() < 12
    np.testing.assert_array_equal(found["weight"][zeros, 0], 0.0)
    assert found["bias"][0] != 0  # an intercept is never penalised


def test_soft_threshold_is_the_proximal_step_of_an_absolute_value():
    w = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    torch.testing.assert_close(soft_threshold(w, 1.0), torch.tensor([-2.0, 0.0, 0.0, 0.0, 2.0]))
    # argmin over v of (v - w)^2 / 2 + |v|, on a fine grid
    grid = torch.linspace(-4, 4, 8001)
    best = grid[(0.5 * (grid[None] - w[:, None]).square() + grid[None].abs()).argmin(dim=1)]
    torch.testing.assert_close(soft_threshold(w, 1.0), best, atol=1e-3, rtol=0)


@pytest.mark.parametrize("rows", [1, 5, 32, 33])
@pytest.mark.parametrize("batch", [0, 1, 8, 32, 100])
def test_an_epoch_uses_every_row_once(rows, batch):
    order = batches(rows, Plan(batch=batch, epochs=3), np.random.default_rng(0))
    steps = -(-rows // (batch or rows))
    assert len(order) == 3 * steps
    for epoch in range(3):
        used = torch.cat(order[epoch * steps : (epoch + 1) * steps])
        assert sorted(used.tolist()) == list(range(rows))


def test_steps_replace_epochs_and_orders_follow_one_another():
    order = batches(10, Plan(batch=4, steps=7, epochs=99), np.random.default_rng(0))
    assert [len(batch) for batch in order] == [4, 4, 2, 4, 4, 2, 4]
    first, second = torch.cat(order[:3]).tolist(), torch.cat(order[3:6]).tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second  # drawn anew each epoch


def test_a_site_without_rows_trains_not_at_all():
    empty, before = table("binary", 5).take(np.arange(0)), start("binary")
    for plan in (Plan(batch=0), Plan(steps=4)):
        found = trained("binary", empty, before, plan)
        assert (found.steps, found.loss) == (0, 0.0)
        assert distance(found.arrays, before) == 0


def test_a_fit_is_a_function_of_its_request_and_changes_nothing_of_it():
    rows, before = table("binary", 40), start("binary")
    kept = {name: value.copy() for name, value in before.items()}
    x, y = rows.x.copy(), rows.y.copy()
    plan = Plan(lr=0.2, batch=8, epochs=2, momentum=0.9, l1=0.01, l2=0.01)
    first, second = (trained("binary", rows, before, plan, seed=5) for _ in range(2))
    assert distance(first.arrays, second.arrays) == 0
    assert distance(first.arrays, trained("binary", rows, before, plan, seed=6).arrays) > 1e-6
    assert distance(before, kept) == 0
    np.testing.assert_array_equal(rows.x, x)
    np.testing.assert_array_equal(rows.y, y)


def test_the_loss_is_the_mean_over_steps_before_each_of_them():
    rows, before = table("regression", 12), start("regression")
    plan = Plan(lr=0.1, batch=0, steps=2, l2=0.7)  # penalties are not in the loss
    after_one = trained("regression", rows, before, Plan(lr=0.1, batch=0, steps=1, l2=0.7)).arrays
    squares = [np.square(rows.x @ a["weight"][:, 0] + a["bias"] - rows.y).mean() / 2 for a in (before, after_one)]
    assert trained("regression", rows, before, plan).loss == pytest.approx(np.mean(squares), rel=1e-12)


def test_class_weights_count_a_row_as_often_as_they_say():
    # A weight of 3 is the same row three times, but over the number of rows, not of copies.
    rows = table("binary", 20)
    heavy = Encoded(rows.x, rows.y, np.where(rows.y == 1, 3.0, 1.0))
    copies = rows.take(np.repeat(np.arange(20), np.where(rows.y == 1, 3, 1)))
    weighted = trained("binary", heavy, start("binary"), Plan(lr=0.1, batch=0))
    repeated = trained("binary", copies, start("binary"), Plan(lr=0.1 * len(copies) / 20, batch=0))
    assert distance(weighted.arrays, repeated.arrays) < 1e-12


def test_float32_stays_float32_and_near_float64():
    rows = table("binary", 50)
    exact = trained("binary", rows, start("binary"), Plan(lr=0.1, epochs=5))
    single = trained("binary", rows, start("binary"), Plan(lr=0.1, epochs=5, precision="float32"))
    assert {value.dtype for value in exact.arrays.values()} == {np.dtype("float64")}
    assert {value.dtype for value in single.arrays.values()} == {np.dtype("float32")}
    assert 0 < distance(exact.arrays, single.arrays) < 1e-5


def test_a_term_is_added_to_the_gradient_with_the_arrays_that_came_in_as_anchor():
    # With mu, one step from w, and nothing else: w - lr * (g + mu * (w - w)) = the step without it;
    # the second step is pulled back by lr * mu * (w1 - w0).
    rows, before = table("regression", 15), start("regression")
    mu, lr = 0.8, 0.1
    one = trained("regression", rows, before, Plan(lr=lr, batch=0, steps=1)).arrays
    plain = trained("regression", rows, one, Plan(lr=lr, batch=0, steps=1)).arrays
    pulled = trained(
        "regression", rows, before, Plan(lr=lr, batch=0, steps=2), terms=(lambda w, anchor: mu * (w - anchor),)
    ).arrays
    for name in before:
        np.testing.assert_allclose(pulled[name], plain[name] - lr * mu * (one[name] - before[name]), atol=1e-14)


@pytest.mark.parametrize("task", ["regression", "binary", "multi-class"])
def test_losses_are_the_written_formula_also_for_a_stack_of_sites(task):
    rng = np.random.default_rng(1)
    outputs, y = rng.normal(size=(4, 6, OUTPUTS[task])), rng.integers(0, 2, size=(4, 6))
    if task == "regression":
        expected = (outputs[..., 0] - y) ** 2 / 2
    elif task == "binary":
        p = 1 / (1 + np.exp(-outputs[..., 0]))
        expected = -np.log(np.where(y == 1, p, 1 - p))
    else:
        p = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
        expected = -np.log(np.take_along_axis(p, y[..., None], -1)[..., 0])
    target = torch.tensor(y, dtype=torch.float64 if task == "regression" else torch.int64)
    np.testing.assert_allclose(row_losses(task, torch.tensor(outputs), target).numpy(), expected, rtol=1e-12)
    assert loss_of_rows(task, outputs[0], y[0].astype(float)) == pytest.approx(expected[0].mean(), rel=1e-12)


def test_probabilities_of_extreme_outputs_are_finite():
    outputs = np.array([[-800.0], [0.0], [800.0]])
    np.testing.assert_allclose(probabilities("binary", outputs), [0, 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(probabilities("multi-class", np.array([[900.0, 0.0, -900.0]])), [[1, 0, 0]], atol=1e-12)
    assert np.isfinite(loss_of_rows("binary", outputs, np.array([1, 1, 0])))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 40), seed=st.integers(0, 99), batch=st.integers(0, 50))
def test_the_order_of_rows_changes_nothing_of_a_full_batch_step(rows, seed, batch):
    given_rows = table("binary", rows, seed)
    order = np.random.default_rng(seed).permutation(rows)
    plan = Plan(lr=0.3, batch=rows + batch)  # a batch as large as the table, or larger, is the whole table
    a = trained("binary", given_rows, start("binary"), plan)
    b = trained("binary", given_rows.take(order), start("binary"), plan)
    assert distance(a.arrays, b.arrays) < 1e-14 and a.steps == 1


def test_a_handler_is_sent_the_answers_to_what_it_yields():
    rows, before = table("binary", 10), start("binary")

    def handler():
        fitted = yield FitRequest(
            model=Logistic(), task="binary", arrays=before, rows=rows, plan=Plan(batch=0), lr=0.1,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        outputs = yield ScoreRequest(model=Logistic(), arrays=fitted.arrays, x=rows.x)
        return fitted, outputs

    fitted, outputs = run_client(handler())
    np.testing.assert_allclose(outputs, rows.x @ fitted.arrays["weight"] + fitted.arrays["bias"], atol=1e-14)
    again = score(ScoreRequest(model=Logistic(), arrays=fitted.arrays, x=rows.x))
    np.testing.assert_array_equal(outputs, again)
    assert score(ScoreRequest(model=Logistic(), arrays=before, x=rows.x[:0])).shape == (0, 1)
