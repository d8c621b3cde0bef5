"""An audit behind the gate: of a model that the site judged, with figures that stay the same, and a line for each."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from flfed import registry
from flfed.deployment.gate.message_check import may_leave, message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.federation.client.audit import attacked
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.updates.messages.compare import AUDIT, AuditReply, AuditRequest
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.sections import most_bytes
from tests.approval_text import details

pytestmark = [pytest.mark.slow, pytest.mark.studies]

DP = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.3\n'


@pytest.fixture
def ended(gated, conducted_through):
    """A gated site after a run, and the request for one attack on the run's model."""
    site = gated(policy=Policy())
    outcome, _ = conducted_through(site)
    return site, AuditRequest(arrays=outcome.arrays, encoder=outcome.encoder, attack="membership-inference")


def asked(site, request: AuditRequest, **context: object) -> Message:
    return site.answer(site.message(AUDIT, request), **context)


def test_the_judged_model_is_attacked_and_the_ledger_has_a_line_for_it(ended):
    site, request = ended
    before = len(site.lines())
    reply = asked(site, request)
    assert not reply.has_error()
    found = AuditReply.from_record(reply.content)
    alone: AuditReply = run_client(attacked(request, SiteSession(site.site, site.study), site.site.name))
    assert [figure.metric for figure in found.figures] == ["auc-of-loss", "auc-of-lira"]
    for figure, other in zip(found.figures, alone.figures, strict=True):
        np.testing.assert_allclose(
            (figure.value, figure.low, figure.high), (other.value, other.low, other.high), rtol=1e-9
        )
        assert figure.low <= figure.value <= figure.high and figure.rows == found.num_examples + found.holdout_rows
    [line] = site.lines()[before:]
    assert (line.kind, line.facts["bytes"], line.facts["run"]) == ("audit", count_bytes(reply.content), "20261120-abcd")
    # Asked again it is the same, and is written down again.
    again = asked(site, request)
    assert (content_sha256(again.content), len(site.lines())) == (content_sha256(reply.content), before + 2)


@pytest.mark.parametrize("disclosure", ["open", "institution"])
@pytest.mark.parametrize("protected", [False, True])
def test_what_every_attack_says_may_leave(gated, small_study: str, conducted_through, disclosure: str, protected: bool):
    text = small_study.replace("epochs = 1", "steps = 2") + DP if protected else small_study
    site = gated(text, policy=Policy(disclosure=disclosure))
    outcome, _ = conducted_through(site)
    attacks = set(registry.names("attack")) - set(registry.others("attack"))
    assert len(attacks) >= 2
    for name in sorted(attacks):
        reply = asked(site, AuditRequest(arrays=outcome.arrays, encoder=outcome.encoder, attack=name))
        assert not reply.has_error(), (name, reply.error.reason)
        assert len(AuditReply.from_record(reply.content).figures) > 0


def test_another_model_than_the_one_judged_is_not_attacked(ended):
    site, request = ended
    before = len(site.lines())
    other = replace(request, arrays={name: value + 1e-12 for name, value in request.arrays.items()})
    scaled = replace(request, encoder=replace(request.encoder, center=request.encoder.center + 1e-9))
    for model, context in ((other, {}), (scaled, {}), (request, {"repeat": 1}), (request, {"run": "20261120-other"})):
        reply = asked(site, model, **context)
        assert reply.has_error() and reply.error.reason.endswith(Refusal("not-compared"))
    assert [line.kind for line in site.lines()[before:]] == ["refused"] * 4


def test_nothing_is_attacked_for_a_study_that_is_not_approved_or_by_an_attack_of_others(ended):
    site, request = ended
    assert "is not known" not in (site.refusal(site.message(AUDIT, request)) or "")
    wrong = site.refusal(site.message(AUDIT, replace(request, attack="membership")))
    assert wrong.endswith("does not fit the study: its section 'config' has a value 'attack' that does not fit")
    changed = site.study.text.replace("rounds = 5", "rounds = 6")
    assert "it needs a new approval" in site.refusal(site.message(AUDIT, request), study=changed)
    misshapen = replace(request, arrays={name: np.append(value, 0.0) for name, value in request.arrays.items()})
    assert "an array 'weight' of another shape than (5, 1)" in site.refusal(site.message(AUDIT, misshapen))


def test_a_policy_without_audits_says_so_in_a_sentence_that_may_leave_and_the_approval_shows_it(ended):
    site, request = ended
    shown = " ".join(details(site.study, site.site, [], ""))
    site.policy(audits=False)
    reply = asked(site, request)
    said = "its policy does not let a model be attacked with its rows (audits)"
    assert reply.error.reason == said and may_leave(said, site.site)
    hidden = " ".join(details(site.study, site.site, [], ""))
    assert "Released for each attack, if the run is audited (" in shown and "audited" not in hidden


def test_a_reply_that_holds_more_than_figures_stays(ended):
    site, request = ended
    message = site.message(AUDIT, request)
    reply = asked(site, request)
    sections = StudyMessages(site.study, datasets.load("small").schema, site.site).leaving(AUDIT)
    assert message_defect(reply.content, sections) is None
    for key, value in (("says", "Jane Roé"), ("says", "a" * 1001), ("metric", "auc {1}"), ("rows", -1), ("value", "x")):
        spoilt = AuditReply.from_record(reply.content).to_record()
        spoilt["figures"][key] = [value] * 2
        held = site.gate.leaving(message, Message(spoilt, reply_to=message), site.context())
        assert held.has_error() and "its query.audit reply is held back" in held.error.reason, key
    spoilt = AuditReply.from_record(reply.content).to_record()
    spoilt["rows"] = ArrayRecord([np.zeros(3)])
    assert "1 section too many" in message_defect(spoilt, sections)
    assert count_bytes(reply.content) < most_bytes(sections) < 40_000
