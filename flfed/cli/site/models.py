"""`flfed site budget`, `model` and `models`: a site's privacy budget, and the models of its runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from flfed.cli import output
from flfed.cli.arguments import ALLOW_UNMATCHED, SITE_NAME
from flfed.paths import SiteFolder
from flfed.words import counted, people_in_words, render


@output.tables
def show_budget(name: str = SITE_NAME) -> output.Shown:
    """Show the privacy budget that each run has spent, and the releases that it does not cover.

    It is the account of the site: of all its datasets, studies and years. A run is charged whole before its first
    request with noise is answered, and stays charged if it breaks off.
    """
    from flfed.deployment.operator.budget import budget_as_json, describe_account, shown_or
    from flfed.federation.client.account import spent_at
    from flfed.records.ledger import ledger_of
    from flfed.rows.data import site_discovery as sites

    site = sites.load(name)
    folder = SiteFolder(site.name)
    budget = budget_as_json(site, spent_at(folder), ledger_of(folder))
    yield budget
    typer.echo(describe_account(budget))
    columns = ["study", "run", "repeat", "dataset", "unit", "charged", "epsilon"]
    rows = [
        [
            run["study"],
            run["run"],
            str(run["repeat"]),
            run["dataset"],
            run["unit"],
            run["at"][:10],
            shown_or("beyond", run["epsilon"]),
        ]
        for run in budget["runs"]
    ]
    if rows:
        output.as_table(columns, rows, title=render("commands.budget.runs"), spare=("unit", "repeat", "charged"))
    lines = [[left["kind"], f"{left['lines']:,}", f"{left['bytes']:,}"] for left in budget["uncharged"]]
    if lines:
        output.as_table(["kind", "lines", "bytes"], lines, title=render("commands.budget.uncovered"))
    if budget["restarted"]:
        yield render("commands.budget.restarted", date=budget["restarted"][:10])


@output.with_json
def take_model(
    name: str = SITE_NAME,
    run: str = typer.Argument(..., help="Run id."),
    to: Path = typer.Option(..., "--output", help="New or empty folder."),
    repeat: int = typer.Option(0, min=0, help="Repeat number."),
) -> output.Shown:
    """Export the model of a run, for `flfed predict`, where the coordinator lacks it or a part of it."""
    from flfed.export.run_folder import export_at_site

    done = export_at_site(SiteFolder(name).site, run, repeat, to)
    yield done.as_object()
    yield f"{done.folder}: {', '.join(done.files)}"
    yield render("commands.export.use", folder=done.folder)


@output.tables
def list_models(
    name: str = SITE_NAME,
    people: Path = typer.Option(
        ..., "--people", metavar="FILE", help="Private file like excluded.csv: a column's name, an identifier a line."
    ),
    allow_unmatched: bool = ALLOW_UNMATCHED,
) -> output.Shown:
    """List the runs that used rows of these people, by keyed hashes that the site stores.

    Nothing leaves the site, and no identifier is written.
    """
    from flfed.deployment.site_state.lineage import lineage, unlisted
    from flfed.rows.data import site_discovery as sites
    from flfed.rows.snapshots.opt_outs import ANY, Excluded

    wanted = Excluded.read(people, allowed=ANY if allow_unmatched else None)
    site = sites.load(name)
    model_runs = lineage(site, wanted)
    others = unlisted(site)
    runs = list(map(asdict, model_runs))
    unnamed = [{"run": run, "study": study} for run, study in others.items()]
    yield {"site": name, "people": len(wanted.identifiers), "runs": runs, "unlisted": unnamed}
    lines = []
    for one in model_runs:
        parts = ", ".join(f"{side}: {count}" for side, count in one.sides.items())
        lines.append([one.run, str(one.repeat), one.study, parts])
    output.as_table(["run", "repeat", "study", "people in its rows"], lines, render("commands.models.title", site=name))
    run_count = counted(len({one.run for one in model_runs}), "run")
    yield render("commands.models.counted", runs=run_count, people=people_in_words(len(wanted.identifiers)))
    if others:
        named = ", ".join(f"{run} ({study})" for run, study in others.items())
        yield render("commands.models.unlisted", runs=counted(len(others), "run"), named=named)
