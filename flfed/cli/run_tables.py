"""Tables and sentences that `flfed run` and `flfed audit` print for people; their imports take a while."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.records.objects import read_all
from flfed.records.reports import audit_headlines as audits
from flfed.records.reports import faults, narrative
from flfed.records.reports.calibration import calibration_of_sites
from flfed.records.reports.privacy import epsilon_in_words, power_of_ten, private_of
from flfed.records.reports.privacy_tables import charged_lines, describe_outcome_disclosure
from flfed.records.reports.recorded_run import INCUMBENT
from flfed.records.reports.report import metrics_of, primary_of, purpose_in_words
from flfed.records.reports.site_verdict import best_arm, best_gain, site_verdict
from flfed.records.reports.size_classes import KEY
from flfed.records.section import Section
from flfed.records.statistics import Report, verdict
from flfed.records.statistics.importances import largest_gains
from flfed.records.statistics.left_out import KEY as LEFT_OUT
from flfed.records.statistics.left_out import VALIDATION
from flfed.records.statistics.noised_scores import over_all_rows, released
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.store.reader import RunReader
from flfed.words import counted, render, sentences

if TYPE_CHECKING:
    from flfed.experiments.audit import Audited

WORST = 4
"""Most sites of each attack that are printed."""
SHORTER = {"shared model": "shared", "adjusted to site": "adjusted"}
"""Shorter headers of the table of sites."""
SHORT = {"global": "shared", "local-only": "site model", "personalised": "adjusted"}
"""Shorter names of the models at a site."""
MANY, FEW = 12, 8
"""With more sites than the first number, the second number is shown: a screen of 40 lines in all."""


def print_report(report: Report, *, whole: bool = False) -> None:
    """Print a run's comparison and findings, for people; `whole`: each site, and all that has no guarantee."""
    # Events are not part of the report.
    with RunReader.open() as reader:
        runs = [run.run for run in reader.runs_of(report["run"])]
        events = reader.events(runs)
        purpose = purpose_in_words(reader.series(report["run"]).study_text)
    if purpose:
        output.say(f"{report['study']}: {purpose}")
    headers, rows, below = narrative.comparison_rows(report)
    metric = primary_of(report)
    if metric is not None and VALIDATION not in report:
        first = narrative.doubts(report, metric)
        below = [line for line in below if line not in first]
        joining = [narrative.joining_in_words(report, metric), narrative.tally(report, metric)]
        output.say_all([*first, *joining, narrative.describe_mean_beside_sites(report, metric)])
        _print_sites(report, headers, rows, every=whole or len(report["sites"]) <= MANY)
        _print_gains(report, metric)
        _print_section(calibration_of_sites(report))
    print_left_out(report)
    _print_validation(report)
    if "statistics" in report:
        below = _print_statistic(report, whole=whole)
    output.say_all([*below, *faults.unfinished_in_words(report)])
    if "gains" in report:
        output.say(largest_gains(report["gains"], None if whole else FEW))
    _print_privacy(report, whole=whole)
    # Sites that took no part are listed above, with the reason.
    above = () if whole else faults.missing_sites(report)
    output.say_some(_events_in_words(report, events, above=above), whole=whole, most=FEW)


def conclude(report: Report) -> str:
    """Return the mean gain of a comparison, else why nothing can be concluded."""
    metric = primary_of(report) or ""
    reasons = narrative.untold_in_words(report, metric)
    unclear = render("commands.demo.inconclusive", reason=" ".join(reasons))
    return narrative.joining_in_words(report, metric) or unclear


def _print_statistic(report: Report, *, whole: bool) -> list[str]:
    """Print the tables of a statistic, those of single sites where `whole`, and return its sentences."""
    more = render("commands.show.lines", run=report["run"])
    # Only the first table has the run's name above it.
    title = f"{report['study']} ({report['run']})"
    hidden = False
    for table in statistic_tables(report["statistics"]):
        if table.of_each_site and not whole:
            hidden = True
            continue
        rows = [list(line.values()) for line in table.lines]
        heading = ": ".join(filter(None, (title, table.title)))
        output.as_table(list(table.lines[0]), rows, heading, spare=table.spare, more=more, whole=whole)
        title = ""
    first, *others = statistic_in_words(report["statistics"], report["repeats"])
    lines = [first, *faults.missing_in_words(report), *others]
    if hidden:
        lines.append(render("commands.show.single", run=report["run"]))
    return lines


def _events_in_words(report: Report, events: Sequence[Any], *, above: Collection[str]) -> list[str]:
    """Return the events that people should know, alike ones of several rounds or sites together."""
    words = sentences("names", "events")
    groups: faults.Faults = {}
    for event in events:
        kind: str = event.kind
        if kind == "fault":
            kind = faults.fault_kind({"round": event.round, "reason": event.reason})
        stands_above = kind in ("refused", "fault") and event.round is None and event.site in above
        if kind in words and not stands_above:
            groups.setdefault((words[kind], event.site or "", event.reason), []).append(event.round)
    return [": ".join(filter(None, line.values())) for line in faults.group_lines(report, groups)]


def _print_sites(report: Report, headers: Sequence[str], rows: Sequence[Sequence[str]], *, every: bool) -> None:
    """Print a line for each site, and for each figure over all sites."""
    metric = metrics_of(report)[0]
    many = len(report["sites"])
    title = f"{report['study']} ({report['run']})"
    more = render("commands.show.sites", run=report["run"])
    if not released(report).is_exact:
        output.as_table(headers, rows[:many], title, more=more, whole=every, most=FEW)
        output.as_table(*over_all_rows(report))
        return
    gain = headers.index(narrative.GAIN + narrative.interval_name(report))
    names = [SHORTER.get(header, header) for header in headers]
    names[gain] = f"gain ({narrative.interval_name(report)})"
    by_name = {row[0]: list(row) for row in rows[:many]}
    shown = list(by_name) if every else rank_sites(report, metric)[:FEW]
    adjusted = _put_gains(report, metric, by_name, gain)
    order = dict.fromkeys([*shown, *by_name])
    spare = ("adjusted", "test rows", "site model")
    output.as_table(names, [by_name[name] for name in order], title, spare=spare, more=more, whole=every, most=FEW)
    if adjusted & set(shown):
        output.say(render("commands.show.adjusted", mark=narrative.MARK.strip()))
    if len(rows) > many:
        _print_references(rows[many:], names[:gain], verdict.metric_name(metric))


def _print_gains(report: Report, metric: str) -> None:
    """Print the gains over all sites of a size class, and on the score in use, where the study has them."""
    if not report.get(KEY) and INCUMBENT not in report:
        return
    from flfed.records.sections.gains import by_size, score_in_use  # with charts, and so pandas

    _print_section(by_size(report, metric))
    _print_section(score_in_use(report))


def print_left_out(report: Report) -> None:
    """Print the model at each site that was left out, where the run has such figures."""
    if not report.get(LEFT_OUT):
        return
    from flfed.records.sections.unseen_sites import unseen_sites  # with charts, and so pandas

    _print_section(unseen_sites(report))


def _print_validation(report: Report) -> None:
    """Print a validated model at each site."""
    if not report.get(VALIDATION):
        return
    from flfed.records.sections.unseen_sites import validated_sites  # with charts, and so pandas

    _print_section(validated_sites(report))


def _print_section(section: Section | None) -> None:
    """Print the table of a section and its findings."""
    if section is None:
        return
    table = section.tables[0]
    rows = [list(line.values()) for line in table.lines]
    output.as_table(list(table.lines[0]), rows, section.title, spare=table.spare)
    output.say_all([*section.says, *section.note])


def _put_gains(report: Report, metric: str, rows: dict[str, list[str]], place: int) -> set[str]:
    """Put the gain of each site into its row; return the sites where the adjusted model is better."""
    least = report["verdict-rule"]["minimum-gain"][metric]
    adjusted = set()
    for name, site in report["sites"].items():
        best = best_arm(site, metric)
        if best is None:
            continue
        rows[name][place] = verdict.gain_in_brackets(best[1], least)
        # A mark, as there is no room for words.
        if best[0] == "personalised":
            rows[name][place] += narrative.MARK
            adjusted.add(name)
    return adjusted


def _print_references(rows: Sequence[Sequence[str]], names: Sequence[str], metric: str) -> None:
    """Print a line for each figure over all sites, with the columns of models only."""
    columns = [place for place in range(1, len(names)) if any(row[place] for row in rows)]
    figures = [names[place] for place in columns]
    if len(figures) == 1:
        figures = [metric]
    lines = []
    for row in rows:
        lines.append([row[0], *(row[place] for place in columns)])
    output.as_table(["over all sites", *figures], lines)


def rank_sites(report: Report, metric: str) -> list[str]:
    """Return the sites, those with a clear verdict first, then by size of gain or loss."""
    order = (verdict.PAYS, verdict.DO_NOT_USE, verdict.NO_CLEAR_GAIN, verdict.INCONCLUSIVE)

    def key(name: str) -> tuple[int, float]:
        site = report["sites"][name]
        best = best_gain(site, metric) or verdict.Difference(None)
        return order.index(site_verdict(site, metric)[0]), -abs(best.value or 0.0)

    return sorted(report["sites"], key=key)


def _print_privacy(report: Report, *, whole: bool = False) -> None:
    """Print the privacy guarantee of a run, its use of the budget, audits, and the releases it does not cover.

    The last are listed where `whole`, else counted.
    """
    private = report["privacy"]
    ended = report["status"] in ("completed", "stopped") and report["rounds"] > 0
    audit = read_all(audits.AuditFigure, report["audit"])
    output.say_all(audits.in_words(private, audit, attackable=ended))
    output.say_all(describe_outcome_disclosure(report.get("revealed-outcomes") or {}))
    output.charges(charged_lines(private))
    uncharged = private_of(private).uncharged
    if not uncharged:
        # The guarantee covers all: there is nothing to warn of.
        return
    if not whole:
        typer.echo(render("commands.privacy.uncovered", count=counted(len(uncharged), "item"), run=report["run"]))
        return
    guarantee = "none" if private["epsilon"] is None else "partial"
    typer.echo(render(f"commands.uncovered.{guarantee}"))
    for sentence in uncharged:
        typer.echo(f"  - {sentence}")


def print_comparison(comparison: dict[str, Any], *, whole: bool) -> None:
    """Print two runs side by side, for people."""
    a = comparison["a"]
    b = comparison["b"]
    keys = ("run", "study", "status", "engine", "rounds", "repeats")
    rows = [_cells([key, a[key], b[key]]) for key in keys]
    # Settings keep their digits: rounded, a delta would read as another one.
    rows += [_cells(change.values(), verdict.format_as_written) for change in comparison["settings"]]
    output.as_table(["", "A", "B"], rows)
    words = {True: "equal", False: "different"}
    hashes = comparison["hashes"].items()
    output.say(", ".join(f"{name} {words[both['equal']]}" for name, both in hashes if both["equal"] in words))
    output.say_all(comparison["warnings"])
    _print_compared_figures(comparison, whole=whole)
    apart = comparison["arrays-max-difference"]
    # Runs without a round, such as those of an analysis, have no arrays to compare.
    if not a["rounds"] and not b["rounds"]:
        typer.echo(render("commands.compare.untrained"))
    elif apart is None:
        output.say(render("commands.compare.unknown", reason=comparison["arrays-reason"]))
    else:
        typer.echo(render("commands.compare.apart", most=apart))


def _print_compared_figures(comparison: dict[str, Any], *, whole: bool) -> None:
    """Print the figures of two runs over all sites, and the primary metric of each site."""
    primary = comparison["primary"].values()
    headers = ["metric", "A", "B", "B - A"]
    paired = comparison["paired"]
    lines = []
    for arm in ("global", "sites-mean", "pooled"):
        metrics = comparison[arm] or {}
        is_global = arm == "global"
        only = metrics if whole or is_global else primary
        lines += _metric_lines([verdict.ARM_NAMES[arm]], metrics, only, paired if is_global else {})
    if lines:
        output.as_table(["over all sites", "metric", "A", "B", "B - A (95 % CI)"], lines)
    for reason in {pair["reason"]: None for pair in paired.values() if pair["reason"]}:
        output.say(render("commands.compare.unpaired", reason=reason))
    lines = []
    for site, arms in comparison["sites"].items():
        for arm, metrics in arms.items():
            lines += _metric_lines([site, SHORT[arm]], metrics or {}, primary, {})
    if lines:
        headers = ["site", "model", *headers]
        output.as_table(headers, lines, spare=("metric",), more="lines: --all", whole=whole, most=12)


def _metric_lines(
    of: list[str], metrics: dict[str, Any], only: Iterable[str], paired: Mapping[str, Any]
) -> list[list[str]]:
    """Return a line for each wanted metric of two runs, which begins with `of`; `paired` has intervals."""
    lines = []
    for metric in [metric for metric in metrics if metric in {*only}]:
        a, b, difference = (metrics[metric][key] for key in ("a", "b", "difference"))
        apart = "–" if difference is None else verdict.number(difference, signed=True)
        pair = paired.get(metric)
        if pair and pair["value"] is not None:
            apart = verdict.gain_in_brackets(verdict.Difference(pair["value"], pair["low"], pair["high"]))
        lines.append([*of, verdict.metric_name(metric), *_cells([a, b]), apart])
    return lines


def _cells(values: Iterable[object], form: Callable[[float], str] = verdict.number) -> list[str]:
    """Return values of two runs as cells, numbers as `form` writes them."""
    cells = []
    for value in values:
        if value is None:
            value = "–"
        cells.append(form(value) if isinstance(value, float) else str(value))
    return cells


def print_audit(outcome: Audited, *, whole: bool) -> None:
    """Print the result of each attack and its meaning, for people; all figures where `whole`."""
    promise = outcome.promise
    run = f"{outcome.study} ({outcome.run})"
    if promise is None:
        output.say(render("commands.audit.unprotected", run=run))
    else:
        bound = {"epsilon": epsilon_in_words(promise.epsilon), "delta": power_of_ten(promise.delta)}
        facts = {"run": run, "unit": promise.unit, "mechanism": promise.mechanism}
        output.say(render("commands.audit.guarantee", **facts, **bound))
    # Each repeat has its own model.
    if outcome.repeats > 1:
        output.say(render("commands.audit.repeat", repeat=outcome.repeat + 1, repeats=outcome.repeats))
    rows = read_all(audits.AuditFigure, [row.as_object() for row in outcome.findings])
    figures = shown = audits.ordered(rows)
    if not whole:
        shown = audits.headlines(rows)
        # The meaning of each figure at the worst site, or why there is no figure.
        figures = [lines[0] for lines in audits.by_figure(shown)] + [line for line in shown if line.value is None]
    if shown:
        _print_attacks(shown, whole=whole)
    output.say_all([*_sentences(figures, rows), *audits.not_promised(rows)])
    if len(shown) < len(rows):
        typer.echo(render("commands.audit.more", count=counted(len(rows) - len(shown), "more figure")))
    for site, reason in outcome.faults.items():
        typer.echo(f"Not attacked: {site}: {reason}", err=True)


def _print_attacks(shown: audits.Audit, *, whole: bool) -> None:
    """Print a line for each figure; with many sites, those with the strongest results."""
    printed_rows = shown
    if not whole and len(shown) > output.SCREEN:
        printed_rows = list(chain.from_iterable(rows[:WORST] for rows in audits.by_figure(shown)))
    lines = []
    names = {}
    for row in printed_rows:
        figure = audits.figure_name(row.metric)
        names[f"{row.attack}: {figure}."] = row.attack
        lines.append([row.attack, str(row.site), figure, audits.reached(row), audits.limit_in_words(row), row.verdict])
    headers = ["attack", "site", "figure", "reached (95 %)", "promised", "verdict"]
    spare = ["promised", "figure"]
    if len(set(names.values())) == 1:
        spare.append("attack")
    if "figure" in output.as_table(headers, lines, spare=spare):
        output.say_all(names)
    if len(printed_rows) < len(shown):
        typer.echo(render("commands.output.more", count=len(shown) - len(printed_rows), what="lines: --all"))
    output.say(render("commands.audit.verdict"))


def _sentences(figures: audits.Audit, rows: audits.Audit) -> list[str]:
    """Return the meaning of figures, each sentence once, with its sites unless all attacked sites have it."""
    sentences = []
    # A sentence about all attacked sites names none of them.
    for attack, says in dict.fromkeys((row.attack, row.says) for row in figures):
        tried = {row.site for row in rows if row.attack == attack}
        sites = dict.fromkeys(str(row.site) for row in rows if (row.attack, row.says) == (attack, says))
        where = "" if len(sites) == len(tried) else f", {faults.some(list(sites))}"
        sentences.append(f"{attack}{where}: {says}")
    return sentences
