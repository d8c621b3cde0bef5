"""Report of a run that trains no model, as `--json` prints it and exports write it: its figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.records.statistics import Report

OF_ANY_RUN = (
    "run", "study", "status", "reason", "engine", "seconds", "repeats", "statistics", "faults", "privacy",
)  # fmt: skip
"""Keys that the report of a statistic or an analysis has; all others are of models."""


def statistic_object(found: Mapping[str, Any]) -> Report:
    """Return the report of a run that trains no model: no key is of models, and no object is empty.

    Parameters
    ----------
    found : dict
        From `report.report`.

    Examples
    --------
    >>> statistic_object({"run": "a", "global": {}, "privacy": {"mechanism": "none", "sites": {}}, "faults": []})
    {'run': 'a', 'privacy': {'mechanism': 'none'}, 'faults': []}
    """
    kept: Report = _without_empty({key: value for key, value in found.items() if key in OF_ANY_RUN})
    return kept


def _without_empty(value: Any) -> Any:
    """Return a value without the empty objects in it."""
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_empty(item) for key, item in value.items() if item != {}}
