"""`flfed site ledger` and `flfed site budget`: what left a site, and the privacy spent."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.errors import FlfedError, UsageError, counted

if TYPE_CHECKING:
    from flfed.deployment.site_state.ledger_loss import Receipts
    from flfed.records.ledger.ledger import Ledger
    from flfed.records.ledger.line import Line, Total
    from flfed.records.ledger.verify import Inspection


SHOWN = 40
"""Lines of a table: the last ones."""
PROBLEMS = 20
"""Sentences on a page; the object of --json has them all."""
NONE = "–"


@output.tables
def show_ledger(
    name: str = typer.Argument(..., help="A site's name.", autocompletion=completion.sites),
    verify: bool = typer.Option(False, "--verify", help="Check every line and the coordinator's receipts."),
    export: str = typer.Option("", "--export", metavar="FILE|-", help="Write the lines as they are: JSON lines."),
    since: str = typer.Option("", "--since", metavar="DATE", help="Only lines from this date, or time, on."),
    run: str = typer.Option("", "--run", metavar="RUN", help="Only lines of this run, with bytes by round and kind."),
    repair: str | None = typer.Option(
        None, "--repair", metavar="WHY", help="Set aside a last line that a crash cut off; WHY goes on record."
    ),
    restart: str | None = typer.Option(
        None,
        "--restart",
        metavar="WHY",
        help="Begin anew where the ledger was lost, or its last line is later than the clock; WHY goes on record.",
    ),
    as_json: bool = output.JSON,
) -> None:
    """Show what left a site, by line, study and day.

    Exit codes: 0 all is well, 1 the ledger is not as it was written, 2 wrong use.
    """
    from flfed.folders import SiteFolder
    from flfed.records.ledger.ledger import ledger_of

    for option, why in (("--repair", repair), ("--restart", restart)):
        if why is not None and not why.strip():
            raise UsageError(f"{option} needs a reason, which goes on record: {option} 'the disk was lost'")
    # Each of these ends the command in its own way.
    if sum(map(bool, (verify, export, repair, restart))) > 1:
        raise UsageError("--verify, --export, --repair and --restart are asked one at a time")
    if (verify or repair or restart) and (since or run):
        raise UsageError("--since and --run choose lines to show or to export; all lines are verified")
    if export and as_json:
        raise UsageError("--export writes JSON lines already; leave --json out")
    # A site without a folder has no ledger; an empty one would look as if nothing had left.
    folder = SiteFolder(name)
    if not folder.root.is_dir():
        raise UsageError(f"site {name!r} has no folder here ({folder.root}); first: flfed site join KIT")
    ledger = ledger_of(folder)
    if repair:
        _repair(ledger, name, repair, as_json=as_json)
    elif restart:
        _restart(folder, restart, as_json=as_json)
    elif verify:
        _verify(folder, ledger, as_json=as_json)
    elif export:
        _export(_chosen(ledger, since, run), export)
    else:
        _show(name, _chosen(ledger, since, run), run, as_json=as_json)


def _chosen(ledger: Ledger, since: str, run: str) -> Iterator[Line]:
    """Return the lines from a time on, and of a run."""
    from flfed.records.ledger.line import moment_of

    start = moment_of(since) if since else ""
    return (line for line in ledger.lines() if line.at >= start and (not run or line.facts.get("run") == run))


def _show(name: str, lines: Iterator[Line], run: str, *, as_json: bool) -> None:
    from flfed.records.ledger.line import Totals

    # A ledger may be long: it is added up line by line, and for people the last ones are kept.
    found, last = Totals(), deque[Any](maxlen=None if as_json else SHOWN)
    for line in lines:
        found.add(line)
        last.append(line)
    by_round = sorted(found.rounds.items())
    rounds = [{"round": r, "kind": kind, "lines": t.lines, "bytes": t.bytes} for (r, kind), t in by_round]
    if as_json:
        sums = {"lines": found.all.lines, "bytes": found.all.bytes}
        tables = {"studies": _listed(found.studies, "study"), "days": _listed(found.days, "day")}
        # As they stand in the ledger, and as --export gives them.
        entries = {"entries": [json.loads(line.raw) for line in last]}
        by_run = {"rounds": rounds} if run else {}
        output.as_json({"site": name, "run": run or None, **sums, **tables, **by_run, **entries})
        return
    if not last:
        typer.echo(f"{name}: nothing of this left so far." if run else f"{name}: nothing left so far.")
        return
    # The table tells that it has a part only.
    earlier = found.all.lines - len(last)
    title = f"{name}: the last {len(last)} of {found.all.lines:,} lines" if earlier else f"{name}: what left"
    columns = ["line", "when (UTC)", "what", "study", "run", "round", "bytes"]
    output.as_table(columns, [_row(line) for line in last], title=title, spare=("study", "line", "round"))
    if run:
        cells = [[str(r or NONE), kind, f"{total.bytes:,}"] for (r, kind), total in by_round]
        output.as_table(["round", "what", "bytes"], cells, title=f"Run {run}, by round")
    _sums("study", found.studies)
    _sums("day", found.days)
    typer.echo(f"In all {found.all.bytes:,} bytes in {counted(found.all.lines, 'line')}.")


def _row(line: Line) -> list[str]:
    from flfed.records.ledger.line import bytes_of, round_of, study_of

    when, where = line.at[:19].replace("T", " "), str(round_of(line) or NONE)
    run = str(line.facts.get("run") or NONE)
    return [str(line.n), when, line.kind, study_of(line) or NONE, run, where, f"{bytes_of(line):,}"]


def _sums(word: str, found: Mapping[str, Total]) -> None:
    rows = [[key or NONE, f"{total.lines:,}", f"{total.bytes:,}"] for key, total in sorted(found.items())]
    output.as_table([word, "lines", "bytes"], rows, title=f"By {word}")


def _listed(found: Mapping[str, Total], word: str) -> list[dict[str, Any]]:
    return [{word: key, "lines": total.lines, "bytes": total.bytes} for key, total in sorted(found.items())]


def _export(lines: Iterator[Line], target: str) -> None:
    """Write lines, each as it stands in the ledger, to standard output or into a new private file."""
    from flfed.paths import write_private

    if target == "-":
        sys.stdout.writelines(line.raw.decode("ascii") + "\n" for line in lines)
        return
    texts = [line.raw.decode("ascii") + "\n" for line in lines]
    write_private(Path(target), "".join(texts), advice="name a file in a folder that is there")
    typer.echo(f"{len(texts):,} lines written to {target}.", err=True)


def _repair(ledger: Ledger, name: str, why: str, *, as_json: bool) -> None:
    line = ledger.repair(by=who(), why=why)
    if as_json:
        output.as_json({"site": name, "repaired": None if line is None else line.n})
    elif line is None:
        typer.echo(f"{name}: its last line is whole; there is nothing to repair.")
    else:
        left = line.facts["torn-bytes"]
        typer.echo(f"{name}: {left} bytes of a torn line are set aside; line {line.n} says so, by whom, and why.")


def _restart(folder: Any, why: str, *, as_json: bool) -> None:
    from flfed.deployment.site_state.ledger_loss import restart

    found = restart(folder, by=who(), why=why)
    if as_json:
        facts = {"restarted": found.line.at, "carried": found.carried, "aside": [str(path) for path in found.aside]}
        output.as_json({"site": folder.site, **facts})
        return
    typer.echo(f"{folder.site}: its ledger begins anew; line 1 says so, by whom, and why.")
    typer.echo(f"{counted(found.carried, 'line')} of runs and of spent privacy could be read and came over.")
    if found.line.follows_loss:
        typer.echo("Studies that were approved before need a new approval; until then nothing of them is answered.")
        typer.echo("All models that might be compared count as used: flfed site approve STUDY --compared N adds some.")
        typer.echo("Masked sums have all sites that an approval pins, or a list that came over.")
    for path in found.aside:
        typer.echo(f"Set aside, to be kept: {path}")
    typer.echo(f"Tell the coordinator, who takes note of it: flfed coordinator ledger {folder.site} --restart WHY")


def who() -> str:
    """Return the user that runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has a number only
        return f"user {os.getuid()}"


def _verify(folder: Any, ledger: Ledger, *, as_json: bool) -> None:
    from flfed.deployment.site_state.ledger_loss import read_receipts
    from flfed.records.ledger.verify import Inspection

    receipts = read_receipts(folder)
    inspection = Inspection(tuple(receipts.all()))
    first = next(lines := inspection.look(ledger.raws()), None)
    # All lines must be read before the problems are known.
    count = (first is not None) + sum(1 for _ in lines)
    problems = [*inspection.problems, *ledger.open_to_others(), *receipts.problems]
    # Traces of a loss are looked for beside a ledger whose lines and receipts agree.
    problems = problems or _lost(folder, ledger)
    # A clock that runs behind is no damage, and has a sentence of its own.
    changed, ahead = len(problems), _ahead(folder.site, ledger, inspection.last)
    problems += ahead
    if as_json:
        _verified_as_json(folder.site, count, inspection, receipts, problems)
    else:
        _print_verified(folder.site, count, first, inspection, receipts)
        for problem in problems[:PROBLEMS]:
            typer.echo(f"- {problem}.")
        if len(problems) > PROBLEMS:
            typer.echo(f"- and {len(problems) - PROBLEMS:,} more; --json has them all.")
        for note in inspection.notes[:PROBLEMS]:
            typer.echo(f"Note: {note}; an earlier version wrote it, by a clock that was set back.")
        if len(inspection.notes) > PROBLEMS:
            typer.echo(f"And {len(inspection.notes) - PROBLEMS:,} such lines more; --json has them all.")
        if ledger.is_torn():
            typer.echo(f"If a crash cut the last line off: flfed site ledger {folder.site} --repair WHY")
        if not changed:
            typer.echo("Every line is as it was written.")
    if ahead and not changed:
        raise FlfedError(f"the ledger of {ahead[0]}")
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise FlfedError(f"the ledger of {folder.site} is not as it was written: {problems[0]}{more}")


def _lost(folder: Any, ledger: Ledger) -> list[str]:
    """Return by what the ledger is known to be lost or cut."""
    from flfed.deployment.site_state.ledger_loss import loss

    lost = loss(folder, ledger)
    todo = f"put it back, or: flfed site ledger {folder.site} --restart WHY"
    return [f"it is lost or was cut, for {lost}; {todo}"] if lost else []


def _ahead(site: str, ledger: Ledger, last: Line | None) -> list[str]:
    """Return what to do where no line can follow the last one, for it is later than the clock."""
    from flfed.records.ledger.ledger import ahead_in_words

    if last is None or not ledger.is_ahead(last):
        return []
    todo = f"set the clock right, or: flfed site ledger {site} --restart WHY"
    return [f"{site} cannot go on: {ahead_in_words(last)}; {todo}"]


def _verified_as_json(site: str, count: int, inspection: Inspection, receipts: Receipts, problems: list[str]) -> None:
    last = inspection.last
    output.as_json({
        "site": site,
        "lines": count,
        "head": None if last is None else last.hash,
        "receipts": len(receipts.signed),
        "receipts-of-other-keys": len(receipts.earlier),
        "signed-lines": max((receipt.n for receipt in receipts.signed), default=0),
        "repaired": inspection.repairs,
        "problems": problems,
        "notes": inspection.notes,
    })  # fmt: skip


def _print_verified(site: str, count: int, first: Line | None, inspection: Inspection, receipts: Receipts) -> None:
    from flfed.records.ledger.line import RESTARTED

    last = inspection.last
    if first is None or last is None:
        typer.echo(f"{site}: no lines.")
    else:
        typer.echo(
            f"{site}: {counted(count, 'line')}, from {first.at[:10]} to {last.at[:10]}; the head is {last.hash}."
        )
    if first is not None and first.kind == RESTARTED:
        by, why = first.facts.get("by"), first.facts.get("why")
        before = "had a line that was later than the clock" if "ahead-line" in first.facts else "was lost"
        typer.echo(f"It began anew on {first.at[:10]}, by {by}: {why}. The ledger before it {before}.")
    # The newest receipt says up to which line the ledger cannot have been cut.
    newest = max(receipts.signed, key=lambda receipt: receipt.n, default=None)
    if newest is None:
        typer.echo("The coordinator signed none of them: that the last ones were cut off would not show.")
    else:
        after = max((last.n if last else 0) - newest.n, 0)
        open_ones = f"; {counted(after, 'later line')} would not show as cut off" if after else ""
        many = counted(len(receipts.signed), "receipt")
        typer.echo(f"{many} of the coordinator, the last of line {newest.n:,} (run {newest.run}){open_ones}.")
    if receipts.earlier:
        many = counted(len(receipts.earlier), "receipt")
        typer.echo(f"{many} signed with a key that the coordinator never had, as far as its renewals say.")
    if inspection.repairs:
        typer.echo(f"{counted(inspection.repairs, 'torn line')} set aside by a recorded repair.")


@output.tables
def show_budget(
    name: str = typer.Argument(..., help="A site's name.", autocompletion=completion.sites),
    dataset: str = typer.Option("", "--dataset", help="One of the site's datasets; all unless given."),
    as_json: bool = output.JSON,
) -> None:
    """Show what was spent of the budget of differential privacy, by dataset, study and run, and what left uncharged.

    By the site's ledger, over all studies and years. What is spent was written down before it was used,
    so that a crash may have spent what nobody got.
    """
    from flfed.deployment.operator.budget import budget_as_json
    from flfed.folders import SiteFolder
    from flfed.records.ledger.ledger import ledger_of
    from flfed.rows.data import site_discovery as sites

    site = sites.load(name)
    if dataset and dataset not in site.datasets:
        raise UsageError(f"site {name!r} does not serve dataset {dataset!r}; it serves: {', '.join(site.datasets)}")
    found = budget_as_json(site, ledger_of(SiteFolder(site.name)), dataset)
    if as_json:
        output.as_json(found)
        return
    for one in found["datasets"]:
        _print(one, found)
    if found["restarted"]:
        typer.echo(f"The ledger began anew on {found['restarted'][:10]}: what the one before lost is not counted here.")


def _print(one: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the account of one dataset."""
    from flfed.deployment.operator.budget import COMPOSED, PEOPLE, in_words, shown_or, times_in_words

    if one["dataset"]:
        typer.echo(in_words(one, found["delta"], enforced=found["enforced"]))
    else:
        typer.echo("Of studies whose dataset the ledger does not name:")
    # The columns are of use only where datasets share one account, or a run was charged to one side alone.
    several, apart = len(one["account"]) > 1, any("side" in run for run in one["runs"])
    rows = [
        [run["study"], run["run"], *([run["dataset"]] if several else []),
         *([PEOPLE[run.get("side", "both")]] if apart else []), run["unit"], run["first"][:10],
         times_in_words(run), str(run["steps"]),
         f"{run['noise']:g}", f"{run['sampling']:g}",
         shown_or("beyond", run["epsilon"]), shown_or("beyond", run["run-epsilon"])]
        for run in one["runs"]
    ]  # fmt: skip
    if rows:
        columns = ["study", "run", *(["dataset"] if several else []), *(["people"] if apart else []), "unit", "since"]
        columns += ["asked for", "steps", "noise", "sampling", "epsilon", "of its run"]
        spare = ("unit", "sampling", "steps", "since", "noise")
        output.as_table(columns, rows, title=COMPOSED, spare=spare)
    rows = [[left["kind"], f"{left['lines']:,}", f"{left['bytes']:,}"] for left in one["uncharged"]]
    if rows:
        output.as_table(["what", "lines", "bytes"], rows, title="Left without noise: no budget counts it")
