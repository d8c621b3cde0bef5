"""Public proxy of the coordinator, and its port.

Caddy passes on the requests of nodes and refuses all others. By its way of listening (`SO_REUSEPORT`) a second Caddy of
the same account could share the port, and get half of the sites' connections. So the port is tried before, and the
process holds a name for it meanwhile.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flfed.deployment.coordinator.certificates import settings
from flfed.deployment.flower.link import certificate_file
from flfed.deployment.processes.child_processes import passed_on
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder
from flfed.words import flfed_error, usage_error

ROUTES = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
"""Requests of a node of Flower 1.42, under `/v1/fleet/`. Two more, which (un)register nodes, are not for nodes here."""
LARGEST_BODY = "20MB"
"""Limit of a body without a length. `superlink` limits a body with one to less, since it can reply with the reason:
Caddy 2.6 answers 502, which Flower takes for a server that starts, and it repeats the request for ever."""

LISTEN = re.compile(r"(?P<host>[0-9.]+|\[[0-9A-Fa-f:.]+\])?(:(?P<port>[1-9][0-9]{0,4}))?")

PROGRAM_FOLDERS = ("/usr/bin", "/usr/local/bin")
"""Folders where Caddy may be although `PATH` lacks them."""
CADDYFILE = Path(__file__).with_name("Caddyfile")
"""Its host, address and ports were checked before: it holds no text of another origin.

Caddy asks the SuperLink (`Expect`) before it passes on a body, or reads more of it than came with the headers. HTTP/1.1
alone: over HTTP/2 one connection could begin and drop requests without end. Caddy does not wait for a refused sender.
"""


def listening(text: str) -> tuple[str, int]:
    """Return the address and port of `--listen`.

    "" and 0 stand for the parts that the option leaves out.

    Examples
    --------
    >>> listening(""), listening("10.0.0.5"), listening(":8443"), listening("[::1]:8443")
    (('', 0), ('10.0.0.5', 0), ('', 8443), ('::1', 8443))
    """
    match = LISTEN.fullmatch(text)
    try:
        if match is None or int(match["port"] or 0) > 65535:
            raise ValueError
        # An address is parsed as one, so that nothing else gets into Caddy's configuration.
        host = (match["host"] or "").strip("[]")
        if host:
            host = str(ipaddress.ip_address(host))
        return host, int(match["port"] or 0)
    except ValueError:
        raise usage_error("coordinator.proxy.listen", text=text[:100]) from None


def caddyfile(folder: CoordinatorFolder) -> Path:
    """Return the path of Caddy's configuration."""
    return folder.server / "Caddyfile"


def environment(folder: CoordinatorFolder) -> dict[str, str]:
    """Return Caddy's environment.

    Caddy's files are in the server's folder, and none in a person's home.
    """
    return {name: str(folder.server) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}


def command(folder: CoordinatorFolder) -> tuple[str, ...]:
    """Return the command that starts Caddy."""
    return (find_caddy(), "run", "--config", str(caddyfile(folder)), "--adapter", "caddyfile")


def write_caddyfile(folder: CoordinatorFolder, inside: int, *, bind: str = "", port: int = 0) -> None:
    """Write Caddy's configuration and have Caddy check it.

    Parameters
    ----------
    folder : CoordinatorFolder
    inside : int
        The SuperLink's port on loopback.
    bind : str
        The address to listen on; all of the machine's where empty.
    port : int
        The port to listen on; that of the public address where 0.

    Raises
    ------
    FlfedError
        If Caddy is missing, or refuses its configuration.
    """
    coordinator_settings = settings(folder)
    listen = f"\tbind {bind}\n" if bind else ""
    words = {
        "HOST": coordinator_settings.host,
        "PORT": str(port or coordinator_settings.port),
        "BIND": listen,
        "SERVER_CRT": _quoted(folder.keys / "server.crt"),
        "SERVER_KEY": _quoted(folder.keys / "server.key"),
        "LOOPBACK_CRT": _quoted(certificate_file(folder)),
        "ROUTES": " ".join(f"/v1/fleet/{route}" for route in ROUTES),
        "LARGEST": LARGEST_BODY,
        "INSIDE": str(inside),
    }
    text = CADDYFILE.read_text("utf-8")
    # Every value was checked or quoted before, so that a plain replacement is safe.
    for word, value in words.items():
        text = text.replace(word, value)
    path = caddyfile(folder)
    write_whole(path, text.encode())
    arguments = [find_caddy(), "validate", "--config", str(path), "--adapter", "caddyfile"]
    variables = {**passed_on(), **environment(folder)}
    done = subprocess.run(arguments, env=variables, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no reason").splitlines()[-1]
        raise flfed_error("coordinator.proxy.refused", file=path, why=last)


def _quoted(path: Path) -> str:
    """Return a path as one word of the configuration."""
    # Characters that could end the word, or begin a block or a placeholder, are refused.
    if any(sign in str(path) for sign in '"`{}\\\n'):
        raise usage_error("coordinator.proxy.path", path=path)
    return f'"{path}"'


def find_caddy() -> str:
    """Return the path of Caddy.

    Raises
    ------
    FlfedError
        If it is not installed.
    """
    program = shutil.which("caddy", path=os.pathsep.join((os.environ.get("PATH", ""), *PROGRAM_FOLDERS)))
    if program is None:
        raise flfed_error("coordinator.proxy.absent")
    return program


ASK_SECONDS = 2.0


@contextmanager
def holding(bind: str, port: int) -> Iterator[None]:
    """Hold a port for a serving coordinator.

    The port is held while the block runs.

    Parameters
    ----------
    bind : str
        The address; all of the machine's where empty.
    port : int

    Raises
    ------
    UsageError
        If another coordinator of this account has the port, or another program listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as name:
        # Names without a file exist on Linux alone; elsewhere only the port itself is tried.
        if sys.platform == "linux":
            _take(name, f"\0flfed-coordinator-{bind or '*'}-{port}-{os.geteuid()}", port)
        try:
            _check_free(bind, port)
            yield
        finally:
            with suppress(OSError):
                name.shutdown(socket.SHUT_RDWR)  # ends the thread that waits for a connection


def _take(name: socket.socket, text: str, port: int) -> None:
    """Take a name that only one process can have.

    It is free again as soon as the process ends.

    Such a name belongs to no account: a name that another account took only to be in the way does not count.
    """
    try:
        name.bind(text)
        name.listen()
    except OSError as error:
        # Only a holder of the same account counts: a stranger could hold it to keep this one from serving.
        if error.errno == errno.EADDRINUSE and _owner(text) == os.geteuid():
            raise usage_error("coordinator.proxy.coordinator", port=port) from None
        return
    threading.Thread(target=_answer, args=(name,), daemon=True).start()


def _answer(name: socket.socket) -> None:
    """Accept and close each connection.

    Connections that are not accepted fill the queue, and then no owner can be asked for any more.
    """
    with suppress(OSError):
        while True:
            name.accept()[0].close()


def _owner(text: str) -> int | None:
    """Return the account that holds a name.

    None where the name's holder does not show it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_SECONDS)
        try:
            connection.connect(text)
        except OSError:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])


def _check_free(bind: str, port: int) -> None:
    """Refuse a port on which a program listens.

    Where this account may not take the port at all, Caddy reports it better.
    """
    # Without an address both families are tried: a listener on either would get some of the connections.
    addresses = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
    if bind:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        addresses = {family: bind}
    for family, address in addresses.items():
        if _is_taken(family, address, port, bind):
            raise usage_error("coordinator.proxy.busy", port=port)


def _is_taken(family: socket.AddressFamily, address: str, port: int, bind: str) -> bool:
    """Return whether a program listens at an address.

    Only what this account can see counts.
    """
    try:
        tried = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return False  # a machine without it
    with tried:
        # Past connections of a server that has ended do not count, but one that listens does.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            tried.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE or (error.errno == errno.EACCES and _answers(bind, port))
    return False


def _answers(bind: str, port: int) -> bool:
    """Return whether a program answers on a port.

    It is for ports that this account may not take: binding cannot test them.
    """
    try:
        socket.create_connection((bind or "127.0.0.1", port), ASK_SECONDS).close()
    except OSError:
        return False
    return True
