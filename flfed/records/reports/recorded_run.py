"""Records of a run's repeats, sorted by place, and differences of two runs on the same random splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from flfed.records.statistics import Report
from flfed.records.statistics.intervals import possible, resplit_interval
from flfed.records.store.entries import ComparisonRow, DifferenceRow, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader, RunsReader
from flfed.study.study_text import study_values
from flfed.words import render

Place = tuple[str | None, str, str]
"""Key of a figure: site (None is all together), arm, metric. Of a difference, the arm compared with local-only."""


INCUMBENT = "incumbent"
"""Arm of the score in use."""


@dataclass(frozen=True)
class Recorded:
    """Records of a run's repeats, by place.

    Attributes
    ----------
    runs : list of (run, its sites by name)
        In the order of repeats.
    figures : dict of place to rows
        One row for each repeat with the figure.
    differences : dict of place to (row, ratio)
        Arm minus local-only, with the repeat's holdout rows per training row (`_ratio`); under the arm "incumbent"
        the shared model minus the score in use.
    """

    runs: list[tuple[RunEntry, dict[str, SiteEntry]]] = field(default_factory=list)
    figures: dict[Place, list[ComparisonRow]] = field(default_factory=dict)
    differences: dict[Place, list[tuple[DifferenceRow, float | None]]] = field(default_factory=dict)

    @property
    def first(self) -> RunEntry:
        """The run of the first repeat."""
        return self.runs[0][0]

    def values(self, place: Place) -> list[float | None]:
        """Return the figures of a place, by repeat."""
        return [row.value for row in self.figures.get(place, [])]

    @classmethod
    def read(cls, reader: RunsReader, runs: Sequence[RunEntry]) -> Self:
        """Return the records of some runs by place, in one pass."""
        recorded = cls()
        for run in runs:
            sites = {site.site: site for site in reader.sites(run.run)}
            recorded.runs.append((run, sites))
            for figure in reader.figures(run.run):
                recorded.figures.setdefault((figure.site, figure.arm, figure.metric), []).append(figure)
            for row in reader.differences(run.run):
                # Each arm is compared with the site's own model, and the shared one with the score in use.
                if row.b in ("local-only", INCUMBENT):
                    arm = INCUMBENT if row.b == INCUMBENT else row.a
                    pairs = recorded.differences.setdefault((row.site, arm, row.metric), [])
                    pairs.append((row, _ratio(sites.get(row.site or ""))))
        return recorded


LOSS = "log_loss"
"""Metric that is shown beside the primary one."""
LEAST_SPLITS = 2
"""Fewest splits for a difference with an interval."""
SCHEMA = "schema"
"""Name of the hash of a run's schema."""


def paired(base: Recorded, other: Recorded, place: Place, why: str = "") -> Report:
    """Return the gain of another run on the base, on the same random splits of the same rows.

    Parameters
    ----------
    base, other : Recorded
    place : (site or None, arm, metric)
    why : str
        Why there is no such difference, where the caller knows.

    Returns
    -------
    gain : dict
        "value", "low", "high" (95 %), "p" and "repeats", by `resplit_interval`; without such a difference all but
        "repeats" are None, with a "reason".
    """
    none = {"value": None, "low": None, "high": None, "p": None, "repeats": len(base.runs)}
    if why := why or _not_paired(base, other):
        return none | {"reason": why}
    pairs = list(zip(base.figures.get(place, []), other.figures.get(place, []), strict=False))
    values = [b.value - a.value for a, b in pairs if a.value is not None and b.value is not None]
    if len(values) < len(base.runs):
        return none | {"reason": f"defined in {len(values)} of {len(base.runs)} repeats only"}
    if any(a.n != b.n for a, b in pairs):
        return none | {"reason": render("report.pairs.holdouts")}
    mean, low, high, p = resplit_interval(values, _ratio_of_all(base))
    lower, upper = [possible(place[2], bound, difference=True) for bound in (low, high)]
    return {"value": mean, "low": lower, "high": upper, "p": p, "repeats": len(values), "reason": ""}


def _not_paired(base: Recorded, other: Recorded) -> str:
    """Return why two runs are not on the same random splits, or ""."""
    first, sites = base.runs[0]
    second, others = other.runs[0]
    if len(base.runs) < LEAST_SPLITS or len(other.runs) != len(base.runs):
        return render("report.pairs.few", least=LEAST_SPLITS)
    if [run.seed for run, _ in base.runs] != [run.seed for run, _ in other.runs]:
        return render("report.pairs.seeds")
    same_schema = first.hashes.get(SCHEMA) == second.hashes.get(SCHEMA)
    if not same_schema or _rows(sites) != _rows(others):
        # Under a budget that covers all releases, rows are counted with noise, and test rows are not counted.
        row_counts = [*_rows(sites).values(), *_rows(others).values()]
        if any(holdout is None for _, holdout in row_counts):
            return render("report.pairs.unknown")
        return render("report.pairs.rows")
    if not all(entry.resplit for entry in sites.values() if entry.status != "refused"):
        return render("report.pairs.fixed")
    return ""


@dataclass(frozen=True)
class TrainingSums:
    """Sums over the training rows of a series.

    Attributes
    ----------
    inputs : dict
        Keys of the study on which they depend.
    hashes : list of list of str
        By repeat, empty where unknown. Sums of the same rows have one in common.
    """

    inputs: dict[str, Any]
    hashes: list[list[str]]

    @classmethod
    def read(cls, reader: RunReader, recorded: Recorded) -> Self:
        """Return the sums of the runs of one series."""
        study = study_values(reader.series(recorded.first.series).study_text)
        inputs = {key: value for key, value in study.items() if key.startswith(INPUTS)}
        hashes = [(reader.summary(run.run, "training-sums") or {}).get("rounded", []) for run, _ in recorded.runs]
        return cls(inputs, hashes)

    def are_of_other_rows(self, other: TrainingSums) -> bool:
        """Return whether two series are not of the same rows, by the sums of each repeat.

        False where that is unknown, such as of studies that prepare their rows in other ways.
        """
        pairs = zip(self.hashes, other.hashes)
        apart = any(first and second and set(first).isdisjoint(second) for first, second in pairs)
        return apart and self.inputs == other.inputs


def _rows(sites: dict[str, SiteEntry]) -> dict[str, tuple[int | None, int | None]]:
    return {name: (entry.rows, entry.holdout_rows) for name, entry in sites.items() if entry.status != "refused"}


INPUTS = ("dataset.", "encode.", "plan.validation")
"""Keys of a study on which sums over the same rows depend."""


def _ratio_of_all(recorded: Recorded) -> float:
    """Return the holdout rows per training row of all sites together."""
    test_rows = 0
    every = 0
    for _, sites in recorded.runs:
        for rows, holdout in _rows(sites).values():
            every += rows or 0
            test_rows += holdout or 0
    return test_rows / max(every - test_rows, 1)


def _ratio(entry: SiteEntry | None) -> float | None:
    """Return the holdout rows per training row of a site, None where repeats drew no new holdouts."""
    if entry is None or not entry.resplit or not entry.rows or not entry.holdout_rows:
        return None
    return entry.holdout_rows / max(entry.rows - entry.holdout_rows, 1)
