"""Best round, early stop and plateau: decided by validation losses, and by nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from flfed.errors import UsageError
from flfed.study.plan import Plan
from flfed.updates.aggregation.selection import IMPROVEMENT, Selection
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record
from tests.updates.whole_requests import ENCODER, whole_request

HELD = Plan(validation=0.2)
START = {"w": np.zeros(2)}


def followed(losses: list[float | None], plan: Plan = HELD) -> Selection:
    """A selection that saw these losses of the models of rounds 0, 1, ..."""
    selection = Selection(plan)
    for number, loss in enumerate(losses):
        selection.see(number, {"w": np.full(2, float(number))}, loss)
    return selection


def test_the_best_round_is_the_first_of_the_lowest_loss():
    found = followed([0.9, 0.5, 0.3, 0.3, 0.4])
    assert (found.best_round, found.best_loss) == (2, 0.3)
    np.testing.assert_array_equal(found.best_arrays["w"], [2.0, 2.0])


def test_a_change_by_rounding_is_no_improvement_and_nan_never_is():
    assert followed([0.5, 0.5 - IMPROVEMENT / 2]).best_round == 0
    assert followed([0.5, 0.5 - 2 * IMPROVEMENT]).best_round == 1
    assert followed([0.5, float("nan"), float("-inf")][:2]).best_round == 0


@pytest.mark.parametrize(("losses", "rounds"), [
    ([5, 4, 3, 2], 0), ([5, 4, 4], 1), ([5, 4, 4, 4], 2),
    ([5, 4, 4, 3, 3], 1),  # an improvement starts the count anew
    ([5, None, None, None], 0),  # a round without a loss says nothing
    ([1, 2, 3, 4, 5, 6], 5),
])  # fmt: skip
def test_rounds_are_counted_since_the_best(losses, rounds):
    assert followed(losses).since_best == rounds


@pytest.mark.parametrize(("patience", "rounds"), [(0, 6), (1, 3), (2, 4), (3, 5)])
def test_a_run_waits_as_many_rounds_as_its_patience_and_0_is_for_ever(bench, sites, reply, patience, rounds):
    strategy = FedAvg(patience=patience)
    run_of(bench, sites, reply, strategy, [9, 1, 2, 3, 4, 5, 6])
    assert strategy.rounds_done == rounds


def test_a_plateau_multiplies_the_learning_rate_after_its_patience_and_starts_anew():
    plan = Plan(schedule="plateau", plateau_patience=2, validation=0.2)
    scales = [followed([1.0] * length, plan).lr_scale for length in range(1, 8)]
    assert scales == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert followed([1.0, 1.0, 0.9, 0.9], plan).lr_scale == 1.0
    assert followed([1.0] * 9, HELD).lr_scale == 1.0  # only where the plan says plateau


# In a run: the loss of the model that came into round r is that of round r - 1.


def run_of(bench, sites, reply, strategy, losses, plan=HELD, rounds=6, rows="validation", delta=1.0):
    """Run rounds whose incoming models have these federated losses; each round adds 1 to w."""
    made = bench(strategy, 3, plan=plan, rounds=rounds)

    def answer(site, number, arrays):
        base = reply(0, like=START, loss=losses[min(number - 1, len(losses) - 1)])
        return replace(base, delta={"w": np.full(2, delta)}, scores=replace(base.scores, rows=rows))

    grid = sites(made, answer)
    return made, grid, to_arrays(strategy.start(grid, to_record(START), rounds).arrays)["w"]


def test_the_last_model_is_the_result_by_default(bench, sites, reply):
    strategy = FedAvg()
    made, _, w = run_of(bench, sites, reply, strategy, [9, 1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(w, 6.0)
    assert (strategy.best_round, strategy.rounds_done, strategy.stopped) == (6, 6, "")
    assert [record.model_round for record in made.records] == list(range(7))


def test_the_best_round_by_validation_loss_is_the_result_where_asked_for(bench, sites, reply):
    # The model of round 2 came into round 3 with the lowest loss.
    strategy = FedAvg(select="best")
    _, _, w = run_of(bench, sites, reply, strategy, [9, 4, 1, 3, 4, 5, 6])
    np.testing.assert_allclose(w, 2.0)
    assert strategy.best_round == 2


def test_the_last_evaluation_can_make_the_last_round_the_best(bench, sites, reply):
    strategy = FedAvg(select="best")
    _, _, w = run_of(bench, sites, reply, strategy, [9, 8, 7, 6, 5, 4, 3])
    np.testing.assert_allclose(w, 6.0)


def test_a_run_stops_early_after_its_patience_and_keeps_the_best(bench, sites, reply):
    strategy = FedAvg(select="best", patience=2)
    made, grid, w = run_of(bench, sites, reply, strategy, [9, 1, 2, 3, 4, 5, 6])
    # Models 0..3 were scored as they came into rounds 1..4; after 2 rounds without a better one it ends.
    assert strategy.rounds_done == 4 and not strategy.stopped
    assert max(number for _, number in grid.asked) == 4
    np.testing.assert_allclose(w, 1.0)
    assert made.records[-1].round == 5  # the last evaluation follows


@pytest.mark.parametrize("rows", ["training", "validation"])
def test_training_rows_decide_nothing(bench, sites, reply, rows):
    strategy = FedAvg(select="best", patience=2)
    _, _, w = run_of(bench, sites, reply, strategy, [9, 1, 2, 3, 4, 5, 6], rows=rows)
    np.testing.assert_allclose(w, 1.0 if rows == "validation" else 6.0)


def test_the_federated_loss_weighs_sites_by_their_validation_rows(bench, sites):
    from flfed.updates.messages.train import TrainReply

    strategy = FedAvg(select="best")
    made = bench(strategy, 2, plan=HELD, rounds=1)

    def answer(site, number, arrays):
        n, loss = (30, 1.0) if site == made.names[0] else (10, 5.0)
        scores = Scores(rows="validation", num_examples=n, metrics={"loss": loss})
        return TrainReply(delta={"w": np.ones(2)}, num_examples=7, loss=0.1, steps=1, scores=scores)

    strategy.start(sites(made, answer), to_record(START), 1)
    assert strategy.selection.best_loss == pytest.approx((30 * 1 + 10 * 5) / 40)


def test_a_round_that_a_site_did_not_answer_is_neither_the_best_nor_counted_for_patience(bench, sites, reply):
    # Without the third site, whose loss is high, the mean that came in round 3 would be the lowest of all.
    for strategy in (FedAvg(select="best", quorum=0.5), FedAvg(select="best", quorum=0.5, patience=1)):
        made = bench(strategy, 3, plan=HELD, rounds=6)

        def answer(site, number, arrays, last=made.names[-1]):
            if (site, number) == (last, 3):
                return None
            return replace(reply(0, like=START, loss=9 - number + 30 * (site == last)), delta={"w": np.ones(2)})

        result = strategy.start(sites(made, answer), to_record(START), 6)
        np.testing.assert_allclose(to_arrays(result.arrays)["w"], 6.0)
        assert (strategy.best_round, strategy.rounds_done) == (6, 6)
        assert strategy.selection.best_loss == pytest.approx(9 - 7 + 30 / 3)


def test_the_plateau_reaches_the_sites_as_a_scale_of_their_learning_rate(bench, sites, reply):
    strategy = FedAvg()
    plan = Plan(schedule="plateau", plateau_patience=1, validation=0.2)
    made = bench(strategy, 2, plan=plan, rounds=4)
    scales = []

    class Listening(sites):
        def send_and_receive(self, messages, *, timeout=None):
            scales.append({whole_request(message, ENCODER).lr_scale for message in messages})
            return super().send_and_receive(messages, timeout=timeout)

    strategy.start(Listening(made, lambda *_: reply(0, like=START, loss=1.0)), to_record(START), 4)
    # Round 1 sets the best; from round 2 on each round is one without improvement.
    np.testing.assert_allclose([scale.pop() for scale in scales], [1, 1, 0.5, 0.25, 0.125])


def test_a_round_that_was_asked_twice_counts_once_for_patience(bench, sites, reply):
    strategy = FedAvg(patience=2, quorum=1.0)
    made = bench(strategy, 2, plan=HELD, rounds=4)
    calls = []

    def answer(site, number, arrays):
        calls.append((site, number))
        first = calls.count((site, number)) == 1
        return None if site == made.names[1] and first else reply(0, like=START, loss=1.0)

    strategy.start(sites(made, answer), to_record(START), 4)
    # Model 0 is the best; models 1 and 2 are no better: over after round 3, not after round 2.
    assert strategy.rounds_done == 3


@pytest.mark.parametrize("given", [{"select": "best"}, {"patience": 3}])
def test_selection_without_validation_rows_is_refused(bench, given):
    with pytest.raises(UsageError, match="reads validation rows"):
        bench(FedAvg(**given), plan=Plan(validation=0.0))


@pytest.mark.parametrize("given", [{"select": "best"}, {"patience": 3}])
def test_selection_among_changing_cohorts_is_refused(given):
    with pytest.raises(UsageError, match="fraction=0.5 cannot be combined with"):
        FedAvg(fraction=0.5, **given).check(Plan(validation=0.2))
    with pytest.raises(UsageError, match="cannot be combined with schedule='plateau'"):
        FedAvg(fraction=0.5).check(Plan(validation=0.2, schedule="plateau"))
    FedAvg(fraction=0.5).check(Plan(validation=0.2))
