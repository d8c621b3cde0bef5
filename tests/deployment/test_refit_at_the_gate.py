"""Trees that are grown anew behind gates: numbered on, written down, once each, never of a site that is not open."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flfed import run
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.gate.study_policy import study_policy_refusal
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.trees.forest import forest_of
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.train import REFIT, TRAIN
from tests.approval_text import details
from tests.boosting import trees_study
from tests.deployment.summing import BUNDLE, Consortium, Coordinator
from tests.deployment.test_trees_at_the_gate import asked_again, consortium_of

REFITTED = {"strategy.refit": True, "strategy.select": "best", "strategy.rounds": 3}
LEVELS = 3


@pytest.fixture
def gated(small_sites: Callable[..., list[Site]], small_study: str) -> Consortium:
    return consortium_of(small_sites(3, rows=120), trees_study(small_study, **REFITTED))


@pytest.mark.studies
@pytest.mark.parametrize("fault", ["crash", "killed"])
@pytest.mark.parametrize("exchange", [pytest.param(10, marks=pytest.mark.proof), 14])
def test_gates_end_where_one_process_does_also_after_a_crash_in_a_round_that_grows_anew(gated, fault, exchange):
    here = run(gated.study, sites=list(gated.sites.values())).report
    coordinator = Coordinator(gated)
    whole = coordinator.run()
    assert (whole.status, whole.arrays_sha256) == ("completed", here["arrays-sha256"]), whole.reason
    final = checkpoints.final(whole.run)
    assert final is not None and whole.rounds == 3 + len(forest_of(final.arrays))
    asked: list[str] = []

    def at(site: str, kind: str) -> bool | str:
        asked.append(kind)
        # Three sites and three levels of each of three rounds before.
        return fault if kind == TRAIN and asked.count(TRAIN) == 3 * (exchange - 1) + 2 else False

    begun = coordinator.run(absent=at)
    ended = coordinator.run(begun.run) if begun.status != "completed" else begun
    assert (ended.status, ended.arrays_sha256) == ("completed", here["arrays-sha256"]), ended.reason


def test_the_ledger_has_the_rounds_numbered_on_and_since_when_they_grow_anew(gated: Consortium):
    entry = Coordinator(gated).run()
    lines = [line.facts for line in gated.lines("site-01") if line.kind == TRAIN]
    assert sorted({facts["round"] for facts in lines}) == list(range(1, entry.rounds + 1)) and entry.rounds > 3
    assert {facts["round"]: facts[REFIT] for facts in lines} == {
        n: 0 if n <= 3 else 3 for n in range(1, entry.rounds + 1)
    }


def test_a_round_that_grows_anew_is_one_of_the_run_and_is_answered_once(gated: Consortium):
    site, message, context = asked_again(gated, 3 * (3 * LEVELS + 2))
    assert message.content["settings"][REFIT] == 3.0 and message.content["config"]["round"] == 4
    for before, words in ((3.0, ""), (2.0, "another model in round 4"), (4.0, "does not fit"), (0.5, "does not fit")):
        message.content["settings"][REFIT] = before
        reply = gated.gates[site].answer(message, context, BUNDLE)
        assert (words in reply.error.reason) if words else not reply.has_error(), before
    message.content["settings"][REFIT] = 3.0
    message.content["config"]["round"] = 7
    assert "does not fit" in gated.gates[site].answer(message, context, BUNDLE).error.reason


def test_a_study_that_does_not_say_refit_has_no_rounds_that_grow_anew(small_sites, small_study):
    gated = consortium_of(small_sites(3, rows=120), trees_study(small_study, **{"strategy.rounds": 3}))
    site, message, context = asked_again(gated)
    message.content["settings"][REFIT] = 1.0
    assert "does not fit" in gated.gates[site].answer(message, context, BUNDLE).error.reason


def test_bytes_rounds_and_exchanges_before_an_approval_count_both(gated: Consortium):
    coordinator = Coordinator(gated)
    entry = coordinator.run()
    site, schema = gated.sites["site-01"], datasets.load("small").schema
    messages = StudyMessages(gated.study, schema, site)
    total = sum(count_bytes(r.content) for s, _, r in coordinator.grid.sent if s == site.name and not r.has_error())
    assert entry.status == "completed" and total <= messages.run_bytes()
    plain = StudyMessages(gated.study.replace({"strategy.refit": False}), schema, site)
    assert messages.run_bytes() - plain.run_bytes() >= 3 * plain.round_bytes()
    words = "\n".join(details(gated.study, site, ["site-02", "site-03"]))
    assert "in at most as many rounds again, in which trees are grown anew on all training rows" in words
    assert "Rounds: 6 in a run of at most 18 exchanges" in words
    assert "The difference of the sums of the two roots is of the validation rows alone" in words
    few = replace(site, policy=Policy(disclosure="open", resplit=True, rounds=5))
    assert study_policy_refusal(gated.study, few) == Refusal("too-many-rounds", most=5, rounds=6)


@pytest.mark.parametrize("sums", ["off", "on"])
def test_a_site_that_is_not_open_refuses_by_its_code(small_sites: Any, small_study: str, sums: str):
    (site,) = small_sites(1)
    kept = replace(site, policy=Policy(disclosure="institution", outputs=("single-cells-in-sums",)))
    study = Study.parse(trees_study(small_study, **REFITTED, **{"strategy.min-rows": 10, "secure-aggregation": sums}))
    assert study_policy_refusal(study, kept) == Refusal("refit-not-open")
    plain = study.replace({"strategy.refit": False})
    assert study_policy_refusal(plain, kept) == (None if sums == "on" else Refusal("trees-single-rows"))
    assert study_policy_refusal(study, site) is None


def test_an_institution_among_open_sites_says_so_and_sends_nothing(small_sites: Any, small_study: str):
    first, second, third = small_sites(3, rows=120)
    kept = replace(third, policy=Policy(disclosure="institution", resplit=False))
    gated = consortium_of([first, second, kept], trees_study(small_study, **REFITTED))
    coordinator = Coordinator(gated)
    assert coordinator.run().status == "completed"
    said = [str(r.error.reason) for s, _, r in coordinator.grid.sent if s == third.name and r.has_error()]
    assert any("grown anew on all training rows (refit)" in reason for reason in said)
    assert {line.kind for line in gated.lines(third.name)} == {"refused"}
