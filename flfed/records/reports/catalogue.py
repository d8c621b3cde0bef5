"""Catalogue of the run store: its series, and the log of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import null, select

from flfed.callbacks import stamp
from flfed.records.reports.faults import missing_of
from flfed.records.reports.report import head
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.verdict import interval, metric_name, number
from flfed.records.store.entries import PERSONS_NOTE, RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Metric, Summary


def run_list(
    reader: RunReader,
    *,
    search: str = "",
    limit: int | None = None,
    study: str = "",
    status: str = "",
    engine: str = "",
    since: str = "",
    site: str = "",
) -> Report:
    """Return the object of `flfed run list --json`.

    `runs` are the newest runs, each with the sites that took no part; `series` are the newest series of repeats with
    the shared model's primary metric over all sites. A series' `value` is the mean over its repeats and `sd` their
    standard deviation; `low` and `high` are the interval of one run, null of several, `status` the worst of any
    repeat (by which `status` chooses a series, and with it its runs). Nothing to choose by is "".
    """
    found = reader.runs(search=search, study=study, engine=engine, since=since, site=site)
    together: dict[str, list[RunEntry]] = {}
    for run in found:
        together.setdefault(run.series, []).append(run)
    # Repeats come newest first, and are told from the first on.
    heads = {series: head(runs[::-1], series) for series, runs in together.items()}
    chosen = [series for series, of in heads.items() if status in ("", of["status"])]
    runs = [run for run in found if not status or run.status == status][:limit]
    listed = [run for series in chosen[:limit] for run in together[series]]
    absent = missing_of(reader, list(dict.fromkeys(run.run for run in [*runs, *listed])))
    notes = notes_of(reader, list(absent))
    figures = reader.headline_rows(list(absent))
    series_found = []
    for name in chosen[:limit]:
        first, rows = together[name][-1], [figures[run.run] for run in together[name] if run.run in figures]
        one = rows[0] if len(together[name]) == len(rows) == 1 else None
        series_found.append(
            {key: heads[name][key] for key in ("run", "study", "status", "engine", "rounds")}
            | {"started": first.started, "rounds-planned": first.rounds_planned}
            | {"repeats": len(together[name]), "repeats-planned": first.repeats, "metric": first.primary}
            | {"value": intervals.mean_of([row.value for row in rows]), "sd": intervals.sd_of([r.value for r in rows])}
            | {"low": one and one.low, "high": one and one.high}
            | {"sites": max(absent[run.run]["sites"] for run in together[name])}
            | {"missing": sorted({site for run in together[name] for site in absent[run.run]["missing"]})}
            | {"note": note_in_words({run.run: notes[run.run] for run in together[name][::-1] if run.run in notes})}
        )
    keys = ("run", "study", "status", "engine", "started", "rounds")
    lines = [
        {key: getattr(run, key) for key in keys} | absent[run.run]
        | {"series": run.series, "repeat": run.repeat, "note": notes.get(run.run, ""), "metric": run.primary}
        | {key: getattr(figures.get(run.run), key, None) for key in ("value", "low", "high")}
        for run in runs
    ]  # fmt: skip
    return {"runs": lines, "series": series_found}


def figure_in_words(series: Report) -> tuple[str, str]:
    """Return a series' figure, and its interval or spread.

    Examples
    --------
    >>> figure_in_words({"metric": "roc_auc_score", "value": 0.91, "low": 0.874, "high": 0.944, "sd": None})
    ('AUC .910', '.874 to .944')
    >>> figure_in_words({"metric": "roc_auc_score", "value": 0.91, "low": None, "high": None, "sd": 0.0123})
    ('AUC .910', 'sd .012')
    """
    if series["value"] is None:
        return "", ""
    said = f"{metric_name(series['metric'])} {number(series['value'])}"
    if series["low"] is not None and series["high"] is not None:
        return said, interval(series["low"], series["high"])
    return said, "" if series.get("sd") is None else f"sd {number(series['sd'])}"


def notes_of(reader: RunReader, runs: Sequence[str]) -> dict[str, str]:
    """Return what a person noted, by run.

    One site's people get none of it: it may name other sites.
    """
    query = select(Summary.run_id, Summary.payload).where(Summary.run_id.in_(runs), Summary.name == PERSONS_NOTE)
    return {row["run_id"]: str(row["payload"]["text"]) for row in reader.rows(query, site=null())}


def note_in_words(notes: dict[str, str]) -> str:
    """Return the notes of some runs, each text once."""
    return " | ".join(dict.fromkeys(notes.values()))


def run_log(reader: RunReader, name: str) -> Report:
    """Return what happened in a run or series, in order of time.

    Each line has the run, when it was (UTC), the round and the site if any, a kind and a text. Of a round only its
    seconds are written down: it is told as ended so long after the one before it, and not before its last event.

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
    # Events come by run in the order of writing, so that the last of a round counts.
    latest = {(event.run, event.round): event.at for event in events}
    lines: list[Report] = [_line(run.run, run.started, "begin", f"{run.study} on {run.engine}") for run in runs]
    lines += [_line(event.run, event.at, event.kind, event.reason, event.round, event.site) for event in events]
    now = {run.run: run.started for run in runs}
    for row in reader.rows(clock, site=Metric.site):
        run, seconds = row["run_id"], row["value"] or 0.0
        ended = stamp(datetime.fromisoformat(now[run]) + timedelta(seconds=seconds))
        now[run] = max(ended, latest.get((run, row["round"]), ""))
        lines.append(_line(run, now[run], "round", f"took {seconds:.2f} s", row["round"]))
    ends = [(run, f"{run.status}{run.reason and f': {run.reason}'}") for run in runs if run.finished is not None]
    lines += [_line(run.run, run.finished or "", "end", said) for run, said in ends]
    head_of = head(runs, name)
    # Of equal times the order of the lists stays: an event before its round, and the end last.
    return {key: head_of[key] for key in ("run", "study", "status", "reason")} | {
        "log": sorted(lines, key=lambda line: str(line["at"]))
    }


def _line(run: str, at: str, kind: str, text: str, number_of: int | None = None, site: str | None = None) -> Report:
    return {"at": at, "run": run, "round": number_of, "site": site, "kind": kind, "text": text}
