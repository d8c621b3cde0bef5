"""Through the gate: importances leave where study and policy say so, nothing else does, and the ledger has it."""

import copy

import pytest
from flwr.app import ConfigRecord

from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.records.ledger import ledger_of
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.fields import content_sha256
from tests.approval_text import details

ASKED = ("[compare]\n", "[compare]\nimportance = 3\n")
COLUMNS = ["x1", "x2", "flag", "colour"]


def leaving_of(site) -> dict:
    return StudyMessages(site.study, datasets.load("small").schema, site.site).leaving(COMPARE)


def test_the_approval_says_what_leaves(gated, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"))
    said = " ".join(details(site.study, site.site, []))
    assert "With it, of each column, by 3 permutations: how much the shared model's loss over a site's holdout" in said
    assert "permutations" not in " ".join(details(gated().study, site.site, []))


def test_who_asks_for_none_sends_the_same_and_nothing_more(gated, compared, small_study):
    plain = gated()
    without = compared(plain)
    asking = gated(small_study.replace(*ASKED))
    asking.run_config["run"] = "20261121-abcd"
    with_them = compared(asking)
    assert set(with_them) - set(without) == {"importance"}
    for name in without:
        # Numbers that are unknown are not equal to themselves.
        assert repr(dict(without[name])) == repr(dict(with_them[name])), name
    assert message_defect(with_them, leaving_of(asking)) is None
    assert message_defect(with_them, leaving_of(plain)) == "it has 1 section too many"


def test_just_what_is_declared_leaves(gated, compared, small_study):
    site = gated(small_study.replace(*ASKED))
    content, leaving = compared(site), leaving_of(site)
    assert [one.column for one in CompareReply.from_record(content).importance] == COLUMNS
    lists = dict(content["importance"])
    reasons = {"column": ["x1"], "method": ["withheld: fewer than 10 rows"]}
    nan, inf = float("nan"), float("inf")
    for section, changed, said in (
        ("importance", {"increase": [nan, *lists["increase"][1:]]}, "'increase'"),
        ("importance", {"increase": [inf, *lists["increase"][1:]]}, "'increase'"),
        ("importance", {"increase": ["0.1"] * 4}, "'increase'"),
        ("importance", {"column": ["person", *COLUMNS[1:]]}, "'column'"),
        ("importance", {"column": ["y", *COLUMNS[1:]]}, "'column'"),
        ("importance", {"column": ["colour=red", *COLUMNS[1:]]}, "'column'"),
        ("importance", {"column": ["x2", *COLUMNS[1:]]}, "'column'"),
        ("importance", {"column": COLUMNS * 2, "increase": lists["increase"] * 2}, "lists"),
        ("importance", {"rows": [1] * 4}, "1 list too many"),
        ("withheld", reasons, ""),
        ("withheld", reasons | {"method": ["P0_0017 is one of them"]}, "'method'"),
        ("withheld", reasons | {"column": ["P0-0017"]}, "'column'"),
        ("withheld", {name: values * 2 for name, values in reasons.items()}, "'column'"),
    ):
        spoilt = copy.deepcopy(content)
        spoilt[section] = ConfigRecord((lists if section == "importance" else {}) | changed)
        found = str(message_defect(spoilt, leaving) or "")
        assert (section in found and said in found) if said else found == "", (section, changed, found)


def test_what_few_rows_make_stays_at_an_institution(gated, compared, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"), rows=84)
    reply = CompareReply.from_record(compared(site))
    # Of some 25 rows fewer than ten have each of two flags, or of three colours.
    assert [one.column for one in reply.importance] == ["x1", "x2"]
    said = [(one.column, one.method) for one in reply.withheld]
    assert said == [(name, "withheld: fewer than 10 rows with one of its values") for name in ("flag", "colour")]


def test_what_leaves_is_in_the_ledger(gated, compared, small_study):
    site = gated(small_study.replace(*ASKED), policy=Policy(disclosure="institution"), rows=800)
    content = compared(site)
    assert message_defect(content, leaving_of(site)) is None
    given = CompareReply.from_record(content)
    assert [one.column for one in given.importance] == COLUMNS and given.withheld == ()
    assert all(one.increase == three_digits(one.increase) for one in given.importance)
    (line,) = [line for line in ledger_of(site.folder).lines() if "importances" in line.facts]
    assert line.facts["sha256"] == content_sha256(content) and line.facts["importances"] is True


@pytest.mark.parametrize("outputs", [(), ("score-histogram",)])
def test_beside_a_histogram_of_predictions_none_leaves(gated, compared, small_study, outputs):
    policy = Policy(disclosure="institution", outputs=outputs)
    site = gated(small_study.replace(*ASKED), policy=policy, rows=400)
    reply = CompareReply.from_record(compared(site))
    assert bool(reply.importance) == (not outputs)
    if outputs:
        assert {one.method for one in reply.withheld} == {"withheld: the histogram of predictions leaves"}
        lines = [line.facts for line in ledger_of(site.folder).lines()]
        assert not [line for line in lines if "importances" in line]
