"""Client of a node for the gate.

It reads one message at a time over the relay and executes none of it.

Nothing here opens, installs (`flwr.cli.install`) or imports the bundle that a task brings.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import httpx
from flwr.app import Context, Error, Message, RecordDict
from google.protobuf.message import DecodeError

from flfed import flower_names
from flfed.deployment.flower.message_parts import MOST_BYTES, SHORT, apart, joined, opened, parts_of
from flfed.deployment.flower.pacing import Pace
from flfed.deployment.flower.transport import Connect, NodeTransport
from flfed.errors import FlfedError
from flfed.flower_names import ask
from flfed.refusals import Refusal, refusal_of
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.kinds import KINDS
from flfed.words import render

SECONDS = 30.0
"""For one answer of the node, which is on this machine."""
ARRIVING = 60.0
"""How long a message may not go on arriving: the node does not name it, or receives no further byte of it. Then the
task is given up. A download may take as long as the line does."""
SOON = 0.02
LATEST = 0.5
"""Seconds between two looks for a part, at first and at most."""
ASK = "/flwr.proto.Runtime/AcquireTask"
KIND = "flwr-clientapp"
REFUSED = 1

T = TypeVar("T")
Alive = Callable[[], None]
Leaving = Callable[[Message, Message, Context], Message]
"""Passed by an error reply before it leaves the site: (request, reply, settings) → reply."""


def _as_it_is(request: Message, reply: Message, context: Context) -> Message:
    return reply


class LinkLost(FlfedError):
    """An unreachable node, or one that has lost the task."""


@contextlib.contextmanager
def _link() -> Iterator[None]:
    """Turn connection errors into `LinkLost`."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise LinkLost(render("processes.link.status", status=error.response.status_code)) from None
    except (httpx.HTTPError, OSError) as error:
        raise LinkLost(render("processes.link.unreached", kind=type(error).__name__)) from None
    except flower_names.ObjectPushError:
        # The end of a run removes the places that the node had registered for its replies.
        raise LinkLost(render("processes.link.refused")) from None


class Bounded(httpx.BaseTransport):
    """Connections with a limit on received bytes.

    Bytes are counted before any is read.

    Parameters
    ----------
    connect : callable () → socket
        Returns a connection to the node.
    most : int
        Bytes of all answers together.
    each : bool
        Whether the limit is for each answer, instead of all together.
    """

    def __init__(self, connect: Connect, most: int, *, each: bool = False) -> None:
        self._inner = NodeTransport(connect)
        self._most = most
        self._left = most
        self._each = each
        self._counting = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and refuse an oversized answer.

        An answer without a length, or a compressed one, is refused too.
        """
        # A compressed answer could unpack to any size, whatever length it declares.
        request.headers["accept-encoding"] = "identity"
        response = self._inner.handle_request(request)
        length = response.headers.get("content-length", "")
        try:
            if not length.isdecimal() or "content-encoding" in response.headers:
                raise MalformedMessage(Refusal("length-untold"))
            with self._counting:
                if int(length) > self._left:
                    raise MalformedMessage(Refusal("message-too-large", most=self._most))
                if not self._each:
                    self._left -= int(length)
        except MalformedMessage:
            response.close()
            raise
        return response

    def has_read(self) -> None:
        """Allow short answers only, once the message is read."""
        with self._counting:
            self._most = SHORT
            self._left = SHORT
            self._each = True

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class NodeClient(flower_names.RuntimeHttpClient):
    """Flower's client of a node, over given connections.

    It follows no redirect and uses no proxy.
    """

    def __init__(self, transport: httpx.BaseTransport, *interceptors: Any) -> None:
        super().__init__("http://node", interceptors=interceptors, timeout=SECONDS, verify=False)
        self._client.close()
        self._client = httpx.Client(transport=transport, timeout=SECONDS, follow_redirects=False, trust_env=False)


@dataclass
class Task:
    """One message waiting for its reply.

    The node gets heartbeats until then.

    Parameters
    ----------
    envelope : Message
        The message without content: its sender, kind and run.
    context : Context
        With the site's name (`node_config`) and the run's settings (`run_config`).
    """

    envelope: Message
    context: Context
    _client: NodeClient
    _contents: dict[str, bytes]
    _beating: flower_names.HeartbeatSender
    _leaving: Leaving
    _in_one_piece: bool = False

    @cached_property
    def message(self) -> Message:
        """The message with its content.

        Raises
        ------
        MalformedMessage
            If it is not a message, or not the one that its envelope announced.
        """
        message = opened(self.envelope, self._contents)
        if not message.has_content():
            raise MalformedMessage(Refusal("no-message"))
        # The reply travels as the message came.
        whole = apart(message)
        self._in_one_piece = whole is not message
        return whole

    def reply(self, message: Message) -> None:
        """Send the reply.

        It travels in one piece where the request did. Nothing of this process's state is added.

        Raises
        ------
        LinkLost
            If the node went away, which then replies for the site, or if the run ended meanwhile.
        """
        try:
            with _link():
                sent = joined(message) if self._in_one_piece else message
                flower_names.push_message(self._client, sent, self.context)
                status = flower_names.FAILED if message.has_error() else flower_names.COMPLETED
                ask(self._client.PushTaskOutput, sub_status=status, details="")
        finally:
            self.close()

    def refuse(self, reason: Refusal) -> None:
        """Reply with an error, passed through the gate."""
        self.reply(self.seen(Message(Error(code=REFUSED, reason=str(reason)), reply_to=self.envelope)))

    def seen(self, reply: Message) -> Message:
        """Return an error reply as the gate releases it.

        The ledger has its line by then.
        """
        return self._leaving(self.envelope, reply, self.context)

    def close(self) -> None:
        """Stop the heartbeats; safe to call again."""
        if self._beating.is_running:
            self._beating.stop()
        self._client.close()


class Tasks:
    """Messages waiting at this site's node.

    Parameters
    ----------
    connect : callable () → socket
        Returns a connection to the node, from the relay (`connector.py`).
    secret : bytes
        Shared by node and gate; it signs each request for a task.
    leaving : callable (message, reply, context) → reply
        `Gate.leaving`: error replies to messages that never reach the gate pass it.
    alive : callable
        Called with each answer of a node that still downloads a message.
    received : callable
        Returns when the node last received a piece of it, in any unit.
    note : callable
        Called with what this process has not done from now on, once the kind of a message is known.
    """

    def __init__(
        self,
        connect: Connect,
        secret: bytes,
        *,
        leaving: Leaving = _as_it_is,
        alive: Alive = lambda: None,
        received: Callable[[], object] = lambda: None,
        note: Callable[[str], None] = lambda undone: None,
    ) -> None:
        self._connect = connect
        self._leaving = leaving
        self._alive = alive
        self._received = received
        self._note = note
        signing = flower_names.SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({ASK}))
        version = flower_names.RuntimeVersionHttpInterceptor(component_name="SuperExec")
        self._client = NodeClient(Bounded(connect, SHORT, each=True), version, signing)

    def next(self) -> Task | None:
        """Return the next message, or None if none waits.

        Raises
        ------
        LinkLost
            If the node cannot be reached.
        MalformedMessage
            If the message is too large or malformed; an error reply was sent.
        """
        with _link():
            response = ask(self._client.AcquireTask, supported_task_types=[KIND])
        return self._taken(response) if response.HasField("task") and response.token else None

    def _taken(self, response: Any) -> Task:
        version = flower_names.RuntimeVersionHttpInterceptor(component_name=KIND)
        bounded = Bounded(self._connect, MOST_BYTES)
        client = NodeClient(bounded, version, flower_names.RuntimeTokenHttpInterceptor(response.token))
        try:
            with _link():
                return self._read(client, bounded, response)
        except FlfedError:
            client.close()
            raise
        except (ValueError, KeyError, TypeError, DecodeError):
            client.close()
            raise MalformedMessage(Refusal("message-unreadable")) from None

    def _read(self, client: NodeClient, bounded: Bounded, response: Any) -> Task:
        """Read a whole task, with heartbeats.

        The reply to a malformed message is an error.
        """
        # Flower stores the present task in class attributes, and its functions read them there.
        identity: Any = flower_names.TaskIdentity
        identity.task_id = response.task.task_id
        identity.run_id = response.task.run_id
        waiting = self._soon(lambda: ask(client.PullMessages), lambda got: bool(got.messages_list))
        envelope = flower_names.message_from_proto(waiting.messages_list[0])
        tree = waiting.message_object_trees[0]
        envelope.__dict__["_content"] = RecordDict()
        kind = envelope.metadata.message_type
        self._note(render("processes.gate.unanswered", kind=kind if kind in KINDS else "of no known kind"))
        node = envelope.metadata.dst_node_id
        identity.node_id = node
        context = Context(envelope.metadata.run_id, node, {}, RecordDict(), {})
        task = Task(envelope, context, client, {}, flower_names.HeartbeatSender(_beat(client)), self._leaving)
        task._beating.start()
        try:
            self._fill(task, ask(client.PullTaskInput))
            self._pull(task, client, tree)
        except (MalformedMessage, ValueError, KeyError, TypeError, DecodeError) as error:
            # A malformed message is refused at once, so that the coordinator need not wait for its deadline.
            reason = refusal_of(error) if isinstance(error, MalformedMessage) else Refusal("message-unreadable")
            bounded.has_read()
            task.refuse(reason)
            raise MalformedMessage(reason) from None
        except (httpx.HTTPError, OSError, FlfedError):
            task.close()
            raise
        bounded.has_read()
        return task

    def _fill(self, task: Task, task_input: Any) -> None:
        """Add the context to a task; the bundle that came with it is not read."""
        task.context = flower_names.context_from_proto(task_input.context)
        if task_input.context.run_id != task.envelope.metadata.run_id:
            raise MalformedMessage(Refusal("two-runs"))

    def _pull(self, task: Task, client: NodeClient, tree: Any) -> None:
        """Read the unopened bytes of every part of a message."""
        names = parts_of(tree, task.envelope.metadata.message_id)
        node = {"node_id": task.context.node_id}
        run = task.context.run_id
        for name in names:
            pull = partial(ask, client.PullObject, node=node, run_id=run, object_id=name)
            response = self._soon(pull, lambda got: got.object_available or not got.object_found)
            if not response.object_found:
                raise LinkLost(render("processes.link.incomplete"))
            task._contents[name] = response.object_content
        ask(client.ConfirmMessageReceived, node=node, run_id=run, message_object_id=tree.object_id)

    def _soon(self, ask: Callable[[], T], there: Callable[[T], bool]) -> T:
        """Repeat a request until the node has received what is asked for; `LinkLost` where nothing more comes."""
        # The node hands a task out before its message is complete.
        seen = self._received()
        until = time.monotonic() + ARRIVING
        pace = Pace(SOON, LATEST)
        while not there(response := ask()):
            before, seen = seen, self._received()
            if seen != before:
                until = time.monotonic() + ARRIVING
            if time.monotonic() > until:
                raise LinkLost(render("processes.link.stalled", seconds=ARRIVING))
            self._alive()
            time.sleep(pace.seconds())
        return response

    def close(self) -> None:
        """Close the connection to the node."""
        self._client.close()


def _beat(client: NodeClient) -> Callable[[], bool]:
    """Return a heartbeat that never ends this process.

    Flower's own would end it. Here the reply fails, and the failure is reported.
    """

    def beat() -> bool:
        try:
            ask(client.SendTaskHeartbeat)
        except httpx.TransportError:
            return False
        except (httpx.HTTPError, ValueError, RuntimeError, FlfedError):
            return True
        return True

    return beat
