"""The app served on loopback, and a real browser that looks at it and writes down what goes wrong."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flfed.records.dashboard import APP_TOKEN
from flfed.records.dashboard.access import cookie_of

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "of-the-apps-in-tests"
CHROMIUM = Path("/usr/bin/chromium")
CHARTS = "[data-testid=stVegaLiteChart]"
KINDS = ("line path", "symbol path", "rect path", "rule line", "area path")
MARKS = f"""[...document.querySelectorAll('{CHARTS}')].map(
  chart => chart.querySelectorAll('{", ".join(f"svg .mark-{kind}" for kind in KINDS)}').length)"""
"""How many marks each chart of the page has."""
STANDS = f"""([charts, still]) => {{
  const app = document.querySelector('[data-testid=stApp]'), main = document.querySelector('[data-testid=stMain]');
  const runs = app?.dataset.testScriptState !== 'notRunning' || app?.dataset.testConnectionState !== 'CONNECTED';
  const awaited = document.querySelectorAll('[data-testid=stSkeleton], [data-testid=stAppSkeleton]').length;
  const marks = {MARKS};
  const ready = main && !runs && !awaited && !marks.includes(0) && (charts === null || marks.length === charts);
  const now = main && [marks, awaited, main.querySelectorAll('*').length, main.scrollHeight, main.clientWidth].join();
  if (now !== window.stoodAs) [window.stoodAs, window.stoodSince] = [now, performance.now()];
  return ready && performance.now() - window.stoodSince >= still;
}}"""
"""Whether nothing runs, no part is still to come, each chart has marks, and the page has been as it is for a while."""
STILL_MILLISECONDS = 250


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
    return found


class Served(str):
    """The address of an app that is served, with the number of its process and the cookie that its token gives."""

    pid: int
    cookie: tuple[str, str]


@contextmanager
def served(
    environment: Mapping[str, str],
    *,
    script: Path = ROOT / "app.py",
    options: Mapping[str, str] = {},
    prefix: Sequence[str] = (),
    port: int | None = None,
) -> Iterator[Served]:
    """Serve an app on a free port, unless `port` is given, while the block runs, and give its address."""
    port = port or free_port()
    given = {"--server.port": str(port), "--server.fileWatcherType": "none", **(options or {})}
    command = [*prefix, sys.executable, "-m", "streamlit", "run", str(script)]
    command += [word for pair in given.items() for word in pair]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), APP_TOKEN: TOKEN, **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = Served(f"http://127.0.0.1:{port}")
    address.pid, address.cookie = process.pid, (cookie_of(port), TOKEN)
    health = urllib.request.Request(f"{address}/_stcore/health", headers={"Cookie": "=".join(address.cookie)})
    try:
        for _ in range(1800):
            assert process.poll() is None, f"the app ended ({process.returncode})"
            try:
                urllib.request.urlopen(health, timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@dataclass
class Window:
    """A browser's page, and what went wrong on it so far.

    Attributes
    ----------
    page : playwright's page
    address : str
    errors : list of str
        What the console and the page's scripts complained of.
    hosts : set of str
        Whom the page asked for anything.
    answers : list of float
        When the server sent something.
    received : list of bytes or str
        What it sent.
    """

    page: Any
    address: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    answers: list[float] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)

    def drawn(self, charts: int | None = None) -> None:
        """Wait until the page stands: the script ended, and each chart is drawn; `charts` of them where given."""
        self.page.evaluate("window.stoodAs = null")
        self.page.wait_for_function(STANDS, arg=[charts, STILL_MILLISECONDS], polling=50, timeout=120_000)

    def turn_to(self, name: str) -> None:
        """Turn to a page by its link in the margin, as a reader does, and wait until it stands."""
        from playwright.sync_api import TimeoutError as TooLate

        margin = self.page.get_by_test_id("stSidebar")
        margin.wait_for(state="attached")
        unfold = self.page.get_by_test_id("stExpandSidebarButton")
        folded = unfold.is_visible()
        if folded:  # on a narrow screen
            # A window that was made wide again just now unfolds it by itself.
            try:
                unfold.click(timeout=5_000)
                self.page.wait_for_timeout(500)
            except TooLate:
                folded = unfold.is_visible()
        link = margin.get_by_role("link", name=name, exact=True)
        path, before = link.evaluate("link => new URL(link.href).pathname"), self.page.evaluate("location.pathname")
        link.click()
        if path == before:
            self.page.wait_for_timeout(200)  # nothing tells that the page that is open begins anew
        else:
            self.page.wait_for_function("path => location.pathname === path", arg=path)
        if folded and margin.bounding_box()["x"] >= 0:
            margin.hover()
            margin.get_by_test_id("stSidebarCollapseButton").locator("button").click()
            self.page.wait_for_timeout(500)
        self.page.locator("h1").first.wait_for()
        self.drawn()

    def picture(self, name: str, *, whole: bool = False) -> Path:
        """Keep a picture of the page in `artefacts/`, where people look at it."""
        path = ROOT / "artefacts" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size
        if whole:
            height = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
            self.page.set_viewport_size({"width": size["width"], "height": height + 50})
            self.page.wait_for_timeout(400)
        self.page.screenshot(path=path)
        if whole:
            self.page.set_viewport_size(size)
        return path

    def is_sound(self) -> None:
        """Assert that nothing went wrong so far, nothing was asked of another host, and nothing sticks out."""
        assert self.page.locator("[data-testid=stException]").count() == 0
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.page.viewport_size["width"]
        main = "(m => m.scrollWidth - m.clientWidth)(document.querySelector('[data-testid=stMain]'))"
        assert self.page.evaluate(main) <= 0
        assert self.errors == []
        assert self.hosts - {""} == {self.address.removeprefix("http://")}

    def marks(self) -> list[int]:
        """Return how many marks each chart of the page has."""
        found: list[int] = self.page.evaluate(MARKS)
        return found


@contextmanager
def opened(address: str, *, width: int = 1280, height: int = 1000, scheme: str = "light") -> Iterator[Window]:
    """Open the app in a browser of its own while the block runs; one that came with its token, where it is `Served`."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        if isinstance(address, Served):
            name, value = address.cookie
            page.context.add_cookies([{"name": name, "value": value, "url": str(address)}])
        page.set_default_timeout(120_000)  # of what never comes: on a busy machine it comes late
        window = Window(page, address)
        page.on("console", lambda said: window.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: window.errors.append(str(error)))
        page.on("request", lambda request: window.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: _note(window, frame)))
        yield window
        browser.close()


def _note(window: Window, frame: Any) -> None:
    window.answers.append(time.time())
    window.received.append(frame)


def status_of(address: str, **headers: str) -> tuple[int, str]:
    """Return what an HTTP server answers: its status and its words."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def socket_status_of(address: str, **headers: str) -> int:
    """Return how a server answers who would open a websocket: 101 where it is opened."""
    try:
        with connect(address.replace("http", "ws", 1), additional_headers=headers, subprotocols=["streamlit"]):
            return 101
    except InvalidStatus as error:
        return error.response.status_code
