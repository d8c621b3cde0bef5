"""Through the gate: exact counts leave where study and policy say so, and a person approves them in words."""

import copy

import pytest
from flwr.app import ConfigRecord

from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.records.ledger import ledger_of
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.messages.compare import COMPARE, CompareReply, PointCounts
from flfed.updates.messages.fields import content_sha256
from tests.approval_text import details

ASKED = ("[compare]\n", "[compare]\nthresholds = [0.7]\nalert-budgets = [0.2]\n")


def messages_of(site) -> StudyMessages:
    return StudyMessages(site.study, datasets.load("small").schema, site.site)


def test_the_approval_says_at_which_points_rows_are_counted(gated, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"))
    said = " ".join(details(site.study, site.site, []))
    places = "at the predicted probabilities 0.7 and alert budgets (shares of the rows) 0.2"
    assert f"{places}: the exact number of holdout rows" in said
    plain = gated()
    assert "alert budgets (shares" not in " ".join(details(plain.study, plain.site, []))


def test_a_count_that_the_policy_holds_back_does_not_leave(gated, compared, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"), rows=100)
    content = compared(site)
    leaving = messages_of(site).leaving(COMPARE)
    assert message_defect(content, leaving) is None
    points = CompareReply.from_record(content).points
    assert [point.at for point in points] == [0.7, 0.2]
    # The holdout has some 30 rows.
    assert {point.method for point in points} == {"withheld: a count of fewer than 10 rows would follow"}
    for key, value in (("tp", 9), ("fn", 0), ("at", 0.71), ("by", "score"), ("method", "P0-0017 was\nflagged")):
        lists = dict(content["points"])
        lists[key] = [value, *lists[key][1:]]
        changed = copy.deepcopy(content)
        changed["points"] = ConfigRecord(lists)
        assert f"'{key}'" in str(message_defect(changed, leaving)), key


def test_who_asks_for_none_gets_none(gated, compared):
    site = gated()
    content = compared(site)
    assert "points" not in content
    content["points"] = ConfigRecord({"by": ["threshold"], "at": [0.5]})
    assert message_defect(content, messages_of(site).leaving(COMPARE)) == "it has 1 section too many"


@pytest.mark.parametrize(("changes", "sound"), [
    ({}, True), ({"tp": 13}, False), ({"tp": -1}, False), ({"at": 0.2}, False),
    ({"tp": 11, "fp": 11, "fn": 9}, False),
])  # fmt: skip
def test_counts_that_cannot_be_are_a_fault(changes, sound):
    first = {"by": "threshold", "at": 0.2, "tp": 12, "fp": 10, "fn": 8, "tn": 10, "method": ""}
    points = (PointCounts(**first), PointCounts(**{**first, "at": 0.3, **changes}))
    reply = CompareReply(num_examples=50, holdout_rows=40, arms=(), differences=(), points=points)
    if changes == {"tp": 11, "fp": 11, "fn": 9}:
        points = (points[0], PointCounts(**{**first, "at": 0.3, "tp": 11, "fn": 8, "fp": 11}))
        reply = CompareReply(num_examples=50, holdout_rows=40, arms=(), differences=(), points=points)
    assert (comparison_defect(reply) is None) == sound


def test_what_leaves_is_in_the_ledger_before_and_leaves_again_only_in_the_same_run(gated, compared, small_study):
    text = small_study.replace("[compare]\n", "[compare]\nthresholds = [0.5, 0.7]\n")
    site = gated(text, policy=Policy(disclosure="institution"), rows=1200)
    content = compared(site)
    assert message_defect(content, messages_of(site).leaving(COMPARE)) is None
    given = [point for point in CompareReply.from_record(content).points if not point.method]
    assert given and min(min(point.counts) for point in given) >= 10
    assert {sum(point.counts) for point in given} == {CompareReply.from_record(content).holdout_rows}
    lines = list(ledger_of(site.folder).lines())
    (place,) = [place for place, line in enumerate(lines) if line.facts.get("exact-counts")]
    (left,) = [place for place, line in enumerate(lines) if line.facts.get("sha256") == content_sha256(content)]
    assert (lines[place].kind, lines[place].facts["run"]) == ("released", "20261120-abcd")
    assert place < left
    site.run_config["run"] = "20261121-abcd"
    points = CompareReply.from_record(compared(site)).points
    said = {(point.tp, point.method) for point in points}
    assert said == {(-1, "withheld: exact counts, importances or figures by group of these rows left in another run")}
