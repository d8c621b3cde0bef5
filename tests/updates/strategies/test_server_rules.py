"""Server rules: momentum, adaptive rates and normalised steps, each against its formula by hand."""

import numpy as np
import pytest

from flfed.errors import UsageError
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.guard import GuardResult
from flfed.updates.aggregation.rounds import Round, RunContext
from flfed.updates.messages.train import TrainReply
from flfed.updates.strategies.fedadagrad import FedAdagrad
from flfed.updates.strategies.fedadam import FedAdam
from flfed.updates.strategies.fedavg import FedAvg
from flfed.updates.strategies.fedavgm import FedAvgM
from flfed.updates.strategies.fednova import FedNova
from flfed.updates.strategies.fedyogi import FedYogi

START = {"weight": np.array([[1.0], [-2.0]]), "bias": np.array([0.5])}
WEIGHTS = {"a": 1.0, "b": 3.0}
# Mean updates, weighted 1 : 3, of two rounds: weight (0.4, -0.2) then (-0.1, 0.6), bias 0.8 then 0.
ROUNDS = [
    {"a": {"weight": [[1.0], [1.0]], "bias": [2.0]}, "b": {"weight": [[0.2], [-0.6]], "bias": [0.4]}},
    {"a": {"weight": [[0.5], [0.0]], "bias": [0.0]}, "b": {"weight": [[-0.3], [0.8]], "bias": [0.0]}},
]
FIRST, SECOND = np.array([0.4, -0.2, 0.8]), np.array([-0.1, 0.6, 0.0])


def vector(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(arrays["weight"]), arrays["bias"]])


def after(strategy: FedAvg, rounds: int) -> np.ndarray:
    """Return the model after some rounds, as one vector."""
    model = START
    for deltas in ROUNDS[:rounds]:
        given = {site: {name: np.array(value) for name, value in delta.items()} for site, delta in deltas.items()}
        model = strategy.combine(model, given, WEIGHTS)
    return vector(model)


def test_momentum_adds_up_the_mean_updates():
    expected = vector(START) + 0.5 * FIRST
    np.testing.assert_allclose(after(FedAvgM(momentum=0.9, server_lr=0.5), 1), expected, rtol=1e-14)
    expected = expected + 0.5 * (0.9 * FIRST + SECOND)
    np.testing.assert_allclose(after(FedAvgM(momentum=0.9, server_lr=0.5), 2), expected, rtol=1e-14)
    assert (after(FedAvgM(momentum=0.0), 2) == after(FedAvg(), 2)).all()


def moments(kind: type[FedAdagrad]) -> tuple[np.ndarray, np.ndarray]:
    """Return the second moments after each of the two rounds, by the formulas of Reddi et al. 2021, algorithm 2."""
    if kind is FedAdagrad:
        return FIRST**2, FIRST**2 + SECOND**2
    first = 0.01 * FIRST**2
    if kind is FedAdam:
        return first, 0.99 * first + 0.01 * SECOND**2
    return first, first - 0.01 * SECOND**2 * np.sign(first - SECOND**2)


@pytest.mark.parametrize("kind", [FedAdagrad, FedAdam, FedYogi])
def test_adaptive_rates_divide_the_first_moment_by_the_root_of_the_second(kind):
    m, (v, w) = 0.1 * FIRST, moments(kind)
    expected = vector(START) + 0.3 * m / (np.sqrt(v) + 1e-3)
    np.testing.assert_allclose(after(kind(server_lr=0.3), 1), expected, rtol=1e-12)
    expected = expected + 0.3 * (0.9 * m + 0.1 * SECOND) / (np.sqrt(w) + 1e-3)
    np.testing.assert_allclose(after(kind(server_lr=0.3), 2), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", [FedAvgM, FedAdagrad, FedAdam, FedYogi])
def test_a_rule_that_goes_on_has_its_moments(kind):
    def going(strategy: FedAvg) -> FedAvg:
        strategy.assign(run_of(Plan()))
        return strategy

    whole, broken, forgetful = (going(kind()) for _ in range(3))
    expected = after(whole, 2)
    after(broken, 1)
    resumed = going(kind())
    resumed.restore(1, *broken.state())
    model = {name: value.copy() for name, value in START.items()}
    model = going(kind()).combine(model, arrays_of(ROUNDS[0]), WEIGHTS)
    assert (vector(resumed.combine(model, arrays_of(ROUNDS[1]), WEIGHTS)) == expected).all()
    assert np.abs(vector(forgetful.combine(model, arrays_of(ROUNDS[1]), WEIGHTS)) - expected).max() > 1e-3


def arrays_of(deltas) -> dict[str, dict[str, np.ndarray]]:
    return {site: {name: np.array(value) for name, value in delta.items()} for site, delta in deltas.items()}


def run_of(plan: Plan) -> RunContext:
    none = np.zeros(1)
    encoder = Encoder(center=none, scale=none + 1, frequency=none, spread=none + 1, class_weight=np.ones(2))
    return RunContext(participants={}, encoder=encoder, plan=plan, rounds=2, seed=1)


def normalised(steps: dict[str, int], plan: Plan) -> np.ndarray:
    """Return the model of one round in which the sites made some steps."""
    strategy = FedNova()
    strategy.assign(run_of(plan))
    deltas = arrays_of(ROUNDS[0])
    replies = {
        site: TrainReply(delta=deltas[site], num_examples=WEIGHTS[site], loss=0.4, steps=steps[site]) for site in deltas
    }
    strategy.round = Round(result=GuardResult(accepted=replies))
    return vector(strategy.combine(START, deltas, WEIGHTS))


def test_updates_are_normalised_by_their_steps():
    a, b = (vector(ROUNDS[0][site]) for site in "ab")
    # Effective steps 0.25 * 20 + 0.75 * 4 = 8, of updates a / 20 and b / 4.
    expected = vector(START) + 8 * (0.25 * a / 20 + 0.75 * b / 4)
    np.testing.assert_allclose(normalised({"a": 20, "b": 4}, Plan()), expected, rtol=1e-14)
    assert (normalised({"a": 7, "b": 7}, Plan()) == after(FedAvg(), 1)).all()
    # A site without a step sent nothing, and its weight stays: effective steps 0.75 * 4 = 3.
    np.testing.assert_allclose(normalised({"a": 0, "b": 4}, Plan()), vector(START) + 3 * 0.75 * b / 4, rtol=1e-14)


def test_steps_with_momentum_count_as_the_gradients_in_them():
    r = 0.9
    weighs = [sum(r**k for k in range(steps)) for steps in range(1, 21)]  # of each gradient, the last one first
    twenty, four = sum(weighs), sum(weighs[:4])
    a, b = (vector(ROUNDS[0][site]) for site in "ab")
    mean = 0.25 * twenty + 0.75 * four
    expected = vector(START) + mean * (0.25 * a / twenty + 0.75 * b / four)
    np.testing.assert_allclose(normalised({"a": 20, "b": 4}, Plan(momentum=r)), expected, rtol=1e-12)


def test_steps_of_another_optimiser_normalise_nothing():
    with pytest.raises(UsageError, match=r"\[strategy\] fednova: optimiser='adam' .* take 'sgd'"):
        FedNova().check(Plan(optimiser="adam"))
