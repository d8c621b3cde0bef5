"""Faults and refusals of a run, by kind, and other doubts about its figures.

These are columns that leak, test rows that were read, and sums that are missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from sqlalchemy import literal, select

from flfed.records import objects
from flfed.records.objects import run_of
from flfed.records.reports.recorded_run import Recorded
from flfed.records.section import group
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import TRAINED_ON, released
from flfed.records.statistics.verdict import ABSENT, sentence_case
from flfed.records.store.entries import EventEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Event, RunSite
from flfed.refusals import Refusal, read
from flfed.words import render, sentences, shorten

NO_UPDATE = {
    "no-comparison", "holdout-sums", "left", "left-because", "away", "away-because", "not-there",
    "ledger-unwritable", "ledger-lost", "ledger-other-study",
}  # fmt: skip
"""Codes of faults that concern no update."""
_DIGITS = r"\d+(?:,\d{3})*(?:\.\d+)?(?![\w:/-])"
NUMBER = re.compile(rf"(?<![\w.,:/-]){_DIGITS}(?: to {_DIGITS})?")
"""A number by itself, or a range of numbers: in no name, date or time."""
FEW_SITES = 5
"""Most sites that are all named."""
SITES_NAMED = 3
"""Sites named of more than `FEW_SITES`; the others are counted."""
WHY = "why"
"""Name of the reason among the facts of a refusal or fault."""

Fault = dict[str, Any]
Group = tuple[str, str, str]
"""Event, site and reason."""
Faults = dict[Group, list[int | None]]
"""Rounds of each group."""


@dataclass(frozen=True)
class FaultRow:
    """A fault of a report; `repeats` is the number of repeats that refused the site."""

    round: int | None = None
    site: str | None = None
    reason: str = ""
    repeats: int = 1


def faults_of(reader: RunReader, recorded: Recorded) -> list[Fault]:
    """Return a run's faults and refused sites.

    Under repeats the reason names the repeat. A series has each refusal once, with its number of `repeats`.
    """
    several = len(recorded.runs) > 1
    result: list[Fault] = []
    fault_by_place: dict[tuple[str, str], Fault] = {}
    repeats: Counter[tuple[str, str]] = Counter()
    for run, sites in recorded.runs:
        prefix = f"repeat {run.repeat + 1}: " if several else ""
        events = reader.events([run.run])
        for event in events:
            if event.kind == "fault":
                result.append({"round": event.round, "site": event.site, "reason": prefix + event.reason})
        refused = _refused(sites, events)
        for site, why in refused:
            if (site, why) not in fault_by_place:
                fault: Fault = {"round": None, "site": site, "reason": str(Refusal("refused", why=why))}
                fault_by_place[site, why] = fault
                result.append(fault)
        repeats.update(refused)
    if several:
        for place, fault in fault_by_place.items():
            fault |= {"repeats": repeats[place]}
    return result


def _refused(sites: Mapping[str, SiteEntry], events: Sequence[EventEntry]) -> list[tuple[str, str]]:
    """Return the sites that a repeat refused, each once with the reason, by its sites and its events."""
    refused = {site: entry.reason for site, entry in sites.items() if entry.status == "refused"}
    for event in events:
        if event.kind == "refused" and event.site is not None:
            refused.setdefault(event.site, event.reason)
    return list(refused.items())


def fault_kind(fault: Fault | FaultRow) -> Literal["update rejected", "site refused", "fault"]:
    """Return the kind of one line of `faults`, by its reason: not every fault of a round is an update.

    Examples
    --------
    >>> fault_kind({"round": 3, "reason": "not finite"}), fault_kind({"round": None, "reason": "refused: policy"})
    ('update rejected', 'site refused')
    >>> fault_kind({"round": 41, "reason": "repeat 2: no comparison: no answer before the deadline"})
    'fault'
    """
    row = objects.read(FaultRow, fault)
    refusal = read(row.reason)
    codes = set() if refusal is None else set(refusal.path.split("/"))
    if row.round is None and "refused" in codes:
        return "site refused"
    if row.round is None or codes & NO_UPDATE:
        return "fault"
    return "update rejected"


def missing_sites(report: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the sites that took no part, by name, with the reason and the number of repeats.

    Examples
    --------
    >>> missing_sites({"faults": [{"round": None, "site": "basel", "reason": "repeat 2: not there: no answer"},
    ...                           {"round": 3, "site": "bern", "reason": "not finite"}]})
    {'basel': ('no answer', 1)}
    """
    reasons: dict[str, str] = {}
    repeats: Counter[str] = Counter()
    # A fault that is recorded twice counts once.
    for fault in dict.fromkeys(objects.read_all(FaultRow, run_of(report).faults)):
        if fault.round is not None or not fault.site:
            continue
        why = read(fault.reason)
        if why is not None and why.code == "in-repeat":
            why = read(why.facts[WHY])
        if why is not None and why.code in ("refused", "not-there"):
            reasons[fault.site] = why.facts[WHY].rstrip(".")
            repeats[fault.site] += fault.repeats
    of_run = run_of(report).repeats
    return {site: (reasons[site], min(repeats[site], of_run)) for site in sorted(reasons)}


def taking_part_in_words(report: Mapping[str, Any]) -> list[str]:
    """Return how many sites took part, where others did in no repeat, in one sentence or none.

    Examples
    --------
    >>> taking_part_in_words({"sites": {"bern": {}}, "faults": [
    ...     {"round": None, "site": "x", "reason": "refused: policy"}]})
    ['1 of 2 sites took part.']
    """
    run = run_of(report)
    absent = [site for site, (_, count) in missing_sites(report).items() if count >= run.repeats]
    shown = len({*run.sites} - {*absent})
    if not absent or not shown:
        return []
    return [f"{shown} of {shown + len(absent)} sites took part."]


def missing_in_words(report: Mapping[str, Any]) -> list[str]:
    """Return the sites that took no part, in sentences; a few are named of many.

    Examples
    --------
    >>> missing_in_words({"sites": {"bern": {}}, "faults": [{"round": None, "site": "x", "reason": "refused: policy"}]})
    ['1 of 2 sites took no part: x (policy).']
    >>> missing_in_words({"sites": {"bern": {}, "basel": {}}, "repeats": 10, "faults": [
    ...     {"round": None, "site": "basel", "reason": "repeat 2: not there: no answer"}]})
    ['basel took no part in 1 of 10 repeats (no answer).']
    """
    run = run_of(report)
    absent = missing_sites(report)
    counts = {site: count for site, (_, count) in absent.items()}
    reasons = {site: reason for site, (reason, _) in absent.items()}
    lines = absence_in_words(len({*run.sites, *absent}), counts, run.repeats, reasons)
    return [f"{line}." for line in lines]


def absence_in_words(
    sites: int, absent: Mapping[str, int], repeats: int, reasons: Mapping[str, str] | None = None
) -> list[str]:
    """Return who took no part, in all repeats or some, without full stops.

    Parameters
    ----------
    sites : int
        Sites that received a request.
    absent : mapping of site to int
        Number of repeats in which each took no part.
    repeats : int
    reasons : mapping of site to str, optional

    Examples
    --------
    >>> absence_in_words(4, {"basel": 2, "bern": 10}, 10)
    ['1 of 4 sites took no part: bern', 'basel took no part in 2 of 10 repeats']
    >>> absence_in_words(9, dict(zip("abcdefg", range(1, 8))), 10)
    ['g, f, e and 4 more took no part in 1 to 7 of 10 repeats']
    """
    always = [site for site, count in absent.items() if count >= repeats]
    lines = []
    if always:
        listed = some([named + why for named, why in _groups_with_why(always, reasons or {})])
        lines.append(f"{len(always)} of {sites} sites took no part: {listed}")
    for count, names in _sometimes_absent(absent, repeats).items():
        groups = _groups_with_why(names, reasons or {})
        shown = groups[:SITES_NAMED]
        if len(groups) > SITES_NAMED:
            shown.append((f"{len(groups) - SITES_NAMED} more", ""))
        for named, why in shown:
            lines.append(f"{named} took no part in {count} of {repeats} repeats{why}")
    return lines


def _sometimes_absent(absent: Mapping[str, int], repeats: int) -> dict[str, list[str]]:
    """Return the sites that were absent in some repeats by how many; all together where these would be many."""
    by_count = group((count, site) for site, count in absent.items() if count < repeats)
    counts = sorted(by_count, reverse=True)
    names_by_count = {str(count): by_count[count] for count in counts}
    if len(counts) > SITES_NAMED:
        return {f"{counts[-1]} to {counts[0]}": list(chain.from_iterable(names_by_count.values()))}
    return names_by_count


def _groups_with_why(names: Sequence[str], reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return sites with the reason in brackets; many sites of alike reasons are together."""
    if not reasons:
        return [(some(names), "")]
    # Reasons that differ in numbers only become one, with a range.
    alike = group((NUMBER.sub("0", reasons[site]), site) for site in names)
    groups = []
    for together in alike.values():
        parts = [together] if len(together) > FEW_SITES else [[site] for site in together]
        for part in parts:
            why = _in_range([reasons[site] for site in part])
            groups.append((some(part), f" ({why})".removesuffix(" ()")))
    return groups


@dataclass
class SiteAttendance:
    """Names of a run's sites, and of those that took no part."""

    sites: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def missing_of(reader: RunReader, runs: Sequence[str]) -> dict[str, SiteAttendance]:
    """Return the sites of each run by name, and those that were missing."""
    sites = select(RunSite.run_id, RunSite.site, RunSite.status).where(RunSite.run_id.in_(runs))
    gone = select(Event.run_id, Event.site, literal("refused")).where(
        Event.run_id.in_(runs), Event.round.is_(None), Event.kind == "fault", Event.code.startswith("not-there")
    )
    sites_by_run = {run: SiteAttendance() for run in runs}
    # A site that never enrolled may have an event and no row.
    rows = [*reader.fetch(sites), *reader.fetch(gone)]
    for run, site, status in rows:
        if site:
            sites_by_run[run].sites.add(site)
        if site and status == "refused":
            sites_by_run[run].missing.add(site)
    return sites_by_run


def refused_sites(report: Mapping[str, Any]) -> list[str]:
    """Return the names of sites refused in any repeat."""
    rows = objects.read_all(FaultRow, run_of(report).faults)
    return sorted({row.site or "all" for row in rows if fault_kind(row) == "site refused"})


def some(names: Sequence[str]) -> str:
    """Return a list of names; of more than `FEW_SITES` the first three, and the number of others.

    Examples
    --------
    >>> some(["a", "b"]), some([f"site-{number}" for number in range(186)])
    ('a, b', 'site-0, site-1, site-2 and 183 more')
    """
    if len(names) <= FEW_SITES:
        return ", ".join(names)
    return shorten(names, SITES_NAMED)


def sites_together(groups: Faults) -> Faults:
    """Return groups, merged where more than `FEW_SITES` sites have reasons that differ in numbers only.

    Parameters
    ----------
    groups : mapping of (what, site, reason) to rounds

    Examples
    --------
    >>> list(sites_together({("refused", f"s{n}", f"has {n} rows"): [None] for n in range(1, 8)}))
    [('refused', '7 sites (s1, s2, s3 and 4 more)', 'has 1 to 7 rows')]
    """
    alike = group(((what, NUMBER.sub("0", reason)), (site, reason)) for what, site, reason in groups)
    merged_groups: Faults = {}
    for (what, site, reason), rounds in groups.items():
        members = alike[what, NUMBER.sub("0", reason)]
        sites = sorted({name for name, _ in members if name})
        # Where the sites are few, each keeps its own numbers.
        if len(sites) > FEW_SITES:
            site = f"{len(sites)} sites ({some(sites)})"
            reason = _in_range([each for _, each in members])
        merged_groups.setdefault((what, site, reason), []).extend(rounds)
    return merged_groups


def folded(groups: Faults) -> Faults:
    """Return groups, merged where reasons of a site differ in numbers only.

    Parameters
    ----------
    groups : mapping of (what, site, reason) to rounds

    Examples
    --------
    >>> folded({("odd", "a", "norm is 3.3 times it"): [19], ("odd", "a", "norm is 12.0 times it"): [40]})
    {('odd', 'a', 'norm is 3.3 to 12.0 times it'): [19, 40]}
    """
    alike = group(((what, site, NUMBER.sub("0", reason)), reason) for what, site, reason in groups)
    merged: Faults = {}
    for (what, site, _), reasons in alike.items():
        rounds = (groups[what, site, reason] for reason in reasons)
        merged[what, site, _in_range(reasons)] = list(chain.from_iterable(rounds))
    return merged


def _in_range(reasons: Sequence[str]) -> str:
    """Return reasons that differ in numbers as one, with the range of each number.

    Examples
    --------
    >>> _in_range(["norm is 3.3 times it", "norm is 3.0 to 12.0 times it"])
    'norm is 3.0 to 12.0 times it'
    """
    columns = zip(*(NUMBER.findall(reason) for reason in reasons), strict=True)

    def format_range(_: re.Match[str]) -> str:
        texts = " to ".join(next(columns)).split(" to ")
        values = sorted(texts, key=lambda text: float(text.replace(",", "")))
        return " to ".join(dict.fromkeys((values[0], values[-1])))

    return NUMBER.sub(format_range, reasons[0])


STATUS_WORDS = sentences("names", "statuses")
COLUMNS_NAMED = 3
"""Columns named in a notice."""


def set_aside_lines(report: Report, events: Sequence[EventEntry]) -> list[dict[str, str]]:
    """Return what was rejected, refused or flagged, a line for alike events.

    The lines are of one site or of all, as `report` and `events` are.
    """
    groups: Faults = {}
    for row in objects.read_all(FaultRow, run_of(report).faults):
        # Repeat and kind at the start of a reason would separate equal reasons.
        reason = re.sub(r"^(repeat \d+: )?(refused: )?", "", row.reason)
        groups.setdefault((fault_kind(row), row.site or "all", reason), []).append(row.round)
    words = {"flag": "accepted, but odd", "note": "note"}
    for event in events:
        if event.kind in words:
            groups.setdefault((words[event.kind], event.site or "all", event.reason), []).append(event.round)
    return group_lines(report, groups)


def group_lines(report: Report, groups: Faults) -> list[dict[str, str]]:
    """Return a line for alike events of a run, with their rounds."""
    run = run_of(report)
    # Events after the last round belong to the comparison.
    last = run.rounds if run.status == "completed" else None
    return [_group_line(group, rounds, run.repeats, last) for group, rounds in sites_together(folded(groups)).items()]


READ_FOR = {
    "compare": " the comparison, after the last round.",
    "audit": " `flfed audit`, which needs rows that the model was not trained on.",
}
"""Why test rows were read, by the reason in the record."""


def holdout_in_words(events: Sequence[EventEntry]) -> list[str]:
    """Return why and how often test rows were read, a sentence for each reason in the record."""
    opened = [event for event in events if event.kind == "holdout-opened"]
    reasons = {event.reason for event in opened}
    lines = []
    # A reason that this version does not know is shown as recorded.
    for reason in [*(purpose for purpose in READ_FOR if purpose in reasons), *sorted(reasons - READ_FOR.keys())]:
        readings = [event for event in opened if event.reason == reason]
        lines.append(f"Test rows were read {_how_often(readings)} for{READ_FOR.get(reason, f': {reason}.')}")
    return lines


def _how_often(events: Sequence[EventEntry]) -> str:
    """Return how often something was done, by its events in each run and at each site."""
    most = max(Counter((event.run, event.site) for event in events).values())
    often = "once" if most == 1 else f"{most} times"
    runs = len({event.run for event in events})
    if runs == 1:
        return often
    return f"{often} in each of {runs} repeats" if most == 1 else f"{often} in one of {runs} repeats"


def _group_line(group: Group, rounds: Sequence[int | None], repeats: int, last: int | None) -> dict[str, str]:
    """Return one line for equal events at a site, with all their rounds.

    `last` is the last round of a completed run.
    """
    what, site, why = group
    round_numbers = sorted({number for number in rounds if number is not None})
    if not round_numbers:
        when = "at enrolment" if what == "site refused" else ""
        return {"What": what, "Site": site, "When": when, "Why": why}
    listed = ", ".join(map(str, round_numbers))
    if len(round_numbers) > 5:
        listed = f"{round_numbers[0]} to {round_numbers[-1]}, {len(round_numbers)} times"
    when = "rounds" if len(round_numbers) > 1 else "round"
    when += f" {listed}"
    if last is not None and round_numbers[0] > last:
        when = "after the last round"
    if repeats > 1:
        when = f"{when} ({len(rounds)} times in {repeats} repeats)"
    return {"What": what, "Site": site, "When": when, "Why": why}


def site_facts(site: SiteEntry, report: Report) -> dict[str, Any]:
    """Return the record of a site, for a table; `report` is the report of its run."""
    status = ": ".join(filter(None, (site.status, site.reason)))
    rows = ABSENT if site.rows is None else site.rows
    heading = "Rows" if released(report).is_exact else TRAINED_ON.capitalize()
    facts = {"Site": site.site, "Title": site.title, "Status": status, heading: rows}
    return facts | {"Disclosure": "not disclosed" if site.status == "refused" else site.disclosure}


def no_sums_in_words(report: Report, events: Sequence[EventEntry]) -> str:
    """Return why a run has no sums over rows to show."""
    if not released(report).is_exact:
        return render("report.noised.sums")
    run = run_of(report)
    if run.is_of_parties:
        return "Each party keeps its columns to itself: no sums over them are recorded."
    if report["privacy"]["secure-sums"]["kind"] != "off":
        return "Under secure aggregation sums over rows are of all sites together: no site's own are recorded."
    if run.status == "running":
        when = "before the first round and after the last one; the table comes with the comparison."
        return f"The sites send their sums {when}"
    for event in events:
        if event.code == "no-table-1":
            return f"{sentence_case(event.reason)}."
    listed = "Its releases are listed under Privacy."
    return f"The table is recorded with the comparison, and this run ended without one. {listed}"


def can_resume(status: str, study: str, reason: str) -> bool:
    """Return whether a run is resumed: not a point of a sweep, which is run again, nor one that would end as before."""
    refusal = read(reason)
    ends_again = refusal is not None and refusal.code == "diverged"
    return status in ("interrupted", "stopped", "failed") and not study.endswith("-sweep") and not ends_again


def unfinished_in_words(report: Report) -> list[str]:
    """Return the basis of the figures of a run that is not completed, and how to resume it."""
    run = run_of(report)
    if run.status == "completed":
        return []
    lines = []
    if run.global_:
        lines.append(f"Status: {run.status}{run.why}; figures are of the comparison so far.")
    if can_resume(run.status, run.study, run.reason):
        lines.append(f"Resume it: flfed study resume {run.run}")
    return lines


@dataclass(frozen=True)
class _Leaks:
    """Object "leaks" of a run."""

    found: Any = ()
    warnings: Any = ()


@dataclass(frozen=True)
class _Leak:
    column: str = ""


def leaking_columns(payload: Mapping[str, Any] | None) -> list[str]:
    """Return the columns that may reveal the outcome, each once, by the object "leaks" of a run."""
    leaks = objects.read(_Leaks, payload)
    return list(dict.fromkeys(str(leak.column) for leak in objects.read_all(_Leak, leaks.found)))


def leak_lines(events: Sequence[EventEntry], payload: Mapping[str, Any] | None) -> list[str]:
    """Return the finding on each column that may reveal the outcome.

    Parameters
    ----------
    events : sequence of EventEntry
    payload : dict or None
        The object "leaks" of a run.
    """
    reasons = list(dict.fromkeys(event.reason for event in events if event.kind == "leak"))
    # Without an event of a leak the summary has the warnings.
    return reasons or [str(warning) for warning in objects.read(_Leaks, payload).warnings]


def leaks_in_words(payload: Mapping[str, Any] | None) -> list[str]:
    """Return a warning of columns that may reveal the outcome, or nothing.

    Parameters
    ----------
    payload : dict or None
        The object "leaks" of a run.

    Examples
    --------
    >>> leaks_in_words({"found": [{"column": "slope"}]})[0].partition(",")[0]
    'Before you rely on these figures: a column may reveal the outcome (slope)'
    """
    columns = leaking_columns(payload)
    if not columns:
        return []
    count = "a column" if len(columns) == 1 else f"{len(columns)} columns"
    return [
        f"Before you rely on these figures: {count} may reveal the outcome ({name_columns(columns)}), which would make "
        "every model look too good. Run the study with features that leave them out, to see their effect."
    ]


def name_columns(columns: Sequence[str]) -> str:
    """Return the names of the first columns, and whether there are others."""
    listed = ", ".join(columns[:COLUMNS_NAMED])
    return listed if len(columns) <= COLUMNS_NAMED else f"{listed} and others"
