"""The benchmark of three institutions: what it says of runs, and that the committed figures are within the limit."""

import json
import signal
import sys
import time

import numpy as np
import pytest

from benchmarks import plain_flower, table
from benchmarks.deployment import SAME, checked, figures
from benchmarks.institutions import Missing, Processes, Ran, followed, free_name
from benchmarks.limits import DEPLOYMENT_RATIO, missed
from benchmarks.ways import DifferentResults


def ran(*seconds: float, cpu: float = 1.0, losses=(0.7, 0.5), weight=(1.0, 2.0)) -> Ran:
    return Ran(list(seconds), cpu, list(losses), {"weight": list(weight)})


def test_the_training_is_taken_from_both_and_the_ratio_is_of_medians():
    found = figures({"ours": [ran(1.5, 2.5, cpu=1), ran(3.5, cpu=2)], "plain": [ran(20.5, cpu=12)]}, 0.5)
    assert found["ours"] == {"seconds": 2.0, "seconds-low": 1.0, "seconds-high": 3.0, "cpu-seconds": 1.5, "rounds": 3}
    assert (found["ratio"], found["cpu-ratio"], found["training-seconds"]) == (0.1, 0.125, 0.5)


def test_other_arrays_or_a_loss_that_does_not_fall_give_no_figure():
    expected = {"weight": np.array([[1.0], [2.0 + SAME / 2]])}
    good = {"ours": [ran(1), ran(1)], "plain": [ran(1)]}
    assert checked(good, expected) == pytest.approx(SAME / 2, rel=1e-6)
    for wrong in (ran(1, weight=(1.0, 2.0 + 2 * SAME)), ran(1, weight=(1.0, float("nan")))):
        with pytest.raises(DifferentResults, match="differ by"):
            checked({**good, "ours": [ran(1), wrong]}, expected)
    with pytest.raises(DifferentResults, match="differ by inf"):
        checked(good, {"bias": np.zeros(1)})
    for name in good:
        with pytest.raises(DifferentResults, match=f"{name}: the loss does not fall"):
            checked({**good, name: [ran(1, losses=(0.5, 0.5))]}, expected)


def test_rounds_are_counted_from_the_end_of_the_first(tmp_path):
    out = free_name(tmp_path, "ours")
    out.with_suffix(".marks").write_text("10.0\n12.5\n13.5\n")
    out.write_text(json.dumps({"losses": [3, 2, 1], "arrays": {}}))
    assert free_name(tmp_path, "ours") != out
    assert followed(out, 3, Processes(tmp_path)).seconds == [2.5, 1.0]
    with pytest.raises(Missing, match="3 of 4 rounds"):
        followed(out, 4, Processes(tmp_path))


def test_a_process_that_fails_is_told_and_all_are_ended_with_what_they_left(tmp_path):
    side = Processes(tmp_path)
    child = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    side.start("waits", [sys.executable, "-c", child], {})
    side.start("fails", [sys.executable, "-c", "raise SystemExit('no room')"], {})
    try:
        assert side.started["fails"].wait(60) == 1
        with pytest.raises(Missing, match="fails has ended: no room"):
            side.check()
        end = time.monotonic() + 20
        while not (left := (tmp_path / "waits.log").read_text()) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        side.end()
    assert side.started["waits"].returncode == -signal.SIGTERM
    end = time.monotonic() + 5
    while _alive(int(left)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(int(left))


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_plain_flower_trains_the_logistic_regression_of_the_study():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 2)), np.array([0, 1, 0, 1, 1, 0])
    weight, bias = rng.normal(size=(2, 1)), np.zeros(1)
    config = {"server-round": 1, "batch": 6, "lr": 0.5, "l2": 0.1, "epochs": 1}
    found, moved = plain_flower.fitted(weight, bias, x, y, config)
    # One full batch: a step along the mean gradient, with the penalty's.
    residual = 1 / (1 + np.exp(-x @ weight[:, 0])) - y
    expected = weight[:, 0] - 0.5 * (x.T @ residual / 6 + 0.1 * weight[:, 0])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(moved, [-0.5 * residual.mean()], rtol=1e-12)
    p = 1 / (1 + np.exp(-x @ weight[:, 0]))
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert plain_flower.log_loss(weight, bias, x, y) == pytest.approx(loss, rel=1e-12)


def test_the_figures_in_the_repository_are_within_the_limit_and_on_the_page():
    results = json.loads(table.RESULTS.read_text())
    found = results["deployment"]
    assert DEPLOYMENT_RATIO == 0.25
    assert found["ratio"] == pytest.approx(found["ours"]["seconds"] / found["plain"]["seconds"], abs=1e-3)
    assert not [sentence for sentence in missed(results) if sentence.startswith("deployment")]
    assert found["arrays-max-difference"] <= SAME
    assert (found["sites"], found["turns"]) >= (3, 2)
    assert min(found["ours"]["rounds"], found["plain"]["rounds"]) >= 8
    page = (table.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert table.deployment(results) in page
    assert f"| **flfed** | {found['ours']['seconds']:.2f} (" in page
