"""Processes of a rehearsal: coordinator and sites, and the apps of the coordinator and of one site.

All of them end with the process that rehearses: the kernel kills them where it is killed.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from flfed.callbacks import Notify
from flfed.deployment.coordinator.status import status
from flfed.deployment.processes.child_processes import free_port
from flfed.deployment.processes.supervisor import OURS, Child, Supervisor
from flfed.deployment.rehearsal.consortium import Rehearsal, at_home, undisturbed
from flfed.paths import CoordinatorFolder
from flfed.records.store.entries import EventRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.words import counted, flfed_error, render

FLFED = (sys.executable, "-P", "-c", "from flfed.cli import main; main()")
ADDRESS = re.compile(r"^Open (http\S+)$", re.MULTILINE)
"""Line in which an app prints its address."""
ONLINE_SECONDS = 60.0
SITE_SECONDS = 30.0
"""How long all sites may take to be online, in all and for each site: they start side by side on few cores."""
APP_SECONDS = 60.0
LOG_LINES = 15
"""Last lines of a log that are shown where its process fails."""
TRACE = "Traceback (most recent call last):"
ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")
LOOK_SECONDS = 0.2
Look = Callable[[], None]
"""Raises where a process of the rehearsal has ended."""
PATIENCE_SECONDS = 30.0
"""How long a process may take to end: it ends up to two others first, with ten seconds each."""


@contextmanager
def supervised(children: Sequence[Child], notify: Notify) -> Iterator[Look]:
    """Run processes while the block runs; yield a function that raises where one of them has ended."""
    with Supervisor(children, patience=PATIENCE_SECONDS) as supervisor:
        try:
            yield partial(_look, supervisor, children, notify)
        finally:
            with undisturbed():
                # A closed terminal refuses the sentence: the processes end all the same, undisturbed.
                try:
                    notify(render("rehearsal.steps.ending", commands=counted(len(children), "command")))
                finally:
                    # All but the first, which is the coordinator, end at the same time.
                    pids = list(supervisor.processes.values())
                    for pid in pids[1:]:
                        with suppress(ProcessLookupError):
                            os.killpg(pid, signal.SIGTERM)
                    supervisor.end()


def _look(supervisor: Supervisor, children: Sequence[Child], notify: Notify) -> None:
    supervisor.look()
    for child in children:
        if child.name not in supervisor.processes:
            lines = _show_log(child, notify)
            raise flfed_error("rehearsal.refused.ended", command=child.name, why=" ".join(lines[-1:]))


def _show_log(child: Child, notify: Notify) -> list[str]:
    """Report the last lines of a log, which goes with the folder, and return them."""
    text = child.log.read_text(errors="replace") if child.log.exists() else ""
    lines = _without_messages(text.splitlines())[-LOG_LINES:]
    if lines:
        notify(render("rehearsal.steps.log", command=child.name, lines="\n".join(lines)))
    return lines


def _without_messages(lines: Sequence[str]) -> list[str]:
    """Return lines without the source and the messages of traces: the message of a library may quote a cell."""
    shown = []
    traced = False
    for line in lines:
        traced = (traced or line == TRACE) and not line.startswith(OURS)
        if not traced or line == TRACE or line.startswith('  File "'):
            shown.append(line)
        elif error := ERROR.match(line):
            shown.append(error[0])
    return shown


@contextmanager
def serving(consortium: Rehearsal) -> Iterator[Look]:
    """Let coordinator and sites serve while the block runs, which begins when all sites are online.

    Raises
    ------
    FlfedError
        If a process ends, or a site is not online in time.
    """
    children = [_child(consortium, consortium.coordinator_home, "coordinator", "serve", "--listen", "127.0.0.1")]
    children += [_child(consortium, consortium.home(name), "site", "serve", name) for name in consortium.names]
    consortium.notify(render("rehearsal.steps.starting", commands=counted(len(children), "command")))
    with supervised(children, consortium.notify) as look:
        _wait_online(consortium, look)
        yield look


def _child(consortium: Rehearsal, home: Path, *words: str) -> Child:
    """Return a process that runs a command of flfed at a home."""
    environment = {"FLFED_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    return Child(" ".join(["flfed", *words]), (*FLFED, *words), consortium.folder / f"{home.name}.log", environment)


def _wait_online(consortium: Rehearsal, look: Look) -> None:
    seconds = ONLINE_SECONDS + SITE_SECONDS * len(consortium.names)
    end = time.monotonic() + seconds
    online: list[str] = []
    serves = False
    while len(online) < len(consortium.names):
        if time.monotonic() > end:
            missing = ", ".join(name for name in consortium.names if name not in online)
            raise flfed_error("rehearsal.refused.offline", sites=missing, seconds=seconds)
        time.sleep(LOOK_SECONDS)
        look()
        with at_home(consortium.coordinator_home):
            now = status(CoordinatorFolder.default())
        if now.serving and not serves:
            serves = True
            consortium.notify(render("rehearsal.steps.serving", address=now.address))
        there = [site.site for site in now.sites if site.online_since]
        online = [name for name in online if name in there]
        for name in sorted(set(there) - set(online)):
            online.append(name)
            consortium.notify(render("rehearsal.steps.online", site=name, count=len(online), of=len(consortium.names)))


def note_rehearsal(consortium: Rehearsal) -> None:
    """Write into the record of the run that it was a rehearsal."""
    with at_home(consortium.coordinator_home):
        event = EventRow(None, None, "note", render("rehearsal.record.note"), "rehearsal")
        with RunReader.open() as reader, RunStore.open() as store:
            for entry in reader.runs():
                store.added_to(entry.run).events([event])


@contextmanager
def serving_apps(consortium: Rehearsal) -> Iterator[tuple[Look, list[str]]]:
    """Serve the app of the coordinator and that of the first site while the block runs; yield their addresses, too.

    Raises
    ------
    FlfedError
        If an app ends, or is not there in time.
    """
    options = ("--headless", "--port")
    first = consortium.names[0]
    children = [
        _child(consortium, consortium.coordinator_home, "app", *options, str(free_port())),
        _child(consortium, consortium.home(first), "site", "app", first, *options, str(free_port())),
    ]
    with supervised(children, consortium.notify) as look:
        yield look, [_wait_address(look, child) for child in children]


def _wait_address(look: Look, child: Child) -> str:
    """Return the address that an app prints."""
    end = time.monotonic() + APP_SECONDS
    while time.monotonic() < end:
        look()
        if child.log.exists() and (address := ADDRESS.search(child.log.read_text(errors="replace"))):
            return address[1]
        time.sleep(LOOK_SECONDS)
    raise flfed_error("rehearsal.refused.app", command=child.name, seconds=APP_SECONDS)
