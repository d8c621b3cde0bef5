"""The tree of the commands."""

from __future__ import annotations

import typer

from flfed.cli import audit, dashboard, data, predict, runs, site, study
from flfed.cli.site_commands import consortium

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated learning for hospitals and banks, on tables. Start with: flfed demo",
)
app.command("demo", epilog="Example: flfed demo")(dashboard.demo)
study.app.command("verify", epilog="Example: flfed study verify wine")(study.verify_study)
study.app.command("sweep", epilog="Example: flfed study sweep wine --set validation=0.2 --grid lr=0.1,0.3")(
    study.sweep_study
)
app.add_typer(study.app, name="study")
app.add_typer(runs.app, name="run")
app.add_typer(data.app, name="data")
consortium.add_to(site.app)
app.add_typer(site.app, name="site")
app.add_typer(consortium.app, name="coordinator")
app.command("audit", epilog="Example: flfed audit latest --json")(audit.audit)
app.command("predict", epilog="Example: flfed predict my-model patients.csv --out predictions.csv")(predict.predict)
app.command("app", epilog="Example: flfed app --port 8501")(dashboard.open_app)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Federated learning for hospitals and banks, on tables. Start with: flfed demo."""
    if show:
        import flfed

        typer.echo(f"flfed {flfed.__version__}")
        raise typer.Exit
