"""What one row within the ranges changes in a protected update: by its gradient, or through the encoder."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import encode
from flfed.rows.features.summarise import layout_of, summarise
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.answer import compute_stacked
from flfed.rows.training.private_noise import SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder
from flfed.updates.mechanism import mechanism_of

EPSILON, DELTA, CONFIDENCE = 1.0, 1e-3, 0.95
SCHEMA = Schema.model_validate({
    "name": "incomes", "task": "binary", "target": "late",
    "columns": {
        "income": {"kind": "number", "range": [0, 1_000_000], "typical": [0, 60_000], "typical-source": "a test"},
        "age": {"kind": "number", "range": [18, 100]}, "late": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip
STUDY = Study.parse(f"""
format = 1
name = "incomes"
purpose = "Test"
legal-basis = "none needed"
[dataset]
name = "incomes"
[model]
name = "logistic"
[plan]
lr = 0.5
steps = 10
[strategy]
name = "fedavg"
rounds = 1
[privacy]
name = "record-dp"
epsilon = {EPSILON}
delta = {DELTA}
clip = 1.0
sampling = 0.2
""")


def two_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of a site, and the same with one more: an income that the schema allows, far above all others."""
    rng = np.random.default_rng(11)
    income, age = rng.normal(30_000, 12_000, 200).clip(0, 1_000_000), rng.uniform(18, 90, 200)
    late = np.where(rng.random(200) < 1 / (1 + np.exp((income - 30_000) / 8_000)), "yes", "no")
    table = pd.DataFrame({"income": income, "age": age, "late": late})
    more = pd.DataFrame({"income": [1_000_000.0], "age": [50.0], "late": ["yes"]})
    return table, pd.concat([table, more], ignore_index=True)


def updates(table: pd.DataFrame, scaler: str, runs: int, seed: int) -> np.ndarray:
    """Return what a site sends in each of so many runs of one round, each with noise of its own: [runs, numbers]."""
    layout = layout_of(SCHEMA, SCHEMA.features())
    rows = encode(table, layout, fit_encoder(layout, summarise(table, layout), scaler))
    mechanism = mechanism_of(STUDY)
    assert mechanism is not None
    private = mechanism.private_steps(STUDY.plan, STUDY.rounds)
    found = []
    for start in range(0, runs, 200):
        requests = []
        for run in range(start, min(runs, start + 200)):
            rng = np.random.default_rng([seed, run])
            arrays = Logistic().first_arrays(2, 1, rng)
            requests.append(
                FitRequest(
                    model=Logistic(), task="binary", arrays=arrays, rows=rows, plan=STUDY.plan, lr=STUDY.plan.lr,
                    rng=rng, delta=True, private=private, chance=SeededNoise(rng),
                )  # fmt: skip
            )  # fmt: skip
        found += [
            np.append(fitted.arrays["weight"].ravel(), fitted.arrays["bias"]) for fitted in compute_stacked(requests)
        ]
    return np.array(found)


def scores(scaler: str, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each update without and with the row, along the direction that tells them apart best.

    The direction (Fisher's) is found on other runs, as many again.
    """
    worlds = [updates(table, scaler, 2 * runs, seed + place) for place, table in enumerate(two_tables())]
    spread = sum(np.cov(world[runs:].T) for world in worlds)
    direction = np.linalg.solve(spread, worlds[1][runs:].mean(axis=0) - worlds[0][runs:].mean(axis=0))
    without, there = (world[:runs] @ direction for world in worlds)
    return without, there


def separation(without: np.ndarray, there: np.ndarray) -> float:
    """Return how far the means lie apart, in standard deviations."""
    return abs(float(there.mean() - without.mean())) / math.sqrt((without.var() + there.var()) / 2)


def lower_bound(without: np.ndarray, there: np.ndarray) -> float:
    """Return an ε that the mechanism certainly exceeds at δ, with 95 % confidence (Clopper-Pearson at each end).

    The threshold is chosen on the first half of the runs, the bound is of the other half; both directions count.
    """

    def bound(zero: np.ndarray, one: np.ndarray, cut: float) -> float:
        least = stats.binomtest(int((one > cut).sum()), len(one)).proportion_ci(CONFIDENCE).low
        most = stats.binomtest(int((zero > cut).sum()), len(zero)).proportion_ci(CONFIDENCE).high
        return math.log(max(least - DELTA, 1e-9) / most)

    half, best = len(without) // 2, []
    for zero, one in ((without, there), (-there, -without)):
        cuts = np.quantile(np.concatenate([zero[:half], one[:half]]), np.linspace(0.05, 0.99, 60))
        cut = max(cuts, key=lambda c: bound(zero[:half], one[:half], float(c)))
        best.append(bound(zero[half:], one[half:], float(cut)))
    return max(best)


@pytest.mark.studies
def test_by_the_schema_one_row_moves_an_update_by_its_own_gradients_alone():
    # One row in a share q of T steps, by at most the clip, against noise of σ clips a step:
    # q √T / σ deviations, 0.35 to 0.45 for ε = 1.
    assert separation(*scores("schema", 400, 1)) <= 0.65


def test_by_means_and_deviations_of_the_rows_it_moves_those_of_all_others():
    assert separation(*scores("global", 400, 1)) >= 0.8


@pytest.mark.proof
def test_the_promise_holds_by_the_schema_and_only_given_the_encoder_otherwise():
    assert lower_bound(*scores("schema", 4000, 3)) <= EPSILON
    assert lower_bound(*scores("global", 4000, 3)) > EPSILON
