"""The timing scripts compare like with like: both sides reach the same arrays, or there is no figure."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.bare import Job, arrays_of, loop, module
from benchmarks.one_by_one import LIMIT, RESULTS, DifferentResults, compare, difference, main, write_results
from benchmarks.workload import W1, Workload, table
from flfed.seeds import generator

# The last batch of an epoch is a short one: 50 = 16 + 16 + 16 + 2.
TINY = Workload(name="W1", sites=3, rows=50, held=12, features=4, hidden=(6, 3), batch=16, rounds=3)

WRONG = {
    "weights": lambda job: replace(job, weights=job.weights | {"site-0000": 2 * job.weights["site-0000"]}),
    "order": lambda job: replace(job, order=lambda site, round: generator(1, site=site, purpose="x", number=round)),
    "rounds": lambda job: replace(job, rounds=job.rounds - 1),
    "rate": lambda job: replace(job, lr=1.01 * job.lr),
    "batch": lambda job: replace(job, batch=job.batch + 1),
    "rows": lambda job: replace(job, y=job.y | {"site-0001": 1 - job.y["site-0001"]}),
}


def test_the_workload_of_the_claim_is_the_one_of_the_issue():
    assert (W1.sites, W1.rows, W1.features, W1.hidden, W1.batch, W1.rounds) == (10, 2000, 30, (64, 32), 64, 50)
    assert W1.precision == "float32"
    assert LIMIT == 1.35
    assert len(table(TINY, 0)) == TINY.rows + TINY.held
    assert not np.array_equal(table(TINY, 0)["x00"], table(TINY, 1)["x00"])


def test_the_script_writes_the_ratio_beside_the_differences_and_leaves_other_figures(tmp_path, capsys):
    results = tmp_path / "results.json"
    write_results(results, "W1", "stacked", {"cpu-ratio": 0.3})
    code = main(["--repetitions", "2", "--rounds", "2", "--results", str(results)], TINY)
    known = json.loads(results.read_text())
    assert known["W1"]["stacked"] == {"cpu-ratio": 0.3}
    figures = known["W1"]["one-by-one"]
    assert code == (figures["cpu-ratio"] > LIMIT)
    assert {"cpu-ratio", "wall-ratio", "peak-mb"} <= set(figures)
    assert 0 < figures["cpu-ratio-low"] <= figures["cpu-ratio"] <= figures["cpu-ratio-high"]
    assert figures["cpu-seconds"]["rounds"] / figures["cpu-seconds"]["bare"] > 0.1
    assert figures["peak-mb"] > 50
    assert figures["arrays-max-difference"] < 1e-6
    assert figures["arrays-max-difference-float64"] < 1e-14
    assert f"CPU ratio {figures['cpu-ratio']}" in capsys.readouterr().out


@pytest.mark.parametrize("what", WRONG)
def test_a_loop_that_does_other_steps_gives_no_figure(what):
    with pytest.raises(DifferentResults, match="float64: the arrays differ by"):
        compare(TINY, repetitions=1, bare=lambda job: loop(WRONG[what](job)))


def test_a_difference_counts_the_worst_number_and_refuses_other_names():
    a = {"w": np.array([1.0, 2.0]), "b": np.zeros(1)}
    assert difference(a, {"w": np.array([1.0, 2.5]), "b": np.full(1, 0.25)}) == 0.5
    assert difference(a, {"w": a["w"]}) == float("inf")
    assert not difference(a, {"w": np.array([1.0, np.nan]), "b": np.zeros(1)}) <= 1e9


def test_the_bare_loop_averages_by_weight():
    # One full batch a round: the mean of the sites' steps is one step on the weighted mean gradient.
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(6, 2)), "b": rng.normal(size=(4, 2))}
    y = {"a": np.array([0, 1, 0, 1, 1, 0]), "b": np.array([1, 1, 0, 1])}
    start = {"weight-0": rng.normal(size=(2, 1)), "bias-0": np.zeros(1)}
    job = Job(x=x, y=y, weights={"a": 6, "b": 4}, start=start, order=lambda *_: rng, rounds=1, batch=6, lr=0.5)
    found, losses = loop(job)
    rows, target = np.concatenate([x["a"], x["b"]]), np.concatenate([y["a"], y["b"]])
    residual = 1 / (1 + np.exp(-rows @ start["weight-0"][:, 0])) - target
    expected = start["weight-0"][:, 0] - 0.5 * rows.T @ residual / 10
    np.testing.assert_allclose(found["weight-0"][:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(found["bias-0"], [-0.5 * residual.mean()], rtol=1e-12)
    assert np.shape(losses) == (2, 2)


def test_a_module_holds_the_arrays_it_is_given():
    rng = np.random.default_rng(1)
    start = {"weight-0": rng.normal(size=(3, 2)), "bias-0": rng.normal(size=2),
             "weight-1": rng.normal(size=(2, 1)), "bias-1": rng.normal(size=1)}  # fmt: skip
    made = module(start)
    assert difference(arrays_of(made), start) == 0
    x = rng.normal(size=(5, 3))
    hidden = np.maximum(x @ start["weight-0"] + start["bias-0"], 0)
    found = made(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, hidden @ start["weight-1"] + start["bias-1"], rtol=1e-12)


def test_the_figures_in_the_repository_are_of_the_whole_workload_and_within_the_limit():
    figures = json.loads(RESULTS.read_text())["W1"]["one-by-one"]
    assert figures["rounds"] == W1.rounds
    assert figures["repetitions"] >= 5
    assert figures["cpu-ratio"] <= LIMIT
    assert figures["arrays-max-difference"] <= 1e-5
