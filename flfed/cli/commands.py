"""The tree of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import typer

from flfed.cli import (
    catalogue,
    coordinator,
    dashboard,
    data,
    runs,
    site_approve,
    site_records,
    site_rows,
    site_serve,
    study,
    study_runs,
)
from flfed.cli.site_rows import EVERY_DAY, RARELY, SETTING_UP
from flfed.packages import strictly

Commands = tuple[tuple[str, Callable[..., None], str], ...]
COORDINATOR: Commands = (
    ("init", coordinator.init_coordinator, "init --title 'Heart consortium' --address fl.example.org:443"),
    ("invite", coordinator.invite_site, "invite cleveland"),
    ("admit", coordinator.admit_site, "admit cleveland.admission"),
    ("key", coordinator.site_key, "key cleveland d255-jrl3-avdk-svrf-e2zs-ilh6-lpr4-mfv5-tkxg"),
    ("serve", coordinator.serve_coordinator, "serve"),
    ("run", coordinator.run_deployed, "run heart-disease"),
    ("status", coordinator.coordinator_status, "status"),
    ("revoke", coordinator.revoke_site, "revoke cleveland"),
    ("ledger", coordinator.site_ledger, "ledger cleveland"),
    ("rotate", coordinator.rotate_key, "rotate server"),
    ("renewal", coordinator.write_renewal, "renewal --output ."),
)
SITE: dict[str | None, Commands] = {
    EVERY_DAY: (
        ("approve", site_approve.approve_study, "approve heart-disease --site cleveland --with hungary,switzerland"),
        ("serve", site_serve.serve_site, "serve cleveland"),
        ("status", site_approve.site_status, "status cleveland"),
        ("app", site_serve.open_site_app, "app cleveland"),
    ),
    SETTING_UP: (
        ("join", site_serve.join_site, "join cleveland.kit.zip"),
        ("key", site_serve.show_key, "key cleveland"),
        ("snapshot", site_rows.snapshot_rows, "snapshot cleveland"),
        ("units", site_serve.write_units, "units cleveland --output units"),
    ),
    RARELY: (
        ("pause", site_approve.pause_site, "pause cleveland"),
        ("withdraw", site_approve.withdraw_study, "withdraw heart-disease --site cleveland"),
        ("refresh", site_rows.refresh_rows, "refresh cleveland"),
        ("ledger", site_records.show_ledger, "ledger cleveland --verify"),
        ("budget", site_records.show_budget, "budget cleveland --dataset heart-disease"),
        ("model", site_records.take_model, "model cleveland RUN --output my-model"),
        ("models", site_records.list_models, "models cleveland --people asked.csv"),
        ("compare", site_records.compare_model, "compare cleveland RUN"),
        ("replay", site_rows.replay_round, "replay RUN --round 3 --site cleveland"),
    ),
}
"""Commands of a site, by the panel of its help."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated learning for hospitals and banks, on tables. Start with: flfed demo",
)
for name, command, example in (
    ("list", catalogue.list_runs, "list --study heart-disease --status completed"),
    ("log", catalogue.log_run, "log latest"),
    ("note", catalogue.note_run, "note latest 'the one of the paper'"),
    ("delete", catalogue.delete_run, "delete 20261120-153012-a1b2"),
    ("upgrade-store", catalogue.upgrade_run_store, "upgrade-store"),
):
    runs.app.command(name, epilog=f"Example: flfed run {example}")(command)
app.command("demo", epilog="Example: flfed demo")(dashboard.demo)
study.app.command("verify", epilog="Example: flfed study verify wine")(study_runs.verify_study)
study.app.command("sweep", epilog="Example: flfed study sweep wine --set validation=0.2 --grid lr=0.1,0.3")(
    study_runs.sweep_study
)
app.add_typer(study.app, name="study")
app.add_typer(runs.app, name="run")
app.add_typer(data.app, name="data")
consortium = typer.Typer(no_args_is_help=True, help="Invite sites, serve them, and run studies at them.")
for whose, group, panels in (("site", site_rows.app, SITE), ("coordinator", consortium, {None: COORDINATOR})):
    for panel, commands in panels.items():
        for name, command, example in commands:
            register = group.command(name, epilog=f"Example: flfed {whose} {example}", rich_help_panel=panel)
            register(strictly()(command))
    app.add_typer(group, name=whose)
app.command("audit", epilog="Example: flfed audit latest --json")(runs.audit)
app.command("predict", epilog="Example: flfed predict my-model patients.csv --output predictions.csv")(runs.predict)
app.command("app", epilog="Example: flfed app --port 8501")(dashboard.open_app)


def _join_lines(commands: typer.Typer) -> None:
    """Make each paragraph of help one line, so that a terminal breaks it at its own width alone."""
    for command in commands.registered_commands:
        paragraphs = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs.split("\n\n"))
    for group in commands.registered_groups:
        if group.typer_instance:
            _join_lines(group.typer_instance)


_join_lines(app)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Federated learning for hospitals and banks, on tables. Start with: flfed demo."""
    if show:
        import flfed

        typer.echo(f"flfed {flfed.__version__}")
        raise typer.Exit
