"""`flfed site budget`: what all studies have spent of the privacy of a site's rows, and what is left."""

from __future__ import annotations

from typing import Any

import typer

from flfed.cli import show
from flfed.errors import UsageError


def show_budget(
    name: str = typer.Argument(..., help="A site's name."),
    dataset: str = typer.Option("", "--dataset", help="One of the site's datasets; all unless given."),
    as_json: bool = show.JSON,
) -> None:
    """Show what was spent of the budget of differential privacy, by dataset, study and run, and what left uncharged.

    By the site's ledger, over all studies and years. What is spent was written down before it was used,
    so that a crash may have spent what nobody got.
    """
    from flfed.apps.budget import budget_as_json
    from flfed.apps.gate.folder import SiteFolder
    from flfed.apps.gate.receipts import ledger_of
    from flfed.rows import site as sites

    site = sites.load(name)
    if dataset and dataset not in site.datasets:
        raise UsageError(f"site {name!r} does not serve dataset {dataset!r}; it serves: {', '.join(site.datasets)}")
    found = budget_as_json(site, ledger_of(SiteFolder(site.name)), dataset)
    if as_json:
        show.as_json(found)
        return
    for one in found["datasets"]:
        _print(one, found)
    if found["restarted"]:
        typer.echo(f"The ledger began anew on {found['restarted'][:10]}: what the one before lost is not counted here.")


def _print(one: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the account of one dataset."""
    from flfed.apps.budget import in_words
    from flfed.apps.spending import shown

    if one["dataset"]:
        typer.echo(in_words(one, found["delta"], enforced=found["enforced"]))
    else:
        typer.echo("Of studies whose dataset the ledger does not name:")
    several = len(one["account"]) > 1
    rows = [
        [run["study"], run["run"], *([run["dataset"]] if several else []), run["unit"], run["first"][:10],
         str(run["rounds"]), str(run["steps"]),
         f"{run['noise']:g}", f"{run['sampling']:g}", "beyond" if run["epsilon"] is None else shown(run["epsilon"])]
        for run in one["runs"]
    ]  # fmt: skip
    if rows:
        columns = ["study", "run", *(["dataset"] if several else []), "unit", "since", "rounds", "steps", "noise"]
        columns += ["sampling", "epsilon alone"]
        show.as_table(columns, rows, title="Spent; together it is less than the sum of the last column")
    rows = [[left["kind"], f"{left['lines']:,}", f"{left['bytes']:,}"] for left in one["uncharged"]]
    if rows:
        show.as_table(["what", "lines", "bytes"], rows, title="Left without noise: no budget counts it")
