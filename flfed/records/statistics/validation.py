"""Recorded validation of a model that somebody brought along."""

from __future__ import annotations

from dataclasses import dataclass, field

KEY = "validation"


@dataclass(frozen=True)
class Update:
    """Update of a model's log-odds at a site: see `flfed.summaries.recalibration`."""

    name: str = ""
    intercept: float | None = None
    slope: float | None = None
    before: float | None = None
    after: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    slope_after: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    method: str = ""
    due: bool = False


@dataclass(frozen=True)
class SiteUpdates:
    """Updates of a model at one site, each an `Update`, the new intercept first."""

    updates: list[Update] = field(default_factory=list)


def due_update(updates: list[Update]) -> Update | None:
    """Return the update to make at a site, None where none is due: a new slope where it gains beyond a new intercept.

    Source: Vergouwe et al. 2017, "A closed testing procedure to select an appropriate method for updating prediction
    models".
    """
    due = [one for one in updates if one.due]
    return due[-1] if due else None
