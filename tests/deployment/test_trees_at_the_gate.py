"""Boosted trees behind gates: what a level may hold, how often it may be asked, and what a site never answers."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message

from flfed import run
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints.site_state import run_state, whole_message
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.train import MARKS, SUMS, TRAIN, TREE, TREES_MISSING
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, Coordinator, forget_step

Arrays = dict[str, np.ndarray]


def consortium_of(sites: list[Site], text: str) -> Consortium:
    return Consortium(sites, Study.parse(text))


@pytest.fixture
def gated(small_sites: Callable[..., list[Site]], small_study: str) -> Consortium:
    return consortium_of(small_sites(3, rows=120), trees_study(small_study, **{"strategy.rounds": 4}))


OTHERS = [pytest.param(fault, marks=pytest.mark.proof) for fault in ("killed", "left")]


@pytest.mark.studies
@pytest.mark.parametrize("fault", ["crash", "kept", *OTHERS])
def test_three_gates_end_where_one_process_does_also_after_a_crash_between_two_levels(gated: Consortium, fault: str):
    here = run(gated.study, sites=list(gated.sites.values())).report["arrays-sha256"]
    coordinator = Coordinator(gated)
    whole = coordinator.run()
    assert (whole.status, whole.arrays_sha256) == ("completed", here), whole.reason
    # A level of the second tree, of which the trees before are lost with the process.
    asked: list[str] = []

    def at(site: str, kind: str) -> bool | str:
        asked.append(kind)
        return fault if kind == TRAIN and asked.count(TRAIN) == 14 else False

    begun = coordinator.run(absent=at)
    ended = coordinator.run(begun.run) if begun.status != "completed" else begun
    # Below its quorum the round is asked once more, of all.
    assert (ended.status, ended.arrays_sha256) == ("completed", here), ended.reason


@pytest.mark.studies
def test_a_coordinator_killed_while_a_site_was_away_grows_the_tree_of_all_once_it_is_back(small_sites, small_study):
    changes = {"strategy.rounds": 3, "strategy.quorum": 0.5}
    gated = consortium_of(small_sites(3, rows=120), trees_study(small_study, **changes))
    here = run(gated.study, sites=list(gated.sites.values())).report["arrays-sha256"]
    asked, coordinator = Counter[str](), Coordinator(gated)

    def away_from_the_second_root(site: str, kind: str) -> bool | str:
        asked[site] += kind == TRAIN
        if kind != TRAIN or asked[site] < 4:
            return False
        # The second level of that tree has been answered for two sites' tree.
        return "crash" if asked[site] == 6 and site == "site-01" else site == "site-03"

    begun = coordinator.run(absent=away_from_the_second_root)
    assert begun.status == "failed"
    ended = coordinator.run(begun.run)
    assert (ended.status, ended.arrays_sha256) == ("completed", here), ended.reason
    refused = [line.facts["reason"] for line in gated.lines("site-01") if line.kind == "refused"]
    assert len(refused) == 1 and refused[0] == str(Refusal("step-answered", round=2))


def asked_again(gated: Consortium, answered: int = 6) -> tuple[str, Message, Context]:
    """Return the site, message and context of the last of so many training messages, after which a run was killed.

    Six are two levels of three sites.
    """
    coordinator, asked = Coordinator(gated), list[str]()

    def at(site: str, kind: str) -> str | bool:
        asked.append(kind)
        return "crash" if asked.count(TRAIN) > answered else False

    coordinator.run(absent=at)
    site, message, reply = coordinator.grid.sent[-1]
    assert message.metadata.message_type == TRAIN and not reply.has_error()
    context = next(c for c in coordinator.grid._contexts.values() if c.node_config["site"] == site)
    return site, message, context


def with_array(message: Message, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = {key: value.copy() for key, value in ndarrays(message.content, "extra").items()}
    arrays[name] = change(arrays[name])
    message.content["extra"] = ArrayRecord({key: Array(value) for key, value in arrays.items()})


def test_a_level_is_answered_once_and_again_alike_and_of_another_tree_not_at_all(gated: Consortium):
    site, message, context = asked_again(gated)
    again = gated.gates[site].answer(message, context)
    assert not again.has_error()
    left = [line.facts for line in gated.lines(site) if line.kind == TRAIN]
    assert left[-1]["level"] == 1
    assert left[-1]["sha256"] in {facts["sha256"] for facts in left[:-1]}

    def other(values: np.ndarray) -> np.ndarray:
        values[1, 0, 0] += 1  # another code at the root
        return values

    with_array(message, TREE, other)
    refused = gated.gates[site].answer(message, context)
    assert refused.has_error() and refused.error.reason == str(Refusal("step-answered", round=1))


def test_other_nodes_of_the_same_tree_are_another_question(gated: Consortium):
    site, message, context = asked_again(gated)
    with_array(message, MARKS, lambda values: 1 - values)
    refused = gated.gates[site].answer(message, context)
    assert refused.has_error() and refused.error.reason == str(Refusal("step-answered", round=1))


def test_a_tree_begins_anew_at_most_as_often_as_there_are_sites(gated: Consortium):
    site, message, context = asked_again(gated)
    for attempt, words in ((1.0, ""), (3.0, ""), (4.0, "may begin anew 3 times"), (0.5, "does not fit"), (-1.0, "fit")):
        message.content["settings"]["attempt"] = attempt
        reply = gated.gates[site].answer(message, context)
        assert (words in reply.error.reason) if words else not reply.has_error(), attempt


BAD: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shape": lambda values: values[:, :, 1:], "type": lambda values: values.astype(np.float32),
    "NaN": lambda values: values * np.nan,
}  # fmt: skip


@pytest.mark.parametrize("why", BAD)
def test_a_tree_of_another_form_does_not_come_in(gated: Consortium, why: str):
    site, message, context = asked_again(gated)
    with_array(message, TREE, BAD[why])
    reply = gated.gates[site].answer(message, context)
    assert reply.has_error() and "its section 'extra'" in reply.error.reason


def test_sums_of_another_form_do_not_leave(gated: Consortium):
    site, message, context = asked_again(gated)
    message = whole_message(message, run_state(site, context))  # as the gate has it
    gate = gated.gates[site]
    reply = gate._side(context).app()(message, context)
    bad: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "type": lambda sums: sums.astype(float), "more": lambda sums: np.concatenate([sums] * 40),
        "wide": lambda sums: np.concatenate([sums] * 5, axis=1), "counted": lambda sums: sums[..., [0, 1, 1]],
    }  # fmt: skip
    for name, change in bad.items():
        sums = ndarrays(reply.content, "extra")[SUMS]
        spoiled = gate._side(context).app()(message, context)
        spoiled.content["extra"] = ArrayRecord({SUMS: Array(change(sums))})
        left = gate.leaving(message, spoiled, context)
        assert left.has_error() and "held back" in left.error.reason, name
    assert not gate.leaving(message, reply, context).has_error()


def test_trees_that_come_under_the_hash_of_others_are_not_used(gated: Consortium):
    site, message, context = asked_again(gated, 1)  # the first: it brings the model whole
    assert "arrays" in message.content
    arrays = {name: value.copy() for name, value in ndarrays(message.content, "arrays").items()}
    arrays["cuts"][0, 0] -= 1
    message.content["arrays"] = ArrayRecord({key: Array(value) for key, value in arrays.items()})
    forget_step(gated.folders[site], 1)
    gated.restart(site)
    reply = gated.gates[site].answer(message, context)
    assert reply.has_error() and str(TREES_MISSING) in reply.error.reason


def test_the_bytes_of_a_run_are_within_what_is_said_before_it(gated: Consortium):
    coordinator = Coordinator(gated)
    entry = coordinator.run()
    messages = StudyMessages(gated.study, gated.gates["site-01"]._studies.messages(gated.study.sha256()).schema,
                             gated.sites["site-01"])  # fmt: skip
    crossed = [(m, r) for s, m, r in coordinator.grid.sent if s == "site-01" and m.metadata.message_type == TRAIN]
    rounds: dict[int, list[int]] = {}
    for message, reply in crossed:
        found = rounds.setdefault(int(message.content["config"]["round"]), [0, 0])
        found[0] += count_bytes(message.content)
        found[1] += count_bytes(reply.content)
    most = messages.round_bytes("to-site"), messages.round_bytes()
    for round, (to_site, to_server) in rounds.items():
        assert round == 1 or to_site <= most[0]
        assert to_server <= most[1] < 3 * to_server
    total = sum(count_bytes(r.content) for s, _, r in coordinator.grid.sent if s == "site-01" and not r.has_error())
    assert total <= messages.run_bytes() and entry.status == "completed"


def test_an_institution_grows_no_trees_and_sends_nothing(small_sites: Any, small_study: str):
    first, second, third = small_sites(3, rows=120)
    kept = replace(third, policy=Policy(disclosure="institution", resplit=False))
    gated = consortium_of([first, second, kept], trees_study(small_study, **{"strategy.rounds": 2}))
    coordinator = Coordinator(gated)
    entry = coordinator.run()
    assert entry.status == "completed"
    said = [str(r.error.reason) for s, _, r in coordinator.grid.sent if s == third.name and r.has_error()]
    assert any("tell the outcomes of single rows" in reason for reason in said)
    assert {line.kind for line in gated.lines(third.name)} == {"refused"}
