"""What the coordinator makes of replies whose parts are damaged, too large, or say that they are another site's."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, run_from_proto
from flwr.proto import message_pb2, runtime_pb2
from flwr.proto.run_pb2 import Run
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id
from flwr.supercore.task_identity import TaskIdentity

from flfed.deployment.flower import grid as deployed_grid
from flfed.deployment.flower.grid import DeployedGrid
from flfed.deployment.flower.message_parts import joined

GOOD, EVIL, RUN = 5, 6, 7
Parts = tuple[dict[str, bytes], str]


def raw(kind: str, body: bytes, children: str = "") -> Parts:
    """Return a part as Flower takes it from anybody: a head, and whatever bytes."""
    content = f"{kind} {children} {len(body)}".encode() + b"\x00" + body
    return {get_object_id(content): content}, get_object_id(content)


def parts(thing: Message | RecordDict) -> Parts:
    found = {name: part.deflate() for name, part in get_all_nested_objects(thing).items()}
    return found, thing.object_id


def reply_to(asked: Message, word: str = "hello", **other: object) -> Message:
    reply = Message(RecordDict({"config": ConfigRecord({"said": word})}), reply_to=asked)
    for name, value in other.items():
        reply.metadata.__dict__[f"_{name}"] = value
    return reply


class Server:
    """Stands for the SuperLink: hands out what a node pushed, under an envelope of its own."""

    def __init__(self, answer: Callable[[Message], Parts]) -> None:
        self._answer, self._asked, self._parts = answer, list[message_pb2.Message](), dict[str, bytes]()
        self._client = type("Http", (), {"event_hooks": {}})()

    def PushMessages(self, request):
        self._asked = list(request.messages_list)
        ids = [message.metadata.message_id for message in self._asked]
        return runtime_pb2.PushAppMessagesResponse(message_ids=ids)

    def PullMessages(self, request: runtime_pb2.PullAppMessagesRequest):
        given = runtime_pb2.PullAppMessagesResponse()
        for told in self._asked:
            asked = message_from_proto(told)
            asked.metadata.__dict__["_message_id"] = told.metadata.message_id
            asked.__dict__["_content"] = RecordDict()
            honest = asked.metadata.dst_node_id == GOOD
            found, name = parts(joined(reply_to(asked))) if honest else self._answer(asked)
            self._parts |= found
            envelope = given.messages_list.add()
            envelope.CopyFrom(told)
            envelope.metadata.message_id, envelope.metadata.reply_to_message_id = name, told.metadata.message_id
            envelope.metadata.src_node_id, envelope.metadata.dst_node_id = told.metadata.dst_node_id, 1
            children = [message_pb2.ObjectTree(object_id=part) for part in found if part != name]
            given.message_object_trees.append(message_pb2.ObjectTree(object_id=name, children=children))
        self._asked = []
        return given

    def PullObject(self, request: message_pb2.PullObjectRequest):
        content = self._parts.get(request.object_id)
        found = content is not None
        return message_pb2.PullObjectResponse(object_found=found, object_available=found, object_content=content or b"")

    def PushObject(self, request):
        return message_pb2.PushObjectResponse(stored=True)

    def ConfirmMessageReceived(self, request: message_pb2.ConfirmMessageReceivedRequest):
        return message_pb2.ConfirmMessageReceivedResponse()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Message], Parts]], dict[int, str]]:
    """A function that asks two nodes, of which one answers as given; returns what came of each."""
    for name, value in (("task_id", 1), ("run_id", RUN), ("node_id", 1)):
        monkeypatch.setattr(TaskIdentity, f"_{name}", value)

    def go(answer: Callable[[Message], Parts]) -> dict[int, str]:
        grid = DeployedGrid(lambda: Server(answer), {GOOD: "good", EVIL: "evil"}, lambda: None)
        grid.set_run(run_from_proto(Run(run_id=RUN)))
        content = RecordDict({"config": ConfigRecord({"x": 1})})
        replies = grid.send_and_receive(
            [Message(content, dst_node_id=node, message_type="train") for node in (GOOD, EVIL)], timeout=3
        )
        return {
            reply.metadata.src_node_id: reply.error.reason if reply.has_error() else reply.content["config"]["said"]
            for reply in replies
        }

    return go


@pytest.mark.parametrize(("answer", "why"), [
    (lambda asked: parts(reply_to(asked, "hi")), "hi"),
    (lambda asked: parts(RecordDict({"config": ConfigRecord({"a": 1})})), "holds something else than a message"),
    (lambda asked: raw("Message", b"\xff\xff\xff"), "the message cannot be read"),
    (lambda asked: raw("Message", b"", "a" * 64), "the message cannot be read"),
    (lambda asked: parts(reply_to(asked, src_node_id=GOOD)), "another src-node-id than its envelope"),
    (lambda asked: parts(reply_to(asked, reply_to_message_id="0" * 64)), "another reply-to-message-id than"),
    (lambda asked: ({}, "b" * 64), "its reply was lost on the way"),
])  # fmt: skip
def test_a_reply_that_is_none_is_a_fault_of_its_node_and_the_others_count(said, answer, why):
    found = said(answer)
    assert found[GOOD] == "hello" and set(found) == {GOOD, EVIL}
    assert why in found[EVIL]


def test_a_reply_that_would_fill_the_memory_is_not_kept(said, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deployed_grid, "MOST_BYTES", 2000)
    found = said(lambda asked: parts(reply_to(asked, "x" * 3000)))
    assert (found[GOOD], found[EVIL]) == ("hello", "evil: its reply is larger than 2000 bytes, which are read")


class SlowServer(Server):
    """Has one part more of a reply each second; counts what is asked, and says when the honest node's is confirmed."""

    def __init__(self, answer: Callable[[Message], Parts], clock: Callable[[], float]) -> None:
        super().__init__(answer)
        self._now, self._began, self.sent, self.confirmed = clock, clock(), 0, dict[str, float]()

    def PushMessages(self, request):
        self.sent += len(request.messages_list)
        return super().PushMessages(request)

    def PullObject(self, request: message_pb2.PullObjectRequest):
        found = super().PullObject(request)
        name, slow = request.object_id, list(self._slow())
        if name in slow and self._now() < self._began + 1 + slow.index(name):
            return message_pb2.PullObjectResponse(object_found=True, object_available=False)
        return found

    def _slow(self):
        return [name for name, content in self._parts.items() if b"ArrayChunk" in content[:20]]

    def ConfirmMessageReceived(self, request: message_pb2.ConfirmMessageReceivedRequest):
        self.confirmed[request.message_object_id] = self._now() - self._began
        return super().ConfirmMessageReceived(request)


@pytest.mark.servers
@pytest.mark.parametrize("online", [True, False])
def test_a_reply_that_comes_slowly_is_waited_for_and_holds_up_no_other(said, monkeypatch, online):
    """Four pieces, one a second, where nothing may come for no longer than two: all are waited for."""
    monkeypatch.setattr(deployed_grid, "ARRIVING_SECONDS" if online else "GONE_SECONDS", 2.0)
    monkeypatch.setattr(deployed_grid, "GONE_SECONDS" if online else "ARRIVING_SECONDS", 0.1)

    def slow(asked: Message) -> Parts:
        reply = Message(RecordDict({"arrays": ArrayRecord([np.full(10, float(n)) for n in range(4)])}), reply_to=asked)
        return parts(reply)

    server = SlowServer(slow, time.monotonic)
    nodes = {GOOD: "9:00", EVIL: "9:00" if online else ""}
    grid = DeployedGrid(lambda: server, {GOOD: "good", EVIL: "slow"}, lambda: None, online=lambda: nodes)
    grid.set_run(run_from_proto(Run(run_id=RUN)))
    content = RecordDict({"config": ConfigRecord({"x": 1})})
    asked = [Message(content, dst_node_id=node, message_type="train") for node in (EVIL, GOOD)]
    replies = {reply.metadata.src_node_id: reply for reply in grid.send_and_receive(asked, timeout=30)}
    assert [float(array[0]) for array in replies[EVIL].content["arrays"].to_numpy_ndarrays()] == [0, 1, 2, 3]
    assert replies[GOOD].content["config"]["said"] == "hello"
    first, last = sorted(server.confirmed.values())
    # The last piece is there after four seconds: the other reply was not held up by it.
    assert server.sent == 2 and first < 3.5 < last
