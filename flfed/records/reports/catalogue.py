"""Catalogue of the run store: its series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

from flfed.records.objects import read, read_figure, run_of, site_of
from flfed.records.reports.faults import SiteAttendance, missing_of
from flfed.records.reports.report import CONCLUSION_OBJECTS, conclusion, head, primary_of
from flfed.records.reports.site_verdict import UNDERTRAINED
from flfed.records.section import group
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.verdict import (
    SIGNS,
    Difference,
    describe_verdict,
    gain_in_brackets,
    interval,
    metric_name,
    number,
)
from flfed.records.store.entries import ComparisonRow, RunEntry, SiteEntry, Status
from flfed.records.store.reader import ManyRuns, RunReader
from flfed.study.study_text import parsed_study, study_values
from flfed.words import render


def run_list(reader: RunReader, *, limit: int | None = None) -> Report:
    """Return the object of `flfed run list --json`.

    `runs` are the newest runs, each with the sites that took no part; `series` are the newest series of repeats with
    the shared model's primary metric over all sites. A series' `value` is the mean over its repeats and `sd` their
    standard deviation; `low` and `high` are the interval of one run, null of several, `status` the worst of any
    repeat. Both have the answer of the report: `verdict`, `gain`, with `dataset` and `rows`.
    """
    entries = reader.runs()
    together = group((run.series, run) for run in entries)
    shown = list(together)[:limit]
    runs = entries[:limit]
    needed = {run.run: run for run in runs} | {run.run: run for series in shown for run in together[series]}
    listed = _Listed.read(reader, list(needed.values()))
    lines = [listed.run_line(run) for run in runs]
    # Repeats come newest first; the head begins with the first.
    series = [listed.series_line(head(together[name][::-1], name), together[name]) for name in shown]
    return {"runs": lines, "series": series}


def series_list(reader: RunReader, runs: Sequence[RunEntry]) -> list[Report]:
    """Return the lines of the series of some runs, which come newest first, as `run_list` has them."""
    if not runs:
        return []
    listed = _Listed.read(reader, runs)
    together = group((run.series, run) for run in runs)
    return [listed.series_line(head(of[::-1], series), of) for series, of in together.items()]


@dataclass(frozen=True)
class SeriesLine:
    """Line of a run or series in `run_list`; `gain` is a figure."""

    run: str = ""
    study: str = ""
    status: Status = "completed"
    engine: str = ""
    started: str = ""
    rounds: int = 0
    rounds_planned: int = 0
    repeats: int = 1
    repeats_planned: int = 1
    metric: str = ""
    sites: int = 0
    missing_repeats: Any = None
    dataset: str = ""
    rows: int | None = None
    verdict: str | None = None
    gain: Any = None
    mechanism: str | None = None
    epsilon: float | None = None
    undertrained: bool = False


UNKNOWN = ComparisonRow(None, "", "", None)
"""Figure of a run without a comparison."""


@dataclass(frozen=True)
class _Listed:
    """What the lines of some runs rest on, read at once."""

    reader: ManyRuns
    absent: Mapping[str, SiteAttendance]
    figures: Mapping[str, ComparisonRow]

    @classmethod
    def read(cls, reader: RunReader, runs: Sequence[RunEntry]) -> Self:
        names = [run.run for run in runs]
        many = ManyRuns(reader, runs, CONCLUSION_OBJECTS)
        return cls(many, missing_of(reader, names), reader.headline_rows(names))

    def run_line(self, run: RunEntry) -> Report:
        """Return a run of the list."""
        absent = self.absent[run.run]
        figure = self.figures.get(run.run, UNKNOWN)
        line: Report = {key: getattr(run, key) for key in ("run", "study", "status", "engine", "started", "rounds")}
        line |= {"sites": len(absent.sites), "missing": sorted(absent.missing)}
        line |= {"series": run.series, "repeat": run.repeat, "metric": run.primary}
        line |= {end: getattr(figure, end) for end in ("value", "low", "high")}
        return line | self._answer([run])

    def series_line(self, heading: Report, runs: Sequence[RunEntry]) -> Report:
        """Return a series of the list: its head, with the figure over its repeats, newest first."""
        first = runs[-1]
        rows = [self.figures[run.run] for run in runs if run.run in self.figures]
        values = [row.value for row in rows]
        one = rows[0] if len(runs) == len(rows) == 1 else None
        missing = Counter(chain.from_iterable(self.absent[run.run].missing for run in runs))
        return {
            **{key: heading[key] for key in ("run", "study", "status", "engine", "rounds")},
            "started": first.started,
            "rounds-planned": first.rounds_planned,
            "repeats": len(runs),
            "repeats-planned": first.repeats,
            "metric": first.primary,
            "value": intervals.mean_of(values),
            "sd": intervals.sd_of(values),
            "low": one and one.low,
            "high": one and one.high,
            "sites": max(len(self.absent[run.run].sites) for run in runs),
            "missing": sorted(missing),
            "missing-repeats": dict(sorted(missing.items())),
            **self._answer(runs[::-1]),
        }

    def _answer(self, runs: Sequence[RunEntry]) -> Report:
        """Return the answer of some repeats, with dataset and rows."""
        of = conclusion(self.reader, runs)
        data = parsed_study(self.reader.study_text(runs[0].series)).get("dataset", {})
        counts = [site.rows for site in self.reader.sites(runs[0].run) if site.status != "refused"]
        gain: Report = {end: getattr(of.gain, end) for end in ("value", "low", "high")}
        more = {UNDERTRAINED: True} if of.undertrained else {}
        return {
            "dataset": str(data.get("name", "")),
            "rows": None if None in counts or not counts else sum(counts),
            "verdict": of.verdict,
            "gain": gain | {"minimum-gain": of.minimum_gain},
            "mechanism": of.privacy.mechanism,
            "epsilon": of.privacy.epsilon,
            **more,
        }


def figure_in_words(series: Report) -> tuple[str, str]:
    """Return a series' figure, and its interval or spread.

    Examples
    --------
    >>> figure_in_words({"metric": "roc_auc_score", "value": 0.91, "low": 0.874, "high": 0.944, "sd": None})
    ('AUC 0.910', '0.874 to 0.944')
    >>> figure_in_words({"metric": "roc_auc_score", "value": 0.91, "low": None, "high": None, "sd": 0.0123})
    ('AUC 0.910', 'sd 0.012')
    """
    figure = read_figure(series)
    if figure.value is None:
        return "", ""
    text = f"{metric_name(series['metric'])} {number(figure.value)}"
    if figure.low is not None and figure.high is not None:
        return text, interval(figure.low, figure.high)
    spread = "" if figure.sd is None else f"sd {number(figure.sd)}"
    return text, spread


def answer_in_words(line: Report) -> tuple[str, str]:
    """Return the verdict of a run or series, and its gain with the interval; "" where there is none.

    Examples
    --------
    >>> gain = {"value": 0.11, "low": 0.02, "high": 0.19, "minimum-gain": 0.005}
    >>> line = {"verdict": "joining pays", "metric": "roc_auc_score", "gain": gain}
    >>> answer_in_words(line), answer_in_words(line | {"undertrained": True})[0]
    (('▲ joining improves AUC', '+0.110 (+0.020 to +0.190)'), '▲ joining improves AUC, not trained enough')
    """
    entry = read(SeriesLine, line)
    if entry.verdict is None:
        return "", ""
    words = f"{SIGNS[entry.verdict]} {describe_verdict(entry.verdict, entry.metric)}"
    if entry.undertrained:
        words = render("report.training.listed", verdict=words)
    of = read_figure(entry.gain)
    if of.value is None:
        return words, ""
    return words, gain_in_brackets(Difference.of(of), of.minimum_gain or 0.0)


DATASET = "dataset.name"
"""Key of a study, with its table."""
DRAWN = ("dataset.partition.seed", "dataset.partition.holdout", "split.fixed")
"""Keys of a study that choose other test rows, also where their numbers stay the same."""


def comparison_warnings(runs: Iterable[tuple[str, Report, str, Iterable[SiteEntry]]]) -> list[str]:
    """Return a sentence for each reason why runs cannot be compared.

    Parameters
    ----------
    runs : iterable of (name, report, text of the study, sites)
    """
    datasets: dict[str, list[str]] = {}
    metrics = {}
    judged = {}
    for name, report, text, sites in runs:
        keys = study_values(text)
        datasets.setdefault(str(keys.get(DATASET, "not known")), []).append(name)
        metrics[name] = primary_of(report)
        judged[name] = _test_rows(report, keys, sites)
    lines = []
    if len(datasets) > 1:
        lines.append(render("pages.compare.datasets", groups=_of_groups(datasets)))
    # Only runs on one dataset can be compared at all, so the rest is checked within it.
    for dataset, names in datasets.items():
        where = f"Dataset {dataset}: " if len(datasets) > 1 else ""
        by_metric = group((metric_name(metric), name) for name in names if (metric := metrics[name]))
        if len(by_metric) > 1:
            lines.append(where + render("pages.compare.metrics", groups=_of_groups(by_metric)))
        by_rows = group((judged[name], name) for name in names if judged[name])
        if len(by_rows) > 1:
            groups = "; ".join(map(_and, by_rows.values()))
            lines.append(where + render("pages.compare.rows", groups=groups))
    return lines


def _test_rows(report: Report, keys: Mapping[str, Any], sites: Iterable[SiteEntry]) -> tuple[Any, ...]:
    """Return what distinguishes the test rows of a run, () of a run without a comparison.

    A site's holdout is the same in all runs, unless the site draws another in each repeat: the mean then covers as many
    holdouts as repeats.
    """
    run = run_of(report)
    rows = {name: site_of(site).holdout_rows or 0 for name, site in run.sites.items()}
    if not any(rows.values()) or primary_of(report) is None:
        return ()
    # A fixed holdout is the same in each repeat, so that repeats do not count there.
    repeats = {one.site: run.repeats for one in sites if one.resplit}
    drawn = (str(keys.get(key)) for key in DRAWN)
    return *drawn, *((name, rows[name], repeats.get(name, 1)) for name in sorted(rows))


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _of_groups(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{what}: {_and(names)}" for what, names in groups.items())
