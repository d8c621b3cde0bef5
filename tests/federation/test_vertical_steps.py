"""Steps of parties with different columns: the same encrypted, near the joined model, and what scores show."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from flfed.rows import party
from flfed.rows.party import QUARTER, PartyRows, Steps, quarters, residuals
from flfed.updates.vertical.residuals import ResidualKey, multiply

ROUNDS = 10
RIDGE = 0.01


def breast(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised columns and outcomes in a drawn order; the first 398 rows are for training."""
    data = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(data.target))
    x = data.data[order]
    x = np.clip((x - x[:398].mean(axis=0)) / x[:398].std(axis=0), -party.LARGEST, party.LARGEST)
    return x, data.target[order].astype(float)


def parties_of(x: np.ndarray, places: list[list[int]]) -> list[PartyRows]:
    """Return parties' rows, of which the first has the outcome and an intercept."""
    rows = []
    for number, columns in enumerate(places):
        part = x[:, columns]
        if number == 0:
            part = np.column_stack([part, np.ones(len(part))])
        rows.append(PartyRows(None, None, np.arange(len(columns)), part[:398], part[398:]))
    return rows


def run(rows: list[PartyRows], y: np.ndarray, *, key=None, leave=lambda scores: quarters(scores) * QUARTER):
    """Return each party's last weights, and the scores that the last party told."""
    steps = [Steps(one, len(rows), "binary", RIDGE) for one in rows]
    weights = [one.start() for one in steps]
    public = key.public() if key else b""
    told = []
    for round in range(1, ROUNDS + 1):
        partial = [leave(one.training @ weight.ahead) for one, weight in zip(rows[1:], weights[1:], strict=True)]
        told.append(partial[-1])
        residual = residuals(rows[0].training @ weights[0].ahead + sum(partial), y[:398], "binary")
        sums = [one.training.T @ residual for one in rows]
        if key:
            sent = key.encrypt(residual)
            for number, one in enumerate(rows[1:], 1):
                products = multiply(sent, one.training, public)
                sums[number] = key.open(products.ciphertexts, *one.training.shape) - products.masks
        weights = [step.stepped(*rest, round) for step, *rest in zip(steps, weights, sums, strict=True)]
    return [weight.now for weight in weights], np.array(told).T


SPLITS = [[list(range(10)), list(range(10, 30))], [list(range(10)), list(range(10, 20)), list(range(20, 30))]]


# Sums leave in multiples of 2⁻⁸, which the inverse of the steps enlarges: arrays are then up to 1.2e-3 off.
@pytest.mark.parametrize(("step", "bound"), [(2.0**-40, 1e-4), (2.0**-8, 3e-3)])
@pytest.mark.parametrize("places", SPLITS)
def test_encrypted_steps_are_those_without_encryption(places, step, bound, monkeypatch):
    pytest.importorskip("tenseal")
    monkeypatch.setattr("flfed.updates.vertical.residuals.STEP", step)
    x, y = breast()
    rows = parties_of(x, places)

    encrypted, _ = run(rows, y, key=ResidualKey.new())
    plain, _ = run(rows, y)

    for one, other in zip(encrypted, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=bound)


@pytest.mark.parametrize("places", SPLITS)
def test_the_joined_model_ranks_as_the_regression_on_the_joined_table(places):
    x, y = breast()
    rows = parties_of(x, places)
    weights, _ = run(rows, y)
    scores = sum(one.holdout @ weight for one, weight in zip(rows, weights, strict=True))
    pooled = LogisticRegression(C=1 / (RIDGE * 398), max_iter=5000).fit(x[:398], y[:398])

    difference = roc_auc_score(y[398:], scores) - roc_auc_score(y[398:], pooled.decision_function(x[398:]))
    print(f"difference of AUC {difference:+.4f}")
    assert abs(difference) <= 0.004


def columns_read(x: np.ndarray, y: np.ndarray, leave, *, seed: int, scores: bool = True) -> float:
    """Return the median correlation of columns with what a label party that knows 25 people computes of them."""
    rows = parties_of(x, SPLITS[0])
    _, told = run(rows, y, leave=leave)
    seen = rows[0].training[:, :-1]
    if scores:
        seen = np.column_stack([seen, told / told.std(axis=0).clip(1e-9)])
    known = np.random.default_rng(seed).permutation(398)[:25]
    rest = np.setdiff1d(np.arange(398), known)
    read = []
    for column in rows[1].training.T:
        guess = Ridge(1e-3 if scores and leave is exactly else 1.0).fit(seen[known], column[known]).predict(seen[rest])
        read.append(abs(np.corrcoef(guess, column[rest])[0, 1]))
    return float(np.median(read))


def exactly(scores):
    return scores


def in_quarters(scores):
    return quarters(scores) * QUARTER


def test_scores_in_quarters_show_less_of_columns_than_scores_with_all_digits():
    x, y = breast()
    own, by_quarters, exact = (
        np.median([columns_read(x, y, leave, seed=seed, scores=scores) for seed in range(5)])
        for leave, scores in ((in_quarters, False), (in_quarters, True), (exactly, True))
    )
    print(f"own columns {own:.2f}, quarters {by_quarters:.2f}, all digits {exact:.2f}")
    assert by_quarters <= 0.90
    assert exact > by_quarters
