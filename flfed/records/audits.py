"""What an audit of a run's own model found: written beside the run, and read back, the latest of each figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, insert, select

from flfed.errors import UsageError
from flfed.records.bulk import finite, plain
from flfed.records.tables import Audit, Run

COLUMNS = ("at", "attack", "site", "metric", "value", "low", "high", "payload")
"""Of the table `audit`, those that an entry has."""


@dataclass(frozen=True)
class AuditRow:
    """One figure of an attack on the run's own model.

    Parameters
    ----------
    attack, metric : str
        The attack's name, and what `value` is, such as "roc_auc_score".
    site : str or None
        The site attacked, as it may be written down; None where the attack is not on one site.
    value, low, high : float or None
        The figure and its interval; None where it could not be had.
    payload : mapping
        "promise" (float or None), "method", "rows", "verdict" ("within the promise",
        "beyond the promise", "not known", "no promise"), "says" (a sentence), and what else an attack tells.
    """

    attack: str
    site: str | None
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        """Return it as `flfed audit --json` shows it; what is not finite is null."""
        figures = {name: finite(getattr(self, name)) for name in ("value", "low", "high")}
        plain_ones: dict[str, Any] = plain(dict(self.payload))
        return {"attack": self.attack, "site": self.site, "metric": self.metric} | figures | plain_ones


@dataclass(frozen=True)
class AuditEntry(AuditRow):
    """A figure of an attack as the store has it, with the time (UTC) it was written."""

    at: str = ""

    def as_object(self) -> dict[str, Any]:
        """Return it as `flfed audit --json` shows it, with the time."""
        return super().as_object() | {"at": self.at}


def insert_audit(connection: Connection, run: str, at: str, rows: Iterable[AuditRow]) -> None:
    """Insert the figures of one audit, all stamped alike; earlier ones stay.

    Raises
    ------
    UsageError
        If there is no such run.
    """
    if connection.execute(select(Run.id).where(Run.id == run)).first() is None:
        raise UsageError(f"run {run!r} is not in the store")
    lines = [
        {
            "run_id": run, "at": at, "attack": row.attack, "site": row.site, "metric": row.metric,
            "value": finite(row.value), "low": finite(row.low), "high": finite(row.high),
            "payload": plain(dict(row.payload)),
        }
        for row in rows
    ]  # fmt: skip
    if lines:
        connection.execute(insert(Audit), lines)


def audits_of(run: str) -> Select[*tuple[Any, ...]]:
    """Return the query for every figure of a run's audits, in the order they were written."""
    columns = [Audit.__table__.c[name] for name in COLUMNS]
    return select(*columns).where(Audit.run_id == run).order_by(Audit.id)


def latest(rows: Sequence[RowMapping]) -> list[AuditEntry]:
    """Return the last written figure of each attack, site and metric, by these."""
    found = {(row["attack"], row["site"] or "", row["metric"]): AuditEntry(**row) for row in rows}
    return [found[key] for key in sorted(found)]
