"""`flfed site ledger` and `purge`: what left a site, its proof, and the files that it keeps."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.cli.arguments import SITE_NAME
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder, write_private
from flfed.words import counted, render

if TYPE_CHECKING:
    from flfed.deployment.site_state.ledger_loss import Receipts
    from flfed.records.ledger import Inspection, Ledger
    from flfed.records.ledger_line import Line, Total, Totals


SHOWN = 40
"""Most lines of a table: the last ones."""
PROBLEMS = 20
"""Most problems that are printed; --json has all."""
NONE = "–"


@output.tables
def show_ledger(
    name: str = SITE_NAME,
    verify: bool = typer.Option(False, "--verify", help="Check all lines, and the coordinator's receipts."),
    export: str = typer.Option("", "--export", metavar="FILE|-", help="Export JSON lines."),
    since: str = typer.Option("", "--since", metavar="DATE", help="Only lines from this date or time on."),
    run: str = typer.Option("", "--run", metavar="RUN", help="Only lines of this run, with bytes by round and kind."),
    repair: str | None = typer.Option(
        None, "--repair", metavar="WHY", help="Set aside a last line that a crash cut off; WHY is recorded."
    ),
    restart: str | None = typer.Option(
        None,
        "--restart",
        metavar="WHY",
        help="Start a new ledger, if it was lost or its last line is later than the clock; WHY is recorded.",
    ),
    as_json: bool = output.JSON,
) -> None:
    """Show the messages that left a site, by line, study and day.

    Exit codes: 0 all is well, 1 the ledger is not as it was written, 2 wrong use.
    """
    from flfed.records.ledger import ledger_of

    _check_reason("--repair", repair)
    _check_reason("--restart", restart)
    # Each of these ends the command in its own way.
    if sum(map(bool, (verify, export, repair, restart))) > 1:
        raise UsageError("--verify, --export, --repair and --restart exclude each other")
    if any((verify, repair, restart)) and any((since, run)):
        raise UsageError("--since and --run select lines to show or export, and go with no other option")
    if export and as_json:
        raise UsageError("--export writes JSON lines already; leave --json out")
    folder = _joined(name)
    ledger = ledger_of(folder)
    if repair:
        output.show(_repair(ledger, name, repair), as_json)
    elif restart:
        output.show(_restart(folder, restart), as_json)
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


def _check_reason(option: str, why: str | None) -> None:
    if why is not None and not why.strip():
        raise UsageError(f"{option} needs a reason, which is recorded: {option} 'the disk was lost'")


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


def _repair(ledger: Ledger, name: str, why: str) -> output.Shown:
    line = ledger.repair(by=output.who(), why=why)
    if line is None:
        yield {"site": name, "repaired": None}
        yield render("commands.ledger.whole", site=name)
        return
    yield {"site": name, "repaired": line.n}
    yield render("commands.ledger.repaired", site=name, bytes=line.facts["torn-bytes"], line=line.n)


def _restart(folder: SiteFolder, why: str) -> output.Shown:
    from flfed.deployment.operator.lost_runs import restart_ledger
    from flfed.rows.data import site_discovery as sites

    outcome = restart_ledger(folder, lambda: sites.load(folder.site), by=output.who(), why=why)
    aside = list(map(str, outcome.aside))
    shown = {"site": folder.site, "restarted": outcome.line.at, "carried": outcome.carried, "aside": aside}
    yield shown | {"ended-runs": outcome.ended}
    yield render("commands.ledger.restarted", site=folder.site)
    yield render("commands.ledger.carried", lines=counted(outcome.carried, "line"))
    if outcome.line.follows_loss:
        yield render("commands.ledger.approvals")
        yield render("commands.ledger.comparisons")
        yield render("commands.ledger.cohorts")
        yield render("commands.ledger.charged")
    for path in aside:
        yield f"Set aside, keep: {path}"
    yield render("commands.ledger.inform", site=folder.site)


def _verify(folder: SiteFolder, ledger: Ledger, as_json: bool) -> None:
    from flfed.deployment.site_state.ledger_loss import loss, read_receipts
    from flfed.records.ledger import Inspection, ahead_in_words

    receipts = read_receipts(folder)
    inspection = Inspection(tuple(receipts.all()))
    lines = inspection.look(ledger.raws())
    first = next(lines, None)
    # The problems are complete once all lines are read.
    count = (first is not None) + sum(1 for _ in lines)
    problems = [*inspection.problems, *ledger.open_to_others(), *receipts.problems]
    # A ledger whose lines and receipts agree may still be lost.
    evidence = "" if problems else loss(folder, ledger)
    if evidence:
        problems.append(render("commands.ledger.lost", evidence=evidence, site=folder.site))
    changed = bool(problems)
    # A clock that runs behind is no damage, but no line can follow a last one that is later.
    ahead = ""
    if inspection.last is not None and ledger.is_ahead(inspection.last):
        ahead = render("commands.ledger.ahead", site=folder.site, reason=ahead_in_words(inspection.last))
        problems.append(ahead)
    output.show(_verified(folder.site, count, first, inspection, receipts, problems), as_json)
    if not as_json:
        _print_first([f"- {problem}." for problem in problems])
        if ledger.is_torn():
            typer.echo(render("commands.ledger.torn", site=folder.site))
        if not changed:
            typer.echo(render("commands.ledger.intact"))
    if ahead and not changed:
        raise FlfedError(f"the ledger of {ahead}")
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise FlfedError(f"the ledger of {folder.site} is not as it was written: {problems[0]}{more}")


def _print_first(lines: Sequence[str]) -> None:
    """Print the first of some lines, and the number of the others."""
    for line in lines[:PROBLEMS]:
        typer.echo(line)
    if len(lines) > PROBLEMS:
        typer.echo(render("commands.output.more", count=len(lines) - PROBLEMS, what="lines: --json"))


def _verified(
    site: str, count: int, first: Line | None, inspection: Inspection, receipts: Receipts, problems: list[str]
) -> output.Shown:
    last = inspection.last
    # Up to the line of the newest receipt, a cut would show.
    newest = max(receipts.signed, key=lambda receipt: receipt.n, default=None)
    head = None if last is None else last.hash
    signed = 0 if newest is None else newest.n
    shown = {"site": site, "lines": count, "head": head, "receipts": len(receipts.signed)}
    shown |= {"receipts-of-other-keys": len(receipts.earlier), "signed-lines": signed, "repaired": inspection.repairs}
    yield shown | {"problems": problems}
    lines = 0
    if first is None or last is None:
        yield f"{site}: no lines."
    else:
        lines = last.n
        dates = f"{first.at[:10]} to {last.at[:10]}"
        yield render("commands.ledger.lines", site=site, lines=counted(count, "line"), dates=dates, head=last.hash)
    if first is not None:
        yield from _restarted(first)
    if newest is None:
        yield render("commands.ledger.receiptless")
    else:
        many = counted(len(receipts.signed), "receipt")
        yield render("commands.ledger.receipts", receipts=many, line=newest.n, run=newest.run)
        if lines > newest.n:
            yield render("commands.ledger.unsigned", lines=counted(lines - newest.n, "line"))
    if receipts.earlier:
        yield render("commands.ledger.foreign", receipts=counted(len(receipts.earlier), "receipt"))
    if inspection.repairs:
        yield render("commands.ledger.repairs", lines=counted(inspection.repairs, "torn line"))


def _restarted(first: Line) -> Iterator[str]:
    """Yield who restarted the ledger, and why, where its first line records that."""
    from flfed.records.ledger_line import RESTARTED

    if first.kind == RESTARTED:
        cause = "ahead" if "ahead-line" in first.facts else "lost"
        by = first.facts.get("by")
        yield render(f"commands.loss.{cause}", date=first.at[:10], by=by, why=first.facts.get("why"))


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
