"""Process of the network.

It is Flower's SuperNode of a site with the relay to the gate; it has no data.

What is replaced in Flower's own modules (their names are in `flower_names.py`):

- `time` of the SuperNode's loop: its `sleep(3)` between two questions to the server and its `sleep(0.5)` until
  the gate has answered are the only two things it uses `time` for (`paced`);
- `_pull_and_store_message`; of the node's state `msg_store` is looked at, and its entries' `is_retrieved` and
  `message`: a reply that was left is sent (`nothing_left_unsent`);
- `pull_objects`, with `initial_backoff`: parts that come later are asked for soon (`parts_soon`);
- `ProtobufClient.__init__`, with `_client`: made by Flower to follow redirects, also to another host, with the
  message in the body (`stay_with_the_host`).

The rest is in `connection.py`. A name that is not there ends the process with a sentence: a new Flower is not
used half-guarded.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flfed import flower_names
from flfed.deployment.flower.pacing import Pace
from flfed.deployment.processes.child_processes import Pulse, free_port, make_secret, node_command, shared_secret
from flfed.deployment.processes.connection import Connection, notice_a_gate_anew
from flfed.deployment.processes.relay import relaying
from flfed.deployment.processes.supervisor import NEWS
from flfed.errors import FlfedError
from flfed.flower_names import check_names, replace, replace_name
from flfed.folders import SiteFolder

LEAST, MOST = 0.15, 10.0
"""Seconds between two questions to the server: 0.15 while a study runs, 3 after a minute with no message, then 10."""
ANSWERING = 0.02
"""Seconds between two looks for the gate's answer, in this process's own memory."""
PARTS = 0.05
"""Seconds until the second question for a part of a message; each further wait is twice as long, up to 10 s."""
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True)
class PacedTime:
    """Replacement for `time` in the SuperNode's loop.

    It waits as long as flfed's own pace says.

    Attributes
    ----------
    pace : Pace
    wait : callable
        Waits some seconds; tests pass their own.
    """

    pace: Pace
    wait: Callable[[float], None] = time.sleep

    def sleep(self, seconds: float) -> None:
        """Wait at flfed's pace.

        1 s and more is Flower's wait for the next message; less is its wait for the gate's answer.
        """
        if seconds >= 1:
            self.wait(self.pace.seconds())
        else:
            self.pace.came()
            self.wait(min(seconds, ANSWERING))


def paced(pace: Pace) -> None:
    """Apply flfed's pace to this process's SuperNode."""
    replace("node_time", PacedTime(pace))


def nothing_left_unsent() -> None:
    """Send waiting replies also without a new message.

    It changes the SuperNode of this process.

    Flower's loop looks for replies only after a message. Where a run ended while a message of it was on
    its way, the next message's turn goes to the old reply, and its own would wait for the message after.
    """
    pull = flower_names._pull_and_store_message

    def pulled(**given: Any) -> int | None:
        run: int | None = pull(**given)
        if run is None and _unsent(given["state"]):
            return 0  # any run: the loop only asks whether there is one, and then sends what there is
        return run

    replace("_pull_and_store_message", pulled)


def parts_soon() -> None:
    """Ask soon again for parts of a message that are not at the server yet.

    It changes the SuperNode of this process.

    The server hands a message out before all of its parts have come, some hundredths of a second later. Flower waits
    a second then, and longer each time.
    """
    replace("pull_objects", functools.partial(flower_names.pull_objects, initial_backoff=PARTS))


def _unsent(state: Any) -> bool:
    """Tell whether an answer of the gate is unsent.

    Nothing is taken out by looking.
    """
    entries = list(state.msg_store.values())
    return any(not entry.is_retrieved and entry.message.metadata.reply_to_message_id for entry in entries)


def stay_with_the_host(opened: Callable[[Any], None] = lambda client: None) -> None:
    """Forbid redirects to every Flower client here.

    `opened` is given each client of this process.

    Whoever stands at the server's address could else have a site send its messages to any host,
    within the hospital's network too.
    """
    # The class itself is changed, since Flower makes its clients in many places.
    client = flower_names.ProtobufClient
    make = client.__init__

    @functools.wraps(make)
    def made(self: Any, *given: Any, **named: Any) -> None:
        make(self, *given, **named)
        replace_name(self._client, "follow_redirects", False)
        opened(self)

    replace_name(client, "__init__", made)


def say(sentence: str) -> None:
    """Report an event to the log and the supervisor."""
    print(f"{NEWS}{sentence}", file=sys.stderr, flush=True)


def end_process(why: str) -> None:
    """Report why this process ends, and end it.

    Flower leaves the server first; the supervisor starts the process anew.
    """
    print(f"flfed: {why}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def thread_ended(ended: threading.ExceptHookArgs) -> None:
    """End the process after a thread's error.

    Nobody else does what that thread did.
    """
    if ended.exc_type is not SystemExit:
        end_process(f"a thread of Flower's node ended ({ended.exc_type.__name__})")


def work(folder: SiteFolder) -> None:
    """Run the node until this process is told to end."""
    os.environ.update(QUIET, FLWR_HOME=str(folder.network / "flower"))  # read by Flower at its import
    check_names("node")
    port = free_port()  # should another program take it, the process is started again
    words = node_command(folder, port)
    make_secret(folder)
    shared_secret(folder)
    # Every change to Flower's code is made before its command begins.
    connection = Connection(folder.known_as, Pulse(folder.node_pulse), say)
    stay_with_the_host(connection.opened)
    connection.install()
    paced(Pace(LEAST, MOST))
    nothing_left_unsent()
    parts_soon()
    notice_a_gate_anew(end_process)
    threading.excepthook = thread_ended
    sys.argv = words
    with relaying(folder.socket, port):
        flower_names.flower_supernode()
    # Flower's loop has ended by an error that it only logs; its other threads would stay, and do nothing.
    print("flfed: Flower's node ended by itself", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    try:
        work(SiteFolder(sys.argv[1]))
    except FlfedError as error:
        sys.exit(f"flfed: {error}")
