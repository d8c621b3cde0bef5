"""`flfed site serve`, `units` and `app`: processes and pages of a site."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import typer

from flfed.cli import output
from flfed.cli.arguments import JOINED_SITE, SITE_NAME
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder, home
from flfed.words import render

BASE = "/var/lib/flfed"


def serve_site(
    name: str = JOINED_SITE,
    network_only: bool = typer.Option(False, "--network-only", help="Only the node, as the user with the network."),
    gate_only: bool = typer.Option(False, "--gate-only", help="Only the gate, as the user with the data."),
    memory: str = typer.Option(
        "", "--memory", metavar="SIZE", help="Most memory of the gate, such as 4G; default: half."
    ),
) -> None:
    """Take part: answer the coordinator's requests, within approvals and policy. Ctrl-C ends it.

    The node has the network and no data. The gate has the data and, if the system permits it, no network. Both are
    restarted if they end. To give each a user of its own: flfed site units NAME.
    """
    from flfed.deployment.processes.serve import serve
    from flfed.deployment.processes.supervisor import stop_on_signals
    from flfed.deployment.site_state.freeze import describe_frozen
    from flfed.packages import named_folders
    from flfed.rows.data import site_discovery as sites

    # The node has no package, and may not read one.
    if not network_only:
        own = sites.load(name)  # an error is printed here once, and not repeated in the gate's log
        output.passed_over(own.name)
        with suppress(FlfedError):  # a damaged snapshot: status and doctor say it
            for dataset in own.datasets:
                for one in describe_frozen(SiteFolder(name), own.serving(dataset)):
                    if one["changed"]:
                        typer.echo(render("gate.files.table", site=name, **one), err=True)
        typer.echo(render("commands.serve.package", site=name, folder=own.folder, path=named_folders()), err=True)
    notify = partial(typer.echo, err=True)
    with stop_on_signals() as stop:
        which = {"network": not gate_only, "gate": not network_only}
        serve(SiteFolder(name), stop, **which, notify=notify, memory=memory)


@output.with_json
def write_units(
    name: str = JOINED_SITE,
    out: Path = typer.Option(..., "--output", metavar="DIR", help="Target folder."),
    base: Path = typer.Option(Path(BASE), "--base", metavar="DIR", help="Parent of both users' folders."),
    command: Path | None = typer.Option(None, "--command", metavar="FILE", help="Installed flfed command."),
    address: str = typer.Option(
        "", "--address", metavar="IP:PORT", help="Coordinator or proxy, the only address that the node may then reach."
    ),
) -> output.Shown:
    """Write systemd units for two users, and a compose file, for a site."""
    from flfed.deployment.processes import units

    joined_address, peer = _peer(name)
    reached = address or joined_address
    files = units.filled(name, command=command or _installed(), base=base, address=reached, peer=peer)
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


def open_site_app(
    name: str = SITE_NAME,
    port: int = typer.Option(8502, min=1, max=65535, help="Local port."),
    headless: bool = typer.Option(False, help="Open no browser."),
) -> None:
    """Open the site's own app: its ledger, budget, approvals and results, and none of other sites.

    Only this machine can reach it, and it changes nothing. Only the user with the data can start it, and only the
    printed address, which has a token, shows its pages.
    """
    from flfed.cli import dashboard
    from flfed.deployment import site_app
    from flfed.rows.data import site_discovery as sites

    # The folder belongs to one user, whom the error names.
    try:
        home()
    except UsageError as error:
        raise UsageError(f"{error}; only the user with the site's data can open it") from None
    site = sites.load(name)
    output.passed_over(site.name)
    why = site_app.closed(SiteFolder(site.name))
    if why:
        raise UsageError(why)
    # Passed in the environment: all accounts can read a command line.
    os.environ |= {site_app.SITE: site.name, site_app.TOKEN: secrets.token_urlsafe()}
    script = Path(site_app.__file__).with_name("app.py")
    dashboard.leave_current_folder(script.parent)
    dashboard.run(script, f"flfed site app {site.name}", port=port, headless=headless)
