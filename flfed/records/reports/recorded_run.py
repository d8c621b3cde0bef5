"""Records of a run's repeats, sorted by place, and differences of two runs on the same random splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_of, possible, resplit_interval
from flfed.records.statistics.verdict import Difference, better_of, decimals_for, interval, number
from flfed.records.store.entries import ComparisonRow, DifferenceRow, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import parsed_study

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


LOSS = "log_loss"
"""Metric that is told beside the primary one."""
LEAST_SPLITS = 2
"""Of a difference with an interval."""
TELLING = ("better", "worse")
"""Of `shows`."""


def paired(base: Recorded, other: Recorded, place: Place) -> Report:
    """Return how much more the other run reached than the base, on the same random splits of the same rows.

    Parameters
    ----------
    base, other : Recorded
    place : (site or None, arm, metric)

    Returns
    -------
    found : dict
        "value", "low", "high" (95 %), "p" and "repeats", as `resplit_interval` gives them; all but "repeats" are None
        where there is no such difference, and "reason" says why then.
    """
    none = {"value": None, "low": None, "high": None, "p": None, "repeats": len(base.runs)}
    if why := _not_paired(base, other):
        return none | {"reason": why}
    pairs = list(zip(base.figures.get(place, []), other.figures.get(place, []), strict=False))
    values = [b.value - a.value for a, b in pairs if a.value is not None and b.value is not None]
    if len(values) < len(base.runs):
        return none | {"reason": f"defined in {len(values)} of {len(base.runs)} repeats only"}
    if any(a.n != b.n for a, b in pairs):
        return none | {"reason": "the two runs were not judged on the same test rows"}
    mean, low, high, p = resplit_interval(values, _ratio_of_all(base))
    bounds = [possible(place[2], bound, difference=True) for bound in (low, high)]
    return {"value": mean, "low": bounds[0], "high": bounds[1], "p": p, "repeats": len(values), "reason": ""}


def shows(gain: Report, metric: str) -> str:
    """Return in words whether a method is better than the one that it is held against.

    Examples
    --------
    >>> shows({"log_loss": {"value": -0.2, "low": -0.3, "high": -0.1}}, "log_loss")
    'better'
    >>> shows({"log_loss": {"value": -0.2, "low": -0.5, "high": 0.1}}, "log_loss")
    'no difference shown'
    """
    found = gain[metric]
    if found["value"] is None:
        return "cannot be told"
    if found["low"] <= 0 <= found["high"]:
        return "no difference shown"
    return "better" if (found["low"] > 0) == (better_of(metric) == "higher") else "worse"


def with_interval(gain: Report) -> str:
    """Return a difference with its interval, with as many decimals as keep the bounds' side of 0 visible.

    Examples
    --------
    >>> with_interval({"value": -0.0034, "low": -0.0065, "high": -0.0002})
    '−.0034 (−.0065 to −.0002)'
    """
    digits = decimals_for(Difference(gain["value"], gain["low"], gain["high"]))
    ends = interval(gain["low"], gain["high"], digits, signed=True)
    return f"{number(gain['value'], digits, signed=True)} ({ends})"


def _not_paired(base: Recorded, other: Recorded) -> str:
    """Return why two runs are not on the same random splits, "" where they are."""
    (first, sites), (second, others) = base.runs[0], other.runs[0]
    if len(base.runs) < LEAST_SPLITS or len(other.runs) != len(base.runs):
        return f"both need the same repeats, {LEAST_SPLITS} or more"
    if [run.seed for run, _ in base.runs] != [run.seed for run, _ in other.runs]:
        return "their seeds differ, and with them the splits"
    if first.hashes.get("schema") != second.hashes.get("schema") or _rows(sites) != _rows(others):
        # Of a study of which all that leaves is charged, the numbers have noise, and those of test rows do not leave.
        hidden = any(holdout is None for of in (_rows(sites), _rows(others)) for _, holdout in of.values())
        return "it cannot be told whether they are on the same rows" if hidden else "they are not on the same rows"
    if not all(entry.resplit for entry in sites.values() if entry.status != "refused"):
        return "a site's test rows are the same in every repeat"
    return ""


def _rows(sites: dict[str, SiteEntry]) -> dict[str, tuple[int | None, int | None]]:
    return {name: (entry.rows, entry.holdout_rows) for name, entry in sites.items() if entry.status != "refused"}


PLAIN = "fedavg"
"""Name of plain averaging, which other methods are held against."""
SAME_SERIES = 200
"""Newest series that are looked at for methods beside a run."""
UNSAID = ("name", "purpose", "legal-basis", "format", "seed", "expires", "strategy.name", "expected")
"""Keys of a study that do not tell a method from another."""


def methods_of(reader: RunReader, name: str) -> list[Report]:
    """Return what methods reached that were tried on the same random splits as a run, plain averaging first.

    Parameters
    ----------
    reader : RunReader
    name : str
        A run's or series' id.

    Returns
    -------
    found : list of dict
        The run's own series among them: "series", "method" in words, "plain" (whether it is plain averaging), "rounds",
        "value" by metric, and "gain" by metric (`paired`, against the first one; None of the first). Empty where there
        is no other. Without plain averaging the run's own series is the first.
    """
    opened = Recorded.read(reader, reader.runs_of(name))
    newest = dict.fromkeys(run.series for run in reader.runs(limit=SAME_SERIES * max(1, len(opened.runs))))
    alike = [opened]
    for series in newest:
        runs = reader.runs_of(series)
        if series != opened.runs[0][0].series and all(run.status == "completed" for run in runs):
            # What cannot be paired is left out before its figures are read.
            sorted_rows = Recorded(runs=[(run, {entry.site: entry for entry in reader.sites(run.run)}) for run in runs])
            if not _not_paired(opened, sorted_rows):
                alike.append(Recorded.read(reader, runs))
    texts = [leaves(parsed_study(reader.series(one.runs[0][0].series).study_text)) for one in alike]
    plain = next((place for place, text in enumerate(texts) if text.get("strategy.name") == PLAIN), 0)
    order = [plain, *(place for place in range(len(alike)) if place != plain)]
    primary = opened.runs[0][0].primary
    return [
        {
            "series": alike[place].runs[0][0].series,
            "method": _in_words(texts[place], texts[plain]),
            "plain": texts[place].get("strategy.name") == PLAIN,
            "rounds": alike[place].runs[0][0].rounds,
            "value": {metric: _mean(alike[place], metric) for metric in (primary, LOSS)},
            "gain": None
            if place == plain
            else {metric: paired(alike[plain], alike[place], (None, "global", metric)) for metric in (primary, LOSS)},
        }
        for place in (order if len(order) > 1 else ())
    ]


def _mean(recorded: Recorded, metric: str) -> float | None:
    return mean_of([row.value for row in recorded.figures.get((None, "global", metric), [])])


def _in_words(text: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Return a method's name, with the keys in which its study differs from plain averaging's."""
    differing = [
        f"{key.rpartition('.')[2]} {text.get(key, 'not given')}"
        for key in dict.fromkeys([*text, *plain])
        if text.get(key) != plain.get(key) and not key.startswith(UNSAID)
    ]
    return ", ".join([str(text.get("strategy.name", "")), *differing])


def leaves(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the values of nested tables by whole keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        whole = f"{before}{key}"
        found |= leaves(value, f"{whole}.") if isinstance(value, dict) else {whole: value}
    return found


def _ratio_of_all(recorded: Recorded) -> float:
    """Return the holdout rows per training row of all sites together."""
    rows = [own for _, sites in recorded.runs for own in _rows(sites).values()]
    held = sum(holdout or 0 for _, holdout in rows)
    return held / max(sum(all_rows or 0 for all_rows, _ in rows) - held, 1)


def _ratio(entry: SiteEntry | None) -> float | None:
    """Return the holdout rows per training row of a site.

    It is None where the repeats did not draw new holdouts.
    """
    if entry is None or not entry.resplit or not entry.rows or not entry.holdout_rows:
        return None
    return entry.holdout_rows / max(entry.rows - entry.holdout_rows, 1)
