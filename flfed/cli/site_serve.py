"""`flfed site join`, `serve`, `units` and `app`: a site's processes and its own pages."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import completion, output
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder, home

if TYPE_CHECKING:
    from flfed.deployment.operator.join import Joined


NAME = typer.Argument(metavar="NAME", help="The site, as in its kit.")
BASE = "/var/lib/flfed"


def serve_site(
    name: str = NAME,
    network_only: bool = typer.Option(False, "--network-only", help="Only the node: the user with the network."),
    gate_only: bool = typer.Option(False, "--gate-only", help="Only the gate: the user with the data."),
    memory: str = typer.Option("", "--memory", metavar="SIZE", help="Of the gate, as 4G; default: half of all."),
) -> None:
    """Take part: answer what the coordinator asks, as far as approvals and policy go. Ctrl-C ends it.

    The node has the network and no data; the gate has the data and, where the system lets it, no network. Both are
    kept running. With a user for each: flfed site units NAME.
    """
    from flfed.deployment.processes.serve import serve
    from flfed.deployment.processes.supervisor import stop_on_signals
    from flfed.packages import named_folders
    from flfed.rows.data import site_discovery as sites

    # The node has no package to look at, and may not read it.
    if not network_only:
        own = sites.load(name)  # said here, and not again and again in the gate's log
        output.passed_over(own.name)
        typer.echo(f"package of {name}: {own.folder} ({named_folders()})", err=True)
    with stop_on_signals() as stop:
        serve(
            SiteFolder(name),
            stop,
            network=not gate_only,
            gate=not network_only,
            notify=lambda sentence: typer.echo(sentence, err=True),
            memory=memory,
        )


@output.with_json
def write_units(
    name: str = NAME,
    out: Path = typer.Option(..., "--output", metavar="DIR", help="Where to write them."),
    base: Path = typer.Option(Path(BASE), "--base", metavar="DIR", help="Folder of the two users' folders."),
    command: Path | None = typer.Option(None, "--command", metavar="FILE", help="The installed flfed; default: this."),
    address: str = typer.Option(
        "", "--address", metavar="IP:PORT", help="The coordinator's; the node may then reach nothing else."
    ),
) -> output.Shown:
    """Write units for systemd with two users, and a compose file, for a site."""
    from flfed.deployment.processes import units

    files = units.filled(
        name, command=command or _installed(), base=base, address=address or _coordinator_address(name)
    )
    written = units.write(out, files)
    yield {"site": name, "files": list(map(str, written))}
    yield from written
    yield f"""
As root, once:
  cp {out}/flfed-{name}-sysusers.conf /etc/sysusers.d/ && systemd-sysusers
  cp {out}/flfed-{name}-tmpfiles.conf /etc/tmpfiles.d/ && systemd-tmpfiles --create
The package of the site goes into {base}/gate/packages/sites, or the folder FLFED_PATH of {base}/gate/serve.env.
Join as flfed-net with FLFED_HOME={base}/net; approve and take the snapshot as flfed-gate with
FLFED_HOME={base}/gate FLFED_PATH={base}/gate/packages; so make the gate's key: flfed site key {name}. Then:
  cp {out}/flfed-{name}-*.service /etc/systemd/system/ && systemctl daemon-reload
  systemctl enable --now flfed-{name}-network flfed-{name}-gate"""


def _installed() -> Path:
    """Return the `flfed` beside this Python, or on the path."""
    # The flfed of this environment goes before another one on the path.
    beside = Path(sys.executable).with_name("flfed")
    location = str(beside) if beside.is_file() else shutil.which("flfed")
    if location is None:
        raise UsageError("the flfed command is not beside this Python; name it: --command /path/to/flfed")
    return Path(location)


def _coordinator_address(name: str) -> str:
    """Return the coordinator's address where this site has joined as this user, else ""."""
    from flfed.deployment.operator.join import joined

    try:
        return str(joined(SiteFolder(name)).get("address", ""))
    except FlfedError:
        return ""


@output.with_json
def join_site(
    file: Path = typer.Argument(..., metavar="KIT", help="What the coordinator sent: SITE.kit.zip, or a renewal."),
    renew: bool = typer.Option(
        False, "--renew", help="The file is a renewal, or a new kit in place of the one this site joined with."
    ),
    site: str = typer.Option("", help="With --renew: which site, where several have joined here."),
    to: Path = typer.Option(
        Path("."), "--output", help="The folder to write SITE.admission into.", show_default="the current folder"
    ),
) -> output.Shown:
    """Join a consortium with the kit that its coordinator sent; the site's private keys are made here and stay here.

    A kit is believed: take it from somebody you know, and compare its SHA-256 by telephone. Send
    SITE.admission back, and compare the key's fingerprint too.

    With --renew: a renewal is signed by the coordinator's key, which the site has from its kit; it
    brings other certificates, keys or versions, and the site's own key stays. A new kit makes another
    key of the site, and the site must be admitted again; approvals and ledger stay.
    """
    from flfed.deployment.operator import join

    # Without --renew the file is a kit, which names its site itself.
    if not renew:
        if site:
            raise UsageError("--site goes with --renew only: a kit says for which site it is")
        made = join.join(file, to=to)
        yield _facts(made)
        yield from _joined_in_words(made)
        return
    renewed = join.renew(file, to=to, site=site)
    facts = None if renewed.joined is None else _facts(renewed.joined)
    yield {"site": renewed.site, "changed": list(renewed.changed), "joined": facts}
    changed = ", ".join(renewed.changed) or "nothing but its date"
    yield f"{renewed.site} is renewed; changed: {changed}. A site that serves takes it up by itself."
    if renewed.joined is not None:
        yield from _joined_in_words(renewed.joined)


def _facts(enrolment: Joined) -> dict[str, object]:
    return {
        "site": enrolment.site,
        "coordinator": enrolment.coordinator,
        "address": enrolment.address,
        "admission": str(enrolment.admission),
        "node-key": enrolment.key,
        "kit-sha256": enrolment.kit_sha256,
        "expires": enrolment.expires,
        "gate-key": enrolment.gate_key,
        "package": _has_package(enrolment.site),
    }


def _joined_in_words(enrolment: Joined) -> output.Shown:
    from flfed.deployment.site_state.trusted_files import open_folder

    yield f"{enrolment.site} joins {enrolment.coordinator} at {enrolment.address}."
    yield f"Send {enrolment.admission} to the coordinator, who must admit it by {enrolment.expires}."
    yield f"SHA-256 of the kit, to compare with the coordinator by telephone: {enrolment.kit_sha256}"
    yield f"Fingerprint of this site's key, for the coordinator to compare: {enrolment.key}"
    if enrolment.gate_key:
        yield f"Fingerprint of its gate, for the other sites of studies with secure sums: {enrolment.gate_key}"
    else:
        yield f"For studies with secure sums, as the user with the data: flfed site key {enrolment.site}"
    if not _has_package(enrolment.site):
        yield (
            f"There is no site package {enrolment.site!r} here yet, and without one nothing can be approved or served "
            f"(by the user who has the data, where that is another); when there is: flfed site check {enrolment.site}"
        )
    if why := open_folder(SiteFolder(enrolment.site)):
        typer.echo(f"Look at this: {why}", err=True)


@output.with_json
def show_key(name: str = NAME) -> output.Shown:
    """Show the fingerprint of the site's gate, whose key is made where there is none.

    The gate signs with it in studies with secure sums. Read the fingerprint to the people of each other site, by
    telephone or face to face, and let them read theirs to you: they name it when they approve such a study, by
    --with SITE=FINGERPRINT. The coordinator may know it too (flfed coordinator key), but nobody takes it from there:
    it could name a key of its own.
    """
    from flfed.deployment.site_state.trusted_files import make_signing_key

    fingerprint, made = make_signing_key(SiteFolder(name))
    yield {"site": name, "gate-key": fingerprint, "created": made}
    now = ", whose key is made now" if made else ""
    yield f"Fingerprint of the gate of {name}{now}: {fingerprint}"
    yield f"Read it to each other site of a study with secure sums, who names it: --with {name}={fingerprint}"


def _has_package(site: str) -> bool:
    """Tell whether a site package of this name is found here; it is not imported."""
    from flfed.rows.data.site_discovery import names

    return site in names()


def open_site_app(
    name: str = typer.Argument(..., help="A site's name.", autocompletion=completion.sites),
    port: int = typer.Option(8502, min=1, max=65535, help="Port on this machine."),
    headless: bool = typer.Option(False, help="Do not open a browser window."),
) -> None:
    """Open the site's own app: its ledger, budget, approvals and results, and nothing of others.

    Only this machine can reach it, and it only reads. The user that has the data looks; no other may: the printed
    address has a token, and without it nothing is shown.
    """
    from flfed.cli import dashboard
    from flfed.deployment import site_app
    from flfed.deployment.site_app import SITE, TOKEN, closed
    from flfed.rows.data import site_discovery as sites

    # The folder belongs to one user, and the error says whom to ask.
    try:
        home()
    except UsageError as error:
        raise UsageError(f"{error}; only the user that has the site's data may look") from None
    site = sites.load(name)
    output.passed_over(site.name)
    why = closed(SiteFolder(site.name))
    if why:
        raise UsageError(why)
    # Handed over in the environment: the command line is for all accounts to read.
    os.environ |= {SITE: site.name, TOKEN: secrets.token_urlsafe()}
    script = Path(site_app.__file__).with_name("app.py")
    dashboard.leave_current_folder(script.parent)
    dashboard.run(script, f"flfed site app {site.name}", port=port, headless=headless)
