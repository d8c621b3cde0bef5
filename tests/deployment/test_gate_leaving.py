"""What leaves: exactly what its kind may have, counted and on the ledger before it goes."""

import datetime
import os
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from flfed.deployment.gate.gate import Gate
from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.site_state import approval
from flfed.errors import TableError
from flfed.federation.client.client import SiteClient
from flfed.federation.client.redaction import SITE_ERROR
from flfed.records.ledger import Ledger
from flfed.records.ledger_line import START
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from flfed.updates.messages.train import TRAIN
from tests.deployment.altered import with_array, with_value

HELD_BACK = Refusal("error-untold")
CANARY = "Jane Roe"
HELD = "its train reply is held back: "


def request_of(site, kind: str) -> Message:
    """Return a request of a kind, as the run sends it."""
    message = site.trained()
    if kind == TRAIN:
        return message
    model = message.content.message
    contents = {
        ENROL: EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256()),
        SUMMARISE: SummariseRequest(), COMPARE: CompareRequest(arrays=model.arrays, encoder=model.encoder),
    }  # fmt: skip
    return site.message(kind, contents[kind])


def spoiled(site, change: Callable[[RecordDict], None], kind: str = TRAIN) -> tuple[Message, Message]:
    """Let a request in; return what leaves of a reply that was changed, and the reply itself."""
    message, context = request_of(site, kind), site.context()
    assert site.gate.refusal(message, context) is None
    reply = SiteClient(site.gate.find_site, today=lambda: site.today).app()(message, context)
    if not reply.has_error():
        change(reply.content)
    return site.gate.leaving(message, reply, context), reply


@pytest.mark.parametrize("kind", [ENROL, SUMMARISE, TRAIN, COMPARE])
def test_an_honest_reply_leaves_as_it_is_and_is_on_the_ledger(gated, kind: str):
    site = gated()
    left, reply = spoiled(site, lambda content: None, kind)
    assert left is reply
    (line,) = site.lines()
    assert line.kind == kind.rpartition(".")[2]
    facts = dict(line.facts)
    if kind != ENROL:
        assert len(facts.pop("asked-sha256")) == 64 and facts.pop("level") == 0
    if kind == ENROL:  # no line has its own hash: in its bytes there are zeros
        config = reply.content.config_records["config"]
        config["ledger-lines"], config["ledger-head"], config["known-hash"] = 0, START, START
    assert facts == {
        "study": "small", "study-sha256": site.study.sha256(), "dataset": "small",
        "run": "20261120-abcd", "repeat": 0, "round": 1 if kind == TRAIN else 0,
        "bytes": count_bytes(reply.content), "charged-bytes": 0, "sha256": content_sha256(reply.content),
        "rows-sha256": site.approve().rows_sha256,
    }  # fmt: skip


def with_metric(section: str, name: str, value: float) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content[section] = MetricRecord({**dict(content[section].items()), name: value})

    return change


def with_section(name: str, part: object) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content[name] = part

    return change


ROWS = np.arange(400.0).reshape(80, 5)
SPOILT = [
    (with_array(CANARY, ROWS), "its section 'arrays' has 1 array too many"),
    (with_array("weight", ROWS), "its section 'arrays' has an array 'weight' that is too large (3328 bytes, where "),
    (with_array("bias", np.zeros((1, 1))), "its section 'arrays' has an array 'bias' of another shape than (1,)"),
    (with_array("bias", np.zeros(1, int)), "its section 'arrays' has an array 'bias' of another type than float64"),
    (with_array("bias", np.array([np.nan])), "its section 'arrays' has an array 'bias' with values that are not fin"),
    (with_section(CANARY, ArrayRecord({"rows": Array(ROWS)})), "it has 1 section too many"),
    (with_section("histogram", ArrayRecord({"counts": Array(ROWS)})), "it has 1 section too many"),
    (with_section("arrays", ConfigRecord({"weight": CANARY})), "its section 'arrays' is of another kind"),
    (with_section("scores-metrics", ArrayRecord({"loss": Array(ROWS)})), "its section 'scores-metrics' is of another"),
    (with_value("config", CANARY, 1), "its section 'config' has 1 value too many"),
    (with_value("config", "kind", CANARY), "its section 'config' has a value 'kind' that does not fit"),
    (with_value("config", "kind", [CANARY]), "its section 'config' has a value 'kind' that does not fit"),
    (with_metric("metrics", CANARY, 54.0), "its section 'metrics' has 1 value too many"),
    (with_metric("metrics", "loss", float("nan")), "its section 'metrics' has a value 'loss' that does not fit"),
    (with_metric("metrics", "num-examples", 0.0), "its section 'metrics' has a value 'num-examples' that does not fit"),
    (with_metric("scores-metrics", "accuracy_score", 0.5), "its section 'scores-metrics' has 1 value too many"),
    (with_metric("scores-metrics", "loss", float("inf")), "its section 'scores-metrics' has a value 'loss' that does"),
    (lambda content: content.pop("arrays"), "it has no section 'arrays'"),
    (lambda content: content.pop("scores"), "it has no section 'scores'"),
]


@pytest.mark.parametrize(("change", "expected"), SPOILT)
def test_a_reply_with_anything_too_much_stays_and_nothing_of_it_is_said(gated, change, expected: str):
    site = gated()
    left, _ = spoiled(site, change)
    assert left.has_error() and left.error.code == SITE_ERROR
    assert left.error.reason.startswith(HELD + expected)
    (line,) = site.lines()
    assert (line.kind, line.facts["reason"]) == ("withheld", left.error.reason)
    assert CANARY not in left.error.reason and CANARY.encode() not in line.raw
    assert line.facts["bytes"] == len(left.error.reason)


def test_the_other_replies_are_as_narrow(gated):
    site = gated(policy=Policy())  # an institution, whose histogram may not leave
    counts = ArrayRecord({"counts": Array(np.zeros((2, 256)))})
    for kind, change, expected in (
        (SUMMARISE, with_array("cells", ROWS, "summary"), "has an array 'cells' that is too large"),
        (SUMMARISE, with_array("rows", np.array([np.nan]), "summary"), "with values that are not finite"),
        (ENROL, with_value("config", "title", CANARY), "has a value 'title' that does not fit"),
        (ENROL, with_value("config", "rows-low", 17.0), "has a value 'rows-low' that does not fit"),
        (COMPARE, with_value("config", "note", f"{CANARY} é"), "has a value 'note' that does not fit"),
        (COMPARE, with_section("histogram", counts), "it has 1 section too many"),
        (COMPARE, with_value("arms", "method", [CANARY]), "its section 'arms' has lists of a wrong length"),
        (COMPARE, with_value("arms", "metric", 1), "its section 'arms' has a value that is no list"),
    ):
        left, _ = spoiled(site, change, kind)
        assert left.has_error() and expected in left.error.reason, (kind, expected)
    assert [line.kind for line in site.lines() if line.kind != "snapshot"] == ["withheld"] * 8


def test_a_refusal_to_enrol_says_only_what_flfed_says(gated):
    site = gated()

    def refuse(reason: str) -> Callable[[RecordDict], None]:
        return lambda content: [
            with_value("config", *pair)(content) for pair in (("accepted", False), ("reason", reason))
        ]

    small = "it has fewer than 10 training rows"
    assert not spoiled(site, refuse(small), ENROL)[0].has_error()
    assert spoiled(site, refuse(f"{CANARY} has no age"), ENROL)[0].error.reason.endswith("is no sentence of ours")
    both = spoiled(site, with_value("config", "reason", small), ENROL)[0]
    assert both.error.reason == "its query.enrol reply is held back: it accepts, and gives a reason"


@pytest.mark.parametrize(("reason", "leaves"), [
    ("ValueError: see the site's log", True),
    ("the study expired on 2026-01-01", True),
    ("it has fewer than 10 training and holdout rows", True),
    ("its policy keeps the site's own holdout (resplit = false), and the study asks for a published split", True),
    ("it cannot keep its state of the run on its own disk (No space left on device)", True),
    (TableError("x1", "is not a number", 7).describe(10), True),
    (TableError("x1", "is outside the schema's range 0 to 100 mm", 70).describe(10), True),
    (TableError("colour", "has a value that the schema does not allow").describe(10), True),
    (TableError("x1", "is not a number", 7).describe(5), False),
    (TableError("surname", "is not a number", 70).describe(10), False),
    (TableError("x1", "is 'Jane Roe'", 70).describe(10), False),
    ("could not convert string to float: 'Jane Roe'", False), ("ValueError: Jane Roe", False),
    ("the study expired on Jane Roe", False), ("its policy allows models\nJane Roe", False), ("", False),
])  # fmt: skip
def test_only_our_own_sentences_leave_as_errors(gated, reason: str, leaves: bool):
    site = gated()
    message, context = site.trained(), site.context()
    reply = Message(Error(code=7, reason=reason), reply_to=message)
    left = site.gate.leaving(message, reply, context)
    assert (may_leave(reason, site.site) is not None) is leaves
    assert (left.error.code, left.error.reason) == (SITE_ERROR, reason if leaves else HELD_BACK)
    (line,) = site.lines()
    assert (line.kind, line.facts["reason"]) == ("error", left.error.reason)


def test_every_refusal_is_one_line_on_the_ledger(gated):
    site = gated()
    refused = site.answer(site.trained(), sites="site-01")
    assert refused.error.reason == "the run asks 1 site, its policy needs at least 2"
    assert site.answer(site.trained(), study="x").error.reason == "the study is not approved here"
    first, second = site.lines()
    assert (first.kind, first.facts["asked"], first.facts["round"]) == ("refused", "train", 1)
    assert (first.facts["study"], second.facts["study"]) == ("", "")
    assert first.facts["study-sha256"] == site.study.sha256() != second.facts["study-sha256"]
    assert first.facts["reason"] == refused.error.reason


def test_the_bytes_of_a_day_are_capped_over_all_studies_and_come_back_the_next(gated):
    site = gated()
    left, reply = spoiled(site, lambda content: None)
    size = count_bytes(reply.content)
    now = [datetime.datetime(2026, 11, 20, 23, 59, tzinfo=datetime.UTC)]

    def gate() -> Gate:
        ledger = Ledger(site.folder.gate / "other.jsonl", clock=lambda: now[0])
        return Gate(site.folder, site.site, today=lambda: now[0].date(), ledger=ledger)

    site.policy(daily_bytes=2 * size + 10)
    site.folder.state.unlink()  # it belongs to the ledger of the first reply
    site.gate = gate()
    answers = [site.answer(site.trained(round=number)) for number in (1, 2, 3)]
    assert [answer.has_error() for answer in answers] == [False, False, True]
    many = f"its policy lets {2 * size + 10} bytes leave in a day, and {2 * size} have left"
    said = f"{many}: it answers again after midnight UTC"
    assert answers[2].error.reason == said
    # What is said of it does not count: else whoever asks for what nobody approved could use up the day.
    site.gate = gate()
    assert site.answer(site.trained(round=4)).error.reason == said
    now[0] += datetime.timedelta(minutes=2)
    assert not site.answer(site.trained(round=4)).has_error()
    now[0] -= datetime.timedelta(
        minutes=4
    )  # a clock that was set back brings no second allowance: it is the 20th again
    assert site.answer(site.trained(round=5)).error.reason.startswith("its policy lets")
    now[0] -= datetime.timedelta(hours=6)
    assert "later than its clock" in site.answer(site.trained(round=6)).error.reason
    kinds = [line.kind for line in Ledger(site.folder.gate / "other.jsonl").lines()]
    assert kinds == ["train", "train", "withheld", "withheld", "train", "refused"]


def test_nothing_leaves_without_its_line(gated):
    site = gated()
    site.answer(site.trained())
    said = "its ledger cannot be written, so nothing leaves the site: see its log"
    # A mode that the ledger refuses to write under, from between the look at the request and the reply.
    left, reply = spoiled(site, lambda content: os.chmod(site.folder.ledger, 0o644))
    assert (left.error.reason, reply.has_error()) == (said, False)
    assert site.answer(site.trained(round=2)).error.reason == said
    os.chmod(site.folder.ledger, 0o600)
    assert len(site.lines()) == 1


def test_a_reply_stays_where_a_person_paused_or_withdrew_meanwhile(gated):
    site = gated()
    left, _ = spoiled(site, lambda content: approval.pause(site.folder, by="B"))
    assert left.error.reason == "the site is paused by its operator"
    approval.resume(site.folder)
    left, _ = spoiled(site, lambda content: approval.withdraw(site.folder, "small", by="B"))
    assert left.error.reason.startswith("the study was withdrawn here on 20")
    assert [line.kind for line in site.lines()] == ["withheld", "withheld"]


def test_a_reply_to_a_message_that_was_not_let_in_stays(gated):
    site = gated()
    message, context = site.trained(), site.context()
    reply = SiteClient(lambda name, study: site.site).app()(message, context)
    assert not reply.has_error()
    left = site.gate.leaving(message, reply, context)
    assert left.error.reason == "it is the reply to a message that was not let in"


def test_other_rows_that_are_frozen_and_approved_are_served_at_once(gated):
    site = gated()
    before = site.answer(site.trained())
    again = site.answer(site.trained())
    site.site.source.table.loc[:, "x1"] = 0.0
    site.freeze()
    assert site.answer(site.trained()).error.reason.startswith("its frozen rows changed after the approval")
    site.approve()
    # No reply of the earlier rows is sent again, and none of others in the same run.
    assert site.answer(site.trained()).error.reason == str(Refusal("step-answered", round=1))
    after = site.answer(site.trained(), run="20261120-anew")
    lines = site.lines()
    assert [line.kind for line in lines] == ["train", "train", "refused", "refused", "train"]
    assert lines[0].facts["rows-sha256"] != lines[4].facts["rows-sha256"] == site.approve().rows_sha256
    assert lines[0].facts["sha256"] == lines[1].facts["sha256"] != lines[4].facts["sha256"]
    first, same, moved = (reply.content["arrays"]["weight"].numpy()[0, 0] for reply in (before, again, after))
    assert first == same and abs(first - moved) > 0.01


def test_rows_that_are_frozen_between_the_look_and_the_answer_are_not_served(gated):
    site = gated()
    assert site.refusal(site.trained()) is None
    site.site.source.table.loc[:, "x1"] = 0.0
    site.freeze()
    reply = SiteClient(site.gate.find_site, today=lambda: site.today).app()(site.trained(), site.context())
    assert (
        reply.error.reason
        == "its frozen rows changed after the approval; for a new one, at the site: flfed site approve STUDY"
    )
    assert may_leave(reply.error.reason, site.site)
    assert len(site.site.source.reads) == 2  # by the freezing


def test_an_enrolment_brings_the_end_of_the_ledger_and_the_hash_of_the_line_that_is_asked_for(gated):
    site = gated()
    site.answer(site.trained())
    schema = datasets.load("small").schema.sha256()

    def enrolled(known_line: int) -> EnrolReply:
        request = EnrolRequest(dataset="small", schema_sha256=schema, known_line=known_line)
        return EnrolReply.from_record(site.answer(site.message(ENROL, request)).content)

    replies = [enrolled(known_line) for known_line in (0, 1, 3, 9, 5)]
    lines = site.lines()
    assert [line.kind for line in lines] == ["train", *["enrol"] * 5]
    # Its own line is counted, and is not yet one that a coordinator may know.
    assert [(one.ledger_lines, one.ledger_head) for one in replies] == [(n, lines[n - 1].hash) for n in range(2, 7)]
    assert [one.known_hash for one in replies] == [START, lines[0].hash, lines[2].hash, "", lines[4].hash]
    assert lines[2].facts["bytes"] == count_bytes(replies[1].to_record())
