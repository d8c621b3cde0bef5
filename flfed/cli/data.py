"""`flfed data`: datasets and their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import completion, output
from flfed.errors import UsageError

if TYPE_CHECKING:
    from flfed.rows.data.datasets import SourceDescription

app = typer.Typer(no_args_is_help=True, help="List datasets and fetch their files.")


@app.command("list", epilog="Example: flfed data list")
@output.tables
def list_data(as_json: bool = output.JSON) -> None:
    """List the datasets found, and whether their files are here."""
    from flfed.rows.data import datasets

    found: list[dict[str, object]] = []
    for name in datasets.names():
        # A broken dataset is listed with its error, so that the others can still be seen.
        try:
            dataset = datasets.load(name)
        except UsageError as error:
            broken = {"dataset": name, "task": "", "licence": "", "kind": "", "synthetic": False, "absent": []}
            found.append(broken | {"state": f"broken: {error}"})
            continue
        absent = [file.name for file in dataset.absent()]
        how = _kind(dataset.source)
        state = f"to be fetched: flfed data get {name}" if absent else "here"
        found.append(
            {"dataset": name, "task": dataset.schema.task, "licence": dataset.source.licence, "kind": how}
            | {"synthetic": dataset.source.synthetic, "state": state, "absent": absent}
        )
    if as_json:
        output.as_json({"datasets": found})
        return
    headers = ["dataset", "task", "kind", "licence", "state"]
    output.as_table(headers, [[str(line[key]) for key in headers] for line in found], spare=("licence", "kind", "task"))


def _kind(source: SourceDescription) -> str:
    """Return where a dataset's rows come from, in a word or two."""
    if source.files:
        return "embedded" if source.embedded else "download"
    return "simulated" if source.synthetic else "in a package" if source.table else "embedded"


@app.command("get", epilog="Example: flfed data get heart-disease --from /media/stick")
def get_data(
    name: str = typer.Argument(..., help="A dataset's name.", autocompletion=completion.datasets),
    from_folder: Path | None = typer.Option(
        None, "--from", help="Take the files from this folder and its sub-folders, found by hash: no internet needed."
    ),
) -> None:
    """Fetch a dataset's files and check them against their SHA-256."""
    from flfed.rows.data import datasets

    dataset = datasets.load(name)
    # Some datasets need no files, which is no error.
    if not dataset.source.files:
        typer.echo(f"{name}: nothing to fetch; it comes with flfed or with a package that flfed needs.")
        return
    paths = datasets.get(dataset, from_folder=from_folder, progress=typer.echo)
    typer.echo(f"{name}: {len(paths)} files are in {paths[0].parent}")
