"""Access to the pages: for everybody on this machine, or for people who log in and are in the file of roles."""

from __future__ import annotations

import hmac
import html
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
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
from flfed.parsers import parse_toml, read_text
from flfed.paths import where
from flfed.records.dashboard import APP_TOKEN, page_files, pages
from flfed.records.store.visibility import Viewer
from flfed.records.text import escape
from flfed.registry import kebab
from flfed.words import render

BACKEND_SCRIPT = "<script>window.__streamlit = {BACKEND_BASE_URL: new URL('.', location.href).href}</script>"
"""Script without which a browser first looks for the server below the page's own address, and gets 404 twice."""
ROLES = ("coordinator", "analyst")
"""Roles that are a word in the file; the third is a site, `{ site = "NAME" }`."""
VIEWER = "viewer"
"""Key of the viewer in a session."""
ROLE_WORDS = {"coordinator": "coordinator: all", "analyst": "analyst: all results", "site": "reader of {site}"}


@dataclass(frozen=True)
class Roles:
    """File of roles.

    Attributes
    ----------
    people : mapping of e-mail address to role
        A line a person: `"coordinator"` sees all, `"analyst"` all results, `{ site = "NAME" }` the results that people
        of one site may see. Addresses ignore case. Example: `people."ana@clinic.example" = "analyst"`.
    verified_only : bool
        Whether the login provider must confirm the address as verified; false is for providers that do not report it.
    """

    people: Mapping[str, Any] = field(default_factory=dict)
    verified_only: bool = True


def roles_file() -> Path | None:
    """Return the file of roles: that of `FLFED_ROLES`, else `roles.toml` under `home()`.

    The result is None only where it is certain that there is no such file.

    Raises
    ------
    UsageError
        If this user has no folder for it.
    """
    configured_path = os.environ.get("FLFED_ROLES")
    if configured_path:
        return Path(configured_path)
    path = where() / "roles.toml"
    return path if _may_be(path) else None


def _may_be(path: str | Path) -> bool:
    """Return whether a file exists, or cannot be looked for and so may exist."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def role_of(claims: Mapping[str, Any], roles: str) -> Viewer:
    r"""Return the viewer for a person's login claims.

    Parameters
    ----------
    claims : mapping
        The provider's claims about the person: `email`, `email_verified`, `name`.
    roles : str
        TOML, with the keys of `Roles`.

    Raises
    ------
    UsageError
        If the file cannot be read or has a person twice, the address is not verified, or the person is not in it.

    Examples
    --------
    >>> role_of({"email": "Ana@Clinic.example", "email_verified": True}, '[people]\n"ana@clinic.example" = "analyst"')
    Viewer(role='analyst', site=None, name='Ana@Clinic.example')
    """
    role_file, lines = _roles_in(roles)
    # Addresses that differ only in case are one person, who must not have two roles.
    people = dict(lines)
    if len(people) < len(lines):
        raise UsageError("the file of roles has two lines for one person: nobody is let in")
    address = str(claims.get("email") or "")
    if role_file.verified_only is not False and claims.get("email_verified") is not True:
        raise UsageError("your login provider does not say that your e-mail address is verified")
    # A person without an address must not match a line with an empty one.
    role = people.get(_same(address)) if address else None
    if role is None:
        who = address or "you"
        raise UsageError(f"{who} may not see these pages: ask the coordinator to add you to the file of roles")
    viewer = _viewer(role, address)
    if viewer is None:
        raise UsageError(f'the role of {address} must be "coordinator", "analyst" or {{ site = "NAME" }}')
    return viewer


def _roles_in(text: str) -> tuple[Roles, list[tuple[str, Any]]]:
    """Return the file of roles, and its lines: an address in its form for comparison, and its role."""
    try:
        table = parse_toml(text, "the file of roles")
        role_file = Roles(**{one.name: table[kebab(one.name)] for one in fields(Roles) if kebab(one.name) in table})
        lines = [(_same(address), role) for address, role in role_file.people.items()]
    except (UsageError, AttributeError):
        raise UsageError("the file of roles is not TOML with a table [people]: nobody is let in") from None
    return role_file, lines


def _viewer(role: Any, address: str) -> Viewer | None:
    """Return the viewer of a role, None of an unknown role."""
    if role in ROLES:
        return Viewer(role=role, name=address)
    if isinstance(role, dict) and role.keys() == {"site"}:
        (site,) = role.values()
        if isinstance(site, str) and site:
            return Viewer(role="site", site=site, name=address)
    return None


def _same(address: str) -> str:
    """Return an address in the form for comparison: only ASCII addresses ignore case.

    In others "ß" would equal "ss", which can be another person's address.
    """
    return address.lower() if address.isascii() else address


def logs_in() -> bool:
    """Return whether people have to log in.

    They do where a login is or may be configured, or where a file of roles exists or may exist.
    """
    try:
        has_login = _login_is_unread() or (st.secrets.load_if_toml_exists() and bool(st.secrets.get("auth")))
        return has_login or roles_file() is not None
    except UsageError:
        return True


def needs_login() -> bool:
    """Return whether this viewer has to log in.

    They do where people log in, or where they came without the token, while logging in was required.
    """
    token = os.environ.get(APP_TOKEN, "")
    # Without a token in the environment every viewer counts as having the token.
    came = not token or is_it(st.context.cookies.get(cookie_of(st.get_option("server.port"))), token)
    return logs_in() or "is_logged_in" in st.user or not came


def _login_is_unread() -> bool:
    """Return whether a login file cannot be read."""
    # Streamlit skips a file that it cannot parse, and then lets everybody in.
    try:
        return any(map(_may_be, st.get_option("secrets.files"))) and not st.secrets.load_if_toml_exists()
    except (OSError, UnicodeDecodeError):
        return True


def _current_viewer() -> Viewer:
    """Return the viewer by the current file of roles.

    Raises
    ------
    UsageError
        If the person is not in it, or it cannot be read.
    """
    if not needs_login():
        return Viewer()
    file = roles_file()
    try:
        roles = "" if file is None else read_text(file)
    except UsageError:
        raise UsageError("there is no file of roles that can be read: nobody is let in") from None
    return role_of(st.user.to_dict(), roles)


def admit() -> Viewer | None:
    """Return the viewer, or show a login page or a refusal and return None.

    Without a login the viewer is a person on this machine, who may see all of the store.
    """
    if not needs_login():
        return Viewer()
    unread = _login_is_unread()
    # A login that cannot be read must let nobody in, rather than everybody.
    if unread or "is_logged_in" not in st.user:
        st.title("Log in")
        st.error(render("pages.access.unread" if unread else "pages.access.unset"))
        return None
    if not st.user.is_logged_in:
        st.title("Log in")
        st.markdown(render("pages.access.login"))
        st.button("Log in", on_click=st.login, type="primary")
        return None
    try:
        person = _current_viewer()
    except UsageError as error:
        why = str(error)
        st.title("Not for you")
        st.error(escape(f"{why[0].upper()}{why[1:]}."))
        # They can log in as somebody else.
        st.button("Log out", on_click=st.logout)
        return None
    with st.sidebar:
        st.caption(escape(f"{person.name}, {ROLE_WORDS[person.role].format(site=person.site)}"))
        st.button("Log out", on_click=st.logout)
    return person


def viewer() -> Viewer:
    """Return the viewer by the current file of roles; a change reloads the whole page.

    A page that runs without the app's frame, which admits people, shows nothing.
    """
    session_viewer = st.session_state.get(VIEWER)
    # The frame of the app admits people, and keeps the viewer in the session.
    if not isinstance(session_viewer, Viewer):
        if needs_login():
            st.stop()
        return Viewer()
    # A role that was changed or removed since the last refresh takes effect at once.
    try:
        changed = _current_viewer() != session_viewer
    except UsageError:
        changed = True
    if changed:
        del st.session_state[VIEWER]
        st.rerun()
    return session_viewer


NAME = "token"
"""Parameter of the token in the app's address."""
ONWARD = f"""<!doctype html><title>flfed</title><script>
const here = new URL(location.href); here.searchParams.delete("{NAME}"); location.replace(here)
</script>"""
"""Page that leads to the same address without the token. A redirect would not do: a browser that comes from a file
sends a strict cookie only to an address that a page of the app itself links to."""
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class OnlyWithToken:
    """Middleware that refuses requests and websockets without the token.

    The token is in a cookie, at first in the address.

    Parameters
    ----------
    app : ASGI application
    guard : Guard
        Where its token is empty, nothing is shown to anybody.

    Guarantee: nobody without the token, other accounts of this machine included, gets a page, file or websocket of
    the app. Everybody who can read the token (root, and the account that runs the app) gets them.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on to the app."""
        if scope["type"] == "lifespan" or self._guard.logs_in():
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        cookie = cookie_of(scope["server"][1])
        # The token moves from the address into a cookie, where no history or log keeps it.
        if scope["type"] == "http" and scope["method"] == "GET" and self._is_it(request.query_params.get(NAME)):
            answer: Response = HTMLResponse(ONWARD, headers=HEADERS)
            answer.set_cookie(cookie, self._guard.token, path="/", httponly=True, samesite="strict")
            await answer(scope, receive, send)
        elif self._is_it(request.cookies.get(cookie)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
        else:
            answer = PlainTextResponse(self._guard.closed, 403, HEADERS)
            await answer(scope, receive, send)

    def _is_it(self, token: str | None) -> bool:
        return is_it(token, self._guard.token)


def cookie_of(port: int) -> str:
    """Return the name of the token's cookie; it has the port, as all ports of a host share their cookies."""
    return f"flfed-{port}"


def is_it(candidate: str | None, token: str) -> bool:
    """Return whether a text is the token, in a time that reveals nothing of the token."""
    return bool(token and candidate) and hmac.compare_digest(str(candidate).encode(), token.encode())


@dataclass(frozen=True)
class Guard:
    """Access rules of one app, and the message with its address.

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
        """Token of this process, "" where the app's command did not start it."""
        return os.environ.get(self.variable, "")

    @property
    def closed(self) -> str:
        """Message to visitors without the token."""
        if not self.token:
            return render("pages.access.closed", command=self.command) + "\n"
        return render("pages.access.token", command=self.command.removesuffix(" NAME")) + "\n"

    def middleware(self) -> Middleware:
        """Return the middleware that stands before the app."""
        return Middleware(OnlyWithToken, guard=self)

    @asynccontextmanager
    async def announced(self, _: App) -> AsyncIterator[None]:
        """Print the app's address while it is served, and open it in a browser unless the app runs headless."""
        self.load()
        logs_in = self.logs_in()
        address = served_at() if logs_in else f"{served_at()}/?{NAME}={self.token}"
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
            opens_browser(page.as_uri())
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


def served_at() -> str:
    """Return the address on this machine of the app that this process serves."""
    return get_url(get_display_address(config.get_option("server.address") or "localhost"))


def opens_browser(address: str) -> None:
    """Open an address in a browser's window unless the app runs headless; Streamlit does not do so for an `App`."""
    if not config.get_option("server.headless"):
        cli_util.open_browser(address)


def load_pages() -> None:
    """Load all modules of the pages, and the list of runs, so that the first reader does not wait for them."""
    for file in page_files().values():
        import_module(f"{pages.__name__}.{file.stem}")
    # Imported here: it declares cached functions, which brings a warning before Streamlit runs.
    from flfed.records.dashboard.refresh import read_list_ahead

    read_list_ahead()
