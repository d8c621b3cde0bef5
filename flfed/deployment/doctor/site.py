"""Checks of a site: its status, its files, its table's source, and the way to its coordinator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from flfed.callbacks import now_utc
from flfed.deployment.doctor import machine
from flfed.deployment.doctor.connection import Way, read_authority, read_key, unread
from flfed.deployment.doctor.machine import UNDONE_SECONDS, Finding, check_flower, finding
from flfed.deployment.operator.join import joined
from flfed.deployment.operator.outbound_proxy import read_proxy
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_state.trusted_files import is_elsewhere, read_terms
from flfed.errors import FlfedError
from flfed.packages import unknown_name_error
from flfed.paths import SiteFolder, joined_sites
from flfed.rows.data import datasets, site_discovery
from flfed.rows.data.sources import reach

VOID = ("rows-changed", "schema-changed-after-approval", "schema-changed-after-freeze", "opt-outs-changed")
"""Why an approval is not valid any more, after a change of the table or its columns."""


def examine_site(name: str, *, now: datetime | None = None) -> list[Finding]:
    """Return the findings about a site, for the part of it that this user has.

    Where two users share a site, the one with the network has joined, and the other one has the data.

    Parameters
    ----------
    name : str
    now : datetime, optional
        By this machine's clock.

    Raises
    ------
    UsageError
        If no site of that name has a package or a folder here.
    """
    if wrong := machine.check_home():
        return wrong
    folder = SiteFolder(name)
    if wrong := machine.check_folders([folder.root.parent, folder.root, folder.network, folder.gate, folder.link]):
        return wrong
    choices = sorted({*joined_sites(), *site_discovery.names(), "--coordinator"})
    if name not in choices and not folder.root.exists():
        raise unknown_name_error("site", name, choices)
    has_network = folder.join.exists() or not is_elsewhere(folder)
    has_data = not (is_elsewhere(folder) and folder.join.exists())
    findings = [*machine.check_units(name), *machine.check_disks([folder.network, folder.gate, folder.link])]
    if has_data:
        findings += _data(folder)
    if has_network:
        findings += _network(folder, now or now_utc())
    # A proxy that cannot be read is a problem of the status, too.
    return list(dict.fromkeys(findings))


def _data(folder: SiteFolder) -> Iterator[Finding]:
    owners = list(machine.check_private([folder.gate, folder.signing_key, folder.ledger], owner_alone=True))
    yield from owners
    if owners:
        return  # what another account owns, this one cannot read
    try:
        site = site_discovery.load(folder.site)
        for dataset in site.datasets:
            datasets.load(dataset)
    except FlfedError as error:
        yield finding("package", why=error)
        return
    yield from _state(folder, status_of(folder, site))
    if folder.join.exists() or is_elsewhere(folder):
        try:
            read_terms(folder)
        except FlfedError as error:
            yield finding("joining", why=error)
    for dataset in site.datasets:
        source = site.serving(dataset).source
        try:
            reach(source, datasets.load(dataset).folders(site.folder))
        except FlfedError as error:
            yield finding("source", why=error)


def _state(folder: SiteFolder, status: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the status of a site shows to be wrong."""
    for problem in status["problems"]:
        yield finding("state", problem=problem)
    for one in status["snapshots"]:
        if one["changed"]:
            yield finding("table", site=folder.site, **one)
    for one in status["studies"]:
        if one["decision"] == "approved" and getattr(one["reason"], "code", "") in VOID:
            yield finding("void", **one)
    if status["gate"]["seconds"] >= UNDONE_SECONDS:
        yield finding("undone", site=folder.site, log=folder.gate / "gate.log", **status["gate"])


def _network(folder: SiteFolder, now: datetime) -> Iterator[Finding]:
    blocking = list(machine.check_private([folder.network, folder.join, folder.node_key]))
    blocking += machine.check_private([folder.authority, folder.proxy], owner_alone=True)
    if any(each.name == "owner" for each in blocking):
        yield from blocking
        return  # what another account owns, this one cannot read
    proxy = None
    try:
        proxy = read_proxy(folder)
    except FlfedError as error:
        blocking.append(finding("state", problem=error))
    yield from blocking
    if not folder.join.exists():
        yield finding("unjoined")
        return
    examine = None
    try:
        terms = joined(folder)
        yield from check_flower()
        peer = proxy.address if proxy else terms["address"]
        yield from machine.check_egress(folder.site, peer)
        if not blocking:
            way = Way(terms["address"], read_authority(folder), proxy, folder.admission, terms["expires"])
            examine = partial(way.examine, read_key(folder), now)
    except FlfedError as error:
        yield finding("joining", why=error)
    except (KeyError, TypeError, AttributeError):  # values are absent, or of other types
        yield finding("joining", why=unread(folder.join))
    if examine is not None:
        yield from examine()
