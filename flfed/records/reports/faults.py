"""Faults and refusals of a run, and their kinds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import select

from flfed.records.reports.recorded_run import Recorded
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Event, RunSite
from flfed.refusals import Refusal, read

NO_UPDATE = {
    "no-comparison", "holdout-sums", "left", "left-because", "away", "away-because", "not-there", "ledger-unsigned",
    "ledger-without-receipt", "ledger-unwritable", "ledger-lost", "ledger-other-study",
}  # fmt: skip
"""Codes of faults that concern no update."""
NUMBER = re.compile(r"(?<![\w.,:/-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w:/-])")
"""A number that stands by itself: in no name, date or time."""
FEW_SITES, SITES_NAMED = 5, 3
"""Of more sites than the first are three named, and the others counted."""

Fault = dict[str, Any]


def faults_of(reader: RunReader, recorded: Recorded) -> list[Fault]:
    """Return a run's faults and refused sites.

    Under repeats the reason names the repeat.

    Of a series a refusal is told once, with in how many `repeats` it was so.
    """
    several = len(recorded.runs) > 1
    result: list[Fault] = []
    told: dict[tuple[str, str], Fault] = {}
    for run, sites in recorded.runs:
        prefix = f"repeat {run.repeat + 1}: " if several else ""
        # A refusal may stand with the site, with an event, or with both; it is told once.
        refused = {site: entry.reason for site, entry in sites.items() if entry.status == "refused"}
        for event in reader.events([run.run]):
            if event.kind == "fault":
                result.append({"round": event.round, "site": event.site, "reason": prefix + event.reason})
            elif event.kind == "refused" and event.site is not None:
                refused.setdefault(event.site, event.reason)
        for site, reason in refused.items():
            if (site, reason) not in told:
                told[site, reason] = {"round": None, "site": site, "reason": str(Refusal("refused", why=reason))}
                result.append(told[site, reason])
            if several:
                told[site, reason]["repeats"] = told[site, reason].get("repeats", 0) + 1
    return result


def fault_kind(fault: Fault) -> Literal["update rejected", "site refused", "fault"]:
    """Return the kind of one line of `faults`.

    It follows from what the reason says: not every fault of a round is an update.

    Examples
    --------
    >>> fault_kind({"round": 3, "reason": "not finite"}), fault_kind({"round": None, "reason": "refused: policy"})
    ('update rejected', 'site refused')
    >>> fault_kind({"round": 41, "reason": "repeat 2: no comparison: no answer before the deadline"})
    'fault'
    """
    found = read(fault["reason"])
    codes = set() if found is None else set(found.path.split("/"))
    if fault["round"] is None:
        return "site refused" if "refused" in codes else "fault"
    return "fault" if codes & NO_UPDATE else "update rejected"


def missing_sites(found: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the sites that took no part, by name.

    Each has the reason, and the number of repeats in which it was so.

    Examples
    --------
    >>> missing_sites({"faults": [{"round": None, "site": "basel", "reason": "repeat 2: not there: no answer"},
    ...                           {"round": 3, "site": "bern", "reason": "not finite"}]})
    {'basel': ('no answer', 1)}
    """
    reasons: dict[str, str] = {}
    repeats: Counter[str] = Counter()
    # A fault that is written down twice counts once.
    for site, reason, count in dict.fromkeys(
        (fault["site"], fault["reason"], fault.get("repeats", 1)) for fault in found["faults"] if fault["round"] is None
    ):
        why = read(reason)
        if why is not None and why.code == "in-repeat":
            why = read(why.facts["why"])
        if site and why is not None and why.code in ("refused", "not-there"):
            reasons[site] = why.facts["why"].rstrip(".")
            repeats[site] += count
    return {site: (reasons[site], min(repeats[site], found.get("repeats", 1))) for site in sorted(reasons)}


def taking_part_in_words(found: Mapping[str, Any]) -> list[str]:
    """Return how many sites took part, where others did in no repeat; one sentence or none.

    Examples
    --------
    >>> taking_part_in_words({"sites": {"bern": {}}, "faults": [
    ...     {"round": None, "site": "x", "reason": "refused: policy"}]})
    ['1 of 2 sites took part.']
    """
    repeats = found.get("repeats", 1)
    absent = [site for site, (_, count) in missing_sites(found).items() if count >= repeats]
    shown = len({*found["sites"]} - {*absent})
    took_part = shown + (found.get("sums-only") or {}).get("sites", 0)
    return [f"{took_part} of {took_part + len(absent)} sites took part."] if absent and shown else []


def missing_in_words(found: Mapping[str, Any]) -> list[str]:
    """Return which sites took no part, in sentences.

    Of many sites a few are named. There is no sentence where all took part.

    Examples
    --------
    >>> missing_in_words({"sites": {"bern": {}}, "faults": [{"round": None, "site": "x", "reason": "refused: policy"}]})
    ['1 of 2 sites took no part: x (policy).']
    >>> missing_in_words({"sites": {"bern": {}, "basel": {}}, "repeats": 10, "faults": [
    ...     {"round": None, "site": "basel", "reason": "repeat 2: not there: no answer"}]})
    ['basel took no part in 1 of 10 repeats (no answer).']
    """
    absent = missing_sites(found)
    counts = {site: count for site, (_, count) in absent.items()}
    reasons = {site: reason for site, (reason, _) in absent.items()}
    sentences = absence_in_words(len({*found["sites"], *absent}), counts, found.get("repeats", 1), reasons)
    return [f"{sentence}." for sentence in sentences]


def absence_in_words(
    sites: int, absent: Mapping[str, int], repeats: int, reasons: Mapping[str, str] | None = None
) -> list[str]:
    """Return who took no part, in all repeats or some.

    The sentences have no full stop.

    Parameters
    ----------
    sites : int
        How many were asked.
    absent : mapping of site to int
        In how many repeats each took no part.
    repeats : int
    reasons : mapping of site to str, optional

    Examples
    --------
    >>> absence_in_words(4, {"basel": 2, "bern": 10}, 10)
    ['1 of 4 sites took no part: bern', 'basel took no part in 2 of 10 repeats']
    """
    # Sites that were absent equally often share a sentence.
    by_count: dict[int, list[str]] = {}
    for site, count in absent.items():
        by_count.setdefault(count, []).append(site)
    said = []
    for count, names in sorted(by_count.items(), reverse=True):
        # Reasons that differ in numbers only are told as one, with a range.
        alike: dict[str, list[str]] = {}
        for site in names:
            alike.setdefault(NUMBER.sub("0", (reasons or {}).get(site, "")), []).append(site)
        whole, told = count >= repeats, []
        for together in alike.values():
            groups = [together] if len(together) > FEW_SITES or not reasons else [[site] for site in together]
            for group in groups:
                why = _in_range([reasons[site] for site in group]) if reasons else ""
                told.append((some(group), why))
        # Sites that were absent throughout are told with how many sites there are, the others with how often.
        if whole:
            listed = some([f"{named} ({why})" if why else named for named, why in told])
            said.append(f"{len(names)} of {sites} sites took no part: {listed}")
        else:
            part = f"took no part in {count} of {repeats} repeats"
            said += [f"{named} {part}" + (f" ({why})" if why else "") for named, why in told[:SITES_NAMED]]
            if (more := len(told) - SITES_NAMED) > 0:
                said.append(f"{more} more {part}")
    return said


def missing_of(reader: RunReader, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how many sites each run asked, and who was missing.

    By run, `sites` is how many were asked by name, and `missing` those of them that took no part.
    """
    sites = select(RunSite.run_id, RunSite.site, RunSite.status).where(RunSite.run_id.in_(runs))
    gone = select(Event.run_id, Event.site).where(
        Event.run_id.in_(runs), Event.round.is_(None), Event.kind == "fault", Event.code.startswith("not-there")
    )
    asked: dict[str, set[str]] = {run: set() for run in runs}
    absent: dict[str, set[str]] = {run: set() for run in runs}
    for row in reader.rows(sites, site=RunSite.site):
        asked[row["run_id"]].add(row["site"])
        if row["status"] == "refused":
            absent[row["run_id"]].add(row["site"])
    # A site that never enrolled may have no row of its own: its event tells of it.
    for row in reader.rows(gone, site=Event.site):
        if row["site"]:
            asked[row["run_id"]].add(row["site"])
            absent[row["run_id"]].add(row["site"])
    return {run: {"sites": len(asked[run]), "missing": sorted(absent[run])} for run in runs}


def updates_set_aside(found: Mapping[str, Any]) -> int:
    """Return how many updates were set aside in all repeats."""
    return sum(fault_kind(fault) == "update rejected" for fault in found["faults"])


def refused_sites(found: Mapping[str, Any]) -> list[str]:
    """Return the names of sites refused in any repeat."""
    return sorted({fault["site"] or "all" for fault in found["faults"] if fault_kind(fault) == "site refused"})


def some(names: Sequence[str]) -> str:
    """Return a list of names, shortened where it is long.

    Of more than `FEW_SITES` names it has the first three, and how many more there are.

    Examples
    --------
    >>> some(["a", "b"]), some([f"site-{number}" for number in range(186)])
    ('a, b', 'site-0, site-1, site-2 and 183 more')
    """
    if len(names) <= FEW_SITES:
        return ", ".join(names)
    return f"{', '.join(names[:SITES_NAMED])} and {len(names) - SITES_NAMED} more"


def sites_together(
    groups: Mapping[tuple[str, str, str], list[int | None]],
) -> dict[tuple[str, str, str], list[int | None]]:
    """Return groups with alike reasons of many sites merged.

    Alike are reasons that differ in numbers only. Groups of more than `FEW_SITES` sites are put together.

    Parameters
    ----------
    groups : mapping of (what, site, reason) to rounds

    Examples
    --------
    >>> list(sites_together({("refused", f"s{n}", f"has {n} rows"): [None] for n in range(1, 8)}))
    [('refused', '7 sites (s1, s2, s3 and 4 more)', 'has 1 to 7 rows')]
    """
    alike: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for what, site, reason in groups:
        alike.setdefault((what, NUMBER.sub("0", reason)), []).append((site, reason))
    found: dict[tuple[str, str, str], list[int | None]] = {}
    for (what, site, reason), rounds in groups.items():
        members = alike[what, NUMBER.sub("0", reason)]
        sites = sorted({name for name, _ in members if name})
        # Where the sites are few, each keeps its own numbers.
        if len(sites) > FEW_SITES:
            site, reason = f"{len(sites)} sites ({some(sites)})", _in_range([reason for _, reason in members])
        found.setdefault((what, site, reason), []).extend(rounds)
    return found


def folded(groups: Mapping[tuple[str, str, str], list[int | None]]) -> dict[tuple[str, str, str], list[int | None]]:
    """Return groups with alike reasons of a site merged.

    Alike are reasons that differ in their numbers only.

    Parameters
    ----------
    groups : mapping of (what, site, reason) to rounds

    Examples
    --------
    >>> folded({("odd", "a", "norm is 3.3 times it"): [19], ("odd", "a", "norm is 12.0 times it"): [40]})
    {('odd', 'a', 'norm is 3.3 to 12.0 times it'): [19, 40]}
    """
    alike: dict[tuple[str, str, str], list[tuple[str, list[int | None]]]] = {}
    for (what, site, reason), rounds in groups.items():
        alike.setdefault((what, site, NUMBER.sub("0", reason)), []).append((reason, rounds))
    return {
        (what, site, _in_range([reason for reason, _ in found])): [number for _, rounds in found for number in rounds]
        for (what, site, _), found in alike.items()
    }


def _in_range(reasons: Sequence[str]) -> str:
    """Return reasons that differ in numbers as one.

    It has the range of each number.
    """
    columns = zip(*(NUMBER.findall(reason) for reason in reasons), strict=True)
    ranges = iter([sorted(set(column), key=lambda text: float(text.replace(",", ""))) for column in columns])

    def said(_: re.Match[str]) -> str:
        values = next(ranges)
        return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"

    return NUMBER.sub(said, reasons[0])
