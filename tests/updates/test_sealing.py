"""The messages that carry a ledger's head and its receipt: each comes back as it went, or says what is missing."""

import dataclasses
import inspect
from typing import Any

import pytest
from flwr.app import RecordDict

from flfed.updates.messages.enrol import SealedReply, SealedRequest, SealReply, SealRequest
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import count_bytes
from tests.updates.whole_requests import through_bytes

HEAD, OTHER = "0a" * 32, "f1" * 32
EXAMPLES: list[Any] = [
    SealRequest(run="20261120-heart-disease-1", n_known=0), SealReply(n=12, head=HEAD, at_known=OTHER),
    SealReply(n=0, head="0" * 64), SealedRequest(run="r", n=12, head=HEAD, signature="5c" * 64), SealedReply(),
]  # fmt: skip
NAMES = [f"{type(example).__name__}-{number}" for number, example in enumerate(EXAMPLES)]


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_a_message_comes_back_as_it_went_here_and_through_bytes(example: Any):
    assert type(example).from_record(example.to_record()) == example
    assert type(example).from_record(through_bytes(example.to_record())) == example
    assert list(example.to_record()) == ["config"]
    assert [key for key in example.to_record()["config"] if "_" in key] == []


def test_every_message_is_among_the_examples_frozen_and_says_what_it_reveals():
    found = {type(example) for example in EXAMPLES}
    assert found == {SealRequest, SealReply, SealedRequest, SealedReply}
    for kind in found:
        assert kind.__dataclass_params__.frozen
        assert inspect.getdoc(kind).count("Reveals: ") == 1


def test_how_many_bytes_cross_for_a_receipt():
    # Keys and texts by length, numbers as 8: protocol, n, head, at-known.
    assert count_bytes(EXAMPLES[1].to_record()) == (8 + 8) + (1 + 8) + (4 + 64) + (8 + 64)


@pytest.mark.parametrize(("example", "key", "value"), [
    (0, "n-known", -1), (0, "n-known", True), (0, "n-known", 1.0), (0, "n-known", "1"), (0, "n-known", 2**53 + 1),
    (0, "run", ""), (0, "run", "../x"), (0, "run", "a" * 101), (0, "run", "a\n"), (0, "run", 7),
    (1, "n", -1), (1, "n", 2**60), (1, "head", HEAD[1:]), (1, "head", HEAD.upper()), (1, "head", HEAD + "\n"),
    (1, "head", ""), (1, "at-known", OTHER + "a"), (1, "at-known", "no"), (1, "rows", 5),
    (3, "signature", "5c" * 63), (3, "signature", "5g" * 64), (3, "head", HEAD.encode()), (3, "n", -5),
    (4, "why", "because"),
])  # fmt: skip
def test_a_value_that_no_honest_side_sends_is_malformed(example: int, key: str, value: object):
    record = through_bytes(EXAMPLES[example].to_record())
    record["config"][key] = value
    with pytest.raises(MalformedMessage) as caught:
        type(EXAMPLES[example]).from_record(record)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_without_a_required_field_the_error_names_it(example: Any):
    for field in dataclasses.fields(example):
        record = through_bytes(example.to_record())
        del record["config"][field.name.replace("_", "-")]
        if field.default is not dataclasses.MISSING:
            assert getattr(type(example).from_record(record), field.name) == field.default
            continue
        with pytest.raises(MalformedMessage, match=field.name):
            type(example).from_record(record)
    with pytest.raises(MalformedMessage, match="config"):
        type(example).from_record(RecordDict())
