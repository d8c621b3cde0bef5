"""`flfed site budget`, `model` and `models`: a site's privacy budget, and the models of its runs."""

from __future__ import annotations

from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

import typer

from flfed.cli import output
from flfed.cli.arguments import ALLOW_UNMATCHED, SITE_NAME
from flfed.errors import UsageError
from flfed.paths import SiteFolder
from flfed.records.statistics import verdict
from flfed.words import counted, people_in_words, render


@output.tables
def show_budget(
    name: str = SITE_NAME, dataset: str = typer.Option("", "--dataset", help="Only this dataset.")
) -> output.Shown:
    """Show the spent privacy budget by dataset, study and run, and the releases that it does not cover.

    The figures are from the site's ledger, over all studies and years. A charge is recorded before its release, so
    that a crash may leave a charge without a release.
    """
    from flfed.deployment.operator.budget import budget_as_json
    from flfed.records.ledger import ledger_of
    from flfed.rows.data import site_discovery as sites

    site = sites.load(name)
    if dataset and dataset not in site.datasets:
        raise UsageError(f"site {name!r} does not serve dataset {dataset!r}; it serves: {', '.join(site.datasets)}")
    budget = budget_as_json(site, ledger_of(SiteFolder(site.name)), dataset)
    yield budget
    for one in budget["datasets"]:
        _print(one, budget)
    if budget["restarted"]:
        yield render("commands.budget.restarted", date=budget["restarted"][:10])


def _print(one: dict[str, Any], budget: dict[str, Any]) -> None:
    """Print the account of one dataset."""
    from flfed.deployment.operator.budget import COMPOSED, describe_account

    if one["dataset"]:
        typer.echo(describe_account(one, budget["delta"], enforced=budget["enforced"]))
    else:
        typer.echo(render("commands.budget.unnamed"))
    rows = [_charged(run) for run in one["runs"]]
    if rows:
        # Datasets differ only in a shared account, and people only where a run was charged to one side.
        is_useful = {"dataset": len(one["account"]) > 1, "people": any("side" in run for run in one["runs"])}
        columns = [name for name in rows[0] if is_useful.get(name, True)]
        spare = ("unit", "sampling", "steps", "since", "noise")
        output.as_table(columns, list(map(itemgetter(*columns), rows)), title=COMPOSED, spare=spare)
    lines = [[left["kind"], f"{left['lines']:,}", f"{left['bytes']:,}"] for left in one["uncharged"]]
    if lines:
        output.as_table(["kind", "lines", "bytes"], lines, title=render("commands.budget.uncovered"))


def _charged(run: dict[str, Any]) -> dict[str, str]:
    """Return the charge of one run, as cells by header."""
    from flfed.deployment.operator.budget import PEOPLE, shown_or, times_in_words

    cells = {key: run[key] for key in ("study", "run", "dataset")}
    cells |= {"people": PEOPLE[run.get("side", "both")], "unit": run["unit"], "since": run["first"][:10]}
    cells |= {"asked for": times_in_words(run), "steps": str(run["steps"])}
    cells |= {key: verdict.number(run[key], 3) for key in ("noise", "sampling")}
    cells["epsilon"] = shown_or("beyond", run["epsilon"])
    return cells | {"of its run": shown_or("beyond", run["run-epsilon"])}


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
