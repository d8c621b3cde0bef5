"""A policy that is changed while the gate serves holds from the next message on; an unreadable one stops it."""

from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest

UNREADABLE = "its policy cannot be read; at the site: flfed site check site-01"


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_the_next_message_is_held_to_the_policy_as_it_stands(gated, policy_file: Path):
    site = gated()
    site.open(folder=policy_file.parent, policy=Policy())
    assert site.refusal(site.trained()) is None
    policy_file.write_text("format = 1\nrounds = 4\n")
    assert site.refusal(site.trained()) == "its policy allows 4 rounds, the study has 5"
    policy_file.write_text("rounds = ")
    assert site.refusal(site.trained()) == UNREADABLE
    policy_file.write_text("format = 1\nrounds = 5\n")
    assert site.refusal(site.trained()) is None
    policy_file.write_bytes(b"\xff")
    assert [site.refusal(site.trained()) for _ in range(2)] == [UNREADABLE, UNREADABLE]
    policy_file.unlink()  # there was none when the gate began
    assert site.refusal(site.trained()) is None


def test_a_policy_that_is_taken_away_loosens_nothing(gated, policy_file: Path):
    policy_file.write_text("format = 1\nrounds = 5\nco-sites = ['site-02', 'site-03']\n")
    site = gated()
    site.open(folder=policy_file.parent, policy=Policy(rounds=5, co_sites=("site-02", "site-03")))
    assert site.refusal(site.trained()) is None
    policy_file.unlink()
    assert site.refusal(site.trained()) == UNREADABLE
    policy_file.mkdir()
    assert site.refusal(site.trained()) == UNREADABLE


def test_what_was_opened_under_the_policy_before_is_opened_anew(gated, policy_file: Path):
    site = gated()
    policy_file.write_text("format = 1\ndisclosure = 'open'\n")
    site.open(folder=policy_file.parent, policy=Policy(disclosure="open"))
    schema = datasets.load("small").schema.sha256()

    def enrolled() -> EnrolReply:
        message = site.message(ENROL, EnrolRequest(dataset="small", schema_sha256=schema))
        return EnrolReply.from_record(site.answer(message).content)

    before = enrolled()
    policy_file.write_text("format = 1\n")
    after = enrolled()
    assert before.disclosure == "open"
    assert after.disclosure == "institution"


def test_a_reply_that_was_computed_under_the_policy_before_does_not_leave(gated, policy_file: Path):
    site = gated()
    site.open(folder=policy_file.parent, policy=Policy())
    message = site.trained()
    assert site.refusal(message) is None
    policy_file.write_text("format = 1\nrounds = 999\n")
    reply = site.gate.leaving(message, Message(RecordDict(), reply_to=message), site.context())
    said = "its policy was changed while this was computed; the next message is held to it"
    assert (reply.error.reason, site.lines()[-1].kind, site.lines()[-1].facts["reason"]) == (said, "withheld", said)
    assert site.refusal(message) is None
