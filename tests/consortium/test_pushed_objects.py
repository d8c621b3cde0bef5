"""A member with a valid key that sends what nobody asked for: the server's memory, and what others get meanwhile."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from flfed.deployment.coordinator import admission
from flfed.deployment.coordinator.superlink import PLACE_SECONDS
from flfed.deployment.flower.control import Control, Heartbeat, ServerTask, acquired
from flfed.deployment.flower.grid import DeployedGrid
from flfed.deployment.flower.link import Link, certificate_file
from flfed.paths import CoordinatorFolder
from tests.consortium.members import LARGE, Member, Reply, key_of
from tests.consortium.strangers import headers
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(300)]
MEMBERS = ("alpha", "beta")
GROWTH = 40_000_000
COUNT, AT_A_TIME = 60, 6


class Serving:
    """The coordinator, a run of it that goes on, and its two members, who send by themselves."""

    def __init__(self, consortium: Any) -> None:
        self.consortium = consortium
        self.members: list[Member] = []
        self.folder = CoordinatorFolder(consortium.coordinator.home / "coordinator")
        until("registered nodes", self.ready, every=0.3)
        self.link = Link.of(self.folder)
        self.ports = {
            "Caddy": (self.folder.keys / "ca.crt", consortium.port),
            "SuperLink": (certificate_file(self.folder), int(self.link.address.rpartition(":")[2])),
        }
        self.alpha, self.beta = (self.member(name, "Caddy") for name in MEMBERS)
        for member in (self.alpha, self.beta):
            member.activate()
        with Control(self.link) as control:
            self.task: ServerTask = acquired(self.folder, self.link, control, {})
        names = dict(zip((self.alpha.node.node_id, self.beta.node.node_id), MEMBERS, strict=True))
        self.grid = DeployedGrid(self.task.runtime, names, lambda: None)
        self.grid.set_run(self.task.begin())

    def ready(self) -> bool:
        with suppress(Exception):
            return all(member.node_id for member in admission.admitted(self.folder).values())
        return False

    def member(self, name: str, port: str) -> Member:
        self.members.append(Member(key_of(self.consortium, name), *self.ports[port]))
        return self.members[-1]

    def at(self, member: Member, port: str) -> Member:
        """Return the same member, on a connection of its own."""
        self.members.append(Member(member.key, *self.ports[port]))
        self.members[-1].node = member.node
        return self.members[-1]

    def declare(self, member: Member, values: int) -> Reply:
        """Ask a member, and have it declare its answer."""
        assert list(self.grid.push_messages([Message(RecordDict(), member.node.node_id, "train")]))
        return member.declare(values)

    def close(self) -> None:
        for client in (self.task, self.grid, *(member.client for member in self.members)):
            client.close()

    def process(self, words: str) -> Path:
        """Return the folder in /proc of a process of this coordinator."""
        lines = {path.parent: content(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
        mine = str(self.folder.root).encode()
        return min(at for at, line in lines.items() if mine in line and words.encode() in line)


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Watch:
    """Looks how much memory SuperLink and Caddy have, fifty times a second, until the block ends."""

    def __init__(self, serving: Serving) -> None:
        self.files = [serving.process(words) / "status" for words in ("coordinator.superlink", "caddy\0run")]
        self.before = self.most = self.look()
        self.over, self.thread = threading.Event(), threading.Thread(target=self.go_on)

    def look(self) -> list[int]:
        return [1024 * int(file.read_text().partition("VmRSS:")[2].split()[0]) for file in self.files]

    def go_on(self) -> None:
        while not self.over.wait(0.02):
            self.most = list(map(max, self.most, self.look()))

    @property
    def growth(self) -> list[int]:
        return [most - before for most, before in zip(self.most, self.before, strict=True)]

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


@pytest.fixture(scope="module")
def serving(consortium: Any) -> Iterator[Serving]:
    made = Serving(consortium)
    try:
        with Heartbeat(made.task):
            yield made
        made.task.end()
    finally:
        made.close()


@dataclass
class Flood:
    """What became of sixty objects of 14 MB, six at a time, and of another member's requests meanwhile."""

    statuses: Counter[int]
    growth: list[int]
    slowest: float
    """Seconds of another member's plain request."""
    stored: list[bool]
    """Another member's declared objects."""


def flood(serving: Serving, port: str, body: bytes) -> Flood:
    replies = [serving.declare(serving.beta, 300_000) for _ in range(2)]
    for name in replies[0].objects:  # what a declared object costs is there before
        assert replies[0].is_stored(name)
    names, stored, seconds = list(replies[1].objects), list[bool](), list[float]()
    senders = [serving.at(serving.alpha, port) for _ in range(AT_A_TIME)]

    def send(member: Member) -> list[int]:
        return [member.post("push-object", body).status_code for _ in range(COUNT // AT_A_TIME)]

    with Watch(serving) as watch, ThreadPoolExecutor(AT_A_TIME) as pool:
        sent = [pool.submit(send, member) for member in senders]
        while names or not all(each.done() for each in sent):
            began = time.monotonic()
            serving.beta.beat()
            seconds.append(time.monotonic() - began)
            if names:
                stored.append(replies[1].is_stored(names.pop()))
            time.sleep(0.05)
        statuses = Counter(status for each in sent for status in each.result())
    found = Flood(statuses, watch.growth, max(seconds), stored)
    print(port, found)
    return found


@pytest.mark.parametrize("port", ["Caddy", "SuperLink"])
def test_sixty_undeclared_objects_take_little_memory_and_keep_nobody_waiting(serving: Serving, port: str):
    body = serving.alpha.undeclared(serving.task.run).SerializeToString()
    for _ in range(3):  # again where a request was slow: other programs may have the machine meanwhile
        found = flood(serving, port, body)
        assert found.statuses.total() == COUNT and found.statuses.keys() <= {409, 503}
        assert found.statuses[409] >= COUNT / 2
        assert max(found.growth) <= GROWTH
        assert len(found.stored) >= 3 and all(found.stored)
        if found.slowest <= 1:
            break
    assert found.slowest <= 1


def test_other_bytes_under_a_declared_name_take_two_bodies_at_a_time(serving: Serving):
    reply = serving.declare(serving.alpha, 1000)
    body = reply.request(next(iter(reply.objects)), bytes(LARGE)).SerializeToString()
    found = flood(serving, "Caddy", body)
    assert found.statuses.keys() <= {200, 503} and found.statuses[200] >= COUNT / 2
    assert found.growth[0] <= 250_000_000
    assert all(found.stored)


@contextmanager
def begun(member: Member) -> Iterator[ssl.SSLSocket]:
    """Have a request with an object begun, in chunks, of which a node's number is there."""
    said = "".join(f"{name}: {value}\r\n" for name, value in headers(member.key).items())
    start = "POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/protobuf\r\n"
    with (
        socket.create_connection(("127.0.0.1", member.port), 30) as bare,
        member.trusted.wrap_socket(bare, server_hostname="localhost") as connection,
    ):
        connection.sendall(f"{start}Transfer-Encoding: chunked\r\n{said}\r\n".encode())
        send_chunk(connection, b"\x0a\x02\x08\x07")
        yield connection


def send_chunk(connection: ssl.SSLSocket, content: bytes) -> None:
    connection.sendall(f"{len(content):x}\r\n".encode() + content + b"\r\n")


def status(connection: ssl.SSLSocket) -> int:
    """Return the status that is answered, when it is."""
    with connection.makefile("rb") as lines:
        for line in lines:
            if line.startswith(b"HTTP/1.1 ") and b" 100 " not in line:
                return int(line.split()[1])
    return 0


def hold_places(serving: Serving) -> tuple[float, float]:
    """Let a member hold its places; return the seconds of others' requests meanwhile, and of its own third object.

    Whoever waited for one of these places would be refused: none becomes free before the third is answered.
    """
    reply = serving.declare(serving.beta, 1000)
    with ExitStack() as stack:
        held = [stack.enter_context(begun(serving.alpha)) for _ in range(2)]
        began = time.monotonic()
        third = stack.enter_context(begun(serving.alpha))
        there = time.monotonic()
        assert all(reply.is_stored(name) for name in reply.objects)
        serving.beta.beat()
        serving.alpha.beat()
        others = time.monotonic() - there
        assert status(third) == 503
        waited = time.monotonic() - began
        for connection in held:
            send_chunk(connection, bytes(5000))
        assert [status(connection) for connection in held] == [400, 400]
    return others, waited


def test_a_member_that_holds_its_places_is_in_no_other_members_way(serving: Serving):
    for _ in range(3):  # again where it was slow: other programs may have the machine meanwhile
        others, waited = hold_places(serving)
        assert waited >= PLACE_SECONDS
        if others < 5 and waited < 15:
            break
    assert others < 5 and waited < 15  # a node gives up after 15 s


def test_who_goes_on_after_a_refusal_is_cut_off(serving: Serving):
    sent = 0
    with Watch(serving) as watch, begun(serving.alpha) as connection, suppress(OSError):
        while sent < 100_000_000:
            send_chunk(connection, bytes(65_536))
            sent += 65_536
            time.sleep(0.005)
    assert sent < 20_000_000 and max(watch.growth) < GROWTH
