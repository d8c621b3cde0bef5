"""`flfed site join`, `key`, `serve`, `units` and `app`: processes and pages of a site."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import completion, output
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder, home
from flfed.words import render

if TYPE_CHECKING:
    from flfed.deployment.operator.join import Joined


NAME = typer.Argument(metavar="NAME", help="Site name.")
BASE = "/var/lib/flfed"
LEDGER_COPY = typer.Option(
    None, "--ledger-copy", metavar="DIR", help="Folder on another disk for a copy of the ledger."
)


def serve_site(
    name: str = NAME,
    network_only: bool = typer.Option(False, "--network-only", help="Only the node, as the user with the network."),
    gate_only: bool = typer.Option(False, "--gate-only", help="Only the gate, as the user with the data."),
    memory: str = typer.Option(
        "", "--memory", metavar="SIZE", help="Most memory of the gate, such as 4G; default: half."
    ),
    ledger_copy: Path | None = LEDGER_COPY,
) -> None:
    """Take part: answer the coordinator's requests, within approvals and policy. Ctrl-C ends it.

    The node has the network and no data. The gate has the data and, if the system permits it, no network. Both are
    restarted if they end. To give each a user of its own: flfed site units NAME.

    With --ledger-copy no message leaves before its ledger line is on a second disk too. After a broken disk or an older
    backup, take it back: flfed site ledger NAME --from-copy DIR.
    """
    from flfed.deployment.processes.serve import serve
    from flfed.deployment.processes.supervisor import stop_on_signals
    from flfed.packages import named_folders
    from flfed.rows.data import site_discovery as sites

    if network_only and ledger_copy is not None:
        raise UsageError("--ledger-copy is of the gate: give it with --gate-only")
    # The node has no package, and may not read one.
    if not network_only:
        own = sites.load(name)  # an error is printed here once, and not repeated in the gate's log
        output.passed_over(own.name)
        typer.echo(render("commands.serve.package", site=name, folder=own.folder, path=named_folders()), err=True)
    notify = partial(typer.echo, err=True)
    with stop_on_signals() as stop:
        which = {"network": not gate_only, "gate": not network_only}
        serve(SiteFolder(name), stop, **which, notify=notify, memory=memory, copy=_absolute(ledger_copy))


def _absolute(folder: Path | None) -> Path | None:
    return None if folder is None else folder.absolute()


@output.with_json
def write_units(
    name: str = NAME,
    out: Path = typer.Option(..., "--output", metavar="DIR", help="Target folder."),
    base: Path = typer.Option(Path(BASE), "--base", metavar="DIR", help="Parent of both users' folders."),
    command: Path | None = typer.Option(None, "--command", metavar="FILE", help="Installed flfed command."),
    address: str = typer.Option(
        "", "--address", metavar="IP:PORT", help="Coordinator or proxy, the only address that the node may then reach."
    ),
    ledger_copy: Path | None = LEDGER_COPY,
) -> output.Shown:
    """Write systemd units for two users, and a compose file, for a site."""
    from flfed.deployment.processes import units

    joined_address, peer = _peer(name)
    reached = address or joined_address
    files = units.filled(
        name, command=command or _installed(), base=base, address=reached, peer=peer, copy=_absolute(ledger_copy)
    )
    written = units.write(out, files)
    yield {"site": name, "files": list(map(str, written))}
    yield from written
    yield f"\n{render('commands.units.root')}"
    yield f"  {render('commands.units.users', out=out, site=name)}"
    yield f"  {render('commands.units.folders', out=out, site=name)}"
    yield render("commands.units.package", base=base)
    yield render("commands.units.accounts", base=base, site=name)
    yield f"  {render('commands.units.services', out=out, site=name)}"
    yield f"  {render('commands.units.enable', site=name)}"


def _installed() -> Path:
    """Return the `flfed` beside this Python, or on the path."""
    # The flfed of this environment has precedence over one on the path.
    beside = Path(sys.executable).with_name("flfed")
    location = str(beside) if beside.is_file() else shutil.which("flfed")
    if location is None:
        raise UsageError("no flfed command beside this Python; name it: --command /path/to/flfed")
    return Path(location)


def _peer(name: str) -> tuple[str, str]:
    """Return address and name of the node's only peer; address "" where this site has not joined as this user."""
    from flfed.deployment.operator.join import joined
    from flfed.deployment.operator.outbound_proxy import read_proxy

    folder = SiteFolder(name)
    proxy = read_proxy(folder)
    if proxy is not None:
        return proxy.address, "outbound proxy"
    try:
        return str(joined(folder).get("address", "")), "coordinator"
    except FlfedError:
        return "", "coordinator"


@output.with_json
def change_proxy(
    name: str = NAME,
    url: str = typer.Argument(..., metavar="URL|none", help="http://HOST:PORT of the proxy, or none."),
    password_file: Path | None = typer.Option(
        None, "--password-file", metavar="FILE", help="Private file with the line USER:PASSWORD; it is copied."
    ),
) -> output.Shown:
    """Set the outbound proxy through which the site's node reaches the coordinator; none removes it.

    The proxy must permit CONNECT to the coordinator's host and port. TLS goes through it unopened: the node checks the
    coordinator's name and certificate as before. A running node is started again. Each call sets URL and password.
    """
    from flfed.deployment.operator.outbound_proxy import set_proxy

    folder = SiteFolder(name)
    proxy = set_proxy(folder, url, password_file)
    if proxy is None:
        yield {"site": name, "proxy": None, "password": False}
        yield render("commands.proxy.removed", site=name)
    else:
        yield {"site": name, "proxy": proxy.url, "password": bool(proxy.user)}
        yield render("commands.proxy.set", site=name, proxy=proxy.url, file=folder.proxy)
    yield render("commands.proxy.units", site=name)


@output.with_json
def join_site(
    file: Path = typer.Argument(..., metavar="KIT", help="The coordinator's file: SITE.kit.zip, or a renewal."),
    renew: bool = typer.Option(
        False, "--renew", help="The file is a renewal, or a new kit that replaces the site's earlier one."
    ),
    site: str = typer.Option("", help="With --renew: the site, if several have joined here."),
    to: Path = typer.Option(Path("."), "--output", help="Target folder.", show_default="the current folder"),
) -> output.Shown:
    """Join a consortium with its coordinator's kit; the site's private keys are made here and never leave.

    A kit is trusted: take it only from somebody you know, and compare its SHA-256 by telephone. Return SITE.admission,
    and compare the fingerprint of the key, too.

    With --renew: a renewal is signed with the coordinator's key, which the site has from its kit. It brings new
    certificates, keys or versions, and the site's own key remains. A new kit makes a new key of the site, which must
    be admitted again. Approvals and ledger remain.
    """
    from flfed.deployment.operator import join

    # Without --renew the file is a kit, which names its site itself.
    if not renew:
        if site:
            raise UsageError("--site goes with --renew only: a kit names its site")
        made = join.join(file, to=to)
        yield _facts(made)
        yield from _joined_in_words(made)
        return
    renewed = join.renew(file, to=to, site=site)
    facts = None if renewed.joined is None else _facts(renewed.joined)
    yield {"site": renewed.site, "changed": list(renewed.changed), "joined": facts}
    changed = ", ".join(renewed.changed) or "only its date"
    yield render("commands.join.renewed", site=renewed.site, changed=changed)
    if renewed.joined is not None:
        yield from _joined_in_words(renewed.joined)


def _facts(enrolment: Joined) -> dict[str, object]:
    facts = {"site": enrolment.site, "coordinator": enrolment.coordinator, "address": enrolment.address}
    facts |= {"admission": str(enrolment.admission), "node-key": enrolment.key, "kit-sha256": enrolment.kit_sha256}
    more = {"expires": enrolment.expires, "gate-key": enrolment.gate_key, "package": _has_package(enrolment.site)}
    return facts | more


def _joined_in_words(enrolment: Joined) -> output.Shown:
    from flfed.deployment.site_state.trusted_files import open_folder
    from flfed.signatures import spoken_fingerprint

    site = enrolment.site
    yield render("commands.join.joins", site=site, coordinator=enrolment.coordinator, address=enrolment.address)
    yield render("commands.join.send", file=enrolment.admission, expires=enrolment.expires)
    yield render("commands.join.kit", sha256=enrolment.kit_sha256)
    yield render("commands.join.key", spoken=spoken_fingerprint(enrolment.key), fingerprint=enrolment.key)
    if enrolment.gate_key:
        yield render("commands.join.gate", fingerprint=enrolment.gate_key)
    else:
        yield render("commands.join.keyless", site=site)
    if not _has_package(site):
        yield render("commands.join.package", site=site)
    if why := open_folder(SiteFolder(site)):
        typer.echo(f"WARNING: {why}", err=True)


@output.with_json
def show_key(
    name: str = NAME,
    card: bool = typer.Option(False, "--card", help="Print a card of the gate, with a QR code."),
    out: Path | None = typer.Option(None, "--output", metavar="FILE.svg", help="Write the card as SVG, to print."),
) -> output.Shown:
    """Show the fingerprint of the site's gate; its key is made where there is none.

    The gate signs with this key in studies with secure aggregation. The other sites pin its fingerprint when they
    approve such a study. With a list of all cards, people of all sites compare the list in one call: flfed site cards.
    Without one, read the fingerprint to the people of each other site, by telephone or face to face, who enter it:
    flfed site approve --with SITE=FINGERPRINT. No site may take it from the coordinator alone: a dishonest coordinator
    could give a key of its own.
    """
    from flfed.deployment.site_state.trusted_files import make_signing_key

    folder = SiteFolder(name)
    fingerprint, made = make_signing_key(folder)
    gate_card = None
    if card or out is not None:
        from flfed.deployment.cards import GateCard

        gate_card = GateCard.of_site(folder)
        if out is not None:
            gate_card.write(out)
    yield {"site": name, "gate-key": fingerprint, "created": made}
    if gate_card is not None and card:
        yield gate_card.printed(light=sys.stdout.isatty())
    else:
        age = "new" if made else "known"
        yield render(f"commands.fingerprint.{age}", site=name, fingerprint=fingerprint)
        yield render("commands.join.pin", site=name, fingerprint=fingerprint)
    if out is not None:
        yield render("commands.card.drawn", file=out)


def _has_package(site: str) -> bool:
    """Return whether a site package of this name is here; it is not imported."""
    from flfed.rows.data.site_discovery import names

    return site in names()


def open_site_app(
    name: str = typer.Argument(..., help="Site name.", autocompletion=completion.sites),
    port: int = typer.Option(8502, min=1, max=65535, help="Local port."),
    headless: bool = typer.Option(False, help="Open no browser."),
) -> None:
    """Open the site's own app: its ledger, budget, approvals and results, and none of other sites.

    Only this machine can reach it, and it changes nothing. Only the user with the data can start it, and only the
    printed address, which has a token, shows its pages.
    """
    from flfed.cli import dashboard
    from flfed.deployment import site_app
    from flfed.deployment.site_app import SITE, TOKEN, closed
    from flfed.rows.data import site_discovery as sites

    # The folder belongs to one user, whom the error names.
    try:
        home()
    except UsageError as error:
        raise UsageError(f"{error}; only the user with the site's data can open it") from None
    site = sites.load(name)
    output.passed_over(site.name)
    why = closed(SiteFolder(site.name))
    if why:
        raise UsageError(why)
    # Passed in the environment: all accounts can read a command line.
    os.environ |= {SITE: site.name, TOKEN: secrets.token_urlsafe()}
    script = Path(site_app.__file__).with_name("app.py")
    dashboard.leave_current_folder(script.parent)
    dashboard.run(script, f"flfed site app {site.name}", port=port, headless=headless)
