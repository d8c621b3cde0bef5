"""Additions to Streamlit's server for an app: its pages' addresses, and a browser's window at its start."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from streamlit import cli_util, config, file_util
from streamlit.url_util import make_url_path
from streamlit.web.server.server_util import get_display_address, get_url

from flfed.records.dashboard import page_files, pages

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


def served_at() -> str:
    """Return the address on this machine of the app that this process serves."""
    return get_url(get_display_address(config.get_option("server.address") or "localhost"))


def opens_browser(address: str) -> None:
    """Open an address in a browser's window unless the app runs headless; Streamlit does not do so for an `App`."""
    if not config.get_option("server.headless"):
        cli_util.open_browser(address)


def load_pages() -> None:
    """Load all modules of the pages, so that the first reader does not wait for them."""
    for file in page_files().values():
        import_module(f"{pages.__name__}.{file.stem}")
