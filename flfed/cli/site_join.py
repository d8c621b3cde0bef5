"""`flfed site join`: with a kit, and later with a renewal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import show

if TYPE_CHECKING:
    from flfed.apps.gate.joining import Joined


def join_site(
    file: Path = typer.Argument(..., metavar="KIT", help="What the coordinator sent: SITE.kit.zip, or a renewal."),
    renew: bool = typer.Option(
        False, "--renew", help="The file is a renewal, or a new kit in place of the one this site joined with."
    ),
    site: str = typer.Option("", help="With --renew: which site, where several have joined here."),
    to: Path = typer.Option(
        Path("."), "--to", help="The folder to write SITE.admission into.", show_default="the current folder"
    ),
    as_json: bool = show.JSON,
) -> None:
    """Join a consortium with the kit that its coordinator sent; the site's private key is made here and stays here.

    A kit is believed: take it from somebody you know, and compare its SHA-256 by telephone. Send
    SITE.admission back, and compare the key's fingerprint too.

    With --renew: a renewal is signed by the coordinator's key, which the site has from its kit; it
    brings other certificates, keys or versions, and the site's own key stays. A new kit makes another
    key of the site, and the site must be admitted again; approvals and ledger stay.
    """
    from flfed.apps.gate import joining
    from flfed.errors import UsageError

    if not renew:
        if site:
            raise UsageError("--site goes with --renew only: a kit says for which site it is")
        found = joining.join(file, to=to)
        if as_json:
            show.as_json(_facts(found))
        else:
            _say_joined(found)
        return
    renewed = joining.renew(file, to=to, site=site)
    if as_json:
        joined = None if renewed.joined is None else _facts(renewed.joined)
        show.as_json({"site": renewed.site, "changed": list(renewed.changed), "joined": joined})
        return
    changed = ", ".join(renewed.changed) or "nothing but its date"
    typer.echo(f"{renewed.site} is renewed; changed: {changed}. A site that serves takes it up by itself.")
    if renewed.joined is not None:
        _say_joined(renewed.joined)


def _facts(found: Joined) -> dict[str, str | bool]:
    return {
        "site": found.site,
        "coordinator": found.coordinator,
        "address": found.address,
        "admission": str(found.admission),
        "node-key": found.key,
        "kit-sha256": found.kit_sha256,
        "expires": found.expires,
        "package": _has_package(found.site),
    }


def _say_joined(found: Joined) -> None:
    typer.echo(f"{found.site} joins {found.coordinator} at {found.address}.")
    typer.echo(f"Send {found.admission} to the coordinator, who must admit it by {found.expires}.")
    typer.echo(f"SHA-256 of the kit, to compare with the coordinator by telephone: {found.kit_sha256}")
    typer.echo(f"Fingerprint of this site's key, for the coordinator to compare: {found.key}")
    if not _has_package(found.site):
        typer.echo(
            f"There is no site package {found.site!r} here yet, and without one nothing can be approved or served "
            f"(by the user who has the data, where that is another); when there is: flfed site check {found.site}"
        )


def _has_package(site: str) -> bool:
    """Tell whether a site package of this name is found here; it is not imported."""
    from flfed.rows.site import names

    return site in names()
