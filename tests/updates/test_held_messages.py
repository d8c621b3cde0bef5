"""Held messages: the very message to who reads it, Flower's own record to who looks, counted byte for byte."""

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st

from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import InMemoryRecord, Sizes, addressed, count_bytes, read, replying
from flfed.updates.messages.summarise import SummariseRequest
from flfed.updates.messages.train import Scores, TrainReply, TrainRequest
from tests.updates.conftest import ENCODER

ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.ones(3, dtype=np.float32)}
SCORES = Scores(
    rows="validation", num_examples=12, metrics={"loss": 0.4, "roc_auc_score": 0.71},
    variances={"roc_auc_score": 0.01}, histogram=np.ones((2, 256)),
)  # fmt: skip
REQUEST = TrainRequest(arrays=ARRAYS, encoder=ENCODER, round=3, rounds=40, settings={"proximal-mu": 0.1})
REPLY = TrainReply(delta=ARRAYS, num_examples=120.0, loss=0.3, steps=9, scores=SCORES)
MESSAGES = [
    REQUEST, REPLY, SummariseRequest(), TrainReply(delta={}, num_examples=1.0, loss=0.0, steps=0),
    EnrolReply(site="cleveland", title="Cleveland Clinic", version="0.1", accepted=True, rows_low=100, rows_high=999,
               epsilon_budget=3.0, epsilon_spent=0.5),
]  # fmt: skip
every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
arrays = st.dictionaries(
    st.text(max_size=5),
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(["f4", "f8", "i2"])).map(
        lambda given: np.zeros(given[0], given[1])
    ),
    max_size=4,
)
figures = st.dictionaries(st.text(max_size=5), st.floats(), max_size=3)
scores = st.none() | st.builds(
    Scores, rows=st.sampled_from(["validation", "training", ""]), num_examples=st.integers(0, 99),
    metrics=figures, variances=figures, histogram=st.none() | st.just(np.ones((2, 256))),
)  # fmt: skip
replies = st.builds(
    TrainReply, delta=arrays, num_examples=st.floats() | st.integers(0, 9), loss=st.floats(),
    steps=st.integers(0, 99), scores=scores, kind=st.text(max_size=5),
)  # fmt: skip


@every_message
def test_who_reads_it_gets_the_very_message(message):
    held = InMemoryRecord(message)
    assert read(type(message), held) is message and held.untouched()


@every_message
def test_who_looks_finds_flowers_own_record(message):
    plain = message.to_record()
    for look in (lambda r: r == plain, lambda r: dict(r.items()) == dict(plain.items()), lambda r: r.copy() == plain,
                 lambda r: list(r) == list(plain), lambda r: len(r) == len(plain), lambda r: "config" in r,
                 lambda r: "nothing" not in r, lambda r: repr(r).endswith(repr(plain).removeprefix("RecordDict")),
                 lambda r: set(r.config_records) == set(plain.config_records), lambda r: plain == r):  # fmt: skip
        assert look(InMemoryRecord(message))


@every_message
def test_what_leaves_the_process_is_flowers_own_record(message):
    held, plain = InMemoryRecord(message), message.to_record()
    sent = [recorddict_to_proto(record).SerializeToString(deterministic=True) for record in (held, plain)]
    assert sent[0] == sent[1]
    assert held.deflate() == plain.deflate() and held.object_id == plain.object_id
    assert RecordDict.inflate(held.deflate(), held.children) == plain
    for other in (pickle.loads(pickle.dumps(held)), copy.deepcopy(held), held.copy()):
        assert type(other) is RecordDict and other == plain


def edit(record: RecordDict) -> None:
    record["metrics"] = MetricRecord({"num-examples": 7.0, "loss": 0.1, "steps": 1})


def edit_within(record: RecordDict) -> None:
    record.metric_records["metrics"]["num-examples"] = 7.0


@pytest.mark.parametrize("change", [edit, edit_within])
def test_an_edit_is_read_and_reaches_no_other_holder_of_the_message(change):
    mine, other = InMemoryRecord(REPLY), InMemoryRecord(REPLY)
    change(mine)
    assert read(TrainReply, mine).num_examples == 7.0
    assert read(TrainReply, other).num_examples == REPLY.num_examples == 120.0
    assert count_bytes(other) == count_bytes(REPLY.to_record())


def test_what_was_taken_out_is_missing():
    record = InMemoryRecord(REPLY)
    del record["metrics"]
    with pytest.raises(MalformedMessage, match="has no num-examples, steps"):
        read(TrainReply, record)


def test_a_message_of_another_kind_is_read_from_its_sections():
    with pytest.raises(MalformedMessage, match="has no arrays 'arrays'"):
        read(TrainRequest, InMemoryRecord(SummariseRequest()))
    with pytest.raises(MalformedMessage, match="protocol 3 is not 2"):
        read(SummariseRequest, RecordDict({"config": ConfigRecord({"protocol": 3})}))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if dataclasses.is_dataclass(a):
        return same(vars(a), vars(b))
    return bool(np.array_equal(a, b, equal_nan=True)) if isinstance(a, (np.ndarray, float)) else a == b


@every_message
def test_the_sections_read_give_an_equal_message(message):
    looked_at = InMemoryRecord(message)
    assert len(looked_at) and not looked_at.untouched()
    found = read(type(message), looked_at)
    assert found is not message and same({**vars(found), "encoder": 0}, {**vars(message), "encoder": 0})


@given(st.lists(replies, max_size=6))
def test_a_held_message_is_counted_as_its_sections_are(found):
    sizes = Sizes()
    for reply in [*found, *found]:
        assert sizes.of(InMemoryRecord(reply)) == sizes.of(reply.to_record()) == count_bytes(reply.to_record())


@every_message
def test_each_layout_is_counted_once_and_what_was_changed_anew(message, monkeypatch):
    sizes, held = Sizes(), InMemoryRecord(message)
    expected = count_bytes(message.to_record())
    assert sizes.of(held) == sizes.of(InMemoryRecord(message)) == expected and held.untouched()
    held["more"] = ConfigRecord({"a": 1.5})
    assert sizes.of(held) == expected + 1 + 8


def test_messages_that_differ_in_a_name_a_type_or_a_shape_are_each_counted():
    number, nothing = np.array(1.0), np.zeros((0, 9))
    deltas = [
        {}, {"": number}, {"": nothing}, {"": number, "a": nothing}, {"a": nothing, "": number}, {"ab": number},
        {"": np.ones(1)}, {"": np.ones(1, dtype=np.float32)}, {"": np.ones((1,) * 40)},
    ]  # fmt: skip
    many = [
        TrainReply(delta=delta, num_examples=1.0, loss=0.0, steps=1, kind=kind, scores=scored)
        for delta in deltas
        for kind in ("", "delta")
        for scored in (None, SCORES)
    ]
    sizes = Sizes()
    assert [sizes.of(InMemoryRecord(one)) for one in many] == [count_bytes(one.to_record()) for one in many]


def instruction(node: int = 3, content: RecordDict | None = None) -> Message:
    """Return a message as a grid hands it to a node: with an id, and task ids of both sides."""
    content = InMemoryRecord(REQUEST) if content is None else content
    found = Message(content, node, "train", group_id="7", ttl=60.0, dst_task_id=5)
    found.metadata.src_task_id = 4
    vars(found.metadata)["_message_id"] = "m"
    return found


def facts(message: Message) -> dict[str, Any]:
    """Return all that Flower keeps of a message and its metadata, but the content and the moment."""
    assert type(message) is Message and type(message.metadata) is Metadata
    kept = vars(message) | vars(message.metadata)
    assert kept["_metadata"] is message.metadata and kept["_content"] is message.content
    return {key: value for key, value in kept.items() if key not in ("_metadata", "_content", "_created_at", "_ttl")}


def test_a_reply_is_the_one_that_flower_makes():
    asked, content = instruction(), InMemoryRecord(REPLY)
    mine, flowers = replying(content, asked), Message(content, reply_to=asked)
    assert facts(mine) == facts(flowers) and mine.content is content and not mine.has_error()
    assert 0 <= flowers.metadata.created_at - mine.metadata.created_at < 5
    # What is left of the question's 60 seconds.
    for one in (mine, flowers):
        until = one.metadata.created_at + one.metadata.ttl
        assert until == pytest.approx(asked.metadata.created_at + 60, abs=1e-5)
    assert (mine.metadata.src_node_id, mine.metadata.reply_to_message_id) == (3, "m")


def test_a_message_to_another_node_is_the_one_that_flower_makes_and_its_own():
    first, content = instruction(), InMemoryRecord(REQUEST)
    mine, flowers = addressed(first, 8, content), instruction(8, content)
    assert facts(mine) == facts(flowers) and mine.content is content is not first.content
    assert (mine.metadata.created_at, mine.metadata.ttl) == (first.metadata.created_at, 60.0)
    other = addressed(first, 9, InMemoryRecord(REQUEST))
    mine.metadata.group_id, mine.content = "changed", RecordDict()
    assert [one.metadata.group_id for one in (first, mine, other)] == ["7", "changed", "7"]
    assert [one.metadata.dst_node_id for one in (first, mine, other)] == [3, 8, 9]
    assert read(TrainRequest, other.content) is REQUEST
