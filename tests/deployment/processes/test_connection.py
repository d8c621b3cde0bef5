"""The node's connection to a server that is away or full: Flower's own client, and answers that a test chooses."""

import http.server
import importlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import RecordDict
from flwr.common.serde import message_from_proto, recorddict_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

from flfed.deployment.processes.child_processes import Pulse
from flfed.deployment.processes.node import Connection, Outage, reason_of, stay_with_the_host

NODE = 7
ANSWERS = {
    "register-node": fleet_pb2.RegisterNodeFleetResponse(node_id=NODE),
    "activate-node": fleet_pb2.ActivateNodeResponse(node_id=NODE),
    "deactivate-node": fleet_pb2.DeactivateNodeResponse(), "pull-messages": fleet_pb2.PullMessagesResponse(),
    "unregister-node": fleet_pb2.UnregisterNodeFleetResponse(),
    "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatResponse(success=True),
}  # fmt: skip
BROKEN = 0
"""In place of a status: the connection is closed without an answer."""


class Server:
    """Answers as a SuperLink would that has nothing to say, after the statuses that a test gives to a route."""

    def __init__(self) -> None:
        self.first: dict[str, list[int]] = {}
        self.asked, self.answers, self.ahead = list[str](), dict(ANSWERS), 0.0
        server = self

        class ClientGenerator(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                name = self.path.rpartition("/")[2]
                self.rfile.read(int(self.headers["content-length"]))
                server.asked.append(name)
                status = server.first.get(name, []).pop(0) if server.first.get(name) else 200
                if status == BROKEN:
                    self.close_connection = True
                    return
                body = server.answers[name].SerializeToString() if status == 200 else b""
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(time.time() + server.ahead)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ClientGenerator)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class Node:
    """A node's connection in this process, whose Flower is as it was before when the test ends."""

    def __init__(self, server: Server, root: Path) -> None:
        self.server, self.said, self.known_as = server, list[str](), root / "network" / "node.id"
        self.known_as.parent.mkdir()
        self.connection = Connection(
            self.known_as, Pulse(root / "pulse"), Outage(self.said.append), Pulse(root / "download"), root / "clock"
        )
        stay_with_the_host(self.connection.opened)
        self.connection.install()

    @contextmanager
    def connected(self) -> Iterator[tuple[Any, ...]]:
        """Connect; what fails within the block is raised behind it, since Flower only logs it."""
        loop, failed = importlib.import_module("flwr.supernode.start_client_internal"), list[Exception]()
        with loop.http_request_response(f"127.0.0.1:{self.server.port}", True) as asks:
            try:
                yield asks
            except Exception as error:  # noqa: BLE001 - raised below
                failed.append(error)
        for error in failed:
            raise error


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for place, name in (
        ("flwr.supernode.fleet_http_connection", "make_simple_http_retry_invoker"),
        ("flwr.supernode.fleet_http_connection", "HeartbeatSender"),
        ("flwr.supernode.start_client_internal", "http_request_response"),
        ("flwr.supercore.heartbeat", "exponential"),
    ):
        module = importlib.import_module(place)
        monkeypatch.setattr(module, name, getattr(module, name))
    client = importlib.import_module("flwr.supercore.protobuf.client").ProtobufClient
    monkeypatch.setattr(client, "__init__", client.__init__)
    server = Server()
    yield Node(server, tmp_path)
    server.close()


def test_a_server_that_fails_for_now_ends_neither_a_question_nor_the_heart(node: Node, wait_until: Callable[..., None]):
    node.server.first = {"send-node-heartbeat": [500, 507], "pull-messages": [500]}
    with node.connected() as (number, receive, *_):
        assert (number, receive()) == (NODE, None)
        wait_until(lambda: node.server.asked.count("send-node-heartbeat") >= 3, 60)
    assert node.server.asked.count("pull-messages") == 2
    assert any("does not answer (status 500); the request is repeated until it does" in line for line in node.said)


def test_each_piece_of_a_part_is_noted_for_the_gate_and_its_absence_is_not(node: Node):
    object_ = message_pb2.PullObjectResponse(object_found=True)
    node.server.answers["pull-object"] = object_
    with node.connected() as (*_, pull, _, _):
        with pytest.raises(ObjectUnavailableError):
            pull(1, "part")
        assert node.connection.download.seen() is None
        object_.object_available, object_.object_content = True, b"Array  9\x00123456789"
        assert pull(1, "part") == object_.object_content
    assert node.connection.download.seen() is not None


@pytest.mark.parametrize(
    ("ahead", "off"),
    [(400, "(399|400) s behind"), (100, "(99|100) s behind"), (-20, "2. s ahead of"), (-3, ""), (50, "")],
)
def test_a_clock_that_is_off_is_said_once_and_written_down_until_it_is_right(node: Node, ahead: float, off: str):
    node.server.ahead = ahead
    with node.connected() as (_, receive, *_):
        receive()
        receive()
        assert [
            bool(re.search(f"clock is {off} the coordinator's", line)) for line in node.said if "clock" in line
        ] == ([True] if off else [])
        assert node.connection.clock.exists() == bool(off)
        # Only where the clock is the reason for a refusal, the key is not blamed.
        request = httpx.Request("POST", f"http://127.0.0.1:{node.server.port}/v1/fleet/pull-messages")
        answer = httpx.Response(401, headers={"date": formatdate(time.time() + ahead, usegmt=True)}, request=request)
        why = reason_of(httpx.HTTPStatusError("", request=request, response=answer))
        assert ("clock" in why, "its key is not admitted" in why) == (
            (True, False) if ahead in (400, -20) else (False, True)
        )
        for node.server.ahead, stays in ((ahead / 2, bool(off)), (0, False)):
            receive()
            assert node.connection.clock.exists() == stays


def test_a_number_that_cannot_be_written_down_keeps_no_node_offline(node: Node):
    node.known_as.parent.rmdir()
    with node.connected() as (number, receive, *_):
        assert (number, receive()) == (NODE, None)
    assert not node.known_as.exists()


def test_a_proxy_that_is_down_is_not_blamed_on_the_coordinator_alone(node: Node):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # it does not listen
        through = httpx.Client(proxy=f"http://127.0.0.1:{held.getsockname()[1]}", trust_env=False)
        said: list[str] = []
        with through, pytest.raises(httpx.ConnectError) as down:
            through.get(f"http://127.0.0.1:{node.server.port}/")
        Outage(said.append, proxied=True).failed(down.value)
    assert len(said) == 1
    assert said[0].startswith(
        "the outbound proxy, or the coordinator's server behind it, does not answer (ConnectError)"
    )


@pytest.mark.servers
def test_a_place_that_could_not_be_freed_is_freed_with_the_next_request(node: Node):
    node.known_as.write_text("4711")
    node.server.first = {"activate-node": [412, 412, 412], "deactivate-node": [BROKEN, 503]}
    with node.connected() as (number, *_):
        assert number == NODE
        assert node.known_as.read_text() == "7"
    # The last one is Flower's, at the end.
    assert [name for name in node.server.asked if "activate" in name] == 3 * ["activate-node", "deactivate-node"] + [
        "activate-node", "deactivate-node",
    ]  # fmt: skip
    assert sum("it was freed" in line for line in node.said) == 1


def test_a_reply_of_which_the_server_wants_nothing_counts_as_lost(node: Node):
    metadata = message_pb2.Metadata(run_id=1, message_id="b" * 64, src_node_id=NODE, message_type="train")
    reply = message_from_proto(message_pb2.Message(metadata=metadata, content=recorddict_to_proto(RecordDict())))
    tree = message_pb2.ObjectTree(object_id="b" * 64)
    with node.connected() as (_, receive, send, *_):
        for parts, says in ((["a" * 64], 0), ([], 1)):
            answered = fleet_pb2.PushMessagesResponse(objects_to_push=parts, session_id="one")
            node.server.answers["push-messages"] = answered
            node.server.first = {"push-messages": [BROKEN]}
            assert send(reply, tree, 0.0) == (set(parts), "one")
            assert receive() is None
            assert sum("the coordinator is asked for it again" in line for line in node.said) == says
    assert node.server.asked.count("push-messages") == 4
