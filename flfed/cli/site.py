"""`flfed site`: the institutions found here, and whether their tables fit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import output
from flfed.errors import UsageError

if TYPE_CHECKING:
    from flfed.rows.data.table_check import Line

app = typer.Typer(no_args_is_help=True, help="List sites and check their tables.")


@app.command("list", epilog="Example: flfed site list")
def list_sites(as_json: bool = output.JSON) -> None:
    """List the sites found, with dataset and disclosure."""
    from flfed.rows.data import site_discovery as sites

    found, lines = [], []
    # A broken package is listed with its error, so that the others can still be seen.
    for name in sites.names():
        try:
            s = sites.load(name)
            lines.append([name, s.title, ", ".join(s.datasets), s.policy.disclosure])
            served = {"dataset": s.dataset, "also": list(s.also)}
            found.append({"site": name, "title": s.title, **served, "disclosure": s.policy.disclosure})
        except UsageError as error:
            lines.append([name, f"broken: {error}", "", ""])
            found.append({"site": name, "title": lines[-1][1], "dataset": "", "also": [], "disclosure": ""})
    if as_json:
        output.as_json({"sites": found})
        return
    output.as_table(["site", "title", "dataset", "disclosure"], lines)


def _passed(line: Line) -> str:
    return "note" if line.note else "pass" if line.passed else "FAIL"


@app.command("check", epilog="Example: flfed site check cleveland --local-rows broken.csv")
def check_site(
    name: str = typer.Argument(..., help="A site's name, or an import path such as package.module."),
    dataset: str = typer.Option("", help="One of the datasets that the site serves; its own unless given."),
    local_rows: Path | None = typer.Option(
        None, help="Write which rows break which rule into this file (mode 600): for the site's own eyes."
    ),
    as_json: bool = output.JSON,
) -> None:
    """Check a site's table against its dataset's schema: pass or fail a column, counts only."""
    from flfed.rows.data import site_discovery as sites
    from flfed.rows.data.table_check import check_site as check
    from flfed.rows.data.table_check import write_local_rows

    site = sites.load(name)
    checked = check(site.serving(dataset or site.dataset))
    # The file names rows, so that it is written apart from what is printed.
    if local_rows is not None:
        lines = write_local_rows(checked, local_rows)
        typer.echo(f"{lines} lines written to {local_rows}; it names rows, so it must not leave the site.", err=True)
    if as_json:
        counts = {"rows": checked.rows, "training-rows": checked.training_rows, "holdout-rows": checked.holdout_rows}
        lines_found = [asdict(line) for line in checked.lines]
        output.as_json({"site": checked.site, "passed": checked.passed, **counts, "columns": lines_found})
    else:
        rows = [[line.column, _passed(line), line.detail] for line in checked.lines]
        output.as_table(["column", "", "counts"], rows, title=f"{checked.site}: {checked.rows} rows")
        passed = f"fits: {checked.training_rows} training rows, {checked.holdout_rows} holdout rows"
        typer.echo(f"{checked.site} {passed if checked.passed else 'does not fit yet'}.")
    # The first reason is enough for one sentence, and the table above has them all.
    if not checked.passed:
        wrong = [line for line in checked.lines if not line.passed]
        first = wrong[0].detail if wrong[0].column == "table" else f"column {wrong[0].column!r} {wrong[0].detail}"
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UsageError(
            f"site {checked.site!r} does not fit dataset {dataset or site.dataset!r}: {first}{more}; "
            "correct table or mapping, --local-rows FILE lists the rows"
        )
