"""Access to the pages: by the token in the app's address, or for people who log in and are in a file of addresses."""

from __future__ import annotations

import hmac
import html
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import cli_util, config, file_util
from streamlit.starlette import App
from streamlit.url_util import make_url_path
from streamlit.web.server.server_util import get_display_address, get_url

from flfed.errors import UsageError
from flfed.parsers import read_text
from flfed.paths import where
from flfed.records.dashboard import APP_TOKEN, page_files, pages
from flfed.records.text import escape
from flfed.words import render

PEOPLE = "app-people.txt"
"""File under `home()` with the addresses of the people who may log in."""
ADMITTED = "admitted"
"""Key of a session whose reader was let in."""
TRUSTED = "unverified"
"""Word behind an address whose login provider does not report whether it is verified."""


def check_person(claims: Mapping[str, Any], people: str) -> str:
    r"""Return the address of a person who logged in and may see the pages.

    `claims` are the login provider's about the person. `people` has an address a line, and comments behind "#";
    capitals do not count.

    Raises
    ------
    UsageError
        If the person is not among the people, or the provider does not call the address verified.

    Examples
    --------
    >>> check_person({"email": "Ana@Clinic.example", "email_verified": True}, "# analysts\nana@clinic.example")
    'Ana@Clinic.example'
    """
    address = str(claims.get("email") or "")
    words_by_line = [line.partition("#")[0].split() for line in people.splitlines()]
    listed = {_folded(words[0]): words[1:] for words in words_by_line if words}
    words = listed.get(_folded(address))
    if words not in ([], [TRUSTED]):
        raise UsageError(render("pages.access.unlisted", who=address or "you", file=PEOPLE))
    if claims.get("email_verified") is not True and not words:
        raise UsageError(render("pages.access.unverified"))
    return address


def _folded(address: str) -> str:
    """Return an address in the form for comparison; beyond ASCII "ß" would equal "ss", another person's address."""
    return address.lower() if address.isascii() else address


def logs_in() -> bool:
    """Return whether people log in: a login is set up, or its file cannot be read and may set one up."""
    return _login_is_unread() or (st.secrets.load_if_toml_exists() and bool(st.secrets.get("auth")))


def _login_is_unread() -> bool:
    """Return whether a login file cannot be read: Streamlit skips it, and would let everybody in."""
    try:
        return any(map(os.path.lexists, st.get_option("secrets.files"))) and not st.secrets.load_if_toml_exists()
    except (OSError, UnicodeDecodeError):
        return True


def _needs_login() -> bool:
    """Return whether this reader has to log in.

    They do where people log in, or where they came without the token, while a login was set up.
    """
    token = os.environ.get(APP_TOKEN, "")
    # Without a token in the environment every reader counts as having the token.
    came = not token or _equal(st.context.cookies.get(cookie_of(st.get_option("server.port"))), token)
    return logs_in() or "is_logged_in" in st.user or not came


def _logged_in() -> str:
    """Return the address of the person who logged in, by the current file of people."""
    try:
        people = read_text(where() / PEOPLE)
    except UsageError:
        raise UsageError(render("pages.access.nobody", file=PEOPLE)) from None
    return check_person(st.user.to_dict(), people)


def admit() -> bool:
    """Return whether the reader may see the pages; else show a login or a refusal in their place."""
    st.session_state[ADMITTED] = is_admitted = _admit()
    return is_admitted


def _admit() -> bool:
    if not _needs_login():
        return True
    unread = _login_is_unread()
    # A login that cannot be read must let nobody in, rather than everybody.
    if unread or "is_logged_in" not in st.user:
        st.title("Log in")
        st.error(render("pages.access.unread" if unread else "pages.access.unset"))
        return False
    if not st.user.is_logged_in:
        st.title("Log in")
        st.markdown(render("pages.access.login"))
        st.button("Log in", on_click=st.login, type="primary")
        return False
    try:
        person = _logged_in()
    except UsageError as error:
        st.title("Not for you")
        st.error(escape(str(error)))
        # They can log in as somebody else.
        st.button("Log out", on_click=st.logout)
        return False
    with st.sidebar:
        st.caption(escape(person))
        st.button("Log out", on_click=st.logout)
    return True


def require() -> None:
    """Reload the app for a reader who is no longer let in, such as after a change of the file of people.

    A page that runs without the app's frame, which lets people in, shows nothing to who has to log in.
    """
    if not _needs_login():
        return
    if not st.session_state.get(ADMITTED):
        st.stop()
    try:
        _logged_in()
    except UsageError:
        st.session_state[ADMITTED] = False
        st.rerun()


NAME = "token"
"""Parameter of the token in the app's address."""
ONWARD = f"""<!doctype html><title>flfed</title><script>
const here = new URL(location.href); here.searchParams.delete("{NAME}"); location.replace(here)
</script>"""
"""Page that leads to the same address without the token. A redirect would not do: a browser that comes from a file
sends a strict cookie only to an address that a page of the app itself links to."""
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def cookie_of(port: int) -> str:
    """Return the name of the token's cookie; it has the port, as all ports of a host share their cookies."""
    return f"flfed-{port}"


def _equal(candidate: str | None, token: str) -> bool:
    """Return whether a text is the token, in a time that reveals nothing of the token."""
    return bool(token and candidate) and hmac.compare_digest(str(candidate).encode(), token.encode())


@dataclass(frozen=True)
class Guard:
    """Access rules of one app, and the message with its address.

    Guarantee: nobody without the token, other accounts of this machine included, gets a page, file or websocket of
    the app. Everybody who can read the token (root, and the account that runs the app) gets them.

    Attributes
    ----------
    variable : str
        Environment variable with the token: other accounts cannot read a process's variables, but they can read its
        command line.
    command : str
        Command that starts the app, as a person types it.
    logs_in : callable
        Returns whether people log in: the pages then refuse everybody else, and need no token.
    load : callable
        Loads the modules of the pages before the app is served, so that no reader waits for them.
    """

    variable: str
    command: str
    logs_in: Callable[[], bool] = lambda: False
    load: Callable[[], object] = lambda: None

    @property
    def token(self) -> str:
        """Token of this process, "" where the app's command did not start it: nothing is then shown to anybody."""
        return os.environ.get(self.variable, "")

    @property
    def closed(self) -> str:
        """Message to visitors without the token."""
        if not self.token:
            return render("pages.access.closed", command=self.command) + "\n"
        return render("pages.access.token", command=self.command.removesuffix(" NAME")) + "\n"

    def middleware(self) -> Middleware:
        """Return the middleware that refuses requests and websockets without the token."""
        return Middleware(lambda app: partial(self._answer, app))

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to the app; the token is in a cookie, at first in the address."""
        if scope["type"] == "lifespan" or self.logs_in():
            await app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        cookie = cookie_of(scope["server"][1])
        # The token moves from the address into a cookie, where no history or log keeps it.
        if scope["type"] == "http" and scope["method"] == "GET" and _equal(request.query_params.get(NAME), self.token):
            answer: Response = HTMLResponse(ONWARD, headers=HEADERS)
            answer.set_cookie(cookie, self.token, path="/", httponly=True, samesite="strict")
            await answer(scope, receive, send)
        elif _equal(request.cookies.get(cookie), self.token):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
        else:
            answer = PlainTextResponse(self.closed, 403, HEADERS)
            await answer(scope, receive, send)

    @asynccontextmanager
    async def announced(self, _: App) -> AsyncIterator[None]:
        """Print the app's address while it is served, and open it in a browser unless the app runs headless."""
        self.load()
        logs_in = self.logs_in()
        host = get_url(get_display_address(config.get_option("server.address") or "localhost"))
        address = host if logs_in else f"{host}/?{NAME}={self.token}"
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # else it ends with an address that has no token
        # Without a login and without a token nobody can be admitted, so no address is shown.
        shut = not (logs_in or self.token)
        opens = not (shut or config.get_option("server.headless"))
        message = f"Open {address}"
        if opens:
            message = render("pages.access.open", address=address)
        if shut:
            message = self.closed.strip()
        print(message, flush=True)
        if not opens:
            yield
            return
        # `ps` shows arguments to all accounts, so the address with its token goes into a file of this user alone.
        with _own_folder() as folder:
            page = Path(folder) / "open.html"
            page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(address)}">')
            cli_util.open_browser(page.as_uri())
            yield


def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new private folder in the user's home.

    It has mode 700 and is not hidden: a browser from a snap sees neither hidden folders nor `/tmp`. It is in the
    temporary folder where the home cannot be written, or is part of flfed's own folder, which stays untouched.
    """
    try:
        home = Path.home().resolve()
        if not home.is_relative_to(where().resolve()):
            return tempfile.TemporaryDirectory(prefix="flfed-", dir=home)
    except (OSError, RuntimeError):
        pass  # this user has no writable home
    return tempfile.TemporaryDirectory(prefix="flfed-")


BACKEND_SCRIPT = "<script>window.__streamlit = {BACKEND_BASE_URL: new URL('.', location.href).href}</script>"
"""Script without which a browser first looks for the server below the page's own address, and gets 404 twice."""


def page_routes(names: Sequence[str]) -> list[Route]:
    """Return the route of `/NAME` for each page, which serves Streamlit's own page with the address of its server.

    Routes begin with `server.baseUrlPath`, as Streamlit's own do. The first page's address is that of the app, to which
    its name redirects.
    """
    shell = Path(file_util.get_static_dir(), "index.html").read_text(encoding="utf-8")
    shell_page = shell.replace("<head>", f"<head>{BACKEND_SCRIPT}", 1)

    def page(_: Request) -> Response:
        return HTMLResponse(shell_page, headers={"Cache-Control": "no-cache"})

    def first(request: Request) -> Response:
        return RedirectResponse(f"./?{request.url.query}".removesuffix("?"))

    base = config.get_option("server.baseUrlPath")
    # The first page has no address of its own, so its name redirects to the app's.
    return [Route(make_url_path(base, name), page if place else first) for place, name in enumerate(names)]


def load_pages() -> None:
    """Load all modules of the pages, and the list of runs, so that the first reader does not wait for them."""
    for file in page_files().values():
        import_module(f"{pages.__name__}.{file.stem}")
    # Imported here: it declares cached functions, which brings a warning before Streamlit runs.
    from flfed.records.dashboard.refresh import read_list_ahead

    read_list_ahead()
