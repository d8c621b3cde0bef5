"""`flfed run`: what was run, and what it showed."""

from __future__ import annotations

import typer

from flfed.cli import show
from flfed.cli.study import print_report, report_of

app = typer.Typer(no_args_is_help=True, help="List and show runs.")


@app.command("list", epilog="Example: flfed run list --json")
def list_runs(
    search: str = typer.Option("", help="Only runs whose study or id contains this."),
    limit: int = typer.Option(50, min=1, help="At most so many."),
    as_json: bool = show.JSON,
) -> None:
    """List runs, newest first."""
    from flfed.records.reading import RunReader
    from flfed.records.reports import run_list

    with RunReader.open() as reader:
        found = run_list(reader, search=search, limit=limit)
    if as_json:
        show.as_json(found)
        return
    if not found["runs"]:
        typer.echo("No run matches." if search else "No runs yet. Start one with: flfed demo")
        return
    headers = ["run", "study", "status", "engine", "started", "rounds"]
    show.as_table(headers, [[str(run[key]) for key in headers] for run in found["runs"]])


@app.command("show", epilog="Example: flfed run show latest")
def show_run(
    run: str = typer.Argument("latest", help="A run's or series' id, or latest."), as_json: bool = show.JSON
) -> None:
    """Show what a run, or a series of repeats, found."""
    found = report_of(run)
    if as_json:
        show.as_json(found)
    else:
        print_report(found)
