"""Events of a run in words: what was set aside, and what test rows were read for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flfed.records.reports.faults import fault_kind, folded, sites_together
from flfed.records.statistics import Report
from flfed.records.statistics.listed.noised_scores import NO_SUMS, TRAINED_ON, is_covered
from flfed.records.statistics.verdict import ABSENT
from flfed.records.store.entries import EventEntry, SiteEntry

STATUS_WORDS = {
    "running": "running",
    "interrupted": "interrupted: its program ended",
    "completed": "completed",
    "stopped": "stopped early",
    "failed": "failed",
}
HOLDOUT_READ = {
    "compare": "{often} for the comparison, after the last round",
    "audit": "{often} for `flfed audit`, which needs rows that the model was not trained on",
}
"""For what test rows were read, by the reason in the record."""
NOT_TOLD = "not told"
"""Of a site that refused: its policy is its own."""
SUMS_ONLY = "Your site's policy shares sums over all sites only: nothing of it alone is in the record."
NOT_YET = "The sites give their sums before the first round and after the last one; it comes with the comparison."
ENDED = "It is written down with the comparison, and this run ended without one. What left stands under Privacy."
COLUMNS_NAMED = 3
"""Columns named in a notice."""


def set_aside_lines(found: Report, events: Sequence[EventEntry]) -> list[dict[str, str]]:
    """Return what was set aside, refused or flagged, a line for alike events.

    It is of one site or of all, as `found` and `events` are.
    """
    groups: dict[tuple[str, str, str], list[int | None]] = {}
    for fault in found["faults"]:
        # The start of a reason tells of repeat and kind, which would part equal reasons.
        reason = re.sub(r"^(repeat \d+: )?(refused: )?", "", fault["reason"])
        groups.setdefault((fault_kind(fault), fault["site"] or "all", reason), []).append(fault["round"])
    words = {"flag": "accepted, but odd", "note": "note"}
    for event in events:
        if event.kind in words:
            groups.setdefault((words[event.kind], event.site or "all", event.reason), []).append(event.round)
    # Events after the last round belong to the comparison.
    last = found["rounds"] if found["status"] == "completed" else None
    return [
        _group_line(group, rounds, found["repeats"], last) for group, rounds in sites_together(folded(groups)).items()
    ]


def holdout_in_words(events: Sequence[EventEntry]) -> list[str]:
    """Return what test rows were read for.

    There is a sentence for each reason in the record, with how often they were read.
    """
    opened = [event for event in events if event.kind == "holdout-opened"]
    reasons = {event.reason for event in opened}
    lines = []
    # A reason that this version does not know is told as it stands in the record.
    for reason in [*(known for known in HOLDOUT_READ if known in reasons), *sorted(reasons - HOLDOUT_READ.keys())]:
        found = [event for event in opened if event.reason == reason]
        often = _how_often(Counter((event.run, event.site) for event in found), len({event.run for event in found}))
        said = HOLDOUT_READ.get(reason, "{often} for: {reason}").format(often=often, reason=reason)
        lines.append(f"Test rows were read {said}.")
    return lines


def _how_often(by_place: Mapping[Any, int], runs: int) -> str:
    """Return how often something was done, in words.

    `by_place` counts it for each run and site.
    """
    most = max(by_place.values())
    if most > 1:
        return f"{most} times" + (f" in one of {runs} repeats" if runs > 1 else "")
    return "once" if runs == 1 else f"once in each of {runs} repeats"


def _group_line(
    group: tuple[str, str, str], rounds: Sequence[int | None], repeats: int, last: int | None
) -> dict[str, str]:
    """Return one line for equal events at a site.

    They are of all rounds in which the same happened there. `last` is the last round of a completed run.
    """
    known = sorted({number for number in rounds if number is not None})
    when = "rounds" if len(known) > 1 else "round"
    listed = ", ".join(map(str, known)) if len(known) <= 5 else f"{known[0]} to {known[-1]}, {len(known)} times"
    said = f"{when} {listed}"
    if known and last is not None and known[0] > last:
        said = "after the last round"
    if repeats > 1 and known:
        said += f" ({len(rounds)} times in {repeats} repeats)"
    what, site, why = group
    start = "at enrolment" if what == "site refused" else ""
    return {"What": what, "Site": site, "When": said if known else start, "Why": why}


def site_facts(site: SiteEntry, found: Report) -> dict[str, Any]:
    """Return what the record has of a site, for a table; `found` is the report of its run."""
    rows = TRAINED_ON.capitalize() if is_covered(found) else "Rows"
    return {
        "Site": site.site,
        "Title": site.title,
        "Status": site.status + (f": {site.reason}" if site.reason else ""),
        rows: ABSENT if site.rows is None else site.rows,
        "Disclosure": NOT_TOLD if site.status == "refused" else site.disclosure,
        "Figures shared": NOT_TOLD if site.status == "refused" else site.shared_as,
    }


def no_sums_in_words(found: Report, events: Sequence[EventEntry]) -> str:
    """Return why a run has no sums over rows to show."""
    if is_covered(found):
        return NO_SUMS
    if found["status"] == "running":
        return NOT_YET
    said = next((event.reason for event in events if event.code == "no-table-1"), "")
    return f"{said[0].upper()}{said[1:]}." if said else ENDED


def unfinished_in_words(found: Report, *, only: str | None = None) -> list[str]:
    """Return what to know of a run that is not completed.

    It is what its figures are of, and how to go on with it, which the people of `only` one site cannot.
    """
    if found["status"] == "completed":
        return []
    why = f" ({found['reason'].rstrip('.')})" if found["reason"] else ""
    lines = [f"Status: {found['status']}{why}; figures are of what was compared so far."] if found["global"] else []
    # A point of a sweep is not gone on with: the sweep is run again.
    if only is None and found["status"] != "running" and not found["study"].endswith("-sweep"):
        lines.append(f"Go on with it: flfed study resume {found['run']}")
    return lines


def leak_lines(events: Sequence[EventEntry], payload: Mapping[str, Any] | None) -> list[str]:
    """Return what was found of each column that may give the target away.

    Parameters
    ----------
    events : sequence of EventEntry
    payload : dict or None
        The object "leaks" of a run.
    """
    reasons = list(dict.fromkeys(event.reason for event in events if event.kind == "leak"))
    # Where no event tells of a leak, the warnings of the summary do.
    return reasons or [str(warning) for warning in (payload or {}).get("warnings", ())]


def leaks_in_words(payload: Mapping[str, Any] | None) -> list[str]:
    """Return a warning of columns that may leak the target, if any may.

    Parameters
    ----------
    payload : dict or None
        The object "leaks" of a run.

    Examples
    --------
    >>> leaks_in_words({"found": [{"column": "slope"}]})[0].partition(",")[0]
    'Before you believe these figures: a column may give the answer away (slope)'
    """
    columns = list(dict.fromkeys(str(one["column"]) for one in (payload or {}).get("found", ())))
    if not columns:
        return []
    what = "a column" if len(columns) == 1 else f"{len(columns)} columns"
    listed = ", ".join(columns[:COLUMNS_NAMED]) + (" and others" if len(columns) > COLUMNS_NAMED else "")
    return [
        f"Before you believe these figures: {what} may give the answer away ({listed}), which would make every model "
        "look too good. Run the study with features that leave it out, to see what rests on it."
    ]
