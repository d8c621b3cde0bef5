"""`flfed site ledger`, `budget`, `model`, `models`, `compare` and `purge`: messages and models of a site."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.errors import FlfedError, UsageError, counted, people_in_words
from flfed.paths import SiteFolder, write_private
from flfed.records.statistics import verdict
from flfed.words import render

if TYPE_CHECKING:
    from flfed.deployment.site_state.ledger_loss import Receipts
    from flfed.records.ledger import Inspection, Ledger
    from flfed.records.ledger_line import Line, Total, Totals


SHOWN = 40
"""Most lines of a table: the last ones."""
PROBLEMS = 20
"""Most problems that are printed; --json has all."""
NONE = "–"
SITE = typer.Argument(..., help="Site name.", autocompletion=completion.sites)
RUN = typer.Argument(..., help="Run id.")
REPEAT = typer.Option(0, min=0, help="Repeat number.")


@output.tables
def show_ledger(
    name: str = SITE,
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
    from_copy: Path | None = typer.Option(
        None, "--from-copy", metavar="DIR", help="Take the copy of site serve --ledger-copy, where it has more lines."
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
    if sum(map(bool, (verify, export, repair, restart, from_copy))) > 1:
        raise UsageError("--verify, --export, --repair, --restart and --from-copy exclude each other")
    if any((verify, repair, restart, from_copy)) and any((since, run)):
        raise UsageError("--since and --run select lines to show or export, and go with no other option")
    if export and as_json:
        raise UsageError("--export writes JSON lines already; leave --json out")
    folder = _joined(name)
    ledger = ledger_of(folder)
    if repair:
        output.show(_repair(ledger, name, repair), as_json)
    elif restart:
        output.show(_restart(folder, restart), as_json)
    elif from_copy:
        output.show(_take_copy(folder, from_copy), as_json)
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
    line = ledger.repair(by=who(), why=why)
    if line is None:
        yield {"site": name, "repaired": None}
        yield render("commands.ledger.whole", site=name)
        return
    yield {"site": name, "repaired": line.n}
    yield render("commands.ledger.repaired", site=name, bytes=line.facts["torn-bytes"], line=line.n)


def _restart(folder: SiteFolder, why: str) -> output.Shown:
    from flfed.deployment.operator.lost_runs import restart_ledger
    from flfed.rows.data import site_discovery as sites

    outcome = restart_ledger(folder, lambda: sites.load(folder.site), by=who(), why=why)
    aside = list(map(str, outcome.aside))
    shown = {"site": folder.site, "restarted": outcome.line.at, "carried": outcome.carried, "aside": aside}
    yield shown | {"ended-runs": outcome.ended}
    yield render("commands.ledger.restarted", site=folder.site)
    yield render("commands.ledger.carried", lines=counted(outcome.carried, "line"))
    if outcome.line.follows_loss:
        yield render("commands.ledger.approvals")
        yield render("commands.ledger.comparisons")
        yield render("commands.ledger.lists")
        yield render("commands.ledger.charged")
    for path in aside:
        yield f"Set aside, keep: {path}"
    yield render("commands.ledger.inform", site=folder.site)


def _take_copy(folder: SiteFolder, copy: Path) -> output.Shown:
    from flfed.deployment.site_state.ledger_copy import take_copy

    taken = take_copy(folder, copy.absolute(), by=who())
    yield {"site": folder.site, "lines": taken.lines, "receipts": taken.receipts, "ended-runs": taken.runs}
    facts = {"lines": counted(taken.lines, "line"), "receipts": counted(taken.receipts, "receipt")}
    yield render("commands.ledger.taken", site=folder.site, **facts)
    if taken.runs:
        yield render("commands.ledger.ended", runs=", ".join(taken.runs))


def who() -> str:
    """Return the name of the user that runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has a number only
        return f"user {os.getuid()}"


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
        _print_first([render("commands.ledger.clock", note=note) for note in inspection.notes])
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
    shown |= {"receipts-of-other-keys": len(receipts.earlier), "signed-lines": signed}
    shown |= {"repaired": inspection.repairs}
    yield shown | {"problems": problems, "notes": inspection.notes}
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


@output.tables
def show_budget(
    name: str = SITE, dataset: str = typer.Option("", "--dataset", help="Only this dataset.")
) -> output.Shown:
    """Show the spent privacy budget by dataset, study and run, and the releases that it does not cover.

    The figures are from the site's ledger, over all studies and years. A charge is recorded before its release, so
    that a crash may leave a charge without a release.
    """
    from flfed.deployment.operator.budget import budget_as_json
    from flfed.records.ledger import ledger_of
    from flfed.rows.data import site_discovery as sites

    site = sites.load(name)
    if dataset and dataset not in site.datasets:
        raise UsageError(f"site {name!r} does not serve dataset {dataset!r}; it serves: {', '.join(site.datasets)}")
    budget = budget_as_json(site, ledger_of(SiteFolder(site.name)), dataset)
    yield budget
    for one in budget["datasets"]:
        _print(one, budget)
    if budget["restarted"]:
        yield render("commands.budget.restarted", date=budget["restarted"][:10])


def _print(one: dict[str, Any], budget: dict[str, Any]) -> None:
    """Print the account of one dataset."""
    from flfed.deployment.operator.budget import COMPOSED, describe_account

    if one["dataset"]:
        typer.echo(describe_account(one, budget["delta"], enforced=budget["enforced"]))
    else:
        typer.echo(render("commands.budget.unnamed"))
    rows = [_charged(run) for run in one["runs"]]
    if rows:
        # Datasets differ only in a shared account, and people only where a run was charged to one side.
        is_useful = {"dataset": len(one["account"]) > 1, "people": any("side" in run for run in one["runs"])}
        columns = [name for name in rows[0] if is_useful.get(name, True)]
        spare = ("unit", "sampling", "steps", "since", "noise")
        output.as_table(columns, list(map(itemgetter(*columns), rows)), title=COMPOSED, spare=spare)
    lines = [[left["kind"], f"{left['lines']:,}", f"{left['bytes']:,}"] for left in one["uncharged"]]
    if lines:
        output.as_table(["kind", "lines", "bytes"], lines, title=render("commands.budget.uncovered"))


def _charged(run: dict[str, Any]) -> dict[str, str]:
    """Return the charge of one run, as cells by header."""
    from flfed.deployment.operator.budget import PEOPLE, shown_or, times_in_words

    cells = {key: run[key] for key in ("study", "run", "dataset")}
    cells |= {"people": PEOPLE[run.get("side", "both")], "unit": run["unit"], "since": run["first"][:10]}
    cells |= {"asked for": times_in_words(run), "steps": str(run["steps"])}
    cells |= {key: verdict.number(run[key], 3) for key in ("noise", "sampling")}
    cells["epsilon"] = shown_or("beyond", run["epsilon"])
    return cells | {"of its run": shown_or("beyond", run["run-epsilon"])}


@output.with_json
def take_model(
    name: str = SITE,
    run: str = RUN,
    to: Path = typer.Option(..., "--output", help="New or empty folder."),
    repeat: int = REPEAT,
) -> output.Shown:
    """Export the model of a run, for `flfed predict`, where the coordinator lacks it or a part of it."""
    from flfed.export.run_folder import export_at_site

    done = export_at_site(SiteFolder(name).site, run, repeat, to)
    yield done.as_object()
    yield f"{done.folder}: {', '.join(done.files)}"
    yield render("commands.export.use", folder=done.folder)


@output.tables
def list_models(
    name: str = SITE,
    people: Path = typer.Option(
        ..., "--people", metavar="FILE", help="Private file like excluded.csv: a column's name, an identifier a line."
    ),
) -> output.Shown:
    """List the runs that used rows of these people, by keyed hashes that the site stores.

    Nothing leaves the site, and no identifier is written.
    """
    from flfed.federation.client.released.sets import lineage, unlisted
    from flfed.rows.data import site_discovery as sites
    from flfed.rows.snapshots.opt_outs import Excluded

    wanted = Excluded.read(people)
    site = sites.load(name)
    model_runs = lineage(site, wanted)
    others = unlisted(site)
    runs = [one.as_object() for one in model_runs]
    unnamed = [{"run": run, "study": study} for run, study in others.items()]
    yield {"site": name, "people": len(wanted.identifiers), "runs": runs, "unlisted": unnamed}
    lines = []
    for one in model_runs:
        parts = ", ".join(f"{part}: {count}" for part, count in one.parts.items())
        lines.append([one.run, str(one.repeat), one.study, parts])
    output.as_table(["run", "repeat", "study", "people in its rows"], lines, render("commands.models.title", site=name))
    run_count = counted(len({one.run for one in model_runs}), "run")
    yield render("commands.models.counted", runs=run_count, people=people_in_words(len(wanted.identifiers)))
    if others:
        named = ", ".join(f"{run} ({study})" for run, study in others.items())
        yield render("commands.models.unlisted", runs=counted(len(others), "run"), named=named)


@output.tables
def compare_model(name: str = SITE, run: str = RUN, repeat: int = REPEAT) -> output.Shown:
    """Compare a run's last model with the site's own model, without noise, on the site's test rows.

    It is for runs that release no exact figure. Nothing leaves the site, and nothing is charged.
    """
    from flfed.deployment.operator.exact_comparison import ARMS, exact_comparison
    from flfed.records.statistics.own_models import family_in_words
    from flfed.rows.data import site_discovery as sites

    done = exact_comparison(SiteFolder(name), sites.load(name), run, repeat)
    yield done.as_json()
    comparison = done.comparison
    lines = []
    for metric, of in comparison.arms.items():
        figures = [of[arm] for arm in ARMS]
        cells = [verdict.with_interval(figure.value, figure.low, figure.high) for figure in figures]
        lines.append([verdict.metric_name(metric), *cells])
    headers = ["with 95 % CI", *(verdict.ARM_NAMES[arm] for arm in ARMS)]
    test_rows = counted(comparison.holdout_rows, "test row")
    title = render("commands.exact.title", study=done.study.name, run=done.run, site=name, rows=test_rows)
    output.as_table(headers, lines, title)
    first = next(iter(comparison.arms))
    code, sentence = done.verdict(first)
    yield f"{verdict.sentence_case(verdict.describe_verdict(code, first))}. {sentence}"
    family = family_in_words({comparison.own_family or "same": 1}, 1)
    own = f" ({family})" if family else ""
    yield render("commands.exact.figures", family=own, rows=counted(comparison.training_rows, "row"))
    yield render("commands.exact.snapshot", at=done.frozen)


def purge_records(
    name: str = SITE,
    target: str = typer.Argument(..., metavar="RUN|STUDY", help="Run id, or a study's name or hash."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = output.JSON,
) -> None:
    """Remove a run's or a study's requests, replies, state, models and results, and an unneeded snapshot.

    The files are listed first, and removed after a question. The ledger and what prevents a second release stay; the
    command says why. It is refused during a run. With --json there is no question: without --yes nothing is removed.
    """
    from flfed.deployment.operator.purge import STAYS, erase, plan_purge
    from flfed.deployment.processes.serve import is_served

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
