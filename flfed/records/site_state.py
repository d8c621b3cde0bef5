"""State of a site in one SQLite file: what it answered, what it has spent, and where its ledger ends.

A transaction changes the tables and adds the next lines of the ledger together. Each line is in the state before it is
in the ledger, so a crash in between loses none: it is appended when the ledger is next locked. Nothing may leave before
a transaction has ended.

A ledger that does not end where the state says takes no line, and neither does a state without its ledger or a ledger
without its state: something of them is lost. Then a person begins both anew (`deployment.site_state.ledger_restart`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flfed.paths import SiteFolder, give
from flfed.records.ledger import Ledger, LedgerError, LedgerLost, LockedLedger, ledger_of
from flfed.records.ledger_line import START, Line, read_line

TABLES = """
CREATE TABLE IF NOT EXISTS ledger_end (id INTEGER PRIMARY KEY CHECK (id = 0), n INTEGER, hash TEXT, size INTEGER,
    raw BLOB);
CREATE TABLE IF NOT EXISTS runs (run TEXT, repeat INTEGER, study TEXT, dataset TEXT, counts INTEGER,
    PRIMARY KEY (run, repeat));
CREATE TABLE IF NOT EXISTS steps (run TEXT, repeat INTEGER, phase INTEGER, round INTEGER, attempt INTEGER,
    level INTEGER, kind TEXT, request TEXT NOT NULL, model TEXT NOT NULL, reply BLOB, error TEXT NOT NULL,
    at TEXT NOT NULL, PRIMARY KEY (run, repeat, phase, round, attempt, level, kind));
CREATE TABLE IF NOT EXISTS allowed (dataset TEXT, runs REAL, by TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, bytes INTEGER NOT NULL, errors INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cohorts (dataset TEXT, cohort TEXT, sites TEXT, n INTEGER, PRIMARY KEY (dataset, cohort));
CREATE TABLE IF NOT EXISTS trained (dataset TEXT, model TEXT, cohort TEXT, PRIMARY KEY (dataset, model, cohort));
CREATE TABLE IF NOT EXISTS keyed (run TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS people (dataset TEXT, snapshot TEXT, holdout TEXT, side TEXT, kind TEXT, keys BLOB,
    PRIMARY KEY (dataset, snapshot, holdout, side, kind));
CREATE TABLE IF NOT EXISTS row_choices (dataset TEXT PRIMARY KEY, study TEXT, choice TEXT);
CREATE TABLE IF NOT EXISTS charges (study_sha256 TEXT, run TEXT, repeat INTEGER, at TEXT, facts TEXT,
    UNIQUE (study_sha256, run, repeat));
CREATE TABLE IF NOT EXISTS drawn (study_sha256 TEXT, run TEXT, repeat INTEGER, step TEXT, request TEXT, numbers BLOB,
    UNIQUE (study_sha256, run, repeat, step));
CREATE TABLE IF NOT EXISTS restarts (at TEXT, by TEXT, why TEXT, epsilon REAL);
"""
"""`ledger_end` has number and hash of the ledger's last line, the size of the file, and the bytes of the last lines;
`runs` each run and repeat that had a reply of rows, and whether it counts; `steps` the journal
(`flfed.federation.client.journal`); `allowed` runs that were added for a dataset; `days` what left on a day; `cohorts`
with which sites a dataset's sums were added up, `trained` from which models, `keyed` in which runs keys were taken;
`people` those of each snapshot that a run has used, by keyed hashes; `row_choices` which rows studies of a dataset
take, with the first study that took some; `charges` each run that spent privacy, `drawn` the noise of its steps;
`restarts` when people began the ledger anew."""


@dataclass(frozen=True)
class Restart:
    """The restart of a lost ledger, after which the budget of then counts as spent."""

    at: str
    by: str
    why: str
    epsilon: float | None


@dataclass
class Step:
    """A transaction under way.

    Attributes
    ----------
    tables : sqlite3.Connection
        What is written to it counts from the end of the transaction.
    """

    tables: sqlite3.Connection
    _ledger: LockedLedger | None = None
    _lines: list[Line] = field(default_factory=list)

    def append(self, *, kind: str, **facts: Any) -> Line | None:
        """Add a line to the ledger with this transaction; None where the state has no ledger."""
        if self._ledger is None:
            return None
        line = self._ledger.next_line(self._lines[-1] if self._lines else None, kind, facts)
        self._lines.append(line)
        return line

    def check_time(self) -> None:
        """Raise LedgerAhead where the ledger's last line is later than the clock."""
        if self._ledger is not None:
            self._ledger.check_time(self._ledger.last())

    def hash_at(self, n: int) -> str:
        """Return the hash of the ledger's line `n`, "" where the state has no ledger or the ledger is shorter."""
        return "" if self._ledger is None else self._ledger.hash_at(n)


class SiteState:
    """State of one site.

    Parameters
    ----------
    path : Path or None
        Its file, which only its owner may read; None keeps the state in memory, for an engine in one process.
    ledger : Ledger or None
        It is locked during each transaction, so that one process writes at a time.
    """

    def __init__(self, path: Path | None = None, ledger: Ledger | None = None) -> None:
        self._path = path
        self._ledger = ledger
        self._in_memory = _connected(None) if path is None else None

    @contextmanager
    def transaction(self) -> Iterator[Step]:
        """Change the state and append lines, all or nothing; an error in the block changes nothing.

        Raises
        ------
        LedgerError
            If state or ledger cannot be read or written, or one of them is lost: then nothing may leave.
        """
        with nullcontext() if self._ledger is None else self._ledger.locked_file() as ledger:
            if ledger is not None:
                ledger = self.mend(ledger)
            with self._writing() as tables:
                step = Step(tables, ledger)
                yield step
                raw = b"".join(line.raw + b"\n" for line in step._lines)
                if ledger is not None and step._lines:
                    _set_end(tables, step._lines[-1], ledger.size + len(raw), raw)
            if ledger is not None and raw:
                ledger.write(raw)

    def mend(self, ledger: LockedLedger) -> LockedLedger:
        """Append lines that a crash left in the state alone; raises LedgerLost where others are missing."""
        missing = self._missing(ledger)
        if missing:
            ledger.write(missing)
        return ledger.grown(len(missing))

    def note(self, line: Line, size: int) -> None:
        """Keep a line that is about to be written to the ledger, and the size that the ledger then has."""
        with self._writing() as tables:
            _set_end(tables, line, size, line.raw + b"\n")

    def check(self, ledger: Ledger) -> None:
        """Raise LedgerLost or LedgerAhead where a ledger can take no line; nothing is written."""
        with ledger.reading() as opened:
            self._missing(opened)
            opened.check_time(opened.last())

    def restarted(self) -> Restart | None:
        """Return the restart of a lost ledger by which this state began; None where it began with its ledger."""
        if self._path is not None and not self._path.exists():
            return None
        with self._tables() as tables:
            row = tables.execute("SELECT at, by, why, epsilon FROM restarts").fetchone()
        return None if row is None else Restart(*row)

    def begin_anew(self, restart: Restart, line: Line) -> None:
        """Write a new state after a restart, with the first line of the new ledger."""
        with self._writing() as tables:
            tables.execute("INSERT INTO restarts VALUES (?, ?, ?, ?)", tuple(vars(restart).values()))
            _set_end(tables, line, len(line.raw) + 1, line.raw + b"\n")

    def _missing(self, ledger: LockedLedger) -> bytes:
        """Return the last lines that the state has and the ledger lacks; raises LedgerLost where others are missing."""
        end = None
        if self._path is None or self._path.exists():
            with self._tables() as tables:
                end = tables.execute("SELECT n, hash, size, raw FROM ledger_end").fetchone()
        n, hash, size, raw = end or (0, START, 0, b"")
        missing = raw[len(raw) - (size - ledger.size) :] if 0 < size - ledger.size <= len(raw) else b""
        # The first missing line must follow the last one that is there.
        first = read_line(missing.split(b"\n")[0])
        expected = (n, hash) if first is None else (first.n - 1, first.before)
        try:
            is_continued = ledger.size + len(missing) == size and ledger.head() == expected
        except LedgerError:
            is_continued = False
        if not is_continued:
            raise LedgerLost(f"{ledger.name}: does not end where {self._path} says, so nothing may leave")
        return missing

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._tables() as tables:
            tables.execute("BEGIN IMMEDIATE")
            try:
                yield tables
                tables.execute("COMMIT")
            finally:
                if tables.in_transaction:
                    tables.execute("ROLLBACK")

    @contextmanager
    def _tables(self) -> Iterator[sqlite3.Connection]:
        """Open the state; a file is opened each time, since a restart may have replaced it."""
        if self._in_memory is not None:
            yield self._in_memory
            return
        try:
            with closing(_connected(self._path)) as tables:
                yield tables
        except sqlite3.Error as error:
            # SQLite's own class of errors is that of a file which is damaged, or none of its own.
            lost = LedgerLost if type(error) is sqlite3.DatabaseError else LedgerError
            raise lost(f"{self._path}: cannot be used ({error}), so nothing may leave") from None


def _connected(path: Path | None) -> sqlite3.Connection:
    try:
        if path is not None and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
            give(path, path.parent)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be opened ({error.strerror}), so nothing may leave") from None
    tables = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=60.0)
    tables.execute("PRAGMA synchronous = FULL")
    tables.executescript(TABLES)
    return tables


def _set_end(tables: sqlite3.Connection, line: Line, size: int, raw: bytes) -> None:
    tables.execute("INSERT OR REPLACE INTO ledger_end VALUES (0, ?, ?, ?, ?)", (line.n, line.hash, size, raw))


@contextmanager
def reading(folder: SiteFolder) -> Iterator[sqlite3.Connection | None]:
    """Open the tables of a site's state to look at them, None where there is no state; nothing is written.

    Raises
    ------
    LedgerError
        If they cannot be read.
    """
    if not folder.state.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(folder.state))}?mode=ro", uri=True)) as tables:
            yield tables
    except sqlite3.Error as error:
        raise LedgerError(f"{folder.state}: cannot be read ({error})") from None


def state_of(folder: SiteFolder) -> SiteState:
    """Return the state of a site; its folder must be there."""
    return SiteState(folder.state, ledger_of(folder))
