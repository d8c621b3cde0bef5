"""The hash of a reply's content, as the ledger has it: one for what is equal, another for whatever differs."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.train import TrainReply


def record(**changes: object) -> RecordDict:
    given = {"delta": {"w": np.array([1.0, -2.0]), "b": np.zeros((1, 2))}, "num_examples": 9.0, "loss": 0.1, "steps": 3}
    return TrainReply(**{**given, **changes}).to_record()


def test_the_hash_of_a_reply_is_that_of_its_content_however_it_travels():
    plain = record()
    travelled = recorddict_from_proto(recorddict_to_proto(plain))
    reordered = RecordDict(dict(reversed(list(plain.items()))))
    assert content_sha256(plain) == content_sha256(travelled) == content_sha256(reordered)
    nan = record(loss=float("nan"))
    assert content_sha256(nan) == content_sha256(recorddict_from_proto(recorddict_to_proto(nan)))


def test_whatever_changes_in_a_reply_changes_its_hash():
    near = np.nextafter(1.0, 2.0)
    others = [
        record(delta={"w": np.array([near, -2.0]), "b": np.zeros((1, 2))}),
        record(delta={"w": np.array([1.0, -2.0]), "b": np.zeros((2, 1))}),
        record(delta={"w": np.array([1.0, -2.0]), "c": np.zeros((1, 2))}),
        record(delta={"w": np.array([1.0, -2.0], dtype=np.float32), "b": np.zeros((1, 2))}),
        record(delta={"w": np.array([1.0, -2.0])}), record(num_examples=10.0),
        record(loss=float(np.nextafter(0.1, 1.0))), record(steps=4), record(kind="sums"),
        RecordDict({**dict(record().items()), "more": ConfigRecord({"a": b"\x00"})}),
        RecordDict({**dict(record().items()), "more": MetricRecord({"a": 1})}),
        RecordDict({**dict(record().items()), "more": ConfigRecord({"a": 1})}),
        RecordDict({**dict(record().items()), "more": ConfigRecord({"a": 1.0})}),
        RecordDict({**dict(record().items()), "more": ArrayRecord()}),
    ]  # fmt: skip
    assert len({content_sha256(one) for one in (record(), *others)}) == 15
