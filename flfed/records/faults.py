"""What was set aside in a run and who was refused, and what each line of that is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from flfed.records.reading import RunReader
from flfed.records.recorded import Recorded

NO_UPDATE = ("no comparison: ", "holdout rows: ", "did not come back ", "not there: ", "its ledger ")
"""So begin faults that concern no update."""

Fault = dict[str, Any]


def faults_of(reader: RunReader, recorded: Recorded) -> list[Fault]:
    """Return what was set aside and who was refused; under repeats the reason names the repeat."""
    several = len(recorded.runs) > 1
    result: list[Fault] = []
    told: set[tuple[str, str]] = set()
    for run, sites in recorded.runs:
        prefix = f"repeat {run.repeat + 1}: " if several else ""
        refused = {site: entry.reason for site, entry in sites.items() if entry.status == "refused"}
        for event in reader.events([run.run]):
            if event.kind == "fault":
                result.append({"round": event.round, "site": event.site, "reason": prefix + event.reason})
            elif event.kind == "refused" and event.site is not None:
                refused.setdefault(event.site, event.reason)
        for site, reason in refused.items():
            if (site, reason) not in told:
                told.add((site, reason))
                result.append({"round": None, "site": site, "reason": f"refused: {reason}"})
    return result


def fault_kind(fault: Fault) -> Literal["update set aside", "site refused", "fault"]:
    """Return what a line of a report's `faults` is, by what its reason says: not every fault of a round is an update.

    Examples
    --------
    >>> fault_kind({"round": 3, "reason": "not finite"}), fault_kind({"round": None, "reason": "refused: policy"})
    ('update set aside', 'site refused')
    >>> fault_kind({"round": 41, "reason": "repeat 2: no comparison: no answer before the deadline"})
    'fault'
    """
    reason = re.sub(r"^repeat \d+: ", "", fault["reason"])
    if fault["round"] is None:
        return "site refused" if reason.startswith("refused: ") else "fault"
    return "fault" if reason.startswith(NO_UPDATE) else "update set aside"


def updates_set_aside(found: Mapping[str, Any]) -> int:
    """Return how many updates were set aside, in all repeats."""
    return sum(fault_kind(fault) == "update set aside" for fault in found["faults"])


def refused_sites(found: Mapping[str, Any]) -> list[str]:
    """Return the sites that were refused, in any repeat, by name."""
    return sorted({fault["site"] or "all" for fault in found["faults"] if fault_kind(fault) == "site refused"})
