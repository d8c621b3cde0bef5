"""Runs of a dataset that may have replies of its rows, over all studies and coordinators."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from flfed.callbacks import now_utc, stamp
from flfed.paths import SiteFolder, give
from flfed.records.ledger_line import ALLOWED
from flfed.records.site_state import reading, state_of
from flfed.rows.data.policy import Policy
from flfed.words import render


@dataclass(frozen=True)
class Runs:
    """Runs of a dataset; each repeat is one, from its first reply that depends on rows.

    Attributes
    ----------
    dataset : str
    had : int
        Runs with replies, but for those with noise on all that they release.
    most : int
        By the policy, and what people and newcomers added; after a restart of the ledger, by what was added since.
    """

    dataset: str
    had: int
    most: int

    @property
    def left(self) -> int:
        """How many more may begin."""
        return max(self.most - self.had, 0)

    def sentence(self) -> str:
        """Return how many runs are left, and what figures may reveal."""
        return render("budget.runs.left", dataset=self.dataset, left=self.left, most=self.most)


def count_runs(tables: sqlite3.Connection, policy: Policy, dataset: str) -> Runs:
    """Return the runs of a dataset by a site's state."""
    (had,) = tables.execute("SELECT count(*) FROM runs WHERE dataset = ? AND counts", (dataset,)).fetchone()
    (added,) = tables.execute("SELECT coalesce(sum(runs), 0) FROM allowed WHERE dataset = ?", (dataset,)).fetchone()
    restarted = tables.execute("SELECT 1 FROM restarts").fetchone() is not None
    return Runs(dataset, had, int(added + 1e-9) + (0 if restarted else policy.runs))


def read_runs(folder: SiteFolder, policy: Policy, dataset: str) -> Runs:
    """Return the runs of a dataset at a site; raises LedgerError."""
    with reading(folder) as tables:
        return Runs(dataset, 0, policy.runs) if tables is None else count_runs(tables, policy, dataset)


def allow_runs(folder: SiteFolder, policy: Policy, dataset: str, number: int, *, by: str) -> Runs:
    """Let more runs of a dataset have replies, on the site's ledger, and return the runs."""
    folder.make()
    with state_of(folder).transaction() as step:
        step.append(kind=ALLOWED, dataset=dataset, runs=number, by=by)
        step.tables.execute("INSERT INTO allowed VALUES (?, ?, ?, ?)", (dataset, number, by, stamp(now_utc())))
        runs = count_runs(step.tables, policy, dataset)
    give(folder.ledger, folder.gate)  # the gate's user continues it, whichever user runs this
    return runs
