"""`flfed app`: it is served, below a path as well, and a browser is opened where there is a screen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flfed.records.dashboard import page_files
from tests.browser import free_port, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@contextmanager
def app(*options: str, base: str = "", **environment: str) -> Iterator[str]:
    """Serve the app while the block runs, and give its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-c", "from flfed.cli import main; main()", "app", "--port", str(port), *options]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}{base}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    ("options", "screen", "opens"), [([], ":0", True), ([], "", False), (["--headless"], ":0", False)]
)
def test_a_browser_is_opened_where_there_is_a_screen(tmp_path: Path, options: list[str], screen: str, opens: bool):
    given = tmp_path / "given"
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\necho "$1" > {given}\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DISPLAY": screen, "WAYLAND_DISPLAY": ""}
    with app(*options, **environment) as address:
        time.sleep(0.5)  # the browser is started before the first request is answered
        assert (given.read_text().strip() if given.exists() else "") == (address if opens else "")


def test_below_a_path_every_page_opens_at_its_own_address():
    first, second, *_ = page_files()
    with app("--headless", base="/a/b", STREAMLIT_SERVER_BASE_URL_PATH="/a/b/") as address, opened(address) as window:
        for name, own in (("", ""), (first, ""), (second, second)):
            window.page.goto(f"{address}/a/b/{name}?x=1")
            window.page.locator("h1").first.wait_for()
            window.drawn()
            window.is_sound()
            assert window.page.url == f"{address}/a/b/{own}?x=1"
