"""A site's own offset at its gate: only where and as it may, one deviation a run, on the ledger."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from flfed.federation.client.client import SiteClient
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditRequest, CompareReply, CompareRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from tests.approval_text import details

pytestmark = [pytest.mark.slow, pytest.mark.studies]

OPEN = {"disclosure": "open", "resplit": True}
DP = '[privacy]\nname = "record-dp"\nsampling = 0.2\n'


def final(site: Any, **changes: Any) -> Message:
    """Return the evaluation of the last model, as a coordinator asks for it."""
    sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
    message: Message = site.message(EVALUATE, replace(sent, **changes))
    return message


def compared(site: Any, **changes: Any) -> Message:
    sent = TrainRequest.from_record(final(site).content)
    message: Message = site.message(COMPARE, CompareRequest(arrays=sent.arrays, encoder=sent.encoder, **changes))
    return message


def said(reply: Message) -> str:
    return str(reply.error.reason) if reply.has_error() else ""


def adjusted(reply: Message) -> list[float]:
    figures = CompareReply.from_record(reply.content).arms
    return [one.value for one in figures if (one.arm, one.metric) == ("personalised", "log_loss")]


def test_a_site_answers_in_the_form_it_was_asked_in_and_its_ledger_says_so(gated):
    site = gated(policy=Policy(**OPEN))
    plain, with_it = (site.answer(final(site, offset=offset), run=run) for offset, run in ((False, "a"), (True, "b")))
    assert set(with_it.content) - set(plain.content) == {"offset"}
    told = TrainReply.from_record(with_it.content).offset
    assert told.value.shape == told.error.shape == (1,) and 0 < told.error[0] < 1
    # A coordinator of the first version, and one that knows how far sites differ.
    as_before, known, alike = (
        site.answer(compared(site, **changes), run=run)
        for changes, run in (({}, "a"), ({"offset_deviation": 0.1}, "b"), ({"offset_deviation": 2.0}, "c"))
    )
    assert adjusted(as_before) == adjusted(alike) and adjusted(known) != adjusted(as_before)
    lines = [(line.kind, line.facts.get("offset")) for line in site.lines()]
    assert lines == [("evaluate", None), ("evaluate", True), *[("compare", None)] * 3]


def holds_to_the_first(site: Any, run: str, first: dict[str, float], others: Any, why: str) -> None:
    """Ask in one way and then in others, of which none is answered, before and after a restart of the gate."""
    assert said(site.answer(compared(site, **first), run=run)) == ""
    for other in others:
        assert said(site.answer(compared(site, **other), run=run)) == why
    site.open()
    assert said(site.answer(compared(site, **others[0]), run=run)) == why
    assert said(site.answer(compared(site, **first), run=run)) == ""


def test_a_run_compares_by_one_deviation_also_after_a_restart_and_is_audited_all_the_same(gated):
    site = gated(policy=Policy(**OPEN))
    for run, first, others in (("one", {"offset_deviation": 0.5}, ({"offset_deviation": 0.25}, {})),
                               ("two", {}, ({"offset_deviation": 0.5},))):  # fmt: skip
        holds_to_the_first(site, run, first, others, Refusal("step-answered", round=0))
        sent = CompareRequest.from_record(compared(site).content)
        attack = AuditRequest(arrays=sent.arrays, encoder=sent.encoder, attack="membership-inference")
        assert said(site.answer(site.message(AUDIT, attack), run=run)) == ""


def test_a_run_has_rows_counted_in_one_set_of_bins_also_after_a_restart(gated):
    # Each other set is another count of the same rows, from which single predictions follow.
    site = gated(policy=Policy(**OPEN))
    about = {"odds_centre": -1.0, "odds_spread": 0.5}
    for run, first, others in (("one", about, ({}, about | {"odds_centre": -0.75}, about | {"odds_spread": 0.25})),
                               ("two", {}, (about,))):  # fmt: skip
        holds_to_the_first(site, run, first, others, Refusal("step-answered", round=0))


@pytest.mark.parametrize("name", ["odds-centre", "odds-spread"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "0.5", True, [0.5], 0.1])
def test_bins_that_are_no_numbers_or_too_narrow_are_refused(gated, name: str, value: Any):
    site = gated()
    message = compared(site, odds_centre=0.5, odds_spread=0.5)
    message.content["config"][name] = value
    if (name, value) == ("odds-centre", 0.1):
        assert site.refusal(message) is None
    else:
        assert site.refusal(message).endswith(f"its section 'config' has a value '{name}' that does not fit")


@pytest.mark.parametrize("value", [False, 1, 1.0, "yes", [True]])
def test_an_offset_is_asked_for_in_one_way_and_of_the_last_model_alone(gated, value: Any):
    site = gated()
    message = final(site)
    message.content["config"]["offset"] = value
    assert site.refusal(message).endswith("its section 'config' has a value 'offset' that does not fit")
    message = site.trained()
    message.content["config"]["offset"] = True
    assert message.metadata.message_type == TRAIN
    assert site.refusal(message).endswith("its section 'config' has 1 value too many")


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.1", True, [0.1]])
def test_a_deviation_that_is_no_number_of_at_least_0_is_refused(gated, value: Any):
    site = gated()
    message = compared(site)
    message.content["config"]["offset-deviation"] = value
    assert site.refusal(message).endswith("its section 'config' has a value 'offset-deviation' that does not fit")


@pytest.mark.parametrize("change", [
    lambda text: text.replace("epochs = 1", "steps = 4") + DP,
    lambda text: text.replace('name = "logistic"', 'name = "mlp"\nhidden = [3]'),
], ids=["a promise", "no line"])  # fmt: skip
def test_under_a_promise_or_for_another_model_neither_is_asked_nor_leaves_nor_is_told_of(gated, small_study, change):
    site = gated(change(small_study), policy=Policy(**OPEN, epsilon=9.0))
    for message in (final(site, offset=True), compared(site, offset_deviation=0.5)):
        assert site.refusal(message).endswith("its section 'config' has 1 value too many")
    left = leaving(site, with_offset(ArrayRecord({"value": Array(np.zeros(1)), "error": Array(np.ones(1))})))
    assert said(left).endswith("it has 1 section too many")
    assert "own intercept lies" not in " ".join(details(site.study, site.site, []))


def test_who_approves_a_study_reads_of_the_two_numbers(gated):
    site = gated(policy=Policy())
    (line,) = [line for line in details(site.study, site.site, []) if "own intercept lies" in line]
    assert line.startswith("With the last of these, once: two numbers for each output of the model")
    assert "at least the cell minimum of training rows" in line
    assert not Study.parse(site.study.text.replace('"logistic"', '"mlp"')).adjusts_intercept()


def with_offset(section: Any) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content["offset"] = section

    return change


def leaving(site: Any, change: Callable[[RecordDict], None], *, offset: bool = False) -> Message:
    """Let an evaluation in; return what leaves of a reply that was changed."""
    message, context = final(site, offset=offset), site.context()
    assert site.gate.refusal(message, context) is None
    reply = SiteClient(site.gate.find_site, today=lambda: site.today).app()(message, context)
    change(reply.content)
    left: Message = site.gate.leaving(message, reply, context)
    return left


def arrays(**found: np.ndarray) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in found.items()})


ONE = np.ones(1)


@pytest.mark.parametrize(("section", "why"), [
    (arrays(value=ONE, error=0 * ONE), "has an array 'error' with values that are not above 0"),
    (arrays(value=ONE * np.nan, error=ONE), "has an array 'value' with values that are not finite"),
    (arrays(value=np.ones(2), error=ONE), "has an array 'value' of another shape than (1,)"),
    (arrays(value=ONE, error=ONE.astype(np.float32)), "has an array 'error' of another type than float64"),
    (arrays(value=ONE), "has no array 'error'"), (arrays(value=ONE, error=ONE, rows=ONE), "has 1 array too many"),
    (arrays(value=np.ones(200), error=ONE), "has an array 'value' that is too large"),
    (ConfigRecord({"value": 1.0, "error": 1.0}), "is of another kind"),
])  # fmt: skip
def test_a_reply_whose_offset_is_not_as_it_may_be_is_held_back(gated, section: Any, why: str):
    site = gated()
    left = leaving(site, with_offset(section), offset=True)
    assert said(left).startswith(f"its evaluate reply is held back: its section 'offset' {why}")
    assert [line.kind for line in site.lines()] == ["withheld"]


def test_an_offset_that_nobody_asked_for_does_not_leave(gated):
    site = gated()
    left = leaving(site, with_offset(arrays(value=ONE, error=ONE)))
    assert said(left) == "its evaluate reply is held back: it has 1 section too many"
    # One that was asked for and is not known is not missed.
    assert said(leaving(site, lambda content: content.pop("offset"), offset=True)) == ""


def test_a_run_through_the_gate_asks_for_it_and_sends_what_follows(gated, conducted_through):
    site = gated(policy=Policy())
    outcome, _ = conducted_through(site)
    assert outcome.status == "completed"
    facts = {line.kind: line.facts for line in site.lines()}
    assert facts["evaluate"]["offset"] is True
