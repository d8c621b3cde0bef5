"""Server of `flfed coordinator serve`.

The SuperLink listens on loopback behind Caddy, and the list of sites that may connect is updated.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain

from flfed.callbacks import Notify, now_utc
from flfed.deployment.coordinator import proxy
from flfed.deployment.coordinator.certificates import (
    RENEWED_DAYS,
    new_loopback,
    renew_server,
    server_days_left,
    settings,
)
from flfed.deployment.coordinator.node_auth import LOOK_SECONDS, NodeRegistration
from flfed.deployment.coordinator.proxy import holding
from flfed.deployment.flower.control import Control, NotLocked
from flfed.deployment.flower.link import (
    ANSWER_SECONDS,
    Link,
    certificate_file,
    database,
    remove_bodies,
    secret_file,
    serving_file,
)
from flfed.deployment.processes.child_processes import free_port, python
from flfed.deployment.processes.supervisor import Child, Supervisor
from flfed.errors import FlfedError
from flfed.files import locked, read_private, state_of, write_whole
from flfed.paths import CoordinatorFolder
from flfed.words import render, usage_error

ANEW_SECONDS = 60.0
"""How often all is compared although nothing changed, and leftovers of dead runs are removed."""
DAY_SECONDS = 86_400.0
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
}
"""For the SuperLink: no reports, no installations, and the memory of large bodies is returned at once."""


def serve(folder: CoordinatorFolder, stop: threading.Event, *, notify: Notify, bind: str = "", port: int = 0) -> None:
    """Serve until `stop` is set.

    All processes that it started are ended.

    Parameters
    ----------
    folder : CoordinatorFolder
        Of a coordinator that was initialised.
    stop : Event
    notify : callable
        Receives a sentence about each event.
    bind : str
        The address to listen on; all of the machine's where empty.
    port : int
        The port to listen on; that of the public address where 0.

    Raises
    ------
    UsageError
        If it serves already, or another program on this port; has no settings; or its folder is open to others.
    FlfedError
        If Caddy refuses its configuration, or the SuperLink is not locked.
    """
    check_private(folder)
    # Two servers must not write to one database.
    taken = render("coordinator.server.taken", folder=folder.root)
    with ExitStack() as alone:
        alone.enter_context(locked(folder.server, "serving.lock", taken=taken))
        alone.callback(serving_file(folder).unlink, missing_ok=True)
        alone.enter_context(holding(bind, port or settings(folder).port))
        # Before Caddy starts: it reads the certificate once.
        if notice := _renew(folder)[1]:
            notify(notice)
        inside = _prepare(folder, bind, port)
        quiet = {**QUIET, "FLWR_HOME": str(folder.server / "flower"), "HOME": str(folder.server)}
        children = [
            Child("superlink", _superlink(folder, inside), folder.server / "superlink.log", quiet),
            Child("caddy", proxy.command(folder), folder.server / "caddy.log", proxy.environment(folder)),
        ]
        with Supervisor(children, notify=notify) as supervisor:
            supervisor.supervise(stop, Watch(folder, supervisor, notify).look)
    notify(render("coordinator.server.stopped"))


def _renew(folder: CoordinatorFolder) -> tuple[bool, str]:
    """Renew the server's certificate before it expires.

    Return whether it was renewed, and a sentence for people; the sentence is empty where no renewal was due.
    """
    days = server_days_left(folder)
    if days >= RENEWED_DAYS:
        return False, ""
    try:
        renew_server(folder)
    except FlfedError as error:  # such as where the authority's key is stored elsewhere
        return False, render("coordinator.server.expiring", days=days, why=error)
    return True, render("coordinator.server.renewed", days=RENEWED_DAYS)


def check_private(folder: CoordinatorFolder) -> None:
    """Refuse a missing folder, or one open to others.

    Raises
    ------
    UsageError
        With the fault and its remedy.
    """
    settings(folder)
    for path in (folder.root, folder.keys, folder.sites, folder.server):
        path.mkdir(mode=0o700, exist_ok=True)
        file_status = path.stat()
        mode = stat.S_IMODE(file_status.st_mode)
        if mode & 0o077:
            raise usage_error("coordinator.server.mode", path=path, mode=f"{mode:o}")
        if file_status.st_uid != os.geteuid():
            raise usage_error("coordinator.server.owner", path=path)


class CertificateWatch:
    """Watcher of the server's certificate.

    Parameters
    ----------
    folder : CoordinatorFolder
    notify : callable
    """

    def __init__(self, folder: CoordinatorFolder, notify: Notify) -> None:
        self._folder = folder
        self._notify = notify
        self._shown = state_of(folder.keys, "server.*")
        self._due = 0.0

    def changed(self) -> bool:
        """Return whether it is another one than at the last look."""
        before = self._shown
        self._shown = state_of(self._folder.keys, "server.*")
        return self._shown != before

    def renew(self, now: float, *, busy: bool) -> None:
        """Renew the certificate in time.

        Where a run is active, or the renewal fails, a notice says so once a day.
        """
        renewed = False
        notice = ""
        if not busy:
            renewed, notice = _renew(self._folder)
        elif (days := server_days_left(self._folder)) < RENEWED_DAYS:
            notice = render("coordinator.server.due", days=days)
        if notice and (renewed or now >= self._due):
            self._due = now + DAY_SECONDS
            self._notify(notice)


@dataclass
class Watch:
    """Watcher that applies the folder to the running server.

    It updates which sites may connect, and which certificate is shown.

    Parameters
    ----------
    folder : CoordinatorFolder
    supervisor : Supervisor
    notify : callable
    clock : callable
        Seconds; tests pass their own.
    """

    folder: CoordinatorFolder
    supervisor: Supervisor
    notify: Notify
    _next: float = 0.0
    _anew: float = 0.0
    _sites: object = None
    _answers: bool = False
    _problem: str = ""

    def __post_init__(self) -> None:
        """Look at the certificate and the nodes, too."""
        self._nodes = NodeRegistration(self.folder, self.notify)
        self._certificate = CertificateWatch(self.folder, self.notify)

    def look(self) -> None:
        """Look at the folder where it is due.

        A step that fails now is tried again.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        try:
            self._look(now)
            self._problem = ""
        except NotLocked:
            raise
        except FlfedError as error:
            # While the SuperLink starts, a missing reply is no news.
            if self._answers and str(error) != self._problem:
                self.notify(str(error))
            self._problem = str(error)

    def _look(self, now: float) -> None:
        # A renewed certificate is used without a restart of the SuperLink.
        if self._certificate.changed():
            self.supervisor.renew("caddy")
            self.notify(render("coordinator.server.certificate"))
        sites = state_of(self.folder.sites, "*.json")
        # Nothing changed and no minute has passed: no request to the server.
        if sites == self._sites and now < self._anew:
            return
        with Control(Link.of(self.folder), timeout=ANSWER_SECONDS) as control:
            if not self._answers:
                # The server's lock is checked before any site is admitted.
                control.check_lock()
                self._nodes.update(control)
                self._answers = True
                self.notify(render("coordinator.server.ready", address=settings(self.folder).address))
            self._nodes.update(control)
            self._sites = sites
            # Slow work once a minute: leftovers of dead runs, and the certificate.
            if now >= self._anew:
                remove_bodies(database(self.folder), over=control.over(), seconds=ANSWER_SECONDS, only_if_any=True)
                self._certificate.renew(now, busy=bool(control.unfinished()))
                self._anew = now + ANEW_SECONDS


def _prepare(folder: CoordinatorFolder, bind: str, public: int) -> int:
    """Write both processes' files and return the SuperLink's port.

    It is the earlier port where that one is free.

    Secret, certificate and port last, so that a run in progress can reach the server again.
    """
    # The secret is the same over restarts; reading it checks that no other account can.
    if not secret_file(folder).exists():
        write_whole(secret_file(folder), secrets.token_hex(32).encode())
    read_private(secret_file(folder))
    _write_certificate(folder)
    port_file = folder.server / "port.json"
    before = 0
    with suppress(OSError, ValueError, KeyError, TypeError):
        before = int(json.loads(port_file.read_text())["port"])
    port = free_port(before)
    proxy.write_caddyfile(folder, port, bind=bind, port=public)
    write_whole(port_file, json.dumps({"port": port}).encode())
    write_whole(serving_file(folder), json.dumps({"port": port, "process": os.getpid()}).encode())
    return port


def _write_certificate(folder: CoordinatorFolder) -> None:
    """Make the loopback certificate where there is none.

    This machine's commands and Caddy alone trust it.
    """
    key_file = folder.server / "loopback.key"
    if key_file.exists() and certificate_file(folder).exists():
        read_private(key_file)
        return
    key, certificate = new_loopback(now_utc())
    write_whole(key_file, key)
    write_whole(certificate_file(folder), certificate)


def _superlink(folder: CoordinatorFolder, port: int) -> tuple[str, ...]:
    """Return the SuperLink's command.

    Secrets stand in files, since other users can see a command's arguments.
    """
    certificate = str(certificate_file(folder))
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--ssl-certfile": certificate,
        "--ssl-keyfile": str(folder.server / "loopback.key"),
        "--ssl-ca-certfile": certificate,
        "--database": str(database(folder)),
        "--isolation": "process",
        "--superexec-auth-secret-file": str(secret_file(folder)),
    }
    flags = ("--enable-supernode-auth", "--disable-runtime-dependency-installation")
    program = python("flfed.deployment.coordinator.superlink", str(folder.root))
    return (*program, *chain.from_iterable(options.items()), *flags)
