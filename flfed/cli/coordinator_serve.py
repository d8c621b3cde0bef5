"""`flfed coordinator serve`, `status` and `run`: the server, who is there, and a study at the institutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flfed.cli import show
from flfed.cli.study import NAME, SET

if TYPE_CHECKING:
    from flfed.apps.coordinator.status import LastRun, SiteStatus

LISTEN = typer.Option(
    "",
    "--listen",
    metavar="[IP][:PORT]",
    help="Where to listen, where it is not the public address: 10.0.0.5, :8443 or 10.0.0.5:8443.",
)


NOT_APPROVED = (
    "--set {}: sites approve a study word for word, and have not approved this text; each refuses it unless its policy "
    "asks for no approval. To ask for approvals, write the changes into a study file, and send that to the sites."
)


def serve_coordinator(listen: str = LISTEN) -> None:
    """Serve the consortium until Ctrl-C or SIGTERM: nodes of admitted sites can connect, nobody else.

    Flower's SuperLink runs on loopback, Caddy before it. A site that is admitted or revoked meanwhile is taken in or
    cut off within seconds. The server's certificate is renewed in its last 30 days, where no run goes on.
    """
    from flfed.apps.coordinator.folder import CoordinatorFolder
    from flfed.apps.coordinator.front import listening
    from flfed.apps.coordinator.serving import serve
    from flfed.apps.supervising import told_to_stop

    bind, port = listening(listen)
    with told_to_stop() as stop:
        serve(CoordinatorFolder.default(), stop, told=lambda said: typer.echo(said, err=True), bind=bind, port=port)


def coordinator_status(as_json: bool = show.JSON) -> None:
    """Show who is admitted and online, and what each site did in its last run."""
    from flfed.apps.coordinator.folder import CoordinatorFolder
    from flfed.apps.coordinator.status import status

    found = status(CoordinatorFolder.default())
    if as_json:
        show.as_json(found.as_json())
        return
    serving = "serving" if found.serving else "NOT serving: flfed coordinator serve"
    typer.echo(f"{found.title}, {found.address}: {serving}.")
    typer.echo(f"The server's certificate holds for {_days(found.server_days)}.")
    for problem in found.problems:
        typer.echo(f"Left out: {problem}.")
    if found.sites:
        rows = [[site.site, site.status, _node(site), *_last(site.last)] for site in found.sites]
        show.as_table(["site", "", "node", "last run", "answer", "round"], rows)
    else:
        typer.echo("No site was invited yet: flfed coordinator invite SITE")


def _days(left: int) -> str:
    from flfed.apps.coordinator.authority import RENEWED_DAYS

    if left >= RENEWED_DAYS:
        return f"{left} days"
    return f"{left} days; a coordinator that serves renews it where no run goes on, or: flfed coordinator rotate server"


def _node(site: SiteStatus) -> str:
    said = f"online since {site.online_since[:16]}" if site.online_since else site.node
    seconds = site.seconds_since_request
    return said if seconds is None else f"{said}, last request {seconds:.0f} s ago"


def _last(last: LastRun | None) -> list[str]:
    if last is None:
        return ["", "", ""]
    why = f": {last.reason}" if last.reason else ""
    return [f"{last.study} ({last.run}, {last.state})", f"{last.answer}{why}", f"{last.round} of {last.of}"]


def run_deployed(
    name: str = NAME,
    changes: list[str] = SET,
    repeats: int = typer.Option(1, help="How often, with other seeds."),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Ask only these sites; all that are admitted."),
    as_json: bool = show.JSON,
) -> None:
    """Run a study at the institutions and print how every site did: study run --engine deployment.

    Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped.
    """
    from flfed.cli.study import run_study

    if changes:
        typer.echo(NOT_APPROVED.format(", ".join(changes)), err=True)
    run_study(
        name, engine="deployment", changes=changes, repeats=repeats, sites=sites, one_by_one=False, as_json=as_json
    )
