"""The connector fetches what the relay hands out, outlives it, and brings nothing from anybody else."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flfed.deployment.processes import connector as connector_module
from flfed.deployment.processes import relay
from flfed.deployment.processes.connector import ASK, Connector, NodeAbsent
from flfed.deployment.processes.relay import bound, relaying
from flfed.errors import FlfedError


@pytest.fixture
def node() -> Iterator[int]:
    """A port that says hello to each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    talking, _ = server.accept()
                except OSError:
                    return
                with talking:
                    talking.sendall(b"hello")

        thread = threading.Thread(target=greet)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def greeting(connector: Connector) -> bytes:
    with connector.connect() as made:
        made.settimeout(10)
        return made.recv(9)


def test_it_outlives_the_relay_and_finds_the_next(tmp_path: Path, node: int):
    with closing(Connector(tmp_path / "s")) as connector:
        process = connector._process.pid
        for _ in range(3):
            with pytest.raises(NodeAbsent):
                connector.connect()
            with relaying(tmp_path / "s", node):
                assert [greeting(connector) for _ in range(20)] == [b"hello"] * 20
        assert connector._process.pid == process
        assert connector._process.poll() is None
    assert connector._process.returncode == 0


def test_asked_to_end_it_goes_on_until_the_gate_is_gone(tmp_path: Path, node: int):
    with closing(Connector(tmp_path / "s")) as connector, relaying(tmp_path / "s", node):
        assert greeting(connector) == b"hello"
        os.kill(connector._process.pid, signal.SIGTERM)
        assert greeting(connector) == b"hello"


@pytest.mark.servers
def test_a_connector_that_hangs_keeps_no_gate_from_ending(tmp_path: Path):
    connector = Connector(tmp_path / "s")
    os.kill(connector._process.pid, signal.SIGSTOP)
    ending = threading.Thread(target=connector.close, daemon=True)
    ending.start()
    ending.join(60)
    stuck = ending.is_alive()
    os.kill(connector._process.pid, signal.SIGCONT) if stuck else None
    assert (stuck, connector._process.returncode) == (False, -signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_connector_that_died_or_hangs_is_said_so_that_the_gate_is_started_anew(
    tmp_path: Path, node: int, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
):
    monkeypatch.setattr(connector_module, "LONGEST_SECONDS", 2.0)
    with closing(Connector(tmp_path / "s")) as connector, relaying(tmp_path / "s", node):
        assert greeting(connector) == b"hello"
        os.kill(connector._process.pid, how)
        with pytest.raises(FlfedError, match="the process that connects the gate to its node has ended, or hangs"):
            connector.connect()


def test_a_socket_of_somebody_else_in_the_relays_place_is_told_one_byte_and_gives_nothing(tmp_path: Path):
    heard: list[bytes] = []
    with bound(tmp_path / "other") as other, closing(Connector(tmp_path / "s")) as connector:
        (tmp_path / "s").symlink_to(tmp_path / "other")

        def answer() -> None:
            talking, _ = other.accept()
            with talking:
                heard.append(talking.recv(999))
                talking.sendall(b"+")  # as the relay says it, but with no socket beside it

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionRefusedError) as refused:
            connector.connect()
        assert not isinstance(refused.value, NodeAbsent)  # somebody is there
        thread.join()
    assert heard == [ASK]


def test_a_hundred_threads_get_a_hundred_connections(tmp_path: Path, node: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "MOST", 100)
    got: list[bytes] = []
    with closing(Connector(tmp_path / "s")) as connector, relaying(tmp_path / "s", node):
        began = time.monotonic()
        threads = [threading.Thread(target=lambda: got.append(greeting(connector))) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [b"hello"] * 100
    assert time.monotonic() - began < 30
