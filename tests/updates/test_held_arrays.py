"""Held arrays: Flower's own in all but the bytes, which are made on demand; shared, and changed by nobody."""

import copy
import gc
import pickle
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import array_to_proto, recorddict_to_proto

from flfed.updates.aggregation.rounds import RARELY, rarely_collected
from flfed.updates.messages import fields
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import (
    InMemoryArray,
    array_record,
    config_record,
    count_bytes,
    immutable,
    metric_record,
    own_copy,
    record_of,
)
from flfed.updates.messages.train import TrainRequest
from flfed.updates.strategies.fedavg import to_arrays, to_record

VALUES = [
    np.arange(6.0).reshape(2, 3), np.ones((2, 3, 4), dtype=np.float32), np.zeros((0, 3)), np.array([True, False]),
    np.arange(5, dtype=np.int8), np.arange(3, dtype=">f8"), np.float64([[7.0]]),
]  # fmt: skip
ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.ones(3, dtype=np.float32)}


@pytest.mark.parametrize("values", VALUES, ids=lambda v: f"{v.dtype}{v.shape}")
def test_it_is_flowers_own_array_to_whoever_asks(values):
    held, own = InMemoryArray(values), Array(values)
    assert (held.dtype, held.shape, held.stype, held.data) == (own.dtype, own.shape, own.stype, own.data)
    assert held == own and own == held and InMemoryArray(values.copy()) == held
    assert held.count_bytes() == len(own.data)
    np.testing.assert_array_equal(held.numpy(), values)
    assert held.numpy().dtype == values.dtype


@pytest.mark.parametrize("values", VALUES, ids=lambda v: f"{v.dtype}{v.shape}")
def test_what_leaves_the_process_is_flowers_own_array(values):
    held, own = InMemoryArray(values), Array(values)
    assert array_to_proto(held).SerializeToString() == array_to_proto(own).SerializeToString()
    assert held.deflate() == own.deflate() and held.object_id == own.object_id
    assert Array.inflate(held.deflate(), held.children) == own
    for other in (pickle.loads(pickle.dumps(held)), copy.deepcopy(held), copy.copy(held)):
        assert type(other) is Array and other == own


def test_another_array_is_not_equal():
    held = InMemoryArray(VALUES[0])
    assert held != Array(VALUES[0] + 1) and held != Array(VALUES[0].astype(np.float32))
    assert held != Array(VALUES[0].reshape(3, 2)) and held != VALUES[0].tobytes()


def test_only_plain_arrays_of_numbers_in_c_order_are_held():
    class Mine(np.ndarray):
        pass

    odd = [np.array(["a"]), np.array([None]), np.ones(2, dtype=complex), np.array(["2020"], dtype="M8[Y]")]
    for values in [*odd, np.arange(6.0).reshape(2, 3).T, np.ones(2).view(Mine)]:
        with pytest.raises(TypeError):
            InMemoryArray(values)
    by_columns = np.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(array_record({"a": by_columns})["a"].numpy(), by_columns)


def test_nobody_can_write_into_what_is_held_nor_put_something_else_in_its_place():
    mine = np.ones(3)
    held = InMemoryArray(mine)
    with pytest.raises(ValueError, match="read-only"):
        held.values[0] = 5.0
    for name in ("data", "dtype", "shape", "stype", "values"):
        with pytest.raises(AttributeError, match="put another array"):
            setattr(held, name, getattr(held, name))
    copied = held.numpy()
    copied[0] = 5.0
    assert held.values.tolist() == [1.0, 1.0, 1.0]
    mine[0] = 2.0  # whose it is may go on with it: so what many share is copied first
    assert held.values[0] == 2.0


def test_what_many_share_is_a_copy_that_cannot_be_made_writeable_again():
    mine = {"a": np.arange(4.0).reshape(2, 2).T}
    shared = immutable(mine)["a"]
    mine["a"][0, 0] = 9.0
    np.testing.assert_array_equal(shared, [[0.0, 2.0], [1.0, 3.0]])
    with pytest.raises(ValueError, match="WRITEABLE"):
        shared.flags.writeable = True


def test_reading_takes_the_very_array_and_gives_one_of_bytes_no_more_freedom():
    held = array_record(ARRAYS)
    plain = ArrayRecord({name: Array(value) for name, value in ARRAYS.items()})
    for record in (held, plain):
        found = fields.ndarrays(RecordDict({"arrays": record}), "arrays")
        for name, value in ARRAYS.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype and not found[name].flags.writeable
    assert fields.ndarrays(RecordDict({"arrays": held}), "arrays")["bias"] is held["bias"].values


# Records that Flower has not checked value by value.


def sections() -> dict[str, ArrayRecord | ConfigRecord | MetricRecord]:
    return {
        "arrays": array_record(ARRAYS),
        "config": config_record({"round": 3, "fit": True, "rate": 0.5, "kind": "delta", "raw": b"x"}),
        "metrics": metric_record({"loss": 0.25, "steps": 4}),
    }


def test_records_are_those_that_flower_would_have_made():
    made = record_of(sections())
    flowers = RecordDict({
        "arrays": ArrayRecord({name: Array(value) for name, value in ARRAYS.items()}),
        "config": ConfigRecord(dict(sections()["config"])), "metrics": MetricRecord(dict(sections()["metrics"])),
    })  # fmt: skip
    assert made == flowers
    assert recorddict_to_proto(made).SerializeToString() == recorddict_to_proto(flowers).SerializeToString()
    assert made.object_id == flowers.object_id
    for name, part in flowers.items():
        assert type(made[name]) is type(part)
        assert set(vars(made[name])) >= set(vars(type(part)())), "Flower keeps something else in its records now"
        assert made[name].count_bytes() == part.count_bytes()
    assert count_bytes(made) == sum(part.count_bytes() for part in flowers.values())


def test_records_made_in_a_hurry_go_on_checking_as_flowers_do():
    made = record_of(sections())
    for change in (
        lambda: made["config"].update(a=None),
        lambda: made["metrics"].update(a="many"),
        lambda: made["arrays"].update(a=1),
        lambda: made.update(a=1),
        lambda: config_record({"a": np.int64(3)}),
        lambda: metric_record({"a": True}),
        lambda: metric_record({1: 2.0}),
        lambda: config_record({"a": [1, "b"]}),
    ):
        with pytest.raises(TypeError):
            change()
    assert made == record_of(sections())
    assert config_record({"a": np.float64(3.0), "b": [1, 2]})["b"] == [1, 2]


def test_two_records_share_nothing_that_can_be_changed():
    one, two = record_of(sections()), record_of(sections())
    one["config"]["more"], one["more"] = 1, config_record({})
    assert "more" not in two and "more" not in two["config"] and len(config_record({})) == 0


EDITS = {
    "replaces an array": lambda r: r["arrays"].update(weight=Array(np.zeros((2, 3)))),
    "removes an array": lambda r: r["arrays"].pop("weight"),
    "adds an array": lambda r: r["arrays"].update(more=InMemoryArray(np.ones(2))),
    "changes a setting": lambda r: r["config"].update(round=99),
    "adds a setting": lambda r: r["settings"].update(more=1.0),
    "replaces a section": lambda r: r.update(encoder=array_record({})), "removes a section": lambda r: r.pop("config"),
    "clears everything": lambda r: [part.clear() for part in [*r.values(), r]],
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_who_edits_its_copy_changes_nobody_elses(edit, encoder):
    request = TrainRequest(arrays=ARRAYS, encoder=encoder, round=3, rounds=9, settings={"mu": 0.5})
    shared = request.to_record()
    mine, other = own_copy(shared), own_copy(shared)
    assert mine == shared and mine.object_id == shared.object_id
    EDITS[edit](mine)
    assert mine != shared
    for record in (shared, other):
        found = TrainRequest.from_record(record)
        assert (found.round, dict(found.settings)) == (3, {"mu": 0.5})
        np.testing.assert_array_equal(found.arrays["weight"], ARRAYS["weight"])
        np.testing.assert_array_equal(found.encoder.scale, encoder.scale)
        assert list(record["arrays"]) == list(ARRAYS)


def test_the_encoder_is_read_once_for_all_rounds_and_sites_and_only_where_it_is_the_very_same(encoder):
    first, second = (TrainRequest(arrays=ARRAYS, encoder=encoder, round=n, rounds=2).to_record() for n in (1, 2))
    found = [TrainRequest.from_record(own_copy(record)) for record in (first, first, second)]
    assert found[0].encoder is found[1].encoder is found[2].encoder
    assert found[0].arrays is not found[1].arrays and found[0].arrays["weight"] is found[1].arrays["weight"]
    # Not by value, nor by name: another array in the message is another encoder.
    edited = own_copy(first)
    edited["encoder"]["scale"] = InMemoryArray(encoder.scale * 2)
    with pytest.raises(MalformedMessage, match="not the one that its hash names"):
        TrainRequest.from_record(edited)
    edited["config"]["encoder-sha256"] = replace(encoder, scale=encoder.scale * 2).sha256()
    np.testing.assert_array_equal(TrainRequest.from_record(edited).encoder.scale, encoder.scale * 2)
    same = own_copy(first)
    same["encoder"]["scale"] = Array(encoder.scale)
    other = TrainRequest.from_record(same).encoder
    assert other is not found[0].encoder and other.sha256() == encoder.sha256()
    edited["encoder"]["scale"] = InMemoryArray(encoder.scale.astype(np.float32))
    with pytest.raises(MalformedMessage, match="scale"):
        TrainRequest.from_record(edited)


def test_a_site_that_writes_into_what_it_was_sent_is_stopped(encoder):
    for kind in (
        TrainRequest(arrays=ARRAYS, encoder=encoder, round=1, rounds=2),
        CompareRequest(arrays=ARRAYS, encoder=encoder),
    ):
        found = type(kind).from_record(kind.to_record())
        for values in (found.arrays["weight"], found.encoder.center):
            with pytest.raises(ValueError, match="read-only"):
                values *= 2
        found.arrays.clear()  # the dict is its own
        assert len(type(kind).from_record(kind.to_record()).arrays) == 2


def test_the_global_arrays_are_a_copy_of_what_a_strategy_goes_on_with():
    mine = {"weight": np.ones((2, 2)), "step": np.float32([3.0])}
    record = to_record(mine)
    mine["weight"][0, 0] = 9.0
    found = to_arrays(record)
    found["step"][0] = 9.0
    assert to_arrays(record)["weight"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert to_arrays(record)["step"].tolist() == [3.0] and found["step"].dtype == np.float32


def test_garbage_is_looked_for_rarely_while_rounds_run_and_as_before_afterwards():
    before = gc.get_threshold()
    one, beside = rarely_collected(), rarely_collected()
    for step in (one.__enter__, beside.__enter__):
        step()
        assert gc.get_threshold() == RARELY and gc.isenabled()
    one.__exit__(None, None, None)
    beside.__exit__(None, None, None)  # which found it so, and does not leave it so
    assert gc.get_threshold() == before
    with pytest.raises(KeyError), rarely_collected():
        raise KeyError
    assert gc.get_threshold() == before
