"""Server of `flfed site serve`.

Node and gate of a site are two processes, kept running and ended together.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from flfed.callbacks import Notify
from flfed.deployment.processes.child_processes import VARIABLE, Pulse, bytes_of, node_command, passed_on, python
from flfed.deployment.processes.isolation import hide_memory
from flfed.deployment.processes.relay import check_free, check_length
from flfed.deployment.processes.supervisor import Child, Life, Supervisor
from flfed.deployment.site_state.trusted_files import open_folder
from flfed.errors import FlfedError, UsageError
from flfed.files import locked
from flfed.paths import SiteFolder

UNTRIED = "it could not be tried"
NODE_SILENCE = 90.0
GATE_SILENCE = 60.0
"""Seconds after which a node none of whose requests the server answered well, and a gate that has not reached its
node and is not answering a message, are ended and started anew. Flower's heart beats every 30 s, also while the gate
computes."""
UNHEARD = "had no request answered well by the coordinator's server"
UNLINKED = "has not reached its node"


#       coordinator's server                 institution
#             ▲ TLS, the site's key          │
#             │                    ┌──── node ────┐   a Unix socket   ┌──── gate ────┐
#             └────────────────────┤ no rows      │◄──── relay ◄──────┤ rows         │
#                                  │ network      │     (connector)   │ no network   │
#                                  └──────────────┘                   └──────────────┘
#                                        ▲ signs of life: files             ▲
#                                        └────────── supervisor ────────────┘
#
# The gate asks and the node answers: nothing can be pushed to where the rows are. The gate leaves the network before
# it imports anything else; where it may not connect to a socket by itself, the connector hands it one.
def children(
    folder: SiteFolder,
    *,
    network: bool,
    gate: bool,
    memory: str = "",
    silence: tuple[float, float] = (NODE_SILENCE, GATE_SILENCE),
) -> list[Child]:
    """Return a site's processes in starting order.

    They end in the opposite order, the gate first.
    """
    limit = {VARIABLE: str(bytes_of(memory))}
    processes = []
    if network:
        node = python("flfed.deployment.processes.node", folder.site)
        life = Life(Pulse(folder.node_pulse), silence[0], UNHEARD)
        processes.append(Child("the node", node, folder.network / "node.log", life=life))
    if gate:
        executor = python("flfed.deployment.processes.executor", folder.site)
        life = Life(Pulse(folder.gate_pulse), silence[1], UNLINKED)
        processes.append(Child("the gate", executor, folder.gate / "gate.log", environment=limit, life=life))
    return processes


def network_left() -> tuple[str, str]:
    """Test the isolation that a process here can reach.

    It is tried whether a process can leave the network, and refuse itself system calls.

    Returns
    -------
    refused, unfiltered : str
        "", or why it cannot.
    """
    # In a process of its own: the test cannot be undone.
    probe = subprocess.run(
        python("flfed.deployment.processes.isolation"),
        env=passed_on(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = probe.stdout.splitlines()
    if probe.returncode == 0 and len(lines) == 2:
        return (lines[0], lines[1])
    return (UNTRIED, UNTRIED)


def serve(
    folder: SiteFolder,
    stop: threading.Event,
    *,
    network: bool = True,
    gate: bool = True,
    notify: Notify,
    memory: str = "",
) -> None:
    """Keep a site's processes running until `stop` is set.

    Parameters
    ----------
    folder : SiteFolder
    stop : threading.Event
    network, gate : bool
        Which of the two to run here; by default both.
    notify : callable
        Told in sentences what happens.
    memory : str
        What the gate's process may have, as "4G"; "" is half of the machine's.

    Raises
    ------
    UsageError, FlfedError
        If the site has not joined, or is being served already; its key may be read by others; or FLFED_HOME is
        too long for a socket.
    """
    if not (network or gate):
        raise UsageError("choose --network-only or --gate-only, not both; with neither, both processes run")
    # Whatever can fail is checked before a process is started, so that its sentence reaches the person.
    check_length(folder.socket)
    limit = bytes_of(memory)
    folder.make()
    with ExitStack() as alone:
        if network:
            node_command(folder, 0)
            check_free(folder.socket)
            _one(alone, folder.network, f"the node of {folder.site}")
            notify(f"node of {folder.site}: log in {folder.network / 'node.log'}")
        if gate:
            _one(alone, folder.gate, f"the gate of {folder.site}")
            hide_memory()  # this process, which the gate is a child of, may connect
            room = _describe_isolation(*network_left(), root=os.geteuid() == 0)
            room += f"; it may have {limit >> 20} MB of memory"
            notify(f"gate of {folder.site}: log in {folder.gate / 'gate.log'}; {room}")
            if why := open_folder(folder):
                notify(f"WARNING, {why}")
        there = children(folder, network=network, gate=gate, memory=memory)
        supervisor = alone.enter_context(Supervisor(there, notify=notify))
        notify("serving; Ctrl-C ends it")
        also = _renewing(folder, supervisor, notify) if network else lambda: None
        supervisor.supervise(stop, also)
        notify("ending")


def _one(alone: ExitStack, folder: Path, what: str) -> None:
    """Hold the folder of the node or the gate.

    Two gates would each answer half of the messages.
    """
    alone.enter_context(
        locked(folder, "serving.lock", taken=f"{folder}: {what} is being served already; end that process first")
    )


def _describe_isolation(refused: str, unfiltered: str = "", *, root: bool) -> str:
    if unfiltered:
        isolation = _describe_isolation(refused, root=root)
        return f"{isolation}; WARNING, it could open a Unix socket that its user may: {unfiltered}"
    if not refused and root:
        return "it has no network; but root could take it back: serve as another user"
    if not refused:
        return "it has no network"
    return f"WARNING, it has data AND a network: {refused}; better: flfed site units"


def _renewing(folder: SiteFolder, supervisor: Supervisor, notify: Notify) -> Callable[[], None]:
    """Return a check for changes of `join.toml`.

    A node reads address, certificates and key at its start only.
    """
    seen = [_changed(folder)]

    def look() -> None:
        now = _changed(folder)
        if now != seen[0] and now:
            seen[0] = now
            notify("what the site knows of its coordinator has changed; the node is started again")
            # A file that cannot be used leaves the running node alone: the old settings may still work.
            try:
                node_command(folder, 0)
            except FlfedError as error:
                notify(str(error))
                return
            supervisor.renew("the node")

    return look


def _changed(folder: SiteFolder) -> int:
    """Return when `join.toml` was written.

    0 where it is not there. It is the last file that joining writes.
    """
    try:
        return folder.join.stat().st_mtime_ns
    except OSError:
        return 0
