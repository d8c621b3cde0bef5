"""`flfed`, with what crosses written down as bytes: `recording.py FOLDER WORD…`, FLFED_HOME of the coordinator.

Each array of each message, as its numbers lie in memory, becomes a file of its own; one more says whether these bytes
stood in Flower's database while the run went on.
"""

import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from flwr.app import Message

from flfed.cli import main
from flfed.deployment.flower.grid import DeployedGrid
from flfed.deployment.flower.link import database
from flfed.paths import CoordinatorFolder
from flfed.updates.messages.fields import ndarrays

TO = Path(sys.argv[1]) if __name__ == "__main__" else Path()
NUMBERS = count()
send = DeployedGrid.send_and_receive


def written(direction: str, messages: Iterable[Message]) -> list[bytes]:
    """Write down each array's numbers; return those that are long enough to be known by."""
    found = []
    for message in messages:
        for section in message.content.array_records if message.has_content() else ():
            for value in ndarrays(message.content, section).values():
                content = value.tobytes()
                (TO / f"{direction}-{next(NUMBERS):05d}").write_bytes(content)
                found.append(content)
    return [content for content in found if len(set(content)) > 16]


def listening(self: DeployedGrid, messages: Iterable[Message], **given: Any) -> list[Message]:
    """Send and receive, and write down both."""
    asked = list(messages)
    sent = written("sent", asked)
    replies = send(self, asked, **given)
    written("reply", replies)
    place = database(CoordinatorFolder.default())
    during = b"".join(path.read_bytes() for path in place.parent.glob(f"{place.name}*"))
    (TO / f"during-{next(NUMBERS):05d}").write_text(str(sum(content in during for content in sent)))
    return replies


if __name__ == "__main__":
    DeployedGrid.send_and_receive = listening  # type: ignore[method-assign]  # - it is what a test listens at
    sys.argv = ["flfed", *sys.argv[2:]]
    main()
