"""`flfed coordinator`: its keys, and who may join."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from flfed.cli import show

SITE = typer.Argument(..., metavar="SITE", help="The site's name: a-z, 0-9 and single hyphens.")
TO = typer.Option(Path("."), "--to", help="The folder to write the file into.", show_default="the current folder")
TAKEN_UP = "A coordinator that serves takes it up by itself, within seconds."


class Key(StrEnum):
    """What `rotate` changes."""

    server = "server"
    authority = "authority"
    signing = "signing"


def init_coordinator(
    title: str = typer.Option(..., help="What people read at the sites, such as 'Heart consortium'."),
    address: str = typer.Option(..., metavar="HOST:PORT", help="Where sites reach it from outside."),
    as_json: bool = show.JSON,
) -> None:
    """Make a coordinator: a certificate authority, the server's certificate and a signing key; never over another."""
    from flfed.apps.coordinator.authority import Settings, initialise, server_days_left
    from flfed.apps.coordinator.folder import CoordinatorFolder

    folder = CoordinatorFolder.default()
    initialise(folder, Settings(title, address))
    days = server_days_left(folder)
    if as_json:
        show.as_json({"title": title, "address": address, "folder": str(folder.root), "server-days": days})
        return
    typer.echo(f"{title} is at {folder.root}: keep a backup of its folder `keys` where nobody else can read it.")
    typer.echo(f"The server's certificate, for {address}, holds for {days} days: flfed coordinator rotate server")
    typer.echo("Invite the first site with: flfed coordinator invite SITE")


def invite_site(
    site: str = SITE,
    days: int = typer.Option(14, min=1, max=90, help="For how many days the invitation holds."),
    to: Path = TO,
    as_json: bool = show.JSON,
) -> None:
    """Invite a site: write its kit, SITE.kit.zip. Inviting it again makes the earlier kit worthless.

    Whoever has the kit can join under this name, once: send it by a way that both sides trust, and
    compare its SHA-256 by telephone. A site that was revoked can be invited anew.
    """
    from flfed.apps.coordinator.folder import CoordinatorFolder
    from flfed.apps.coordinator.kits import invite

    made = invite(CoordinatorFolder.default(), site, to=to, days=days)
    if as_json:
        show.as_json({"site": made.site, "kit": str(made.file), "expires": made.expires, "kit-sha256": made.sha256})
        return
    typer.echo(f"{made.file} is the kit of {made.site}; it holds until {made.expires}.")
    typer.echo(f"SHA-256 of the kit, which `flfed site join` shows too: {made.sha256}")
    typer.echo(f"The site sends {made.site}.admission back; then: flfed coordinator admit {made.site}.admission")


def admit_site(
    file: Path = typer.Argument(..., metavar="FILE", help="What the site sent back, SITE.admission."),
    as_json: bool = show.JSON,
) -> None:
    """Admit a site by its admission file: signature, invitation, name and key are checked.

    Compare the key's fingerprint with the site by telephone: whoever had the kit could have made the file.
    """
    from flfed.apps.coordinator.admission import admit
    from flfed.apps.coordinator.authority import settings
    from flfed.apps.coordinator.folder import CoordinatorFolder

    folder = CoordinatorFolder.default()
    settings(folder)
    found = admit(folder, file)
    if as_json:
        show.as_json({"site": found.site, "node-key": found.fingerprint, "already": found.already})
        return
    done = "was admitted by this file already: nothing is left to do" if found.already else "is admitted"
    typer.echo(f"{found.site} {done}; its key, as `flfed site join` showed it: {found.fingerprint}")


def revoke_site(site: str = SITE, as_json: bool = show.JSON) -> None:
    """Take back a site's invitation or admission: its key is never admitted again, under any name.

    What it sent before stays in the run records.
    """
    from flfed.apps.coordinator.admission import revoke
    from flfed.apps.coordinator.authority import settings
    from flfed.apps.coordinator.folder import CoordinatorFolder

    folder = CoordinatorFolder.default()
    settings(folder)
    already = revoke(folder, site)
    if as_json:
        show.as_json({"site": site, "already": already})
        return
    typer.echo(f"{site} {'was revoked already' if already else 'is revoked'}.")
    typer.echo(f"To have it back, with another key: flfed coordinator invite {site}")


def site_ledger(
    site: str = SITE,
    restart: str = typer.Option("", "--restart", metavar="WHY", help="The site lost its ledger; WHY goes on record."),
    as_json: bool = show.JSON,
) -> None:
    """Show what was signed last of a site's ledger; with --restart, take note that the site lost it.

    A ledger that does not go on from what was signed is a fault in every run: it was cut, written anew, or
    lost. Ask the site. Where it was lost (a disk, no backup), the site begins another, by `flfed site ledger
    SITE --restart WHY`, and you take note of it: both are on record for good. What left the site before is
    then proved by what was signed here, and by the run records, alone.
    """
    from flfed.apps.coordinator.authority import settings
    from flfed.apps.coordinator.folder import CoordinatorFolder
    from flfed.apps.coordinator.sealing import last_signed, note_restart
    from flfed.cli.site_ledger import who

    folder = CoordinatorFolder.default()
    settings(folder)
    found = note_restart(folder, site, by=who(), why=restart) if restart else last_signed(folder, [site])[site]
    if as_json:
        show.as_json({**found.facts(), "restarted": bool(restart)})
        return
    lines = f"{found.n} lines of {site}'s ledger were signed, at run {found.run}, with the head {found.head}"
    typer.echo(f"{lines}." if found.n else f"No line of {site}'s ledger is signed.")
    if restart:
        typer.echo("It is on record that the site lost them: the next run signs the ledger that it has then.")


def rotate_key(
    key: Key = typer.Argument(..., help="Which key to change."),
    finish: bool = typer.Option(False, "--finish", help="authority only: let the prepared one take over."),
    to: Path = TO,
    as_json: bool = show.JSON,
) -> None:
    """Change a key of the coordinator.

    server: another key and certificate for the server, by the same authority. Nothing to do at the sites.

    authority: in two steps, each of which writes a renewal, to be sent to every site, which takes it
    by `flfed site join --renew FILE`. The first prepares another authority and tells sites to trust
    both. When all have taken it, the second, with --finish, lets the new one take over and tells
    sites to trust it alone; a site that was late takes that one, and is cut off until then. If the
    authority's key was stolen, do both at once: each site trusts the thief until it took the last.

    signing: another key for receipts and renewals. The renewal it writes is the last thing the old
    key signs; send it to every site. If it was stolen, a renewal proves nothing: change it, then
    revoke and invite every site anew.

    A renewal is not secret, and signed: any way of sending it will do.
    """
    from flfed.apps.coordinator import authority, kits
    from flfed.apps.coordinator.folder import CoordinatorFolder
    from flfed.errors import UsageError

    folder, file = CoordinatorFolder.default(), None
    authority.settings(folder)
    if finish and key is not Key.authority:
        raise UsageError(f"--finish does not go with {key.value}: only an authority is changed in two steps")
    kits.check_folder(to)
    if key is Key.server:
        authority.renew_server(folder)
    elif key is Key.signing:
        file = kits.rotate_signing(folder, to=to)
    else:
        (authority.finish_authority if finish else authority.prepare_authority)(folder)
        file = kits.renewal(folder, to=to)
    if as_json:
        show.as_json({"key": key.value, "finished": finish, "renewal": None if file is None else str(file)})
        return
    typer.echo(f"{key.value}: done. {TAKEN_UP}")
    if file is not None:
        _say_renewal(file)
    if key is Key.authority and not finish:
        typer.echo("When all sites have: flfed coordinator rotate authority --finish")


def write_renewal(to: Path = TO, as_json: bool = show.JSON) -> None:
    """Write a renewal for all sites: after flfed was updated, or if that of `rotate authority` was lost."""
    from flfed.apps.coordinator.folder import CoordinatorFolder
    from flfed.apps.coordinator.kits import renewal

    file = renewal(CoordinatorFolder.default(), to=to)
    if as_json:
        show.as_json({"renewal": str(file)})
        return
    _say_renewal(file)


def _say_renewal(file: Path) -> None:
    typer.echo(f"Send {file} to every site, which takes it by: flfed site join --renew {file.name}")
