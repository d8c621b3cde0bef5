"""A coordinator that serves on loopback, and sites of it: real processes, sockets, certificates and keys."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link
from flfed.errors import FlfedError
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder
from flfed.signatures import new_node_key, private_text, public_text

ROOT = Path(__file__).resolve().parents[3]
SERVE = """
import sys
from pathlib import Path
from flfed.paths import CoordinatorFolder
from flfed.deployment.coordinator.serve import serve
from flfed.deployment.processes.supervisor import stop_on_signals
with stop_on_signals() as stop:
    serve(CoordinatorFolder(Path(sys.argv[1])), stop, notify=lambda s: print(s, flush=True), bind="127.0.0.1")
"""

NODE = """
from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode
from flfed.deployment.flower.pacing import Pace
from flfed.deployment.processes.node import LEAST, MOST, nothing_left_unsent, paced, parts_soon
fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = heartbeat.HEARTBEAT_DEFAULT_INTERVAL = 10
paced(Pace(LEAST, MOST))
nothing_left_unsent()
parts_soon()
flower_supernode()
"""
"""Flower's node at the pace of a site's, with three times as fast a heart: a killed one is missed after 20 seconds."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class World:
    """A coordinator and its sites on this machine.

    `start` gives a process that is ended with the world; `site` makes a site: its record at the
    coordinator, its key, and, where it is to run, its node and stand-in executor.
    """

    root: Path
    folder: CoordinatorFolder
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    server: subprocess.Popen[bytes] | None = None

    @staticmethod
    def until(told: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if told():
                return True
            time.sleep(0.05)
        return told()

    @staticmethod
    def alive(pid: int) -> bool:
        """Tell whether a process runs; a zombie does not."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def server_children(self) -> list[int]:
        assert self.server is not None
        tasks = Path(f"/proc/{self.server.pid}/task").glob("*/children")
        return [int(word) for task in tasks for word in task.read_text().split()]

    def start(self, log: str, *command: object, home: str = "") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        environment |= {"FLWR_HOME": str(self.root / f"home-{home or log}"), "PYTHONPATH": str(ROOT)}
        with (self.root / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(
                [str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            )
        self.started.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def serve(self) -> None:
        said = self.log("serve").count("sites can connect") if (self.root / "serve.log").exists() else 0
        self.server = self.start("serve", sys.executable, "-c", SERVE, self.folder.root)
        if not self.until(lambda: self.log("serve").count("sites can connect") > said, 150):
            raise AssertionError(self.log("serve") + (self.folder.server / "superlink.log").read_text()[-2000:])

    def record(self, site: str, status: str = "admitted", key: str = "") -> None:
        """Write what the coordinator knows of a site, as `flfed coordinator admit` and `revoke` do."""
        path = self.folder.sites / f"{site}.json"
        facts = json.loads(path.read_text()) if path.exists() else {"site": site, "node-id": None}
        facts |= {"status": status} | ({"public-key": key} if key else {})
        write_whole(path, json.dumps(facts).encode())

    def key(self, site: str) -> str:
        """Make a site's key; return its public half."""
        key = new_node_key()
        write_whole(self.root / f"{site}.key", private_text(key))
        return public_text(key.public_key())

    def site(self, site: str, says: str = "", *, runs: bool = True) -> None:
        self.record(site, key=self.key(site))
        if runs:
            self.run_site(site, says)

    def run_site(self, site: str, says: str = "") -> None:
        """Start a site's node and what answers for it, as a site that `says` a name."""
        secret, port = self.root / f"{site}.secret", free_port()
        write_whole(secret, os.urandom(32).hex().encode())
        self.nodes[site] = self.start(site, *self.node_command(site, port, secret), home=site)
        stand_in = Path(__file__).with_name("stand_in_site.py")
        self.start(f"{site}-executor", sys.executable, stand_in, port, secret, says or site)

    def node_command(self, site: str, port: int, secret: Path, authority: Path | None = None) -> list[object]:
        command: list[object] = [sys.executable, "-c", NODE, "--superlink", f"127.0.0.1:{self.port}"]
        command += ["--root-certificates", authority or self.folder.keys / "ca.crt", "--isolation", "process"]
        command += ["--auth-supernode-private-key", self.root / f"{site}.key", "--port", port]
        return [*command, "--superexec-auth-secret-file", secret, "--node-config", f'site="{site}"']

    def online(self) -> int:
        with suppress(FlfedError), Control(Link.of(self.folder)) as control:
            return sum(node.status == "online" for node in control.nodes().values())
        return 0

    def end(self) -> None:
        for process in self.started:  # what serves is killed, and the kernel kills what it had started
            process.kill()
        for process in self.started:
            process.wait()


def new_world(root: Path) -> World:
    port = free_port()
    folder = CoordinatorFolder(root / "coordinator")
    initialise(folder, Settings("Test", f"127.0.0.1:{port}"))
    return World(root, folder, port)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A coordinator that serves, and three sites that are online; shared by the tests of one file."""
    made = new_world(tmp_path_factory.mktemp("world"))
    try:
        for number in (1, 2, 3):
            made.site(f"site-{number}", runs=False)
        made.serve()
        for number in (1, 2, 3):
            made.run_site(f"site-{number}")
        assert made.until(lambda: made.online() == 3, 150), made.log("site-1")
        yield made
    finally:
        made.end()


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """A coordinator that was initialised, for one test."""
    made = new_world(tmp_path)
    try:
        yield made
    finally:
        made.end()
