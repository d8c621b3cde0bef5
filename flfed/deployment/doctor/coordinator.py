"""Checks of the coordinator: its status, its files, its store, and its port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from flfed.callbacks import now_utc
from flfed.deployment.coordinator.certificates import certificates, days_left, key_pair, settings, signing_key, trusted
from flfed.deployment.coordinator.proxy import find_caddy, holding
from flfed.deployment.coordinator.status import status
from flfed.deployment.doctor import machine
from flfed.deployment.doctor.machine import UNDONE_SECONDS, Finding, check_flower, finding
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder
from flfed.records.store.database import store_url
from flfed.records.store.reader import RunReader


def examine_coordinator(*, now: datetime | None = None) -> list[Finding]:
    """Return the findings about the coordinator.

    Raises
    ------
    UsageError
        If none was initialised here.
    """
    if wrong := machine.check_home():
        return wrong
    folder = CoordinatorFolder.default()
    folders = [folder.root, folder.keys, folder.sites, folder.server]
    if wrong := machine.check_folders(folders):
        return wrong
    try:
        settings(folder)
    except UsageError:
        raise
    except FlfedError as error:
        return [finding("state", problem=error)]
    findings = [*check_flower(), *machine.check_disks([folder.server, *_store_folder()])]
    private = list(machine.check_private([*folders, *sorted(folder.keys.glob("*"))]))
    inside = [*folder.sites.glob("*"), *folder.server.glob("*")]
    private += machine.check_private(sorted(inside), owner_alone=True)
    findings += private
    try:
        find_caddy()
    except FlfedError as error:
        findings.append(finding("program", why=error))
    try:
        RunReader.open().close()
    except FlfedError as error:
        return [*findings, finding("store", why=error)]
    # Keys that others may read are refused by whatever reads them.
    if not private:
        findings += list(_unusable(folder)) or _state(folder, now or now_utc())
    return findings


def _unusable(folder: CoordinatorFolder) -> Iterator[Finding]:
    """Yield a finding for each key or certificate that is absent, damaged or another's."""
    checks: list[Callable[[], object]] = [
        partial(key_pair, folder, "ca.key"),
        partial(key_pair, folder, "server.key", "server.crt"),
        partial(signing_key, folder),
    ]
    for check in checks:
        try:
            check()
        except FlfedError as error:
            yield finding("state", problem=error)


def _store_folder() -> list[Path]:
    """Return the folder of the run store, where it is a file."""
    try:
        url = store_url()
    except FlfedError:
        return []  # opening it reports the same
    return [Path(url.database).parent] if url.get_backend_name() == "sqlite" and url.database else []


def _state(folder: CoordinatorFolder, now: datetime) -> Iterator[Finding]:
    overview = status(folder)
    for problem in overview.problems:
        yield finding("state", problem=problem)
    yield from machine.check_ending("server-ending", overview.server_days)
    for authority in certificates(trusted(folder)):
        yield from machine.check_ending("authority-ending", days_left(authority, now))
    for site in overview.sites:
        if site.unanswered_seconds >= UNDONE_SECONDS:
            yield finding("unanswered", **vars(site))
    if not overview.serving:
        yield _port(folder)


def _port(folder: CoordinatorFolder) -> Finding:
    """Return why the coordinator does not serve: its port is taken, or nobody started it."""
    port = settings(folder).port
    try:
        with holding("", port):
            return finding("stopped")
    except FlfedError:
        return finding("taken", port=port)
