"""A gate's process for tests: the real one, with an answer that tells what it could reach and read.

`stacked_compute.py SITE [SECONDS]`; so many seconds its loading takes longer.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flfed.deployment.processes.executor import work
from flfed.paths import SiteFolder

if TYPE_CHECKING:
    from flwr.app import Context, Message


def tried(attempt: Callable[[], object]) -> str:
    """Return "reached", or the error's type."""
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "reached"


def reached(addresses: list[str]) -> list[str]:
    """Try each of `host|port`; where the port is 0, only the name is looked up."""
    found = []
    for address in addresses:
        host, _, port = address.partition("|")
        if port == "0":
            found.append(tried(lambda host=host: socket.getaddrinfo(host, 443)))
        else:
            found.append(tried(lambda host=host, port=port: socket.create_connection((host, int(port)), 3).close()))
    return found


def table_of(size: int) -> object:
    """Return a table of so many bytes, put together of pieces as a file's parts are."""
    import numpy as np
    import pandas as pd

    piece = pd.DataFrame({"age": np.ones(1_000_000), "chol": np.ones(1_000_000)})
    return pd.concat([piece.copy() for _ in range(size // 16_000_000)], ignore_index=True)


def make(folder: SiteFolder) -> tuple[Callable[..., Message], Callable[..., Message]]:
    import torch
    from flwr.app import ConfigRecord, Message, RecordDict

    time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)

    def answer(message: Message, context: Context) -> Message:
        asked = message.content["config"]
        if "sleep" in asked:
            time.sleep(float(asked["sleep"]))
        if "table" in asked:
            table_of(int(asked["table"]))
        if "tensor" in asked:
            torch.ones(int(asked["tensor"]) // 4)
        if "killed" in asked:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where a unit's memory is used up
        if "raise" in asked:
            raise KeyError(asked["raise"])
        found = {
            "site": str(context.node_config["site"]), "process": os.getpid(), "user": os.getuid(),
            "reached": reached(list(asked.get("addresses", []))) or ["none"],
            "read": [tried(Path(path).read_bytes) for path in asked.get("files", [])] or ["none"],
        }  # fmt: skip
        return Message(RecordDict({"config": ConfigRecord(found)}), reply_to=message)

    return answer, lambda asked, reply, context: reply


if __name__ == "__main__":
    work(SiteFolder(sys.argv[1]), make)
