"""With which sites a dataset's sums were added up: one cohort, unless people change it.

From two sums over other sites of one dataset a coordinator can compute what the sites between them sent. So has the
way: a dataset whose sums left alone has none under secure aggregation, and the other way round.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flfed.records.site_state import SiteState
from flfed.refusals import Refusal
from flfed.updates.masks.pairs import pins_hash
from flfed.updates.messages.kinds import BINS, COMPARE, EVALUATE, SCORES, STATISTIC, SUMMARISE, TRAIN

COHORT, COHORT_SHA256, CHANGED = "cohort", "cohort-sha256", "changed-sites"
"""Keys of a line: the sites whose replies are added up, the hash of these with their fingerprints, and that people
approved other sites than before. A line of a reply that left alone has none of them."""
OVER_ROWS = (TRAIN, EVALUATE, SUMMARISE, BINS, STATISTIC, SCORES)
"""Kinds of messages with updates, or sums over rows."""


def is_over_rows(kind: str, facts: Mapping[str, Any]) -> bool:
    """Return whether a kind of message has updates, or sums over rows; figures count where they may be added up."""
    return kind in OVER_ROWS or (kind == COMPARE and bool(facts.get(COHORT_SHA256)))


def cohort_facts(sites: Mapping[str, str], *, changed: bool) -> dict[str, Any]:
    """Return the ledger's facts of a cohort: sites with the fingerprints of their gates; none where each is alone."""
    facts: dict[str, Any] = {CHANGED: True} if changed else {}
    if sites:
        facts |= {COHORT: ",".join(sorted(sites)), COHORT_SHA256: pins_hash(sites)}
    return facts


def cohort_refusal(tables: sqlite3.Connection, dataset: str, cohort_sha256: str, *, changed: bool) -> Refusal | None:
    """Return why a dataset has no sums with a cohort, None where it has.

    Parameters
    ----------
    tables : sqlite3.Connection
        Of the site's state.
    dataset : str
    cohort_sha256 : str
        Hash of the sites with their fingerprints; "" where each reply leaves alone.
    changed : bool
        Whether people approved other sites than before.
    """
    if changed:
        return None
    last = last_cohort(tables, dataset)
    if last is None:
        lost = bool(cohort_sha256) and tables.execute("SELECT 1 FROM restarts").fetchone() is not None
        return Refusal("cohort-after-loss", dataset=dataset) if lost else None
    cohort, sites = last
    if cohort == cohort_sha256:
        return None
    if not cohort:
        return Refusal("cohort-alone-before", dataset=dataset)
    return Refusal("cohort-other-before", dataset=dataset, sites=sites.replace(",", ", "))


def last_cohort(tables: sqlite3.Connection, dataset: str) -> tuple[str, str] | None:
    """Return the hash of a dataset's last cohort, and its sites with commas between; "" of sums that left alone."""
    query = "SELECT cohort, sites FROM cohorts WHERE dataset = ? ORDER BY n DESC LIMIT 1"
    found: tuple[str, str] | None = tables.execute(query, (dataset,)).fetchone()
    return found


def note_cohort(tables: sqlite3.Connection, facts: Mapping[str, Any], model: str) -> None:
    """Note the cohort of a reply that leaves, and the hash of the model that it was trained from ("" of none)."""
    dataset, cohort = str(facts["dataset"]), str(facts.get(COHORT_SHA256, ""))
    (n,) = tables.execute("SELECT coalesce(max(n), 0) + 1 FROM cohorts").fetchone()
    row = (dataset, cohort, str(facts.get(COHORT, "")), n)
    tables.execute("INSERT OR REPLACE INTO cohorts VALUES (?, ?, ?, ?)", row)
    if model:
        tables.execute("INSERT OR IGNORE INTO trained VALUES (?, ?, ?)", (dataset, model, cohort))


@dataclass(frozen=True)
class SumRecord:
    """What a site's state says of its secure sums.

    Parameters
    ----------
    state : SiteState
    """

    state: SiteState

    def has_keys(self, run: str) -> bool:
        """Return whether the site took the keys of a run."""
        return self._has("SELECT 1 FROM keyed WHERE run = ?", run)

    def has_changed(self, dataset: str) -> bool:
        """Return whether a dataset had more than one cohort, or an unknown one."""
        several = "SELECT 1 FROM cohorts WHERE dataset = ? GROUP BY dataset HAVING count(*) > 1"
        return self._has(f"{several} UNION SELECT 1 FROM restarts", dataset)

    def trained_elsewhere(self, dataset: str, cohort_sha256: str, model: str) -> bool:
        """Return whether a dataset was trained on from a model with another cohort than this one."""
        query = "SELECT 1 FROM trained WHERE dataset = ? AND cohort != ? AND model = ?"
        return self._has(query, dataset, cohort_sha256, model)

    def _has(self, query: str, *values: str) -> bool:
        with self.state.transaction() as step:
            return step.tables.execute(query, values).fetchone() is not None
