"""Flower's SuperLink behind a lock.

It is run as `python -m flfed.deployment.coordinator.superlink FOLDER OPTION…`.

Flower 1.42 lets any caller start a run, list nodes and register them. Here every route but those of the nodes answers
only callers with the coordinator's secret. Other users of the machine, and whatever else might reach the port, get no
answer.

Flower reads whole bodies before it checks their sender. Here a node's headers prove its identity before a byte of the
body is read; then size and time of its body are limited. An object is read to its end only where a run waits for it.
Flower reads one whole before it checks the run and the declaration. But its nodes write run and object before the
content, and the session after it, so the first bytes are enough to refuse it.

Flower sends each request through nine layers of middleware. Here it passes only those that act on it, which saves CPU.

Two functions of Flower, which make its middleware, are replaced. Each start checks that the lock works
(`Control.check_lock`). Private to Flower 1.42 besides: the numbers and the order of the fields of `PushObjectRequest`;
and these tables, which are read: `run`, `message_ins`, `message_res`, `object_push_sessions` and
`object_push_session_pending`.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import resource
import sqlite3
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flfed import flower_names
from flfed.deployment.coordinator.node_auth import NodeKeys
from flfed.deployment.coordinator.proxy import ROUTES
from flfed.deployment.flower.link import (
    HEADER,
    LAST_REQUESTS,
    NODES,
    Node,
    database,
    secret_file,
    signed_number,
    word_of,
)
from flfed.errors import FlfedError
from flfed.files import keep_files_private, read_private
from flfed.flower_names import INSTALL, check_names, replace, reply_class
from flfed.paths import CoordinatorFolder
from flfed.words import render

MOST_BYTES = 64_000
"""Limit of a body that a node sends: its requests have some hundred bytes."""
MOST_BYTES_OF = {"push-object": 16_000_000, "push-messages": 1_000_000}
"""Flower sends arrays in pieces of 5 MB; a message's list of parts has 70 bytes for each."""
LIMITS = {f"/v1/fleet/{route}": MOST_BYTES_OF.get(route, MOST_BYTES) for route in ROUTES}
CONTROL = "/v1/control/"
FLEET = "/v1/fleet/"
LIST_NODES = "/v1/control/list-nodes"
PUSH_OBJECT = "/v1/fleet/push-object"
ROUTES_OF = {
    "ControlSensitiveResponseMiddleware": CONTROL,
    "ControlAuthenticationMiddleware": CONTROL,
    "ControlLicenseMiddleware": CONTROL,
    "ControlEventLogMiddleware": CONTROL,
    "NodeAuthMiddleware": FLEET,
    "FleetEventLogMiddleware": FLEET,
}
"""The routes on which Flower's middleware acts."""
AT_A_TIME = 8
"""Requests of one node; Flower's has four at most: two objects, a heartbeat, and one of its loop."""
OBJECTS_AT_A_TIME = 2
PLACE_SECONDS = 10.0
"""Objects of one node, and how long the next one waits; its node gives up after 15 s.

A limit over all nodes would let one of them delay the others.
"""
FREED_BYTES = 16_000_000
"""Bodies that may be answered before their memory is freed."""


class Lock:
    """Lock in front of the SuperLink's application.

    It admits callers with the secret word, and nodes whose keys are admitted.

    Parameters
    ----------
    app : ASGI application
    word : str
    keys : NodeKeys
    objects : PushedObjects
    """

    def __init__(self, app: ASGIApp, word: str, keys: NodeKeys, objects: PushedObjects) -> None:
        self._app = app
        self._word = word.encode()
        self._keys = keys
        self._objects = objects
        self._nodes_reply = reply_class(flower_names.ControlHttpClient.ListNodes)
        self._busy: Counter[bytes] = Counter()
        self._places: defaultdict[bytes, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(OBJECTS_AT_A_TIME))
        self._last: dict[bytes, float] = {}
        self._not_freed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # Node routes need a key, all other routes the word; the server's own start and end need neither.
        if scope["type"] == "http" and scope["path"] in LIMITS:
            await self._of_node(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve(scope, receive, send)
        elif not self._knows_word(scope):
            if scope["type"] == "http":
                await _refuse(403, scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] == LAST_REQUESTS:
            await JSONResponse(self._seconds_since())(scope, receive, send)
        elif scope["path"] == NODES:
            await self._nodes(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows_word(self, scope: Scope) -> bool:
        words = [value for name, value in scope["headers"] if name == HEADER.encode()]
        return len(words) == 1 and hmac.compare_digest(words[0], self._word)

    async def _of_node(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a node's request.

        Nothing of the request is read before the node is identified, and never more than its limit.
        """
        node = self._keys.identify(scope["headers"])
        most = LIMITS[scope["path"]]
        if node is None:
            await _refuse(401, scope, receive, send)
            return
        key = node[1]
        self._last[key] = time.monotonic()
        # The declared length is checked before the body, the true one while it is read.
        if _length(scope) > most:
            await _refuse(413, scope, receive, send)
            return
        if self._busy[key] >= AT_A_TIME:
            await _refuse(503, scope, receive, send)
            return
        self._busy[key] += 1
        body = BodyReader(receive, most)
        try:
            if scope["path"] == PUSH_OBJECT:
                await self._push_object(key, body, scope, receive, send)
            else:
                await self._app(scope, whole(await body.rest(), receive), send)
        except BodyRefused as refused:
            if refused.status:
                await _refuse(refused.status, scope, receive, send, refused.reason)
        finally:
            self._busy[key] -= 1
            self._free(body.size)

    def _free(self, size: int) -> None:
        """Free the memory of bodies that were answered.

        Flower's layers leave each in a circle of references, and Python counts objects before it collects those.
        """
        self._not_freed += size
        if self._not_freed >= FREED_BYTES:
            self._not_freed = 0
            gc.collect()

    async def _push_object(self, key: bytes, body: BodyReader, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a node's object, once the node has a place for it."""
        places = self._places[key]
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise BodyRefused(503) from None
        try:
            await self._check_object(scope, body)
            await self._app(scope, whole(await body.rest(), receive), send)
        finally:
            places.release()

    async def _check_object(self, scope: Scope, body: BodyReader) -> None:
        """Refuse an object for which no run waits, by its first bytes."""
        try:
            head = ObjectHead.parse(await body.first(HEAD_BYTES))
            run_exists, declared = await asyncio.to_thread(self._objects.look_up, head.run_id, head.object_id)
        except HeadError:
            raise BodyRefused(400) from None
        except sqlite3.Error:
            raise BodyRefused(503) from None
        if not run_exists:
            raise BodyRefused(404)
        if not declared:
            # Flower gets the head alone: its nodes understand its reply that a run is over.
            status, content = await self._heard(scope, head.fields)
            if status == 200:
                raise BodyRefused(409)
            raise BodyRefused(status, content)
        body.most = min(body.most, head.most)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to serve, where Flower's database has the expected tables."""
        if problem := self._objects.problem():
            await send({"type": "lifespan.startup.failed", "message": problem})
        else:
            # Objects from before the first request are never collected: to scan them each time would cost most.
            gc.collect()
            gc.freeze()
            await self._app(scope, receive, send)

    async def _heard(self, scope: Scope, content: bytes) -> tuple[int, bytes]:
        """Return the status and the content of Flower's answer to a whole request."""
        heard: list[Message] = []

        async def hear(message: Message) -> None:
            heard.append(message)

        async def nothing_more() -> Message:
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        await self._app(scope, whole(content, nothing_more), hear)
        status = next((message["status"] for message in heard if "status" in message), 500)
        return status, b"".join(message.get("body", b"") for message in heard)

    async def _nodes(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with Flower's nodes, as JSON.

        So the coordinator's status does not load Flower, which takes a second of CPU.
        """
        route = {"method": "POST", "path": LIST_NODES, "raw_path": LIST_NODES.encode(), "query_string": b""}
        kind = [(b"content-type", b"application/protobuf")]
        status, content = await self._heard({**scope, **route, "headers": kind}, b"")
        if status != 200:
            await _refuse(status, scope, receive, send)
            return
        unanswered = await asyncio.to_thread(self._objects.unanswered)
        infos = self._nodes_reply.FromString(content).nodes_info
        nodes = [Node.of(info, *unanswered.get(signed_number(info.node_id), ())).as_json() for info in infos]
        await JSONResponse(nodes)(scope, receive, send)

    def _seconds_since(self) -> dict[str, float]:
        """Return each admitted site's seconds since its last request."""
        now = time.monotonic()
        admitted = self._keys.admitted()
        # Keys that are no longer admitted are removed.
        self._last = {key: then for key, then in self._last.items() if key in admitted}
        return {admitted[key][0]: round(now - then, 1) for key, then in self._last.items()}


class OwnRoutes:
    """Middleware of Flower on its own routes alone.

    Parameters
    ----------
    app : ASGI application
    prefix : str
        Of the routes' paths.
    middleware : Middleware
    """

    def __init__(self, app: ASGIApp, prefix: str, middleware: Middleware) -> None:
        self._app = app
        self._prefix = prefix
        self._own = middleware.cls(app, *middleware.args, **middleware.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        other = scope["type"] == "http" and not scope["path"].startswith(self._prefix)
        app = self._app if other else self._own
        await app(scope, receive, send)


def on_own_routes(middleware: Sequence[Middleware]) -> list[Middleware]:
    """Return Flower's middleware, each on its own routes.

    One with an unlisted name stays on all routes.
    """
    layers = []
    for each in middleware:
        prefix = ROUTES_OF.get(getattr(each.cls, "__name__", ""))
        own = each if prefix is None else Middleware(OwnRoutes, prefix=prefix, middleware=each)
        layers.append(own)
    return layers


def _length(scope: Scope) -> int:
    """Return the declared length of a body.

    It is 0 where none is declared.
    """
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


async def _refuse(status: int, scope: Scope, receive: Receive, send: Send, reason: bytes = b"") -> None:
    """Answer with a status, and close.

    It does not wait for the unread rest of the body.
    """
    kind = "application/json" if reason else None
    await Response(reason, status, {"connection": "close"}, kind)(scope, receive, send)


def _raise_open_files() -> None:
    """Raise the limit of open files to the maximum.

    Each connection needs one.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(arguments: Sequence[str]) -> None:
    """Run the SuperLink with Flower's own options.

    Only their owner can read the files that it writes.
    """
    check_names("server")
    _raise_open_files()
    folder = CoordinatorFolder(Path(arguments[0]))
    word = word_of(read_private(secret_file(folder)))
    keys = NodeKeys(folder)
    objects = PushedObjects(database(folder))
    # Replaced in the module itself, since Flower looks it up there when it builds its application.
    replace("get_middleware", lambda: (Middleware(Lock, word=word, keys=keys, objects=objects),))
    all_of_flower = flower_names._get_middleware
    replace("_get_middleware", lambda: on_own_routes(all_of_flower()))
    sys.argv = ["flower-superlink", *arguments[1:]]
    keep_files_private()
    flower_names.flower_superlink()


BODY_SECONDS = 120.0
SILENT_SECONDS = 20.0
"""Most seconds for a whole body, and most without a piece of it."""


class BodyRefused(Exception):
    """A body that is not read to its end.

    `status` is the answer, with a `reason` of Flower's; it is 0 where no sender waits for an answer.
    """

    def __init__(self, status: int, reason: bytes = b"") -> None:
        super().__init__(status)
        self.status = status
        self.reason = reason


def whole(content: bytes, more: Receive) -> Receive:
    """Return a callable that gives a body once, without storing it.

    Later messages come from `more`.
    """
    bodies = [content]

    async def receive() -> Message:
        if not bodies:
            return await more()
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    return receive


@dataclass
class BodyReader:
    """Reader of a request's body.

    Parameters
    ----------
    receive : callable
    most : int
        Bytes.
    """

    receive: Receive
    most: int
    size: int = 0
    _end: float = field(default_factory=lambda: time.monotonic() + BODY_SECONDS)
    _pieces: list[bytes] = field(default_factory=list)
    _is_whole: bool = False

    async def first(self, count: int) -> bytes:
        """Return the first bytes: `count`, or all where there are fewer.

        Raises
        ------
        BodyRefused
            As `rest` does.
        """
        while self.size < count and not self._is_whole:
            await self._read_piece()
        return b"".join(self._pieces)[:count]

    async def rest(self) -> bytes:
        """Return the whole body, once; it is not stored.

        Raises
        ------
        BodyRefused
            If it is larger, takes longer, or its sender went away.
        """
        self._check_size()
        while not self._is_whole:
            await self._read_piece()
        pieces = self._pieces
        self._pieces = []
        return b"".join(pieces)

    async def _read_piece(self) -> None:
        try:
            # Both limits at once: a sender that drips bytes is stopped by the whole time, a silent one sooner.
            async with asyncio.timeout(min(SILENT_SECONDS, self._end - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            raise BodyRefused(503) from None
        if message["type"] == "http.disconnect":
            raise BodyRefused(0)
        piece = message.get("body", b"")
        self._pieces.append(piece)
        self.size += len(piece)
        self._is_whole = not message.get("more_body", False)
        self._check_size()

    def _check_size(self) -> None:
        if self.size > self.most:
            raise BodyRefused(413)


HEAD_BYTES = 4096
"""Bytes read of a pushed object before it is looked up; Flower's nodes write about 100 before the content."""
TAIL_BYTES = 100
"""Bytes that may follow the content: the session's name has 38."""
NODE = 0x0A
RUN = 0x10
OBJECT = 0x1A
CONTENT = 0x22
"""Tags of the fields up to the content: its number, shifted by three bits, and its type on the wire."""
MOST_NUMBER = 2**64
BUSY_SECONDS = 5.0
"""How long Flower's own work may keep the database busy."""
LOOK_UP = """
SELECT EXISTS (SELECT 1 FROM run WHERE run_id = :run), EXISTS (
    SELECT 1 FROM object_push_session_pending JOIN object_push_sessions USING (session_id)
    WHERE object_id = :object AND run_id = :run)
"""
UNANSWERED = """
SELECT dst_node_id, message_type, MIN(created_at) FROM message_ins
WHERE message_id NOT IN (SELECT reply_to_message_id FROM message_res) GROUP BY dst_node_id
"""


class HeadError(ValueError):
    """The first bytes are not those of a node of Flower."""


@dataclass(frozen=True)
class ObjectHead:
    """Beginning of a pushed object.

    Attributes
    ----------
    run_id : int
    object_id : str
    fields : bytes
        The part before the content, by itself a request without one.
    most : int
        Bytes that the whole request may have.
    """

    run_id: int
    object_id: str
    fields: bytes
    most: int

    @classmethod
    def parse(cls, content: bytes) -> ObjectHead:
        """Return the head of a request.

        Parameters
        ----------
        content : bytes
            The first ones, or all.

        Raises
        ------
        HeadError
            If the content is not preceded by node, run and object, once each and in this order.
        """
        fields = _Fields(content)
        fields.expect(NODE)
        fields.read_bytes()
        fields.expect(RUN)
        run_id = fields.read_number()
        fields.expect(OBJECT)
        object_id = fields.read_bytes()
        end = fields.position
        fields.expect(CONTENT)
        size = fields.read_number()
        if not object_id.isascii():
            raise HeadError("the object's name is no SHA-256")
        return cls(run_id, object_id.decode("ascii"), content[:end], fields.position + size + TAIL_BYTES)


@dataclass
class _Fields:
    """Reader of the protobuf wire format, within the available bytes."""

    content: bytes
    position: int = 0

    def expect(self, tag: int) -> None:
        """Read a field's tag, which must be this one."""
        if self.read_number() != tag:
            raise HeadError("another field stands where Flower's nodes have none")

    def read_number(self) -> int:
        """Return a number of 64 bits: seven a byte, the lowest first.

        The last byte is below 128.
        """
        number = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise HeadError("a number does not end")
        if number >= MOST_NUMBER:
            raise HeadError("a number has more than 64 bits")
        return number

    def read_bytes(self) -> bytes:
        """Return bytes that follow their own number."""
        return self._take(self.read_number())

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.content):
            raise HeadError("the content does not begin within the first bytes")
        taken = self.content[self.position : end]
        self.position = end
        return taken


class PushedObjects:
    """Objects that runs wait for, by Flower's database.

    Parameters
    ----------
    database : Path
        Of the SuperLink of this process.
    """

    def __init__(self, database: Path) -> None:
        self._address = f"file:{quote(str(database))}?mode=ro"

    def look_up(self, run_id: int, object_id: str) -> tuple[bool, bool]:
        """Return whether a run exists, and whether it waits for an object.

        Raises
        ------
        sqlite3.Error
            If the database is busy, or has no such tables.
        """
        parameters = {"run": signed_number(run_id), "object": object_id}
        with closing(sqlite3.connect(self._address, uri=True, timeout=BUSY_SECONDS)) as connection:
            run, pending = connection.execute(LOOK_UP, parameters).fetchone()
        return bool(run), bool(pending)

    def unanswered(self) -> dict[int, tuple[str, float]]:
        """Return the kind and the age of each node's oldest request without an answer, by its stored number."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._address, uri=True)) as connection:
            return {node: (kind, time.time() - at) for node, kind, at in connection.execute(UNANSWERED)}
        return {}

    def problem(self) -> str:
        """Return a sentence about an unreadable database.

        The text is empty where the database can be read as expected.
        """
        try:
            self.look_up(0, "")
        except sqlite3.Error as error:
            return render("coordinator.server.tables", why=error, install=INSTALL)
        return ""


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FlfedError as error:
        sys.exit(f"flfed: {error}")
