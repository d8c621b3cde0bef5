"""`flfed app`: it is served, and a browser is opened where there is a screen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.browser import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("options", "screen", "opens"), [([], ":0", True), ([], "", False), (["--headless"], ":0", False)]
)
def test_a_browser_is_opened_where_there_is_a_screen(tmp_path: Path, options: list[str], screen: str, opens: bool):
    given, port = tmp_path / "given", free_port()
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\necho "$1" > {given}\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DISPLAY": screen, "WAYLAND_DISPLAY": ""}
    command = [sys.executable, "-c", "from flfed.cli import main; main()", "app", "--port", str(port), *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)  # the browser is started before the first request is answered
        assert (given.read_text().strip() if given.exists() else "") == (f"http://127.0.0.1:{port}" if opens else "")
    finally:
        process.terminate()
        process.wait(20)
