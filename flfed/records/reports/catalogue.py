"""Catalogue of the run store: its series, and the log of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import null, select

from flfed.callbacks import stamp
from flfed.records.objects import read_figure, run_of, write
from flfed.records.reports.faults import SiteAttendance, missing_of
from flfed.records.reports.report import head
from flfed.records.section import group
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.verdict import interval, metric_name, number
from flfed.records.store.entries import PERSONS_NOTE, ComparisonRow, RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Metric, Summary


def run_list(reader: RunReader, *, limit: int | None = None, status: str = "", **chosen: Any) -> Report:
    """Return the object of `flfed run list --json`.

    `runs` are the newest runs, each with the sites that took no part; `series` are the newest series of repeats with
    the shared model's primary metric over all sites. A series' `value` is the mean over its repeats and `sd` their
    standard deviation; `low` and `high` are the interval of one run, null of several, `status` the worst of any
    repeat (by which `status` chooses a series, and with it its runs). Runs are `chosen` as by `RunReader.runs`, where
    "" is no choice.
    """
    entries = reader.runs(**chosen)
    together = group((run.series, run) for run in entries)
    # Repeats come newest first; the head begins with the first.
    heads = {series: head(runs[::-1], series) for series, runs in together.items()}
    shown = [series for series, of in heads.items() if status in ("", run_of(of).status)][:limit]
    runs = [run for run in entries if not status or run.status == status][:limit]
    names = [run.run for run in runs]
    for series in shown:
        names += [run.run for run in together[series]]
    absent = missing_of(reader, list(dict.fromkeys(names)))
    notes = notes_of(reader, list(absent))
    figures = reader.headline_rows(list(absent))
    unknown = ComparisonRow(None, "", "", None)
    lines = [_run_line(run, absent[run.run], notes.get(run.run, ""), figures.get(run.run, unknown)) for run in runs]
    listed = [_series_line(heads[series], together[series], absent, notes, figures) for series in shown]
    return {"runs": lines, "series": listed}


def _run_line(run: RunEntry, absent: SiteAttendance, note: str, figure: ComparisonRow) -> Report:
    """Return a run of the list."""
    line: Report = {key: getattr(run, key) for key in ("run", "study", "status", "engine", "started", "rounds")}
    line |= {"sites": len(absent.sites), "missing": sorted(absent.missing)}
    line |= {"series": run.series, "repeat": run.repeat, "note": note, "metric": run.primary}
    return line | {end: getattr(figure, end) for end in ("value", "low", "high")}


def _series_line(
    heading: Report,
    runs: Sequence[RunEntry],
    absent: Mapping[str, SiteAttendance],
    notes: Mapping[str, str],
    figures: Mapping[str, ComparisonRow],
) -> Report:
    """Return a series of the list: its head, with the figure over its repeats, newest first."""
    first = runs[-1]
    rows = [figures[run.run] for run in runs if run.run in figures]
    values = [row.value for row in rows]
    one = rows[0] if len(runs) == len(rows) == 1 else None
    missing: set[str] = set()
    for run in runs:
        missing |= absent[run.run].missing
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
        "sites": max(len(absent[run.run].sites) for run in runs),
        "missing": sorted(missing),
        "note": note_in_words({run.run: notes[run.run] for run in runs[::-1] if run.run in notes}),
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


def notes_of(reader: RunReader, runs: Sequence[str]) -> dict[str, str]:
    """Return the notes of persons, by run; none for one site's people, as a note may name other sites."""
    query = select(Summary.run_id, Summary.payload).where(Summary.run_id.in_(runs), Summary.name == PERSONS_NOTE)
    return {run: payload["text"] for run, payload in reader.fetch(query, site=null())}


def note_in_words(notes: dict[str, str]) -> str:
    """Return the notes of some runs, each text once."""
    return " | ".join(dict.fromkeys(notes.values()))


def run_log(reader: RunReader, name: str) -> Report:
    """Return the events of a run or series, in order of time.

    A round has only its seconds in the record: it ends so long after the one before it, and not before its last event.

    Raises
    ------
    UsageError
        If there is no such run or series.
    """
    runs = reader.runs_of(name)
    names = [run.run for run in runs]
    query = select(Metric.run_id, Metric.round, Metric.value).order_by(Metric.run_id, Metric.round)
    clock = query.where(Metric.run_id.in_(names), Metric.arm == "clock", Metric.metric == "seconds")
    events = reader.events(names)
    # Events come by run in the order of writing: the last of a round counts.
    latest = {(event.run, event.round): event.at for event in events}
    lines = [LogLine(run.started, run.run, None, None, "begin", f"{run.study} on {run.engine}") for run in runs]
    lines += [LogLine(event.at, event.run, event.round, event.site, event.kind, event.reason) for event in events]
    now = {run.run: run.started for run in runs}
    for row in reader.fetch(clock, site=Metric.site):
        seconds = row.value or 0.0
        ended = stamp(datetime.fromisoformat(now[row.run_id]) + timedelta(seconds=seconds))
        now[row.run_id] = max(ended, latest.get((row.run_id, row.round), ""))
        lines.append(LogLine(now[row.run_id], row.run_id, row.round, None, "round", f"took {seconds:.2f} s"))
    for run in runs:
        if run.finished is not None:
            message = ": ".join(filter(None, (run.status, run.reason)))
            lines.append(LogLine(run.finished, run.run, None, None, "end", message))
    whole = head(runs, name)
    # At equal times an event comes before its round, and the end last.
    lines.sort(key=lambda line: line.at)
    log = [write(line) for line in lines]
    return {key: whole[key] for key in ("run", "study", "status", "reason")} | {"log": log}


@dataclass(frozen=True)
class LogLine:
    """Event of a run: time (UTC), round and site if any, kind and text."""

    at: str
    run: str
    round: int | None
    site: str | None
    kind: str
    text: str
