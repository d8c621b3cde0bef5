"""What the server of an app does besides Streamlit: its pages' addresses, and a browser's window at its start."""

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

TOLD = "<script>window.__streamlit = {BACKEND_BASE_URL: new URL('.', location.href).href}</script>"
"""Without it a browser first looks for the server below the page's own address, and is told 404 twice."""


def page_routes(names: Sequence[str]) -> list[Route]:
    """Return the routes of `/NAME` for each page: Streamlit's own page, told where its server is.

    They begin with `server.baseUrlPath`, as Streamlit's own do. The first page's address is that of the app, where its
    name leads to as well.
    """
    shell = Path(file_util.get_static_dir(), "index.html").read_text(encoding="utf-8")
    told = shell.replace("<head>", f"<head>{TOLD}", 1)

    def page(_: Request) -> Response:
        return HTMLResponse(told, headers={"Cache-Control": "no-cache"})

    def first(request: Request) -> Response:
        return RedirectResponse(f"./?{request.url.query}".removesuffix("?"))

    base = config.get_option("server.baseUrlPath")
    return [Route(make_url_path(base, name), page if place else first) for place, name in enumerate(names)]


def served_at() -> str:
    """Return the address of the app that this process serves, as this machine has it."""
    return get_url(get_display_address(config.get_option("server.address") or "localhost"))


def opens_browser(address: str) -> None:
    """Open an address in a browser's window, unless the app runs headless: Streamlit does so for no `App`."""
    if not config.get_option("server.headless"):
        cli_util.open_browser(address)


def load_pages() -> None:
    """Load all that the pages need, so that the first one that somebody opens does not wait for it."""
    for file in page_files().values():
        import_module(f"{pages.__name__}.{file.stem}")
