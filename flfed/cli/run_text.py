"""A run in words, for a terminal: its headline, its sites, what is known over all of them, what went wrong."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from flfed.cli import output

if TYPE_CHECKING:
    from flfed.records.store.entries import EventEntry

SHORTER = {
    "shared model": "shared",
    "adjusted to site": "adjusted",
}
"""Headers of the table of sites as a terminal has them."""
SHOW_ALL = "flfed run show {run} --all"
EACH_SITE = f"Figures of each site: {SHOW_ALL}; those of its groups: --json."
MANY, FEW = 12, 8
"""Of more sites than the first, so many are shown: with what stands around them that is a screen of 40 lines."""


def report_of(run: str) -> dict[str, Any]:
    """Return what the store has of a run."""
    from flfed.records.reports.report import report
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        return report(reader, run)


def object_of(run: str) -> dict[str, Any]:
    """Return the report of a run as `--json` prints it."""
    from flfed.records.reports.report import report
    from flfed.records.statistics.listed.in_words import statistic_object
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        found = report(reader, run)
        return found if reader.runs_of(run)[0].rounds_planned else statistic_object(found)


def print_report(found: dict[str, Any], *, whole: bool = False) -> None:
    """Print a run's comparison and its story, for people; `whole` with every site, and all that nobody promised."""
    from flfed.records.reports.catalogue import note_in_words, notes_of
    from flfed.records.reports.events import unfinished_in_words
    from flfed.records.reports.faults import missing_sites
    from flfed.records.reports.narrative import comparison_rows, doubts, joining_in_words, tally
    from flfed.records.reports.report import primary_of, purpose_of
    from flfed.records.statistics.importances import largest_gains
    from flfed.records.store.reader import RunReader

    # Events and notes are not in the report, which is of the figures.
    with RunReader.open() as reader:
        runs = [run.run for run in reader.runs_of(found["run"])]
        events, note = reader.events(runs), note_in_words(notes_of(reader, runs))
        purpose = purpose_of(reader.series(found["run"]).study_text)
    for line in (
        purpose and f"{found['study']}: {purpose}{'' if purpose[-1] in '.?!' else '.'}",
        note and f"Note: {note}",
    ):
        if line:
            output.say(line)
    headers, rows, below = comparison_rows(found)
    metric = primary_of(found)
    if metric is not None:
        first = doubts(found, metric)
        below = [line for line in below if line not in first]
        for line in (*first, joining_in_words(found, metric), tally(found, metric)):
            if line:
                output.say(line)
        _print_sites(found, headers, rows, every=whole or len(found["sites"]) <= MANY)
    for line in [*_of_statistic(found, below, whole=whole), *unfinished_in_words(found)]:
        output.say(line)
    if "gains" in found:
        output.say(largest_gains(found["gains"], None if whole else FEW))
    output.privacy(found, whole=whole)
    # Who took no part stands above, with the reason.
    lines = _events_in_words(events, above=() if whole else missing_sites(found))
    output.say_some(lines, whole=whole, most=FEW)


def _of_statistic(found: dict[str, Any], below: list[str], *, whole: bool) -> list[str]:
    """Print the tables of a study's statistic, and return its sentences; of another study, those `below` its table.

    Long tables of single sites are printed where `whole`.
    """
    from flfed.records.reports.faults import missing_in_words
    from flfed.records.statistics.listed.in_words import statistic_in_words, statistic_tables

    if "statistics" not in found:
        return below
    tables = statistic_tables(found["statistics"])
    more = f"lines: {SHOW_ALL}".format(**found)
    # The run's name stands above the first table alone.
    title = f"{found['study']} ({found['run']})"
    for table in tables:
        if whole or not table.of_each_site:
            headers, rows = list(table.lines[0]), [list(line.values()) for line in table.lines]
            said = ": ".join(filter(None, (title, table.title)))
            output.as_table(headers, rows, said, spare=table.spare, more=more, whole=whole)
            title = ""
    hidden = any(table.of_each_site for table in tables) and not whole
    first, *others = statistic_in_words(found["statistics"], found["repeats"])
    return [
        first,
        *missing_in_words(found),
        *others,
        *([EACH_SITE.format(**found)] if hidden else []),
    ]


def _events_in_words(events: Sequence[EventEntry], *, above: Collection[str]) -> list[str]:
    """Return the events that people should know of, alike ones of many sites together; the others stay in the store."""
    from flfed.records.reports.faults import fault_kind, sites_together

    words = {"refused": "Refused", "fault": "Fault", "flag": "Odd", "leak": "Possible leak", "note": "Note"}
    words["update rejected"] = "Rejected"
    kinds = [fault_kind({"round": e.round, "reason": e.reason}) if e.kind == "fault" else e.kind for e in events]
    told = {
        (words[kind], event.site or "", event.reason): list[int | None]()
        for kind, event in zip(kinds, events, strict=True)
        if kind in words and not (kind in ("refused", "fault") and event.round is None and event.site in above)
    }
    return [f"{word}: {site + ': ' if site else ''}{reason}" for word, site, reason in sites_together(told)]


def _print_sites(found: dict[str, Any], headers: Sequence[str], rows: Sequence[Sequence[str]], *, every: bool) -> None:
    """Print a line a site, and a line for each figure over all of them."""
    from flfed.records.reports.narrative import GAIN, MARK, interval_name
    from flfed.records.reports.report import metrics_of
    from flfed.records.reports.site_verdict import best_arm
    from flfed.records.statistics.listed.noised_scores import is_covered, over_all_rows
    from flfed.records.statistics.verdict import gain_in_brackets, metric_name

    metric, many, title = metrics_of(found)[0], len(found["sites"]), f"{found['study']} ({found['run']})"
    more = f"sites: flfed run show {found['run']} --all"
    if is_covered(found):
        output.as_table(headers, rows[:many], title, more=more, whole=every, most=FEW)
        output.as_table(*over_all_rows(found))
        return
    gain = headers.index(GAIN + interval_name(found))
    names = [SHORTER.get(header, header) for header in headers]
    names[gain] = f"gain ({interval_name(found)})"
    best = {name: best_arm(site, metric) for name, site in found["sites"].items()}
    shown = list(best) if every else telling(found, metric)[:FEW]
    by_name = {row[0]: list(row) for row in rows[:many]}
    # The model that is better at a site is told by a mark, for want of room.
    adjusted = {name for name, found_there in best.items() if found_there and found_there[0] == "personalised"}
    for name, there in best.items():
        if there is not None:
            told = gain_in_brackets(there[1], found["verdict-rule"]["worthwhile"][metric])
            by_name[name][gain] = told + (MARK if name in adjusted else "")
    order = [*shown, *(name for name in best if name not in set(shown))]
    spare = ("adjusted", "test rows", "site model")
    output.as_table(names, [by_name[name] for name in order], title, spare=spare, more=more, whole=every, most=FEW)
    if adjusted & set(shown):
        output.say(f"{MARK.strip()} of the shared model adjusted to the site, which is the better one there.")
    # A reference has a figure in the columns of the models alone.
    columns = [place for place in range(1, gain) if any(row[place] for row in rows[many:])]
    beyond = [[row[0], *(row[place] for place in columns)] for row in rows[many:]]
    figures = [metric_name(metric)] if len(columns) == 1 else [names[place] for place in columns]
    output.as_table(["over all sites", *figures], beyond)


def telling(found: dict[str, Any], metric: str) -> list[str]:
    """Return the sites, the most telling first: those with a clear verdict, then the largest gains and losses."""
    from flfed.records.reports.site_verdict import best_gain, site_verdict
    from flfed.records.statistics.verdict import CANNOT_BE_TOLD, DO_NOT_USE, NO_CLEAR_GAIN, PAYS

    order = (PAYS, DO_NOT_USE, NO_CLEAR_GAIN, CANNOT_BE_TOLD)

    def key(name: str) -> tuple[int, float]:
        best = best_gain(found["sites"][name], metric)
        size = best.value if best is not None and best.value is not None else 0.0
        return order.index(site_verdict(found["sites"][name], metric)[0]), -abs(size)

    return sorted(found["sites"], key=key)
