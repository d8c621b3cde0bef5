"""The tree of the commands."""

from __future__ import annotations

import inspect

import click
import typer
from typer.core import TyperGroup

from flfed.cli import catalogue, choose, coordinator, dashboard, data, doctor, models, rehearse, runs, study, study_runs
from flfed.cli.site.commands import app as sites
from flfed.packages import strictly

PANELS = (START, STUDIES, SITES, COORDINATORS, MORE) = ("Start here", "Studies", "Sites", "Coordinator", "More")
"""Panels of `flfed --help`, in this order."""


class InOrder(TyperGroup):
    """Commands of the root, in the order of their panels."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(super().list_commands(ctx), key=self._place)

    def _place(self, name: str) -> int:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return PANELS.index(panel) if panel in PANELS else len(PANELS)


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command, example in (
    ("list", catalogue.list_runs, "--limit 10"),
    ("delete", catalogue.delete_run, "20261120-153012-a1b2"),
):
    runs.app.command(name, epilog=example)(command)
app.command("demo", rich_help_panel=START)(dashboard.demo)
app.command("choose", epilog="--answers answers.toml --output study.toml", rich_help_panel=START)(choose.choose_study)
study.app.command("run", epilog="preterm-birth --repeats 10 --set rounds=20 --json")(study_runs.run_study)
study.app.command("resume", epilog="latest")(study_runs.resume_study)
study.app.command("verify", epilog="wine")(study_runs.verify_study)
study.app.command("sweep", epilog="wine --set validation=0.2 --grid lr=0.1,0.3")(study_runs.sweep_study)
app.add_typer(data.app, name="data", rich_help_panel=START)
app.add_typer(study.app, name="study", rich_help_panel=STUDIES)
app.add_typer(runs.app, name="run", rich_help_panel=STUDIES)
app.add_typer(sites, name="site", rich_help_panel=SITES)
consortium = typer.Typer(no_args_is_help=True, help="Invite sites, serve them, run studies.")
for name, command, example in (
    ("init", coordinator.init_coordinator, "--title 'Heart consortium' --address fl.example.org:443"),
    ("invite", coordinator.invite_site, "cleveland"),
    ("admit", coordinator.admit_site, "cleveland.admission hungary.admission"),
    ("key", coordinator.site_key, "cleveland d255-jrl3-avdk-svrf-e2zs-ilh6-lpr4-mfv5-tkxg"),
    ("cards", coordinator.write_cards, "--output consortium.cards"),
    ("serve", coordinator.serve_coordinator, ""),
    ("run", coordinator.run_deployed, "heart-disease"),
    ("status", coordinator.coordinator_status, ""),
    ("revoke", coordinator.revoke_site, "cleveland"),
    ("acknowledge", coordinator.acknowledge_ledger, "cleveland --why 'restored from a backup'"),
):
    consortium.command(name, epilog=example)(strictly()(command))
app.add_typer(consortium, name="coordinator", rich_help_panel=COORDINATORS)
app.command("rehearse", epilog="loan-default", rich_help_panel=START)(strictly()(rehearse.rehearse_study))
app.command("app", epilog="--port 8501", rich_help_panel=START)(dashboard.open_app)
app.command("doctor", epilog="cleveland", rich_help_panel=MORE)(strictly()(doctor.examine))
app.command("predict", epilog="my-model patients.csv --output predictions.csv", rich_help_panel=MORE)(models.predict)
app.command("monitor", epilog="my-model patients-2027.csv", rich_help_panel=MORE)(models.monitor)
app.command("audit", epilog="latest --json", rich_help_panel=MORE)(models.audit)


def _finish_help(commands: typer.Typer, path: str) -> None:
    """Make each paragraph of help one line, which the terminal alone wraps, and complete the examples."""
    for command in commands.registered_commands:
        paragraphs = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs.split("\n\n"))
        command.epilog = f"Example: {path} {command.name} {command.epilog or ''}".rstrip()
    for group in commands.registered_groups:
        if group.typer_instance:
            _finish_help(group.typer_instance, f"{path} {group.name}")


_finish_help(app, "flfed")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Federated learning on tables, for hospitals and banks. Start with: flfed demo."""
    if show:
        import flfed

        typer.echo(f"flfed {flfed.__version__}")
        raise typer.Exit
