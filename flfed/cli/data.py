"""`flfed data`: datasets, their files, and new ones from tables of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from flfed.cli import arguments, output
from flfed.cli.arguments import TO
from flfed.errors import FlfedError, UsageError, collected, count_in_words, raise_all
from flfed.words import counted, render

if TYPE_CHECKING:
    from flfed.rows.data.datasets import Dataset
    from flfed.rows.proposals.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="List, fetch and create datasets.")


TABLE_KINDS = "CSV, Parquet or Excel"
NAMES = typer.Option("", help="Column names, with commas, for a file without a header.")
SHEET = typer.Option("", help="Sheet of a workbook; default: the first.")
SKIP = typer.Option(None, min=0, help="Lines above the names of columns; default: those without a table's cells.")
PUBLIC = typer.Option(False, "--public", help="The rows are public: show exact figures.")
"""Options of each command that writes packages and studies for one's own tables."""


@app.command("list")
@output.tables
def list_data() -> output.Shown:
    """List the datasets, and whether their files are here."""
    from flfed.rows.data import datasets

    entries = []
    broken = {}
    rows = []
    headers = ["dataset", "about", "task", "kind", "licence", "state"]
    for name in datasets.names():
        line: dict[str, object] = {"dataset": name, "task": "", "licence": "", "kind": "", "synthetic": False}
        about = ""
        # A broken dataset is listed with its error, so that the others can still be seen.
        try:
            dataset = datasets.load(name)
        except UsageError as error:
            broken[name] = f"broken: {error}"
            line |= {"absent": [], "state": broken[name]}
        else:
            source = dataset.source
            absent = [file.name for file in dataset.absent()]
            state = render("commands.data.absent", dataset=name) if absent else "here"
            line |= {"task": dataset.schema.task, "licence": source.licence, "kind": _kind(dataset)}
            line |= {"synthetic": source.synthetic, "state": state, "absent": absent}
            about = dataset.schema.title
        entries.append(line)
        # Sentences would leave no room for other columns, and stand below.
        short = str(line["state"]).partition(":")[0]
        rows.append([name, about, str(line["task"]), str(line["kind"]), str(line["licence"]), short])
    yield {"datasets": entries}
    output.as_table(headers, rows, spare=("licence", "kind", "task"), cut="about")
    if any(line["absent"] for line in entries):
        output.say(render("commands.data.fetch"))
    for name, why in broken.items():
        output.say(f"{name}: {why}")


def _kind(dataset: Dataset) -> str:
    """Return where a dataset's rows come from, in a word or two."""
    source = dataset.source
    if source.files and not source.embedded:
        return "download"
    if source.synthetic:
        return "simulated"
    return "embedded" if source.embedded or not dataset.has_table else "in a package"


@app.command("get", epilog="heart-disease --from /media/stick")
def get_data(
    name: str = typer.Argument(..., help="A dataset.", autocompletion=arguments.complete_datasets),
    from_folder: Path | None = typer.Option(
        None, "--from", help="Folder with the files, which are recognised by hash: no internet needed."
    ),
) -> None:
    """Fetch a dataset's files and check them against their SHA-256."""
    from flfed.rows.data import datasets

    dataset = datasets.load(name)
    # A dataset without files is no error.
    if not dataset.source.files:
        typer.echo(render("commands.data.embedded", dataset=name))
        return
    paths = datasets.get(dataset, from_folder=from_folder, progress=typer.echo)
    typer.echo(render("commands.data.fetched", dataset=name, files=counted(len(paths), "file"), folder=paths[0].parent))


@app.command("new", epilog="north.csv south.csv --target died")
@output.tables
def new_data(
    files: list[Path] = typer.Argument(..., metavar="FILE...", help=f"{TABLE_KINDS}, one a site."),
    target: str = typer.Option(..., help="Column to predict."),
    by: str = typer.Option("", help="Split one table into sites by this column; the smallest form one site, 'other'."),
    min_rows: int = typer.Option(50, "--min-rows", min=1, help="Least rows of a site that --by makes."),
    parties: bool = typer.Option(
        False, "--parties", help="The files have different columns of the same people, whom --group names."
    ),
    group: str = typer.Option("", help="Column that identifies the patient or customer of a row."),
    time: str = typer.Option("", help="Column of dates: rows from one day on, the same for all sites, are held out."),
    keep: list[str] = typer.Option([], metavar="COLUMN", help="Column that is a feature in any case."),
    drop: list[str] = typer.Option([], metavar="COLUMN", help="Column to drop."),
    missing: list[str] = typer.Option(
        [], metavar="VALUE", help="Value for missing cells, in every column, or in one as COLUMN=VALUE."
    ),
    name: str = typer.Option("", help="Name of the dataset; default: the first file's."),
    task: Literal["binary", "multi-class", "regression"] | None = typer.Option(
        None, help="If the target's values leave it open."
    ),
    names: str = NAMES,
    sheet: str = SHEET,
    skip: int | None = SKIP,
    public: bool = PUBLIC,
    to: Path = TO,
    replace: bool = typer.Option(
        False, "--replace", help="Replace dataset and sites, not holdouts and policies; copies of what changes stay."
    ),
) -> output.Shown:
    """Write dataset, schema, sites and a first study for your own tables.

    Kinds of columns, values, ranges and codes for missing cells are proposed from the rows and marked for
    confirmation. A value that fewer than ten rows have is not written.
    """
    from flfed.packages import own_root, roots
    from flfed.rows.proposals.own_tables import OwnTable, read_named, source_of
    from flfed.rows.proposals.workspace import left_behind, new_workspace, with_earlier_holdouts

    tables: list[OwnTable] = []
    faults: list[FlfedError] = []
    for path in files:
        with collected(faults):
            source = source_of(path, names=names, sheet=sheet, skip=skip)
            tables.append(OwnTable(path.name.split(".")[0], source, read_named(source)))
    raise_all(faults)
    made = new_workspace(
        tables, target, name=name or tables[0].title, by=by, group=group, time=time,
        task=task, open_data=public, keep=keep, drop=drop, missing=missing,
        min_rows=min_rows, parties=parties,
    )  # fmt: skip
    made, holdouts = with_earlier_holdouts(made, to, [root for root in roots() if root != own_root()])
    left = left_behind(made, to)
    study = made.study(sums=True)
    written = made.write(to, {f"{study.name}.toml": study.text()}, replace=replace, hint=", or --replace it")
    schema = made.proposal.schema
    yield {
        "dataset": made.name,
        "task": schema.task,
        "features": list(schema.features()),
        "columns": _lines(made),
        "unconfirmed": list(schema.unconfirmed),
        "sites": [site.name for site in made.sites],
        "offers": list(map(vars, made.proposal.offers)),
        "left-out-rows": count_in_words(made.left_out),
        "rows-without-outcome": count_in_words(made.proposal.target.unlabelled),
        "rows-of-no-class": count_in_words(made.of_no_class),
        "notes": list(made.notes),
        "files": list(map(str, written)),
        "unchanged-holdouts": list(holdouts.sites),
        "moved-holdouts": list(holdouts.moved),
    }
    below = list(holdouts.lines())
    if left:
        below.append(render("commands.data.earlier", sites=", ".join(left)))
    below += [render("commands.map.earlier", file=path) for path in written if ".before-" in path.name]
    _print_new(made, written, to, below)


def _lines(made: Workspace) -> list[dict[str, object]]:
    """Return the kind of each column, and why."""
    proposal = made.proposal
    target = proposal.target
    first = {"column": proposal.schema.target, "kind": f"target, {target.task}", "sure": target.sure}
    lines: list[dict[str, object]] = [first | {"why": target.why, "feature": False, "leak": ""}]
    for one in proposal.columns.values():
        line = {"column": one.name, "kind": one.kind, "sure": one.sure, "why": one.why}
        is_feature = one.name in proposal.schema.features()
        lines.append(line | {"feature": is_feature, "leak": proposal.leaks.get(one.name, "")})
    return lines


def _print_new(made: Workspace, written: list[Path], to: Path, below: list[str]) -> None:
    from flfed.rows.proposals.workspace import summary_of

    rows = []
    for line in _lines(made):
        why = str(line["why"])
        if line["leak"]:
            why = render("commands.data.leak", reason=why, leak=line["leak"])
        mark = "" if line["sure"] and not line["leak"] else "look"
        rows.append([str(line["column"]), str(line["kind"]), mark, why])
    print_reasons("taken for", rows, f"{made.name}: {summary_of(made)}")
    if made.left_out:
        output.say(render("commands.data.siteless", rows=count_in_words(made.left_out)))
    if unlabelled := made.proposal.target.unlabelled:
        target = made.proposal.schema.target
        output.say(render("commands.data.unlabelled", rows=count_in_words(unlabelled), target=target))
    _print_left_out(made)
    output.say_all([*made.notes, *below, *map(str, made.proposal.offers)])
    unconfirmed = counted(len(made.proposal.schema.unconfirmed), "column")
    output.say(render("commands.data.unconfirmed", columns=unconfirmed, file=written[0]))
    study = f"{made.study().name}.toml"
    if made.proposal.schema.task != "regression" and not all(site.policy.is_open for site in made.sites):
        output.say(render("commands.data.withheld"))
    typer.echo(render("commands.data.written", files=counted(len(written), "file")))
    typer.echo("  " + render("commands.data.check", cd=cd(to), site=made.sites[0].name))
    # The test rows of a policy that does not split anew, or of a day, are the same in each repeat.
    resplit = all(site.policy.resplit for site in made.sites)
    typer.echo("  " + render("commands.data.run", cd=cd(to), study=study, repeats=" --repeats 3" if resplit else ""))
    # With real servers there must be two sites.
    if len(made.sites) > 1:
        typer.echo("  " + render("commands.data.rehearse", cd=cd(to), study=study))


def print_reasons(header: str, rows: list[list[str]], title: str) -> None:
    """Print a table of columns with kinds, marks and reasons; marked reasons are repeated in full below."""
    marked = [bool(row[2]) for row in rows]
    output.as_table(["column", header, "", "because"], rows, title=title, cut="because", below=marked)


def cd(to: Path) -> str:
    """Return "cd FOLDER && ", or "" for the current folder."""
    return "" if to.resolve() == Path.cwd() else f"cd {to} && "


def _print_left_out(made: Workspace) -> None:
    """Print the columns that are no features, and how to make one of them a feature."""
    named = [column for name, column in made.proposal.columns.items() if name != made.proposal.schema.group]
    ids = [column for column in named if column.kind == "id"]
    left = [column.name for column in ids if column.feature] + list(made.proposal.leaks)
    if left:
        output.say(render("commands.data.excluded", columns=", ".join(left)))
    if rest := [column.name for column in ids if not column.feature]:
        output.say(render("commands.data.identifiers", columns=", ".join(rest)))
