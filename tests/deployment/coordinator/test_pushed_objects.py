"""Objects that members push, at Flower's own application: of an undeclared one no more than the beginning is read."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Array
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.superlink.main import create_app
from hypothesis import given
from hypothesis import strategies as st

from flfed.deployment.coordinator import superlink
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.node_auth import NodeKeys
from flfed.deployment.coordinator.superlink import (
    HEAD_BYTES,
    OBJECTS_AT_A_TIME,
    PUSH_OBJECT,
    HeadError,
    Lock,
    ObjectHead,
    PushedObjects,
)
from flfed.deployment.flower.link import pem_of
from flfed.paths import CoordinatorFolder
from flfed.signatures import public_text
from tests.consortium.strangers import headers
from tests.deployment.coordinator.asgi import OBJECT, Sender, admit, scope

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")  # of Flower's migrations
PIECE = 60_000
LARGE = [b"x" * PIECE] * 233
"""14 MB, as they come from the network."""


class Flower:
    """Flower's application with its database behind the lock, a run that goes on, and two members at it."""

    def __init__(self, folder: CoordinatorFolder, patch: pytest.MonkeyPatch) -> None:
        database = folder.server / "flower.db"
        patch.setenv("FLWR_DATABASE", str(database))
        self.app = create_app()
        self.state = self.app.state.linkstate_factory.state()
        self.keys = {site: admit(folder, site) for site in ("alpha", "beta")}
        self.nodes = {site: self.register(site, key) for site, key in self.keys.items()}
        self.run = self.begin()
        self.lock = Lock(self.app, "word", NodeKeys(folder), PushedObjects(database))

    def register(self, site: str, key: EllipticCurvePrivateKey) -> Node:
        public = pem_of(public_text(key.public_key()))
        number = self.state.create_node("owner", "owner", public, 600.0, name=site)
        assert self.state.activate_node(number, 600.0)
        return Node(node_id=number)

    def begin(self) -> int:
        given: list[Any] = ["flfed", "1", "fab", {}, NOOP_FEDERATION_ID, None, "owner", "flwr-serverapp"]
        run = int(self.state.create_run(*given))
        (task,) = (task for task in self.state.get_tasks() if task.run_id == run)
        assert self.state.claim_task(task.task_id) and self.state.activate_task(task.task_id)
        return run

    def declare(self, values: int) -> tuple[str, dict[str, bytes]]:
        """Have the run wait for an array; return the session and the array's pieces."""
        array = Array(np.random.default_rng().normal(size=values))
        session = str(self.state.start_session(self.run))
        pieces = {name: part.deflate() for name, part in get_all_nested_objects(array).items()}
        assert set(self.state.preregister_object_tree(get_object_tree(array), session)) == set(pieces)
        return session, pieces

    def request(self, site: str, name: str, content: bytes, session: str = "", run: int = 0) -> bytes:
        return PushObjectRequest(
            node=self.nodes[site], run_id=run or self.run, object_id=name, object_content=content, session_id=session
        ).SerializeToString()

    async def push(self, site: str, sender: Sender) -> Sender:
        asked = scope(PUSH_OBJECT, headers(self.keys[site]), **{"content-type": "application/protobuf"})
        asked |= {"raw_path": PUSH_OBJECT.encode(), "query_string": b"", "root_path": "", "http_version": "1.1"}
        asked |= {"scheme": "https", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "app": self.app}
        await self.lock(asked, sender.receive, sender.send)
        return sender

    def push_now(self, site: str, pieces: list[bytes]) -> Sender:
        return asyncio.run(self.push(site, Sender(pieces)))

    def finish(self, run: int) -> None:
        (task,) = (task for task in self.state.get_tasks() if task.run_id == run)
        assert self.state.finish_task(task.task_id, "completed", "")

    def close(self) -> None:
        self.state._engine.dispose()
        self.state.object_store._engine.dispose()


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    folder = CoordinatorFolder(tmp_path_factory.mktemp("flower") / "coordinator")
    initialise(folder, Settings("Test", "fl.example.org:8443"))
    with pytest.MonkeyPatch.context() as patch:
        made = Flower(folder, patch)
        yield made
        made.close()


def in_pieces(body: bytes, size: int = PIECE) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def stored(sender: Sender) -> bool:
    content = b"".join(message.get("body", b"") for message in sender.sent)
    return sender.status == 200 and bool(PushObjectResponse.FromString(content).stored)


def closes(sender: Sender) -> bool:
    return (b"connection", b"close") in sender.sent[0]["headers"]


def test_a_declared_object_is_read_to_its_end_and_stored_once(flower: Flower):
    session, pieces = flower.declare(300_000)
    for name, content in pieces.items():
        body = flower.request("alpha", name, content, session)
        sender = flower.push_now("alpha", in_pieces(body))
        assert stored(sender) and sender.pieces == []
        again = flower.push_now("alpha", [body[:PIECE].ljust(HEAD_BYTES), *LARGE])
        assert (again.status, again.read, closes(again)) == (409, 1, True)
    assert max(map(len, pieces.values())) > 2_000_000


def test_of_an_object_for_which_no_run_waits_only_the_beginning_is_read(flower: Flower):
    session, pieces = flower.declare(1000)
    (name, content), other = next(iter(pieces.items())), flower.begin()
    for run, asked, status in ((other + 1, name, 404), (other, name, 409), (flower.run, "ab" * 32, 409)):
        body = flower.request("alpha", asked, content, session, run)
        sender = flower.push_now("alpha", [body + bytes(PIECE), *LARGE])
        assert (sender.status, sender.read, closes(sender)) == (status, 1, True)
        drops = flower.push_now("alpha", [*in_pieces(body[:100], 1), *[bytes(100)] * 100])
        assert (drops.status, drops.read) == (status, 100 + -(-(HEAD_BYTES - 100) // 100))
    # Whose node it is, Flower tells.
    wrong = flower.push_now("beta", [flower.request("alpha", "ab" * 32, content), *LARGE])
    assert wrong.status == 401 and wrong.read == 1
    assert stored(flower.push_now("alpha", [flower.request("alpha", name, content, session)]))


def test_a_run_that_is_over_is_said_in_flowers_own_words_without_the_rest(flower: Flower):
    run = flower.begin()
    flower.finish(run)
    sender = flower.push_now("alpha", [flower.request("alpha", "ab" * 32, b"x" * PIECE, run=run), *LARGE])
    said = FlowerError.from_json(sender.sent[1]["body"].decode())
    assert (sender.status, sender.read, closes(sender)) == (403, 1, True)
    assert said is not None and said.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED


NODE = b"\x0a\x02\x08\x07"
RUN_FIELD, OBJECT_FIELD = b"\x10\x05", b"\x1a\x40" + OBJECT.encode()
CONTENT, SESSION = b"\x22\x80\x80\x40", b"\x2a\x01s"
HEADS = {
    "nothing": b"", "the content alone": CONTENT, "no node": RUN_FIELD + OBJECT_FIELD + CONTENT,
    "no run": NODE + OBJECT_FIELD + CONTENT, "no object": NODE + RUN_FIELD + CONTENT,
    "no content": NODE + RUN_FIELD + OBJECT_FIELD + SESSION,
    "the object before the run": NODE + OBJECT_FIELD + RUN_FIELD + CONTENT,
    "the session before the content": NODE + RUN_FIELD + OBJECT_FIELD + SESSION + CONTENT,
    "a node twice": NODE + NODE + RUN_FIELD + OBJECT_FIELD + CONTENT,
    "a run of another type": NODE + b"\x11" + bytes(8) + OBJECT_FIELD + CONTENT,
    "an unknown field": NODE + b"\x3a\x01x" + RUN_FIELD + OBJECT_FIELD + CONTENT,
    "a node of 5 kB": b"\x0a\x88\x27" + bytes(5000) + RUN_FIELD + OBJECT_FIELD + CONTENT,
    "a number without an end": NODE + b"\x10" + b"\x80" * 4000,
    "a number of 70 bits": NODE + b"\x10" + b"\xff" * 9 + b"\x7f" + OBJECT_FIELD + CONTENT,
    "a name that is none": NODE + RUN_FIELD + b"\x1a\x02\xff\xff" + CONTENT,
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_another_order_of_fields_than_flowers_is_refused_without_the_rest(flower: Flower, head: bytes):
    with pytest.raises(HeadError):
        ObjectHead.parse(head[:HEAD_BYTES])
    sender = flower.push_now("alpha", [head.ljust(HEAD_BYTES, b"\0"), *LARGE])
    assert (sender.status, sender.read, closes(sender)) == (400, 1, True)


@given(st.integers(1, 2**64 - 1), st.text("0123456789abcdef", min_size=1, max_size=64), st.binary(min_size=1))
def test_a_head_says_what_protobuf_reads_from_it(run: int, name: str, content: bytes):
    body = PushObjectRequest(
        node=Node(node_id=run), run_id=run, object_id=name, object_content=content, session_id="0" * 36
    ).SerializeToString()
    head = ObjectHead.parse(body[:HEAD_BYTES])
    assert (head.run_id, head.object_id) == (run, name)
    assert PushObjectRequest.FromString(head.fields) == PushObjectRequest(
        node=Node(node_id=run), run_id=run, object_id=name
    )
    assert 0 <= head.most - len(body) <= 100


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_head_or_is_refused(content: bytes):
    for start in (b"", NODE, NODE + RUN_FIELD, NODE + RUN_FIELD + OBJECT_FIELD):
        try:
            head = ObjectHead.parse(start + content)
        except HeadError:
            continue
        assert head.run_id < 2**64 and (start + content).startswith(head.fields)


def test_an_object_that_is_longer_than_it_says_is_read_no_further(flower: Flower):
    session, pieces = flower.declare(1000)
    name, content = next(iter(pieces.items()))
    sender = flower.push_now("alpha", [flower.request("alpha", name, content, session), *LARGE])
    assert (sender.status, sender.read, closes(sender)) == (413, 2, True)


class Stalled(Sender):
    """Somebody who sends a few bytes and then nothing, until it ends."""

    async def receive(self) -> Any:
        self.read += 1
        if self.read > 1:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": NODE, "more_body": True}


def test_a_member_that_holds_its_two_places_keeps_no_other_member_waiting(flower, monkeypatch):
    monkeypatch.setattr(superlink, "PLACE_SECONDS", 0.3)
    session, pieces = flower.declare(1000)
    name, content = next(iter(pieces.items()))

    async def go() -> tuple[int, int, bool]:
        stalled = [Stalled([]) for _ in range(OBJECTS_AT_A_TIME)]
        holding = [asyncio.create_task(flower.push("alpha", sender)) for sender in stalled]
        while not all(sender.read == 2 for sender in stalled):
            await asyncio.sleep(0.01)
        third, other = Sender([b"x"]), Sender([flower.request("beta", name, content, session)])
        late = asyncio.create_task(flower.push("alpha", third))
        await flower.push("beta", other)
        assert not late.done()
        await late
        # A place that is free again goes to the next one.
        waiting = asyncio.create_task(flower.push("alpha", again := Sender([b"x"])))
        await asyncio.sleep(0.05)
        holding[0].cancel()
        await waiting
        holding[1].cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        assert (again.status, again.read) == (400, 1)
        return third.status, third.read, stored(other)

    assert asyncio.run(go()) == (503, 0, True)


def test_a_database_of_another_flower_ends_the_server_in_a_sentence(tmp_path: Path):
    said: list[Any] = []

    async def keep(message: Any) -> None:
        said.append(message)

    async def never(*_: Any) -> None:
        raise AssertionError("it serves")

    folder = CoordinatorFolder(tmp_path / "coordinator")
    initialise(folder, Settings("Test", "fl.example.org:8443"))
    sqlite3.connect(folder.server / "flower.db").close()
    lock = Lock(never, "word", NodeKeys(folder), PushedObjects(folder.server / "flower.db"))
    asyncio.run(lock({"type": "lifespan"}, Sender([]).receive, keep))
    (message,) = said
    assert message["type"] == "lifespan.startup.failed"
    assert "no such table" in message["message"] and "install flwr 1.42" in message["message"]
