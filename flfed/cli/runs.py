"""`flfed run`: what was run, and what it showed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from flfed.cli import output
from flfed.cli.study import print_report, report_of

app = typer.Typer(no_args_is_help=True, help="List, show, compare and export runs.")


@app.command("list", epilog="Example: flfed run list --json")
def list_runs(
    search: str = typer.Option("", help="Only runs whose study or id contains this."),
    limit: int = typer.Option(50, min=1, help="At most so many."),
    as_json: bool = output.JSON,
) -> None:
    """List runs, newest first."""
    from flfed.records.reports.report import run_list
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        found = run_list(reader, search=search, limit=limit)
    if as_json:
        output.as_json(found)
        return
    if not found["runs"]:
        typer.echo("No run matches." if search else "No runs yet. Start one with: flfed demo")
        return
    lines = [
        [
            run["run"],
            run["study"],
            run["status"],
            run["engine"],
            _minute(run["started"]),
            str(run["rounds"]),
            _gone(run),
        ]
        for run in found["runs"]
    ]
    output.as_table(["run", "study", "status", "engine", "started, UTC", "rounds", "sites that took no part"], lines)


@app.command("show", epilog="Example: flfed run show latest")
def show_run(
    run: str = typer.Argument("latest", help="A run's or series' id, or latest."), as_json: bool = output.JSON
) -> None:
    """Show what a run, or a series of repeats, found."""
    found = report_of(run)
    if as_json:
        output.as_json(found)
    else:
        print_report(found)


@app.command("compare", epilog="Example: flfed run compare 20261120-153012-a1b2 latest --json")
def compare(
    a: str = typer.Argument(..., help="A run's or series' id, or latest."),
    b: str = typer.Argument(..., help="The other one."),
    as_json: bool = output.JSON,
) -> None:
    """Show two runs side by side: settings, figures, and how far their models are apart."""
    from flfed.experiments.compare_runs import compare_runs

    found = compare_runs(a, b)
    if as_json:
        output.as_json(found)
    else:
        _print_comparison(found)


@app.command("export", epilog="Example: flfed run export latest --to my-model")
def export_run(
    run: str = typer.Argument("latest", help="A run's or series' id, or latest."),
    to: Path | None = typer.Option(None, help="A new or empty folder; default: one with the run's id, here."),
    as_json: bool = output.JSON,
) -> None:
    """Write a run into a folder: its model for `flfed predict`, its report, its figures as CSV."""
    from flfed.export.run_folder import export

    done = export(run, to)
    if as_json:
        output.as_json(done.as_object())
        return
    # The files are named even where a model is not among them.
    typer.echo(f"{done.folder}: {', '.join(done.files)}")
    typer.echo(
        f"No model is among them: {done.reason}" if done.model is None else f"Use it: flfed predict {done.folder} TABLE"
    )
    if done.signer is not None:
        typer.echo(f"Signed by {done.signer.title}, key {done.fingerprint}; who predicts with it can compare that.")


def _print_comparison(found: dict[str, Any]) -> None:
    """Print two runs side by side, for people."""
    keys = ("run", "study", "status", "engine", "rounds", "repeats", "seconds")
    rows = [[key, _said(found["a"][key]), _said(found["b"][key])] for key in keys]
    # Only keys that differ: two studies share most of theirs.
    rows += [[change["key"], _said(change["a"]), _said(change["b"])] for change in found["settings"]]
    output.as_table(["", "A", "B"], rows)
    words = {True: "equal", False: "different", None: "not known"}
    typer.echo(", ".join(f"{name} {words[both['equal']]}" for name, both in found["hashes"].items()))
    figures = [("all sites", arm, found[arm]) for arm in ("global", "sites-mean", "pooled") if found[arm]]
    figures += [(site, arm, both) for site, arms in found["sites"].items() for arm, both in arms.items() if both]
    # Of a single site the primary metric is enough; all sites show every one.
    lines = [
        [where, arm, metric, *(_said(both[key]) for key in ("a", "b", "difference"))]
        for where, arm, metrics in figures
        for metric, both in metrics.items()
        if metric in found["primary"].values() or where == "all sites"
    ]
    if lines:
        output.as_table(["where", "arm", "metric", "A", "B", "B - A"], lines)
    apart = found["arrays-max-difference"]
    typer.echo(
        f"The models' arrays differ by at most {apart:.3g}." if apart is not None
        else f"How far the models' arrays are apart is not known: {found['arrays-reason']}."
    )  # fmt: skip


def _gone(run: dict[str, Any]) -> str:
    """Return "2 of 4: basel, bern", "" where all took part."""
    from flfed.records.reports.faults import some

    return f"{len(run['missing'])} of {run['sites']}: {some(run['missing'])}" if run["missing"] else ""


def _minute(moment: str) -> str:
    """Return "2026-11-20 15:30" of "2026-11-20T15:30:12.084Z"."""
    return moment[:16].replace("T", " ")


def _said(value: object) -> str:
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
