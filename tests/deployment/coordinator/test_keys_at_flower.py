"""Flower's own server and node take the keys and certificates made here, and only those."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flfed.deployment.coordinator import kits
from flfed.deployment.coordinator.admission import admit, admitted
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.operator.join import join
from flfed.paths import CoordinatorFolder, SiteFolder
from tests.machines import is_listening

BIN = Path(sys.executable).parent
Start = Callable[..., subprocess.Popen[bytes]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program of Flower with a home of its own; what was started is ended."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(program: str, *words: object, home: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{home}.log").open("ab") as log:
            process = subprocess.Popen(
                [BIN / program, *map(str, words)], env=environment(tmp_path / home), stdout=log, stderr=log
            )
        running.append(process)
        return process

    yield begin
    for process in reversed(running):
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)


def environment(home: Path) -> dict[str, str]:
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return {**os.environ, **quiet, "FLWR_HOME": str(home)}


class Control:
    """The `flwr` command, at the server's loopback port."""

    def __init__(self, home: Path, port: int, ca: Path) -> None:
        home.mkdir()
        self.home = home
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
            f'root-certificates = "{ca}"\n'
        )

    def call(self, *words: object) -> dict[str, object]:
        said = subprocess.run(
            [BIN / "flwr", "supernode", *map(str, words), "here", "--format", "json"],
            env=environment(self.home), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        found: dict[str, object] = json.loads(said.stdout)
        return found

    def online(self) -> int:
        nodes = self.call("list")["nodes"]
        return sum(node["status"] == "online" for node in nodes)


def until(true: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def node(start: Start, site: SiteFolder, port: int, *, ca: Path | None = None) -> subprocess.Popen[bytes]:
    return start(
        "flower-supernode", "--superlink", f"127.0.0.1:{port}", "--root-certificates", ca or site.authority,
        "--auth-supernode-private-key", site.node_key, "--isolation", "process", "--port", free_port(),
        "--superexec-auth-secret-file", site.secret, home=f"node-{site.site}",
    )  # fmt: skip


@pytest.mark.proof
@pytest.mark.servers
def test_an_admitted_site_connects_and_nobody_else_does(tmp_path: Path, start: Start):
    folder, port = CoordinatorFolder(tmp_path / "coordinator"), free_port()
    initialise(folder, Settings("Heart consortium", f"127.0.0.1:{port}"))
    for name in ("cleveland", "stranger"):
        done = join(kits.invite(folder, name, to=tmp_path).file, to=tmp_path)
        if name == "cleveland":
            admit(folder, done.admission)
    other = CoordinatorFolder(tmp_path / "other")
    initialise(other, Settings("Heart consortium", f"127.0.0.1:{port}"))
    keys = folder.keys
    server = start(
        "flower-superlink", "--host", "127.0.0.1", "--port", port, "--ssl-certfile", keys / "server.crt",
        "--ssl-keyfile", keys / "server.key", "--ssl-ca-certfile", keys / "ca.crt", "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--database", tmp_path / "state.db", "--isolation", "process",
        home="server",
    )  # fmt: skip
    assert until(lambda: is_listening("127.0.0.1", port)), (tmp_path / "server.log").read_text()
    assert server.poll() is None
    control = Control(tmp_path / "control", port, keys / "ca.crt")
    public = tmp_path / "cleveland.pub"
    public.write_text(admitted(folder)["cleveland"].public_key)
    assert control.call("register", public)["success"] is True
    # A server whose authority the site does not trust gets no node.
    late = node(start, SiteFolder("cleveland"), port, ca=other.keys / "ca.crt")
    stranger = node(start, SiteFolder("stranger"), port, ca=keys / "ca.crt")  # has a kit, was not admitted
    assert [process.wait(120) > 0 for process in (late, stranger)] == [True, True]
    assert control.online() == 0
    joined = node(start, SiteFolder("cleveland"), port)
    assert until(lambda: control.online() == 1), (tmp_path / "node-cleveland.log").read_text()
    assert joined.poll() is None
