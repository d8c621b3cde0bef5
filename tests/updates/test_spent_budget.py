"""A site that has no privacy budget left: it is not asked again in the round, and a run says that it ended for it."""

import numpy as np
import pytest
from flwr.app import Error, Message

from flfed.refusals import Refusal, recorded
from flfed.updates.aggregation.guard import GuardResult
from flfed.updates.aggregation.rounds import Round
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

SPENT = "privacy budget: "

START = {"weight": np.array([[1.0], [2.0]]), "bias": np.array([0.5])}
SAID = f"{SPENT}epsilon 2.9 of 3 is spent at delta 1e-05, and the run would make it 3.2"


class Broke:
    """A grid on whose sites some have nothing left from a round on, and some fail in the first attempt of a round."""

    def __init__(self, made, sites, reply, spent, failing=()):
        self.inner = sites(made, lambda name, number, arrays: reply(number, like=START))
        self.made, self.spent, self.failing, self.asked = made, spent, dict(failing), list[tuple[str, int]]()

    def send_and_receive(self, messages, *, timeout=None):
        good, answers = [], []
        for message in messages:
            name = next(n for n, node in self.made.nodes.items() if node == message.metadata.dst_node_id)
            number, train = int(message.metadata.group_id), message.metadata.message_type == "train"
            self.asked += [(name, number)] if train else []
            message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
            if train and number >= self.spent.get(name, 99):
                answers.append(Message(Error(0, SAID), reply_to=message))
            elif train and self.failing.get(name, -1) > 0 and number == 2:
                self.failing[name] -= 1
                answers.append(Message(Error(0, "RuntimeError: see the site's log"), reply_to=message))
            else:
                good.append(message)
        return [*answers, *self.inner.send_and_receive(good, timeout=timeout)]


def run(bench, sites, reply, spent, failing=(), **settings):
    made = bench(FedAvg(**settings), 4, rounds=3)
    grid = Broke(made, sites, reply, spent, failing)
    return made, grid, to_arrays(made.strategy.start(grid, to_record(START), 3).arrays)


def test_a_round_goes_on_without_a_site_that_has_spent_all_and_its_record_names_it(bench, sites, reply):
    made, grid, _ = run(bench, sites, reply, {"site-02": 2})
    assert made.strategy.stopped == "" and made.strategy.rounds_done == 3
    assert [record.refused for record in made.records] == [{}, {"site-02": SAID}, {"site-02": SAID}, {}]
    assert [record.fit for record in made.records] == [True, True, True, False]
    assert [grid.asked.count(("site-02", number)) for number in (1, 2, 3)] == [1, 1, 1]


def test_it_is_not_asked_a_second_time_in_a_round_where_others_are(bench, sites, reply):
    made, grid, _ = run(bench, sites, reply, {"site-02": 2}, {"site-03": 1})
    assert made.strategy.stopped == "" and made.strategy.rounds_done == 3
    assert [grid.asked.count((f"site-0{n}", 2)) for n in (1, 2, 3, 4)] == [2, 1, 2, 2]
    assert made.records[1].refused == {
        "site-02": SAID, "site-03": "RuntimeError: see the site's log (first attempt)"
    }  # fmt: skip
    assert made.records[1].sampled_sites == tuple(made.names)  # it counts as one that was asked, and did not answer


def test_a_run_without_a_quorum_for_want_of_budget_stops_with_the_last_good_model_and_says_why(bench, sites, reply):
    one, _, after_one = run(bench, sites, reply, {})
    made, grid, arrays = run(bench, sites, reply, {"site-01": 2, "site-04": 2})
    assert made.strategy.stopped.startswith(f"{SPENT}none left at site-01, site-04; round 2 had 2 good updates of 4")
    assert made.strategy.rounds_done == 1 and len(made.records) == 2
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, one.records[0].arrays[name])
    assert max(np.abs(after_one[name] - arrays[name]).max() for name in arrays) > 0.1
    # Those who have some left do not train, and spend, a second time for a round that cannot be.
    assert [grid.asked.count((name, 2)) for name in made.names] == [1, 1, 1, 1]


def test_where_others_fail_too_they_are_asked_again_before_the_run_stops(bench, sites, reply):
    made, grid, _ = run(bench, sites, reply, {"site-02": 2}, {"site-03": 2})
    assert made.strategy.stopped.startswith(f"{SPENT}none left at site-02; round 2 had 2 good updates of 4 asked")
    assert "site-03: RuntimeError" in made.strategy.stopped
    assert [grid.asked.count((f"site-0{n}", 2)) for n in (1, 2, 3, 4)] == [2, 1, 2, 2]


@pytest.mark.parametrize("spent", [True, False])
def test_only_a_budget_that_is_spent_is_called_one(spent):
    reason = recorded(SAID if spent else "its privacy budget: unknown")
    result = GuardResult(accepted=dict.fromkeys("cd"), refused={"a": reason, "b": Refusal("no-reply")})
    said = Round(number=7, asked=dict.fromkeys("abcd", 1), result=result).why_stopped(3)
    assert said.startswith(SPENT) == spent
    assert "round 7 had 2 good updates of 4 asked, 3 are needed" in said and "b: no reply" in said


@pytest.mark.parametrize(("other", "diverged"), [("norm-infinite", True), ("no-reply", False)])
def test_a_run_whose_updates_are_all_beyond_numbers_ends_with_the_advice_of_a_smaller_lr(other, diverged):
    refused = {"a": Refusal("array-infinite", array="weight"), "b": Refusal(other)}
    result = GuardResult(accepted={}, refused=refused)
    said = Round(number=7, asked=dict.fromkeys("ab", 1), result=result).why_stopped(2)
    assert said.startswith("the updates became too large, a new run needs a smaller lr: round 7 had 0") == diverged
    assert "b: " in said
