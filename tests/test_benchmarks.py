"""The timing scripts compare like with like: all ways reach the same arrays, or there is no figure."""

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import bare, hand_made, table
from benchmarks.alone import in_child, peak_mb
from benchmarks.bare import Job, arrays_of, loop, module, read_job, write_job
from benchmarks.limits import CPU, missed
from benchmarks.ours import at_work, conducting, run_ours
from benchmarks.picture import picture
from benchmarks.scale import bare_seconds, dearer, line, one, workload
from benchmarks.ways import LOOPS, TOLERANCE, DifferentResults, compare, difference, figures
from benchmarks.workload import WORKLOADS, Workload
from flfed.seeds import generator

# The last batch of an epoch is a short one: 50 = 16 + 16 + 16 + 2.
TINY = Workload(name="W1", sites=3, rows=50, held=12, features=4, hidden=(6, 3), batch=16, rounds=3)
PART = replace(TINY, sites=6, fraction=0.5, spread=0.5)
LINEAR = replace(TINY, hidden=())

WRONG = {
    "weights": lambda job: replace(job, weights={**job.weights, "site-00000": 2 * job.weights["site-00000"]}),
    "order": lambda job: replace(job, order=lambda site, round: generator(1, site=site, purpose="x", number=round)),
    "rounds": lambda job: replace(job, rounds=job.rounds - 1), "rate": lambda job: replace(job, lr=1.01 * job.lr),
    "batch": lambda job: replace(job, batch=job.batch + 1),
    "rows": lambda job: replace(job, y={**job.y, "site-00001": 1 - job.y["site-00001"]}),
    "cohort": lambda job: replace(job, cohort=lambda round: sorted(job.x)[:2]),
}  # fmt: skip


def test_the_workloads_are_those_of_the_claims():
    sizes = {name: (w.sites, w.rows, w.rounds, w.fraction, w.hidden) for name, w in WORKLOADS.items()}
    assert sizes == {
        "W1": (10, 2000, 50, 1, (64, 32)), "W2": (100, 500, 50, 1, (64, 32)), "W3": (1000, 200, 20, 0.1, (64, 32)),
        "W4": (10, 28_000, 20, 1, ()),
    }  # fmt: skip
    assert {(w.features, w.batch, w.precision) for w in WORKLOADS.values()} == {(30, 64, "float32")}
    assert [CPU[name, "stacked"] for name in WORKLOADS] == [0.38, 0.38, 0.48, 0.35]
    assert (CPU["W1", "one-by-one"], CPU["W2", "one-by-one"]) == (1.2, 1.5)
    assert TOLERANCE["float64"] == 1e-10


def test_sites_of_the_scale_curve_have_log_normal_sizes_with_the_stated_mean():
    drawn = np.array([workload(1000).size(number) for number in range(3000)])
    # A mean of 3,000 draws has standard deviation 200 * sqrt(exp(0.8^2) - 1) / sqrt(3000) = 3.5.
    assert abs(drawn.mean() - 200) < 11
    assert abs(np.log(drawn).std() - 0.8) < 0.04


@pytest.mark.studies
@pytest.mark.parametrize("given", [TINY, PART, LINEAR], ids=["all", "part", "linear"])
def test_all_ways_reach_the_same_arrays_and_the_ratios_are_to_the_bare_loop(given):
    kept = []
    found = compare(given, repetitions=2, keep=kept.append)
    assert set(found) == {"bare", "hand-made", "one-by-one", "stacked"}
    for figure in found.values():
        assert figure["arrays-max-difference-float64"] < 1e-13
        assert figure["arrays-max-difference"] < 1e-6
        assert 0 < figure["cpu-ratio-low"] <= figure["cpu-ratio"] <= figure["cpu-ratio-high"]
    assert found["bare"]["cpu-ratio"] == found["hand-made"]["cpu-over-hand-made"] == 1
    assert next(iter(kept[0].start.values())).dtype == np.float32
    assert kept[0].rounds == given.rounds


@pytest.mark.studies
@pytest.mark.parametrize("what", WRONG)
def test_a_loop_that_does_other_steps_gives_no_figure(what):
    given = PART if what == "cohort" else TINY
    with pytest.raises(DifferentResults, match="float64: the arrays of hand-made differ by"):
        compare(given, repetitions=1, loops={**LOOPS, "hand-made": lambda job: hand_made.loop(WRONG[what](job))})


def test_a_difference_counts_the_worst_number_and_refuses_other_names():
    a = {"w": np.array([1.0, 2.0]), "b": np.zeros(1)}
    assert difference(a, {"w": np.array([1.0, 2.5]), "b": np.full(1, 0.25)}) == 0.5
    assert difference(a, {"w": a["w"]}) == float("inf")
    assert not difference(a, {"w": np.array([1.0, np.nan]), "b": np.zeros(1)}) <= 1e9


def test_ratios_are_taken_within_a_repetition():
    # Twice as slow a machine in the second repetition changes no ratio.
    took = [{"bare": (2.0, 2.0), "hand-made": (1.0, 1.0), "stacked": (0.5, 0.6)},
            {"bare": (4.0, 4.0), "hand-made": (2.0, 2.0), "stacked": (1.0, 1.2)}]  # fmt: skip
    found = figures("stacked", took)
    assert (found["cpu-ratio-low"], found["cpu-ratio"], found["cpu-ratio-high"]) == (0.25, 0.25, 0.25)
    assert (found["wall-ratio"], found["cpu-over-hand-made"], found["cpu-seconds"]) == (0.3, 0.5, 0.75)


@pytest.mark.parametrize("loop", [bare.loop, hand_made.loop])
def test_a_loop_averages_by_weight(loop):
    # One full batch a round: the mean of the sites' steps is one step on the weighted mean gradient.
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(6, 2)), "b": rng.normal(size=(4, 2)), "c": rng.normal(size=(3, 2))}
    y = {"a": np.array([0, 1, 0, 1, 1, 0]), "b": np.array([1, 1, 0, 1]), "c": np.array([1, 0, 1])}
    start = {"weight": rng.normal(size=(2, 1)), "bias": np.zeros(1)}
    job = Job(x=x, y=y, weights={"a": 6, "b": 4, "c": 3}, start=start, order=lambda *_: rng,
              cohort=lambda _: ["a", "b"], rounds=1, batch=6, lr=0.5)  # fmt: skip
    found, losses = loop(job)
    rows, target = np.concatenate([x["a"], x["b"]]), np.concatenate([y["a"], y["b"]])
    residual = 1 / (1 + np.exp(-rows @ start["weight"][:, 0])) - target
    expected = start["weight"][:, 0] - 0.5 * rows.T @ residual / 10
    np.testing.assert_allclose(found["weight"][:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(found["bias"], [-0.5 * residual.mean()], rtol=1e-12)
    # The cohort is scored before the round, everybody at the end.
    assert [sorted(by_site) for by_site in losses] == [["a", "b"], ["a", "b", "c"]]
    z = x["c"] @ found["weight"][:, 0] + found["bias"]
    assert losses[1]["c"] == pytest.approx(np.mean(np.logaddexp(0, z) - y["c"] * z), rel=1e-12)


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


def test_a_job_in_a_file_is_the_same_work_with_orders_of_its_own(tmp_path):
    rng = np.random.default_rng(2)
    x = {f"s{n}": rng.normal(size=(5 + n, 2)) for n in range(4)}
    y = {site: (rows[:, 0] > 0).astype(int) for site, rows in x.items()}
    start = {"weight": np.zeros((2, 1), np.float32), "bias": np.zeros(1, np.float32)}
    given = Job(x=x, y=y, weights={site: float(len(rows)) for site, rows in x.items()}, start=start,
                order=lambda *_: rng, cohort=lambda _: sorted(x), rounds=4, batch=3, lr=0.1)  # fmt: skip
    write_job(tmp_path / "job.npz", given, 0.5)
    found = read_job(tmp_path / "job.npz")
    assert (found.rounds, found.batch, found.lr, dict(found.weights)) == (4, 3, 0.1, dict(given.weights))
    np.testing.assert_array_equal(found.x["s3"], x["s3"].astype(np.float32))
    assert {len(set(found.cohort(number))) for number in range(9)} == {2}
    arrays, again = loop(found)[0], loop(read_job(tmp_path / "job.npz"))[0]
    assert difference(arrays, again) == 0
    assert difference(arrays, hand_made.loop(found)[0]) < 1e-6


@pytest.mark.studies
def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    held = np.ones(100 * 2**17)  # 100 MB here, which a fresh process does not have
    x, y = {"a": np.zeros((8, 2))}, {"a": np.zeros(8)}
    start = {"weight": np.zeros((2, 1), np.float32), "bias": np.zeros(1, np.float32)}
    job = Job(x=x, y=y, weights={"a": 8.0}, start=start, order=lambda *_: None, cohort=lambda _: ["a"],
              rounds=1, batch=8, lr=0.1)  # fmt: skip
    write_job(tmp_path / "job.npz", job, 1.0)
    found = in_child("alone", "W1", "hand-made", "--job", str(tmp_path / "job.npz"), seconds=60)
    assert 50 < found["peak-mb"] < peak_mb() - held.nbytes / 2**20 / 2
    assert found["losses"][0] == pytest.approx(np.log(2))
    with pytest.raises(RuntimeError, match="exit 1: "):
        in_child("alone", "W1", "hand-made", "--job", str(tmp_path / "none.npz"), seconds=60)


def test_a_round_of_the_scale_curve_is_measured_after_the_first(monkeypatch):
    monkeypatch.setattr("benchmarks.scale.workload", lambda size: replace(TINY, sites=size, spread=0.5, rounds=4))
    found = one(5, rounds=True)
    assert isinstance(found["bare-cpu-seconds-a-round"], float)
    assert len(found["cpu-by-round"]) == 3
    assert found["rows"] == sum(replace(TINY, spread=0.5).size(number) for number in range(5))
    held = one(5, rounds=False)
    assert held["cpu-by-round"] == []
    assert held["arrays-mb"] == found["arrays-mb"] == pytest.approx(found["rows"] * (4 + 2) * 8 / 2**20)


@pytest.mark.proof
def test_a_round_of_the_bare_loop_grows_with_its_steps():
    with at_work(replace(TINY, rows=400, rounds=2)) as (chosen, taking_part):
        job = run_ours(chosen, taking_part, stacked=True).job
    # A batch of one row instead of 16: ten times as many steps, whatever is done once.
    few = statistics.median(bare_seconds(job) for _ in range(5))
    many = statistics.median(bare_seconds(replace(job, batch=1)) for _ in range(5))
    assert many > 2 * few


def test_the_first_file_of_the_checkpoints_is_on_the_clock_of_the_rounds():
    with at_work(TINY) as (chosen, taking_part), conducting(chosen, taking_part, stacked=True) as conductor:
        _, kept = conductor.begin()
        assert kept.start and conductor.stages.cpu["rounds"] > 0


def test_a_straight_line_is_told_from_a_bent_one():
    assert line([1000, 3000, 10_000], [0.3, 0.7, 2.1]) == (pytest.approx(2e-4), pytest.approx(0.1), pytest.approx(1))
    # R² alone would hardly tell quadratic time through these sizes: so the price of a site is held to a limit, too.
    assert line([1000, 3000, 10_000], [0.01, 0.09, 1.0])[2] == pytest.approx(0.9804, abs=1e-4)
    assert dearer([{"sites": 1000, "cpu-seconds-a-round": 0.01}, {"sites": 10_000, "cpu-seconds-a-round": 1.0}]) == 10


GOOD = {
    **{name: {way: {"cpu-ratio": 0.3} for way in ("stacked", "one-by-one")} for name in WORKLOADS},
    "trees": {"sites-cpu-seconds": 4.0, "xgboost-cpu-seconds": 1.0, "ratio": 4.0},
    "scale": {
        "sizes": [{"sites": 9, "rows": 9, "cpu-seconds-a-round": 2.4,
                   "bare-cpu-seconds-a-round": 4.8, "cpu-ratio": 0.5, "peak-mb": 3, "holding-mb": 2, "arrays-mb": 1,
                   "memory-ratio": 1.5}],
        "r-squared": 0.99, "site-dearer": 1.0, "slope": 0.2, "intercept": 0.0,
    },
}  # fmt: skip
GOOD["deployment"] = {"ratio": 0.25}


def test_every_limit_that_is_missed_is_named():
    assert missed(GOOD) == []
    bad = json.loads(json.dumps(GOOD))
    bad["W4"]["stacked"]["cpu-ratio"], bad["W1"]["one-by-one"]["cpu-ratio"] = 0.36, 1.21
    bad["trees"]["ratio"] = 4.1
    bad["scale"]["sizes"][-1] |= {"cpu-ratio": 0.51, "memory-ratio": 1.6}
    bad["scale"] |= {"r-squared": 0.97, "site-dearer": 1.6}
    bad["deployment"] = {"ratio": 0.251}
    assert [sentence.partition(":")[0] for sentence in missed(bad)] == [
        "W4 stacked", "W1 one-by-one", "boosted trees", "scale, 9 sites", "scale, 9 sites", "scale", "scale",
        "deployment",
    ]  # fmt: skip
    assert len(missed({})) == 9


def test_the_picture_has_a_point_for_each_size_and_the_limit():
    drawn = picture(GOOD["scale"])
    assert (drawn.count("<circle"), drawn.count("stroke-dasharray")) == (1, 1)
    assert "2.40 s" in drawn


def test_the_tables_of_the_page_are_what_the_results_give():
    results = json.loads(table.RESULTS.read_text())
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.filled(text, results) == text
    assert text.count("<!-- bench: ") == len(table.PARTS)
    for name in WORKLOADS:
        assert f"{results[name]['stacked']['cpu-ratio']:.2f} (" in text
    assert results["date"] in text
    assert results["machine"]["processor"] in text
    assert table.PICTURE.read_text() == picture(results["scale"])


def test_the_readme_tells_figures_that_were_measured():
    results = json.loads(table.RESULTS.read_text())
    readme = (table.ROOT / "README.md").read_text(encoding="utf-8")
    round_of = {side: results["deployment"][side]["seconds"] for side in ("ours", "plain")}
    assert f"took {round_of['ours']:.2f} s instead of {round_of['plain']:.2f}" in readme


def test_the_figures_in_the_repository_are_of_the_whole_workloads_and_within_the_limits():
    results = json.loads(table.RESULTS.read_text())
    assert missed(results) == []
    for name in WORKLOADS:
        for figure in results[name].values():
            if "arrays-max-difference" in figure:
                assert figure["arrays-max-difference"] <= TOLERANCE["float32"]
                assert figure["arrays-max-difference-float64"] <= TOLERANCE["float64"]
                assert figure["repetitions"] >= 3
    assert [size["sites"] for size in results["scale"]["sizes"]] == [1000, 3000, 10_000]
