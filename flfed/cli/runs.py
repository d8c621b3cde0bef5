"""`flfed run show`, `compare`, `export` and `report`: the result of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from flfed.cli import arguments, output
from flfed.cli.arguments import LATEST, WHICH
from flfed.words import render, usage_error

app = typer.Typer(no_args_is_help=True, help="Runs and their results.")


@app.command("show", epilog="latest")
@output.tables
def show_run(run: str = LATEST, whole: bool = output.ALL, as_json: bool = output.JSON) -> None:
    """Show the result of a run, or of a series of repeats.

    With many sites, those with the clearest results are shown. --all shows each site, and lists the releases that the
    privacy guarantee does not cover.
    """
    if as_json:
        output.print_json(object_of(run))
        return
    from flfed.cli.run_tables import print_report
    from flfed.records.reports.report import report
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        print_report(report(reader, run), whole=whole)


@app.command("compare", epilog="20261120-153012-a1b2 latest --json")
@output.tables
def compare(
    a: str = typer.Argument(..., help=WHICH, autocompletion=arguments.complete_runs),
    b: str = typer.Argument(..., help="The other one.", autocompletion=arguments.complete_runs),
    whole: bool = output.ALL,
) -> output.Shown:
    """Compare two runs: settings, figures, and the difference between their models."""
    from flfed.cli.run_tables import print_comparison
    from flfed.experiments.compare_runs import compare_runs

    comparison = compare_runs(a, b)
    yield comparison
    print_comparison(comparison, whole=whole)


@app.command("export", epilog="latest --output my-model")
@output.with_json
def export_run(
    run: str = LATEST,
    to: Path | None = typer.Option(None, "--output", help="New or empty folder; default: RUN."),
) -> output.Shown:
    """Export a run to a folder: model for `flfed predict`, report, and figures as CSV."""
    from flfed.export.run_folder import export

    done = export(run, to)
    yield done.as_object()
    # Files are listed also without a model among them.
    yield f"{done.folder}: {', '.join(done.files)}"
    if done.model is None:
        yield f"No model: {done.reason}"
    else:
        yield render("commands.export.use", folder=done.folder)
    if done.signer is not None:
        yield render("commands.export.signed", title=done.signer.title, key=done.fingerprint)


@app.command("report", epilog="latest --output report.html")
@output.with_json
def report_run(
    run: str = LATEST,
    file: Path | None = typer.Option(None, "--output", help="HTML file; default: RUN.html."),
    dossier: Path | None = typer.Option(
        None, metavar="FOLDER", help="New or empty folder for report, answer sheets and RO-Crate."
    ),
    anonymous: bool = typer.Option(False, help="Write site 1, site 2 and so on in place of names."),
) -> output.Shown:
    """Write the report of a run as one HTML file, or a dossier for those who sign.

    It has verdict, figures with intervals, curves, Table 1, privacy and hashes, and loads nothing. An earlier report
    at the same place is replaced; any other file is not.
    """
    if dossier is not None:
        if file is not None or anonymous:
            raise usage_error("commands.report.alone")
        yield from _dossier(run, dossier)
        return
    from flfed.records.document.document import write_document
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        name = reader.runs_of(run)[0].series if run == "latest" else run
    to = file or Path(f"{name}.html")
    write_document(to, name, anonymous=anonymous)
    yield {"run": name, "file": str(to)}
    yield render("commands.report.run", file=to, run=name)


def _dossier(run: str, folder: Path) -> output.Shown:
    """Write a dossier; the coordinator's list of institutions goes into it where this machine has one."""
    from flfed.deployment.coordinator.admission import readable
    from flfed.paths import CoordinatorFolder
    from flfed.records.dossier.dossier import write_dossier

    memberships, _ = readable(CoordinatorFolder.default())
    keys = ("site", "status", "invited", "admitted", "revoked", "gate_key")
    members = [{key: getattr(of, key) for key in keys} for of in memberships.values()]
    written = write_dossier(folder, run, members=members)
    yield written.as_object()
    yield render("commands.report.dossier", folder=folder, run=written.run)
    for sheet, (items, answered) in written.counts.items():
        yield render("commands.report.sheet", sheet=sheet, items=items, record=answered)


def object_of(run: str) -> dict[str, Any]:
    """Return the report of a run as `--json` prints it."""
    from flfed.records.reports.report import is_of_model, report
    from flfed.records.statistics.recorded_statistic import statistic_object
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        run_report = report(reader, run)
        return run_report if is_of_model(run_report, reader.runs_of(run)) else statistic_object(run_report)
