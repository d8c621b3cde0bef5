"""What can be told without a running server: Caddy's configuration, folders' modes, the removal from a database."""

import http.server
import os
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flfed.deployment.coordinator import proxy
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.serve import _write_certificate, check_private
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link, pem_of, remove_bodies
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder
from flfed.signatures import new_node_key, public_text

TABLES = """
CREATE TABLE run (run_id INTEGER UNIQUE);
CREATE TABLE message_ins (message_id TEXT UNIQUE, run_id INTEGER, content BLOB);
CREATE TABLE message_res (message_id TEXT UNIQUE, run_id INTEGER, content BLOB);
CREATE TABLE objects (object_id TEXT PRIMARY KEY, content BLOB, is_available INTEGER, ref_count INTEGER);
CREATE TABLE object_children (
    parent_id TEXT REFERENCES objects ON DELETE CASCADE, child_id TEXT REFERENCES objects ON DELETE CASCADE,
    PRIMARY KEY (parent_id, child_id));
CREATE TABLE run_objects (
    run_id INTEGER, object_id TEXT REFERENCES objects ON DELETE CASCADE, PRIMARY KEY (run_id, object_id));
CREATE TABLE object_push_sessions (session_id TEXT PRIMARY KEY, run_id INTEGER);
"""
OVER, GOING_ON = 7, 2**63 + 5
"""Flower's numbers of runs have 64 bits; the database has no unsigned ones."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A database as Flower keeps it, open as the SuperLink has it open; two runs share one object."""
    path = tmp_path / "flower.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute("PRAGMA journal_mode = WAL")
        server.executescript(TABLES)
        for run, word in ((OVER, b"OVER"), (GOING_ON - 2**64, b"GOING")):
            for name in ("child", "parent", "shared"):
                key = "shared" if name == "shared" else f"{run}-{name}"
                content = b"SHARED" * 900 if name == "shared" else word * 900
                server.execute("INSERT OR IGNORE INTO objects VALUES (?, ?, 1, 0)", (key, content))
                server.execute("INSERT INTO run_objects VALUES (?, ?)", (run, key))
            for child in (f"{run}-child", "shared"):
                server.execute("INSERT INTO object_children VALUES (?, ?)", (f"{run}-parent", child))
                server.execute("UPDATE objects SET ref_count = ref_count + 1 WHERE object_id = ?", (child,))
            for table in ("message_ins", "message_res"):
                server.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (f"{table}-{run}", run, word))
        yield path


def kept(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob("flower.db*"))


def test_what_a_finished_run_said_is_gone_from_every_file_and_another_run_keeps_its_own(database: Path):
    assert b"OVER" * 100 in kept(database)
    assert remove_bodies(database, over={OVER}) == 2
    assert b"OVER" not in kept(database)
    assert b"GOING" * 100 in kept(database) and b"SHARED" * 100 in kept(database)
    assert Path(f"{database}-wal").stat().st_size == 0
    with closing(sqlite3.connect(database)) as found:
        counts = dict(found.execute("SELECT object_id, ref_count FROM objects").fetchall())
        assert sorted(counts.values()) == [0, 1, 1]
        assert counts["shared"] == 1
        assert found.execute("SELECT count(*) FROM object_children").fetchone() == (2,)
        assert found.execute("SELECT DISTINCT run_id FROM message_res").fetchall() == [(GOING_ON - 2**64,)]
    assert remove_bodies(database, over={GOING_ON}) == 3
    assert b"GOING" not in kept(database) and b"SHARED" not in kept(database)


def test_bytes_that_flower_deleted_itself_are_gone_too(database: Path):
    with closing(sqlite3.connect(database, isolation_level=None)) as server:
        server.execute("PRAGMA foreign_keys = ON")
        server.execute("PRAGMA secure_delete = OFF")
        server.execute("DELETE FROM objects WHERE object_id LIKE '7-%'")
    assert b"OVER" * 100 in kept(database)
    assert remove_bodies(database, over={2}) == 0
    assert b"OVER" * 100 not in kept(database)


def test_a_reader_is_waited_for_and_one_that_stays_is_said(database: Path):
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM objects").fetchone()
        with pytest.raises(FlfedError, match="could not be removed") as error:
            remove_bodies(database, over={OVER, GOING_ON}, seconds=0.3)
        assert "OVER" not in str(error.value)
        later = threading.Timer(0.5, lambda: reader.execute("COMMIT"))
        later.start()
        began = time.monotonic()
        remove_bodies(database, over={OVER}, seconds=20, only_if_any=True)
        later.join()
    assert 0.3 <= time.monotonic() - began < 20  # it was not waited to the end
    assert b"OVER" not in kept(database)


def test_a_run_that_begins_meanwhile_keeps_its_messages_and_nothing_is_rewritten_for_nothing(database: Path):
    """Whoever asks which runs are over cannot know of one that begins before the answer is used."""
    began = 11
    with closing(sqlite3.connect(database, isolation_level=None)) as server:
        server.execute("INSERT INTO message_ins VALUES ('new', ?, ?)", (began, b"BEGAN"))
    remove_bodies(database, over={OVER})
    with closing(sqlite3.connect(database)) as found:
        assert found.execute("SELECT run_id FROM message_ins ORDER BY run_id").fetchall() == [
            (GOING_ON - 2**64,), (began,),
        ]  # fmt: skip
    before = (database.stat().st_mtime_ns, database.stat().st_size)
    assert remove_bodies(database, over={OVER}, only_if_any=True) == 0
    assert (database.stat().st_mtime_ns, database.stat().st_size) == before
    database.with_name("flower.db.removing").touch()  # as after a removal that was cut off
    assert remove_bodies(database, over={OVER}, only_if_any=True) == 0
    assert database.stat().st_mtime_ns > before[0] and not database.with_name("flower.db.removing").exists()


def test_a_database_of_another_version_is_said_and_none_is_nothing(tmp_path: Path):
    assert remove_bodies(tmp_path / "absent.db", over={OVER}) == 0
    assert list(tmp_path.iterdir()) == []
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE something (x)")
    with pytest.raises(FlfedError, match="no such table"):
        remove_bodies(tmp_path / "other.db", over={OVER})


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    made = CoordinatorFolder(tmp_path / "a coordinator")
    initialise(made, Settings("Test", "fl.example.org:8443"))
    _write_certificate(made)
    return made


def test_caddy_takes_its_configuration_and_publishes_ten_routes(folder: CoordinatorFolder):
    proxy.write_caddyfile(folder, 12345, bind="127.0.0.1")
    text = proxy.caddyfile(folder).read_text()
    assert proxy.caddyfile(folder).stat().st_mode & 0o777 == 0o600
    assert text.count("/v1/fleet/") == 10 and "register-node" not in text
    assert "https://:8443 {\n\tbind 127.0.0.1\n" in text
    assert "reverse_proxy https://127.0.0.1:12345" in text
    assert "admin off" in text and "respond 403" in text
    proxy.write_caddyfile(folder, 12345, port=9443)
    assert "https://:9443 {\n\ttls" in proxy.caddyfile(folder).read_text()


def test_what_caddy_does_not_take_is_said(folder: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch):
    (folder.keys / "server.crt").write_text("no certificate")
    with pytest.raises(FlfedError, match="Caddy refuses it") as error:
        proxy.write_caddyfile(folder, 12345)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(UsageError, match="FLFED_HOME"):
        proxy.write_caddyfile(CoordinatorFolder(copied(folder, 'with"quote')), 1)


def copied(folder: CoordinatorFolder, name: str) -> Path:
    target = folder.root.with_name(name)
    os.rename(folder.root, target)
    return target


@pytest.mark.parametrize("text", ["example.org", "10.0.0.5:0", ":70000", "10.0.0.5:8443 x", "300.1.1.1", ":"])
def test_where_to_listen_is_an_address_and_a_port(text: str):
    with pytest.raises(UsageError, match="--listen") as error:
        proxy.listening(text)
    assert error.value.exit_code == 2


def test_a_folder_that_others_may_enter_is_not_served_from(folder: CoordinatorFolder, tmp_path: Path):
    check_private(folder)
    folder.server.chmod(0o750)
    with pytest.raises(UsageError) as error:
        check_private(folder)
    assert str(error.value) == f"{folder.server}: other users may enter (mode 750): chmod 700 {folder.server}"
    with pytest.raises(UsageError, match="flfed coordinator init"):
        check_private(CoordinatorFolder(tmp_path / "none"))


def test_a_folder_of_another_user_is_not_served_from(folder: CoordinatorFolder):
    if os.geteuid() != 0:
        pytest.skip("needs to be root to give a folder away")
    os.chown(folder.sites, 65534, 65534)
    with pytest.raises(UsageError, match="another user") as error:
        check_private(folder)
    assert error.value.exit_code == 2


def test_the_certificate_of_loopback_is_made_once_and_its_key_is_private(folder: CoordinatorFolder):
    key = folder.server / "loopback.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes(), (folder.server / "loopback.crt").read_bytes()
    _write_certificate(folder)
    assert (key.read_bytes(), (folder.server / "loopback.crt").read_bytes()) == before
    key.chmod(0o644)
    with pytest.raises(FlfedError, match="others may read"):
        _write_certificate(folder)


def test_a_coordinator_that_does_not_serve_is_said(folder: CoordinatorFolder):
    with pytest.raises(FlfedError, match="flfed coordinator serve") as error:
        Link.of(folder)
    assert error.value.exit_code == 1
    (folder.server / "serving.json").write_text("{")
    with pytest.raises(FlfedError, match="damaged"):
        Link.of(folder)


def test_a_sites_key_becomes_what_flower_keeps():
    text = public_text(new_node_key().public_key())
    pem = pem_of(text)
    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----") and len(pem) == 215
    with pytest.raises(FlfedError, match="damaged"):
        pem_of("ssh-ed25519 AAAA")


def test_what_the_server_says_leads_to_no_other_host_and_no_proxy(folder, monkeypatch):
    asked: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(307)
            self.send_header("location", f"https://127.0.0.1:{self.server.server_address[1]}/stolen")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder.server / "loopback.crt", folder.server / "loopback.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        link = Link(f"127.0.0.1:{server.server_address[1]}", (folder.server / "loopback.crt").read_text(), b"secret")
        try:
            with Control(link, timeout=5) as control, pytest.raises(FlfedError, match="refused: status 307"):
                control.nodes()
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/v1/control/list-nodes"]
