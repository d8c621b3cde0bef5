"""What the server of an app answers before Streamlit does: its pages' addresses, with where their server is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from streamlit import file_util

TOLD = "<script>window.__streamlit = {BACKEND_BASE_URL: new URL('.', location.href).href}</script>"
"""Without it a browser first looks for the server below the page's own address, and is told 404 twice."""


def page_routes(names: Sequence[str]) -> list[Route]:
    """Return the routes of `/NAME` for each page: Streamlit's own page, told where its server is.

    The first page's address is that of the app, where its name leads to as well.
    """
    shell = Path(file_util.get_static_dir(), "index.html").read_text(encoding="utf-8")
    told = shell.replace("<head>", f"<head>{TOLD}", 1)

    def page(_: Request) -> Response:
        return HTMLResponse(told, headers={"Cache-Control": "no-cache"})

    def first(request: Request) -> Response:
        return RedirectResponse(f"./?{request.url.query}".removesuffix("?"))

    return [Route(f"/{name}", page if place else first) for place, name in enumerate(names)]
