"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import atexit
import gc
import os
import re
import sys
from typing import NoReturn

import click
import typer

from flfed.cli import audit, data, demo, deployment, page, predict, runs, site, study, study_checks
from flfed.errors import FlfedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated learning for hospitals and banks, on tables. Start with: flfed demo",
)
app.command("demo", epilog="Example: flfed demo")(demo.demo)
study.app.command("verify", epilog="Example: flfed study verify wine")(study_checks.verify_study)
study.app.command("sweep", epilog="Example: flfed study sweep wine --set validation=0.2 --grid lr=0.1,0.3")(
    study_checks.sweep_study
)
app.add_typer(study.app, name="study")
app.add_typer(runs.app, name="run")
app.add_typer(data.app, name="data")
deployment.add_to(site.app)
app.add_typer(site.app, name="site")
app.add_typer(deployment.app, name="coordinator")
app.command("audit", epilog="Example: flfed audit latest --json")(audit.audit)
app.command("predict", epilog="Example: flfed predict my-model patients.csv --out predictions.csv")(predict.predict)
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
    for library in ("OMP", "OPENBLAS"):
        # Before either is loaded: at our sizes a second thread only waits, and burns a core meanwhile.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    # As it ends, Python looks for garbage among all that is loaded, again and again: .7 of a run's seconds (measured).
    atexit.register(gc.freeze)
    try:
        code = app(standalone_mode=False)
    except FlfedError as error:
        _leave(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        asked = f"; see: {error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else ""
        # Click and Typer both add what was meant: said once, it is enough.
        said = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", error.format_message().rstrip("."))
        _leave(f"{said}{asked}", error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output (head, less) has left.
        sys.stderr.close()
        sys.exit(1)
    else:
        sys.exit(code)


def _leave(sentence: str, code: int) -> NoReturn:
    """Print one line to standard error and end."""
    print(f"flfed: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(code)
