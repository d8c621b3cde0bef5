"""Process of the gate.

It has the data and no network; `message_loop` answers one message after the other.

Run as a program (`python -m flfed.deployment.processes.executor SITE`) it leaves the network before anything else.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from flfed.deployment.processes.child_processes import Pulse, limit_process
from flfed.deployment.processes.connector import Connector, NodeAbsent
from flfed.deployment.processes.isolation import drop_capabilities, hide_memory, leave_network, refuse_calls
from flfed.deployment.processes.message_loop import Executor, wait_for_secret
from flfed.errors import FlfedError
from flfed.packages import be_strict, look_at_packages
from flfed.paths import SiteFolder
from flfed.words import render

if TYPE_CHECKING:
    from flfed.deployment.flower.site_client import Leaving, Tasks
    from flfed.deployment.processes.message_loop import Compute

    MakeGate = Callable[[SiteFolder], tuple[Compute, Leaving]]


LOG = logging.getLogger("flfed.gate")


def work(folder: SiteFolder, make_gate: MakeGate) -> None:
    """Run the gate until this process receives a signal to end.

    A warning in its log shows where it still has a network.

    Parameters
    ----------
    folder : SiteFolder
    make_gate : callable
        Returns `Gate.answer`, and `Gate.leaving`, which an error passes before it leaves the site.
    """
    look_at_packages()
    pulse = Pulse(folder.gate_pulse)
    pulse.beat()
    refused = leave_network()  # before torch or numpy start a thread
    # The order matters: each step removes a right that an earlier one needed.
    drop_capabilities()
    memory = limit_process()
    connector = Connector(folder.socket)  # it may connect; this process, from here on, may not
    hide_memory()
    unfiltered = refuse_calls()
    # Of other packages only warnings: httpx would write a line for each request to the node, twenty a second.
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("flfed").setLevel(logging.INFO)
    if refused:
        LOG.warning(render("processes.gate.exposed", why=refused))
    else:
        LOG.info(render("processes.gate.isolated"))
    if unfiltered:
        LOG.warning(render("processes.gate.unfiltered", why=unfiltered))
    LOG.info(render("processes.gate.memory", megabytes=memory >> 20))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pulse.note(render("processes.gate.nodeless"))
    secret = wait_for_secret(folder, pulse.beat)
    tasks: Tasks | None = None
    try:
        with pulse.busy():  # loading takes as long as the machine is busy
            tasks, executor = _loaded(folder, make_gate, connector, secret, pulse)
        executor.run(threading.Event())
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        # Closed in any case: the connector ends with its gate.
        if tasks is not None:
            tasks.close()
        connector.close()


def _loaded(
    folder: SiteFolder, make_gate: MakeGate, connector: Connector, secret: bytes, pulse: Pulse
) -> tuple[Tasks, Executor]:
    """Load the gate and its message loop.

    Torch, Flower and the site's package are imported. Return the requests to the node, and the answering loop.
    """
    from flfed.flower_names import check_names

    check_names("gate")
    from flfed.deployment.flower.site_client import Tasks

    answer, leaving = make_gate(folder)

    def connect() -> socket.socket:
        try:
            return connector.connect()
        except NodeAbsent:
            pulse.beat()  # no fault of this process: a new one would not reach the node either
            raise

    received = Pulse(folder.download_pulse).seen
    tasks = Tasks(connect, secret, leaving=leaving, alive=pulse.beat, received=received, note=pulse.note)
    return tasks, Executor(tasks, answer, pulse)


def gate_of(folder: SiteFolder) -> tuple[Compute, Leaving]:
    """Return a site's gate as two functions.

    They are its decisions around the client app that is installed here.
    """
    from flfed.deployment.gate.gate import Gate
    from flfed.rows.data import site_discovery as sites

    gate = Gate(folder, sites.load(folder.site))
    return gate.answer, gate.leaving


if __name__ == "__main__":
    be_strict()
    try:
        work(SiteFolder(sys.argv[1]), gate_of)
    except FlfedError as error:
        sys.exit(f"flfed: {error}")
