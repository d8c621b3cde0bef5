"""A message in one piece says what it said, and nothing else can be made of a piece."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from flfed.deployment.flower.message_parts import MOST_PIECE_BYTES as MOST_BYTES
from flfed.deployment.flower.message_parts import PIECE_KEY as KEY
from flfed.deployment.flower.message_parts import PIECE_SECTION as SECTION
from flfed.deployment.flower.message_parts import apart, joined
from flfed.updates.messages.fields import MalformedMessage, content_sha256
from flfed.updates.messages.in_memory import count_bytes


@pytest.fixture(autouse=True)
def identity():
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0


def message(size: int = 31) -> Message:
    rng = np.random.default_rng(0)
    arrays = {"weight": rng.normal(size=(size, 1)).astype(np.float32), "bias": np.array([np.nan, -0.0])}
    record = {
        "arrays": ArrayRecord({name: Array(values) for name, values in arrays.items()}),
        "metrics": MetricRecord({"loss": 0.1 + 0.2, "steps": 7, "several": [1.5, -2.5]}),
        "config": ConfigRecord({"name": "ä", "flag": True, "bytes": b"\0\xff", "count": 2**40}),
    }
    return Message(RecordDict(record), dst_node_id=7, message_type="train", group_id="3")


def test_what_is_joined_and_taken_apart_is_the_same_in_fewer_objects():
    given = message()
    travels = joined(given)
    found = apart(travels)
    # A message, its content and a record; else each array and its bytes as well.
    assert (len(get_all_nested_objects(given)), len(get_all_nested_objects(travels))) == (9, 3)
    assert content_sha256(found.content) == content_sha256(given.content)
    assert count_bytes(found.content) == count_bytes(given.content)
    assert list(given.content) == list(found.content) == ["arrays", "metrics", "config"]
    assert list(travels.content) == [SECTION]
    for name, array in given.content["arrays"].items():
        again = found.content["arrays"][name].numpy()
        assert (again.dtype, again.tobytes()) == (array.numpy().dtype, array.numpy().tobytes())
    assert dict(found.content["config"]) == dict(given.content["config"])
    assert dict(found.content["metrics"]) == dict(given.content["metrics"])
    assert (found.metadata.dst_node_id, found.metadata.message_type, found.metadata.group_id) == (7, "train", "3")


def test_what_is_large_or_an_error_or_in_pieces_goes_as_it_is():
    large = message(MOST_BYTES // 4)
    assert joined(large) is large
    plain = message()
    assert apart(plain) is plain
    asked = message()
    asked.metadata.__dict__["_message_id"] = "1"
    fault = Message(Error(code=1, reason="no"), reply_to=asked)
    assert joined(fault) is apart(fault) is fault


WRONG = {
    "not bytes": ConfigRecord({KEY: "text"}), "no piece": ConfigRecord({"other": b""}),
    "one key more": ConfigRecord({KEY: b"", "other": 1}), "not a record": ConfigRecord({KEY: b"\xff\xff\xff"}),
    "too large": ConfigRecord({KEY: bytes(MOST_BYTES + 1)}), "another kind": MetricRecord({KEY: 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_piece_that_is_none_is_malformed(what):
    given = message()
    given.content = RecordDict({SECTION: WRONG[what]})
    with pytest.raises(MalformedMessage, match="cannot be read"):
        apart(given)


def test_a_piece_in_a_piece_is_opened_once():
    twice = apart(joined(joined(message())))
    assert list(twice.content) == [SECTION]
