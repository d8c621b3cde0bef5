"""Flower's SuperLink behind a lock.

It is run as `python -m flfed.deployment.coordinator.superlink FOLDER OPTION…`.

Flower 1.42 asks nobody who starts a run, lists or registers nodes. Here every route but those of the
nodes answers only who knows the coordinator's secret: other users of the machine, and whatever else
might reach the port, do not. And it reads whole bodies before it asks whose they are. Here a node
proves who it is by its headers, before a byte of the body is read; then its body is held to a size
and a time. An object is read to its end only where a run waits for it.

And it sends each request through nine layers of middleware. Here it goes through those alone that do something
with it: two milliseconds of CPU less (measured on a node's request that is refused: 2.9 and 1.0).

Two functions of Flower are replaced, which make its middleware. That the lock holds is asked at each start
(`Control.check_lock`).
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import os
import resource
import sqlite3
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flfed import flower_names
from flfed.deployment.coordinator.node_auth import NodeKeys
from flfed.deployment.coordinator.proxy import ROUTES
from flfed.deployment.coordinator.request_bodies import (
    HEAD_BYTES,
    Body,
    BodyReader,
    BodyRefused,
    Declared,
    HeadError,
    ObjectHead,
    PushedObjects,
)
from flfed.deployment.flower.link import HEADER, LAST_REQUESTS, NODES, Node, database, secret_file, word_of
from flfed.errors import FlfedError
from flfed.files import read_private
from flfed.flower_names import check_names, replace, reply_class
from flfed.folders import CoordinatorFolder

MOST_BYTES = 64_000
"""Of a body that a node sends: its questions have some hundred."""
MOST_BYTES_OF = {"push-object": 16_000_000, "push-messages": 1_000_000}
"""Flower sends arrays in pieces of 5 MB; a message's list of parts has 70 bytes for each."""
LIMITS = {f"/v1/fleet/{route}": MOST_BYTES_OF.get(route, MOST_BYTES) for route in ROUTES}
CONTROL, FLEET = "/v1/control/", "/v1/fleet/"
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
"""The routes with which Flower's middleware does something."""
AT_A_TIME = 8
"""Requests of one node; Flower's has four at most: two objects, a heartbeat, and what its loop asks."""
OBJECTS_AT_A_TIME, PLACE_SECONDS = 2, 10.0
"""Objects of one node, and how long the next one waits; its node gives up after 15 s.

A limit over all nodes would let one of them keep the others waiting.
"""
FREED_BYTES = 16_000_000
"""Bodies that may be answered before their memory is freed."""


class Lock:
    """Lock in front of the SuperLink's application.

    It lets in who knows the word, and nodes that are known by their keys.

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
        # Node routes need a key, all other routes the word; the start and end of the server need neither.
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
        said = [value for name, value in scope["headers"] if name == HEADER.encode()]
        return len(said) == 1 and hmac.compare_digest(said[0], self._word)

    async def _of_node(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a node's request.

        Nothing of the request is read before the node is known, nor more than is allowed.
        """
        node, most = self._keys.identify(scope["headers"]), LIMITS[scope["path"]]
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
                await self._app(scope, Body(await body.rest(), receive).receive, send)
        except BodyRefused as refused:
            if refused.status:
                await _refuse(refused.status, scope, receive, send, refused.reason)
        finally:
            self._busy[key] -= 1
            self._free(body.size)

    def _free(self, size: int) -> None:
        """Free the memory of bodies that were answered.

        Flower's layers leave each in a circle of references, and Python counts objects before it looks for those.
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
            await self._app(scope, Body(await body.rest(), receive).receive, send)
        finally:
            places.release()

    async def _check_object(self, scope: Scope, body: BodyReader) -> None:
        """Refuse an object for which no run waits, by its first bytes."""
        try:
            head = ObjectHead.parse(await body.first(HEAD_BYTES))
            declared = await asyncio.to_thread(self._objects.look_up, head.run_id, head.object_id)
        except HeadError:
            raise BodyRefused(400) from None
        except sqlite3.Error:
            raise BodyRefused(503) from None
        if declared is Declared.NO_RUN:
            raise BodyRefused(404)
        if declared is Declared.NO:
            # Flower is asked by the head alone: its nodes understand how it says that a run is over.
            status, content = await self._heard(scope, head.fields)
            raise BodyRefused(409) if status == 200 else BodyRefused(status, content)
        body.most = min(body.most, head.most)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to serve, where Flower's database is as this version knows it."""
        if problem := self._objects.problem():
            await send({"type": "lifespan.startup.failed", "message": problem})
        else:
            # What is there before the first request stays: looking through it each time would cost most.
            gc.collect()
            gc.freeze()
            await self._app(scope, receive, send)

    async def _heard(self, scope: Scope, content: bytes) -> tuple[int, bytes]:
        """Return the status and the content of what Flower answers to a whole request."""
        heard: list[Message] = []

        async def hear(message: Message) -> None:
            heard.append(message)

        async def nothing_more() -> Message:
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        await self._app(scope, Body(content, nothing_more).receive, hear)
        status = next((message["status"] for message in heard if "status" in message), 500)
        return status, b"".join(message.get("body", b"") for message in heard)

    async def _nodes(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with Flower's nodes, as JSON.

        So the coordinator's status needs no Flower to be loaded: a second of CPU.
        """
        asked = {"method": "POST", "path": LIST_NODES, "raw_path": LIST_NODES.encode(), "query_string": b""}
        kind = [(b"content-type", b"application/protobuf")]
        status, content = await self._heard({**scope, **asked, "headers": kind}, b"")
        if status != 200:
            await _refuse(status, scope, receive, send)
            return
        nodes = [Node.of(info).as_json() for info in self._nodes_reply.FromString(content).nodes_info]
        await JSONResponse(nodes)(scope, receive, send)

    def _seconds_since(self) -> dict[str, float]:
        """Return each admitted site's seconds since its last request."""
        now, admitted = time.monotonic(), self._keys.admitted()
        # Keys that are not admitted any more are forgotten.
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
        await (self._app if other else self._own)(scope, receive, send)


def on_own_routes(middleware: Sequence[Middleware]) -> list[Middleware]:
    """Return Flower's middleware, each on its own routes.

    One that is not known stays on all.
    """
    prefixes = [ROUTES_OF.get(getattr(each.cls, "__name__", "")) for each in middleware]
    return [
        each if prefix is None else Middleware(OwnRoutes, prefix=prefix, middleware=each)
        for each, prefix in zip(middleware, prefixes, strict=True)
    ]


def _length(scope: Scope) -> int:
    """Return the declared length of a body.

    It is 0 where none is declared.
    """
    said = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(said[0]) if said else 0


async def _refuse(status: int, scope: Scope, receive: Receive, send: Send, reason: bytes = b"") -> None:
    """Answer with a status, and close.

    The unread rest of the body is not waited for.
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

    The files that it writes are for its owner only.
    """
    check_names("server")
    os.umask(0o077)
    _raise_open_files()
    folder = CoordinatorFolder(Path(arguments[0]))
    word, keys = word_of(read_private(secret_file(folder))), NodeKeys(folder)
    objects = PushedObjects(database(folder))
    # Replaced in the module itself, since Flower looks it up there when it builds its application.
    replace("get_middleware", lambda: (Middleware(Lock, word=word, keys=keys, objects=objects),))
    all_of_flower = flower_names._get_middleware
    replace("_get_middleware", lambda: on_own_routes(all_of_flower()))
    sys.argv = ["flower-superlink", *arguments[1:]]
    flower_names.flower_superlink()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FlfedError as error:
        sys.exit(f"flfed: {error}")
