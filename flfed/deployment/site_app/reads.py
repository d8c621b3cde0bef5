"""Readers of a site's folder for its pages, its ledger among them.

Each is read once while nothing there changes; the ledger is checked whole once, and from then on only what came since.
Nothing is written, and a running node is not asked.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.deployment.gate.local_results import Result, results_of
from flfed.deployment.gate.study_policy import parsed
from flfed.deployment.operator.approval_summary import describe_decision
from flfed.deployment.operator.budget import budget_as_json
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_app.page_frame import CACHE_SECONDS, Mark, State, state_of
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.ledger_loss import ahead, loss, read_receipts
from flfed.deployment.site_state.trusted_files import coordinator_of
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger import Inspection, Ledger, LedgerError, LockedLedger, Receipt, ledger_of
from flfed.records.ledger_line import REPAIRED, RESTARTED, START, STAYED, Line, Total, bytes_of, round_of, study_of
from flfed.rows.data import site_discovery as sites
from flfed.updates.messages.kinds import COMPARE


@dataclass(frozen=True)
class Decided:
    """Decision about a study, with what it allows.

    Attributes
    ----------
    facts : dict
        As `flfed site status --json` has it, with the `reason` for which it would not be answered now.
    lines : list of str
        The ten lines that `flfed site approve` would show now; none where they cannot be shown.
    words : list of str
        Its details, a paragraph each; one sentence where they cannot be shown.
    text : str
        Of the study, word for word.
    """

    facts: dict[str, Any]
    lines: list[str]
    words: list[str]
    text: str


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def status(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site status --json`."""
    return status_of(SiteFolder(name), sites.load(name))


@st.cache_resource(max_entries=1, show_spinner=False)
def _reader(name: str, root: str) -> LedgerReader:
    return LedgerReader(SiteFolder(name))


def left(name: str, mark: Mark) -> Left:
    """Return the checked content of the ledger.

    Every line and the coordinator's receipts are checked, as `--verify` does.

    It is one for all who look, and not to be changed.
    """
    with st.spinner("Checking each line of the ledger ..."):
        return _reader(name, str(SiteFolder(name).root)).read(mark)


def budget(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site budget --json`.

    It is added up once for each state of the ledger and each policy.
    """
    return _budget(name, state_of(SiteFolder(name).ledger), sites.load(name).policy.model_dump_json())


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner="Adding up what was spent ...")
def _budget(name: str, ledger: State | None, policy: str) -> dict[str, Any]:
    return budget_as_json(sites.load(name), ledger_of(SiteFolder(name)))


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def decided(name: str, mark: Mark) -> list[Decided]:
    """Return the site's decisions, the latest first.

    Each is about a study.

    Raises
    ------
    FlfedError
        If a file of them is damaged, or others can read or write it.
    """
    folder = SiteFolder(name)
    texts = {one.study_sha256: one for one in approvals(folder)}
    decisions = []
    for facts in status(name, mark)["studies"]:
        one = texts[facts["study-sha256"]]
        # An older study may be unreadable to this version, and is listed all the same.
        try:
            study = parsed(one.text)
            coordinator = one.coordinator or coordinator_of(folder)
            lines, words = describe_decision(folder, study, sites.load(name), one, coordinator)
        except FlfedError as error:
            lines = []
            words = [f"It cannot be shown with this version of flfed, or this site, any more: {error}."]
        decisions.append(Decided(facts, lines, words, one.text))
    return decisions


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def results(name: str, mark: Mark) -> tuple[list[Result], list[str]]:
    """Return the site's own results, the latest first.

    What cannot be read goes with them.
    """
    return results_of(SiteFolder(name))


LISTENING = "00010000"
"""The flag of a socket that waits for others, as Linux lists it."""


def node_listens(folder: SiteFolder, sockets: Path = Path("/proc/net/unix")) -> bool:
    """Tell whether a node listens at the gate's socket.

    The system's list of sockets tells, and nobody is asked.

    Parameters
    ----------
    folder : SiteFolder
    sockets : Path
        The list; where there is none, as on other systems than Linux, nobody is known to listen.
    """
    try:
        lines = sockets.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # A path may contain blanks, and is the last of eight cells.
    rows = (line.split(maxsplit=7) for line in lines)
    return any(len(cells) == 8 and cells[3] == LISTENING and cells[7] == str(folder.socket) for cells in rows)


_COMPARED = COMPARE.rpartition(".")[2]
MOST_LINES = 200
"""Lines of a study, or of a day, to read one by one: the last ones."""
BLOCK = 1 << 20
"""Bytes read at once for a hash."""


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
class Left:
    """Content of a ledger, with its verification.

    It says whether the ledger is as it was written.

    Attributes
    ----------
    lines, bytes : int
    sums : dict of (day, study, kind) to Total
        Empty where lines are not as they were written: sums over a part would mislead.
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
    notes : int
        Lines of earlier versions whose time is before that of the line before them.
    suppressed_runs : set of str
        Runs whose comparison left without figures, since its model was one too many.
    ahead : str
        What the site says whose last line is later than its clock; "" where it is not.
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
    notes: int = 0
    ahead: str = ""
    suppressed_runs: set[str] = field(default_factory=set)

    def add(self, line: Line) -> None:
        """Count one line more."""
        day = line.at[:10]
        study = study_of(line)
        if not self.lines:
            self.since = line.at
            if line.kind == RESTARTED:
                self.restarted = f"on {day} by {line.facts.get('by')}: {line.facts.get('why')}"
        self.lines += 1
        self.until = line.at
        self.head = line.hash
        self.bytes += bytes_of(line)
        self.sums.setdefault((day, study, line.kind), Total()).add(line)
        run, reason = (str(line.facts.get(key) or "") for key in ("run", "reason"))
        if line.kind == _COMPARED:
            note = self.suppressed_runs.add if STAYED in line.facts else self.suppressed_runs.discard
            note(run)
        seen = LineSeen(line.n, line.at, line.kind, study, run, round_of(line), bytes_of(line), reason)
        # Each line counts under any day, any study, both, and its own.
        for key in {("", ""), (day, ""), ("", study), (day, study)}:
            self.last.setdefault(key, deque(maxlen=MOST_LINES)).append(seen)

    def copy(self) -> Left:
        """Return a copy to add lines to.

        Others read this one meanwhile.
        """
        sums = {key: replace(total) for key, total in self.sums.items()}
        last = {key: deque(seen, MOST_LINES) for key, seen in self.last.items()}
        return replace(self, sums=sums, last=last, suppressed_runs=set(self.suppressed_runs))


@dataclass(frozen=True)
class Checked:
    """Verified part of a ledger.

    Every line of it is as it was written.

    Attributes
    ----------
    left : Left
        What its lines say.
    size : int
        Bytes from the file's start.
    sha256 : str
        Of these bytes.
    agreed : frozenset of Receipt
        Those that the lines agree with.
    """

    left: Left
    size: int
    sha256: str
    agreed: frozenset[Receipt]


class LedgerReader:
    """Incremental reader of a site's ledger.

    It reads the whole at first, then only the lines that came since.

    Parameters
    ----------
    folder : SiteFolder

    Guarantee: what it returns is what reading the whole anew would return. Before it goes on it holds every byte
    that was checked to its SHA-256, so that a line that was changed since is found; and wherever something else came
    than whole lines that follow, it reads the whole.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._one_reads = threading.Lock()
        self._checked: Checked | None = None
        self._mark: Any = None
        self._outbound = Left()

    def read(self, mark: object) -> Left:
        """Return the content of the ledger.

        Others read the same object, so it is not to be changed.

        Parameters
        ----------
        mark : object, not None
            Differs whenever there may be more to see; while it is the same nothing is read.

        Raises
        ------
        FlfedError
            If the ledger, its receipts or the site's terms cannot be read.
        """
        # Several pages may ask at once, and one of them reads for all.
        with self._one_reads:
            if mark != self._mark:
                self._outbound = self._read()
                self._mark = mark
            return self._outbound

    def _read(self) -> Left:
        ledger = ledger_of(self._folder)
        receipts = read_receipts(self._folder)
        signed = receipts.all()
        outbound = None
        if self._checked is not None:
            self._checked = gone_on(ledger, self._checked, signed)
            outbound = self._checked.left if self._checked else None
        if outbound is None:
            outbound, self._checked = checked_whole(ledger, signed)
        outbound = replace(
            outbound,
            problems=[*outbound.problems, *ledger.open_to_others(), *receipts.problems],
            receipts=len(receipts.signed),
            signed_lines=max((receipt.n for receipt in receipts.signed), default=0),
            torn=ledger.is_torn(),
        )
        # What is changed in the ledger is told above.
        with suppress(FlfedError):
            last = ledger.last()
            if last is not None and ledger.is_ahead(last):
                outbound.ahead = ahead(last, self._folder.site)
        with suppress(FlfedError):
            outbound.lost = loss(self._folder, ledger)
        return outbound


def checked_whole(ledger: Ledger, receipts: Sequence[Receipt]) -> tuple[Left, Checked | None]:
    """Check a whole ledger and return its content.

    What there is to go on from goes with it, and None where something is not as it was written.

    Every line and every receipt is checked, as `--verify` does.

    Parameters
    ----------
    ledger : Ledger
    receipts : sequence of Receipt
    """
    outbound = Left()
    inspection = Inspection(tuple(receipts))
    size = 0
    digest = hashlib.sha256()

    def noted() -> Iterator[bytes]:
        # Hashed as they are checked, so that the hash is of the very bytes that were checked.
        nonlocal size
        for raw in ledger.raws():
            size += len(raw)
            digest.update(raw)
            yield raw

    for line in inspection.look(noted()):
        outbound.add(line)
    outbound.problems = inspection.problems
    outbound.repairs = inspection.repairs
    outbound.notes = len(inspection.notes)
    # Only an intact ledger is something to go on from.
    if not outbound.problems:
        return outbound, Checked(outbound, size, digest.hexdigest(), frozenset(receipts))
    outbound.sums = {}
    outbound.last = {}
    return outbound, None


def gone_on(ledger: Ledger, checked: Checked, receipts: Sequence[Receipt]) -> Checked | None:
    """Extend a checked ledger by its new lines.

    It is None where the whole must be read.

    Parameters
    ----------
    ledger : Ledger
    checked : Checked
        Of the same ledger, earlier.
    receipts : sequence of Receipt
        As they are now.
    """
    try:
        with ledger.reading() as ledger_file:
            # A ledger never gets shorter, unless somebody cut it.
            if ledger_file is None or ledger_file.size < checked.size:
                return None
            digest = hashlib.sha256()
            _hash(ledger_file, checked.size, digest)
            if digest.hexdigest() != checked.sha256:
                return None
            came = list(takewhile(lambda line: line.n > checked.left.lines, ledger_file.backwards()))[::-1]
            size = ledger_file.size
        if not _follow(checked, came, size):
            return None
        if any(ledger.hash_at(receipt.n) != receipt.head for receipt in {*receipts} - checked.agreed):
            return None
    except LedgerError:
        return None
    left = checked.left.copy() if came else checked.left
    for line in came:
        left.add(line)
        digest.update(line.raw + b"\n")  # as it was checked: read again it may be another
    return Checked(left, size, digest.hexdigest(), checked.agreed.union(receipts))


def _follow(checked: Checked, came: Sequence[Line], size: int) -> bool:
    """Tell whether whole lines, and nothing else, came after what was checked, to a ledger of this size."""
    new_bytes = sum(len(line.raw) + 1 for line in came)
    if new_bytes != size - checked.size or any(line.kind == REPAIRED for line in came):
        return False  # something else stands among them, or was set aside
    # Lines of a clock that was set back are a matter of the full check.
    times = [checked.left.until, *(line.at for line in came)]
    if times != sorted(times):
        return False
    # The first new line must follow the last checked one, which changed meanwhile otherwise.
    return not came or came[0].before == (checked.left.head or START)


def _hash(locked_ledger: LockedLedger, size: int, digest: Any) -> None:
    """Add the first bytes of a ledger to a hash."""
    start = 0
    while start < size:
        block = os.pread(locked_ledger.file, min(BLOCK, size - start), start)
        if not block:
            return  # the file got shorter, so that the hash is another
        digest.update(block)
        start += len(block)
