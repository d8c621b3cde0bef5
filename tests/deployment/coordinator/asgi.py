"""Requests to the lock before Flower's server, without a network: who asks, what was read, what was answered."""

import asyncio
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node

from flfed.deployment.coordinator.superlink import PushedObjects
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder
from flfed.signatures import new_node_key, public_text

RUN, OBJECT = 2**63 + 5, "5e" * 32
"""The only run, and the only object that it waits for."""


class Sender:
    """Somebody who asks: counts how often more of the body was read, and keeps what was answered."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces, self.read, self.sent = list(pieces), 0, list[Any]()

    async def receive(self) -> Any:
        self.read += 1
        if not self.pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self.pieces.pop(0), "more_body": bool(self.pieces)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def admit(folder: CoordinatorFolder, site: str, status: str = "admitted") -> EllipticCurvePrivateKey:
    key = new_node_key()
    facts = {"site": site, "status": status, "public-key": public_text(key.public_key())}
    write_whole(folder.sites / f"{site}.json", json.dumps(facts).encode())
    return key


def scope(path: str, said: dict[str, str], **more: str) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in {**said, **more}.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": pairs}


def waiting(folder: Path) -> PushedObjects:
    """Return a database in which one run waits for one object."""
    path = folder / "flower.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(
            f"""
            CREATE TABLE run (run_id INTEGER);
            CREATE TABLE object_push_sessions (session_id TEXT, run_id INTEGER);
            CREATE TABLE object_push_session_pending (session_id TEXT, object_id TEXT);
            INSERT INTO run VALUES ({RUN - 2**64});
            INSERT INTO object_push_sessions VALUES ('s', {RUN - 2**64});
            INSERT INTO object_push_session_pending VALUES ('s', '{OBJECT}');
            """
        )
    return PushedObjects(path)


def pushed(size: int, *, run: int = RUN, name: str = OBJECT, node: int = 7) -> bytes:
    """Return the request of a node of Flower that sends an object, of so many bytes in all."""
    request = PushObjectRequest(node=Node(node_id=node), run_id=run, object_id=name, session_id="0" * 36)
    content = b"x" * size
    while True:
        request.object_content = content
        body = request.SerializeToString()
        if len(body) <= size:
            return body
        content = content[: size - len(body)]
