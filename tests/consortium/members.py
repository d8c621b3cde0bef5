"""Members that send objects by themselves: as Flower's node does, and as one that means harm does."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from google.protobuf.message import Message as Proto

from flfed.deployment.flower.link import pem_of
from flfed.signatures import public_text
from tests.consortium.strangers import headers

LARGE = 14_000_000
"""Bytes of an object that nobody declared."""
Answer = TypeVar("Answer", bound=Proto)


def key_of(consortium: Any, site: str) -> EllipticCurvePrivateKey:
    content = (consortium.sites[site].home / "sites" / site / "network/node.key").read_bytes()
    key = load_ssh_private_key(content, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return key


class Member:
    """A site's key at the server, by Caddy's port or by the SuperLink's own."""

    def __init__(self, key: EllipticCurvePrivateKey, authority: Path, port: int) -> None:
        self.key, self.port = key, port
        self.trusted = ssl.create_default_context(cafile=str(authority))
        self.client = httpx.Client(verify=self.trusted, base_url=f"https://localhost:{port}", trust_env=False)
        self.node = Node()

    def post(self, route: str, content: bytes | Iterable[bytes], **more: str) -> httpx.Response:
        """Send a body, as it is; an iterable goes in chunks, without a length."""
        said: Mapping[str, str] = {**headers(self.key), "content-type": "application/protobuf", **more}
        return self.client.post(f"/v1/fleet/{route}", content=content, headers=said, timeout=60)

    def ask(self, route: str, request: Proto, kind: type[Answer]) -> Answer:
        response = self.post(route, request.SerializeToString())
        response.raise_for_status()
        return kind.FromString(response.content)

    def activate(self) -> None:
        """Be online, for the rest of the test."""
        request = ActivateNodeRequest(public_key=pem_of(public_text(self.key.public_key())), heartbeat_interval=600)
        self.node = Node(node_id=self.ask("activate-node", request, ActivateNodeResponse).node_id)

    def beat(self) -> None:
        """Ask something plain."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=600)
        assert self.ask("send-node-heartbeat", request, SendNodeHeartbeatResponse).success

    def declare(self, values: int) -> Reply:
        """Answer the next message with so many random numbers; declare the answer's objects."""
        found = self.ask("pull-messages", PullMessagesRequest(node=self.node), PullMessagesResponse)
        (asked,) = found.messages_list
        return Reply(self, asked, values)

    def undeclared(self, run: int, size: int = LARGE, name: str = "") -> PushObjectRequest:
        """Return an object of which the server knows nothing."""
        name = name or hashlib.sha256(str(size).encode()).hexdigest()
        return PushObjectRequest(node=self.node, run_id=run, object_id=name, object_content=bytes(size))


class Reply:
    """An answer whose objects are declared, and not sent yet."""

    def __init__(self, member: Member, asked: Any, values: int) -> None:
        question = message_from_proto(asked)
        question.__dict__["_content"] = RecordDict()
        array = np.random.default_rng().normal(size=values)
        message = Message(RecordDict({"arrays": ArrayRecord([array])}), reply_to=question)
        message.metadata.__dict__["_src_node_id"] = member.node.node_id
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        request = PushMessagesRequest(
            node=member.node, messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )  # fmt: skip
        found = member.ask("push-messages", request, PushMessagesResponse)
        self.member, self.run, self.session = member, message.metadata.run_id, found.session_id
        assert set(found.objects_to_push) == set(self.objects)

    def request(self, name: str, content: bytes) -> PushObjectRequest:
        """Return what sends bytes under the name of one of its objects."""
        return PushObjectRequest(
            node=self.member.node, run_id=self.run, object_id=name, object_content=content, session_id=self.session
        )

    def is_stored(self, name: str) -> bool:
        """Send one of its objects, and tell whether the server took it."""
        return self.member.ask("push-object", self.request(name, self.objects[name]), PushObjectResponse).stored
