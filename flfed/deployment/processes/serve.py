"""Server of `flfed site serve`.

Node and gate of a site are two processes; they are supervised and ended together.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from flfed.callbacks import Notify
from flfed.deployment.operator.outbound_proxy import read_proxy
from flfed.deployment.processes.child_processes import (
    VARIABLE,
    Pulse,
    bytes_of,
    node_command,
    passed_on,
    python,
)
from flfed.deployment.processes.isolation import hide_memory
from flfed.deployment.processes.relay import check_free, check_length
from flfed.deployment.processes.supervisor import Child, Life, Supervisor
from flfed.deployment.site_state.trusted_files import open_folder
from flfed.errors import FlfedError
from flfed.files import locked
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.words import render, usage_error

NODE_SILENCE = 90.0
GATE_SILENCE = 60.0
"""Seconds of silence after which a process is ended and restarted. A node is silent without a successful request to
the server; a gate without a link to its node while it answers no message. Flower's heartbeat comes every 30 s, also
while the gate computes."""
STARTUP = 600.0
"""Seconds that a process may take until its first sign of life. They are no silence."""


#       coordinator's server                 institution
#             ▲ TLS, the site's key          │
#             │                    ┌──── node ────┐   a Unix socket   ┌──── gate ────┐
#             └────────────────────┤ no rows      │◄──── relay ◄──────┤ rows         │
#                                  │ network      │     (connector)   │ no network   │
#                                  └──────────────┘                   └──────────────┘
#                                        ▲ signs of life: files             ▲
#                                        └────────── supervisor ────────────┘
#
# Requests go from the gate to the node: nothing can be pushed to the process with the rows. The gate leaves the
# network before it imports anything else. It may not connect to a socket by itself, so the connector hands it one.
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
    settings = {VARIABLE: str(bytes_of(memory))}
    processes = []
    if network:
        node = python("flfed.deployment.processes.node", folder.site)
        life = Life(Pulse(folder.node_pulse), silence[0], render("processes.silence.node"), STARTUP)
        processes.append(Child("the node", node, folder.network / "node.log", life=life))
    if gate:
        executor = python("flfed.deployment.processes.executor", folder.site)
        life = Life(Pulse(folder.gate_pulse), silence[1], render("processes.silence.gate"), STARTUP)
        processes.append(Child("the gate", executor, folder.gate / "gate.log", environment=settings, life=life))
    return processes


def network_left() -> tuple[str, str]:
    """Test the isolation that a process here can reach.

    A child process tries to leave the network, and to refuse itself system calls.

    Returns
    -------
    refused, unfiltered : str
        "", or why it failed.
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
    untried = render("processes.isolation.untried")
    return (untried, untried)


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
        Receives sentences about events.
    memory : str
        Limit of the gate's process, as "4G"; "" is half of the machine's.

    Raises
    ------
    UsageError, FlfedError
        If the site has not joined, or is served already; others may read its key; or FLFED_HOME is too long for a
        socket.
    """
    if not (network or gate):
        raise usage_error("processes.start.both")
    # Whatever can fail is checked before a process is started, so that its sentence reaches the person.
    check_length(folder.socket)
    limit = bytes_of(memory)
    folder.make()
    with ExitStack() as alone:
        if network:
            node_command(folder, 0)
            read_proxy(folder)
            check_free(folder.socket)
            _lock(alone, folder.network, "node", folder.site)
            notify(render("processes.start.node", site=folder.site, log=folder.network / "node.log"))
        if gate:
            _lock(alone, folder.gate, "gate", folder.site)
            hide_memory()  # this process, the gate's parent, may connect
            facts = {
                "site": folder.site,
                "log": folder.gate / "gate.log",
                "isolation": _describe_isolation(*network_left(), root=os.geteuid() == 0),
                "megabytes": limit >> 20,
            }
            notify(render("processes.start.gate", **facts))
            notify(_describe_ledger(folder))
            if why := open_folder(folder):
                notify(f"WARNING, {why}")
        there = children(folder, network=network, gate=gate, memory=memory)
        supervisor = alone.enter_context(Supervisor(there, notify=notify))
        notify(render("processes.start.serving"))
        also = _renewing(folder, supervisor, notify) if network else lambda: None
        supervisor.supervise(stop, also)
        notify("ending")


def _describe_ledger(folder: SiteFolder) -> str:
    """Return number and day of the ledger's last line, by which people see that it is not an older one."""
    try:
        last = ledger_of(folder).last()
    except FlfedError as error:
        return str(error)
    if last is None:
        return render("processes.start.no-line")
    return render("processes.start.last-line", n=last.n, day=last.at[:10])


def _lock(alone: ExitStack, folder: Path, process: str, site: str) -> None:
    """Lock the folder of the node or the gate.

    Two gates would each answer half of the messages.
    """
    taken = render("processes.start.taken", folder=folder, process=process, site=site)
    alone.enter_context(locked(folder, "serving.lock", taken=taken))


def _describe_isolation(refused: str, unfiltered: str = "", *, root: bool) -> str:
    if unfiltered:
        isolation = _describe_isolation(refused, root=root)
        return render("processes.isolation.unfiltered", isolation=isolation, why=unfiltered)
    if not refused and root:
        return render("processes.isolation.root")
    if not refused:
        return render("processes.isolation.complete")
    return render("processes.isolation.exposed", why=refused)


def _renewing(folder: SiteFolder, supervisor: Supervisor, notify: Notify) -> Callable[[], None]:
    """Return a check for changes of `join.toml` and of the proxy.

    A node reads address, certificates, key and proxy only at its start.
    """
    seen = [_changed(folder)]

    def look() -> None:
        now = _changed(folder)
        if now != seen[0] and now[0]:
            seen[0] = now
            notify(render("processes.node.joined"))
            # An unusable file leaves the running node alone: the old settings may still work.
            try:
                node_command(folder, 0)
                read_proxy(folder)
            except FlfedError as error:
                notify(str(error))
                return
            supervisor.renew("the node")

    return look


def _changed(folder: SiteFolder) -> list[int]:
    """Return when `join.toml` and the proxy's file were written.

    0 where one is absent. `join.toml` is the last file that joining writes.
    """
    times = [0, 0]
    for number, path in enumerate((folder.join, folder.proxy)):
        with suppress(OSError):
            times[number] = path.stat().st_mtime_ns
    return times
