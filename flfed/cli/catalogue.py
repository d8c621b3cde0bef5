"""`flfed run list`, `log`, `note`, `delete` and `upgrade-store`: the runs in the store."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.errors import UsageError, counted

if TYPE_CHECKING:
    from flfed.records.store.entries import RunEntry

RUN = typer.Argument(..., metavar="RUN", help="A run's or series' id, or latest.", autocompletion=completion.runs)
LATEST = typer.Argument(
    "latest", metavar="RUN", help="A run's or series' id, or latest.", autocompletion=completion.runs
)
STATUSES = ("completed", "running", "stopped", "failed", "interrupted")
STATES = f"{', '.join(STATUSES[:-1])} or {STATUSES[-1]}"
SPARE = ("started, UTC", "engine", "note", "rounds", "repeats", "took no part", "95 % CI", "figure")
"""Columns that go first where a terminal is narrow."""
LINES = 200
"""Lines of a log that are printed: the last ones."""


@output.tables
def list_runs(
    search: str = typer.Option("", help="Only runs whose study or id contains this."),
    study: str = typer.Option("", help="Only runs of this study.", autocompletion=completion.studies),
    status: str = typer.Option("", help=f"Only runs that are {STATES}."),
    engine: str = typer.Option("", help="Only runs on this engine."),
    since: str = typer.Option("", metavar="DATE", help="Only runs that began at this date, or time, or later."),
    site: str = typer.Option("", metavar="NAME", help="Only runs that asked this site, as the run names it."),
    limit: int = typer.Option(50, min=1, help="At most so many."),
    whole: bool = typer.Option(False, "--all", help="A line for each repeat instead of one for all of them."),
) -> output.Shown:
    """List studies that were run, newest first: one line for all repeats, with the shared model's figure.

    The figure is the study's primary metric on the holdout rows of all sites together, with its interval; of
    repeats it is their mean, with its standard deviation.
    """
    from flfed.records.ledger_line import moment_of
    from flfed.records.reports.catalogue import run_list
    from flfed.records.store.reader import RunReader

    if status and status not in STATUSES:
        raise UsageError(f"--status {status}: a run is {STATES}")
    start = moment_of(since) if since else ""
    chosen = {"study": study, "status": status, "engine": engine, "since": start}
    with RunReader.open() as reader:
        listing = run_list(reader, search=search, limit=limit, site=site, **chosen)
    yield listing
    if listing["runs"] or listing["series"]:
        lines = listing["runs"] if whole else listing["series"]
        _print(lines, whole)
    elif search or site or any(chosen.values()):
        yield "No run matches."
    else:
        yield "No runs yet. Start one with: flfed demo"


def _print(lines: list[dict[str, Any]], whole: bool) -> None:
    rows = [_row(line, whole) for line in lines]
    # A column that says nothing is left out.
    headers = [header for header in rows[0] if any(map(itemgetter(header), rows))]
    gone = output.as_table(headers, list(map(itemgetter(*headers), rows)), spare=SPARE)
    for row in rows:
        if "note" in gone and row["note"]:
            output.say(f"{row['run']}: {row['note']}")


def _row(of: dict[str, Any], whole: bool) -> dict[str, str]:
    """Return the cells of a run, or of a series, by their headers."""
    from flfed.records.reports.catalogue import figure_in_words
    from flfed.records.reports.faults import some

    figure, interval = figure_in_words(of)
    row = {"run": of["run"], "study": of["study"], "status": of["status"], "figure": figure, "95 % CI": interval}
    if whole:
        row["rounds"] = str(of["rounds"])
    else:
        for what in ("repeats", "rounds"):
            done = of[what]
            planned = of[f"{what}-planned"]
            row[what] = str(done) if done == planned else f"{done} of {planned}"
    row["engine"] = of["engine"]
    row["started, UTC"] = of["started"][:16].replace("T", " ")
    gone = of["missing"]
    row["took no part"] = f"{len(gone)} of {of['sites']}: {some(gone)}" if gone else ""
    row["note"] = of["note"]
    return row


@output.tables
def log_run(run: str = RUN, whole: bool = output.ALL) -> output.Shown:
    """Show what happened in a run, in order of time: its begin, its rounds, its events, its end.

    Of a round the seconds are written down; when it ended is counted from them.
    """
    from flfed.records.reports.catalogue import run_log
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        log_report = run_log(reader, run)
    yield log_report
    rows = list(map(_log_row, log_report["log"]))
    headers = ["when (UTC)", "run", "repeat", "round", "what", "site", ""]
    # Of one run neither its name nor its repeat need be told.
    if len({row[1] for row in rows}) < 2:
        for cells in (headers, *rows):
            del cells[1:3]
    title = log_report["run"]
    if len(rows) > LINES and not whole:
        title = f"{title}: the last {LINES} of {len(rows):,} lines, --all has all"
        rows = rows[-LINES:]
    output.as_table(headers, rows, title=title, spare=("run", "round"), cut="")
    if log_report["status"] != "completed":
        why = f" ({log_report['reason'].rstrip('.')})" if log_report["reason"] else ""
        yield f"Status: {log_report['status']}{why}."


def _log_row(line: dict[str, Any]) -> list[str]:
    number = "" if line["round"] is None else str(line["round"])
    at = line["at"][:19].replace("T", " ")
    run = line["run"]
    return [at, run, run.rpartition("-")[2], number, line["kind"], line["site"] or "", line["text"]]


@output.with_json
def note_run(
    run: str = RUN,
    text: str = typer.Argument(..., help="What to note; an empty text takes the note away."),
) -> output.Shown:
    """Note something on a run, or on all repeats of a series: run list and run show tell it.

    The note is kept in the store. It replaces an earlier one.
    """
    from flfed.cli.site_records import who
    from flfed.records.store.writer import RunStore

    # What is no text at all becomes a question mark: no database takes it.
    words = " ".join(text.encode("utf-8", "replace").decode().split())
    name, runs = _runs_of(run)
    with RunStore.open() as store:
        store.note([one.run for one in runs], words, by=who())
    yield {"run": name, "note": words}
    done = "noted" if words else "the note is gone"
    yield f"{name}: {done}."


def delete_run(
    run: str = RUN,
    yes: bool = typer.Option(False, "--yes", help="Delete without asking."),
    as_json: bool = output.JSON,
) -> None:
    """Delete a run, or all repeats of a series, from the store, with its checkpoints and its model.

    What sites keep of it stays: a site's ledger is never changed. A run that a living process writes is refused.
    With --json nothing is asked: it deletes with --yes only.
    """
    from flfed.records.store.writer import RunStore

    name, runs = _runs_of(run)
    many = counted(len(runs), "run")
    if not yes and (as_json or not output.agreed(f"Delete {name} ({runs[0].study}, {many}) for good?")):
        raise UsageError(f"run {name} is not deleted; to delete it: flfed run delete {name} --yes")
    # Imported once it is needed: it loads numpy.
    from flfed.updates.checkpoints import checkpoint as checkpoints

    ids = [one.run for one in runs]
    with RunStore.open() as store:
        store.delete(ids)
    # After the store: files without a record are of no use, a record without its files is one that is no more.
    for each in {name, *ids}:
        checkpoints.forget(each)
    if as_json:
        output.print_json({"run": name, "deleted": ids})
    else:
        typer.echo(f"{name}: deleted ({many}).")


@output.with_json
def upgrade_run_store(
    backed_up: bool = typer.Option(False, "--backed-up", help="A copy of the store on a server was made (pg_dump)."),
) -> output.Shown:
    """Update a run store that an earlier flfed wrote; an SQLite file is copied first.

    End all runs before. The copy stands beside the file, with the earlier revision after its name. Of a store on
    PostgreSQL make a copy with pg_dump, and say so with --backed-up.
    """
    from flfed.records.store.database import upgrade_store

    done = upgrade_store(backed_up=backed_up)
    copy = None if done.copy is None else str(done.copy)
    yield {"store": done.store, "before": done.before, "after": done.after, "copy": copy}
    if done.before == done.after:
        yield f"{done.store}: revision {done.after} is the newest, nothing is to be done."
        return
    yield f"{done.store}: updated from revision {done.before} to {done.after}."
    if copy is not None:
        yield f"As it was before: {copy}"


def _runs_of(name: str) -> tuple[str, list[RunEntry]]:
    """Return the runs of a name, and the id that was meant, also where it was "latest"."""
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        runs = reader.runs_of(name)
    if name != runs[0].run:
        name = runs[0].series
    return name, runs
