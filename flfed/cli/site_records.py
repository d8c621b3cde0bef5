"""`flfed site ledger`, `budget`, `model`, `models` and `compare`: what left a site, and what it has of models."""

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

if TYPE_CHECKING:
    from flfed.deployment.site_state.ledger_loss import Receipts
    from flfed.records.ledger import Inspection, Ledger
    from flfed.records.ledger_line import Line, Total, Totals


SHOWN = 40
"""Lines of a table: the last ones."""
PROBLEMS = 20
"""Sentences on a page; the object of --json has them all."""
NONE = "–"
SITE = typer.Argument(..., help="A site's name.", autocompletion=completion.sites)
RUN = typer.Argument(..., help="A run that the site took part in.")
REPEAT = typer.Option(0, min=0, help="Of a series of repeats, which.")


@output.tables
def show_ledger(
    name: str = SITE,
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
    from flfed.records.ledger import ledger_of

    _check_reason("--repair", repair)
    _check_reason("--restart", restart)
    # Each of these ends the command in its own way.
    if sum(map(bool, (verify, export, repair, restart))) > 1:
        raise UsageError("--verify, --export, --repair and --restart are asked one at a time")
    if any((verify, repair, restart)) and any((since, run)):
        raise UsageError("--since and --run choose lines to show or to export; all lines are verified")
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
    """Return a site's folder; without one it has no ledger, and an empty one would look as if nothing had left."""
    folder = SiteFolder(name)
    if not folder.root.is_dir():
        raise UsageError(f"site {name!r} has no folder here ({folder.root}); first: flfed site join KIT")
    return folder


def _check_reason(option: str, why: str | None) -> None:
    if why is not None and not why.strip():
        raise UsageError(f"{option} needs a reason, which goes on record: {option} 'the disk was lost'")


def _chosen(ledger: Ledger, since: str, run: str) -> Iterator[Line]:
    """Return the lines from a time on, and of a run."""
    from flfed.records.ledger_line import moment_of

    start = moment_of(since) if since else ""
    return (line for line in ledger.lines() if line.at >= start and (not run or line.facts.get("run") == run))


def _show(name: str, lines: Iterator[Line], run: str, as_json: bool) -> None:
    from flfed.records.ledger_line import Totals

    # A ledger may be long: it is added up line by line, and for people the last ones are kept.
    most = None if as_json else SHOWN
    last = deque[Any](maxlen=most)
    totals = Totals()
    for line in lines:
        totals.add(line)
        last.append(line)
    output.show(_lines(name, run, totals, last), as_json)


def _lines(name: str, run: str, totals: Totals, last: deque[Line]) -> output.Shown:
    """Yield the lines, as they stand in the ledger and as --export gives them, with their sums; then for people."""
    rounds = _rounds(totals)
    shown = {"site": name, "run": run or None, **vars(totals.all)}
    shown |= {"studies": _listed(totals.studies, "study"), "days": _listed(totals.days, "day")}
    if run:
        shown["rounds"] = rounds
    yield shown | {"entries": [json.loads(line.raw) for line in last]}
    if not last:
        what = "nothing of this left" if run else "nothing left"
        yield f"{name}: {what} so far."
        return
    title = f"{name}: what left"
    # The table tells that it has a part only.
    if totals.all.lines > len(last):
        title = f"{name}: the last {len(last)} of {totals.all.lines:,} lines"
    columns = ["line", "when (UTC)", "what", "study", "run", "round", "bytes"]
    output.as_table(columns, list(map(_row, last)), title=title, spare=("study", "line", "round"))
    if run:
        cells = [[str(one["round"] or NONE), str(one["kind"]), f"{one['bytes']:,}"] for one in rounds]
        output.as_table(["round", "what", "bytes"], cells, title=f"Run {run}, by round")
    _sums("study", totals.studies)
    _sums("day", totals.days)
    yield f"In all {totals.all.bytes:,} bytes in {counted(totals.all.lines, 'line')}."


def _rounds(totals: Totals) -> list[dict[str, Any]]:
    lines = []
    for (number, kind), total in sorted(totals.rounds.items()):
        lines.append({"round": number, "kind": kind, **vars(total)})
    return lines


def _row(line: Line) -> list[str]:
    from flfed.records.ledger_line import bytes_of, round_of, study_of

    when = line.at[:19].replace("T", " ")
    run = str(line.facts.get("run") or NONE)
    number = str(round_of(line) or NONE)
    return [str(line.n), when, line.kind, study_of(line) or NONE, run, number, f"{bytes_of(line):,}"]


def _sums(word: str, totals: Mapping[str, Total]) -> None:
    rows = [[key or NONE, f"{total.lines:,}", f"{total.bytes:,}"] for key, total in sorted(totals.items())]
    output.as_table([word, "lines", "bytes"], rows, title=f"By {word}")


def _listed(totals: Mapping[str, Total], word: str) -> list[dict[str, Any]]:
    return [{word: key, **vars(total)} for key, total in sorted(totals.items())]


def _export(lines: Iterator[Line], target: str) -> None:
    """Write lines, each as it stands in the ledger, to standard output or into a new private file."""
    texts = (line.raw.decode("ascii") + "\n" for line in lines)
    if target == "-":
        sys.stdout.writelines(texts)
        return
    whole = list(texts)
    write_private(Path(target), "".join(whole), advice="name a file in a folder that is there")
    typer.echo(f"{len(whole):,} lines written to {target}.", err=True)


def _repair(ledger: Ledger, name: str, why: str) -> output.Shown:
    line = ledger.repair(by=who(), why=why)
    if line is None:
        yield {"site": name, "repaired": None}
        yield f"{name}: its last line is whole; there is nothing to repair."
        return
    yield {"site": name, "repaired": line.n}
    left = line.facts["torn-bytes"]
    yield f"{name}: {left} bytes of a torn line are set aside; line {line.n} says so, by whom, and why."


def _restart(folder: SiteFolder, why: str) -> output.Shown:
    from flfed.deployment.site_state.ledger_loss import restart

    outcome = restart(folder, by=who(), why=why)
    aside = list(map(str, outcome.aside))
    yield {"site": folder.site, "restarted": outcome.line.at, "carried": outcome.carried, "aside": aside}
    yield f"{folder.site}: its ledger begins anew; line 1 says so, by whom, and why."
    yield f"{counted(outcome.carried, 'line')} of runs and of spent privacy could be read and came over."
    if outcome.line.follows_loss:
        yield "Studies that were approved before need a new approval; until then nothing of them is answered."
        yield "All models that might be compared count as used: flfed site approve STUDY --compared N adds some."
        yield "Masked sums have all sites that an approval pins, or a list that came over."
    for path in aside:
        yield f"Set aside, to be kept: {path}"
    yield f"Tell the coordinator, who takes note of it: flfed coordinator ledger {folder.site} --restart WHY"


def who() -> str:
    """Return the user that runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has a number only
        return f"user {os.getuid()}"


def _verify(folder: SiteFolder, ledger: Ledger, as_json: bool) -> None:
    from flfed.deployment.site_state.ledger_loss import read_receipts
    from flfed.records.ledger import Inspection

    receipts = read_receipts(folder)
    inspection = Inspection(tuple(receipts.all()))
    lines = inspection.look(ledger.raws())
    first = next(lines, None)
    # All lines must be read before the problems are known.
    count = (first is not None) + sum(1 for _ in lines)
    problems = [*inspection.problems, *ledger.open_to_others(), *receipts.problems]
    # Traces of a loss are looked for beside a ledger whose lines and receipts agree.
    changed = problems or _lost(folder, ledger)
    # A clock that runs behind is no damage, and has a sentence of its own.
    ahead = _ahead(folder.site, ledger, inspection.last)
    problems = [*changed, *ahead]
    output.show(_verified(folder.site, count, first, inspection, receipts, problems), as_json)
    if not as_json:
        _say_some("- {}.", problems, "- and {:,} more; --json has them all.")
        earlier = "Note: {}; an earlier version wrote it, by a clock that was set back."
        _say_some(earlier, inspection.notes, "And {:,} such lines more; --json has them all.")
        if ledger.is_torn():
            typer.echo(f"If a crash cut the last line off: flfed site ledger {folder.site} --repair WHY")
        if not changed:
            typer.echo("Every line is as it was written.")
    if ahead and not changed:
        raise FlfedError(f"the ledger of {ahead[0]}")
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise FlfedError(f"the ledger of {folder.site} is not as it was written: {problems[0]}{more}")


def _say_some(sentence: str, problems: Sequence[str], more: str) -> None:
    """Print the first problems or notes, each in its sentence, and how many more there are."""
    for one in problems[:PROBLEMS]:
        typer.echo(sentence.format(one))
    if len(problems) > PROBLEMS:
        typer.echo(more.format(len(problems) - PROBLEMS))


def _lost(folder: SiteFolder, ledger: Ledger) -> list[str]:
    """Return by what the ledger is known to be lost or cut."""
    from flfed.deployment.site_state.ledger_loss import loss

    lost = loss(folder, ledger)
    todo = f"put it back, or: flfed site ledger {folder.site} --restart WHY"
    return [f"it is lost or was cut, for {lost}; {todo}"] if lost else []


def _ahead(site: str, ledger: Ledger, last: Line | None) -> list[str]:
    """Return what to do where no line can follow the last one, for it is later than the clock."""
    from flfed.records.ledger import ahead_in_words

    if last is None or not ledger.is_ahead(last):
        return []
    todo = f"set the clock right, or: flfed site ledger {site} --restart WHY"
    return [f"{site} cannot go on: {ahead_in_words(last)}; {todo}"]


def _verified(
    site: str, count: int, first: Line | None, inspection: Inspection, receipts: Receipts, problems: list[str]
) -> output.Shown:
    last = inspection.last
    # The newest receipt says up to which line the ledger cannot have been cut.
    newest = max(receipts.signed, key=lambda receipt: receipt.n, default=None)
    head = None if last is None else last.hash
    signed = 0 if newest is None else newest.n
    yield {
        "site": site,
        "lines": count,
        "head": head,
        "receipts": len(receipts.signed),
        "receipts-of-other-keys": len(receipts.earlier),
        "signed-lines": signed,
        "repaired": inspection.repairs,
        "problems": problems,
        "notes": inspection.notes,
    }
    lines = 0
    if first is None or last is None:
        yield f"{site}: no lines."
    else:
        lines = last.n
        dates = f"from {first.at[:10]} to {last.at[:10]}"
        yield f"{site}: {counted(count, 'line')}, {dates}; the head is {last.hash}."
    if first is not None:
        yield from _restarted(first)
    if newest is None:
        yield "The coordinator signed none of them: that the last ones were cut off would not show."
    else:
        after = lines - newest.n
        open_ones = f"; {counted(after, 'later line')} would not show as cut off" if after > 0 else ""
        many = counted(len(receipts.signed), "receipt")
        yield f"{many} of the coordinator, the last of line {newest.n:,} (run {newest.run}){open_ones}."
    if receipts.earlier:
        many = counted(len(receipts.earlier), "receipt")
        yield f"{many} signed with a key that the coordinator never had, as far as its renewals say."
    if inspection.repairs:
        yield f"{counted(inspection.repairs, 'torn line')} set aside by a recorded repair."


def _restarted(first: Line) -> Iterator[str]:
    """Yield who began the ledger anew, and why, where its first line says so."""
    from flfed.records.ledger_line import RESTARTED

    if first.kind == RESTARTED:
        by = first.facts.get("by")
        why = first.facts.get("why")
        before = "had a line that was later than the clock" if "ahead-line" in first.facts else "was lost"
        yield f"It began anew on {first.at[:10]}, by {by}: {why}. The ledger before it {before}."


@output.tables
def show_budget(
    name: str = SITE,
    dataset: str = typer.Option("", "--dataset", help="One of the site's datasets; all unless given."),
) -> output.Shown:
    """Show what was spent of the budget of differential privacy, by dataset, study and run, and what left uncharged.

    By the site's ledger, over all studies and years. What is spent was written down before it was used,
    so that a crash may have spent what nobody got.
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
        yield f"The ledger began anew on {budget['restarted'][:10]}: what the one before lost is not counted here."


def _print(one: dict[str, Any], budget: dict[str, Any]) -> None:
    """Print the account of one dataset."""
    from flfed.deployment.operator.budget import COMPOSED, in_words

    if one["dataset"]:
        typer.echo(in_words(one, budget["delta"], enforced=budget["enforced"]))
    else:
        typer.echo("Of studies whose dataset the ledger does not name:")
    rows = [_charged(run) for run in one["runs"]]
    if rows:
        # The columns are of use only where datasets share one account, or a run was charged to one side alone.
        is_useful = {"dataset": len(one["account"]) > 1, "people": any("side" in run for run in one["runs"])}
        columns = [name for name in rows[0] if is_useful.get(name, True)]
        spare = ("unit", "sampling", "steps", "since", "noise")
        output.as_table(columns, list(map(itemgetter(*columns), rows)), title=COMPOSED, spare=spare)
    lines = [[left["kind"], f"{left['lines']:,}", f"{left['bytes']:,}"] for left in one["uncharged"]]
    if lines:
        output.as_table(["what", "lines", "bytes"], lines, title="Left without noise: no budget counts it")


def _charged(run: dict[str, Any]) -> dict[str, str]:
    """Return what one run was charged, by the headers of its cells."""
    from flfed.deployment.operator.budget import PEOPLE, shown_or, times_in_words

    return {
        "study": run["study"],
        "run": run["run"],
        "dataset": run["dataset"],
        "people": PEOPLE[run.get("side", "both")],
        "unit": run["unit"],
        "since": run["first"][:10],
        "asked for": times_in_words(run),
        "steps": str(run["steps"]),
        "noise": f"{run['noise']:g}",
        "sampling": f"{run['sampling']:g}",
        "epsilon": shown_or("beyond", run["epsilon"]),
        "of its run": shown_or("beyond", run["run-epsilon"]),
    }


@output.with_json
def take_model(
    name: str = SITE,
    run: str = RUN,
    to: Path = typer.Option(..., "--output", help="A new or empty folder."),
    repeat: int = REPEAT,
) -> output.Shown:
    """Write the model of a run that the coordinator lacks, or lacks a part of, into a folder, for `flfed predict`."""
    from flfed.export.run_folder import export_at_site

    done = export_at_site(SiteFolder(name).site, run, repeat, to)
    yield done.as_object()
    yield f"{done.folder}: {', '.join(done.files)}"
    yield f"Use it: flfed predict {done.folder} TABLE"


@output.tables
def list_models(
    name: str = SITE,
    people: Path = typer.Option(
        ..., "--people", metavar="FILE", help="A private file as excluded.csv: a column's name, an identifier a line."
    ),
) -> output.Shown:
    """List the runs that had these people's rows in them, by the keyed hashes that the site keeps.

    Nothing of it leaves the site, and no identifier is written down.
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
    output.as_table(["run", "repeat", "study", "people in its rows"], lines, f"{name}: runs with these people's rows")
    yield (
        f"{counted(len({one.run for one in model_runs}), 'run')} had rows of "
        f"{people_in_words(len(wanted.identifiers))} on the list. To leave people out from now on: "
        "excluded.csv, flfed site refresh, and a new approval."
    )
    if others:
        named = ", ".join(f"{run} ({study})" for run, study in others.items())
        yield (
            f"No list of people is kept of {counted(len(others), 'run')} of which all that left was charged to an "
            f"epsilon, as whoever was in the table then took part: {named}."
        )


@output.tables
def compare_model(
    name: str = SITE,
    run: str = RUN,
    repeat: int = REPEAT,
) -> output.Shown:
    """Hold a run's last model against the site's own model, without noise, on the site's test rows.

    It is for runs of which no exact figure leaves. Nothing of it leaves either, and nothing is charged.
    """
    from flfed.deployment.operator.exact_comparison import ARMS, exact_comparison
    from flfed.records.statistics.own_models import family_in_words
    from flfed.records.statistics.verdict import (
        ARM_NAMES,
        describe_verdict,
        interval,
        metric_name,
        number,
        sentence_case,
    )
    from flfed.rows.data import site_discovery as sites

    done = exact_comparison(SiteFolder(name), sites.load(name), run, repeat)
    yield done.as_json()
    comparison = done.comparison
    lines = []
    for metric, of in comparison.arms.items():
        figures = [of[arm] for arm in ARMS]
        cells = [f"{number(figure.value)} ({interval(figure.low, figure.high)})" for figure in figures]
        lines.append([metric_name(metric), *cells])
    headers = ["with 95 % CI", *(ARM_NAMES[arm] for arm in ARMS)]
    output.as_table(headers, lines, f"{done.study.name} ({done.run}) at {name}: {comparison.holdout_rows} test rows")
    first = next(iter(comparison.arms))
    code, sentence = done.verdict(first)
    yield f"{sentence_case(describe_verdict(code, first))}. {sentence}"
    family = family_in_words({comparison.own_family or "same": 1}, 1)
    own = f" ({family})" if family else ""
    yield (
        f"The site's own model{own} was trained here on {comparison.training_rows} rows "
        "without noise, and so is the adjusted one. These figures are exact: who is told them learns of single rows "
        "what no epsilon bounds."
    )
    yield (
        f"The rows are those frozen at {done.frozen}. If that was after the run, rows may have changed sides since, "
        "and the run's model may have been trained on some of these test rows: its figures are too good then."
    )
