"""`flfed run list`, `log`, `note`, `delete` and `upgrade-store`: the runs in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.errors import UsageError

if TYPE_CHECKING:
    from flfed.records.store.entries import RunEntry

RUN = typer.Argument(..., metavar="RUN", help="A run's or series' id, or latest.", autocompletion=completion.runs)
LATEST = typer.Argument(
    "latest", metavar="RUN", help="A run's or series' id, or latest.", autocompletion=completion.runs
)
STATUSES = ("completed", "running", "stopped", "failed", "interrupted")
SPARE = ("started, UTC", "engine", "note", "rounds", "repeats", "took no part", "95 % CI", "figure")
"""Columns that go first where a terminal is narrow."""
LINES = 200
"""Lines of a log that are printed: the last ones."""


@output.tables
def list_runs(
    search: str = typer.Option("", help="Only runs whose study or id contains this."),
    study: str = typer.Option("", help="Only runs of this study.", autocompletion=completion.studies),
    status: str = typer.Option("", help=f"Only runs that are {', '.join(STATUSES[:-1])} or {STATUSES[-1]}."),
    engine: str = typer.Option("", help="Only runs on this engine."),
    since: str = typer.Option("", metavar="DATE", help="Only runs that began at this date, or time, or later."),
    site: str = typer.Option("", metavar="NAME", help="Only runs that asked this site, as the run names it."),
    limit: int = typer.Option(50, min=1, help="At most so many."),
    whole: bool = typer.Option(False, "--all", help="A line for each repeat instead of one for all of them."),
    as_json: bool = output.JSON,
) -> None:
    """List studies that were run, newest first: one line for all repeats, with the shared model's figure.

    The figure is the study's primary metric on the holdout rows of all sites together, with its interval; of
    repeats it is their mean, with its standard deviation.
    """
    from flfed.records.ledger.line import moment_of
    from flfed.records.reports.catalogue import run_list
    from flfed.records.store.reader import RunReader

    if status and status not in STATUSES:
        raise UsageError(f"--status {status}: a run is {', '.join(STATUSES[:-1])} or {STATUSES[-1]}")
    chosen = {"study": study, "status": status, "engine": engine, "since": moment_of(since) if since else ""}
    with RunReader.open() as reader:
        found = run_list(reader, search=search, limit=limit, site=site, **chosen)
    if as_json:
        output.as_json(found)
    elif not found["runs"] and not found["series"]:
        asked = search or site or any(chosen.values())
        typer.echo("No run matches." if asked else "No runs yet. Start one with: flfed demo")
    else:
        from flfed.records.reports.catalogue import figure_in_words

        repeats = {} if whole else {"repeats": lambda of: _of(of, "repeats")}
        rounds = {"rounds": (lambda of: str(of["rounds"])) if whole else (lambda of: _of(of, "rounds"))}
        figures = {"figure": lambda of: figure_in_words(of)[0], "95 % CI": lambda of: figure_in_words(of)[1]}
        _print(found["runs" if whole else "series"], {**figures, **repeats, **rounds})


def _of(series: dict[str, Any], what: str) -> str:
    """Return "10", or "3 of 10" where not all are done."""
    done, planned = series[what], series[f"{what}-planned"]
    return str(done) if done == planned else f"{done} of {planned}"


def _print(lines: list[dict[str, Any]], figures: dict[str, Any]) -> None:
    columns = {
        "run": lambda of: of["run"],
        "study": lambda of: of["study"],
        "status": lambda of: of["status"],
        **figures,
        "engine": lambda of: of["engine"],
        "started, UTC": lambda of: of["started"][:16].replace("T", " "),
        "took no part": _gone,
        "note": lambda of: of["note"],
    }
    cells = {header: [cell(line) for line in lines] for header, cell in columns.items()}
    # A column that says nothing is left out.
    headers = [header for header, column in cells.items() if any(column)]
    rows = [list(row) for row in zip(*(cells[header] for header in headers), strict=True)]
    gone = output.as_table(headers, rows, spare=SPARE)
    for line in lines if "note" in gone else ():
        if line["note"]:
            output.say(f"{line['run']}: {line['note']}")


def _gone(of: dict[str, Any]) -> str:
    """Return "2 of 4: basel, bern", "" where all took part."""
    from flfed.records.reports.faults import some

    return f"{len(of['missing'])} of {of['sites']}: {some(of['missing'])}" if of["missing"] else ""


@output.tables
def log_run(run: str = RUN, whole: bool = output.ALL, as_json: bool = output.JSON) -> None:
    """Show what happened in a run, in order of time: its begin, its rounds, its events, its end.

    Of a round the seconds are written down; when it ended is counted from them.
    """
    from flfed.records.reports.catalogue import run_log
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        found = run_log(reader, run)
    if as_json:
        output.as_json(found)
        return
    several = len({line["run"] for line in found["log"]}) > 1
    rows = [
        [
            line["at"][:19].replace("T", " "),
            *([line["run"], line["run"].rpartition("-")[2]] if several else []),
            "" if line["round"] is None else str(line["round"]),
            line["kind"],
            line["site"] or "",
            line["text"],
        ]
        for line in found["log"]
    ]
    earlier = 0 if whole else max(len(rows) - LINES, 0)
    title = f"{found['run']}: the last {LINES} of {len(rows):,} lines, --all has all" if earlier else found["run"]
    headers = ["when (UTC)", *(["run", "repeat"] if several else []), "round", "what", "site", ""]
    output.as_table(headers, rows[earlier:], title=title, spare=("run", "round"), cut="")
    if found["status"] != "completed":
        why = f" ({found['reason'].rstrip('.')})" if found["reason"] else ""
        typer.echo(f"Status: {found['status']}{why}.")


def note_run(
    run: str = RUN,
    text: str = typer.Argument(..., help="What to note; an empty text takes the note away."),
    as_json: bool = output.JSON,
) -> None:
    """Note something on a run, or on all repeats of a series: run list and run show tell it.

    The note is kept in the store. It replaces an earlier one.
    """
    from flfed.cli.site_commands.ledger import who
    from flfed.records.store.writer import RunStore

    # What is no text at all becomes a question mark: no database takes it.
    found, words = _runs_of(run), " ".join(text.encode("utf-8", "replace").decode().split())
    with RunStore.open() as store:
        store.note([one.run for one in found], words, by=who())
    if as_json:
        output.as_json({"run": _name(found, run), "note": words})
    else:
        typer.echo(f"{_name(found, run)}: {'noted' if words else 'the note is gone'}.")


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

    found = _runs_of(run)
    name, many = _name(found, run), "1 run" if len(found) == 1 else f"{len(found)} runs"
    if not yes and (as_json or not output.agreed(f"Delete {name} ({found[0].study}, {many}) for good?")):
        raise UsageError(f"run {name} is not deleted; to delete it: flfed run delete {name} --yes")
    # Imported once it is needed: it loads numpy.
    from flfed.updates.checkpoints import checkpoint as checkpoints

    with RunStore.open() as store:
        store.delete([one.run for one in found])
    # After the store: files without a record are of no use, a record without its files is one that is no more.
    for each in {name, *(one.run for one in found)}:
        checkpoints.forget(each)
    if as_json:
        output.as_json({"run": name, "deleted": [one.run for one in found]})
    else:
        typer.echo(f"{name}: deleted ({many}).")


def upgrade_run_store(
    backed_up: bool = typer.Option(False, "--backed-up", help="A copy of the store on a server was made (pg_dump)."),
    as_json: bool = output.JSON,
) -> None:
    """Update a run store that an earlier flfed wrote; an SQLite file is copied first.

    End all runs before. The copy stands beside the file, with the earlier revision after its name. Of a store on
    PostgreSQL make a copy with pg_dump, and say so with --backed-up.
    """
    from flfed.records.store.database import upgrade_store

    done = upgrade_store(backed_up=backed_up)
    if as_json:
        copy = None if done.copy is None else str(done.copy)
        output.as_json({"store": done.store, "before": done.before, "after": done.after, "copy": copy})
    elif done.before == done.after:
        typer.echo(f"{done.store}: revision {done.after} is the newest, nothing is to be done.")
    else:
        typer.echo(f"{done.store}: updated from revision {done.before} to {done.after}.")
        if done.copy is not None:
            typer.echo(f"As it was before: {done.copy}")


def _runs_of(name: str) -> list[RunEntry]:
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        return reader.runs_of(name)


def _name(found: list[RunEntry], asked: str) -> str:
    """Return the id that was meant, also where it was "latest"."""
    return found[0].run if asked == found[0].run else found[0].series
