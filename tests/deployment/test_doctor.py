"""`flfed doctor` names each fault that is planted for real, and no other; what is healthy has none."""

import json
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flfed.callbacks import now_utc
from flfed.deployment.coordinator.admission import admitted, revoke
from flfed.deployment.coordinator.certificates import (
    SERVER_DAYS,
    Settings,
    certificate_text,
    initialise,
    new_authority,
    renew_server,
)
from flfed.deployment.doctor import connection
from flfed.deployment.flower.link import NODES, Link, pem_of, signed_number
from flfed.deployment.processes import units
from flfed.deployment.processes.child_processes import Pulse
from flfed.files import locked
from flfed.paths import CoordinatorFolder
from flfed.rows.data import sources
from tests.another_account import NOBODY, account
from tests.consortium.conftest import STUDY, Consortium
from tests.deployment.doctor_scene import Scene, answering, front, opening, tinyproxy, tree
from tests.machines import at, called, free_port, until

SITES = ("north", "south")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, and files of other accounts, need root")
NEEDS_TINYPROXY = pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def consortium() -> Iterator[Consortium]:
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        made = Consortium(Path(folder), SITES)
        try:
            made.begin(())
            until("the server", lambda: made.coordinator.json("coordinator status")["serving"], every=0.5)
            yield made
        finally:
            made.end()


@pytest.fixture
def scene(consortium: Consortium, tmp_path: Path) -> Callable[[str], Scene]:
    return lambda whose: Scene(consortium, tmp_path / whose, whose)


@pytest.fixture
def site(scene: Callable[[str], Scene]) -> Scene:
    return scene("north")


@pytest.fixture
def coordinator(scene: Callable[[str], Scene]) -> Scene:
    return scene("coordinator")


def _greet(server: socket.socket) -> None:
    with server.accept()[0] as connection:
        connection.sendall(b"220 mail\r\n")


@pytest.mark.parametrize("whose", ["north", "south", "coordinator"])
def test_a_healthy_part_has_no_finding_and_nothing_is_changed(scene: Callable[[str], Scene], whose: str):
    one = scene(whose)
    before = tree(one.home)
    code, facts, lines = one.called()
    assert (code, facts["findings"], facts["healthy"]) == (0, [], True)
    assert lines == f"{whose}: nothing is wrong.\n"
    assert len(before) > 5 and tree(one.home) == before


def test_a_name_that_is_not_resolved_is_named(site: Scene):
    site.moved("coordinator.invalid:443")
    code, facts, lines = site.called()
    assert code == 1 and [each["name"] for each in facts["findings"]] == ["name"]
    assert "'coordinator.invalid' is not resolved. Remedy: " in lines


def test_a_closed_port_is_named(site: Scene):
    site.moved(f"localhost:{free_port()}")
    assert site.found() == ["port"]


def test_a_server_without_tls_is_named(site: Scene):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site.moved(f"localhost:{silent.getsockname()[1]}")
        answering = threading.Thread(target=_greet, args=(silent,))
        answering.start()
        assert site.found() == ["silent"]
        answering.join()


def test_a_proxy_that_opens_tls_is_named_with_its_issuer(site: Scene, tmp_path: Path):
    with opening(site, tmp_path) as port:
        site.moved(f"localhost:{port}")
        code, facts, _ = site.called()
    (one,) = facts["findings"]
    assert code == 1 and one["name"] == "opened" and "CN=Caddy Local Authority" in one["text"]


def test_a_certificate_of_another_authority_is_named(site: Scene, tmp_path: Path):
    other = CoordinatorFolder(tmp_path / "other")
    other.root.mkdir(mode=0o700)
    initialise(other, Settings("Other", "localhost:443"))
    shutil.copy(other.keys / "ca.crt", site.network / "ca.crt")
    assert site.found() == ["authority"]


def test_a_certificate_for_another_host_is_named(site: Scene, coordinator: Scene, tmp_path: Path):
    with front(coordinator, tmp_path, "127.0.0.2") as port:
        site.moved(f"127.0.0.2:{port}")
        assert site.found() == ["host"]


@pytest.mark.parametrize(("days", "found"), [(31, []), (29, ["server-ending"]), (-1, ["server-ending"])])
def test_a_certificate_that_ends_within_thirty_days_is_named(
    site: Scene, coordinator: Scene, tmp_path: Path, days: int, found: list[str]
):
    begun = now_utc() - timedelta(days=SERVER_DAYS - days) + timedelta(hours=1)
    renew_server(coordinator.folder, now=begun)
    with front(coordinator, tmp_path, "127.0.0.1") as port:
        site.moved(f"localhost:{port}")
        assert site.found() == found
    assert coordinator.found() == found
    if found:
        _, _, said = coordinator.called()
        assert ("The server's certificate has ended" if days < 0 else f"certificate ends in {days} days") in said


@pytest.mark.parametrize(
    ("seconds", "found"), [(0, []), (40, ["clock"]), (-40, []), (-75, ["clock"]), (86_400 * 500, ["clock"])]
)
def test_a_clock_that_is_off_is_named(site: Scene, seconds: int, found: list[str]):
    assert site.found(now=now_utc() + timedelta(seconds=seconds)) == found


def test_a_key_that_was_revoked_is_named(scene: Callable[[str], Scene], consortium: Consortium):
    one = scene("south")
    assert one.found() == []
    with consortium.coordinator.here():
        revoke(CoordinatorFolder.default(), "south")
    until("the revocation", lambda: one.found() == ["key"], every=0.5)
    _, facts, _ = one.called()
    expires = tomllib.loads((one.network / "join.toml").read_text())["expires"]
    remedy = facts["findings"][0]["remedy"]
    assert f"send {one.network / 'south.admission'} by {expires}; later, or once the site was revoked" in remedy


def test_a_site_that_has_not_joined_is_named_with_the_command_that_helps(site: Scene):
    (site.network / "join.toml").unlink()
    code, _, lines = site.called()
    assert code == 1
    assert lines == ("The site has not joined. Remedy: ask the coordinator for a kit, then: flfed site join KIT.\n")


def test_an_unknown_dataset_is_named_once(site: Scene, tmp_path: Path):
    packages = tmp_path / "packages"
    shutil.copytree(site.consortium.root / "packages", packages)
    site.environment["FLFED_PATH"] = str(packages)
    study = tmp_path / "small.toml"
    study.write_text(STUDY)
    words = ["site", "approve", str(study), "--site", "north", "--with", "south,east", "--yes"]
    code, _, err = called(words, site.environment, site.home)
    assert code == 0, err
    shutil.rmtree(packages / "datasets/small")
    _, facts, _ = site.called()
    (one,) = facts["findings"]
    assert one["name"] == "package" and one["text"].count("'small' is not known") == 1
    assert one["remedy"] == "correct the package, or put its dataset back, then: flfed site check"


def test_a_table_that_changed_after_the_approval_is_named(site: Scene, tmp_path: Path):
    packages = tmp_path / "packages"
    shutil.copytree(site.consortium.root / "packages", packages)
    site.environment["FLFED_PATH"] = str(packages)
    study, table = tmp_path / "small.toml", packages / "sites/north/rows.csv"
    study.write_text(STUDY)

    def said(*words: str, code: int = 0) -> str:
        found, out, err = called(list(words), site.environment, site.home)
        assert found == code, err
        return out + err

    said("site", "approve", str(study), "--site", "north", "--with", "south,east", "--yes")
    table.write_bytes(table.read_bytes())  # the same export once more
    changed = "The table of 'small' changed after the snapshot of "
    assert site.found() == [] and changed not in said("site", "status", "north")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-9]))
    _, facts, lines = site.called()
    assert [each["name"] for each in facts["findings"]] == ["table"] and changed in lines
    # A size that is none ends `serve` before any process starts.
    for words, code in ((("status", "north"), 0), (("serve", "north", "--memory", "x"), 2)):
        assert changed in said("site", *words, code=code)
    said("site", "refresh", "north", "--yes")
    _, facts, lines = site.called()
    assert [each["name"] for each in facts["findings"]] == ["void"]
    assert "is not answered: its frozen rows changed after the approval" in lines


@pytest.mark.parametrize("whose", ["north", "coordinator"])
def test_another_flower_is_named(
    scene: Callable[[str], Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
):
    planted = tmp_path / "installed" / "flwr-1.77.0.dist-info"
    planted.mkdir(parents=True)
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.77.0\n")
    one = scene(whose)
    monkeypatch.syspath_prepend(planted.parent)
    code, facts, _ = one.called()
    assert code == 1 and [each["name"] for each in facts["findings"]] == ["flower"]
    assert "Flower 1.77 is installed" in facts["findings"][0]["text"]


@NEEDS_ROOT
@pytest.mark.parametrize("whose", ["north", "coordinator"])
def test_a_disk_that_is_nearly_full_is_named(consortium: Consortium, tmp_path: Path, whose: str):
    home = tmp_path / "full"
    home.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m,mode=700", "none", str(home)], check=True)
    try:
        one = Scene(consortium, home, whose)
        assert one.found() == []
        with (home / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, 150_000_000)
        assert one.found() == ["disk"]
    finally:
        subprocess.run(["umount", str(home)], check=True)


def status(scene: Scene) -> tuple[dict[str, Any], str]:
    """Return the site's status, and its lines for people."""
    objects = called(["site", "status", scene.whose, "--json"], scene.environment, scene.home)
    lines = called(["site", "status", scene.whose], scene.environment, scene.home)
    return json.loads(objects[1]), lines[1] + lines[2]


def test_a_stranger_writes_no_line_of_the_doctors(site: Scene, tmp_path: Path):
    key, certificate = new_authority("x\nnorth: nothing is wrong.\x1b[2J", now_utc())
    pem = tmp_path / "stranger.pem"
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(own + certificate_text(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def greet() -> None:
        # Each command connects twice: once in trust, and once to see the certificate.
        for _ in range(4):
            with server.accept()[0] as asking, suppress(OSError):
                context.wrap_socket(asking, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        site.moved(f"localhost:{server.getsockname()[1]}")
        thread = threading.Thread(target=greet)
        thread.start()
        _, facts, lines = site.called()
        thread.join(30)
    assert [one["name"] for one in facts["findings"]] == ["authority"]
    assert lines.count("\n") == 1 and lines.removesuffix("\n").isprintable() and "nothing is wrong" in lines


def behind(site: Scene, address: str) -> dict[str, str]:
    """Set a proxy without a password, and return the only finding."""
    assert called(["site", "proxy", "north", f"http://{address}"], site.environment, site.home)[0] == 0
    code, facts, _ = site.called()
    (one,) = facts["findings"]
    assert code == 1
    return dict(one)


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (b"", "proxy-silent", "(BadStatusLine)"),
        (b"220 mail\r\n\r\n", "proxy-silent", "(BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nVia: half", "proxy-silent", "(BadStatusLine)"),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "proxy-silent", "(BadStatusLine)"),
        (b"HTTP/1.0 407 No\r\n\r\n", "proxy-password", "(407)"),
        (b"HTTP/1.1 403 Filtered\r\n\r\n<html>", "proxy-closed", "(403)"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "proxy-closed", "(502)"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "silent", "localhost:"),
    ],
)
def test_a_proxy_that_opens_no_way_is_blamed_in_the_coordinators_place(
    site: Scene, answer: bytes, name: str, words: str
):
    with answering(answer) as port:
        one = behind(site, f"127.0.0.1:{port}")
    assert one["name"] == name and words in one["text"]
    assert name == "silent" or f"The outbound proxy http://127.0.0.1:{port} " in one["text"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "proxy.invalid"])
def test_a_proxy_out_of_reach_is_not_taken_for_the_coordinator(site: Scene, host: str):
    one = behind(site, f"{host}:{free_port()}")
    assert one["name"] == "proxy-silent" and f"http://{host}:" in one["text"] and "site proxy" in one["remedy"]


def test_a_proxy_that_sends_a_byte_now_and_then_delays_nothing(site: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "SECONDS", 1.0)
    with answering(*[b"x"] * 12, each=0.5) as port:
        site.network.joinpath("proxy.toml").write_text(f'address = "127.0.0.1:{port}"\n')
        site.network.joinpath("proxy.toml").chmod(0o600)
        began = time.monotonic()
        assert site.found() == ["proxy-silent"]
        assert time.monotonic() - began < 3


@NEEDS_TINYPROXY
def test_a_proxy_is_shown_without_its_password(site: Scene, tmp_path: Path):
    password = tmp_path / "password"
    password.write_text("ann:geheim-3")
    password.chmod(0o600)
    with tinyproxy(tmp_path, "BasicAuth ann geheim-3") as url:
        set_up = ["site", "proxy", "north", url, "--password-file", str(password)]
        assert called(set_up, site.environment, site.home)[0] == 0
        assert site.found() == []
        facts, lines = status(site)
        assert facts["proxy"] == url and f"Outbound proxy: {url}\n" in lines
        assert "geheim" not in json.dumps(facts) + lines
    # Its file cannot be read: that is one finding, which names the command that helps.
    (site.network / "proxy.toml").write_text('address = "geheim-3"')
    code, facts, _ = site.called()
    (one,) = facts["findings"]
    assert (code, one["name"]) == (1, "state") and "flfed site proxy north URL" in one["text"]
    assert status(site)[0]["problems"] == [one["text"]] and "geheim" not in one["text"]


def test_a_run_store_out_of_reach_is_named_without_its_password(coordinator: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLFED_STORE", f"postgresql://ana:geheim-1@127.0.0.1:{free_port()}/runs")
    code, facts, lines = coordinator.called()
    assert code == 1 and [each["name"] for each in facts["findings"]] == ["store"]
    assert "geheim" not in json.dumps(facts) + lines


def test_a_table_out_of_reach_is_named_without_a_password(site: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packages = tmp_path / "packages"
    shutil.copytree(site.consortium.root / "packages", packages)
    site.environment["FLFED_PATH"] = str(packages)
    (packages / "sites/north/rows.csv").unlink()
    assert site.found() == ["source"]
    package = packages / "sites/north/__init__.py"
    package.write_text(package.read_text().replace("Csv", "Sql").replace("rows.csv", "SELECT * FROM stays"))
    monkeypatch.setenv("FLFED_SITE_URL", f"postgresql+psycopg://ana:geheim-2@127.0.0.1:{free_port()}/ward")
    code, facts, lines = site.called()
    assert code == 1 and [each["name"] for each in facts["findings"]] == ["source"]
    assert "geheim" not in json.dumps(facts) + lines
    database = tmp_path / "ward.db"
    monkeypatch.setenv("FLFED_SITE_URL", f"sqlite:///{database}")
    assert site.found() == ["source"] and not database.exists()
    database.touch()
    assert site.found() == []


@pytest.mark.parametrize("more", ["", "?connect_timeout=2"])
def test_a_database_that_takes_a_connection_and_keeps_quiet_delays_little(
    site: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
):
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 60 if more else 2)  # the address has precedence
    packages = tmp_path / "packages"
    shutil.copytree(site.consortium.root / "packages", packages)
    site.environment["FLFED_PATH"] = str(packages)
    package = packages / "sites/north/__init__.py"
    package.write_text(package.read_text().replace("Csv", "Sql").replace("rows.csv", "SELECT * FROM stays"))
    with socket.create_server(("127.0.0.1", 0)) as quiet:
        address = f"127.0.0.1:{quiet.getsockname()[1]}"
        monkeypatch.setenv("FLFED_SITE_URL", f"postgresql+psycopg://ana:geheim-2@{address}/ward{more}")
        began = time.monotonic()
        assert site.found() == ["source"]
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("place", ["network", "network/node.key", "gate/approvals"])
def test_what_others_may_use_is_named_at_a_site(site: Scene, place: str):
    path = site.network.parent / place
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.mkdir()
    path.chmod(0o777)
    assert site.found() == ["state" if place.startswith("gate") else "mode"]


def test_an_open_home_is_named_and_not_mended(site: Scene):
    site.home.chmod(0o750)
    assert site.found() == ["mode"]
    assert site.home.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("network/ca.crt", b""),
        ("network/ca.crt", None),
        ("network/node.key", b"x"),
        ("network/join.toml", b"address = 5"),
        ("link/terms.toml", None),
    ],
)
def test_a_damaged_file_of_joining_is_named(site: Scene, place: str, content: bytes | None):
    path = site.network.parent / place
    path.unlink() if content is None else path.write_bytes(content)
    _, facts, _ = site.called()
    (one,) = facts["findings"]
    assert one["name"] == "joining" and str(path) in one["text"]


@pytest.mark.parametrize("content", [None, b"", b"x"])
@pytest.mark.parametrize(
    "place", ["keys/ca.crt", "keys/ca.key", "keys/server.crt", "keys/signing.key", "coordinator.toml"]
)
def test_a_damaged_file_of_the_coordinator_is_named(coordinator: Scene, place: str, content: bytes | None):
    path = coordinator.folder.root / place
    path.unlink() if content is None else path.write_bytes(content)
    if (place, content) == ("coordinator.toml", None):
        assert coordinator.called()[0] == 2  # there is no coordinator
        return
    code, facts, _ = coordinator.called()
    (one,) = facts["findings"]
    assert (code, one["name"]) == (1, "state") and str(path) in one["text"]


def test_a_coordinator_without_keys_or_its_server_s_certificate_is_examined(coordinator: Scene):
    (coordinator.folder.server / "loopback.crt").write_bytes(b"")
    assert coordinator.found() == ["taken"]
    shutil.rmtree(coordinator.folder.keys)
    assert coordinator.found() == ["state"] * 3


def test_a_private_key_that_others_may_read_is_named_at_the_coordinator(coordinator: Scene):
    (coordinator.folder.keys / "ca.key").chmod(0o640)
    assert coordinator.found() == ["mode"]


@NEEDS_ROOT
def test_a_file_of_another_account_is_named(site: Scene, coordinator: Scene):
    os.chown(site.network / "node.key", NOBODY, NOBODY)
    os.chown(coordinator.folder.keys / "signing.key", NOBODY, NOBODY)
    assert (site.found(), coordinator.found()) == (["owner"], ["owner"])


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("whose", "place", "name"),
    [
        ("north", "sites/north/network", "entry"),
        ("north", "sites/north/gate", "entry"),
        ("north", "sites/north/gate/signing.key", "owner"),
        ("north", "sites/north/network/join.toml", "owner"),
        ("north", "sites/north/network/ca.crt", "owner"),
        ("coordinator", "coordinator/keys", "entry"),
        ("coordinator", "coordinator/sites/north.json", "owner"),
        ("coordinator", "coordinator/server/serving.json", "owner"),
    ],
)
def test_another_account_reads_one_finding_about_what_root_made(
    consortium: Consortium, whose: str, place: str, name: str
):
    """A command that was run as root leaves files that the service's account cannot read."""
    # Below a folder of this machine that every account may enter.
    with tempfile.TemporaryDirectory(prefix="flfed-") as base:
        Path(base).chmod(0o755)
        one = Scene(consortium, Path(base) / whose, whose)
        packages = Path(base) / "packages"
        shutil.copytree(consortium.root / "packages", packages)
        for path in [one.home, *one.home.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        os.chown(one.home / place, 0, 0)
        words = ["doctor", "--json", "--coordinator" if whose == "coordinator" else whose]
        command = account(NOBODY, sys.executable, "-c", "from flfed.cli import main; main()", *words)
        environment = {**one.environment, "FLFED_PATH": str(packages), "HOME": base}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    (finding,) = json.loads(done.stdout)["findings"]
    assert (done.returncode, finding["name"], done.stderr) == (1, name, "")
    assert str(one.home / place) in finding["text"] and f"chown {NOBODY}" in finding["remedy"]


@NEEDS_ROOT
@pytest.mark.parametrize("words", [["doctor"], ["doctor", "north"], ["doctor", "--coordinator"]])
def test_a_home_that_this_account_cannot_see_is_wrong_use(tmp_path: Path, words: list[str]):
    tmp_path.chmod(0o700)
    command = account(NOBODY, sys.executable, "-c", "from flfed.cli import main; main()", *words)
    environment = {**os.environ, "FLFED_HOME": str(tmp_path / "home"), "HOME": "/"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert "run this as the right user" in done.stderr


@NEEDS_ROOT
def test_units_of_another_version_are_named(site: Scene):
    unit = Path("/etc/systemd/system/flfed-north-network.service")
    assert not unit.exists()
    # Those of a site whose name begins as this one's, changes by `systemctl edit`, and a masked unit are no fault.
    other = unit.with_name("flfed-north-2-network.service")
    edited = unit.with_name(f"{unit.name}.d")
    try:
        other.write_text("# Made by flfed 0.0.1: flfed site units north-2\n")
        edited.mkdir()
        unit.symlink_to("/nowhere")
        assert site.found() == []
        unit.unlink()
        unit.write_text("# Made by flfed 0.0.1: flfed site units north\n")
        assert site.found() == ["units"]
    finally:
        unit.unlink()
        other.unlink()
        edited.rmdir()


@NEEDS_ROOT
@NEEDS_TINYPROXY
def test_a_unit_that_forbids_the_way_is_named(site: Scene, tmp_path: Path):
    """Its text is from before the proxy was set."""
    text = units.filled("north", command=Path("/usr/bin/flfed"), address="192.0.2.7:443")["flfed-north-network.service"]
    unit = Path("/etc/systemd/system/flfed-north-network.service")
    assert not unit.exists()
    unit.write_text(text)
    try:
        assert site.found() == []  # the coordinator has a name: its number is not known
        with tinyproxy(tmp_path) as url:
            assert called(["site", "proxy", "north", url], site.environment, site.home)[0] == 0
            _, facts, _ = site.called()
            (one,) = facts["findings"]
            assert one["name"] == "egress" and "reach 192.0.2.7 alone" in one["text"]
            unit.write_text(text.replace("192.0.2.7", "127.0.0.1"))
            assert site.found() == []
    finally:
        unit.unlink()


def test_a_request_without_an_answer_is_named_with_its_age(site: Scene, coordinator: Scene):
    site.network.with_name("gate").mkdir(exist_ok=True)
    pulse = Pulse(site.network.parent / "gate/gate.pulse")
    pulse.beat()
    pulse.note("has not answered a request (train)")
    pulse.path.write_text(pulse.path.read_text().replace(pulse.path.read_text()[:10], f"{time.time() - 400:.0f}"))
    assert site.found() == []  # nobody serves: it is what a process that was killed left
    with locked(pulse.path.parent, "serving.lock"):
        _, facts, lines = site.called()
    assert [each["name"] for each in facts["findings"]] == ["undone"]
    assert "The gate has not answered a request (train) for 40" in lines
    # Flower's own table, of the server itself, and the node of the site.
    with at(coordinator.environment):
        keys = {pem_of(member.public_key): name for name, member in admitted(coordinator.folder).items()}
        nodes = {
            keys.get(each["public_key"].encode()): each["node_id"] for each in Link.of(coordinator.folder).ask(NODES)
        }
    row = ("m", signed_number(nodes["north"]), time.time() - 400, "train")
    columns = "message_id, dst_node_id, created_at, message_type"
    with closing(sqlite3.connect(coordinator.consortium.root / "coordinator/coordinator/server/flower.db")) as flower:
        try:
            with flower:
                flower.execute(f"INSERT INTO message_ins ({columns}) VALUES (?, ?, ?, ?)", row)
            code, facts, lines = coordinator.called()
            _, out, _ = called(["coordinator", "status"], coordinator.environment, coordinator.home)
        finally:
            with flower:
                flower.execute("DELETE FROM message_ins WHERE message_id = 'm'")
    assert (code, [each["name"] for each in facts["findings"]]) == (1, ["unanswered"])
    assert "north has not answered a request (train) for 40" in lines
    assert "north: has not answered a request (train) for 40" in out


def test_a_port_that_is_taken_is_named(coordinator: Scene):
    (coordinator.folder.server / "serving.json").unlink()
    assert coordinator.found() == ["taken"]
    port = free_port()
    settings = coordinator.folder.settings
    settings.write_text(settings.read_text().replace(str(coordinator.consortium.port), str(port)))
    assert coordinator.found() == ["stopped"]
    with socket.create_server(("127.0.0.1", port)):
        assert coordinator.found() == ["taken"]


def test_a_damaged_admission_is_named_as_the_status_command_does(coordinator: Scene):
    (coordinator.folder.sites / "north.json").write_text("{")
    code, facts, _ = coordinator.called()
    assert code == 1 and [each["name"] for each in facts["findings"]] == ["state"]
    assert "is damaged" in facts["findings"][0]["text"]


def test_without_a_name_the_only_part_is_examined(site: Scene, coordinator: Scene, tmp_path: Path):
    for one, whose in ((site, "north"), (coordinator, None)):
        code, out, _ = called(["doctor", "--json"], one.environment, tmp_path)
        assert code == 0 and json.loads(out)["site"] == whose
    empty = {**site.environment, "FLFED_HOME": str(tmp_path / "absent")}
    assert called(["doctor"], empty, tmp_path)[0] == 2
    assert not (tmp_path / "absent").exists()
    assert called(["doctor", "north", "--coordinator"], site.environment, tmp_path)[0] == 2


@pytest.mark.parametrize(("name", "meant"), [("nort", "north"), ("coordinator", "--coordinator")])
def test_a_mistyped_name_is_no_site_that_lost_its_files(site: Scene, name: str, meant: str):
    # A user with the network alone has no package.
    code, out, error = called(["doctor", name], {**site.environment, "FLFED_PATH": ""}, site.home)
    assert (code, out) == (2, "") and f"site {name!r} is not known; did you mean {meant!r}?" in error
    assert not (site.home / "sites" / name).exists()


def test_each_of_two_users_has_the_findings_of_its_own_part(site: Scene):
    link = site.network.parent / "link"
    shutil.move(link, site.home / "link")
    link.symlink_to(site.home / "link")
    packages = site.environment["FLFED_PATH"]
    # The user with the network has no package, and needs none.
    site.environment["FLFED_PATH"] = ""
    site.moved(f"localhost:{free_port()}")
    assert site.found() == ["port"]
    (site.network / "join.toml").unlink()
    assert site.found() == ["package"]
    site.environment["FLFED_PATH"] = packages
    assert site.found() == []
