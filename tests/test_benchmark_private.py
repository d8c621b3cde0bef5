"""The benchmark of protected steps: it times like with like, and the committed figures are within the limits."""

import json
from functools import partial

import numpy as np
import pytest

from benchmarks import table
from benchmarks.limits import OPACUS_OVER_PRIVATE, PRIVATE_OVER_PLAIN, missed
from benchmarks.private_steps import BATCH, ROWS, SAME, SHAPES, WAYS, checked, figures, job, ours, timed
from benchmarks.ways import DifferentResults

SMALL = [job((5, 1), 60), job((4, 6, 3, 1), 60)]


@pytest.mark.parametrize("given", SMALL, ids=["logistic", "mlp"])
def test_the_three_sides_take_the_same_step_and_another_one_gives_no_figure(given):
    assert checked(given) <= SAME["Opacus"]

    def off(given, steps, **how):
        return {name: 1.01 * value for name, value in ours(given, steps, **how).items()}

    def tighter(given, steps, *, clip, **how):
        return ours(given, steps, clip=0.9 * clip, **how)

    for wrong, whom in ((off, "Opacus"), (tighter, "Opacus"), (partial(ours, lr=0.11), "Opacus")):
        with pytest.raises(DifferentResults, match=f"differ by .* from those of {whom}"):
            checked(given, wrong)


def test_every_side_learns_and_draws_its_own_samples():
    given = job((5, 1), 200)
    found = {name: way(given, 40, **({"batch": 20} if name == "plain" else {})) for name, way in WAYS.items()}
    for arrays in found.values():
        outputs = given.rows.x @ arrays["weight"] + arrays["bias"]
        assert ((outputs[:, 0] > 0) == given.rows.y).mean() > 0.6
    assert len({arrays["weight"].tobytes() for arrays in found.values()}) == len(WAYS)
    assert BATCH / ROWS == 0.1


def test_ratios_are_turn_by_turn_and_times_are_medians():
    took = {"plain": [1.0, 2.0, 4.0], "ours": [2.0, 3.0, 4.0], "ours-system": [3.0, 4.0, 8.0], "opacus": [20, 18, 16]}
    found = figures(took)
    assert (found["plain-microseconds"], found["opacus-microseconds"]) == (2.0, 18)
    assert [found[f"over-plain{end}"] for end in ("", "-low", "-high")] == [1.5, 1.0, 2.0]
    assert [found[f"opacus-over-ours{end}"] for end in ("", "-low", "-high")] == [6.0, 4.0, 10.0]
    assert found["system-over-plain"] == 2.0
    timing = timed(SMALL[0], 2, dict.fromkeys(WAYS, 2))
    assert {name: len(each) for name, each in timing.items()} == dict.fromkeys(WAYS, 2)
    assert np.min(list(timing.values())) > 0


def test_the_figures_in_the_repository_are_within_the_limits_and_on_the_page():
    results = json.loads(table.RESULTS.read_text())
    found = results["private-steps"]
    assert (PRIVATE_OVER_PLAIN, OPACUS_OVER_PRIVATE) == (1.5, 5.0)
    assert not [sentence for sentence in missed(results) if sentence.startswith("private steps")]
    assert set(found["shapes"]) == set(SHAPES) and found["turns"] >= 5 and found["batch"] == 256
    for shape in found["shapes"].values():
        assert shape["arrays-max-difference"] <= SAME["Opacus"]
        assert shape["over-plain"] == pytest.approx(shape["ours-microseconds"] / shape["plain-microseconds"], rel=0.3)
    page = (table.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert table.private_steps(results) in page
