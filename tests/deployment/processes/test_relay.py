"""The relay forwards bytes to one loopback port, bounded in number and time, and leaves nothing behind."""

import errno
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flfed.deployment.processes import relay
from flfed.deployment.processes.connector import NodeAbsent, RelayClient
from flfed.deployment.processes.relay import bound, relaying
from flfed.errors import UsageError


@pytest.fixture
def echo() -> Iterator[int]:
    """A port that answers each piece with the same bytes upside down, until it is told "end"."""
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def talk(talking: socket.socket) -> None:
        with talking:
            while piece := talking.recv(1 << 16):
                talking.sendall(piece[::-1])

    def accept() -> None:
        server.settimeout(0.1)
        while not over.is_set():
            try:
                talking, _ = server.accept()
            except TimeoutError:
                continue
            talking.settimeout(30)
            threading.Thread(target=talk, args=(talking,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield server.getsockname()[1]
    over.set()
    thread.join()
    server.close()


def linked(path: Path) -> socket.socket:
    relay = RelayClient(path)
    try:
        made = relay.connect()
    finally:
        relay.close()
    made.settimeout(30)
    return made


def said(path: Path, words: bytes) -> bytes:
    with linked(path) as made:
        with suppress(BrokenPipeError):  # where the other end closes at once
            made.sendall(words)
            made.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := made.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)


def test_bytes_cross_in_both_directions_and_the_end_of_each_too(tmp_path: Path, echo: int):
    with relaying(tmp_path / "s", echo):
        assert said(tmp_path / "s", b"abc") == b"cba"
        long = bytes(range(256)) * 40_000  # ten megabytes: more than any buffer between
        with linked(tmp_path / "s") as made:
            threading.Thread(target=lambda: (made.sendall(long), made.shutdown(socket.SHUT_WR))).start()
            got = 0
            while piece := made.recv(1 << 20):
                got += len(piece)
        assert got == len(long) == 10_240_000


def test_only_owner_and_group_may_connect(tmp_path: Path, echo: int):
    with relaying(tmp_path / "s", echo):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    assert not (tmp_path / "s").exists()


def test_one_connection_too_many_is_refused_and_the_next_after_an_end_is_served(
    tmp_path: Path, echo: int, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(relay, "MOST", 2)
    with relaying(tmp_path / "s", echo):
        open_ones = [linked(tmp_path / "s") for _ in range(2)]
        for made in open_ones:
            made.sendall(b"12")
            assert made.recv(9) == b"21"
        with pytest.raises(ConnectionRefusedError, match="no connection to give") as refused:
            linked(tmp_path / "s")
        assert not isinstance(refused.value, NodeAbsent)
        open_ones[0].close()
        wait_until(lambda: _served(tmp_path / "s"))
        open_ones[1].sendall(b"34")
        assert open_ones[1].recv(9) == b"43"
        open_ones[1].close()


def _served(path: Path) -> bool:
    try:
        return said(path, b"xy") == b"yx"
    except OSError:
        return False


@pytest.mark.servers
def test_a_silent_connection_is_closed_and_a_talking_one_is_not(tmp_path, echo, monkeypatch):
    idle, longest = 0.5, 1.0
    while longest >= idle:  # this process came too late to talk, as it may on a busy machine: again, with more time
        idle *= 2
        monkeypatch.setattr(relay, "IDLE_SECONDS", idle)
        with relaying(tmp_path / "s", echo), linked(tmp_path / "s") as made:
            longest, began = 0.0, time.monotonic()
            last, heard = began, list[bytes]()
            while last - began < 1.5 * idle and longest < idle:
                time.sleep(idle / 10)
                with suppress(BrokenPipeError, ConnectionResetError):
                    made.sendall(b"ab")
                    heard.append(made.recv(9))
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if longest < idle:
                assert set(heard) == {b"ba"}
                assert made.recv(9) == b""


def test_where_nobody_listens_on_the_port_there_is_no_connection(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with relaying(tmp_path / "s", port), pytest.raises(NodeAbsent, match="the node is not there"):
        linked(tmp_path / "s")


def test_where_no_pair_of_sockets_can_be_made_the_nodes_end_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def too_many() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    with socket.create_server(("127.0.0.1", 0)) as node, relaying(tmp_path / "s", node.getsockname()[1]):
        monkeypatch.setattr(socket, "socketpair", too_many)
        with pytest.raises(ConnectionRefusedError, match="no connection to give"):
            linked(tmp_path / "s")
        made, _ = node.accept()
        made.settimeout(5)
        assert made.recv(1) == b""
        made.close()


def test_open_connections_do_not_hold_up_the_end(tmp_path: Path, echo: int):
    began = time.monotonic()
    with relaying(tmp_path / "s", echo):
        made = linked(tmp_path / "s")
        made.sendall(b"ab")
        assert made.recv(9) == b"ba"
    assert made.recv(9) == b""
    made.close()
    assert time.monotonic() - began < 30  # not until the connection has been silent for long
    assert not [thread for thread in threading.enumerate() if thread.name == "gate-relay"]


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path, echo: int):
    bound(tmp_path / "s").close()
    assert (tmp_path / "s").is_socket()
    with relaying(tmp_path / "s", echo):
        with pytest.raises(UsageError, match="is served already"):
            bound(tmp_path / "s")
        assert said(tmp_path / "s", b"12") == b"21"


def test_what_is_not_a_socket_is_left_alone(tmp_path: Path):
    (tmp_path / "table.csv").write_text("1")
    (tmp_path / "s").symlink_to(tmp_path / "table.csv")
    for name in ("table.csv", "s"):
        with pytest.raises(UsageError, match="is not a socket"):
            bound(tmp_path / name)
    assert (tmp_path / "table.csv").read_text() == "1"
    with pytest.raises(UsageError, match="too long"):
        bound(tmp_path / ("x" * 120))
