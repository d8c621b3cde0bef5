"""Content of a site's ledger for the pages of its app."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from flfed.deployment.site_state.ledger_restart import blocking_refusal
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import REFUSED, RESTARTED, Line, Total, bytes_of, round_of, study_of
from flfed.refusals import read_of_site
from flfed.updates.messages.kinds import COMPARE

_COMPARED = COMPARE.rpartition(".")[2]
MOST_LINES = 200
"""Number of last lines of a study, or of a day, on the page."""
NEED_DECISION = {
    "not-approved", "study-changed", "approved-other-coordinator", "approved-other-key", "sums-not-approved",
    "rows-changed", "schema-changed-after-approval",
}  # fmt: skip
"""Codes of refusals that a person of the site can end by a decision."""


@dataclass(frozen=True)
class LineSeen:
    """One line of a ledger, for people."""

    n: int
    at: str
    kind: str
    study: str
    run: str
    round: int
    bytes: int
    reason: str


@dataclass
class LedgerSummary:
    """Content of a ledger.

    Attributes
    ----------
    lines, bytes : int
    sums : dict of (day, study, kind) to Total
        Empty where a line was changed, as sums over a part would mislead.
    last : dict of (day, study) to deque of LineSeen
        The last ones of each; "" stands for any.
    since, until : str
    restarted : str
        When, by whom and why the ledger was restarted; "" where it never was.
    problems : list of str
    blocked : str
        Why nothing leaves: the ledger is lost, or later than the clock; "" where messages leave.
    suppressed_runs : set of str
        Runs whose comparison left without figures, as its model was one too many.
    undecided : dict of str to list of LineSeen
        By a study's SHA-256 the refusals for want of a valid approval, since it last got a reply; the ledger has no
        name of a study that was never let in.
    """

    lines: int = 0
    bytes: int = 0
    sums: dict[tuple[str, str, str], Total] = field(default_factory=dict)
    last: dict[tuple[str, str], deque[LineSeen]] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    restarted: str = ""
    problems: list[str] = field(default_factory=list)
    blocked: str = ""
    suppressed_runs: set[str] = field(default_factory=set)
    undecided: dict[str, list[LineSeen]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count one line more."""
        day = line.at[:10]
        study = study_of(line)
        if line.kind == RESTARTED:
            self.restarted = f"on {day} by {line.facts.get('by')}: {line.facts.get('why')}"
        self.since = self.since or line.at
        self.lines += 1
        self.until = line.at
        self.bytes += bytes_of(line)
        self.sums.setdefault((day, study, line.kind), Total()).add(line)
        run, reason = (str(line.facts.get(key) or "") for key in ("run", "reason"))
        seen = LineSeen(line.n, line.at, line.kind, study, run, round_of(line), bytes_of(line), reason)
        self._note_decision(seen, str(line.facts.get("study-sha256") or ""))
        # Each line counts under any day, any study, both, and its own.
        for key in {("", ""), (day, ""), ("", study), (day, study)}:
            self.last.setdefault(key, deque(maxlen=MOST_LINES)).append(seen)

    def _note_decision(self, seen: LineSeen, sha256: str) -> None:
        if seen.kind != REFUSED:
            self.undecided.pop(sha256, None)
            return
        refusal = read_of_site(seen.reason)
        if refusal is not None and refusal.code in NEED_DECISION:
            self.undecided.setdefault(sha256, []).append(seen)


def read_ledger(folder: SiteFolder) -> LedgerSummary:
    """Return the content of a site's ledger, whose lines are all checked; raises FlfedError where it cannot be read."""
    ledger = ledger_of(folder)
    summary = LedgerSummary(problems=ledger.open_to_others())
    try:
        for line in ledger.lines():
            summary.add(line)
        summary.blocked = blocking_refusal(folder) or ""
    except FlfedError as error:
        summary.problems.append(str(error))
        summary.sums = {}
        summary.last = {}
    return summary
