"""`flfed site ledger` and `purge`: what left a site, its proof, and the files that it keeps."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.cli.arguments import SITE_NAME
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder, write_private
from flfed.words import counted, render

if TYPE_CHECKING:
    from flfed.records.ledger import Ledger
    from flfed.records.ledger_line import Line, Total, Totals


SHOWN = 40
"""Most lines of a table: the last ones."""
NONE = "–"


@output.tables
def show_ledger(
    name: str = SITE_NAME,
    verify: bool = typer.Option(False, "--verify", help="Check all lines, and that the last ones are there."),
    export: str = typer.Option("", "--export", metavar="FILE|-", help="Export JSON lines."),
    since: str = typer.Option("", "--since", metavar="DATE", help="Only lines from this date or time on."),
    run: str = typer.Option("", "--run", metavar="RUN", help="Only lines of this run, with bytes by round and kind."),
    restart: bool = typer.Option(
        False, "--restart", help="Start a new ledger where this one is lost, and count the privacy budget as spent."
    ),
    why: str = typer.Option("", "--why", metavar="TEXT", help="Why it is restarted; the new ledger has it."),
    as_json: bool = output.JSON,
) -> None:
    """Show the messages that left a site, by line, study and day.

    The gate answers nothing where the ledger or its state (state.db) is lost or cut, or the ledger is later than the
    clock. Restore both from where they are whole. Otherwise, and after a restored backup, --restart --why TEXT sets
    them aside and starts new ones: the privacy budget counts as spent, and each study needs a new approval.

    Exit codes: 0 all is well, 1 the ledger is not as it was written, 2 wrong use.
    """
    from flfed.records.ledger import ledger_of

    if restart != bool(why.strip()):
        raise UsageError("--restart and --why go together: --restart --why 'the disk was lost'")
    # Each of these ends the command in its own way.
    if sum(map(bool, (verify, export, restart))) > 1:
        raise UsageError("--verify, --export and --restart exclude each other")
    if (verify or restart) and (since or run):
        raise UsageError("--since and --run select lines to show or export, and go with no other option")
    if export and as_json:
        raise UsageError("--export writes JSON lines already; leave --json out")
    folder = _joined(name)
    ledger = ledger_of(folder)
    if restart:
        output.show(_restart(folder, why), as_json)
    elif verify:
        _verify(folder, ledger, as_json)
    elif export:
        _export(_chosen(ledger, since, run), export)
    else:
        _show(name, _chosen(ledger, since, run), run, as_json)


def _joined(name: str) -> SiteFolder:
    """Return a site's folder, or refuse: without one, an empty ledger would suggest that nothing had left."""
    folder = SiteFolder(name)
    if not folder.root.is_dir():
        raise UsageError(f"site {name!r} has no folder here ({folder.root}); first: flfed site join KIT")
    return folder


def _chosen(ledger: Ledger, since: str, run: str) -> Iterator[Line]:
    """Return the lines from a time on, of one run where it is named."""
    from flfed.records.ledger_line import moment_of

    start = moment_of(since) if since else ""
    return (line for line in ledger.lines() if line.at >= start and (not run or line.facts.get("run") == run))


def _show(name: str, lines: Iterator[Line], run: str, as_json: bool) -> None:
    from flfed.records.ledger_line import Totals

    # A ledger may be long: totals are summed line by line, and only the last lines are printed.
    most = None if as_json else SHOWN
    last = deque[Any](maxlen=most)
    totals = Totals()
    for line in lines:
        totals.add(line)
        last.append(line)
    output.show(_lines(name, run, totals, last), as_json)


def _lines(name: str, run: str, totals: Totals, last: deque[Line]) -> output.Shown:
    """Yield the object of the lines with their totals, then lines for people."""
    rounds = _rounds(totals)
    shown = {"site": name, "run": run or None, **vars(totals.all)}
    shown |= {"studies": _listed(totals.studies, "study"), "days": _listed(totals.days, "day")}
    if run:
        shown["rounds"] = rounds
    yield shown | {"entries": [json.loads(line.raw) for line in last]}
    if not last:
        scope = "run" if run else "site"
        yield render(f"commands.empty.{scope}", site=name, run=run)
        return
    title = f"{name}: messages"
    if totals.all.lines > len(last):
        title = render("commands.ledger.end", site=name, shown=len(last), lines=totals.all.lines)
    columns = ["line", "when (UTC)", "kind", "study", "run", "round", "bytes"]
    output.as_table(columns, list(map(_row, last)), title=title, spare=("study", "line", "round"))
    if run:
        cells = [[str(one["round"] or NONE), str(one["kind"]), f"{one['bytes']:,}"] for one in rounds]
        output.as_table(["round", "kind", "bytes"], cells, title="By round")
    _sums("study", totals.studies)
    _sums("day", totals.days)
    yield render("commands.ledger.total", bytes=totals.all.bytes, lines=counted(totals.all.lines, "line"))


def _row(line: Line) -> list[str]:
    from flfed.records.ledger_line import STANDS_FOR, bytes_of, round_of, study_of

    when = line.at[:19].replace("T", " ")
    run = str(line.facts.get("run") or NONE)
    number = str(round_of(line) or NONE)
    several = line.facts.get(STANDS_FOR)
    kind = f"{line.kind} × {several:,}" if several else line.kind
    return [str(line.n), when, kind, study_of(line) or NONE, run, number, f"{bytes_of(line):,}"]


def _rounds(totals: Totals) -> list[dict[str, Any]]:
    every = sorted(totals.rounds.items())
    return [{"round": number, "kind": kind, **vars(total)} for (number, kind), total in every]


def _listed(totals: Mapping[str, Total], word: str) -> list[dict[str, Any]]:
    return [{word: key, **vars(total)} for key, total in sorted(totals.items())]


def _sums(word: str, totals: Mapping[str, Total]) -> None:
    rows = [[key or NONE, f"{total.lines:,}", f"{total.bytes:,}"] for key, total in sorted(totals.items())]
    output.as_table([word, "lines", "bytes"], rows, title=f"By {word}")


def _export(lines: Iterator[Line], target: str) -> None:
    """Write lines, each as it stands in the ledger, to standard output or into a new private file."""
    texts = (line.raw.decode("ascii") + "\n" for line in lines)
    if target == "-":
        sys.stdout.writelines(texts)
        return
    whole = list(texts)
    write_private(Path(target), "".join(whole), advice="name a file in a folder that is there")
    typer.echo(render("commands.ledger.exported", lines=counted(len(whole), "line"), file=target), err=True)


def _restart(folder: SiteFolder, why: str) -> output.Shown:
    from flfed.deployment.site_state.ledger_restart import restart
    from flfed.rows.data import site_discovery as sites

    epsilon = sites.load(folder.site).policy.epsilon
    aside = list(map(str, restart(folder, by=output.who(), why=why, epsilon=epsilon)))
    yield {"site": folder.site, "epsilon": epsilon, "aside": aside}
    yield render("commands.ledger.restarted", site=folder.site)
    yield render("commands.ledger.charged")
    yield render("commands.ledger.approvals", site=folder.site)
    for path in aside:
        yield f"Set aside, keep: {path}"
    yield render("commands.ledger.inform", site=folder.site)


def _verify(folder: SiteFolder, ledger: Ledger, as_json: bool) -> None:
    """Check every line, and end with an error where one is not as it was written, or lines are missing."""
    from flfed.deployment.site_state.ledger_restart import blocking_refusal

    problems = ledger.problems()
    problems += [] if problems else filter(None, [blocking_refusal(folder)])
    first, last = (None, None) if problems else (next(ledger.lines(), None), ledger.last())
    output.show(_verified(folder.site, first, last, problems), as_json)
    if problems:
        raise FlfedError(f"the ledger of {folder.site} is not as it was written: {problems[0]}")


def _verified(site: str, first: Line | None, last: Line | None, problems: list[str]) -> output.Shown:
    from flfed.records.ledger_line import RESTARTED

    lines, head = (0, None) if last is None else (last.n, last.hash)
    yield {"site": site, "lines": lines, "head": head, "problems": problems}
    yield from (f"- {problem}." for problem in problems)
    if problems:
        return
    if first is None or last is None:
        yield f"{site}: no lines."
        return
    dates = f"{first.at[:10]} to {last.at[:10]}"
    yield render("commands.ledger.lines", site=site, lines=counted(lines, "line"), dates=dates, head=head)
    if first.kind == RESTARTED:
        facts = {"date": first.at[:10], "by": first.facts.get("by"), "why": first.facts.get("why")}
        yield render("commands.ledger.begun", **facts)
    yield render("commands.ledger.intact")


def purge_records(
    name: str = SITE_NAME,
    target: str = typer.Argument(..., metavar="RUN|SERIES|STUDY", help="Run or series id, or a study's name or hash."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = output.JSON,
) -> None:
    """Remove a run's or a study's replies, state, models and results, and an unneeded snapshot.

    The files are listed first, and removed after a question. The ledger and what prevents a second release stay; the
    command says why. It is refused during a run. With --json there is no question: without --yes nothing is removed.
    """
    from flfed.deployment.operator.purge import STAYS, erase, plan_purge
    from flfed.deployment.site_state.trusted_files import is_served

    folder = _joined(name)
    purge = plan_purge(folder, target)
    stays = {key: render(f"commands.stays.{key}") for key in STAYS}
    if not as_json:
        lines = [*map(str, purge.paths), *stays.values()]
        lines += [render("commands.purge.needed", site=name, study=study) for study in purge.needed]
        output.say_all(lines)
    question = render("commands.purge.question", count=counted(len(purge.paths), "path"))
    agreed = bool(purge.paths) and (yes or (not as_json and output.agreed(question)))
    if agreed:
        if not as_json and is_served(folder):
            output.say(render("commands.purge.waits"))
        purge = erase(folder, target)
    shown = {"site": name, "target": target, "runs": purge.runs, "paths": list(map(str, purge.paths)), "stays": stays}
    output.show(_purged({**shown, "needed-by": purge.needed, "removed": agreed}), as_json)


def _purged(shown: Mapping[str, Any]) -> output.Shown:
    yield shown
    key = "removed" if shown["removed"] else "remains"
    if not shown["paths"]:
        key = "nothing"
    yield render(f"commands.purged.{key}", site=shown["site"], target=shown["target"])
