"""Strangers at a port: opens connections at a rate, at nice 19, and says at its end what became of them.

`strangers.py ORDERS`, a JSON object: `port` and `ca`; `kinds` of what they do, in turn; `most` open at a time, opened
`rate` a second, anew where one is closed; `headers` of requests, each a mapping, in turn. It ends on SIGTERM.
"""

import asyncio
import base64
import itertools
import json
import os
import signal
import ssl
import sys
from collections import Counter
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey

from flfed.callbacks import now_utc
from flfed.deployment.flower.link import pem_of
from flfed.signatures import public_text

BODY = 15_900_000


def headers(
    key: EllipticCurvePrivateKey, *, signer: EllipticCurvePrivateKey | None = None, age: float = 0
) -> dict[str, str]:
    """Return what a node with a key says of itself, so many seconds ago."""
    time_ = (now_utc() - timedelta(seconds=age)).isoformat()
    signature = (signer or key).sign(time_.encode(), ECDSA(hashes.SHA256()))
    public = base64.b64encode(pem_of(public_text(key.public_key()))).decode()
    return {"flwr-public-key": public, "flwr-timestamp": time_, "flwr-signature": base64.b64encode(signature).decode()}


class Strangers:
    """Connections of some kinds.

    - bodies: all of a large body but its last byte
    - slow: one byte of a large body each second
    - chunked: the same, not saying how much there will be
    - header: one byte of a header each second
    - silent: nothing at all, not even TLS
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders, self.statuses = orders, Counter[str]()
        self.trusted = ssl.create_default_context(cafile=orders["ca"])
        self.headers, self.kinds = itertools.cycle(orders["headers"]), itertools.cycle(orders["kinds"])
        self.opened = self.open = self.most_open = 0

    async def hold(self) -> None:
        self.opened += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            self.statuses[await self.connection()] += 1
        except OSError as error:
            self.statuses[type(error).__name__] += 1
        finally:
            self.open -= 1

    async def connection(self) -> str:
        """Return the status that was answered, or that the connection was closed."""
        kind, port = next(self.kinds), self.orders["port"]
        tls = {} if kind == "silent" else {"ssl": self.trusted, "server_hostname": "localhost"}
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **tls)
        sending = asyncio.create_task(self.send(kind, writer))
        try:
            line = await reader.readline()
            return line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"
        finally:
            sending.cancel()
            writer.transport.abort()

    async def send(self, kind: str, writer: asyncio.StreamWriter) -> None:
        length = "Transfer-Encoding: chunked" if kind == "chunked" else f"Content-Length: {BODY}"
        words = [f"{name}: {value}" for name, value in next(self.headers).items()]
        start = "POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/protobuf"
        head = "\r\n".join([start, length, *words]).encode()
        piece = {"header": b"x", "slow": b"x", "chunked": b"1\r\nx\r\n"}.get(kind, b"")
        if kind != "silent":
            writer.write(head + (b"\r\nX-Slow: " if kind == "header" else b"\r\n\r\n"))
        for _ in range(BODY // 100_000) if kind == "bodies" else ():
            if writer.transport.is_closing():
                return
            writer.write(bytes(99_999))
            await writer.drain()
        while not writer.transport.is_closing():
            await asyncio.sleep(1)
            writer.write(piece)
            await writer.drain()


async def main(orders: dict[str, Any]) -> None:
    strangers, running = Strangers(orders), set[asyncio.Task[None]]()
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    print("ready", flush=True)
    while not end.is_set():
        if strangers.open < orders["most"]:
            running.add(made := asyncio.create_task(strangers.hold()))
            made.add_done_callback(running.discard)
        await asyncio.sleep(1 / orders["rate"])
    held = strangers.open
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    print(json.dumps({"opened": strangers.opened, "most": strangers.most_open, "held": held, **strangers.statuses}))


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(main(json.loads(sys.argv[1])))
