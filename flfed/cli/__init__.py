"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys

import typer

from flfed.cli import data, demo, page, runs, site, study
from flfed.errors import FlfedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated learning for hospitals and banks, on tables. Start with: flfed demo",
)
app.command("demo", epilog="Example: flfed demo")(demo.demo)
app.add_typer(study.app, name="study")
app.add_typer(runs.app, name="run")
app.add_typer(data.app, name="data")
app.add_typer(site.app, name="site")
app.command("app", epilog="Example: flfed app --port 8501")(page.open_app)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Federated learning for hospitals and banks, on tables. Start with: flfed demo."""
    if show:
        import flfed

        typer.echo(f"flfed {flfed.__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; an error a person can act on is one sentence and an exit code."""
    try:
        app()
    except FlfedError as error:
        print(f"flfed: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output (head, less) has left.
        sys.stderr.close()
        sys.exit(1)
