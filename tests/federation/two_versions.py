"""A run of three sites, the second of another version of flfed: `two_versions.py PATH STUDY OUT`.

This process has the server and two sites, of the version that it imports; a process of its own, whose PYTHONPATH is
PATH, has the other one. What crosses to that site and from it goes to the file OUT, with what became of the run.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcess, InProcessGrid
from flfed.records.store.reader import RunReader
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Frame
from flfed.study.study import Study
from tests.conftest import small_table

SITES, OTHER = ("site-01", "site-02", "site-03"), 2


def site(number: int) -> Site:
    """Return a site, which gives the counts of its scores."""
    return Site(
        name=SITES[number - 1],
        dataset="small",
        source=Frame(small_table(60 + 10 * number, seed=number)),
        holdout=Holdout(salt=f"salt-{number}"),
        policy=Policy(disclosure="open", resplit=True, outputs=("score-histogram",)),
    )


def put(stream: BinaryIO, content: bytes) -> None:
    """Write one message, after its length."""
    stream.write(struct.pack("<I", len(content)) + content)
    stream.flush()


def taken(stream: BinaryIO) -> bytes:
    """Return the next message, or nothing at the end."""
    length = stream.read(4)
    return stream.read(struct.unpack("<I", length)[0]) if length else b""


def answer(study: str) -> None:
    """Be the other site: answer what comes until it ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    grid = InProcessGrid(SiteClient(lambda name, _: site(OTHER)).app(), SITES, {"study": study, "repeat": 0})
    while content := taken(sys.stdin.buffer):
        (reply,) = grid.send_and_receive([message_from_proto(ProtoMessage.FromString(content))])
        put(out, message_to_proto(reply).SerializeToString())


def conduct(path: str, study: str, out: Path) -> None:
    """Conduct the run, and write down what crossed and what came of it."""
    other = subprocess.Popen(
        [sys.executable, __file__, "answer", study], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    crossed: list[tuple[str, str, str]] = []
    plainly = InProcessGrid.send_and_receive

    def told(message: Message) -> str:
        # Of an error the words, of content the bytes.
        if message.has_error():
            return str(message.error.reason)
        return recorddict_to_proto(message.content).SerializeToString(deterministic=True).hex()

    def send(self: InProcessGrid, messages: Any, *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            if message.metadata.dst_node_id != OTHER:
                replies += plainly(self, [message], timeout=timeout)
                continue
            kind = message.metadata.message_type
            crossed.append((kind, "to-site", told(message)))
            put(other.stdin, message_to_proto(self.numbered(message)).SerializeToString())
            reply = message_from_proto(ProtoMessage.FromString(taken(other.stdout)))
            crossed.append((kind, "to-server", told(reply)))
            replies.append(reply)
        return replies

    @contextmanager
    def started(self: InProcess, *given: Any) -> Iterator[tuple[Any, None]]:
        # No process holds every table.
        with engine(self, *given) as (grid, _):
            yield grid, None

    engine, InProcess.started = InProcess.started, started  # type: ignore[method-assign]  # - as below
    InProcessGrid.send_and_receive = send  # type: ignore[method-assign]  # - it is what a test listens at
    from flfed.errors import FlfedError
    from flfed.federation.server.run import run

    said = ""
    try:
        run(Study.parse(study), sites=[site(number) for number in (1, 2, 3)], stacked=False)
    except FlfedError as error:
        said = str(error)
    with RunReader.open() as reader:
        (entry,) = reader.runs()
        reasons = {
            event.site: event.reason for event in reader.events([entry.run]) if event.kind in ("fault", "refused")
        }
    other.stdin.close()
    other.wait(30)
    found = {"status": entry.status, "sha256": entry.arrays_sha256, "said": said, "reasons": reasons}
    out.write_text(json.dumps({**found, "crossed": crossed}), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "answer":
        answer(sys.argv[2])
    else:
        conduct(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
