"""State of a site in one SQLite file: what it answered, what it has spent, and where its ledger ends.

A transaction changes the tables and adds the next lines of the ledger together. The lines are in the state before they
are in the ledger, so a crash in between loses none: they are appended when the next transaction begins. Nothing may
leave before a transaction has ended.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flfed.paths import SiteFolder, give
from flfed.records.ledger import Ledger, LedgerError, LockedLedger, ledger_of
from flfed.records.ledger_line import Line

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
        self._tables: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Step]:
        """Change the state and append lines, all or nothing; an error in the block changes nothing.

        Raises
        ------
        LedgerError
            If state or ledger cannot be read or written: then nothing may leave.
        """
        with nullcontext() if self._ledger is None else self._ledger.lock() as locked_ledger:
            tables = self._open()
            try:
                tables.execute("BEGIN IMMEDIATE")
                if locked_ledger is not None:
                    locked_ledger = self._mended(tables, locked_ledger)
                step = Step(tables, locked_ledger)
                yield step
                if locked_ledger is not None and step._lines:
                    raw = b"".join(line.raw + b"\n" for line in step._lines)
                    end = (step._lines[-1].n, step._lines[-1].hash, locked_ledger.size + len(raw), raw)
                    tables.execute("INSERT OR REPLACE INTO ledger_end VALUES (0, ?, ?, ?, ?)", end)
                tables.execute("COMMIT")
            except sqlite3.Error as error:
                raise LedgerError(f"{self._path}: cannot be read or written ({error}), so nothing may leave") from None
            finally:
                if tables.in_transaction:
                    tables.execute("ROLLBACK")
            if locked_ledger is not None and step._lines:
                locked_ledger.write(raw)

    def _open(self) -> sqlite3.Connection:
        if self._tables is None:
            try:
                if self._path is not None and not self._path.exists():
                    os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
                    give(self._path, self._path.parent)
                self._tables = sqlite3.connect(
                    self._path or ":memory:", isolation_level=None, check_same_thread=False, timeout=60.0
                )
                self._tables.execute("PRAGMA synchronous = FULL")
                self._tables.executescript(TABLES)
            except (sqlite3.Error, OSError) as error:
                self._tables = None
                raise LedgerError(f"{self._path}: cannot be opened ({error}), so nothing may leave") from None
        return self._tables

    def _mended(self, tables: sqlite3.Connection, ledger: LockedLedger) -> LockedLedger:
        """Append lines that a crash left in the state alone."""
        end = tables.execute("SELECT size, raw FROM ledger_end").fetchone()
        if end is None or ledger.size >= end[0]:
            return ledger
        missing = end[1][len(end[1]) - (end[0] - ledger.size) :]
        if len(missing) != end[0] - ledger.size:
            raise LedgerError(f"{ledger.name}: lines are missing at its end, so nothing may leave; see: {ledger.see}")
        ledger.write(missing)
        return ledger.grown(len(missing))


def state_of(folder: SiteFolder) -> SiteState:
    """Return the state of a site; its folder must be there."""
    return SiteState(folder.state, ledger_of(folder))
