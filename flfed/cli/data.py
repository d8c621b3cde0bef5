"""`flfed data`: datasets, their files, and new ones from tables of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import completion, output
from flfed.errors import UsageError, count_in_words

if TYPE_CHECKING:
    from flfed.rows.data.datasets import SourceDescription
    from flfed.rows.data.schema import Task
    from flfed.rows.proposals.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True, help="List datasets, fetch their files, and make new ones from your own tables."
)


TABLE_KINDS = "CSV, Parquet or Excel"
NAMES = typer.Option("", help="Names of the columns, with commas, where a file has no line of names.")
SHEET = typer.Option("", help="The sheet of a workbook; default: the first one.")
PUBLIC = typer.Option(False, "--public", help="The rows are public: exact figures may be shown.")
TO = typer.Option(Path(), "--output", help="Write what is new into this folder.")
"""Options of every command that writes packages and studies for a person's own tables."""


@app.command("list", epilog="Example: flfed data list")
@output.tables
def list_data() -> output.Shown:
    """List the datasets found, and whether their files are here."""
    from flfed.rows.data import datasets

    entries: list[dict[str, object]] = []
    broken = {}
    rows = []
    headers = ["dataset", "task", "kind", "licence", "state"]
    for name in datasets.names():
        line: dict[str, object] = {"dataset": name, "task": "", "licence": "", "kind": "", "synthetic": False}
        # A broken dataset is listed with its error, so that the others can still be seen.
        try:
            dataset = datasets.load(name)
        except UsageError as error:
            broken[name] = f"broken: {error}"
            line |= {"absent": [], "state": broken[name]}
        else:
            source = dataset.source
            absent = [file.name for file in dataset.absent()]
            state = f"to be fetched: flfed data get {name}" if absent else "here"
            line |= {"task": dataset.schema.task, "licence": source.licence, "kind": _kind(source)}
            line |= {"synthetic": source.synthetic, "state": state, "absent": absent}
        entries.append(line)
        cells = [str(line[key]).replace("to be fetched", "fetch") for key in headers]
        # Sentences would leave no room for anything else, and stand below.
        if name in broken:
            cells[-1] = "broken"
        rows.append(cells)
    yield {"datasets": entries}
    output.as_table(headers, rows, spare=("licence", "kind", "task"))
    for name, why in broken.items():
        output.say(f"{name}: {why}")


def _kind(source: SourceDescription) -> str:
    """Return where a dataset's rows come from, in a word or two."""
    if source.files:
        return "embedded" if source.embedded else "download"
    if source.synthetic:
        return "simulated"
    return "in a package" if source.table else "embedded"


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


@app.command("new", epilog="Example: flfed data new north.csv south.csv --target died")
@output.tables
def new_data(
    files: list[Path] = typer.Argument(..., metavar="FILE...", help=f"{TABLE_KINDS}: a site each."),
    target: str = typer.Option(..., help="The column to predict."),
    by: str = typer.Option("", help="Cut one table into sites by this column; the smallest are one, 'other'."),
    group: str = typer.Option("", help="The column of the patient or customer that several rows belong to."),
    time: str = typer.Option(
        "", help="A column of dates: the latest rows are held out, for all sites from one day on."
    ),
    keep: list[str] = typer.Option([], metavar="COLUMN", help="Take this column as a feature, whatever it looks like."),
    drop: list[str] = typer.Option([], metavar="COLUMN", help="Leave this column out."),
    missing: list[str] = typer.Option(
        [], metavar="VALUE", help="Cells with this value are not known: in every column, or in one by COLUMN=VALUE."
    ),
    name: str = typer.Option("", help="Name of the dataset; default: the first file's."),
    task: str = typer.Option("", help="binary, multi-class or regression, where the target's values do not say it."),
    names: str = NAMES,
    sheet: str = SHEET,
    public: bool = PUBLIC,
    to: Path = TO,
    replace: bool = typer.Option(
        False, "--replace", help="Write over dataset and sites that are there; holdouts and policies stay as they are."
    ),
) -> output.Shown:
    """Write dataset, schema, sites and a first study for tables of your own.

    Kinds of columns, values, ranges and codes for "not known" are proposed from the rows, and marked for a person to
    confirm. No value that fewer than ten rows have is written down.
    """
    from flfed.packages import own_root, roots
    from flfed.rows.proposals.own_tables import OwnTable, read_named, source_of
    from flfed.rows.proposals.workspace import left_behind, new_workspace, with_earlier_holdouts

    sources = [(path, source_of(path, names=names, sheet=sheet)) for path in files]
    tables = [OwnTable(path.name.split(".")[0], source, read_named(source)) for path, source in sources]
    made = new_workspace(
        tables, target, name=name or tables[0].title, by=by, group=group, time=time,
        task=_task(task), open_data=public, keep=keep, drop=drop, missing=missing,
    )  # fmt: skip
    made, holdouts = with_earlier_holdouts(made, to, [root for root in roots() if root != own_root()])
    left = left_behind(made, to)
    study = made.study(sums=True)
    written = made.write(to, {f"{study.name}.toml": study.text()}, replace=replace, hint=", or --replace it")
    yield _as_json(made, written) | {"unchanged-holdouts": list(holdouts.sites), "moved-holdouts": list(holdouts.moved)}
    below = list(holdouts.lines())
    if left:
        below.append(
            f"Sites of this dataset that were made before, and are none of its tables now: {', '.join(left)}. Delete "
            "their folders if no study is to ask them."
        )
    _print_new(made, written, to, below)


def _task(word: str) -> Task | None:
    """Return the task that a word names."""
    if not word:
        return None
    tasks: tuple[Task, ...] = ("binary", "multi-class", "regression")
    if word not in tasks:
        raise UsageError(f"--task {word}: must be one of {', '.join(tasks)}")
    return tasks[tasks.index(word)]


def _lines(made: Workspace) -> list[dict[str, object]]:
    """Return what each column is taken for."""
    proposal = made.proposal
    target = proposal.target
    lines: list[dict[str, object]] = [
        {
            "column": proposal.schema.target,
            "kind": f"target, {target.task}",
            "sure": target.sure,
            "why": target.why,
            "feature": False,
            "leak": "",
        }
    ]
    for one in proposal.columns.values():
        line = {"column": one.name, "kind": one.kind, "sure": one.sure, "why": one.why}
        is_feature = one.name in proposal.schema.features()
        lines.append(line | {"feature": is_feature, "leak": proposal.leaks.get(one.name, "")})
    return lines


def _as_json(made: Workspace, written: list[Path]) -> dict[str, object]:
    schema = made.proposal.schema
    return {
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
    }


def _print_new(made: Workspace, written: list[Path], to: Path, below: list[str]) -> None:
    from flfed.rows.proposals.workspace import summary_of

    rows = []
    for line in _lines(made):
        why = str(line["why"])
        if line["leak"]:
            why = f"{why}; LEFT OUT, for it may leak: {line['leak']}"
        mark = "" if line["sure"] and not line["leak"] else "look"
        rows.append([str(line["column"]), str(line["kind"]), mark, why])
    print_reasons("taken for", rows, f"{made.name}: {summary_of(made)}")
    if made.left_out:
        few = count_in_words(made.left_out)
        output.say(f"{few} rows are at no site: they are too few for one, or do not say whose they are.")
    if unlabelled := made.proposal.target.unlabelled:
        typer.echo(f"{count_in_words(unlabelled)} rows have no {made.proposal.schema.target}, and are left out.")
    _print_left_out(made)
    for note in [*made.notes, *below, *map(str, made.proposal.offers)]:
        output.say(note)
    many = len(made.proposal.schema.unconfirmed)
    output.say(f"{many} columns are unconfirmed: look at them in {written[0]}, and take their names out of the list.")
    study = next(path for path in written if path.suffix == ".toml" and path.parent == to)
    typer.echo(f"Written: {len(written)} files. Next:")
    typer.echo(f"  {cd(to)}flfed site check {made.sites[0].name}")
    typer.echo(f"  {cd(to)}flfed study run {study.name} && flfed app")


def print_reasons(header: str, rows: list[list[str]], title: str) -> None:
    """Print a table of columns, what each is, a mark of those to look at, and the reasons, of these whole."""
    marked = [bool(row[2]) for row in rows]
    output.as_table(["column", header, "", "because"], rows, title=title, cut="because", below=marked)


def cd(to: Path) -> str:
    """Return the command that goes to a folder, with what joins it to the next one; "" where it is the current one."""
    return "" if to.resolve() == Path.cwd() else f"cd {to} && "


def _print_left_out(made: Workspace) -> None:
    """Print which columns are no features, and of which of them one can be."""
    named = [column for name, column in made.proposal.columns.items() if name != made.proposal.schema.group]
    ids = [column for column in named if column.kind == "id"]
    left = [column.name for column in ids if column.feature] + list(made.proposal.leaks)
    if left:
        again = "together with --replace, or another --output"
        output.say(f"Not among the features: {', '.join(left)}. Take one in with --keep COLUMN, {again}.")
    if rest := [column.name for column in ids if not column.feature]:
        output.say(f"No features either, and identifiers, names or texts throughout: {', '.join(rest)}.")
