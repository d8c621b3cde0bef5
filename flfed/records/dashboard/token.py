"""Access token of an app.

Without it an app shows nothing, for every account of this machine reaches its port.
"""

from __future__ import annotations

import hmac
import html
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config
from streamlit.starlette import App

from flfed.paths import where
from flfed.records.dashboard.server import opens_browser, served_at

NAME = "token"
"""Of the token in the app's address."""
ONWARD = f"""<!doctype html><title>flfed</title><script>
const here = new URL(location.href); here.searchParams.delete("{NAME}"); location.replace(here)
</script>"""
"""To the same address without the token. No redirect: a browser that came from a file sends a strict cookie only to
an address that a page of the app itself leads to."""
BY_HAND = " by hand if the browser finds no file"
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class OnlyWithToken:
    """Middleware that refuses requests without the token.

    It refuses every request and every websocket that has not the token, in a cookie or at first in its address.

    Parameters
    ----------
    app : ASGI application
    guard : Guard
        Where its token is empty nothing is shown to anybody.

    Guarantee: without the token no page, file or websocket of the app is had, by other accounts of this machine
    neither. Who can read the token (root, and the account that runs the app) may look.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or leave it to the app."""
        if scope["type"] == "lifespan" or self._guard.logs_in():
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        cookie = cookie_of(scope["server"][1])
        # The token moves from the address into a cookie, where no history or log keeps it.
        if scope["type"] == "http" and scope["method"] == "GET" and self._is_it(asked.query_params.get(NAME)):
            answer: Response = HTMLResponse(ONWARD, headers=HEADERS)
            answer.set_cookie(cookie, self._guard.token, path="/", httponly=True, samesite="strict")
            await answer(scope, receive, send)
        elif self._is_it(asked.cookies.get(cookie)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
        else:
            answer = PlainTextResponse(self._guard.closed, 403, HEADERS)
            await answer(scope, receive, send)

    def _is_it(self, given: str | None) -> bool:
        return is_it(given, self._guard.token)


def cookie_of(port: int) -> str:
    """Return the name of the token's cookie.

    It has the port, as browsers keep one jar for all ports of a host.
    """
    return f"flfed-{port}"


def is_it(given: str | None, token: str) -> bool:
    """Tell whether a text is the token.

    The time that it takes tells nothing of the token.
    """
    return bool(token and given) and hmac.compare_digest(str(given).encode(), token.encode())


@dataclass(frozen=True)
class Guard:
    """Access rules of one app and its announcement.

    It says who may see the app, and how the address with its token is told.

    Attributes
    ----------
    variable : str
        The environment's variable with the token: other accounts cannot read a process's variables, but they can
        read its command line.
    command : str
        What starts the app, as a person types it.
    logs_in : callable
        Tells whether people log in: the pages let nobody in by themselves then, and no token is asked for.
    load : callable
        Called before the app is served: what its pages need, so that nobody waits for it.
    """

    variable: str
    command: str
    logs_in: Callable[[], bool] = lambda: False
    load: Callable[[], object] = lambda: None

    @property
    def token(self) -> str:
        """Token of this process.

        An empty text where the process was not started by the app's command.
        """
        return os.environ.get(self.variable, "")

    @property
    def closed(self) -> str:
        """Message to visitors without the token."""
        if not self.token:
            return f"Nothing is shown: start the app with `{self.command}`, which prints its address.\n"
        command = self.command.removesuffix(" NAME")
        return f"Open the address that `{command}` printed where it was started: nothing is shown without its token.\n"

    def middleware(self) -> Middleware:
        """Return the middleware that stands before the app."""
        return Middleware(OnlyWithToken, guard=self)

    @asynccontextmanager
    async def announced(self, _: App) -> AsyncIterator[None]:
        """Print the app's address while it is served.

        It is opened in a browser too unless the app runs headless.
        """
        self.load()
        logs_in = self.logs_in()
        address = served_at() if logs_in else f"{served_at()}/?{NAME}={self.token}"
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # else it ends with an address that has no token
        # Without a login and without a token nobody can be let in, so that no address is told.
        shut = not (logs_in or self.token)
        headless = shut or config.get_option("server.headless")
        print(self.closed.strip() if shut else f"Open {address}{'' if headless else BY_HAND}", flush=True)
        if headless:
            yield
            return
        with _leads_to(address) as page:
            opens_browser(page.as_uri())
            yield


@contextmanager
def _leads_to(address: str) -> Iterator[Path]:
    """Yield a private file that opens an address.

    It is of this user alone and leads a browser to the address: `ps` shows a browser's arguments to all.
    """
    # The address has the token, and so must not stand in an argument.
    with _own_folder() as folder:
        page = Path(folder) / "open.html"
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(address)}">')
        yield page


def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new private folder in the user's home.

    It has mode 700 and is not hidden: a browser from a snap sees no other, nor `/tmp`.

    It is in the temporary folder where the home cannot be written, or is part of flfed's own, where nothing is written.
    """
    try:
        home = Path.home().resolve()
        if not home.is_relative_to(where().resolve()):
            return tempfile.TemporaryDirectory(prefix="flfed-", dir=home)
    except (OSError, RuntimeError):
        pass  # this user has no home that can be written
    return tempfile.TemporaryDirectory(prefix="flfed-")
