"""Records of a run's repeats, sorted by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from flfed.records.store.entries import ComparisonRow, DifferenceRow, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader

Place = tuple[str | None, str, str]
"""Where a figure belongs: site (None is all together), arm, metric. Of a difference, the arm against local-only."""


@dataclass(frozen=True)
class Recorded:
    """Records of a run's repeats, found by place.

    Attributes
    ----------
    runs : list of (run, its sites by name)
        In the order of repeats.
    figures : dict of place to rows
        One row a repeat that measured it.
    differences : dict of place to (row, ratio)
        Arm minus local-only, with the repeat's holdout rows per training row (`_ratio`).
    """

    runs: list[tuple[RunEntry, dict[str, SiteEntry]]] = field(default_factory=list)
    figures: dict[Place, list[ComparisonRow]] = field(default_factory=dict)
    differences: dict[Place, list[tuple[DifferenceRow, float | None]]] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: RunReader, runs: Sequence[RunEntry]) -> Self:
        """Return what some runs recorded, sorted by place.

        It takes one pass, however many sites there are.
        """
        recorded = cls()
        for run in runs:
            sites = {site.site: site for site in reader.sites(run.run)}
            recorded.runs.append((run, sites))
            for figure in reader.figures(run.run):
                recorded.figures.setdefault((figure.site, figure.arm, figure.metric), []).append(figure)
            for row in reader.differences(run.run):
                # Each arm is held against the site's own model; other pairs are not reported.
                if row.b == "local-only":
                    found = recorded.differences.setdefault((row.site, row.a, row.metric), [])
                    found.append((row, _ratio(sites.get(row.site or ""))))
        return recorded


def _ratio(entry: SiteEntry | None) -> float | None:
    """Return the holdout rows per training row of a site.

    It is None where the repeats did not draw new holdouts.
    """
    if entry is None or not entry.resplit or not entry.rows or not entry.holdout_rows:
        return None
    return entry.holdout_rows / max(entry.rows - entry.holdout_rows, 1)
