"""The token without which the app of a site shows nothing: every account of this machine reaches its port."""

from __future__ import annotations

import hmac
import html
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config
from streamlit.starlette import App

from flfed.apps.site_app.may_look import TOKEN
from flfed.home import where
from flfed.records.dashboard.shell import opens_browser, served_at

NAME = "token"
"""Of the token in the app's address."""
REFUSED = "Open the address that `flfed site app` printed where it was started: nothing is shown without its token.\n"
NOT_OURS = "Nothing is shown: start the app with `flfed site app NAME`, which prints its address.\n"
ONWARD = f"""<!doctype html><title>flfed</title><script>
const here = new URL(location.href); here.searchParams.delete("{NAME}"); location.replace(here)
</script>"""
"""To the same address without the token. No redirect: a browser that came from a file sends a strict cookie only to
an address that a page of the app itself leads to."""
BY_HAND = " by hand if the browser finds no file"
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class OnlyWithToken:
    """Refuses every request and every websocket that has not the token, in a cookie or at first in its address.

    Parameters
    ----------
    app : ASGI application
    token : str
        Where it is empty nothing is shown to anybody.

    Guarantee: without the token no page, file or websocket of the app is had, by other accounts of this machine
    neither. Who can read the token (root, and the account that runs the app) may look.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or leave it to the app."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        cookie = f"flfed-site-{scope['server'][1]}"  # browsers keep one jar for all ports of a host
        if scope["type"] == "http" and scope["method"] == "GET" and self._is_it(asked.query_params.get(NAME)):
            answer: Response = HTMLResponse(ONWARD, headers=HEADERS)
            answer.set_cookie(cookie, self._token.decode(), path="/", httponly=True, samesite="strict")
            await answer(scope, receive, send)
        elif self._is_it(asked.cookies.get(cookie)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
        else:
            answer = PlainTextResponse(REFUSED if self._token else NOT_OURS, 403, HEADERS)
            await answer(scope, receive, send)

    def _is_it(self, given: str | None) -> bool:
        return bool(self._token and given) and hmac.compare_digest(str(given).encode(), self._token)


@asynccontextmanager
async def announced(_: App) -> AsyncIterator[None]:
    """Print the address with the token while the app is served, and open it in a browser unless it runs headless."""
    token = os.environ.get(TOKEN, "")
    address = f"{served_at()}/?{NAME}={token}"
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # else it ends with an address that has no token
    headless = not token or config.get_option("server.headless")
    print(f"Open {address}{'' if headless else BY_HAND}" if token else NOT_OURS.strip(), flush=True)
    if headless:
        yield
        return
    with _leads_to(address) as page:
        opens_browser(page.as_uri())
        yield


@contextmanager
def _leads_to(address: str) -> Iterator[Path]:
    """Yield a file of this user alone that leads a browser to an address: `ps` shows a browser's arguments to all."""
    with _own_folder() as folder:
        page = Path(folder) / "open.html"
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(address)}">')
        yield page


def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder of mode 700 in the user's home, not hidden: a browser from a snap sees no other, nor `/tmp`.

    In the temporary folder where the home cannot be written, or is part of flfed's own, where nothing is written.
    """
    try:
        home = Path.home().resolve()
        if not home.is_relative_to(where().resolve()):
            return tempfile.TemporaryDirectory(prefix="flfed-", dir=home)
    except (OSError, RuntimeError):
        pass  # this user has no home that can be written
    return tempfile.TemporaryDirectory(prefix="flfed-")
