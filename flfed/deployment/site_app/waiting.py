"""What waits at a site, for whom and since when: by its ledger, its decisions, and its processes' signs of life."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.deployment.processes.serve import NODE_SILENCE
from flfed.deployment.site_app.ledger_reader import LedgerSummary
from flfed.deployment.site_state.approval import PAUSED
from flfed.paths import SiteFolder
from flfed.records.dashboard.sections import bullets
from flfed.records.ledger_line import moment_of
from flfed.records.text import escape, moment
from flfed.words import counted, render

UNITS = {"day": 86_400, "hour": 3600, "minute": 60}
"""Seconds of each unit."""


@dataclass(frozen=True)
class Wait:
    """Matter that waits for somebody.

    Attributes
    ----------
    is_here : bool
        Whether it waits for a person of this site; else for the coordinator.
    matter : str
    remedy : str
        The command that ends it, "" where nothing can be done here.
    since : str
        ISO time in UTC, "" where not known.
    study : str
        Study that it is about, "" of none.
    """

    is_here: bool
    matter: str
    remedy: str = ""
    since: str = ""
    study: str = ""

    def describe(self, now: float) -> str:
        """Return the matter with its time, for a time in seconds since 1970."""
        if not self.since:
            return self.matter
        seconds = now - datetime.fromisoformat(self.since).timestamp()
        return render("site_app.waiting.since", matter=self.matter, age=describe_age(seconds), at=moment(self.since))


def show_waits(waits: Iterable[Wait]) -> None:
    """Show each matter that waits: for whom, since when, and the command that ends it."""
    now = time.time()
    lines = []
    for wait in waits:
        who = render("site_app.waiting.here" if wait.is_here else "site_app.waiting.coordinator")
        remedy = f" `{wait.remedy}`" if wait.remedy else ""
        lines.append(f"**{who}:** {escape(wait.describe(now))}{remedy}")
    st.markdown(bullets(lines))


def describe_age(seconds: float) -> str:
    """Return a time that has passed, in its largest unit.

    Examples
    --------
    >>> describe_age(30), describe_age(3700), describe_age(3 * 86_400)
    ('under a minute', '1 hour', '3 days')
    """
    for unit, length in UNITS.items():
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return "under a minute"


def list_waits(
    folder: SiteFolder, facts: dict[str, Any], summary: LedgerSummary, *, serves: bool, now: float | None = None
) -> list[Wait]:
    """Return what waits, for this site first, and the longest wait first.

    Parameters
    ----------
    folder : SiteFolder
    facts : dict
        From `flfed site status --json`.
    summary : LedgerSummary
        Content of the ledger.
    serves : bool
        Whether the site's node runs.
    now : float, optional
        Seconds since 1970.
    """
    now = time.time() if now is None else now
    waits = [*_undecided(folder, facts, summary), *_stopped(folder, facts, serves=serves)]
    waits += [*_coordinator(folder, facts, now, serves=serves), *_unrequested(facts, summary)]
    return sorted(waits, key=lambda wait: (not wait.is_here, wait.since or "9"))


def _undecided(folder: SiteFolder, facts: dict[str, Any], summary: LedgerSummary) -> Iterator[Wait]:
    """Give the studies that were refused for want of a valid approval, and not decided on since."""
    decisions = {one["study-sha256"]: one for one in facts["studies"]}
    command = f"flfed site approve STUDY --site {folder.site}"
    for sha256, refusals in summary.undecided.items():
        name = render("site_app.waiting.unnamed", sha256=sha256[:12])
        decided = ""
        if sha256 in decisions:
            name = render("site_app.waiting.named", study=decisions[sha256]["study"])
            decided = moment_of(decisions[sha256]["at"])
        later = [seen for seen in refusals if seen.at > decided]
        if later:
            counts = {"refusals": counted(len(later), "refusal"), "reason": later[-1].reason}
            matter = render("site_app.waiting.approval", study=name, **counts)
            yield Wait(True, matter, command, later[0].at, name)


def _stopped(folder: SiteFolder, facts: dict[str, Any], *, serves: bool) -> Iterator[Wait]:
    """Give what keeps the site from replying until a person of it does something."""
    if facts["paused"]:
        command = f"flfed site pause {folder.site} --resume"
        yield Wait(True, render("site_app.waiting.paused"), command, time_of(folder.gate / PAUSED))
    if facts["joined"] and not serves:
        command = f"flfed site serve {folder.site}"
        yield Wait(True, render("site_app.waiting.stopped"), command, time_of(folder.gate_pulse))


def _coordinator(folder: SiteFolder, facts: dict[str, Any], now: float, *, serves: bool) -> Iterator[Wait]:
    """Give what this site needs of the coordinator itself: a kit, an admission, a server that replies."""
    if not facts["joined"]:
        yield Wait(False, render("site_app.waiting.kit"))
        return
    sent = time_of(folder.admission)
    replied = time_of(folder.node_pulse)
    if sent and not replied:
        yield Wait(False, render("site_app.waiting.admission"), since=sent)
    elif serves and replied and now - datetime.fromisoformat(replied).timestamp() > NODE_SILENCE:
        yield Wait(False, render("site_app.waiting.silent"), since=replied)


def _unrequested(facts: dict[str, Any], summary: LedgerSummary) -> Iterator[Wait]:
    """Give the studies with a valid approval that were not requested since."""
    for one in facts["studies"]:
        approved = moment_of(one["at"])
        last = summary.last.get(("", one["study"]))
        if not one["reason"] and not (last and last[-1].at > approved):
            matter = render("site_app.waiting.run", study=one["study"])
            yield Wait(False, matter, since=approved, study=one["study"])


def time_of(path: Path) -> str:
    """Return the time of a file, "" where there is none, or it has none or is closed to this user."""
    try:
        seconds = path.lstat().st_mtime
    except OSError:
        return ""
    # A busy process sets the time of its file to 0.
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else ""
