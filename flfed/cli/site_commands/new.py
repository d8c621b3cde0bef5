"""`flfed site new`: a site's package, with a mapping to an existing schema proposed from its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import output
from flfed.errors import UsageError

if TYPE_CHECKING:
    from flfed.rows.data.sources import Source
    from flfed.rows.proposals.workspace import SiteProposal


def new_site(
    name: str = typer.Argument(..., help="The site's name, of a-z, 0-9 and hyphens."),
    dataset: str = typer.Option(..., help="The dataset whose schema the table is mapped to."),
    from_file: Path | None = typer.Option(None, "--from", help="The table: CSV, Parquet or Excel."),
    query: str = typer.Option("", help="Or one SELECT on a database; its address stands in --url-variable."),
    url_variable: str = typer.Option("FLFED_SITE_URL", help="Environment variable that holds the database's URL."),
    names: str = typer.Option("", help="Names of the columns, with commas, where the file has no line of names."),
    title: str = typer.Option("", help="The institution's name for people."),
    public: bool = typer.Option(False, "--public", help="The table is public: exact figures may be shown."),
    to: Path = typer.Option(Path(), help="Write sites/NAME into this folder."),
    as_json: bool = output.JSON,
) -> None:
    """Write a site's package: its source, a proposed mapping to a dataset's schema, a holdout and a policy.

    Columns are matched one to one by names, values, units and ranges. No cell is printed.
    """
    from flfed.rows.proposals.workspace import propose_site

    source = _source(from_file, query, url_variable, names)
    made = propose_site(name, dataset, source, title=title, open_data=public)
    written = made.write(to)
    if as_json:
        columns = [
            {
                "column": m.column,
                "own": m.own,
                "sure": m.sure,
                "why": m.why,
                "unit-factor": m.field.multiply if m.field else None,
            }
            for m in made.matches
        ]
        output.as_json({"site": name, "dataset": dataset, "columns": columns, "files": [str(path) for path in written]})
        return
    rows = [[m.column, m.own or "–", "" if m.sure else "look", m.why] for m in made.matches]
    output.as_table(["column", "read from", "", "because"], rows, title=f"{name}: a mapping to {dataset}")
    for line in _advice(made, written[0]):
        typer.echo(line)
    typer.echo(f"Next: flfed site check {name}")


def _source(file: Path | None, query: str, url_variable: str, names: str) -> Source:
    """Return the source that the options name."""
    from flfed.rows.data.sources import Sql
    from flfed.rows.proposals.files import source_of

    if (file is None) == (not query):
        raise UsageError("give either --from FILE or --query SELECT")
    if file is None:
        return Sql(query, url_variable)
    return source_of(file, names=[word.strip() for word in names.split(",")] if names else [])


def _advice(made: SiteProposal, path: Path) -> list[str]:
    """Return what a person has to do in the file."""
    from flfed.rows.proposals.matching import UNKNOWN

    unnamed = [m.column for m in made.matches if m.field and UNKNOWN in (m.field.values or {}).values()]
    absent = [m.column for m in made.matches if m.own is None]
    lines = [f"Written: {path} and policy.toml beside it."]
    if unnamed:
        lines.append(
            f"Say there what the codes of {', '.join(unnamed)} mean: each {UNKNOWN!r} is one of the schema's values."
        )
    if absent:
        lines.append(
            f"No column was found for {', '.join(absent)}: they are mapped to None, which means not recorded here."
        )
    if made.unread:
        lines.append(f"Nothing is read from {', '.join(made.unread)}.")
    return lines
