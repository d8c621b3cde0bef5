"""`flfed run list` and `delete`: the runs in the store."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.cli.arguments import RUN
from flfed.errors import UsageError
from flfed.words import counted, render

if TYPE_CHECKING:
    from flfed.records.store.entries import RunEntry

SPARE = ("95 % CI", "figure", "repeats", "rounds", "engine", "took no part")
"""Columns that a terminal leaves out, in this order; one that is too narrow even so gets `_folded` rows."""


@output.tables
def list_runs(
    limit: int = typer.Option(50, min=1, help="Most lines."),
    whole: bool = typer.Option(False, "--all", help="List single repeats."),
) -> output.Shown:
    """List the runs of the store, the newest first; repeats of a study share one line.

    A line has the verdict and the mean gain from joining with its 95 % interval. The figure is
    the shared model's primary metric on the holdout rows of all sites, with its 95 % interval; for repeats the mean
    and the standard deviation. A narrow terminal has the same in fewer columns.
    """
    from flfed.records.reports.catalogue import run_list
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        listing = run_list(reader, limit=limit)
    yield listing
    if listing["runs"] or listing["series"]:
        lines = listing["runs"] if whole else listing["series"]
        _print(lines, whole)
    else:
        yield render("commands.runs.none")


def _print(lines: list[dict[str, Any]], whole: bool) -> None:
    rows = [_row(line, whole) for line in lines]
    # An empty column is left out.
    headers = [header for header in rows[0] if any(map(itemgetter(header), rows))]
    least = [header for header in headers if header not in SPARE]
    if not output.fits(least, list(map(itemgetter(*least), rows))):
        output.as_table(["run, study", "verdict, mean gain", "status, data, privacy, engine"], list(map(_folded, rows)))
    else:
        output.as_table(headers, list(map(itemgetter(*headers), rows)), spare=SPARE)


def _folded(row: dict[str, str]) -> list[str]:
    """Return the cells of a row in three columns, whose lines break between words."""
    data = [row["dataset"], counted(int(row["sites"]), "site"), row["rows"] and f"{row['rows']} rows"]
    how = [
        f"privacy {row['privacy']}",
        f"engine {row['engine']}",
        row["took no part"] and f"missing {row['took no part']}",
    ]
    done = [f"{name} {row[name]}" for name in ("repeats", "rounds") if name in row]
    figure = [row["figure"], row["95 % CI"] and f"({row['95 % CI']})"]
    beside = [f"{row['status']} {row['started, UTC']}", *map(_listed, (data, how, done)), " ".join(figure)]
    answer = " ".join((row["verdict"], row["mean gain (95 % CI)"]))
    return [f"{row['run']} {row['study']}", answer, "; ".join(filter(None, map(str.strip, beside)))]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(filter(None, words))


def _row(of: dict[str, Any], whole: bool) -> dict[str, str]:
    """Return the cells of a run, or of a series, by their headers."""
    from flfed.records.reports.catalogue import answer_in_words, figure_in_words
    from flfed.records.reports.faults import some
    from flfed.records.reports.privacy import name_mechanism

    verdict, gain = answer_in_words(of)
    figure, interval = figure_in_words(of)
    gone = of["missing"]
    row = {"run": of["run"], "study": of["study"], "verdict": verdict, "mean gain (95 % CI)": gain}
    row |= {"dataset": of["dataset"], "sites": str(of["sites"] - len(gone))}
    row |= {"rows": "" if of["rows"] is None else f"{of['rows']:,}"}
    row["privacy"] = name_mechanism(of["mechanism"], of["epsilon"])
    row |= {"engine": of["engine"], "status": of["status"], "started, UTC": of["started"][:16].replace("T", " ")}
    row |= {"figure": figure, "95 % CI": interval}
    if whole:
        row["rounds"] = str(of["rounds"])
    else:
        for what in ("repeats", "rounds"):
            done = of[what]
            planned = of[f"{what}-planned"]
            row[what] = str(done) if done == planned else f"{done} of {planned}"
    row["took no part"] = f"{len(gone)} of {of['sites']}: {some(gone)}" if gone else ""
    return row


def delete_run(
    run: str = RUN, yes: bool = typer.Option(False, "--yes", help="Do not ask."), as_json: bool = output.JSON
) -> None:
    """Delete a run, or all repeats of a series, from the store, with its checkpoints and its model.

    Records at the sites remain: no ledger is changed. A run that is still being written cannot be deleted. With
    --json there is no question, and --yes is needed.
    """
    from flfed.records.store.writer import RunStore

    name, runs = _runs_of(run)
    many = counted(len(runs), "run")
    question = render("commands.runs.delete", run=name, study=runs[0].study, count=many)
    if not yes and (as_json or not output.agreed(question)):
        raise UsageError(f"run {name} was not deleted; to delete it: flfed run delete {name} --yes")
    # Imported late: it loads numpy.
    from flfed.updates.checkpoints import checkpoint as checkpoints

    ids = [one.run for one in runs]
    with RunStore.open() as store:
        store.delete(ids)
    # Files go after the record: a record without its files would mislead.
    for each in {name, *ids}:
        checkpoints.forget(each)
    if as_json:
        output.print_json({"run": name, "deleted": ids})
    else:
        typer.echo(render("commands.runs.deleted", run=name, count=many))


def _runs_of(name: str) -> tuple[str, list[RunEntry]]:
    """Return the runs of a name, and their id, also for "latest"."""
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        runs = reader.runs_of(name)
    if name != runs[0].run:
        name = runs[0].series
    return name, runs
