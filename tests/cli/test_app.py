"""The two apps start without a false alarm or say why not; `flfed app` is served below a path, a browser is opened."""

import errno
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flfed.cli import dashboard as page
from flfed.errors import UsageError
from flfed.records.dashboard import page_files
from flfed.records.dashboard.access import cookie_of
from tests.browser import Served, free_port, opened

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(120)]


FLFED = [sys.executable, "-c", "from flfed.cli import main; main()"]
APPS = pytest.mark.parametrize("words", [["app"], ["site", "app", "kentucky-clinic"]], ids=["app", "site app"])


@contextmanager
def app(
    *options: str, said: Path, words: Sequence[str] = ("app",), base: str = "", **environment: str
) -> Iterator[Served]:
    """Serve an app while the block runs, and give its address; what it prints goes to the file `said`."""
    address = Served(f"http://127.0.0.1:{(port := free_port())}")
    command = [*FLFED, *words, "--port", str(port), *options]
    with said.open("w") as out:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{address}{base}/_stcore/health", timeout=1).close()
                break
            except urllib.error.HTTPError:
                break  # it is served, to who has the token
            except OSError:
                time.sleep(0.1)
        token = said.read_text().partition(f"Open {address}{base}/?token=")[2].split()[0]
        assert len(token) >= 43  # 256 bits
        address.pid, address.cookie = process.pid, (cookie_of(port), token)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(
    ("options", "screen", "opens"), [([], ":0", True), ([], "", False), (["--headless"], ":0", False)]
)
def test_a_browser_is_opened_where_there_is_a_screen(tmp_path: Path, options: list[str], screen: str, opens: bool):
    given = tmp_path / "given"
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\necho "$1" > {given}\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DISPLAY": screen, "WAYLAND_DISPLAY": ""}
    with app(*options, said=tmp_path / "said", **environment) as address:
        time.sleep(0.5)  # the browser is started before the first request is answered
        assert given.exists() == opens
        if opens:
            page = Path(given.read_text().strip().removeprefix("file://"))
            assert f"{address}/?token={address.cookie[1]}" in page.read_text()
            assert page.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.proof
def test_below_a_path_every_page_opens_at_its_own_address(tmp_path: Path):
    first, second, *_ = page_files()
    below = {"base": "/a/b", "STREAMLIT_SERVER_BASE_URL_PATH": "/a/b/", "said": tmp_path / "said"}
    with app("--headless", **below) as address, opened(address) as window:
        for name, own in (("", ""), (first, ""), (second, second)):
            window.page.goto(f"{address}/a/b/{name}?x=1")
            window.page.locator("h1").first.wait_for()
            window.drawn()
            window.is_sound()
            assert window.page.url == f"{address}/a/b/{own}?x=1"


@APPS
def test_the_start_prints_the_address_and_no_warning(tmp_path: Path, words: list[str]):
    said = tmp_path / "said"
    with app("--headless", words=words, said=said) as address, opened(str(address)) as window:
        window.page.goto(said.read_text().split("Open ", 1)[-1].strip())
        window.page.locator("h1").first.wait_for()
        window.drawn()  # the pages are loaded
    assert said.read_text() == f"Open {address}/?token={address.cookie[1]}\n"


@APPS
def test_a_port_in_use_is_said_with_a_port_that_is_free(words: list[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*FLFED, *words, "--port", str(port), "--headless"], capture_output=True, text=True, check=False, timeout=60
        )
    said = f"flfed: port {port} is in use: flfed {' '.join(words)} --port "
    assert (done.returncode, done.stdout, done.stderr[: len(said)]) == (2, "", said)
    other = int(done.stderr[len(said) :])
    assert other != port
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", other))


def test_a_port_that_this_user_may_not_open_is_not_said_to_be_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tried = []

    def bind(_: socket.socket, where: tuple[str, int]) -> None:
        tried.append(where)
        if where[1] < 1024:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", bind)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("it is served all the same"))
    with pytest.raises(UsageError, match=r"^port 80 cannot be used \(Permission denied\): flfed app --port 1024$"):
        page.run(tmp_path / "app.py", "flfed app", port=80, headless=True)
    assert {address for address, _ in tried} == {"127.0.0.1"}  # where it is served
