"""The app of a site's own people as its command serves it: to whom has the token, in a real browser, to no other."""

import asyncio
import csv
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from streamlit import cli_util, config

from flfed.deployment import site_app
from flfed.deployment.site_app import TOKEN, make_guard
from flfed.records.ledger import ledger_of
from flfed.study.study import Study
from tests.accessibility import faults_on_every_screen
from tests.browser import ROOT, Window, free_port, opened, socket_status_of, status_of
from tests.records import eyes

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(120)]
APP = Path(site_app.__file__).with_name("app.py")
PAGES = [name.capitalize() for name in site_app.page_files()]
COMMAND = [sys.executable, "-c", "from flfed.cli import main; main()", "site", "app", "site-01"]


@contextmanager
def started(command: Sequence[str] = COMMAND, **environment: str) -> Iterator[tuple[str, list[str]]]:
    """Serve the app while the block runs; give what it prints for its address, and what it printed before."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    before: list[str] = []
    try:
        for line in process.stdout:
            if line.startswith(("Open ", "Nothing ")):
                break
            before.append(line)
        yield line.strip(), before
    finally:
        process.terminate()
        assert process.stdout.read() == ""  # that line was the last
        process.stdout.close()
        process.wait(60)


def command_of(port: int) -> list[str]:
    return [*COMMAND, "--port", str(port)]


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A folder with a browser that keeps what it was given, and a copy of the file that it leads to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "xdg-open"
    program.write_text(f'#!/bin/sh\ncp "${{1#file://}}" {folder}/copy.html; echo "$1" > {folder}/given\n')
    program.chmod(0o755)
    return folder


def screen(browser: Path) -> dict[str, str]:
    """Return an environment in which a browser would open, of a user whose home is empty."""
    (browser / "user").mkdir()
    return {"DISPLAY": ":0", "PATH": f"{browser}:{os.environ['PATH']}", "HOME": str(browser / "user")}


def address_in(said: str) -> str:
    """Return the address in what the app prints where a browser would open."""
    assert said.startswith("Open ") and said.endswith(" by hand if the browser does not open it")
    return said.split()[1]


def given_to(browser: Path) -> str:
    """Return the address that the browser was given."""
    for _ in range(600):
        if (browser / "given").exists() and (browser / "given").read_text().endswith("\n"):
            break
        time.sleep(0.1)
    return (browser / "given").read_text().strip()


@contextmanager
def as_another_account() -> Iterator[None]:
    """Connect as `nobody` where this user can."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_nothing_is_shown_without_the_token_to_any_account(ran: Any, browser: Path):
    port = free_port()
    with started(command_of(port), **screen(browser)) as (said, before):
        address = address_in(said)
        base, _, token = address.partition("/?token=")
        assert before == [] and base == f"http://127.0.0.1:{port}" and len(token) >= 43  # 256 bits
        cookie, wrong = f"flfed-{port}", token[:-1] + ("A" if token[-1] != "A" else "B")
        with as_another_account():
            for path in ("", "ledger", "_stcore/health", "_stcore/host-config", "media/x.csv", f"?token={wrong}"):
                status, said = status_of(f"{base}/{path}")
                assert status == 403 and "the address that `flfed site app` printed" in said
            for name, value in ((cookie, wrong), (cookie, ""), (f"{cookie}0", token)):
                assert status_of(f"{base}/", Cookie=f"{name}={value}")[0] == 403
            for rest in ("", "?token=", f"?token={wrong}"):
                assert socket_status_of(f"{base}/_stcore/stream{rest}") == 403
        processes = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
        assert "site_app/app.py" in processes and token not in processes  # every account sees command lines
        assert "--client.showErrorDetails none" in processes
        with urllib.request.urlopen(address, timeout=10) as answer:
            given = answer.headers["Set-Cookie"]
        assert given == f"{cookie}={token}; HttpOnly; Path=/; SameSite=strict"
        assert status_of(f"{base}/_stcore/health", Cookie=f"{cookie}={token}") == (200, "ok")
        assert socket_status_of(f"{base}/_stcore/stream", Cookie=f"{cookie}={token}") == 101
        page = Path(given_to(browser).removeprefix("file://"))
        assert address in (browser / "copy.html").read_text()
        assert page.parent.stat().st_mode & 0o777 == 0o700
        # A browser from a snap sees neither /tmp nor what is hidden.
        assert page.parent.parent == browser / "user" and not page.parent.name.startswith(".")
    assert list((browser / "user").iterdir()) == []


@pytest.mark.parametrize("home_of_user", [".", "user", None])
def test_the_file_for_the_browser_is_a_temporary_one_where_the_home_is_flfeds_own_or_not_there(
    home: Path, home_of_user: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, given = tmp_path / "absent" if home_of_user is None else home / home_of_user, []
    (home / "user").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(cli_util, "open_browser", given.append)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv(TOKEN, "secret")
    before = config.get_option("server.headless")

    async def serve() -> list[Path]:
        async with make_guard().announced(None):  # type: ignore[arg-type]  # - it is not looked at
            assert [path.name for path in home.iterdir()] == ["user"] and not list((home / "user").iterdir())
            return [path.parent.parent for path in (tmp_path / "temporary").rglob("open.html")]

    try:
        config.set_option("server.headless", False)
        assert asyncio.run(serve()) == [tmp_path / "temporary"] and len(given) == 1
        config.set_option("server.headless", True)
        assert asyncio.run(serve()) == [] and len(given) == 1  # no browser, no file
    finally:
        config.set_option("server.headless", before)


def test_without_its_command_the_app_shows_nothing(ran: Any):
    port = free_port()
    options = ["--server.port", str(port), "--server.headless", "true"]
    with started([sys.executable, "-m", "streamlit", "run", str(APP), *options]) as (said, _):
        assert said == "Nothing is shown: start the app with `flfed site app NAME`, which prints its address."
        for rest in ("", "?token="):
            assert status_of(f"http://127.0.0.1:{port}/{rest}") == (403, f"{said}\n")
            assert socket_status_of(f"http://127.0.0.1:{port}/_stcore/stream{rest}") == 403
        assert status_of(f"http://127.0.0.1:{port}/", Cookie=f"flfed-{port}=")[0] == 403


def downloaded(window: Window) -> Any:
    """Return the file of the page's last button, whatever looks at the ledger come between."""
    window.drawn()
    with window.page.expect_download() as kept:
        window.page.get_by_role("button", name="Download as CSV").last.click()
    return kept.value


def walk(window: Window) -> None:
    """Look at every page, narrow and in the dark: each must be sound, and its charts whole and not empty."""
    for place, name in enumerate(PAGES):
        window.turn_to(name) if place else window.drawn()  # it opens at the first
        assert eyes.looked_at(window, widths=eyes.NARROW) == []
        window.page.wait_for_function(
            "document.querySelector('[data-testid=stSidebar]').getBoundingClientRect().x >= 0"
        )
        assert 0 not in window.marks(), (name, window.marks())
        assert len(window.marks()) == {"Ledger": 1, "Results": 1}.get(name, 0)


def waiting(site: Any) -> None:
    """Have requests of a study refused that nobody here decided on."""
    study = Study.parse(site.study.text.replace('name = "small"', 'name = "second"', 1))
    for _ in range(3):
        site.gate.answer(site.trained(), site.context(study=study.text))


def test_the_first_page_has_no_fault_and_says_what_waits(ran: Any, browser: Path):
    waiting(ran[0])
    with started(command_of(free_port()), **screen(browser)) as (said, _), opened(address_in(said)) as window:
        window.page.goto(given_to(browser))
        window.page.get_by_text("Yes: 1 matter for people here.").wait_for()
        window.drawn()
        assert faults_on_every_screen(window, widths=(390,)) == []


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_no_page_has_a_fault_on_any_screen_in_either_theme(ran: Any, browser: Path):
    waiting(ran[0])
    with started(command_of(free_port()), **screen(browser)) as (said, _), opened(address_in(said)) as window:
        window.page.goto(given_to(browser))
        window.page.locator("h1").first.wait_for()
        faults = []
        for place, name in enumerate(PAGES):
            window.turn_to(name) if place else window.drawn()
            for folded in window.page.get_by_test_id("stExpander").locator("summary").all():
                folded.click()
                window.drawn()
            faults += [f"{name}: {fault}" for fault in faults_on_every_screen(window, f"site-app/{name.lower()}")]
        assert faults == []


@pytest.mark.proof
def test_with_the_token_every_page_is_sound_and_a_new_line_shows_by_itself(ran: Any, browser: Path, tmp_path: Path):
    port = free_port()
    with started(command_of(port), **screen(browser)) as (said, _), opened(f"http://127.0.0.1:{port}") as window:
        page, site = window.page, ran[0]
        page.goto(given_to(browser))  # the file that `flfed site app` has the browser open
        page.locator("h1").first.wait_for()
        assert "token" not in page.url
        walk(window)
        window.turn_to("Ledger")
        page.get_by_text(f"{len(site.lines())} lines from").wait_for()
        ledger_of(site.folder).append(kind="train", study="small", run="=cmd", round=1, bytes=4321)
        page.get_by_text(f"{len(site.lines())} lines from").wait_for()
        downloaded(window).save_as(tmp_path / "lines.csv")
        with (tmp_path / "lines.csv").open(newline="") as stream:
            first = next(csv.DictReader(stream))
        assert (first["Bytes"], first["Run"]) == ("4321", "'=cmd")
        for move in (page.reload, lambda: page.goto(f"{window.address}/budget")):
            move()
            page.locator("h1").first.wait_for()
            window.drawn()
            window.is_sound()
        assert "Privacy budget" in page.locator("h1").first.inner_text()
        another = page.context.browser.new_page()  # with no cookie of the first
        another.goto(window.address)
        assert "nothing is shown without its token" in another.content()
        another.goto(address_in(said).replace("/?", "/ledger?study=x&"))
        another.get_by_text(f"{len(site.lines())} lines from").wait_for()
        assert another.url == f"{window.address}/ledger?study=x"
