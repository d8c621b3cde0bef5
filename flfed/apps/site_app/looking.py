"""What the pages of a site read from its folder, each read once while nothing there changes; nothing is written."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from flfed.apps.budget import budget_as_json
from flfed.apps.gate.approval import approvals
from flfed.apps.gate.folder import SiteFolder
from flfed.apps.gate.lost import loss
from flfed.apps.gate.receipts import ledger_of, read_receipts
from flfed.apps.gate.results import Result, results_of
from flfed.apps.gate.standing import status_of
from flfed.apps.gate.study_text import parsed
from flfed.apps.gate.terms import coordinator_of
from flfed.apps.gate.words import plain_words, shown
from flfed.apps.site_app.place import KEPT_SECONDS, Mark
from flfed.errors import FlfedError
from flfed.records.ledger import Ledger
from flfed.records.ledger_check import Inspection
from flfed.records.ledger_lines import RESTARTED, Line
from flfed.records.ledger_totals import Total, bytes_of, round_of, study_of
from flfed.rows import site as sites

LAST = 5
"""Lines that the page Status shows."""
KEPT_LINES = 200
"""Lines of a study, or of a day, to read one by one: the last ones."""


@dataclass(frozen=True)
class LineSeen:
    """One line of a ledger, as people read it."""

    n: int
    at: str
    kind: str
    study: str
    run: str
    round: int
    bytes: int
    reason: str


@dataclass
class Left:
    """What a ledger says, and whether it is as it was written.

    Attributes
    ----------
    lines, bytes : int
    sums : dict of (day, study, kind) to Total
        Empty where there are `problems`: sums over a part would mislead.
    last : dict of (day, study) to deque of LineSeen
        The last ones of each; "" stands for any.
    since, until, head : str
    restarted : str
        When, by whom and why the ledger was begun anew; "" where it never was.
    receipts, signed_lines, repairs : int
        Of the coordinator's signatures; up to which line they reach; torn lines that were set aside.
    problems : list of str
    torn : bool
    lost : str
        By what the ledger is known to be lost; "" where it is not.
    """

    lines: int = 0
    bytes: int = 0
    sums: dict[tuple[str, str, str], Total] = field(default_factory=dict)
    last: dict[tuple[str, str], deque[LineSeen]] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    head: str = ""
    restarted: str = ""
    receipts: int = 0
    signed_lines: int = 0
    repairs: int = 0
    problems: list[str] = field(default_factory=list)
    torn: bool = False
    lost: str = ""

    def add(self, line: Line) -> None:
        """Count one line more."""
        day, study = line.at[:10], study_of(line)
        if not self.lines:
            self.since = line.at
            if line.kind == RESTARTED:
                self.restarted = f"on {day} by {line.facts.get('by')}: {line.facts.get('why')}"
        self.lines, self.until, self.head = self.lines + 1, line.at, line.hash
        self.bytes += bytes_of(line)
        self.sums.setdefault((day, study, line.kind), Total()).add(line)
        run, reason = str(line.facts.get("run") or ""), str(line.facts.get("reason") or "")
        seen = LineSeen(line.n, line.at, line.kind, study, run, round_of(line), bytes_of(line), reason)
        for key in {("", ""), (day, ""), ("", study), (day, study)}:
            self.last.setdefault(key, deque(maxlen=KEPT_LINES)).append(seen)


@dataclass(frozen=True)
class Decided:
    """A decision about a study, with what it allows.

    Attributes
    ----------
    facts : dict
        As `flfed site status --json` has it, with the `reason` for which it would not be answered now.
    purpose : str
    words : list of str
        What `flfed site approve` would show of it now, a paragraph each; one sentence where it cannot be shown.
    text : str
        Of the study, word for word.
    """

    facts: dict[str, Any]
    purpose: str
    words: list[str]
    text: str


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def status(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site status --json`."""
    return status_of(SiteFolder(name), sites.load(name), last=LAST)


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def left(name: str, mark: Mark) -> Left:
    """Return what the ledger says; every line and the coordinator's receipts are checked, as `--verify` does."""
    folder = SiteFolder(name)
    ledger, found = ledger_of(folder), Left()
    receipts = read_receipts(folder)
    inspection = Inspection(tuple(receipts.all()))
    for line in inspection.look(ledger.raws()):
        found.add(line)
    found.problems = [*inspection.problems, *ledger.open_to_others(), *receipts.problems]
    found.receipts, found.repairs, found.torn = len(receipts.signed), inspection.repairs, ledger.is_torn()
    found.signed_lines = max((receipt.n for receipt in receipts.signed), default=0)
    found.lost = _lost(folder, ledger)
    if inspection.problems:
        found.sums, found.last = {}, {}
    return found


def _lost(folder: SiteFolder, ledger: Ledger) -> str:
    """Return by what a ledger is known to be lost; what is changed in it is told elsewhere."""
    try:
        return loss(folder, ledger)
    except FlfedError:
        return ""


def budget(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site budget --json`; added up once for each last line and each policy."""
    return _budget(name, ledger_of(SiteFolder(name)).head(), sites.load(name).policy.model_dump_json())


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner="Adding up what was spent ...")
def _budget(name: str, head: tuple[int, str], policy: str) -> dict[str, Any]:
    return budget_as_json(sites.load(name), ledger_of(SiteFolder(name)))


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def decided(name: str, mark: Mark) -> list[Decided]:
    """Return every decision of the site about a study, the latest first.

    Raises
    ------
    FlfedError
        If a file of them is damaged, or others can read or write it.
    """
    folder, site = SiteFolder(name), sites.load(name)
    texts = {one.study_sha256: one for one in approvals(folder)}
    found = []
    for facts in status(name, mark)["studies"]:
        one = texts[facts["study-sha256"]]
        try:
            study = parsed(one.text)
            purpose, words = shown(study.purpose), plain_words(study, site, one.co_sites, _coordinator(folder, one))
        except FlfedError as error:
            purpose, words = "", [f"It cannot be shown with this version of flfed, or this site, any more: {error}."]
        found.append(Decided(facts, purpose, words, one.text))
    return found


def _coordinator(folder: SiteFolder, one: Any) -> str:
    return str(one.coordinator or coordinator_of(folder))


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def results(name: str, mark: Mark) -> tuple[list[Result], list[str]]:
    """Return the site's own results, the latest first, and what cannot be read."""
    return results_of(SiteFolder(name))
