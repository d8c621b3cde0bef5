"""Secure sums against plain ones: arrays of real studies, many sites and rounds, largest and least numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flfed import Study, run
from flfed.refusals import Refusal
from flfed.rows.data.datasets import Dataset
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.masks.ckks import STEP
from flfed.updates.masks.ring import LARGEST_ENTRY, ring_of_counts, rings

MLP = {"model.name": "mlp", "model.hidden": [16]}
QUICK = {"compare.resamples": 200, "compare.site-model": "same"}


def arrays_of(study: Study, asked: str, **given: Any) -> Arrays:
    """Return the last model of a run in one process."""
    done = run(study.replace({**QUICK, "privacy.secure-aggregation": asked}), **given)
    assert done.status == "completed", done.report
    return checkpoints.final(done.run).arrays


def max_difference(a: Arrays, b: Arrays) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "changes", "asked", "most"),
    [
        ("heart-disease", {}, "on", 1e-6), ("preterm-birth", {}, "on", 1e-6), ("heart-disease", MLP, "on", 1e-4),
        ("taiwan-credit-trees", {"strategy.rounds": 20}, "on", 0.0), ("heart-disease", {}, "ckks", 1e-5),
    ],
)  # fmt: skip
def test_the_model_of_a_shipped_study_is_that_of_plain_sums(
    name: str, changes: dict[str, Any], asked: str, most: float, heart: Dataset, taiwan: Dataset
):
    study = Study.load(name).replace(changes)
    assert max_difference(arrays_of(study, asked), arrays_of(study, "off")) <= most


@pytest.mark.proof
def test_the_coefficients_of_a_shipped_study_are_those_of_plain_sums():
    study = Study.load("stroke-logistic")
    found = [
        run(study.replace({"privacy.secure-aggregation": asked})).report["statistics"]["coefficients"]
        for asked in ("on", "off")
    ]
    assert found[0].keys() == found[1].keys()
    for name, one in found[1].items():
        assert found[0][name]["value"] == pytest.approx(one["value"], abs=1e-8)


@pytest.mark.proof
@pytest.mark.parametrize("sites", [4, 10])
def test_two_hundred_rounds_do_not_drift(small_sites: Callable[..., list[Site]], small_study: str, sites: int):
    found = small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True))
    study = Study.parse(small_study).replace({"strategy.rounds": 200})
    plain = arrays_of(study, "off", sites=found)
    assert max_difference(arrays_of(study, "on", sites=found), plain) < 1e-6
    if sites == 4:
        assert max_difference(arrays_of(study, "ckks", sites=found), plain) < 1e-5 < 200 * STEP


def test_sixty_four_sites_of_a_million_rows_are_added_exactly_or_refused():
    rng = np.random.default_rng(0)
    updates, weights = rings(64, LARGEST_ENTRY)
    step = 1 / updates.scale
    for size in (1e-12, 1e-6, 1.0, LARGEST_ENTRY):
        values = rng.uniform(-size, size, (64, 1_000))
        total = updates.add([updates.encode(one, rng) for one in values])
        assert np.abs(updates.decode(total) - values.sum(axis=0)).max() <= 64 * step
        # Rounding up or down at random is right in the mean: within six standard errors.
        error = float(np.mean(updates.decode(total) - values.sum(axis=0)))
        assert abs(error) < 6 * step * np.sqrt(64 / 4 / 1_000)
    assert updates.encode(np.array([1e6]), rng) == Refusal("entry-too-large", limit="8")
    counts = ring_of_counts(64, 1e6)
    rows = rng.integers(0, 1_000_000, (64, 1_000)).astype(float)
    rows[:, 0] = 1e6
    total = counts.add([counts.encode(one, rng) for one in rows])
    assert np.array_equal(counts.decode(total), rows.sum(axis=0))
    total = weights.add([weights.encode(np.ones(1), rng) for _ in range(64)])
    assert weights.decode(total)[0] == pytest.approx(64, abs=1e-12)
