"""`flfed doctor`: what keeps a site or the coordinator from working, with the remedy."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from flfed.cli import arguments, output
from flfed.paths import CoordinatorFolder, joined_sites, where
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flfed.deployment.doctor.machine import Finding


def examine(
    name: str = typer.Argument("", metavar="[SITE]", help="Site name.", autocompletion=arguments.complete_sites),
    coordinator: bool = typer.Option(False, "--coordinator", help="Examine the coordinator of this user."),
    as_json: bool = output.JSON,
) -> None:
    """Find what keeps a site or the coordinator from working; each finding has its remedy.

    Run it as the user whose part it is. It changes nothing, and prints neither a password nor a cell. Without a name
    it examines the only site that has joined here, else the coordinator.

    At a site it follows the way to the coordinator: name, port, TLS, certificate, clock and key. It checks the versions
    of flfed and Flower, modes and owners of files, installed units, free disk space, and whether the table's source
    is within reach. At the coordinator it checks files, certificates, run store, disk and port.

    Exit codes: 0 nothing is wrong, 1 something is, 2 wrong use.
    """
    if name and coordinator:
        raise usage_error("doctor.command.both")
    site = "" if coordinator else name or _only_site()
    findings = _examined(site)
    output.show(_shown(site, findings), as_json)
    if findings:
        raise typer.Exit(1)


def _examined(site: str) -> list[Finding]:
    if site:
        from flfed.deployment.doctor.site import examine_site

        return examine_site(site)
    from flfed.deployment.doctor.coordinator import examine_coordinator

    return examine_coordinator()


def _only_site() -> str:
    """Return the site that has joined here; "" where only a coordinator is here."""
    if not os.path.isdir(where()):
        raise usage_error("doctor.command.absent", path=where())
    sites = joined_sites()
    if len(sites) == 1:
        return sites[0]
    if not sites and CoordinatorFolder.default().settings.exists():
        return ""
    raise usage_error("doctor.command.unnamed", count=len(sites))


def _shown(site: str, findings: Sequence[Finding]) -> output.Shown:
    whose = site or "coordinator"
    yield {"site": site or None, "healthy": not findings, "findings": [asdict(each) for each in findings]}
    if not findings:
        yield render("doctor.command.healthy", whose=whose)
    for each in findings:
        yield render("doctor.command.line", **vars(each))
