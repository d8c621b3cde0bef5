"""The commands of real institutions: `flfed coordinator`, and what a site that has joined does."""

from __future__ import annotations

import typer

from flfed.cli import coordinator
from flfed.cli.site_commands import approve, ledger, rows, serve
from flfed.packages import strictly

app = typer.Typer(no_args_is_help=True, help="Invite sites, serve them, and run studies at them.")
COORDINATOR = (
    ("init", coordinator.init_coordinator, "init --title 'Heart consortium' --address fl.example.org:443"),
    ("invite", coordinator.invite_site, "invite cleveland"),
    ("admit", coordinator.admit_site, "admit cleveland.admission"),
    ("serve", coordinator.serve_coordinator, "serve"),
    ("run", coordinator.run_deployed, "run heart-disease"),
    ("status", coordinator.coordinator_status, "status"),
    ("revoke", coordinator.revoke_site, "revoke cleveland"),
    ("ledger", coordinator.site_ledger, "ledger cleveland"),
    ("rotate", coordinator.rotate_key, "rotate server"),
    ("renewal", coordinator.write_renewal, "renewal --to ."),
)
SITE = (
    ("join", serve.join_site, "join cleveland.kit.zip"),
    ("approve", approve.approve_study, "approve heart-disease --site cleveland --with hungary,switzerland"),
    ("serve", serve.serve_site, "serve cleveland"),
    ("status", approve.site_status, "status cleveland"),
    ("pause", approve.pause_site, "pause cleveland"),
    ("withdraw", approve.withdraw_study, "withdraw heart-disease --site cleveland"),
    ("freeze", rows.freeze_rows, "freeze cleveland"),
    ("refresh", rows.refresh_rows, "refresh cleveland"),
    ("ledger", ledger.show_ledger, "ledger cleveland --verify"),
    ("budget", ledger.show_budget, "budget cleveland --dataset heart-disease"),
    ("app", serve.open_site_app, "app cleveland"),
    ("replay", rows.replay_round, "replay RUN --round 3 --site cleveland"),
    ("units", serve.write_units, "units cleveland --out units"),
)
for name, command, example in COORDINATOR:
    app.command(name, epilog=f"Example: flfed coordinator {example}")(strictly()(command))


def add_to(site: typer.Typer) -> None:
    """Add the commands of a site that takes part in a deployment."""
    for name, command, example in SITE:
        site.command(name, epilog=f"Example: flfed site {example}")(strictly()(command))
