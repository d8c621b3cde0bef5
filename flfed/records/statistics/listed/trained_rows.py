"""Test rows of a run that the model which it began with was trained on: over repeats, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flfed.errors import counted
from flfed.records.statistics import Report

TRAINED_TEST_ROWS = "trained-test-rows"
"""The named object of a run, and its key in the report."""
WORST = 3
"""Sites that a sentence names."""


def trained_over_repeats(found: Sequence[Mapping[str, Any] | None]) -> Report | None:
    """Return the counts of a run's repeats together; None where no repeat has any.

    A row that is held out in several repeats counts in each of them.

    Examples
    --------
    >>> one = {"source": "a", "why": "", "rows": 1, "of": 4, "sites": {"x": {"rows": 1, "of": 4}}}
    >>> trained_over_repeats([one, one, None])
    {'source': 'a', 'why': '', 'rows': 2, 'of': 8, 'sites': {'x': {'rows': 2, 'of': 8}}}
    """
    there = [one for one in found if one is not None]
    known = [one for one in there if not one["why"]]
    if len(known) < len(there) or not there:
        return dict(next(one for one in there if one["why"])) if there else None
    sites: dict[str, dict[str, int]] = {}
    for one in known:
        for site, counts in one["sites"].items():
            before = sites.get(site, {"rows": 0, "of": 0})
            sites[site] = {key: before[key] + counts[key] for key in before}
    # What one site's people see has no counts over all sites.
    over_all = {key: sum(one[key] for one in known) for key in ("rows", "of") if all(key in one for one in known)}
    return {"source": known[0]["source"], "why": "", **over_all, "sites": sites}


def trained_rows_in_words(found: Mapping[str, Any] | None) -> list[str]:
    """Return how many test rows were trained on before, and where; nothing where none was, or no run went before.

    Examples
    --------
    >>> trained_rows_in_words({"source": "a", "why": "", "rows": 0, "of": 8, "sites": {"x": {"rows": 0, "of": 8}}})
    []
    """
    if found is not None and found["why"]:
        return [
            f"Whether test rows are among those that {found['source']}, the model that the run began with, was trained "
            f"on is not known: {found['why']}."
        ]
    if found is None or not found.get("rows"):
        return []
    worst = sorted(found["sites"].items(), key=lambda item: -item[1]["rows"])[:WORST]
    where = ", ".join(f"{of['rows']} of {of['of']} at {site}" for site, of in worst if of["rows"])
    of = counted(found["of"], "test row")
    return [
        f"{found['rows']:,} of {of} are among those that {found['source']}, the model that the run began with, was "
        f"trained on{f' ({where})' if where else ''}: figures on them are too good. Begin anew, or with a model of a "
        "run on the same cut."
    ]


def trained_at_site(found: Mapping[str, Any] | None, site: str) -> list[str]:
    """Return the same of one site, for its people; nothing where none of its test rows was, or that is not known.

    Examples
    --------
    >>> trained_at_site({"sites": {"x": {"rows": 0, "of": 8}}}, "x"), trained_at_site(None, "x")
    ([], [])
    """
    counts = (found or {}).get("sites", {}).get(site, {"rows": 0})
    if not counts["rows"]:
        return []
    of = counted(counts["of"], "test row")
    return [
        f"{counts['rows']:,} of the site's {of} are among those that the model which the "
        "run began with was trained on: its figures here are too good, and the gain is, too."
    ]
