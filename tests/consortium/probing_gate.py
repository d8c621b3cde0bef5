"""The gate's own process, which also tries to get out before it answers: `probing_gate.py SITE PORT PORT … FILE`.

PORTs listen on this machine; what came of each try goes to FILE, a JSON line a message.
"""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flfed.deployment.processes.executor import gate_of, work
from flfed.paths import SiteFolder

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
ABSTRACT = "\0flfed-outside"
"""A Unix socket without a file: it belongs to a network, as a port does."""


def tried(attempt: Callable[[], object]) -> str:
    """Return "reached", or the error's type."""
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "reached"


def to(family: int, kind: int, place: Any) -> Callable[[], object]:
    """Return an attempt to reach a place."""

    def attempt() -> None:
        with socket.socket(family, kind) as made:
            made.settimeout(3)
            made.connect(place)
            made.send(b"row")

    return attempt


def raw() -> None:
    """Send an ICMP message; within its own empty network the process may make such a socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as made:
        made.sendto(bytes(8), ("127.0.0.1", 0))


def packets() -> None:
    """Send a packet through any interface that there is, the loopback too."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind((name, 0))
            made.send(bytes(64))


def attempts(ports: list[int]) -> dict[str, Callable[[], object]]:
    """Return the ways out that are tried, by name."""
    found: dict[str, Callable[[], object]] = {}
    for port in ports:
        found[f"IPv4 {port}"] = to(socket.AF_INET, TCP, ("127.0.0.1", port))
        found[f"IPv6 {port}"] = to(socket.AF_INET6, TCP, ("::1", port))
    return {
        **found, "IPv4 outside": to(socket.AF_INET, TCP, ("192.0.2.1", 443)),
        "IPv6 outside": to(socket.AF_INET6, TCP, ("2001:db8::1", 443)),
        "UDP": to(socket.AF_INET, UDP, ("192.0.2.1", 53)), "UDP here": to(socket.AF_INET, UDP, ("127.0.0.1", ports[0])),
        "a name": lambda: socket.getaddrinfo("example.org", 443), "raw": raw, "packets": packets,
        "abstract": to(socket.AF_UNIX, TCP, ABSTRACT),
    }  # fmt: skip


def make(folder: SiteFolder) -> Any:
    """Make the gate of the site as it is, with an attempt to get out around each answer."""
    answer, leaving = gate_of(folder)
    ports, told = [int(word) for word in sys.argv[2:-1]], Path(sys.argv[-1])

    def probing(message: Any, context: Any) -> Any:
        found = {name: tried(attempt) for name, attempt in attempts(ports).items()}
        with told.open("a") as file:
            file.write(json.dumps({"asked": message.metadata.message_type, **found}) + "\n")
        return answer(message, context)

    return probing, leaving


if __name__ == "__main__":
    work(SiteFolder(sys.argv[1]), make)
