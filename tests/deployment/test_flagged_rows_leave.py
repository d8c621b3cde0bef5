"""Through the gate: counts at false positive rates leave where study and policy say so."""

import copy

import pytest
from flwr.app import ConfigRecord

from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.messages.compare import COMPARE, CompareReply, PointCounts
from tests.approval_text import details

ASKED = ("[compare]\n", "[compare]\nfalse-positive-rates = [0.1, 0.2]\n")


def messages_of(site) -> StudyMessages:
    return StudyMessages(site.study, datasets.load("small").schema, site.site)


def test_the_approval_says_at_which_rates_rows_are_counted(gated, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"))
    said = " ".join(details(site.study, site.site, []))
    assert "at the false positive rates (of training rows) 0.1, 0.2: the exact number of holdout rows" in said
    plain = gated()
    assert "false positive rates" not in " ".join(details(plain.study, plain.site, []))


def test_no_count_of_an_institution_passes_its_gate(gated, compared, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"), rows=100)
    content = compared(site)
    leaving = messages_of(site).leaving(COMPARE)
    assert message_defect(content, leaving) is None
    points = CompareReply.from_record(content).points
    assert [(point.rate, point.counts) for point in points] == [(rate, (-1, -1, -1, -1)) for rate in (0.1, 0.2)]
    for key, value in (("tp", 100), ("fn", 0), ("rate", 0.11), ("method", "P0-0017 was\nflagged")):
        lists = dict(content["points"])
        lists[key] = [value, *lists[key][1:]]
        changed = copy.deepcopy(content)
        changed["points"] = ConfigRecord(lists)
        assert f"'{key}'" in str(message_defect(changed, leaving)), key


def test_who_asks_for_none_gets_none(gated, compared):
    site = gated()
    content = compared(site)
    assert "points" not in content
    content["points"] = ConfigRecord({"rate": [0.5]})
    assert message_defect(content, messages_of(site).leaving(COMPARE)) == "it has 1 section too many"


@pytest.mark.parametrize(("changes", "sound"), [
    ({}, True), ({"tp": 13}, False), ({"tp": -1}, False), ({"rate": 0.2}, False),
    ({"tp": 11, "fp": 11, "fn": 8}, False),
])  # fmt: skip
def test_counts_that_cannot_be_are_a_fault(changes, sound):
    first = {"rate": 0.2, "tp": 12, "fp": 10, "fn": 8, "tn": 10, "method": ""}
    points = (PointCounts(**first), PointCounts(**{**first, "rate": 0.3, **changes}))
    reply = CompareReply(num_examples=50, holdout_rows=40, arms=(), differences=(), points=points)
    assert (comparison_defect(reply) is None) == sound
