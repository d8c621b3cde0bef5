"""A copy of one machine for the doctor, and servers and proxies on its way."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flfed.deployment.coordinator import proxy
from flfed.deployment.coordinator.proxy import find_caddy
from flfed.deployment.doctor.coordinator import examine_coordinator
from flfed.deployment.doctor.site import examine_site
from flfed.paths import CoordinatorFolder
from tests.consortium.conftest import Consortium
from tests.machines import at, called, free_port, is_listening, until

CADDY = """
{
	admin off
	skip_install_trust
	auto_https disable_redirects
}
https://localhost:PORT {
	tls internal
	reverse_proxy https://localhost:BEHIND {
		transport http {
			tls_trusted_ca_certs CA
		}
	}
}
"""


class Scene:
    """A copy of one machine's home, in which a fault is planted; the consortium itself stays healthy."""

    def __init__(self, consortium: Consortium, home: Path, whose: str) -> None:
        self.consortium, self.home, self.whose = consortium, home, whose
        shutil.copytree(consortium.root / whose, home, dirs_exist_ok=True)
        home.chmod(0o700)
        self.environment = {**consortium.coordinator.environment, "FLFED_HOME": str(home)}
        self.network = home / "sites" / whose / "network"
        self.folder = CoordinatorFolder(home / "coordinator")

    def found(self, **options: Any) -> list[str]:
        """Return the names of all findings."""
        with at(self.environment):
            if self.whose == "coordinator":
                return [each.name for each in examine_coordinator(**options)]
            return [each.name for each in examine_site(self.whose, **options)]

    def called(self) -> tuple[int, dict[str, Any], str]:
        """Return the code of the command, its object, and all that it prints for people."""
        word = "--coordinator" if self.whose == "coordinator" else self.whose
        code, out, err = called(["doctor", word, "--json"], self.environment, self.home)
        again, lines, more = called(["doctor", word], self.environment, self.home)
        assert again == code
        return code, json.loads(out) if out else {}, lines + err + more

    def moved(self, address: str) -> None:
        """Let the site look for its coordinator elsewhere."""
        join = self.network / "join.toml"
        before = f'address = "localhost:{self.consortium.port}"'
        assert before in join.read_text()
        join.write_text(join.read_text().replace(before, f'address = "{address}"'))


@contextmanager
def running(words: Sequence[str], folder: Path, port: int, bind: str = "127.0.0.1") -> Iterator[None]:
    """Run a second Caddy, with its files in a folder."""
    environment = {**os.environ, **dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        until("caddy", lambda: is_listening(bind, port), said=(folder / "log").read_text)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def tinyproxy(folder: Path, *lines: str) -> Iterator[str]:
    """Run tinyproxy with some lines of settings; give its URL."""
    port = free_port()
    (folder / "conf").write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", *lines, ""]))
    with running(["tinyproxy", "-d", "-c", str(folder / "conf")], folder, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def opening(scene: Scene, folder: Path) -> Iterator[int]:
    """Open TLS on the way to the coordinator, as a hospital's inspecting proxy does; give the proxy's port."""
    port = free_port()
    authority = scene.consortium.coordinator.home / "coordinator/keys/ca.crt"
    text = CADDY.replace("CA", str(authority)).replace("BEHIND", str(scene.consortium.port))
    (folder / "Caddyfile").write_text(text.replace("PORT", str(port)))
    with running([find_caddy(), "run", "--config", str(folder / "Caddyfile")], folder, port):
        yield port


@contextmanager
def front(scene: Scene, folder: Path, bind: str) -> Iterator[int]:
    """Serve a copy of the coordinator's front at an address, before the same server; give its port."""
    port = free_port()
    inside = json.loads((scene.folder.server / "serving.json").read_text())["port"]
    proxy.write_caddyfile(scene.folder, inside, bind=bind, port=port)
    with running(proxy.command(scene.folder), folder, port, bind):
        yield port


def tree(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return mode, owner, size and time of change of all files of a folder."""
    stats = {str(path): path.lstat() for path in sorted(folder.rglob("*"))}
    return {path: (one.st_mode, one.st_uid, one.st_size, one.st_mtime_ns) for path, one in stats.items()}


@contextmanager
def answering(*pieces: bytes, each: float = 0.0) -> Iterator[int]:
    """Answer every request at a port with some bytes, a piece at a time, and close; give the port."""

    def answer() -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as asking, suppress(OSError):
                    asking.recv(65_536)
                    for piece in pieces:
                        asking.sendall(piece)
                        time.sleep(each)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(30)
