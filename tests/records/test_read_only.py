"""Who looks cannot write, whether a writer is at work or not; stores that cannot be read are explained."""

import grp
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from flfed.errors import UsageError
from flfed.records.dashboard import page_files
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from tests.another_account import NOBODY, account
from tests.browser import opened, served

ROOT = Path(__file__).parents[2]
READ = """
import json, sys
from flfed.records.store.reader import RunReader
from flfed.records.reports.report import report
with RunReader.open() as reader:
    print(json.dumps(report(reader, sys.argv[1])["global"]["roc_auc_score"]["value"]))
"""
WRITE = """
import sys
from flfed.errors import FlfedError
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
try:
    with RunStore.open() as store:
        store.added_to(sys.argv[1]).summary("x", {})
except FlfedError as error:
    print(error)
    sys.exit(2)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


@pytest.fixture
def url() -> Iterator[str]:
    """Of a store in a folder of its own: pytest closes its folders to other accounts whenever it starts."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/runs.db"


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch, heart: str, url: str) -> Path:
    """The folder of a store that the group of `nobody` may read, and only its owner may write."""
    monkeypatch.setenv("FLFED_STORE_GROUP", grp.getgrgid(NOBODY).gr_name)
    RunStore.open(url).close()
    folder = Path(url.removeprefix("sqlite:///")).parent
    folder.chmod(0o755)
    return folder


def as_nobody(code: str, run: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | given_to_nobody(folder) | more
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*account(NOBODY), sys.executable, "-c", code, run]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", timeout=60)


def given_to_nobody(folder: Path) -> dict[str, str]:
    return {"FLFED_STORE": f"sqlite:///{folder}/runs.db", "FLFED_HOME": "/nonexistent", "HOME": "/nonexistent"}


@pytest.mark.servers
@needs_root
@pytest.mark.parametrize("writer_at_work", [True, False])
def test_another_account_reads_and_cannot_write(readable, store, heart, writer_at_work):
    if not writer_at_work:
        store.close()
    read = as_nobody(READ, heart, readable)
    assert (read.stdout.strip(), read.returncode) == ("0.896", 0), read.stderr
    written = as_nobody(WRITE, heart, readable)
    assert written.returncode == 2, written.stderr
    assert "could not be" in written.stdout
    with RunStore.open(f"sqlite:///{readable}/runs.db"), sqlite3.connect(readable / "runs.db") as own:
        assert own.execute("SELECT count(*) FROM summary WHERE name = 'x'").fetchone() == (0,)


@pytest.mark.servers
@needs_root
@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_another_account_reads_nothing_where_no_group_is_named(url, heart, mask):
    """Of a store of an earlier version neither, whose files everybody may read."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    folder.chmod(0o755)
    for path in folder.glob("runs.db*"):
        path.chmod(0o666)
    before = os.umask(mask)
    try:
        with RunStore.open(url) as store:
            for _ in range(2):  # with its log beside it, and without
                read = as_nobody(READ, heart, folder)
                assert (read.returncode, read.stdout) == (1, ""), read.stderr
                assert "unable to open database file" in read.stderr
                files = list(folder.glob("runs.db*"))
                assert {path.stat().st_mode & 0o777 for path in files} == {0o600}, files
                done = subprocess.run([*account(NOBODY), "head", "-c1", *files], capture_output=True, cwd="/")
                assert (done.returncode, done.stdout) == (1, b"")
                store.close()
    finally:
        os.umask(before)
    folder.chmod(0o700)
    assert (
        "only its owner may read it; to let others read it: FLFED_STORE_GROUP" in as_nobody(READ, heart, folder).stderr
    )


@needs_root
def test_the_group_must_be_one_and_the_store_not_in_the_home(url, monkeypatch):
    monkeypatch.setenv("FLFED_STORE_GROUP", "no-such-group")
    with pytest.raises(UsageError, match="there is no group 'no-such-group'"):
        RunStore.open(url)
    monkeypatch.setenv("FLFED_STORE_GROUP", "nogroup")
    with pytest.raises(UsageError, match="give it a folder of its own"):
        RunStore.open()


@needs_root
@pytest.mark.browser
def test_the_app_of_another_account_shows_the_pages(readable, store, heart):
    before = {path.name: path.read_bytes() for path in readable.iterdir() if path.suffix == ".db"}
    with served(given_to_nobody(readable), prefix=account(NOBODY)) as address, opened(address) as window:
        window.page.goto(f"{address}/?run={heart}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        for name in ("Overview", "Rounds", "Data"):
            window.turn_to(name)
            window.is_sound()
        assert any(
            text in str(frame)
            for frame in window.received
            for text in ("53.5 (9.4)", "53.5\\xa0(9.4)", "53.5\\xc2\\xa0(9.4)")
        )
    assert {path.name: path.read_bytes() for path in readable.iterdir() if path.suffix == ".db"} == before


def damaged(path: Path, how: str) -> None:
    """Make a store one that cannot be read as it should."""
    whole = path.read_bytes()
    if how == "random":
        path.write_bytes(os.urandom(20_000))
    elif how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "torn":
        path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 16384) + whole[-8192:])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE flfed_version SET number = ?", (int(how),))


@pytest.mark.browser
@pytest.mark.parametrize(("how", "says"), [
    ("random", "move the file away"), ("cut", "back-up"), ("torn", "back-up"), ("folder", "check"),
    ("0", "name another store"), ("9999", "name another store"),
])  # fmt: skip
def test_a_store_that_cannot_be_read_is_explained_on_every_page(tmp_path, store, heart, url, monkeypatch, how, says):
    store.close()
    copy = tmp_path / "copy" / "runs.db"
    copy.parent.mkdir()
    shutil.copy(url.removeprefix("sqlite:///"), copy)
    damaged(copy, how)
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{copy}")
    # The page Before you join reads no store.
    for file in [file for name, file in page_files().items() if name != "before-you-join"]:
        page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        page.switch_page(str(file))
        page.query_params["run"] = heart
        page.run()
        assert not page.exception
        assert len(page.error) == 1, (how, file.name, [error.value for error in page.error])
        assert says in page.error[0].value


def test_a_store_whose_first_writer_has_only_just_made_the_file_reads_as_empty(tmp_path):
    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    assert path.stat().st_size > 0
    with RunReader.open(f"sqlite:///{path}") as reader:
        assert len(reader.runs()) == 0
