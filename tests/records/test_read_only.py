"""Who looks cannot write, whether a writer is at work or not; stores that cannot be read are explained."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard import page_files
from flfed.records.reading import RunReader
from flfed.records.store import RunStore
from tests.browser import opened, served

ROOT = Path(__file__).parents[2]
NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
]  # fmt: skip
"""Runs a command as the account `nobody`, which may write nothing of root's; it may read, since the Python of these
tests may lie in a folder of root's own. That a plain account can read is in test_store.py."""
READ = """
import json, sys
from flfed.records.reading import RunReader
from flfed.records.reports import report
with RunReader.open() as reader:
    print(json.dumps(report(reader, sys.argv[1])["global"]["roc_auc_score"]["value"]))
"""
WRITE = """
import sys
from flfed.errors import FlfedError
from flfed.records.reading import RunReader
from flfed.records.store import RunStore
try:
    with RunStore.open() as store:
        store.added_to(sys.argv[1]).summary("x", {})
except FlfedError as error:
    print(error)
    sys.exit(2)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


@pytest.fixture
def readable(tmp_path_factory: pytest.TempPathFactory, heart: str, url: str) -> Iterator[Path]:
    """The folder of a store that anybody may read and only its owner may write."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    for place in (folder, *folder.parents):
        if place in (Path("/tmp"), Path("/")):
            break
        place.chmod(0o755)
    yield folder


def as_nobody(code: str, run: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | given_to_nobody(folder) | more
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*NOBODY, sys.executable, "-c", code, run]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", timeout=60)


def given_to_nobody(folder: Path) -> dict[str, str]:
    return {"FLFED_STORE": f"sqlite:///{folder}/runs.db", "FLFED_HOME": "/nonexistent", "HOME": "/nonexistent"}


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


@needs_root
def test_another_account_finds_the_roles_in_a_folder_that_it_may_only_read(readable, tmp_path):
    (tmp_path / "roles.toml").write_text('[people]\n"ana@clinic.example" = "analyst"\n')
    code = "from flfed.records.dashboard.people import roles_file; print(roles_file())"
    found = as_nobody(code, "", readable, FLFED_HOME=str(tmp_path))
    assert (found.stdout.strip(), found.returncode) == (str(tmp_path / "roles.toml"), 0), found.stderr
    found = as_nobody(code, "", readable)
    assert (found.stdout.strip(), found.returncode) == ("None", 0), found.stderr


@needs_root
@pytest.mark.slow
def test_the_app_of_another_account_shows_the_pages(readable, store, heart):
    before = {path.name: path.read_bytes() for path in readable.iterdir() if path.suffix == ".db"}
    with served(given_to_nobody(readable), prefix=NOBODY) as address, opened(address) as window:
        window.page.goto(f"{address}/?run={heart}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        for name in ("Overview", "Rounds", "Data"):
            window.turn_to(name)
            window.is_sound()
        assert "53.5 (9.4)" in "".join(str(frame) for frame in window.received)
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
            connection.execute("UPDATE alembic_version SET version_num = ?", (how,))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("random", "move the file away"),
        ("cut", "back-up"),
        ("torn", "back-up"),
        ("folder", "check"),
        ("m0000", "update"),
        ("m9999", "update flfed"),
    ],
)
def test_a_store_that_cannot_be_read_is_explained_on_every_page(tmp_path, store, heart, url, monkeypatch, how, says):
    store.close()
    copy = tmp_path / "copy" / "runs.db"
    copy.parent.mkdir()
    shutil.copy(url.removeprefix("sqlite:///"), copy)
    damaged(copy, how)
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{copy}")
    for file in page_files().values():
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
