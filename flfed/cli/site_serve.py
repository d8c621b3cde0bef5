"""`flfed site serve` and `flfed site units`: a site's two processes, and what runs them for good."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import typer

from flfed.cli import show
from flfed.errors import FlfedError, UsageError

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
    from flfed.apps.gate.folder import SiteFolder
    from flfed.apps.gate.serving import serve
    from flfed.apps.supervising import told_to_stop
    from flfed.packages import named_folders
    from flfed.rows import site as sites

    if not network_only:
        own = sites.load(name)  # said here, and not again and again in the gate's log
        show.passed_over(own.name)
        typer.echo(f"package of {name}: {own.folder} ({named_folders()})", err=True)
    with told_to_stop() as stop:
        serve(
            SiteFolder(name),
            stop,
            network=not gate_only,
            gate=not network_only,
            told=lambda sentence: typer.echo(sentence, err=True),
            memory=memory,
        )


def write_units(
    name: str = NAME,
    out: Path = typer.Option(..., "--out", metavar="DIR", help="Where to write them."),
    base: Path = typer.Option(Path(BASE), "--base", metavar="DIR", help="Folder of the two users' folders."),
    command: Path | None = typer.Option(None, "--command", metavar="FILE", help="The installed flfed; default: this."),
    address: str = typer.Option(
        "", "--address", metavar="IP:PORT", help="The coordinator's; the node may then reach nothing else."
    ),
    as_json: bool = show.JSON,
) -> None:
    """Write units for systemd with two users, and a compose file, for a site."""
    from flfed.apps.gate import units

    files = units.filled(name, command=command or _installed(), base=base, address=address or _known(name))
    written = units.write(out, files)
    if as_json:
        show.as_json({"site": name, "files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(str(path))
    typer.echo(
        f"""
As root, once:
  cp {out}/flfed-{name}-sysusers.conf /etc/sysusers.d/ && systemd-sysusers
  cp {out}/flfed-{name}-tmpfiles.conf /etc/tmpfiles.d/ && systemd-tmpfiles --create
The package of the site goes into {base}/gate/packages/sites, or the folder FLFED_PATH of {base}/gate/serve.env.
Join as flfed-net with FLFED_HOME={base}/net; approve and freeze as flfed-gate with
FLFED_HOME={base}/gate FLFED_PATH={base}/gate/packages. Then:
  cp {out}/flfed-{name}-*.service /etc/systemd/system/ && systemctl daemon-reload
  systemctl enable --now flfed-{name}-network flfed-{name}-gate"""
    )


def _installed() -> Path:
    """Return the `flfed` beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("flfed")
    found = str(beside) if beside.is_file() else shutil.which("flfed")
    if found is None:
        raise UsageError("the flfed command is not beside this Python; name it: --command /path/to/flfed")
    return Path(found)


def _known(name: str) -> str:
    """Return the coordinator's address where this site has joined as this user, else ""."""
    from flfed.apps.gate.folder import SiteFolder
    from flfed.apps.gate.joining import joined

    try:
        return str(joined(SiteFolder(name)).get("address", ""))
    except FlfedError:
        return ""
