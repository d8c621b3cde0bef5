"""The gate reads one message at a time, bounded, from Flower's real Runtime API over a Unix socket."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.object_store.object_store import NoObjectInStoreError

from flfed.deployment.flower import site_client as tasks_module
from flfed.deployment.flower.site_client import Bounded, LinkLost, Task, Tasks
from flfed.deployment.processes.connector import RelayClient
from flfed.refusals import Refusal
from flfed.updates.messages.fields import MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def tasks(gate_node: Any, gate_secret: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tasks]:
    monkeypatch.setattr(tasks_module, "MOST_BYTES", 200_000)
    made = Tasks(gate_node.link.connect, gate_secret)
    yield made
    made.close()
    # A heart that goes on beats for ever, and draws its pauses from the `random` of whatever test comes next.
    assert [thread.name for thread in threading.enumerate() if thread.name.endswith("(_run)")] == []


def taken(tasks: Tasks) -> Task:
    task = tasks.next()
    assert task is not None
    return task


def test_a_message_comes_whole_and_its_reply_goes_back(gate_node: Any, tasks: Tasks):
    assert tasks.next() is None
    asked = gate_node.put()
    task = taken(tasks)
    assert task.message.metadata.message_id == asked
    assert task.message.content["config"]["n"] == 3
    np.testing.assert_array_equal(task.message.content["arrays"].to_numpy_ndarrays()[0], np.arange(6.0))
    assert task.context.node_config == {"site": "site-a"}
    assert task.context.run_config == {"study": "text", "sites": "site-a,site-b"}
    assert tasks.next() is None
    task.reply(Message(RecordDict({"config": ConfigRecord({"echo": 4})}), reply_to=task.message))
    reply = gate_node.reply()
    assert reply.metadata.reply_to_message_id == asked
    assert reply.metadata.run_id == 77
    assert gate_node.store.get(reply.metadata.message_id) not in (None, b"")
    assert tasks.next() is None


def test_nothing_of_this_process_but_the_reply_reaches_the_node(gate_node: Any, tasks: Tasks):
    gate_node.put()
    task = taken(tasks)
    task.context.state["private"] = ConfigRecord({"rows": 123})
    task.context.run_config["private"] = 5
    task.reply(Message(RecordDict(), reply_to=task.message))
    held = gate_node.state.get_run_series_context(0)
    assert len(held.state) == 0
    assert "private" not in held.run_config


def test_a_task_that_comes_before_its_message_is_waited_for(gate_node: Any, tasks: Tasks):
    putting = threading.Thread(target=lambda: gate_node.put(late=0.1))
    putting.start()
    while (task := tasks.next()) is None:
        pass
    assert task.message.content["config"]["n"] == 3
    putting.join()
    task.close()


@pytest.mark.servers
def test_a_message_that_the_node_downloads_slowly_is_waited_for_with_signs_of_life(gate_node, gate_secret, monkeypatch):
    monkeypatch.setattr(tasks_module, "ARRIVING", 0.5)  # a slow line takes longer than that, for all parts together
    beats = [time.monotonic()]
    # Each look finds that the node has received another piece.
    tasks = Tasks(
        gate_node.link.connect, gate_secret, alive=lambda: beats.append(time.monotonic()), received=time.monotonic
    )
    putting = threading.Thread(target=lambda: gate_node.put(download=4.0))
    putting.start()
    while (task := tasks.next()) is None:
        pass
    beats.append(time.monotonic())
    assert task.message.content["config"]["n"] == 3
    assert beats[-1] - beats[0] > 3.5
    assert len(beats) >= 6  # signs of life come more than once a second, where the machine has the time
    putting.join()
    task.close()
    tasks.close()


@pytest.mark.servers
def test_a_message_that_the_node_gave_up_is_a_lost_link_at_once(gate_node, tasks, wait_until):
    asked = gate_node.message()

    def put() -> None:
        with suppress(NoObjectInStoreError):
            gate_node.put(asked, download=3)

    putting = threading.Thread(target=put)
    putting.start()

    def give_up() -> None:
        wait_until(lambda: gate_node.store.get(asked.metadata.message_id) is not None)
        time.sleep(1)
        gate_node.store.delete(asked.metadata.message_id)

    gone = threading.Thread(target=give_up)
    gone.start()
    began = time.monotonic()
    with pytest.raises(LinkLost, match="the node gave up receiving a message"):
        while tasks.next() is None:
            pass
    assert time.monotonic() - began < 30
    for thread in (gone, putting):
        thread.join()


def test_a_message_of_which_nothing_more_comes_is_given_up_and_the_next_one_taken(gate_node, gate_secret, monkeypatch):
    """Seen: the node had dropped the message, and the gate asked for its parts for ever, with signs of life."""
    monkeypatch.setattr(tasks_module, "ARRIVING", 0.5)
    tasks = Tasks(gate_node.link.connect, gate_secret)
    with monkeypatch.context() as dropping:
        dropping.setattr(gate_node.store, "put", lambda *_: None)
        gate_node.put()
    with pytest.raises(LinkLost, match="received nothing more of a message for 0.5 s"):
        tasks.next()
    gate_node.restart()  # as a node does that is asked for a message although one is unanswered
    gate_node.put()
    task = taken(tasks)
    assert task.message.content["config"]["n"] == 3
    task.close()
    tasks.close()


def test_a_message_with_the_context_of_another_run_is_refused(gate_node: Any, tasks: Tasks):
    gate_node.put(run=78)
    with pytest.raises(MalformedMessage) as refused:
        tasks.next()
    reply = gate_node.reply()
    assert (reply.error.code, reply.error.reason) == (1, str(refused.value)) == (1, str(Refusal("two-runs")))


@pytest.mark.parametrize("where", ["arrays", "bundle"])
def test_too_large_a_message_is_refused_before_it_is_read(gate_node: Any, tasks: Tasks, where: str):
    large = RecordDict({"arrays": ArrayRecord([np.zeros(30_000), np.ones(30_000)])})  # 2 x 240,000 bytes
    if where == "arrays":
        gate_node.put(gate_node.message(large))
    else:
        gate_node.put(bundle=bytes(250_000))
    with pytest.raises(MalformedMessage, match="larger than 200000 bytes"):
        tasks.next()
    assert gate_node.reply().error.reason == "the message is larger than 200000 bytes, which this site reads"
    gate_node.put()
    task = taken(tasks)
    assert task.message.content["config"]["n"] == 3
    task.close()


def test_a_message_that_just_fits_is_answered_too(gate_node: Any, gate_secret: bytes, monkeypatch: pytest.MonkeyPatch):
    used: list[int] = []
    count = Bounded.has_read
    monkeypatch.setattr(Bounded, "has_read", lambda self: used.append(self._most - self._left) or count(self))
    large = RecordDict({"arrays": ArrayRecord([np.arange(9_000.0)])})
    for _ in range(2):  # how many bytes its reading takes, and then with not many more: a heart-beat has 2
        monkeypatch.setattr(tasks_module, "MOST_BYTES", used[0] + 40 if used else 200_000)
        tasks = Tasks(gate_node.link.connect, gate_secret)
        gate_node.put(gate_node.message(large))
        task = taken(tasks)
        task.reply(Message(RecordDict(), reply_to=task.message))
        assert not gate_node.reply().has_error()
        tasks.close()
    assert 72_000 < used[0] < 80_000


def test_many_small_parts_count_together(gate_node: Any, tasks: Tasks):
    parts = RecordDict({"arrays": ArrayRecord([np.full(1_000, float(n)) for n in range(40)])})  # 40 x 8,000 bytes
    gate_node.put(gate_node.message(parts))
    with pytest.raises(MalformedMessage, match="larger than 200000 bytes"):
        tasks.next()
    assert gate_node.reply().error.code == 1


def test_more_parts_than_any_message_has_are_refused(gate_node: Any, tasks: Tasks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flfed.deployment.flower.message_parts.MOST_PARTS", 5)
    gate_node.put(gate_node.message(RecordDict({"a": ArrayRecord([np.zeros(1), np.ones(1)])})))
    with pytest.raises(MalformedMessage, match="more than 5 parts"):
        tasks.next()
    assert gate_node.reply().error.code == 1


def test_a_content_that_is_no_message_is_an_error_of_ours(gate_node: Any, tasks: Tasks):
    asked = gate_node.put()
    gate_node.store.delete(asked)
    gate_node.store.preregister(77, _tree(asked))
    gate_node.store.store[asked].content = b"Message 5\x00junk"
    task = taken(tasks)
    with pytest.raises(MalformedMessage, match="the message cannot be read"):
        _ = task.message
    task.refuse("no")
    assert gate_node.reply().error.reason == "no"


def _tree(name: str) -> Any:
    from flwr.proto.message_pb2 import ObjectTree

    return ObjectTree(object_id=name)


def test_an_envelope_that_says_another_kind_than_its_content_is_refused(gate_node: Any, tasks: Tasks):
    asked = gate_node.put()
    gate_node.state.msg_store[asked].message.metadata.__dict__["_message_type"] = "evaluate"
    task = taken(tasks)
    assert task.envelope.metadata.message_type == "evaluate"
    with pytest.raises(MalformedMessage, match="another message-type than its envelope"):
        _ = task.message
    task.close()


def test_a_wrong_secret_and_an_absent_node_are_said(gate_node: Any, tmp_path: Path):
    gate_node.put()
    other = Tasks(gate_node.link.connect, b"1" * 64)
    with pytest.raises(LinkLost, match="answered 401"):
        other.next()
    other.close()
    nobody = Tasks(RelayClient(tmp_path / "none.sock").connect, b"1" * 64)
    with pytest.raises(LinkLost, match="cannot be reached"):
        nobody.next()
    nobody.close()


def test_a_reply_to_a_run_that_ended_as_it_was_sent_is_a_lost_link(gate_node, tasks, monkeypatch):
    gate_node.put()
    task = taken(tasks)
    register = gate_node.store.preregister

    def ended(run: int, tree: Any) -> list[str]:
        names = register(run, tree)
        gate_node.store.clear()  # as the node does when it learns that a run has ended
        return list(names)

    monkeypatch.setattr(gate_node.store, "preregister", ended)
    with pytest.raises(LinkLost, match="its run may have ended"):
        task.reply(Message(RecordDict({"config": ConfigRecord({"echo": 4})}), reply_to=task.message))
    assert not task._beating.is_running
    monkeypatch.undo()
    gate_node.put()
    taken(tasks).close()  # the gate goes on with the next message


def test_a_reply_to_a_node_that_forgot_the_task_is_a_lost_link(gate_node: Any, tasks: Tasks):
    gate_node.put()
    task = taken(tasks)
    gate_node.restart()
    with pytest.raises(LinkLost):
        task.reply(Message(RecordDict(), reply_to=task.message))
    assert not task._beating.is_running
    assert threading.active_count() < 20


def test_the_heart_beats_while_a_task_is_answered(gate_node: Any, tasks: Tasks, wait_until: Callable[..., None]):
    beats: list[int] = []
    acknowledge = gate_node.state.acknowledge_task_heartbeat
    gate_node.state.acknowledge_task_heartbeat = lambda *given: beats.append(1) or acknowledge(*given)
    gate_node.put()
    task = taken(tasks)
    wait_until(lambda: len(beats) >= 1)
    task.reply(Message(RecordDict(), reply_to=task.message))
    assert not task._beating.is_running


def test_no_line_of_a_bundle_is_installed_or_imported(gate_node: Any, tasks: Tasks, monkeypatch: pytest.MonkeyPatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("installed")

    for name in ("flwr.cli.install", "flwr.supernode.runtime.run_clientapp"):
        monkeypatch.setattr(f"{name}.install_from_fab", never)
    gate_node.put(bundle=b"PK\x03\x04 import os")
    before = set(sys.modules)
    taken(tasks).close()
    assert len({name for name in set(sys.modules) - before if "flfed_bundle" in name}) == 0


@pytest.mark.parametrize(("headers", "rule"), [
    ({"content-length": "30"}, "larger than 20 bytes"), ({}, "does not say"),
    ({"content-encoding": "gzip"}, "packed"),
])  # fmt: skip
def test_an_answer_of_unknown_or_packed_length_is_not_read(headers: dict[str, str], rule: str):
    bounded = Bounded(RelayClient(Path("/nowhere")).connect, 20)
    fixed = httpx.MockTransport(lambda request: httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"")))
    bounded._inner = fixed  # type: ignore[assignment]
    with pytest.raises(MalformedMessage, match=rule):
        bounded.handle_request(httpx.Request("POST", "http://node/"))
    assert bounded._left == 20


def test_a_message_written_by_flower_is_the_one_we_read(gate_node: Any, tasks: Tasks):
    message = gate_node.message(kind="query.enrol")
    gate_node.put(message)
    task = taken(tasks)
    assert message_to_proto(task.envelope).metadata == message_to_proto(message).metadata
    assert task.message.metadata.ttl == message.metadata.ttl > 0
    task.close()
