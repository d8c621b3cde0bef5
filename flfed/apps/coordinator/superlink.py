"""Flower's SuperLink with a lock on it: `python -m flfed.apps.coordinator.superlink SECRET-FILE OPTION…`.

Flower 1.41 asks nobody who starts a run, lists or registers nodes. Here every route but those of the
nodes, which prove who they are by their keys, answers only who knows the coordinator's secret: other
users of the machine, and whatever else might reach the port, do not.

Private names of Flower: `flwr.superlink.extensions.get_middleware`, which is replaced, and
`flwr.superlink.cli.flower_superlink`. That the lock holds is asked at each start (`Control.check_lock`).
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flfed.apps.coordinator.control import HEADER, word_of
from flfed.apps.private_files import read_private

OPEN = "/v1/fleet/"
"""Routes of the nodes, which Flower itself guards."""


class Lock:
    """Answers 403 to whoever does not know the word.

    Parameters
    ----------
    app : ASGI application
    word : str
    """

    def __init__(self, app: ASGIApp, word: str) -> None:
        self._app, self._word = app, word.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await Response(status_code=403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _may_pass(self, scope: Scope) -> bool:
        if scope["type"] == "http" and str(scope["path"]).startswith(OPEN):
            return True
        said = [value for name, value in scope["headers"] if name == HEADER.encode()]
        return len(said) == 1 and hmac.compare_digest(said[0], self._word)


def main(arguments: Sequence[str]) -> None:
    """Run the SuperLink with Flower's own options; what it writes is for its owner only."""
    os.umask(0o077)
    word = word_of(read_private(Path(arguments[0])))
    vars(extensions)["get_middleware"] = lambda: (Middleware(Lock, word=word),)
    sys.argv = ["flower-superlink", *arguments[1:]]
    flower_superlink()


if __name__ == "__main__":
    main(sys.argv[1:])
