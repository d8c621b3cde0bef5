"""Two coordinators on one port: the second is refused before it starts anything, whoever it is, and each way."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.deployment.coordinator.proxy import holding
from flfed.errors import UsageError
from tests.another_account import account
from tests.browser import free_port
from tests.machines import called

FLFED = [sys.executable, "-P", "-c", "from flfed.cli import main; main()", "coordinator"]
OTHER = 64501


class Coordinator:
    """One that was initialised in a home of its own, as an account of the machine."""

    def __init__(self, home: Path, port: int, other: list[str]) -> None:
        self.home, self._other = home, other
        self.environment = {**os.environ, "FLFED_HOME": str(home), "HOME": str(home)}
        home.mkdir(mode=0o700)
        if other:
            os.chown(home, OTHER, OTHER)
        code, _, error = self.run("init", "--title", home.name, "--address", f"localhost:{port}")
        assert code == 0, error

    def run(self, *words: str) -> tuple[int, str, str]:
        """Return the exit code, the output and the errors of a command; another account's is a process."""
        if not self._other:
            return called(["coordinator", *words], {**self.environment, "FLFED_PATH": ""}, Path("/"))
        done = subprocess.run(
            [*self._other, *FLFED, *words], env=self.environment, cwd="/", capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    def serve(self) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [*self._other, *FLFED, "serve"], env=self.environment, cwd="/", stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert made.stderr is not None
        assert any(line.startswith("sites can connect") for line in made.stderr)
        return made


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flfed-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def shown(port: int) -> bytes | None:
    """Return the certificate that is shown at a port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 10) as asked,
        context.wrap_socket(asked, server_hostname="localhost") as server,
    ):
        return server.getpeercert(binary_form=True)


@pytest.mark.servers
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_a_second_coordinator_on_the_port_or_in_the_folder_is_refused_and_the_first_is_undisturbed(place: Path):
    port = free_port()
    first, second = (Coordinator(place / name, port, []) for name in ("first", "second"))
    several = [second]
    if os.geteuid() == 0:
        several.append(Coordinator(place / "other", port, account(OTHER)))
    for serves, comes in ((first, several), (second, [first])):
        running = serves.serve()
        try:
            own = shown(port)
            for late in comes:
                code, out, error = late.run("serve")
                assert (code, out, error.count("\n")) == (2, "", 1), error
                assert error.startswith(f"flfed: port {port} is ")
                assert error.endswith("stop that one first, or choose another port with --listen IP:PORT\n")
                assert not (late.home / "coordinator/server/Caddyfile").exists() or late is first
            code, _, error = serves.run("serve")
            assert (code, error.count("\n")) == (2, 1)
            assert "the coordinator serves already; stop the other one first" in error
            assert {shown(port) for _ in range(8)} == {own}  # two that share a port take turns
            assert running.poll() is None
            assert serves.run("status")[1].splitlines()[0].endswith("serving.")
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0
            assert running.stderr is not None
            assert "ended (" not in running.stderr.read()
            running.stderr.close()


def test_two_that_begin_at_the_same_moment_do_not_both_get_the_port():
    port = free_port()
    with holding("", port):
        for _ in range(8):  # each of them asks whose the name is
            with pytest.raises(UsageError, match="served already by another coordinator"), holding("", port):
                pass
    with holding("", port):  # and it is free again at once
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_on_which_some_program_listens_is_refused_even_if_it_would_share_it(address: str):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((address, 0))
        listening.listen()
        port = listening.getsockname()[1]
        for bind in ("", address):
            with pytest.raises(UsageError, match=f"port {port} is in use on this machine"), holding(bind, port):
                pass
    with holding("", port):
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of that kind are Linux's")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
def test_another_account_cannot_be_in_the_way_without_the_port():
    port = free_port()
    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0' + sys.argv[1]); s.listen();"
        "print('there', flush=True); time.sleep(60)"
    )
    words = [*account(OTHER), sys.executable, "-c", code, f"flfed-coordinator-*-{port}-{os.geteuid()}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/") as squatter:
        assert squatter.stdout is not None and squatter.stdout.readline() == "there\n"
        with holding("", port):
            pass
        squatter.kill()
